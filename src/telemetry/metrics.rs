//! Metrics, kept in memory until someone scrapes them.

use std::{fmt::Write, sync::Arc, time::Duration};

use metrics::{KeyName, Recorder, Unit};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use throughline_actors::{metrics as names, ports::clock::Clock};
use throughline_schemas::Timestamp;
use tokio::{runtime::Handle, task::JoinHandle};

use super::process;
use crate::system::SystemClock;

/// `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How often histogram samples are folded into their buckets. Until then each takes memory, so that without this a
/// process that is not scraped would grow with its work.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Upper bounds of the histograms' buckets, in seconds: from a stage that only passes on to a model that writes a long
/// answer.
const BUCKETS: [f64; 20] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0,
    60.0, 90.0, 120.0,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What each metric says. Its labels are listed where it is named, in `actors/src/metrics.rs`.
const DESCRIPTIONS: [(&str, Kind, Unit, &str); 50] = {
    use Kind::{Counter, Gauge, Histogram};
    [
        (names::DELIVERIES, Counter, Unit::Count, "Deliveries settled, by stage and outcome."),
        (names::REDELIVERIES, Counter, Unit::Count, "Deliveries that came more than once, by stage."),
        (
            names::NOT_DONE_AGAIN,
            Counter,
            Unit::Count,
            "Old events that came as new ones (a consumer was made anew or rewound) and whose work was on record, by stage.",
        ),
        (names::IN_FLIGHT, Gauge, Unit::Count, "Deliveries in hand, by stage."),
        (
            names::STAGE_SECONDS,
            Histogram,
            Unit::Seconds,
            "Time from the start of the work on a delivery to its end, by stage.",
        ),
        (
            names::WAIT_SECONDS,
            Histogram,
            Unit::Seconds,
            "Time from the storage of an event to the start of the work on it, by stage.",
        ),
        (
            names::CALL_SECONDS,
            Histogram,
            Unit::Seconds,
            "Time in one call to a dependency, by stage, dependency and result.",
        ),
        (
            names::CALLS_REFUSED,
            Counter,
            Unit::Count,
            "Calls that an open breaker or a rate limit prevented, by stage and dependency.",
        ),
        (
            names::BREAKER_STATE,
            Gauge,
            Unit::Count,
            "State of a breaker, by stage and dependency: 0 closed, 1 half-open, 2 open.",
        ),
        (
            names::BREAKER_CAUSE,
            Gauge,
            Unit::Count,
            "Why a breaker is open, by stage, dependency and class of the error: 1 while it is.",
        ),
        (
            names::BREAKER_TRANSITIONS,
            Counter,
            Unit::Count,
            "Changes of a breaker's state, by stage, dependency and new state.",
        ),
        (names::WORKFLOWS_FAILED, Counter, Unit::Count, "Workflows that failed, by stage and code."),
        (names::WORKFLOWS_SAVED, Counter, Unit::Count, "Workflows that were completed and saved."),
        (
            names::DUPLICATES,
            Counter,
            Unit::Count,
            "Inputs ignored because their workflow id had been admitted before.",
        ),
        (
            names::CONFLICTS,
            Counter,
            Unit::Count,
            "Inputs refused because their workflow id belongs to another message.",
        ),
        (names::TOKENS, Counter, Unit::Count, "Tokens of model calls, by model and type (input, output)."),
        (
            names::MODEL_SECONDS,
            Histogram,
            Unit::Seconds,
            "Time of one call to a model, by operation, provider, model and error type.",
        ),
        (
            names::FIRST_CHUNK_SECONDS,
            Histogram,
            Unit::Seconds,
            "Time to the first piece of a streamed answer, by operation, provider and model.",
        ),
        (
            names::RATE_LIMIT_SECONDS,
            Histogram,
            Unit::Seconds,
            "Time that rate limits held a call back, by provider and model.",
        ),
        (
            names::RATE_LIMIT_WAITING,
            Gauge,
            Unit::Count,
            "Calls that rate limits hold back at this moment, by provider and model.",
        ),
        (
            names::RATE_LIMITED,
            Counter,
            Unit::Count,
            "Calls that rate limits would have held back for too long, by provider and model.",
        ),
        (
            names::ATTEMPT_LOGS_LOST,
            Counter,
            Unit::Count,
            "Notes of earlier deliveries' attempts that were lost, by stage; these are missing on record.",
        ),
        (
            names::FALLBACKS,
            Counter,
            Unit::Count,
            "Requests that went on to another model, by the two models.",
        ),
        (
            names::TURNS_RESUMED,
            Counter,
            Unit::Count,
            "Turns on which nobody worked, by the stage that was to go on with them.",
        ),
        (
            names::HELD_STARTED,
            Counter,
            Unit::Count,
            "Turns that waited for a place in their user's share and were started.",
        ),
        (
            names::STORES_DIFFER,
            Counter,
            Unit::Count,
            "Times that log and database were found to be of different age, by kind (new_log, lost_database, older_database).",
        ),
        (
            names::TURNS_RESTORED,
            Counter,
            Unit::Count,
            "Turns that were closed as the log says, because the database had forgotten their end.",
        ),
        (
            names::TURNS,
            Gauge,
            Unit::Count,
            "Open turns of the namespace, by state (waiting, running), counted in the database every 10 s by each worker that admits: take the maximum.",
        ),
        (
            names::OLDEST_TURN_SECONDS,
            Gauge,
            Unit::Seconds,
            "Time since the oldest open turn was admitted, by state (waiting, running); 0 if there is none.",
        ),
        (names::LOG_BYTES, Gauge, Unit::Bytes, "What the event log takes."),
        (names::LOG_MAX_BYTES, Gauge, Unit::Bytes, "What the event log may take before it refuses input."),
        (
            names::LOG_FILL,
            Gauge,
            Unit::Count,
            "How full a stream is, from 0 to 1, by stream (events, dead_letters, bodies, claims, advisories).",
        ),
        (
            names::LOG_GROWTH,
            Gauge,
            Unit::Bytes,
            "What the event log grows by each second, whatever is removed meanwhile.",
        ),
        (
            names::LOG_SECONDS_LEFT,
            Gauge,
            Unit::Seconds,
            "Time until the event log is full if nothing is removed; -1 if it does not grow.",
        ),
        (
            names::FOREIGN_MESSAGES,
            Counter,
            Unit::Count,
            "Messages on the subject of an event that were no event, and were taken out of the log.",
        ),
        (
            names::BODIES_RELEASED,
            Counter,
            Unit::Count,
            "Large bodies of finished work that were removed from their store to make room.",
        ),
        (names::LOG_PURGED, Counter, Unit::Count, "Events of finished work that were removed from the log."),
        (
            names::LOG_ARCHIVED,
            Counter,
            Unit::Count,
            "Events that were archived before they were removed from the log.",
        ),
        (
            names::LOG_OLDEST_OPEN,
            Gauge,
            Unit::Count,
            "Input sequence of the oldest open turn; 0 if none is open.",
        ),
        (
            names::LOG_HELD_SECONDS,
            Gauge,
            Unit::Seconds,
            "Age of the message that keeps everything behind it in a log that is nearly full; 0 if none does.",
        ),
        (
            names::LOG_SHORT_OF_ROOM,
            Gauge,
            Unit::Count,
            "1 while new turns wait because those that run need what room the log has, else 0.",
        ),
        (
            names::RETENTION_FAILING,
            Gauge,
            Unit::Count,
            "1 while old events, rows or archives cannot be removed, else 0.",
        ),
        (names::TURNS_FORGOTTEN, Counter, Unit::Count, "Ended turns that were forgotten, with their rows."),
        (names::RESTARTS, Counter, Unit::Count, "Restarts of a stage actor, by stage."),
        (names::WORKER_DEATHS, Counter, Unit::Count, "Workers that died with a delivery in hand, by stage."),
        (names::MEMORY_BUDGET, Gauge, Unit::Bytes, "Memory that messages in hand may take, in bytes."),
        (names::MEMORY_RESERVED, Gauge, Unit::Bytes, "Memory that messages in hand have reserved, in bytes."),
        (names::MEMORY_WAITING, Gauge, Unit::Count, "Messages that wait for memory."),
        (
            names::MEMORY_WAIT_SECONDS,
            Histogram,
            Unit::Seconds,
            "Time that messages waited for memory, by stage; only of those that did.",
        ),
        (
            names::NATS_CONNECTION_EVENTS,
            Counter,
            Unit::Count,
            "What happened to the connection to NATS, by event: connected, disconnected, slow_consumer and so on.",
        ),
    ]
};

