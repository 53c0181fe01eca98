//! What a worker at `http.listen` says of itself: whether it is ready, and which of its breakers are open.

use std::time::Duration;

use serde::Deserialize;
use throughline_actors::policy::limits::MEMORY_LONG_WAIT;

use super::{finding::Finding, sync::get};
use crate::{cli::health::reachable, config::Config};

const NAME: &str = "worker";

#[derive(Debug, Deserialize)]
struct Readiness {
    status: String,
    checks: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    breakers: Vec<Breaker>,
    #[serde(default)]
    message_memory: MessageMemory,
}

#[derive(Debug, Default, Deserialize)]
struct MessageMemory {
    budget_bytes: u64,
    waiting: u64,
    longest_wait_ms: u64,
}

impl MessageMemory {
    /// What is to be told, if messages wait for long.
    fn trouble(&self) -> Option<String> {
        let wait = Duration::from_millis(self.longest_wait_ms);
        (wait > MEMORY_LONG_WAIT).then(|| {
            format!(
                "{} messages wait for memory, of which there are {} MiB, the first for {} s",
                self.waiting,
                self.budget_bytes >> 20,
                wait.as_secs()
            )
        })
    }
}

#[derive(Debug, Deserialize)]
struct Breaker {
    stage: String,
    dependency: String,
    since: String,
    cause: String,
}

/// Nothing if no worker answers there: it need not run on this machine.
pub(super) async fn check(config: &Config) -> Option<Finding> {
    let address = reachable(config.http.listen);
    if address.port() == 0 {
        return None;
    }
    let readiness = get(&format!("http://{address}/readyz")).await?;
    Some(judge(&address.to_string(), &readiness))
}

fn judge(address: &str, readiness: &Readiness) -> Finding {
    let mut words: Vec<String> = readiness
        .checks
        .iter()
        .filter(|(_, found)| found.as_str() != Some("ok"))
        .map(|(name, found)| format!("{name}: {}", found.as_str().unwrap_or("unknown")))
        .collect();
    words.extend(readiness.breakers.iter().map(|breaker| {
        let Breaker { stage, dependency, since, cause } = breaker;
        format!("the breaker of {dependency} ({stage}) is open since {since} because {cause}")
    }));
    let words = words.join("; ");
    if readiness.status != "ready" {
        let advice = "mend what it names; it goes on by itself";
        return Finding::fail(NAME, format!("the worker at {address} is not ready: {words}"), advice);
    }
    if let Some(trouble) = readiness.message_memory.trouble() {
        let told = if words.is_empty() { trouble } else { format!("{words}; {trouble}") };
        let advice = "start more workers, or give this one more memory (worker.message_memory_mib, the container's limit)";
        return Finding::warn(NAME, format!("the worker at {address} is ready, but {told}"), advice);
    }
    if readiness.breakers.is_empty() {
        return Finding::ok(NAME, format!("the worker at {address} is ready"));
    }
    let advice = "answers lack these, or wait for them, until they are back";
    Finding::warn(NAME, format!("the worker at {address} is ready, but {words}"), advice)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::finding::Status;

    #[test]
    fn a_worker_s_troubles_are_told_with_their_cause() {
        let judged = |status: &str, database: &str, breakers: serde_json::Value| {
            let checks = json!({"stages": "ok", "bus": "ok", "database": database});
            let readiness = json!({"status": status, "checks": checks, "breakers": breakers});
            judge("127.0.0.1:8080", &serde_json::from_value(readiness).unwrap())
        };
        assert_eq!(judged("ready", "ok", json!([])).status, Status::Ok);
        let broken = judged("not_ready", "the disk of the database is full", json!([]));
        assert_eq!(broken.status, Status::Fail);
        assert!(
            broken.detail.ends_with("not ready: database: the disk of the database is full"),
            "{broken:?}"
        );
        let memory = |longest_wait_ms: u64| {
            let memory = json!({"budget_bytes": 268_435_456, "reserved_bytes": 1, "waiting": 7,
                "longest_wait_ms": longest_wait_ms});
            let readiness = json!({"status": "ready", "checks": {"stages": "ok"}, "message_memory": memory});
            judge("127.0.0.1:8080", &serde_json::from_value(readiness).unwrap())
        };
        assert_eq!(memory(9_000).status, Status::Ok);
        let waits = memory(25_000);
        assert!(
            waits
                .detail
                .ends_with("7 messages wait for memory, of which there are 256 MiB, the first for 25 s")
        );
        assert_eq!(waits.status, Status::Warn);
        let breaker = json!({"stage": "external", "dependency": "orders", "kind": "source", "since": "2026-01-01T00:00:00Z",
            "class": "status", "cause": "failed (HTTP 503)"});
        let degraded = judged("ready", "ok", json!([breaker]));
        assert_eq!(degraded.status, Status::Warn);
        assert!(
            degraded
                .detail
                .contains("orders (external) is open since 2026-01-01T00:00:00Z because failed (HTTP 503)")
        );
    }
}
