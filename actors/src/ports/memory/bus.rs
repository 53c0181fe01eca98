//! The event bus in memory: one log, any number of workers, on tokio's clock.
//!
//! As with the real one, several open inboxes of one stage share its deliveries, except that those of the input stage go
//! to the one that is pinned.

mod fill;
mod inbox;
mod log;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use throughline_schemas::{
    Event, EventType, MAJOR, Namespace, SessionId, StageName, Subject, Timestamp, WorkflowId, dead_letter,
    decode, encode,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::ports::bus::{
    AttemptLog, Broadcast, Bus, BusError, Claim, Claimed, DeadLetter, DeadLetters, Delivery, DeliveryState,
    Ends, EventLog, Inbox, Inboxes, Latest, Position, Published,
};
use crate::ports::log::Purge;
use inbox::MemoryInbox;
use log::Log;
pub use log::Stored;

/// What the real consumers have by default.
const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);
/// As above.
const DEFAULT_MAX_DELIVER: u32 = 100;
/// The wall clock at the fake's start: tests see the same times in every run.
const EPOCH_UNIX_MS: i64 = 1_750_000_000_000;

/// See the module. Clones share everything.
#[derive(Clone)]
pub struct MemoryBus {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    ns: Namespace,
    ack_wait: Duration,
    max_deliver: u32,
    started: Instant,
    state: Mutex<State>,
    /// Counts changes, for those that wait for one.
    changes: watch::Sender<u64>,
    /// Inboxes opened so far.
    inboxes: AtomicU64,
}

#[derive(Default)]
struct State {
    log: Log,
    dead: Vec<Stored>,
    dead_lettered: Vec<(StageName, u64)>,
    claims: HashMap<(StageName, u64), Claimed>,
    attempt_logs: HashMap<(StageName, u64), AttemptLog>,
    announcements: Vec<(String, Bytes)>,
    live: Vec<(WorkflowId, Bytes)>,
    listeners: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    faults: VecDeque<PublishFault>,
    offline: bool,
    /// What the log may take, in bytes; no limit if unset.
    max_bytes: Option<u64>,
    /// Large bodies, if there is a limit to what they may take.
    bodies: Option<fill::LargeBodies>,
    /// What was removed last, and how many purges there were.
    purged: Option<Purge>,
    purges: usize,
    /// Who takes the inputs, and when that one last asked for more.
    pin: Option<(u64, Instant)>,
}

/// What happens to a publish that is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishFault {
    /// It does not reach the stream.
    Lost,
    /// It reaches the stream, and its acknowledgement is lost.
    Unacknowledged,
    /// The stream is full.
    Full,
}

impl MemoryBus {
    /// An empty bus; unanswered deliveries come again after 30 s.
    pub fn new(ns: Namespace) -> Self {
        Self::with_ack_wait(ns, DEFAULT_ACK_WAIT)
    }

    /// An empty bus; unanswered deliveries come again after `ack_wait`.
    pub fn with_ack_wait(ns: Namespace, ack_wait: Duration) -> Self {
        Self::with_limits(ns, ack_wait, DEFAULT_MAX_DELIVER)
    }

    /// An empty bus; a message that was delivered `max_deliver` times and not settled is given up on.
    pub fn with_limits(ns: Namespace, ack_wait: Duration, max_deliver: u32) -> Self {
        Self {
            shared: Arc::new(Shared {
                ns,
                ack_wait,
                max_deliver,
                started: Instant::now(),
                state: Mutex::default(),
                changes: watch::Sender::new(0),
                inboxes: AtomicU64::new(0),
            }),
        }
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.shared.ns
    }