/// Why metrics are not kept.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The exporter refuses its settings.
    #[error("the metrics exporter cannot be made")]
    Build(#[from] BuildError),
    /// Something else in this process takes metrics already.
    #[error("metrics of this process go elsewhere already; install them once")]
    Twice,
}

/// Makes the recorder that of the whole process.
pub fn install(recorder: PrometheusRecorder) -> Result<(), MetricsError> {
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Twice)
}

/// The metrics of this process. Clones are the same metrics; upkeep ends with the last one.
#[derive(Clone)]
pub struct Metrics {
    kept: Arc<Kept>,
    started: Timestamp,
}

struct Kept {
    handle: PrometheusHandle,
    upkeep: JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

async fn upkeep(handle: PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        handle.run_upkeep();
    }
}

impl Metrics {
    /// Metrics of whatever uses the recorder; [`install`] makes that the whole process.
    pub fn recorder(runtime: &Handle) -> Result<(PrometheusRecorder, Self), MetricsError> {
        let mut builder = PrometheusBuilder::new();
        for name in names::HISTOGRAMS {
            builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &BUCKETS)?;
        }
        let recorder = builder.build_recorder();
        for (name, kind, unit, help) in DESCRIPTIONS {
            let (name, help) = (KeyName::from_const_str(name), help.into());
            match kind {
                Kind::Counter => recorder.describe_counter(name, Some(unit), help),
                Kind::Gauge => recorder.describe_gauge(name, Some(unit), help),
                Kind::Histogram => recorder.describe_histogram(name, Some(unit), help),
            }
        }
        let handle = recorder.handle();
        let upkeep = runtime.spawn(upkeep(handle.clone()));
        Ok((recorder, Self { kept: Arc::new(Kept { handle, upkeep }), started: SystemClock.now() }))
    }

    /// Everything, in Prometheus' text format ([`CONTENT_TYPE`]).
    pub fn render(&self) -> String {
        let mut text = self.kept.handle.render();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "# HELP throughline_build_info The running version, as a label.\n\
             # TYPE throughline_build_info gauge\n\
             throughline_build_info{{version=\"{}\"}} 1\n",
            env!("CARGO_PKG_VERSION")
        );
        text.push_str(&process::render(self.started));
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use metrics::{counter, histogram, with_local_recorder};

    use super::*;

    #[test]
    fn every_metric_is_described() {
        let source = include_str!("../../actors/src/metrics.rs");
        let named: Vec<&str> = source
            .lines()
            .filter_map(|line| {
                line.strip_prefix("pub const ")?.split_once(": &str = \"")?.1.strip_suffix("\";")
            })
            .collect();
        assert_eq!(named, DESCRIPTIONS.map(|(name, ..)| name));
        let histograms = DESCRIPTIONS.iter().filter(|(_, kind, ..)| *kind == Kind::Histogram);
        assert_eq!(histograms.map(|(name, ..)| *name).collect::<Vec<_>>(), names::HISTOGRAMS);
    }

    #[tokio::test]
    async fn a_scrape_has_help_types_buckets_version_and_process() {
        let (recorder, metrics) = Metrics::recorder(&Handle::current()).unwrap();
        with_local_recorder(&recorder, || {
            counter!(names::DELIVERIES, "stage" => "input", "outcome" => "acknowledged").increment(3);
            histogram!(names::STAGE_SECONDS, "stage" => "input").record(0.002);
        });
        let text = metrics.render();
        for line in [
            "# HELP throughline_deliveries_total Deliveries settled, by stage and outcome.",
            "# TYPE throughline_deliveries_total counter",
            r#"throughline_deliveries_total{stage="input",outcome="acknowledged"} 3"#,
            "# TYPE throughline_stage_seconds histogram",
            r#"throughline_stage_seconds_bucket{stage="input",le="0.001"} 0"#,
            r#"throughline_stage_seconds_bucket{stage="input",le="0.0025"} 1"#,
            r#"throughline_stage_seconds_bucket{stage="input",le="120"} 1"#,
            concat!("throughline_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("\nprocess_start_time_seconds "), "{text}");
        #[cfg(target_os = "linux")]
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    }

    #[tokio::test]
    async fn upkeep_ends_with_the_last_clone() {
        let (_recorder, metrics) = Metrics::recorder(&Handle::current()).unwrap();
        let task = metrics.kept.upkeep.abort_handle();
        let clone = metrics.clone();
        drop(metrics);
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        drop(clone);
        tokio::task::yield_now().await;
        assert!(task.is_finished());
    }
}
