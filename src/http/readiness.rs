//! Whether this process can do its work at this moment.
//!
//! Two things tell: what its own calls met (the engine's vitals), and a probe of database and bus that changes nothing
//! anybody sees. Probes are shared by all who ask within a second, so that many askers cost no more than one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use throughline_actors::{
    dependency::{
        cause::error_chain,
        vitals::{DependencyKind, Trouble},
    },
    memory_budget::MemoryUse,
    supervision::engine::Observer,
};
use throughline_schemas::{StageName, Timestamp};
use tokio::time::Instant;

use super::HttpState;

/// Limit on each check, below the one second that an orchestrator's probe waits, so that the reason arrives.
pub(super) const CHECK_LIMIT: Duration = Duration::from_millis(800);
/// How long the answer of a probe is good for.
const PROBE_LIFE: Duration = Duration::from_secs(1);
/// How long a failure of database or bus counts that no later call has confirmed or refuted. Work that waits for them asks
/// again every few seconds, and one call takes ten at most.
const TROUBLE_LIFE: Duration = Duration::from_secs(30);

type Found = Result<(), Arc<str>>;

/// What was found out.
#[derive(Serialize)]
pub(super) struct Readiness {
    status: &'static str,
    checks: Checks,
    /// Breakers that let no call through, those of sources and models included, which do not keep a process from being
    /// ready.
    breakers: Vec<OpenBreaker>,
    /// The memory for messages in hand. That some wait for it does not keep a process from being ready either.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_memory: Option<MessageMemory>,
}

/// How the memory for messages stands.
#[derive(Serialize)]
struct MessageMemory {
    budget_bytes: u64,
    reserved_bytes: u64,
    waiting: usize,
    longest_wait_ms: u128,
}

impl From<MemoryUse> for MessageMemory {
    fn from(MemoryUse { budget, reserved, waiting, longest_wait }: MemoryUse) -> Self {
        let longest_wait_ms = longest_wait.as_millis();
        Self { budget_bytes: budget, reserved_bytes: reserved, waiting, longest_wait_ms }
    }
}

impl Readiness {
    pub(super) fn is_ready(&self) -> bool {
        self.checks.all_good()
    }
}

/// What each check found.
struct Checks([(&'static str, Found); 4]);

impl Checks {
    fn all_good(&self) -> bool {
        self.0.iter().all(|(_, result)| result.is_ok())
    }
}

/// `{"stages": "ok", "bus": "not connected", ...}`
impl Serialize for Checks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, result) in &self.0 {
            map.serialize_entry(name, result.as_ref().err().map_or("ok", |why| &**why))?;
        }
        map.end()
    }
}

/// A breaker that is open, and why.
#[derive(Serialize)]
struct OpenBreaker {
    stage: StageName,
    dependency: Arc<str>,
    kind: DependencyKind,
    since: Timestamp,
    class: &'static str,
    cause: Arc<str>,
}

impl From<&Trouble> for OpenBreaker {
    fn from(trouble: &Trouble) -> Self {
        Self {
            stage: trouble.stage,
            dependency: Arc::clone(&trouble.dependency),
            kind: trouble.kind,
            since: trouble.since,
            class: trouble.cause.class,
            cause: Arc::clone(&trouble.cause.text),
        }
    }
}

/// The probes of one process.
#[derive(Clone, Default)]
pub(super) struct Probes {
    database: Probe,
    bus: Probe,
}

/// A probe under way, or its answer.
type Asked = Shared<BoxFuture<'static, Found>>;

/// The last probe, and when it was begun.
#[derive(Clone, Default)]
struct Probe(Arc<Mutex<Option<(Instant, Asked)>>>);

impl Probe {
    /// The answer of a probe that was begun within [`PROBE_LIFE`].
    async fn answer(&self, ask: impl FnOnce() -> BoxFuture<'static, Found>) -> Found {
        let probe = {
            // Nothing panics while holding the lock.
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some((since, probe)) if since.elapsed() < PROBE_LIFE => probe.clone(),
                Some(_) | None => {
                    let limited = tokio::time::timeout(CHECK_LIMIT, ask()).map(|answered| {
                        answered.unwrap_or_else(|_| Err(format!("no answer within {CHECK_LIMIT:?}").into()))
                    });
                    let probe = limited.boxed().shared();
                    *last = Some((Instant::now(), probe.clone()));
                    probe
                }
            }
        };
        probe.await
    }
}

