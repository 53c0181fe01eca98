//! Ports that can be told to misbehave, one process at a time: they fail, panic, take their time, or die with the
//! whole process. A dead process is one whose calls never return and no longer reach anything.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use serde_json::Value;
use throughline_actors::ports::{
    bus::{
        AttemptLog, Broadcast, Bus, BusError, Claim, Claimed, DeadLetter, DeadLetters, Delivery,
        DeliveryState, Ends, EventLog, Inbox, Inboxes, Latest, Position, Published, Receipt, Settlement,
    },
    clock::Entropy,
    log::{Fill, Log, Purge, Released},
    memory::{
        bus::MemoryBus,
        model::ScriptedModels,
        source::ScriptedSources,
        store::{MemoryStore, TurnState},
    },
    model::{CallFacts, DeltaSink, ModelAnswer, ModelError, ModelFailure, ModelRequest, Models},
    source::{FetchCall, FetchError, Sources},
    store::{
        Admission, Admitted, Closed, EndedTurn, Failing, HeldQuery, HeldStarted, Interaction, KnownEnd,
        ListedTurn, Mark, OpenTurns, Opening, RestoredTurn, RunningQuery, RunningTurn, Store, StoreError,
        StoreTrouble, TurnsQuery,
    },
};
use throughline_schemas::{
    Event, EventData, EventType, SessionId, StageName, Subject, Timestamp, UserId, WorkflowId, encode,
    event::context::Context,
};
use tokio::sync::watch;

/// Which call passes the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Open,
    Next,
    Publish,
    Exists,
    DeadLetter,
    Announce,
    Claim,
    SetClaim,
    AttemptLog,
    KeepAttemptLog,
    Settle,
    Progress,
    Admit,
    StartHeld,
    Context,
    Save,
    Fail,
    Running,
    Opening,
    OldestOpen,
    Fill,
    Purge,
    EndedBefore,
    End,
    Restore,
    Position,
    Latest,
    PublishAgain,
    Generate,
    Fetch,
    /// An announcement is heard; only a panic means anything there.
    Listen,
    /// The dice are asked; only a panic means anything there.
    Chance,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Go,
    Slow(Duration),
    /// It fails without an effect.
    Lost,
    /// It has its effect, and its answer is lost.
    Unanswered,
    Panic,
    /// The process dies before the call has its effect.
    Die,
    /// The process dies after the call had its effect.
    DieAfter,
}

/// Which events the store for large bodies does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// Those that are larger, in bytes.
    Above(usize),
    /// Those of this type.
    For(EventType),
}

type Rule = Arc<dyn Fn(Op, &str) -> Act + Send + Sync>;

/// Between one process and the world.
#[derive(Clone)]
pub struct Gate {
    dead: Arc<watch::Sender<bool>>,
    rule: Arc<Mutex<Option<Rule>>>,
    refused: Arc<Mutex<Option<&'static str>>>,
    no_room: Arc<Mutex<Option<NoRoom>>>,
    /// Messages that were about to be removed from the log although their work was not finished.
    unfinished: Arc<Mutex<Vec<String>>>,
    bus: MemoryBus,
    store: Arc<MemoryStore>,
    sources: Arc<ScriptedSources>,
    models: Arc<ScriptedModels>,
}

impl Gate {
    pub fn new(
        bus: MemoryBus,
        store: Arc<MemoryStore>,
        sources: Arc<ScriptedSources>,
        models: Arc<ScriptedModels>,
    ) -> Self {
        Self {
            dead: Arc::new(watch::Sender::new(false)),
            rule: Arc::default(),
            refused: Arc::default(),
            no_room: Arc::default(),
            unfinished: Arc::default(),
            bus,
            store,
            sources,
            models,
        }
    }

    /// Asks `rule` about every call from now on. It sees the call's arguments as text.
    pub fn on(&self, rule: impl Fn(Op, &str) -> Act + Send + Sync + 'static) {
        *self.rule.lock().unwrap() = Some(Arc::new(rule));
    }

