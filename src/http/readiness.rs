//! Whether this process can do its work at this moment.
//!
//! Asked anew each time: the answer is worth nothing when it is old, and costs one statement of the database that
//! reads no table. [`super::server::MAX_CONNECTIONS`] bounds how many may ask at once.

use std::time::Duration;

use serde::{Serialize, Serializer, ser::SerializeMap};
use throughline_actors::engine::Observer;

use super::HttpState;

/// Limit on each check, below the one second that an orchestrator's probe waits, so that the reason arrives.
pub(super) const CHECK_LIMIT: Duration = Duration::from_millis(800);

/// What each check found.
pub(super) struct Checks([(&'static str, Result<(), String>); 4]);

impl Checks {
    pub(super) fn all_good(&self) -> bool {
        self.0.iter().all(|(_, result)| result.is_ok())
    }
}

/// `{"stages": "ok", "bus": "not connected", ...}`
impl Serialize for Checks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, result) in &self.0 {
            map.serialize_entry(name, result.as_ref().err().map_or("ok", String::as_str))?;
        }
        map.end()
    }
}

pub(super) async fn check(state: &HttpState) -> Checks {
    let (stages, database) = tokio::join!(stages(state.observer.as_ref()), database(state));
    let bus = if state.bus.is_connected() { Ok(()) } else { Err("not connected".to_owned()) };
    // Compared in the background, at a rate that does not depend on who asks.
    let refusal = state.refusal.as_ref().and_then(|refusal| refusal.borrow().clone());
    let namespace = refusal.map_or(Ok(()), Err);
    Checks([("stages", stages), ("bus", bus), ("database", database), ("namespace", namespace)])
}

async fn stages(observer: Option<&Observer>) -> Result<(), String> {
    let Some(observer) = observer else { return Ok(()) };
    let status = tokio::time::timeout(CHECK_LIMIT, observer.status())
        .await
        .map_err(|_| format!("no answer from the supervisor within {CHECK_LIMIT:?}"))?;
    if status.is_empty() {
        return Err("the supervisor has ended".to_owned());
    }
    let idle: Vec<&str> =
        status.iter().filter(|(_, consuming)| !consuming).map(|(stage, _)| stage.as_str()).collect();
    if idle.is_empty() { Ok(()) } else { Err(format!("not consuming: {}", idle.join(", "))) }
}

async fn database(state: &HttpState) -> Result<(), String> {
    match tokio::time::timeout(CHECK_LIMIT, state.store.ping()).await {
        // Without the driver's own words, which may name hosts and users.
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {CHECK_LIMIT:?}")),
    }
}
