//! A dependency as one stage sees it: its breaker, its pace and its retry policy.
//!
//! The state is shared by the stage's workers, behind a lock that is held for a few instructions and never across
//! an await. It belongs to the stage, not to a worker: a worker that dies gives its permit back.

pub mod announcer;
pub mod cause;
pub mod vitals;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ractor::ActorRef;
use throughline_schemas::{StageName, event::ErrorDetail};
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use crate::{
    dependency::{
        announcer::BreakerMoved,
        cause::Cause,
        vitals::{DependencyKind, Trouble, Vitals},
    },
    metrics,
    policy::{
        breaker::{Breaker, BreakerPolicy, BreakerState, CallOutcome, Permit},
        retry::RetryPolicy,
    },
    ports::{
        Classify, Fault, Health,
        clock::{Clock, Entropy},
    },
};

/// How long a caller may be kept waiting between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Longest single wait.
    pub longest_wait: Duration,
    /// All waits and attempts together; no attempt starts later.
    pub total: Duration,
}

/// Longest time until a caller that waits for the database or the bus asks again whether it may probe: a probe may
/// have failed meanwhile, and another one be due.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Shortest such time, so that no caller spins while a probe is about to be admitted.
const SHORTEST_REFUSAL: Duration = Duration::from_millis(10);

/// Name of the event bus among the dependencies.
const BUS: &str = "bus";

/// Which limits apply to a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependencyPolicy {
    /// How often to try, and how long to wait in between.
    pub retry: RetryPolicy,
    /// When to stop trying at all.
    pub breaker: BreakerPolicy,
    /// How long to hold the caller.
    pub patience: Patience,
}

/// What a dependency works with.
#[derive(Clone)]
pub struct Collaborators {
    /// For the time in announcements.
    pub clock: Arc<dyn Clock>,
    /// For jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Announces transitions.
    pub announcer: Option<ActorRef<BreakerMoved>>,
    /// Where failures are kept for readiness.
    pub vitals: Vitals,
    /// Who says what breakers, paces and rate limits would say otherwise; `None` where calls are really made.
    pub recorded_gates: Option<Arc<dyn RecordedGates>>,
}

/// What was decided, in a run that is re-enacted, by state that all runs of its time shared: breakers, paces and rate
/// limits. Wherever the answer is `None`, the state of here and now decides.
pub trait RecordedGates: Send + Sync + 'static {
    /// Whether a call may be made. An answer is final: what becomes of the call does not move breaker or pace.
    fn admit(&self, stage: StageName, dependency: &str) -> Option<Result<(), Refused>>;
    /// How long rate limits hold a call to a model (by its provider and the provider's name of it) back.
    fn enter(&self, provider: &str, model: &str) -> Option<HeldBack>;
    /// Whether the tokens of a request to this model mattered, and were counted.
    fn counts_tokens(&self, provider: &str, model: &str) -> Option<bool>;
}

/// How rate limits held a call back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// For how long.
    pub waited: Duration,
    /// After which they still had no room for so long, and the call was not made.
    pub no_room: Option<Duration>,
}

/// Why there is no call to make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The breaker is open, or its one probe is under way; with what opened it.
    #[error("its breaker is open{} for another {} ms", because(.1.as_deref()), .0.as_millis())]
    BreakerOpen(Duration, Option<Arc<str>>),
    /// The other side asked everybody to wait.
    #[error("it asked to wait another {} ms", .0.as_millis())]
    Paced(Duration),
}

/// A wait as it is recorded.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The cause of an open breaker, as it stands in the text of a refusal.
fn because(cause: Option<&str>) -> String {
    cause.map_or_else(String::new, |cause| format!(" ({cause})"))
}

impl Refused {
    /// When it is worth asking again.
    pub fn wait(&self) -> Duration {
        match self {
            Self::BreakerOpen(wait, _) | Self::Paced(wait) => *wait,
        }
    }

    /// Its parts, as they are recorded.
    pub(crate) fn detail(&self) -> ErrorDetail {
        let breaker_cause = match self {
            Self::BreakerOpen(_, cause) => cause.as_deref().map(str::to_owned),
            Self::Paced(_) => None,
        };
        ErrorDetail { wait_ms: Some(whole_millis(self.wait())), breaker_cause, ..ErrorDetail::default() }
    }
}

/// The last thing that went wrong.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E> {
    /// No call was made.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A call was made and failed.
    #[error(transparent)]
    Failed(E),
}