    /// Does `act` to the first call of this kind that mentions `marker`.
    pub fn once(&self, op: Op, marker: &'static str, act: Act) {
        let done = Mutex::new(false);
        self.on(move |called, about| {
            let mut done = done.lock().unwrap();
            if *done || called != op || !about.contains(marker) {
                return Act::Go;
            }
            *done = true;
            act
        });
    }

    /// Refuses for ever to publish an input that mentions `marker`: the server finds it too large.
    pub fn refuse(&self, marker: &'static str) {
        *self.refused.lock().unwrap() = Some(marker);
    }

    /// The store for large bodies takes nothing of these, until it has room again.
    pub fn no_room(&self, no_room: Option<NoRoom>) {
        *self.no_room.lock().unwrap() = no_room;
    }

    /// The process ends here and now.
    pub fn die(&self) {
        self.dead.send_replace(true);
    }

    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// A call that does not wait: it panics or goes.
    fn glance(&self, op: Op, about: &str) {
        let rule = self.rule.lock().unwrap().clone();
        assert!(rule.is_none_or(|rule| rule(op, about) != Act::Panic), "injected into {op:?}");
    }

    /// Completes when the process has died.
    pub async fn died(&self) {
        let mut dead = self.dead.subscribe();
        dead.wait_for(|dead| *dead).await.expect("the gate holds the sender");
    }

    async fn pass<T, E>(
        &self,
        op: Op,
        about: String,
        lost: fn() -> E,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let rule = self.rule.lock().unwrap().clone();
        let act = rule.map_or(Act::Go, |rule| rule(op, &about));
        let acted = async {
            match act {
                Act::Go => call.await,
                Act::Slow(wait) => {
                    tokio::time::sleep(wait).await;
                    call.await
                }
                Act::Lost => Err(lost()),
                Act::Unanswered => call.await.and_then(|_| Err(lost())),
                Act::Panic => panic!("injected into {op:?}"),
                Act::Die => {
                    self.die();
                    pending().await
                }
                Act::DieAfter => {
                    let _ = call.await;
                    self.die();
                    pending().await
                }
            }
        };
        tokio::select! {
            biased;
            () = self.died() => pending().await,
            answer = acted => answer,
        }
    }
}

fn no_bus() -> BusError {
    BusError::Unavailable { context: "injected".to_owned(), source: None }
}

fn no_store() -> StoreError {
    StoreError::Unavailable { context: "injected", trouble: StoreTrouble::Unreachable, source: None }
}

#[async_trait]
impl Inboxes for Gate {
    async fn open(&self, stage: StageName) -> Result<Box<dyn Inbox>, BusError> {
        let inbox = self.pass(Op::Open, stage.to_string(), no_bus, self.bus.open(stage)).await?;
        Ok(Box::new(GatedInbox { inbox, label: stage.to_string(), gate: self.clone() }))
    }

    async fn open_undeliverable(&self, stage: StageName) -> Result<Box<dyn Inbox>, BusError> {
        let inbox = self.bus.open_undeliverable(stage).await?;
        Ok(Box::new(GatedInbox { inbox, label: "undeliverable".to_owned(), gate: self.clone() }))
    }
}

#[async_trait]
impl EventLog for Gate {
    async fn publish(&self, event: &Event) -> Result<Published, BusError> {
        let said = match &event.data {
            EventData::InputValidated(data) => data.request.user_input.as_str(),
            _ => "",
        };
        let about = format!("{} {} {said}", event.event_type(), event.meta.workflow_id);
        if self.refused.lock().unwrap().is_some_and(|marker| about.contains(marker)) {
            return Err(BusError::TooLarge { bytes: usize::MAX });
        }
        let no_room = *self.no_room.lock().unwrap();
        let is_full = match no_room {
            Some(NoRoom::Above(limit)) => encode(event).is_ok_and(|body| body.len() > limit),
            Some(NoRoom::For(event_type)) => event.event_type() == event_type,
            None => false,
        };
        if is_full {
            return Err(BusError::BodiesFull("the bucket is full".to_owned()));
        }
        self.pass(Op::Publish, about, no_bus, self.bus.publish(event)).await
    }

    async fn exists(&self, subject: &Subject) -> Result<bool, BusError> {
        self.pass(Op::Exists, format!("{subject:?}"), no_bus, self.bus.exists(subject)).await
    }