    /// Stores a message as any NATS client might publish it, and returns its sequence.
    pub fn publish_raw(&self, subject: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> u64 {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let now = self.shared.now();
        let sequence = self.shared.lock().log.append(subject.to_owned(), headers, body.into(), now);
        self.shared.changed();
        sequence
    }

    /// Stores a bare JSON input on the bare input subject.
    pub fn publish_input(&self, user: &str, session: &str, workflow: &str, text: &str) -> u64 {
        let body = serde_json::json!({
            "user_id": user, "session_id": session, "workflow_id": workflow, "user_input": text,
        });
        self.publish_raw(&self.shared.ns.bare_input(), &[], body.to_string())
    }

    /// Everything stored so far.
    pub fn stored(&self) -> Vec<Stored> {
        self.shared.lock().log.all().to_vec()
    }

    /// The stored events that our own stages published, in order. Inputs and whatever cannot be read are left out.
    pub fn events(&self) -> Vec<Event> {
        self.stored()
            .iter()
            .filter(|stored| Subject::parse(&self.shared.ns, &stored.subject).is_some())
            .filter_map(|stored| decode(&stored.body).ok())
            .collect()
    }

    /// The stored event of this type and workflow.
    pub fn event(&self, event_type: EventType, workflow: &WorkflowId) -> Option<Event> {
        self.events()
            .into_iter()
            .find(|event| event.event_type() == event_type && event.meta.workflow_id == *workflow)
    }

    /// Every dead letter so far.
    pub fn dead_letters(&self) -> Vec<Stored> {
        self.shared.lock().dead.clone()
    }

    /// Every announcement so far: topic and body.
    pub fn announcements(&self) -> Vec<(String, Bytes)> {
        self.shared.lock().announcements.clone()
    }

    /// The live frames of a workflow so far.
    pub fn live_frames(&self, workflow: &WorkflowId) -> Vec<Bytes> {
        let state = self.shared.lock();
        state.live.iter().filter(|(of, _)| of == workflow).map(|(_, frame)| frame.clone()).collect()
    }

    /// Hears announcements of a topic from now on.
    pub fn listen(&self, topic: &str) -> mpsc::UnboundedReceiver<Bytes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.shared.lock().listeners.push((topic.to_owned(), sender));
        receiver
    }

    /// Waits for the workflow's end and returns it. The caller limits the wait.
    pub async fn ended(&self, workflow: &WorkflowId) -> Event {
        let is_end = |event: &Event| event.event_type().is_end() && event.meta.workflow_id == *workflow;
        self.wait_until(|bus| bus.events().into_iter().find(|event| is_end(event))).await
    }

    /// Waits until there are so many dead letters. The caller limits the wait.
    pub async fn until_dead_letters(&self, count: usize) -> Vec<Stored> {
        self.wait_until(|bus| Some(bus.dead_letters()).filter(|dead| dead.len() >= count)).await
    }

    /// Waits until `probe` finds something, looking again after every change. The caller limits the wait.
    pub async fn wait_until<T>(&self, probe: impl Fn(&Self) -> Option<T>) -> T {
        let mut changes = self.shared.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(found) = probe(self) {
                return found;
            }
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    /// How many deliveries of a stage are out and neither settled nor due again.
    pub fn in_hand(&self, stage: StageName) -> usize {
        self.shared.lock().log.in_hand(stage)
    }

    /// Makes the next publishes fail, one for each fault.
    pub fn fail_publishes(&self, faults: impl IntoIterator<Item = PublishFault>) {
        self.shared.lock().faults.extend(faults);
    }

    /// Power loss: what was stored behind this sequence has vanished, with what the stages knew of it.
    pub fn roll_back(&self, to: u64) {
        self.shared.lock().log.roll_back(to);
        self.shared.changed();
    }

    /// The consumer of a stage is recreated, or rewound: what is stored behind this sequence is delivered to it for the
    /// first time.
    pub fn rewind(&self, stage: StageName, to: u64) {
        self.shared.lock().log.rewind(stage, to);
        self.shared.changed();
    }

    /// Cuts or restores the connection. While it is cut nothing is delivered, publishes are unavailable, and
    /// answers for deliveries are lost.
    pub fn set_connected(&self, connected: bool) {
        self.shared.lock().offline = !connected;
        self.shared.changed();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_unix_ms(EPOCH_UNIX_MS.saturating_add(elapsed))
    }
}

fn unavailable(context: &str) -> BusError {
    BusError::Unavailable { context: context.to_owned(), source: None }
}

#[async_trait]
impl Inboxes for MemoryBus {
    async fn open(&self, stage: StageName) -> Result<Box<dyn Inbox>, BusError> {
        if self.shared.lock().offline {
            return Err(unavailable("opening an inbox"));
        }
        Ok(Box::new(MemoryInbox::new(Arc::clone(&self.shared), stage, false)))
    }

