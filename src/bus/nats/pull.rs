//! A stage's deliveries, with exact flow control.
//!
//! Not async-nats' own `messages()`: that prefetches up to one and a half batches, which then sit in this process
//! with their redelivery timers running. Here the server is asked for exactly what was granted.
//!
//! Book-keeping: every granted delivery is in exactly one place, `credit = requested + arrived + declining + to_request`,
//! except while handling what another process left, when more may have arrived than was granted.

mod arrived;
mod request;
mod status;
mod takeover;
mod unreadable;

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use async_nats::{Message, Subject, Subscriber};
use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use throughline_actors::ports::bus::{BusError, Delivery, Inbox, Settlement};
use throughline_schemas::{EventType, StageName};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, Sleep},
};

use super::{Core, Names, complaints::Complaints, error::unavailable_because, receipt, requests, topology};
use arrived::Arrived;
use request::Request;
use status::Meaning;

/// How long to wait before asking again after the server said that it cannot serve.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// An alarm that is later than this was not late because of a busy machine.
const STOOD_STILL: Duration = Duration::from_secs(2);
/// After this many refusals in a row, the server is asked whether the consumer still exists.
const SUSPICIOUS_REFUSALS: u32 = 8;
/// How long a dropped inbox waits for what is still on its way, to give it back.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(2);
/// A waiting request is topped up when this fraction of the window is free; fewer requests, and never none.
const TOP_UP_FRACTION: usize = 4;

/// See [`Inbox`].
pub(super) struct NatsInbox {
    core: Arc<Core>,
    stage: StageName,
    request: Request,
    generation: watch::Receiver<u64>,
    complaints: Complaints,
    /// `None` only while being dropped.
    subscriber: Option<Subscriber>,
    /// Where the server sends messages; changes when a connection or request is given up, so that what was asked
    /// for there cannot arrive beyond what is granted.
    reply: Subject,
    /// Granted and not handed out.
    credit: usize,
    /// Asked of the server and not arrived.
    requested: usize,
    /// The most that was ever granted at once.
    window: usize,
    arrived: VecDeque<(Message, Instant)>,
    /// Reads what the pinned client before this one left; until it has, nothing newer is handed out.
    takeover: JoinSet<Vec<Delivery>>,
    /// When that is given up. A pin that lapses while it lasts, and is won again, gives it no more time: else it could go
    /// on for ever.
    takeover_ends: Instant,
    /// What was left. Handed out in place of what was asked for, so more may arrive than there is credit for; and one more
    /// each time that the pin is renewed.
    inherited: VecDeque<Delivery>,
    /// Deliveries of other stages that are being let go.
    declining: JoinSet<()>,
    last_heard: Instant,
    /// When the server was last asked for anything.
    last_asked: Instant,
    /// Fires when the server was silent for too long, or when asking again is allowed.
    timer: Pin<Box<Sleep>>,
    not_before: Option<Instant>,
    /// What was asked for is void; start over, asking again after this.
    start_over_after: Option<Duration>,
    /// The connection was cut while something was on its way here: perhaps by a message that cannot be read.
    look_for_unreadable: bool,
    /// How often in a row the server could not serve.
    refusals: u32,
}