/// An attempt that failed or was prevented.
#[derive(Debug)]
pub struct FailedAttempt<'a, E> {
    /// What went wrong.
    pub error: &'a CallError<E>,
    /// How long the attempt took.
    pub took: Duration,
    /// The wait before the next one, if one is made.
    pub again_in: Option<Duration>,
    /// The random number with which that wait, or one that would be too long, was computed, if one was drawn.
    pub jitter: Option<u32>,
}

/// No (further) attempt is made here.
#[derive(Debug)]
pub struct RetriesExhausted<E> {
    /// Attempts made, those before this call included.
    pub made: u32,
    /// The last thing that went wrong.
    pub last: CallError<E>,
    /// Another attempt is allowed after this wait, which is longer than the caller may be held.
    pub wait: Option<Duration>,
}

struct Shared {
    breaker: Breaker,
    paced_until: Option<Instant>,
    /// What opened the breaker, or kept it open since. Of a closed one, the last failure since a success.
    cause: Option<Cause>,
}

/// One dependency of one stage. Cheap to clone; clones share their state.
#[derive(Clone)]
pub struct Dependency {
    kind: DependencyKind,
    stage: StageName,
    name: Arc<str>,
    policy: DependencyPolicy,
    collaborators: Collaborators,
    shared: Arc<Mutex<Shared>>,
    /// Told whenever the breaker closes.
    recovered: Arc<Notify>,
}

impl Dependency {
    /// A dependency in good health.
    pub fn new(
        kind: DependencyKind,
        stage: StageName,
        name: &str,
        policy: DependencyPolicy,
        collaborators: Collaborators,
    ) -> Self {
        metrics::breaker(stage, name, BreakerState::Closed);
        let shared = Shared { breaker: Breaker::new(policy.breaker), paced_until: None, cause: None };
        let (shared, recovered) = (Arc::new(Mutex::new(shared)), Arc::default());
        Self { kind, stage, name: name.into(), policy, collaborators, shared, recovered }
    }