    async fn open_undeliverable(&self, stage: StageName) -> Result<Box<dyn Inbox>, BusError> {
        if self.shared.lock().offline {
            return Err(unavailable("opening an inbox"));
        }
        Ok(Box::new(MemoryInbox::new(Arc::clone(&self.shared), stage, true)))
    }
}

#[async_trait]
impl EventLog for MemoryBus {
    async fn publish(&self, event: &Event) -> Result<Published, BusError> {
        let body = Bytes::from(encode(event)?);
        let subject = event.subject().live(&self.shared.ns);
        let headers = vec![
            ("Nats-Msg-Id".to_owned(), event.meta.id.clone()),
            ("Content-Type".to_owned(), "application/cloudevents+json".to_owned()),
            ("traceparent".to_owned(), event.meta.traceparent.to_string()),
        ];
        let now = self.shared.now();
        let published = {
            let mut state = self.shared.lock();
            if state.offline {
                return Err(unavailable("publishing"));
            }
            let fault = state.faults.pop_front();
            match fault {
                Some(PublishFault::Lost) => return Err(unavailable("publishing")),
                Some(PublishFault::Full) => return Err(BusError::Full("maximum bytes exceeded".to_owned())),
                Some(PublishFault::Unacknowledged) | None => {}
            }
            state.log.take_foreign(&subject, &event.subject());
            let published = if state.log.has(&subject) {
                Published::Already
            } else if state.is_full(body.len()) {
                return Err(BusError::Full("maximum bytes exceeded".to_owned()));
            } else if state.lacks_room_for_body(body.len()) {
                return Err(BusError::BodiesFull("maximum bytes exceeded".to_owned()));
            } else {
                let bytes = body.len();
                state.log.append(subject, headers, body, now);
                state.keep_body(bytes);
                Published::New
            };
            if fault.is_some() { Err(unavailable("publishing")) } else { Ok(published) }
        };
        self.shared.changed();
        published
    }

    async fn exists(&self, subject: &Subject) -> Result<bool, BusError> {
        let state = self.shared.lock();
        if state.offline {
            return Err(unavailable("looking up an event"));
        }
        Ok(state.log.event(&subject.live(&self.shared.ns), subject).is_some())
    }

    async fn stored_at(&self, subject: &Subject) -> Result<Option<Timestamp>, BusError> {
        let state = self.shared.lock();
        if state.offline {
            return Err(unavailable("looking up an event"));
        }
        let subject = subject.live(&self.shared.ns);
        let stored = state.log.all().iter().rev().find(|stored| stored.subject == subject);
        Ok(stored.map(|stored| stored.stored_at))
    }

    async fn recorded(&self, subject: &Subject) -> Result<Option<Bytes>, BusError> {
        let state = self.shared.lock();
        if state.offline {
            return Err(unavailable("reading an event"));
        }
        Ok(state.log.event(&subject.live(&self.shared.ns), subject))
    }

    async fn position(&self) -> Result<Position, BusError> {
        let state = self.shared.lock();
        if state.offline {
            return Err(unavailable("asking for the position"));
        }
        let stages = StageName::ALL.into_iter().filter(|stage| *stage != StageName::Input);
        let settled = stages.map(|stage| (stage, state.log.settled(stage))).collect();
        let last = state.log.all().last().map_or(0, |stored| stored.sequence);
        Ok(Position { last, settled, now: Some(self.shared.now()) })
    }

    async fn latest(&self, session: &SessionId, workflow: &WorkflowId) -> Result<Option<Latest>, BusError> {
        let state = self.shared.lock();
        if state.offline {
            return Err(unavailable("looking up the latest event"));
        }
        let stored = state.log.all().iter().rev();
        Ok(stored
            .filter_map(|stored| Some((stored, Subject::parse(&self.shared.ns, &stored.subject)?)))
            .filter(|(_, subject)| subject.event_type() != EventType::UserInputReceived)
            .find(|(_, subject)| *subject == Subject::new(subject.event_type(), session, workflow))
            .map(|(stored, subject)| Latest {
                key: subject.key().clone(),
                sequence: stored.sequence,
                stored_at: stored.stored_at,
            }))
    }

    async fn publish_again(&self, subject: &Subject, sequence: u64) -> Result<Published, BusError> {
        let now = self.shared.now();
        let published = {
            let mut state = self.shared.lock();
            if state.offline {
                return Err(unavailable("publishing again"));
            }
            match state.log.take(&subject.live(&self.shared.ns), sequence) {
                Some(stored) => {
                    state.log.append(stored.subject, stored.headers, stored.body, now);
                    Published::New
                }
                None => Published::Already,
            }
        };
        self.shared.changed();
        Ok(published)
    }