impl NatsInbox {
    pub(super) async fn open(core: Arc<Core>, stage: StageName) -> Result<Self, BusError> {
        topology::bind(&core, stage).await?;
        let request = Request::new(core.names.events(), stage);
        let generation = core.connection.generation();
        let complaints = core.connection.complaints();
        let (subscriber, reply) = subscribe(&core).await?;
        Ok(Self {
            request,
            generation,
            complaints,
            subscriber: Some(subscriber),
            reply,
            credit: 0,
            requested: 0,
            window: 0,
            arrived: VecDeque::new(),
            takeover: JoinSet::new(),
            takeover_ends: Instant::now(),
            inherited: VecDeque::new(),
            declining: JoinSet::new(),
            last_heard: Instant::now(),
            last_asked: Instant::now(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            not_before: None,
            start_over_after: None,
            look_for_unreadable: false,
            refusals: 0,
            core,
            stage,
        })
    }

    /// Granted, and in none of the other places.
    fn to_request(&self) -> usize {
        self.credit.saturating_sub(self.requested + self.arrived.len() + self.declining.len())
    }

    /// Asks for more if that is worth a request: at once when none is waiting, else when enough has come together.
    async fn ask(&mut self) -> Result<(), BusError> {
        let renewal = self.pin_renewal().is_some_and(|at| at <= Instant::now());
        let free = self.to_request().max(usize::from(renewal));
        let worthwhile = renewal || self.requested == 0 || free * TOP_UP_FRACTION >= self.window;
        if free == 0 || !worthwhile || !self.core.connection.is_up() {
            return Ok(());
        }
        if let Some(not_before) = self.not_before {
            if Instant::now() < not_before {
                return Ok(());
            }
            self.not_before = None;
        }
        let sent = self.core.connection.client.publish_with_reply(
            self.request.subject(),
            self.reply.clone(),
            self.request.body(free),
        );
        sent.await.map_err(|error| unavailable_because("asking for deliveries", error))?;
        // No await from here on: a cancelled call has either sent and counted or done neither.
        if self.requested == 0 {
            self.last_heard = Instant::now();
        }
        self.requested += free;
        self.last_asked = Instant::now();
        Ok(())
    }

    /// When to ask for a message without a slot for it: a client that handles what another one left asks for nothing, but
    /// if its pin lapsed meanwhile, the next one would begin with the same, and both would never come to an end.
    fn pin_renewal(&self) -> Option<Instant> {
        let taking_over = !self.takeover.is_empty() || !self.inherited.is_empty();
        let renews = taking_over && self.request.is_pinned() && self.core.connection.is_up();
        let at = renews.then(|| self.last_asked + request::PIN_RENEWAL)?;
        Some(self.not_before.map_or(at, |not_before| at.max(not_before)))
    }

    /// Whether this process did not run for so long that even the alarm of silence was missed. A server that was silent is
    /// found out by the alarm, in time.
    fn stood_still(&self) -> bool {
        self.requested > 0 && self.last_heard.elapsed() > self.request.silence() + STOOD_STILL
    }

    /// Gives up what was asked for and starts over on a new reply subject; what has arrived stays.
    async fn start_over(&mut self, after: Duration) -> Result<(), BusError> {
        let (subscriber, reply) = subscribe(&self.core).await?;
        let stood_still = self.stood_still();
        if let Some(mut old) = self.subscriber.replace(subscriber) {
            while let Some(Some(message)) = old.next().now_or_never() {
                if arrived::is_delivery(&message) && !stood_still {
                    self.arrived.push_back((message, self.core.stall_detector.came()));
                }
            }
        }
        if self.requested > 0 && self.request.is_pinned() {
            // What was on its way comes again after the ack wait, and newer inputs at once.
            self.take_over(u64::MAX);
        }
        self.reply = reply;
        self.requested = 0;
        self.not_before = (!after.is_zero()).then(|| Instant::now() + after);
        self.start_over_after = None;
        Ok(())
    }

    /// Takes in one message of the subscription.
    fn take(&mut self, message: Message) -> Result<(), BusError> {
        if self.stood_still() {
            // How long it lay in the buffers is not known, so another process may have it by now. It comes again.
            tracing::warn!(stage = %self.stage, "this process stood still; what was delivered to it meanwhile is left to others");
            self.start_over_after = Some(Duration::ZERO);
            return Ok(());
        }
        self.last_heard = Instant::now();
        let Some(status) = message.status.filter(|_| !arrived::is_delivery(&message)) else {
            self.requested = self.requested.saturating_sub(1);
            self.refusals = 0;
            if self.request.note_pin(&message)
                && let Some(first) = arrived::first_delivery(&message)
            {
                self.take_over(first);
            }
            self.arrived.push_back((message, self.core.stall_detector.came()));
            return Ok(());
        };
        match status::meaning(status, &message) {
            Meaning::Alive => {}
            Meaning::Returned(unused) => self.requested = self.requested.saturating_sub(unused),
            Meaning::PinLost => {
                self.request.forget_pin();
                self.start_over_after = Some(Duration::ZERO);
            }
            Meaning::Refused(why) => {
                tracing::debug!(stage = %self.stage, why, "the server cannot deliver now; asking again");
                self.refusals = self.refusals.saturating_add(1);
                self.start_over_after = Some(ASK_AGAIN);
            }
            Meaning::Gone(why) => return Err(BusError::NotSetUp(why)),
        }
        Ok(())
    }

    /// This client is the pinned one, and the first that comes to it by itself is this: reads what came before.
    fn take_over(&mut self, first: u64) {
        if self.takeover.is_empty() {
            self.takeover_ends = Instant::now() + takeover::LIMIT;
        }
        self.takeover.abort_all();
        self.inherited.clear();
        let core = Arc::clone(&self.core);
        self.takeover.spawn(takeover::unanswered(core, self.stage, first, self.takeover_ends));
    }

    /// Does what a message or the connection made necessary. Cancel-safe: it is remembered until it is done.
    async fn attend(&mut self) -> Result<(), BusError> {
        let Some(after) = self.start_over_after else { return Ok(()) };
        if self.refusals >= SUSPICIOUS_REFUSALS {
            let consumer = Names::consumer(self.stage);
            if requests::consumer_is_missing(&self.core, self.core.names.events(), consumer).await {
                return Err(BusError::NotSetUp(format!("the consumer {consumer} does not exist")));
            }
            self.refusals = 0;
        }
        if self.look_for_unreadable {
            unreadable::dead_letter_all(&self.core, self.stage).await;
            self.look_for_unreadable = false;
        }
        self.start_over(after).await
    }

    /// The next delivery that is here already. Bodies that are kept elsewhere are fetched when there is memory for them.
    fn ready(&mut self) -> Option<Delivery> {
        if !self.takeover.is_empty() {
            return None;
        }
        if self.credit > self.declining.len()
            && let Some(delivery) = self.inherited.pop_front()
        {
            self.credit -= 1;
            return Some(delivery);
        }
        while self.credit > self.declining.len() {
            let message = self.arrived.pop_front()?;
            match arrived::read(&self.core, self.stage, message) {
                Some(Arrived::Own(delivery)) => {
                    self.credit -= 1;
                    return Some(delivery);
                }
                Some(Arrived::Foreign(delivery)) => {
                    self.declining.spawn(arrived::decline(delivery));
                }
                None => {}
            }
        }
        None
    }

    /// When to wake up without any message.
    fn alarm(&self) -> Option<Instant> {
        let silence = (self.requested > 0).then(|| self.last_heard + self.request.silence());
        [self.not_before, silence, self.pin_renewal()].into_iter().flatten().min()
    }

    /// Waits until something happens, and notes it. Cancel-safe: noting does not wait.
    async fn wait(&mut self) -> Result<(), BusError> {
        let alarm = self.alarm();
        // The timer is moved only when it fired or is late: setting it for each message would cost more than
        // reading the message.
        if let Some(at) = alarm
            && (self.timer.is_elapsed() || at < self.timer.deadline())
        {
            self.timer.as_mut().reset(at);
        }
        let Some(subscriber) = self.subscriber.as_mut() else { return Ok(()) };
        tokio::select! {
            biased;
            changed = self.generation.changed() => {
                changed.map_err(|error| unavailable_because("waiting for deliveries", error))?;
                self.look_for_unreadable |= self.requested > 0 || !self.takeover.is_empty();
                self.start_over_after = Some(Duration::ZERO);
            }
            Some(found) = self.takeover.join_next(), if !self.takeover.is_empty() => {
                // A reader that was replaced by another was stopped, and has nothing to say.
                self.inherited.extend(found.unwrap_or_default());
            }
            Some(_) = self.declining.join_next(), if !self.declining.is_empty() => {}
            message = subscriber.next() => match message {
                Some(message) => self.take(message)?,
                None => self.start_over_after = Some(ASK_AGAIN),
            },
            () = self.timer.as_mut(), if alarm.is_some() => {
                if self.requested > 0 && self.last_heard.elapsed() >= self.request.silence() {
                    if let Some(words) = self.complaints.forbidden_by_now(&self.request.subject()) {
                        return Err(BusError::Forbidden(words));
                    }
                    tracing::debug!(stage = %self.stage, "no heartbeat from the consumer; asking again");
                    self.start_over_after = Some(Duration::ZERO);
                }
            }
        }
        Ok(())
    }
}

async fn subscribe(core: &Core) -> Result<(Subscriber, Subject), BusError> {
    let client = &core.connection.client;
    let reply = Subject::from(client.new_inbox());
    let subscriber = client
        .subscribe(reply.clone())
        .await
        .map_err(|error| unavailable_because("subscribing for deliveries", error))?;
    Ok((subscriber, reply))
}

#[async_trait]
impl Inbox for NatsInbox {
    async fn grant(&mut self, n: usize) -> Result<(), BusError> {
        self.credit += n;
        self.window = self.window.max(self.credit);
        self.ask().await
    }

