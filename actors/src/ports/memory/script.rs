//! What a scripted fake answers, by name: first a queue, then a default.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One scripted answer to a call.
#[derive(Debug, Clone)]
pub enum Reply<R> {
    /// At once.
    Now(R),
    /// After a time of tokio's clock, which tests may pause.
    After(Duration, R),
    /// Never; the caller's own limit has to end the call.
    Never,
}

/// Answers by name, and a record of the calls.
///
/// The rule for a call: the next answer of the name's queue, else what the name's default makes of the call, else
/// nothing, which the fake reports as the error it has for names that are not configured. Calls to a name that was
/// never given anything are not recorded: a real adapter would not make them.
pub struct Script<C, R> {
    state: Arc<Mutex<State<C, R>>>,
}

struct State<C, R> {
    queues: HashMap<String, VecDeque<Reply<R>>>,
    defaults: HashMap<String, Default<C, R>>,
    calls: Vec<(String, C)>,
    in_flight: usize,
    peak: usize,
}

type Default<C, R> = Arc<dyn Fn(&C) -> Reply<R> + Send + Sync>;

impl<C, R> std::default::Default for Script<C, R> {
    fn default() -> Self {
        let state = State {
            queues: HashMap::new(),
            defaults: HashMap::new(),
            calls: Vec::new(),
            in_flight: 0,
            peak: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

impl<C, R> fmt::Debug for Script<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("calls", &self.lock().calls.len()).finish_non_exhaustive()
    }
}

impl<C: Clone, R> Script<C, R> {
    /// Puts an answer at the end of a name's queue.
    pub fn push(&self, name: &str, reply: Reply<R>) {
        self.lock().queues.entry(name.to_owned()).or_default().push_back(reply);
    }

    /// What a name answers whenever its queue is empty.
    pub fn otherwise(&self, name: &str, reply: impl Fn(&C) -> Reply<R> + Send + Sync + 'static) {
        self.lock().defaults.insert(name.to_owned(), Arc::new(reply));
    }

    /// Every call so far, in order, abandoned ones included.
    pub fn requests(&self) -> Vec<C> {
        self.lock().calls.iter().map(|(_, call)| call.clone()).collect()
    }

    /// How many calls a name got so far.
    pub fn calls(&self, name: &str) -> usize {
        self.lock().calls.iter().filter(|(called, _)| called == name).count()
    }

    /// The most calls that were under way at once.
    pub fn peak_in_flight(&self) -> usize {
        self.lock().peak
    }

    /// Calls that are under way.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// Records a call and answers it; `None` if nothing is scripted for the name.
    pub(super) async fn play(&self, name: &str, call: &C) -> Option<R> {
        // Counts down when the call is abandoned, too.
        let (reply, _under_way) = self.begin(name, call)?;
        match reply {
            Reply::Now(result) => Some(result),
            Reply::After(latency, result) => {
                tokio::time::sleep(latency).await;
                Some(result)
            }
            Reply::Never => future::pending().await,
        }
    }

    fn begin(&self, name: &str, call: &C) -> Option<(Reply<R>, UnderWay<C, R>)> {
        let mut state = self.lock();
        let default = state.defaults.get(name).map(Arc::clone);
        let queued = match state.queues.get_mut(name) {
            None if default.is_none() => return None,
            None => None,
            Some(queue) => queue.pop_front(),
        };
        state.calls.push((name.to_owned(), call.clone()));
        state.in_flight += 1;
        state.peak = state.peak.max(state.in_flight);
        drop(state);
        let under_way = UnderWay(Arc::clone(&self.state));
        // The default runs without the lock: it may look at the script.
        let reply = queued.or_else(|| default.map(|default| default(call)))?;
        Some((reply, under_way))
    }
}

impl<C, R> Script<C, R> {
    fn lock(&self) -> MutexGuard<'_, State<C, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct UnderWay<C, R>(Arc<Mutex<State<C, R>>>);

impl<C, R> Drop for UnderWay<C, R> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).in_flight -= 1;
    }
}