    async fn stored_at(&self, subject: &Subject) -> Result<Option<Timestamp>, BusError> {
        self.pass(Op::Exists, format!("{subject:?}"), no_bus, self.bus.stored_at(subject)).await
    }

    async fn recorded(&self, subject: &Subject) -> Result<Option<Bytes>, BusError> {
        self.pass(Op::Exists, format!("{subject:?}"), no_bus, self.bus.recorded(subject)).await
    }

    async fn position(&self) -> Result<Position, BusError> {
        self.pass(Op::Position, String::new(), no_bus, self.bus.position()).await
    }

    async fn latest(&self, session: &SessionId, workflow: &WorkflowId) -> Result<Option<Latest>, BusError> {
        self.pass(Op::Latest, workflow.to_string(), no_bus, self.bus.latest(session, workflow)).await
    }

    async fn publish_again(&self, subject: &Subject, sequence: u64) -> Result<Published, BusError> {
        let call = self.bus.publish_again(subject, sequence);
        self.pass(Op::PublishAgain, format!("{subject:?}"), no_bus, call).await
    }

    async fn ends_from(&self, sequence: u64, most: u64) -> Result<Ends, BusError> {
        self.pass(Op::Position, sequence.to_string(), no_bus, self.bus.ends_from(sequence, most)).await
    }
}

#[async_trait]
impl DeadLetters for Gate {
    async fn dead_letter(&self, delivery: &Delivery, letter: &DeadLetter) -> Result<(), BusError> {
        let text = String::from_utf8_lossy(&delivery.body).into_owned();
        self.pass(Op::DeadLetter, text, no_bus, self.bus.dead_letter(delivery, letter)).await
    }
}

#[async_trait]
impl DeliveryState for Gate {
    async fn claim(&self, stage: StageName, sequence: u64) -> Result<Option<Claimed>, BusError> {
        self.pass(Op::Claim, format!("{stage} {sequence}"), no_bus, self.bus.claim(stage, sequence)).await
    }

    async fn set_claim(
        &self,
        stage: StageName,
        sequence: u64,
        claim: &Claim,
        revision: u64,
    ) -> Result<Published, BusError> {
        let call = self.bus.set_claim(stage, sequence, claim, revision);
        self.pass(Op::SetClaim, format!("{stage} {sequence} {claim:?}"), no_bus, call).await
    }

    async fn attempt_log(&self, stage: StageName, sequence: u64) -> Result<Option<AttemptLog>, BusError> {
        self.pass(
            Op::AttemptLog,
            format!("{stage} {sequence}"),
            no_bus,
            self.bus.attempt_log(stage, sequence),
        )
        .await
    }

    async fn keep_attempt_log(
        &self,
        stage: StageName,
        sequence: u64,
        attempt_log: &AttemptLog,
    ) -> Result<(), BusError> {
        let call = self.bus.keep_attempt_log(stage, sequence, attempt_log);
        self.pass(Op::KeepAttemptLog, format!("{stage} {sequence}"), no_bus, call).await
    }
}

#[async_trait]
impl Broadcast for Gate {
    async fn announce(&self, topic: &str, body: Bytes) -> Result<(), BusError> {
        self.pass(Op::Announce, topic.to_owned(), no_bus, self.bus.announce(topic, body)).await
    }

    fn live(&self, workflow: &WorkflowId, frame: Bytes) -> bool {
        !self.is_dead() && self.bus.live(workflow, frame)
    }

    async fn announced_on(&self, topic: &str) -> Result<BoxStream<'static, Bytes>, BusError> {
        // A dead process hears on, and does nothing about it.
        let (gate, about) = (self.clone(), topic.to_owned());
        Ok(self.bus.announced_on(topic).await?.inspect(move |_| gate.glance(Op::Listen, &about)).boxed())
    }
}

#[async_trait]
impl Bus for Gate {
    fn is_connected(&self) -> bool {
        self.bus.is_connected()
    }
}