    async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            // While what was left is handed out, what comes is noted all the same, or this process would seem to have
            // stood still in the end.
            while !self.inherited.is_empty()
                && let Some(Some(message)) =
                    self.subscriber.as_mut().and_then(|subscriber| subscriber.next().now_or_never())
            {
                self.take(message)?;
            }
            // What is here already is handed out without looking at timers.
            if let Some(delivery) = self.ready() {
                return Ok(delivery);
            }
            let here = self.subscriber.as_mut().and_then(|subscriber| subscriber.next().now_or_never());
            if let Some(Some(message)) = here {
                self.take(message)?;
                continue;
            }
            self.attend().await?;
            self.ask().await?;
            self.wait().await?;
        }
    }
}

impl Drop for NatsInbox {
    /// Gives back what was delivered and not handed out, so that another worker has it at once instead of after the
    /// ack wait; then the pin, so that another is pinned at once.
    fn drop(&mut self) {
        let (Some(mut subscriber), Ok(runtime)) =
            (self.subscriber.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let core = Arc::clone(&self.core);
        let arrived = std::mem::take(&mut self.arrived);
        let mut held: Vec<Message> = arrived.into_iter().map(|(message, _)| message).collect();
        let unpin = self.request.unpin();
        let counted = core.closing.enter();
        runtime.spawn(async move {
            let _counted = counted;
            // After draining, the stream ends behind the last message that the server had sent.
            let drained = async {
                if subscriber.drain().await.is_ok() {
                    while let Some(message) = subscriber.next().await {
                        held.push(message);
                    }
                }
            };
            let in_time = tokio::time::timeout(GIVE_BACK_LIMIT, drained).await.is_ok();
            let unhandled = held.into_iter().filter(arrived::is_delivery);
            for reply in unhandled.filter_map(|message| message.reply) {
                let again = receipt::answer(&Settlement::Retried { after: Duration::ZERO });
                if requests::send(&core, reply, again).await.is_err() {
                    return;
                }
            }
            if let Some((subject, body)) = unpin
                && let Err(error) = requests::send(&core, subject, body).await
            {
                tracing::debug!(%error, "the pin was not given up; it lapses by itself");
            }
            if !in_time {
                tracing::debug!("an inbox was not drained in time; what it missed comes again");
            }
        });
    }
}

/// Whether a type's publishers are ourselves. References in anybody else's messages are not followed, or a header
/// could make us read arbitrary objects.
fn is_ours(event_type: EventType) -> bool {
    event_type != EventType::UserInputReceived
}
