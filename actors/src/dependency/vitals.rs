//! What this process knows of its dependencies from its own calls: which of them fail, since when and why.
//!
//! Dependencies and waits for the bus report here; readiness reads. The state is kept behind a lock that is held for a
//! few instructions and never across an await.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use throughline_schemas::{StageName, Timestamp};
use tokio::time::Instant;

use crate::dependency::cause::Cause;

/// What a dependency is. Without the first two and a prompt nothing can be done; the others degrade or delay an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyKind {
    /// The database.
    Store,
    /// The event bus.
    Bus,
    /// A data source.
    Source,
    /// The provider of models.
    Model,
    /// The prompt template.
    Prompt,
}

impl DependencyKind {
    /// Whether a worker can do nothing without it.
    pub fn is_vital(self) -> bool {
        match self {
            Self::Store | Self::Bus | Self::Prompt => true,
            Self::Source | Self::Model => false,
        }
    }
}

/// A dependency that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The stage that met it.
    pub stage: StageName,
    /// The dependency, by its name in metrics and logs.
    pub dependency: Arc<str>,
    /// What it is.
    pub kind: DependencyKind,
    /// Whether its breaker lets no call through, a probe excepted.
    pub is_open: bool,
    /// Since when it fails.
    pub since: Timestamp,
    /// When it failed last. Work that waits for a vital dependency asks again every few seconds, so a trouble that is
    /// much older is one that was not looked at since.
    pub last: Instant,
    /// Why, the last time.
    pub cause: Cause,
}

type Troubles = BTreeMap<(StageName, Arc<str>), Trouble>;

/// The dependencies that fail. Cheap to clone; clones share their state.
#[derive(Clone, Default)]
pub struct Vitals(Arc<Mutex<Troubles>>);

impl Vitals {
    /// What fails at this moment, by stage and name.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.lock().values().cloned().collect()
    }

    /// Reports a failure. Whether it is the first one after a success.
    pub(crate) fn failed(&self, trouble: Trouble) -> bool {
        let mut troubles = self.lock();
        let key = (trouble.stage, Arc::clone(&trouble.dependency));
        if let Some(known) = troubles.get_mut(&key) {
            *known = Trouble { since: known.since, ..trouble };
            false
        } else {
            troubles.insert(key, trouble);
            true
        }
    }

    /// Reports a success; what failed before, if anything did.
    pub(crate) fn answered(&self, stage: StageName, dependency: &Arc<str>) -> Option<Trouble> {
        let mut troubles = self.lock();
        if troubles.is_empty() {
            return None;
        }
        troubles.remove(&(stage, Arc::clone(dependency)))
    }

    fn lock(&self) -> MutexGuard<'_, Troubles> {
        // Nothing panics while holding the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_lasts_from_the_first_failure_to_the_next_success_and_tells_the_last_cause() {
        let vitals = Vitals::default();
        let name: Arc<str> = "database".into();
        let last = Instant::now();
        let trouble = |ms, text: &str| Trouble {
            stage: StageName::Input,
            dependency: Arc::clone(&name),
            kind: DependencyKind::Store,
            is_open: false,
            since: Timestamp::from_unix_ms(ms),
            last,
            cause: Cause { class: "locked", text: text.into() },
        };
        assert!(vitals.failed(trouble(1, "first")));
        assert!(!vitals.failed(trouble(2, "second")));
        assert_eq!(vitals.troubles(), [trouble(1, "second")]);
        assert!(vitals.answered(StageName::Context, &name).is_none(), "another stage's view");
        assert_eq!(vitals.answered(StageName::Input, &name), Some(trouble(1, "second")));
        assert!(vitals.troubles().is_empty());
    }
}