    /// Its name in metrics and logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Calls `op` until it succeeds, or the policy says that enough is enough.
    ///
    /// `made` attempts were made before (by earlier deliveries); `op` gets the number of its attempt, from
    /// `made + 1`. An attempt that a breaker or a pace prevents counts as made, so that a dependency that stays
    /// down ends the loop. Dropping the future gives a permit under way back.
    pub async fn call<T, E, F, Fut>(&self, made: u32, op: F) -> Result<T, RetriesExhausted<E>>
    where
        E: Classify,
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.call_reporting(made, op, |_| {}).await
    }

    /// As [`Dependency::call`]; `report` is called with each attempt that failed or was prevented.
    pub async fn call_reporting<T, E, F, Fut>(
        &self,
        mut made: u32,
        mut op: F,
        mut report: impl FnMut(FailedAttempt<'_, E>),
    ) -> Result<T, RetriesExhausted<E>>
    where
        E: Classify,
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let give_up_at = Instant::now() + self.policy.patience.total;
        loop {
            // Hears of everything from here on, so that a recovery between being refused and waiting is not missed.
            let recovered = self.recovered.notified();
            let begun = Instant::now();
            let (last, not_before, is_permanent) = match self.admit() {
                Err(refused) => {
                    metrics::refused(self.stage, &self.name);
                    let wait = refused.wait();
                    (CallError::Refused(refused), Some(wait), false)
                }
                Ok(permit) => match permit.run(op(made + 1)).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        let fault = error.fault();
                        let last = CallError::Failed(error);
                        match fault {
                            Fault::Permanent => (last, None, true),
                            Fault::Transient { wait_at_least } => (last, wait_at_least, false),
                            Fault::Unknown => (last, None, false),
                        }
                    }
                },
            };
            made = made.saturating_add(1);
            let random = (!is_permanent).then(|| self.collaborators.entropy.next_u64());
            let jitter = random.map(RetryPolicy::jitter);
            let delay = random.and_then(|random| self.policy.retry.delay_after(made, not_before, random));
            let Some(delay) = delay else {
                report(FailedAttempt { error: &last, took: begun.elapsed(), again_in: None, jitter });
                return Err(RetriesExhausted { made, last, wait: None });
            };
            // A refusal knows exactly when to come back; the policy's cap is for the other side's hints.
            let refused = matches!(last, CallError::Refused(_));
            let delay = match (refused, self.kind) {
                (false, _) => delay,
                // A caller that waits for the database or the bus probes it as soon as it may: nothing else can be done
                // meanwhile, and the breaker sees to it that one does.
                (true, DependencyKind::Store | DependencyKind::Bus) => {
                    not_before.unwrap_or_default().clamp(SHORTEST_REFUSAL, ASK_AGAIN)
                }
                (true, DependencyKind::Source | DependencyKind::Model | DependencyKind::Prompt) => {
                    delay.max(not_before.unwrap_or_default())
                }
            };
            let too_long = delay > self.policy.patience.longest_wait || Instant::now() + delay > give_up_at;
            report(FailedAttempt {
                error: &last,
                took: begun.elapsed(),
                again_in: (!too_long).then_some(delay),
                jitter,
            });
            if too_long {
                return Err(RetriesExhausted { made, last, wait: Some(delay) });
            }
            let waits_for_breaker = matches!(last, CallError::Refused(Refused::BreakerOpen(..)));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                // The probe of another caller succeeded: there is nothing to wait for any more.
                () = recovered, if waits_for_breaker => {}
            }
        }
    }

    /// Which limits apply.
    pub(crate) fn policy(&self) -> &DependencyPolicy {
        &self.policy
    }

    /// What fails in this process.
    pub(crate) fn vitals(&self) -> &Vitals {
        &self.collaborators.vitals
    }

    /// Remembers that the stage of this dependency cannot reach the bus, or that the bus does not take what it has.
    pub(crate) fn bus_failed(&self, cause: Cause) {
        self.collaborators.vitals.failed(Trouble {
            stage: self.stage,
            dependency: BUS.into(),
            kind: DependencyKind::Bus,
            is_open: true,
            since: self.collaborators.clock.now(),
            last: Instant::now(),
            cause,
        });
    }

    /// The bus has taken what it had not taken before.
    pub(crate) fn bus_answered(&self) {
        self.collaborators.vitals.answered(self.stage, &BUS.into());
    }

    /// State of the breaker.
    pub fn state(&self) -> BreakerState {
        self.lock().breaker.state()
    }

    /// Closes the breaker and forgets the pace, whatever happened before.
    pub fn reset(&self) {
        let mut shared = self.lock();
        let before = shared.breaker.state();
        shared.breaker.reset();
        shared.paced_until = None;
        let was = shared.cause.take();
        let after = shared.breaker.state();
        drop(shared);
        self.collaborators.vitals.answered(self.stage, &self.name);
        self.announce((before, after), was.as_ref(), None);
    }

    /// Completes when the breaker closes next.
    pub(crate) fn recovery(&self) -> Notified<'_> {
        self.recovered.notified()
    }

    /// How long the other side has asked everybody to wait still.
    pub(crate) fn paced(&self) -> Duration {
        let until = self.lock().paced_until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Asks leave for one call.
    pub(crate) fn admit(&self) -> Result<CallPermit<'_>, Refused> {
        let now = Instant::now();
        let recorded = self.collaborators.recorded_gates.as_ref();
        if let Some(admitted) = recorded.and_then(|recorded| recorded.admit(self.stage, &self.name)) {
            return admitted.map(|()| CallPermit { dependency: self, permit: None, started: now });
        }
        let mut shared = self.lock();
        if let Some(until) = shared.paced_until.filter(|until| now < *until) {
            return Err(Refused::Paced(until - now));
        }
        let before = shared.breaker.state();
        let admitted = shared.breaker.admit(now);
        let after = shared.breaker.state();
        let cause = shared.cause.clone();
        drop(shared);
        self.announce((before, after), cause.as_ref(), cause.as_ref());
        match admitted {
            Ok(permit) => Ok(CallPermit { dependency: self, permit: Some(permit), started: now }),
            Err(refusal) => Err(Refused::BreakerOpen(refusal.retry_at - now, cause.map(|cause| cause.text))),
        }
    }

    fn settle(&self, permit: Permit, outcome: CallOutcome, pace: Option<Duration>, failure: Option<Cause>) {
        let now = Instant::now();
        let mut shared = self.lock();
        let before = shared.breaker.state();
        shared.breaker.settle(permit, outcome, now);
        let after = shared.breaker.state();
        if let Some(pace) = pace {
            let until = now + pace.min(self.policy.retry.max_delay);
            shared.paced_until = shared.paced_until.max(Some(until));
        }
        let was = shared.cause.clone();
        match outcome {
            CallOutcome::Failure => shared.cause.clone_from(&failure),
            // A straggler's success does not say why the breaker is open.
            CallOutcome::Success if after == BreakerState::Closed => shared.cause = None,
            CallOutcome::Success | CallOutcome::Neutral => {}
        }
        let cause = shared.cause.clone();
        drop(shared);
        match outcome {
            CallOutcome::Failure => self.remember(failure, after),
            CallOutcome::Success if after == BreakerState::Closed => self.forget(),
            CallOutcome::Success | CallOutcome::Neutral => {}
        }
        self.announce((before, after), was.as_ref(), cause.as_ref());
    }

    /// Keeps a failure for readiness. Of what a worker cannot do without, the first one after a
    /// success is logged: the breaker may open much later.
    fn remember(&self, cause: Option<Cause>, state: BreakerState) {
        let Some(cause) = cause else { return };
        let Cause { class, text } = cause.clone();
        let is_first = self.collaborators.vitals.failed(Trouble {
            stage: self.stage,
            dependency: Arc::clone(&self.name),
            kind: self.kind,
            is_open: state != BreakerState::Closed,
            since: self.collaborators.clock.now(),
            last: Instant::now(),
            cause,
        });
        if is_first && self.kind.is_vital() {
            let dependency = self.name();
            tracing::warn!(stage = %self.stage, dependency, class, cause = %text, "a call failed, trying again");
        }
    }

    fn forget(&self) {
        if let Some(before) = self.collaborators.vitals.answered(self.stage, &self.name)
            && before.kind.is_vital()
        {
            let dependency = self.name();
            let seconds = self.collaborators.clock.now().ms_since(before.since) / 1000;
            tracing::info!(stage = %self.stage, dependency, failed_for_s = seconds, "it answers again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing panics while holding the lock; if it did, the state machine would still be consistent.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a transition; `was` is why the breaker was open before, `cause` why it is now.
    fn announce(&self, (from, to): (BreakerState, BreakerState), was: Option<&Cause>, cause: Option<&Cause>) {
        if from == to {
            return;
        }
        let class = cause.map(|cause| cause.class);
        metrics::breaker_moved(self.stage, &self.name, to);
        metrics::breaker_cause(self.stage, &self.name, was.map(|was| was.class), class);
        let dependency = self.name.to_string();
        let text = cause.map(|cause| cause.text.to_string());
        // What is probed every second is logged once, until something about it changes.
        let is_known = self.kind.is_vital()
            && match to {
                BreakerState::HalfOpen => true,
                BreakerState::Open => from == BreakerState::HalfOpen && was.map(|was| was.class) == class,
                BreakerState::Closed => false,
            };
        match to {
            BreakerState::Open | BreakerState::HalfOpen if is_known => {
                tracing::debug!(stage = %self.stage, dependency, to = to.as_str(), "breaker moved");
            }
            BreakerState::Open => {
                tracing::warn!(stage = %self.stage, dependency, class, cause = text, "breaker opened");
            }
            BreakerState::HalfOpen => tracing::info!(stage = %self.stage, dependency, "breaker probes"),
            BreakerState::Closed => {
                tracing::info!(stage = %self.stage, dependency, "breaker closed");
                self.recovered.notify_waiters();
            }
        }
        if let Some(announcer) = self.collaborators.announcer.as_ref().filter(|_| !is_known) {
            let at = self.collaborators.clock.now();
            let (class, cause) = match to {
                BreakerState::Open => (class, text),
                BreakerState::HalfOpen | BreakerState::Closed => (None, None),
            };
            // An announcer that has stopped means that the process is stopping.
            let _ =
                announcer.cast(BreakerMoved { stage: self.stage, dependency, from, to, at, class, cause });
        }
    }
}

/// Leave for one call. Dropped without an outcome (its worker panicked, or was stopped), it says nothing about the
/// dependency: a message that panics must not open the breaker for everybody.
pub(crate) struct CallPermit<'a> {
    dependency: &'a Dependency,
    permit: Option<Permit>,
    started: Instant,
}

impl CallPermit<'_> {
    /// Makes the call, and lets the dependency's state learn from it.
    pub(crate) async fn run<T, E: Classify>(
        mut self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let result = call.await;
        let (outcome, pace, label, failure) = match &result {
            Ok(_) => (CallOutcome::Success, None, "ok", None),
            Err(error) => match error.health() {
                Health::Answered => (CallOutcome::Success, None, "refused", None),
                Health::Failed => (CallOutcome::Failure, None, "failed", Some(Cause::of(error))),
                Health::Paced => {
                    let pace = match error.fault() {
                        Fault::Transient { wait_at_least } => wait_at_least,
                        Fault::Permanent | Fault::Unknown => None,
                    };
                    (CallOutcome::Neutral, pace, "paced", None)
                }
            },
        };
        metrics::called(self.dependency.stage, &self.dependency.name, label, self.started.elapsed());
        if let Some(permit) = self.permit.take() {
            self.dependency.settle(permit, outcome, pace, failure);
        }
        result
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            metrics::called(
                self.dependency.stage,
                &self.dependency.name,
                "abandoned",
                self.started.elapsed(),
            );
            self.dependency.settle(permit, CallOutcome::Neutral, None, None);
        }
    }
}