#[async_trait]
impl Log for Gate {
    async fn last(&self) -> Result<u64, BusError> {
        self.pass(Op::Fill, String::new(), no_bus, self.bus.last()).await
    }
    async fn fill(&self) -> Result<Fill, BusError> {
        self.pass(Op::Fill, String::new(), no_bus, self.bus.fill()).await
    }
    async fn age_at(&self, sequence: u64) -> Result<Option<Duration>, BusError> {
        self.pass(Op::Fill, String::new(), no_bus, self.bus.age_at(sequence)).await
    }
    async fn first_within(&self, age: Duration) -> Result<u64, BusError> {
        self.pass(Op::Fill, String::new(), no_bus, self.bus.first_within(age)).await
    }
    async fn purge(&self, purge: &Purge) -> Result<u64, BusError> {
        let purged = async {
            self.note_unfinished(|sequence| sequence < purge.before);
            self.bus.purge(purge).await
        };
        self.pass(Op::Purge, purge.before.to_string(), no_bus, purged).await
    }
    async fn finished_from(
        &self,
        sequence: u64,
        bytes: u64,
        ended_before: Timestamp,
    ) -> Result<Vec<u64>, BusError> {
        let finished = self.bus.finished_from(sequence, bytes, ended_before);
        self.pass(Op::Fill, String::new(), no_bus, finished).await
    }
    async fn remove(&self, sequences: &[u64]) -> Result<u64, BusError> {
        let removed = async {
            self.note_unfinished(|sequence| sequences.contains(&sequence));
            self.bus.remove(sequences).await
        };
        self.pass(Op::Purge, String::new(), no_bus, removed).await
    }
    async fn release_bodies(&self, bytes: u64) -> Result<Released, BusError> {
        self.pass(Op::Purge, String::new(), no_bus, self.bus.release_bodies(bytes)).await
    }
}

impl Gate {
    /// What this process removed although it belonged to a turn that was open, or was an input that nobody had admitted.
    pub fn unfinished(&self) -> Vec<String> {
        self.unfinished.lock().unwrap().clone()
    }

    fn note_unfinished(&self, is_removed: impl Fn(u64) -> bool) {
        for stored in self.bus.stored().iter().filter(|stored| is_removed(stored.sequence)) {
            let body: Value = serde_json::from_slice(&stored.body).unwrap();
            let workflow = [&body["workflowid"], &body["workflow_id"]].into_iter().find_map(Value::as_str);
            let state = workflow.and_then(|workflow| self.store.turn(&super::id(workflow)));
            if !matches!(state, Some(TurnState::Saved | TurnState::Failed)) {
                let line = format!("{} {} {workflow:?} {state:?}", stored.sequence, stored.subject);
                self.unfinished.lock().unwrap().push(line);
            }
        }
    }
}

/// Dice that can break.
pub struct GatedEntropy {
    pub inner: Arc<dyn Entropy>,
    pub gate: Gate,
}

impl Entropy for GatedEntropy {
    fn next_u64(&self) -> u64 {
        self.gate.glance(Op::Chance, "");
        self.inner.next_u64()
    }
}

struct GatedInbox {
    inbox: Box<dyn Inbox>,
    label: String,
    gate: Gate,
}

#[async_trait]
impl Inbox for GatedInbox {
    async fn grant(&mut self, n: usize) -> Result<(), BusError> {
        self.inbox.grant(n).await
    }
    async fn next(&mut self) -> Result<Delivery, BusError> {
        let gate = self.gate.clone();
        let next = gate.pass(Op::Next, self.label.clone(), no_bus, self.inbox.next());
        let delivery = next.await?;
        let about = format!("{} {}", self.label, delivery.subject);
        let receipt = GatedReceipt { inner: Arc::clone(&delivery.receipt), about, gate };
        Ok(Delivery { receipt: Arc::new(receipt), ..delivery })
    }
}

struct GatedReceipt {
    inner: Arc<dyn Receipt>,
    about: String,
    gate: Gate,
}

#[async_trait]
impl Receipt for GatedReceipt {
    async fn settle(&self, settlement: Settlement) -> Result<(), BusError> {
        let about = format!("{settlement:?} {}", self.about);
        self.gate.pass(Op::Settle, about, no_bus, self.inner.settle(settlement)).await
    }
    async fn progress(&self) -> Result<(), BusError> {
        self.gate.pass(Op::Progress, self.about.clone(), no_bus, self.inner.progress()).await
    }
}