pub(super) async fn check(state: &HttpState, probes: &Probes) -> Readiness {
    let (stages, database, bus) =
        tokio::join!(stages(state.observer.as_ref()), database(state, probes), bus(state, probes));
    let troubles = state.observer.as_ref().map(Observer::troubles).unwrap_or_default();
    let met = |kind| {
        let trouble = troubles.iter().filter(|trouble| trouble.kind == kind);
        let recent = trouble.filter(|trouble| trouble.last.elapsed() < TROUBLE_LIFE);
        // What failed last knows best.
        recent
            .max_by_key(|trouble| trouble.last)
            .map_or(Ok(()), |trouble| Err(Arc::clone(&trouble.cause.text)))
    };
    // A broken template is not tried again before it changes.
    let broken = troubles.iter().find(|trouble| trouble.kind == DependencyKind::Prompt);
    let without_prompt = broken.map_or(Ok(()), |trouble| Err(Arc::clone(&trouble.cause.text)));
    // Compared in the background, at a rate that does not depend on who asks.
    let refusal = state.refusal.as_ref().and_then(|refusal| refusal.borrow().clone());
    let namespace = refusal.map_or(Ok(()), |refusal| Err(refusal.into()));
    let checks = Checks([
        ("stages", without_prompt.and(stages)),
        ("bus", met(DependencyKind::Bus).and(bus)),
        ("database", met(DependencyKind::Store).and(database)),
        ("namespace", namespace),
    ]);
    let status = if checks.all_good() { "ready" } else { "not_ready" };
    let breakers = troubles.iter().filter(|trouble| trouble.is_open).map(OpenBreaker::from).collect();
    let message_memory = state.observer.as_ref().map(|observer| observer.memory().into());
    Readiness { status, checks, breakers, message_memory }
}

async fn stages(observer: Option<&Observer>) -> Found {
    let Some(observer) = observer else { return Ok(()) };
    let status = tokio::time::timeout(CHECK_LIMIT, observer.status())
        .await
        .map_err(|_| format!("no answer from the supervisor within {CHECK_LIMIT:?}"))?;
    if status.is_empty() {
        return Err("the supervisor has ended".into());
    }
    let idle: Vec<&str> =
        status.iter().filter(|(_, consuming)| !consuming).map(|(stage, _)| stage.as_str()).collect();
    if idle.is_empty() { Ok(()) } else { Err(format!("not consuming: {}", idle.join(", ")).into()) }
}

async fn database(state: &HttpState, probes: &Probes) -> Found {
    let store = Arc::clone(&state.store);
    let probe = async move { store.probe().await.map_err(|error| error_chain(&error).into()) };
    probes.database.answer(|| probe.boxed()).await
}

async fn bus(state: &HttpState, probes: &Probes) -> Found {
    if !state.bus.is_connected() {
        return Err("not connected".into());
    }
    let bus = Arc::clone(&state.bus);
    let probe = async move { bus.probe().await.map_err(|error| error_chain(&error).into()) };
    probes.bus.answer(|| probe.boxed()).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_cost_one_probe_a_second() {
        let probe = Probe::default();
        let begun = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let begun = Arc::clone(&begun);
            probe.answer(move || {
                async move {
                    begun.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Ok(())
                }
                .boxed()
            })
        };
        let answers = futures_util::future::join_all((0..100).map(|_| ask())).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        tokio::time::sleep(PROBE_LIFE).await;
        assert!(ask().await.is_ok());
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_without_an_answer_ends_with_its_limit() {
        let silent = Probe::default().answer(|| std::future::pending().boxed()).await;
        assert_eq!(silent, Err("no answer within 800ms".into()));
    }
}