    async fn ends_from(&self, sequence: u64, most: u64) -> Result<Ends, BusError> {
        let state = self.shared.lock();
        if state.offline {
            return Err(unavailable("reading ends"));
        }
        let last = state.log.all().last().map_or(0, |stored| stored.sequence);
        let is_end = |stored: &&Stored| {
            Subject::parse(&self.shared.ns, &stored.subject)
                .is_some_and(|subject| subject.event_type().is_end())
        };
        let behind = state.log.all().iter().filter(|stored| stored.sequence >= sequence);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut found: Vec<&Stored> = behind.filter(is_end).take(most + 1).collect();
        let is_cut = found.len() > most;
        found.truncate(most);
        let read_to = if is_cut { found.last().map_or(last, |stored| stored.sequence) } else { last };
        Ok(Ends { ends: found.into_iter().map(|stored| stored.body.clone()).collect(), read_to })
    }
}

#[async_trait]
impl DeadLetters for MemoryBus {
    async fn dead_letter(&self, delivery: &Delivery, letter: &DeadLetter) -> Result<(), BusError> {
        let ns = &self.shared.ns;
        let subject = match &letter.subject {
            Some(subject) => subject.dead(ns),
            None => {
                format!("{ns}.dead.v{MAJOR}.{}.unknown.{}", letter.stage.consumes(), delivery.sequence)
            }
        };
        let ours = [
            (dead_letter::STAGE, letter.stage.to_string()),
            (dead_letter::CODE, letter.code.to_string()),
            (dead_letter::ERROR, letter.error.replace(char::is_control, " ")),
            (dead_letter::ATTEMPTS, delivery.delivered.to_string()),
            (dead_letter::SUBJECT, delivery.subject.clone()),
            (dead_letter::SEQUENCE, delivery.sequence.to_string()),
            (dead_letter::TIME, letter.at.to_string()),
        ];
        let theirs = delivery.headers.iter().map(|(name, value)| (kept_name(name), value.clone()));
        let headers = ours.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(theirs).collect();
        let stored_at = self.shared.now();
        {
            let mut state = self.shared.lock();
            if state.offline {
                return Err(unavailable("storing a dead letter"));
            }
            let key = (letter.stage, delivery.sequence);
            if !state.dead_lettered.contains(&key) {
                state.dead_lettered.push(key);
                let sequence = state.dead.len() as u64 + 1;
                state.dead.push(Stored {
                    sequence,
                    subject,
                    headers,
                    body: delivery.body.clone(),
                    stored_at,
                });
            }
        }
        self.shared.changed();
        Ok(())
    }
}

#[async_trait]
impl DeliveryState for MemoryBus {
    async fn claim(&self, of: StageName, sequence: u64) -> Result<Option<Claimed>, BusError> {
        let state = self.shared.lock();
        if state.offline {
            return Err(unavailable("looking up a claim"));
        }
        Ok(state.claims.get(&(of, sequence)).cloned())
    }

    async fn set_claim(
        &self,
        of: StageName,
        sequence: u64,
        claim: &Claim,
        revision: u64,
    ) -> Result<Published, BusError> {
        let mut state = self.shared.lock();
        if state.offline {
            return Err(unavailable("claiming a message"));
        }
        let claimed = state.claims.entry((of, sequence)).or_default();
        if claimed.revision != revision {
            return Ok(Published::Already);
        }
        *claimed = Claimed { claim: claim.clone(), revision: revision + 1 };
        Ok(Published::New)
    }

    async fn attempt_log(&self, of: StageName, sequence: u64) -> Result<Option<AttemptLog>, BusError> {
        let state = self.shared.lock();
        if state.offline {
            return Err(unavailable("reading a note"));
        }
        Ok(state.attempt_logs.get(&(of, sequence)).cloned())
    }

    async fn keep_attempt_log(
        &self,
        of: StageName,
        sequence: u64,
        attempt_log: &AttemptLog,
    ) -> Result<(), BusError> {
        let mut state = self.shared.lock();
        if state.offline {
            return Err(unavailable("keeping a note"));
        }
        state.attempt_logs.insert((of, sequence), attempt_log.clone());
        Ok(())
    }
}

#[async_trait]
impl Broadcast for MemoryBus {
    async fn announce(&self, topic: &str, body: Bytes) -> Result<(), BusError> {
        let mut state = self.shared.lock();
        if state.offline {
            return Err(unavailable("announcing"));
        }
        state.announcements.push((topic.to_owned(), body.clone()));
        state.listeners.retain(|(of, listener)| of != topic || listener.send(body.clone()).is_ok());
        drop(state);
        self.shared.changed();
        Ok(())
    }

    fn live(&self, workflow: &WorkflowId, frame: Bytes) -> bool {
        let mut state = self.shared.lock();
        let taken = !state.offline;
        if taken {
            state.live.push((workflow.clone(), frame));
        }
        taken
    }

    async fn announced_on(&self, topic: &str) -> Result<BoxStream<'static, Bytes>, BusError> {
        let messages = self.listen(topic);
        Ok(stream::unfold(messages, async |mut messages| Some((messages.recv().await?, messages))).boxed())
    }
}

#[async_trait]
impl Bus for MemoryBus {
    fn is_connected(&self) -> bool {
        !self.shared.lock().offline
    }
}

/// As the real bus does: headers that the server or a reader would obey are renamed.
fn kept_name(original: &str) -> String {
    let lower = original.to_ascii_lowercase();
    if lower.starts_with("nats-") || lower.starts_with("throughline-") {
        format!("Original-{original}")
    } else {
        original.to_owned()
    }
}

#[cfg(test)]
mod tests;