#[async_trait]
impl Store for Gate {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        let ids: Vec<_> = batch.iter().map(|admission| admission.workflow_id.to_string()).collect();
        self.pass(Op::Admit, ids.join(" "), no_store, self.store.admit(batch)).await
    }
    async fn start_held(&self, query: HeldQuery) -> Result<HeldStarted, StoreError> {
        self.pass(Op::StartHeld, String::new(), no_store, self.store.start_held(query)).await
    }
    async fn context(&self, user: &UserId, session: &SessionId, turns: usize) -> Result<Context, StoreError> {
        let call = self.store.context(user, session, turns);
        self.pass(Op::Context, format!("{user} {session}"), no_store, call).await
    }
    async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError> {
        self.pass(Op::Save, interaction.workflow_id.to_string(), no_store, self.store.save(interaction)).await
    }
    async fn fail(&self, failing: Failing) -> Result<Closed, StoreError> {
        self.pass(Op::Fail, failing.workflow_id.to_string(), no_store, self.store.fail(failing)).await
    }
    async fn running(&self, query: RunningQuery) -> Result<Vec<RunningTurn>, StoreError> {
        self.pass(Op::Running, String::new(), no_store, self.store.running(query)).await
    }
    async fn opening(&self, workflow: &WorkflowId) -> Result<Option<Opening>, StoreError> {
        self.pass(Op::Opening, workflow.to_string(), no_store, self.store.opening(workflow)).await
    }
    async fn ended_before(&self, places: &[(SessionId, u64)]) -> Result<Vec<Option<EndedTurn>>, StoreError> {
        self.pass(Op::EndedBefore, format!("{places:?}"), no_store, self.store.ended_before(places)).await
    }
    async fn end(&self, workflow: &WorkflowId) -> Result<Option<KnownEnd>, StoreError> {
        self.pass(Op::End, workflow.to_string(), no_store, self.store.end(workflow)).await
    }
    async fn oldest_open(&self) -> Result<Option<u64>, StoreError> {
        self.pass(Op::OldestOpen, String::new(), no_store, self.store.oldest_open()).await
    }
    async fn forget_ended(&self, ended_before: Timestamp, most: usize) -> Result<u64, StoreError> {
        self.store.forget_ended(ended_before, most).await
    }
    async fn restore(&self, ended: RestoredTurn) -> Result<Closed, StoreError> {
        self.pass(Op::Restore, String::new(), no_store, self.store.restore(ended)).await
    }
    async fn latest_turns(&self, query: TurnsQuery) -> Result<Vec<ListedTurn>, StoreError> {
        self.store.latest_turns(query).await
    }
    async fn open_turns(&self) -> Result<OpenTurns, StoreError> {
        self.store.open_turns().await
    }
    async fn mark(&self) -> Result<Mark, StoreError> {
        self.pass(Op::Running, "mark".to_owned(), no_store, self.store.mark()).await
    }
    async fn set_mark(&self, from: u64, to: u64) -> Result<(), StoreError> {
        self.pass(Op::Running, "mark".to_owned(), no_store, self.store.set_mark(from, to)).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}

#[async_trait]
impl Models for Gate {
    async fn generate(
        &self,
        request: &ModelRequest,
        sink: &dyn DeltaSink,
    ) -> Result<ModelAnswer, ModelFailure> {
        let lost = || ModelFailure {
            error: ModelError::CutShort("injected".to_owned()),
            usage: None,
            facts: CallFacts::default(),
        };
        self.pass(Op::Generate, super::question(request), lost, self.models.generate(request, sink)).await
    }
}

#[async_trait]
impl Sources for Gate {
    async fn fetch(&self, call: &FetchCall) -> Result<throughline_schemas::Document, FetchError> {
        let lost = || FetchError::Unreachable("injected".to_owned());
        self.pass(Op::Fetch, call.url.clone(), lost, self.sources.fetch(call)).await
    }
}
