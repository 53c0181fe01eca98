//! Every metric of the engine and its adapters, by name. Metrics follow Prometheus naming; attributes follow
//! OpenTelemetry's semantic conventions v1.41.1 (`messaging.*`, `gen_ai.*`). No label ever holds a user, session or
//! workflow id.

use std::time::Duration;

use metrics::{Gauge, Label, counter, gauge, histogram};
use throughline_schemas::{FailureCode, StageName, Timestamp, Usage, event::generation::AttemptError};

use crate::{
    model::client::ModelTarget,
    policy::{
        breaker::BreakerState,
        retention::{float, until},
    },
    ports::{
        log::{Fill, Room},
        store::{OpenTurns, TurnState},
    },
};

/// Deliveries settled, by stage and outcome.
pub const DELIVERIES: &str = "throughline_deliveries_total";
/// Deliveries that came more than once, by stage.
pub const REDELIVERIES: &str = "throughline_redeliveries_total";
/// Old events that came as new ones and whose work was on record, by stage.
pub const NOT_DONE_AGAIN: &str = "throughline_work_not_repeated_total";
/// Deliveries in hand, by stage.
pub const IN_FLIGHT: &str = "throughline_deliveries_in_flight";
/// Time from a delivery's start in a worker to its settlement, by stage.
pub const STAGE_SECONDS: &str = "throughline_stage_seconds";
/// Time from an event's storage to the start of its handling, by stage.
pub const WAIT_SECONDS: &str = "throughline_stage_wait_seconds";
/// Time inside one call to a dependency, by stage, dependency and result.
pub const CALL_SECONDS: &str = "throughline_call_seconds";
/// Calls that an open breaker or a rate limit prevented, by stage and dependency.
pub const CALLS_REFUSED: &str = "throughline_calls_refused_total";
/// Breaker state by stage and dependency: 0 closed, 1 half-open, 2 open.
pub const BREAKER_STATE: &str = "throughline_breaker_state";
/// Why a breaker is open, by stage, dependency and class of the error: 1 while it is.
pub const BREAKER_CAUSE: &str = "throughline_breaker_open_cause";
/// Breaker transitions by stage, dependency and new state.
pub const BREAKER_TRANSITIONS: &str = "throughline_breaker_transitions_total";
/// Workflows ended as failed, by stage and code.
pub const WORKFLOWS_FAILED: &str = "throughline_workflows_failed_total";
/// Workflows ended as saved.
pub const WORKFLOWS_SAVED: &str = "throughline_workflows_saved_total";
/// Inputs ignored because their workflow id had been admitted before.
pub const DUPLICATES: &str = "throughline_duplicate_inputs_total";
/// Inputs refused because their workflow id belongs to another message.
pub const CONFLICTS: &str = "throughline_conflicts_total";
/// Tokens by model and type (`input`, `output`).
pub const TOKENS: &str = "gen_ai_client_token_usage_total";
/// Time of one call to a model, by operation, provider, model and, if it failed, error type.
pub const MODEL_SECONDS: &str = "gen_ai_client_operation_duration_seconds";
/// Time to the first piece of a streamed answer, by operation, provider and model.
pub const FIRST_CHUNK_SECONDS: &str = "gen_ai_client_operation_time_to_first_chunk_seconds";
/// Time that rate limits held a call back, by provider and model; only of calls that were.
pub const RATE_LIMIT_SECONDS: &str = "throughline_rate_limit_wait_seconds";
/// Calls that are being held back by rate limits, by provider and model.
pub const RATE_LIMIT_WAITING: &str = "throughline_rate_limit_waiting";
/// Calls that rate limits would have held back for too long, by provider and model.
pub const RATE_LIMITED: &str = "throughline_rate_limit_refused_total";
/// Attempt logs of deliveries that could not be stored, read, or were too large, by stage: their attempts are missing
/// in the event that ends the work.
pub const ATTEMPT_LOGS_LOST: &str = "throughline_notes_lost_total";
/// Requests that went on to another model, by the models' names in the configuration.
pub const FALLBACKS: &str = "throughline_model_fallbacks_total";
/// Turns on which no worker worked, by the stage that was to go on with them.
pub const TURNS_RESUMED: &str = "throughline_turns_resumed_total";
/// Turns that waited for a place in their user's share and were started.
pub const HELD_STARTED: &str = "throughline_held_turns_started_total";
/// Times that log and database were found to be of different age, by kind.
pub const STORES_DIFFER: &str = "throughline_log_and_database_differ_total";
/// Turns that were closed as the log says, because the database had forgotten their end.
pub const TURNS_RESTORED: &str = "throughline_turns_restored_total";
/// Open turns, by state: `waiting` or `running`. Every process that admits counts all of them.
pub const TURNS: &str = "throughline_turns";
/// Time since the oldest open turn was admitted, by state; 0 if there is none.
pub const OLDEST_TURN_SECONDS: &str = "throughline_oldest_turn_age_seconds";
/// What the event log takes, in bytes.
pub const LOG_BYTES: &str = "throughline_log_bytes";
/// What the event log may take before it refuses input, in bytes.
pub const LOG_MAX_BYTES: &str = "throughline_log_max_bytes";
/// How full a stream is, from 0 to 1, by what it holds: `events`, `dead_letters`, `bodies`, `claims`, `advisories`.
pub const LOG_FILL: &str = "throughline_log_fill_ratio";
/// What the event log grows by, in bytes a second, whatever is removed meanwhile.
pub const LOG_GROWTH: &str = "throughline_log_growth_bytes_per_second";
/// Until the event log is full if nothing is removed; -1 if it does not grow.
pub const LOG_SECONDS_LEFT: &str = "throughline_log_seconds_until_full";
/// Messages on the subject of an event that were none, and were taken out of the log.
pub const FOREIGN_MESSAGES: &str = "throughline_foreign_messages_total";
/// Large bodies that nothing names any more and that were removed to make room.
pub const BODIES_RELEASED: &str = "throughline_bodies_released_total";
/// Events of finished work that were removed.
pub const LOG_PURGED: &str = "throughline_log_purged_total";
/// Events that were archived before they were removed.
pub const LOG_ARCHIVED: &str = "throughline_log_archived_total";
/// Input sequence of the oldest open turn; 0 if none is open.
pub const LOG_OLDEST_OPEN: &str = "throughline_log_oldest_open_sequence";
/// Age of the message that keeps a log nearly full that has more to remove behind it; 0 if none does.
pub const LOG_HELD_SECONDS: &str = "throughline_log_held_seconds";
/// Whether new turns wait because those that run need what room the log has: 1 or 0.
pub const LOG_SHORT_OF_ROOM: &str = "throughline_log_short_of_room";
/// Whether old events, rows or archives cannot be removed at this moment: 1 or 0.
pub const RETENTION_FAILING: &str = "throughline_retention_failing";
/// Ended turns that were forgotten, with their rows.
pub const TURNS_FORGOTTEN: &str = "throughline_turns_forgotten_total";
/// Restarts of stage actors, by stage; of `starter`, `sweeper`, `listener` and `retention`, too.
pub const RESTARTS: &str = "throughline_stage_restarts_total";
/// Workers that died while handling a delivery, by stage.
pub const WORKER_DEATHS: &str = "throughline_worker_deaths_total";
/// Memory that messages in hand may take, in bytes.
pub const MEMORY_BUDGET: &str = "throughline_message_memory_budget_bytes";
/// Memory that messages in hand have reserved, in bytes.
pub const MEMORY_RESERVED: &str = "throughline_message_memory_reserved_bytes";
/// Messages that wait for memory.
pub const MEMORY_WAITING: &str = "throughline_message_memory_waiting";
/// Time that messages waited for memory, by stage; only of those that did.
pub const MEMORY_WAIT_SECONDS: &str = "throughline_message_memory_wait_seconds";

/// Events of the NATS connection, by event.
pub const NATS_CONNECTION_EVENTS: &str = "throughline_nats_connection_events_total";

/// Histograms, in seconds; the exporter gives them buckets.
pub const HISTOGRAMS: [&str; 7] = [
    STAGE_SECONDS,
    WAIT_SECONDS,
    CALL_SECONDS,
    MODEL_SECONDS,
    FIRST_CHUNK_SECONDS,
    RATE_LIMIT_SECONDS,
    MEMORY_WAIT_SECONDS,
];

/// Lets the series of what fails exist before it fails, so that a rate over them sees the first time.
pub(crate) fn begin(stage: StageName) {
    for outcome in ["acknowledged", "handed_back", "buried"] {
        counter!(DELIVERIES, "stage" => stage.as_str(), "outcome" => outcome).increment(0);
    }
    let own: &[FailureCode] = match stage {
        StageName::Input => &[
            FailureCode::InvalidInput,
            FailureCode::SessionBusy,
            FailureCode::NotSessionOwner,
            FailureCode::TooManyOpen,
            FailureCode::Interrupted,
            FailureCode::Merged,
            FailureCode::Conflict,
            FailureCode::Stalled,
        ],
        StageName::Generation => &[
            FailureCode::ModelRejected,
            FailureCode::ModelUnavailable,
            FailureCode::RateLimited,
            FailureCode::TimedOut,
            FailureCode::BadResponse,
            FailureCode::PromptFailed,
        ],
        StageName::Context | StageName::External => &[],
        StageName::Persistence => {
            counter!(WORKFLOWS_SAVED).increment(0);
            &[]
        }
    };
    let any = [
        FailureCode::StoreUnavailable,
        FailureCode::UnreadableEvent,
        FailureCode::Poison,
        FailureCode::ResultTooLarge,
        FailureCode::Internal,
    ];
    for code in own.iter().chain(&any) {
        counter!(WORKFLOWS_FAILED, "stage" => stage.as_str(), "code" => code.as_str()).increment(0);
    }
}

pub(crate) fn settled(stage: StageName, outcome: &'static str) {
    counter!(DELIVERIES, "stage" => stage.as_str(), "outcome" => outcome).increment(1);
}

/// So many turns were started that had been held.
pub(crate) fn held_started(turns: usize) {
    counter!(HELD_STARTED).increment(turns as u64);
}

/// Log and database are of different age: `new_log`, `lost_database`, `older_database`.
pub fn stores_differ(kind: &'static str) {
    counter!(STORES_DIFFER, "kind" => kind).increment(1);
}

pub(crate) fn restored() {
    counter!(TURNS_RESTORED).increment(1);
}

pub(crate) fn redelivered(stage: StageName) {
    counter!(REDELIVERIES, "stage" => stage.as_str()).increment(1);
}

pub(crate) fn not_done_again(stage: StageName) {
    counter!(NOT_DONE_AGAIN, "stage" => stage.as_str()).increment(1);
}

pub(crate) fn in_flight(stage: StageName, count: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a count of deliveries is far below 2^52")]
    gauge!(IN_FLIGHT, "stage" => stage.as_str()).set(count as f64);
}

pub(crate) fn stage_time(stage: StageName, waited: Duration, worked: Duration) {
    histogram!(WAIT_SECONDS, "stage" => stage.as_str()).record(waited);
    histogram!(STAGE_SECONDS, "stage" => stage.as_str()).record(worked);
}

pub(crate) fn called(stage: StageName, dependency: &str, result: &'static str, took: Duration) {
    histogram!(CALL_SECONDS, "stage" => stage.as_str(), "dependency" => dependency.to_owned(), "result" => result)
        .record(took);
}

pub(crate) fn refused(stage: StageName, dependency: &str) {
    counter!(CALLS_REFUSED, "stage" => stage.as_str(), "dependency" => dependency.to_owned()).increment(1);
}

pub(crate) fn breaker(stage: StageName, dependency: &str, to: BreakerState) {
    let level = match to {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    };
    gauge!(BREAKER_STATE, "stage" => stage.as_str(), "dependency" => dependency.to_owned()).set(level);
}

/// Why a breaker was open until now, and why it is open from now on.
pub(crate) fn breaker_cause(
    stage: StageName,
    dependency: &str,
    was: Option<&'static str>,
    is: Option<&'static str>,
) {
    let cause = |class: &'static str| {
        let dependency = dependency.to_owned();
        gauge!(BREAKER_CAUSE, "stage" => stage.as_str(), "dependency" => dependency, "class" => class)
    };
    if let Some(was) = was.filter(|was| is != Some(*was)) {
        cause(was).set(0.0);
    }
    if let Some(is) = is {
        cause(is).set(1.0);
    }
}

pub(crate) fn breaker_moved(stage: StageName, dependency: &str, to: BreakerState) {
    breaker(stage, dependency, to);
    counter!(
        BREAKER_TRANSITIONS,
        "stage" => stage.as_str(), "dependency" => dependency.to_owned(), "to" => to.as_str()
    )
    .increment(1);
}

pub(crate) fn failed(stage: StageName, code: FailureCode) {
    counter!(WORKFLOWS_FAILED, "stage" => stage.as_str(), "code" => code.as_str()).increment(1);
}

pub(crate) fn saved() {
    counter!(WORKFLOWS_SAVED).increment(1);
}

pub(crate) fn duplicate() {
    counter!(DUPLICATES).increment(1);
}

pub(crate) fn conflict() {
    counter!(CONFLICTS).increment(1);
}

pub(crate) fn tokens(model: &str, usage: &Usage) {
    counter!(TOKENS, "model" => model.to_owned(), "type" => "input").increment(usage.input_tokens);
    counter!(TOKENS, "model" => model.to_owned(), "type" => "output").increment(usage.output_tokens);
}

pub(crate) fn model_called(
    target: &ModelTarget,
    error: Option<AttemptError>,
    took: Duration,
    first_token: Option<Duration>,
) {
    let mut labels = vec![
        Label::new("gen_ai_operation_name", "chat"),
        Label::new("gen_ai_provider_name", target.provider.clone()),
        Label::new("gen_ai_request_model", target.model.clone()),
    ];
    if let Some(first_token) = first_token {
        histogram!(FIRST_CHUNK_SECONDS, labels.clone()).record(first_token);
    }
    labels.extend(error.map(|error| Label::new("error_type", error.as_str())));
    histogram!(MODEL_SECONDS, labels).record(took);
}

pub(crate) fn held_back(target: &ModelTarget, waited: Duration) {
    let (provider, model) = (target.provider.clone(), target.name.clone());
    histogram!(RATE_LIMIT_SECONDS, "provider" => provider, "model" => model).record(waited);
}

/// Counts a call as held back for as long as it lives.
pub(crate) struct HeldBackNow(Gauge);

impl HeldBackNow {
    pub(crate) fn new(target: &ModelTarget) -> Self {
        let (provider, model) = (target.provider.clone(), target.name.clone());
        let waiting = gauge!(RATE_LIMIT_WAITING, "provider" => provider, "model" => model);
        waiting.increment(1.0);
        Self(waiting)
    }
}

impl Drop for HeldBackNow {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

pub(crate) fn rate_limited(target: &ModelTarget) {
    let (provider, model) = (target.provider.clone(), target.name.clone());
    counter!(RATE_LIMITED, "provider" => provider, "model" => model).increment(1);
}

pub(crate) fn attempt_log_lost(stage: StageName) {
    counter!(ATTEMPT_LOGS_LOST, "stage" => stage.as_str()).increment(1);
}

pub(crate) fn fell_back(from: &ModelTarget, to: &ModelTarget) {
    counter!(FALLBACKS, "from" => from.name.clone(), "to" => to.name.clone()).increment(1);
}

pub(crate) fn resumed(stage: StageName) {
    counter!(TURNS_RESUMED, "stage" => stage.as_str()).increment(1);
}

pub(crate) fn open_turns(open: &OpenTurns, now: Timestamp) {
    for (state, tally) in [(TurnState::Waiting, open.waiting), (TurnState::Running, open.running)] {
        let age = Duration::from_millis(tally.oldest.map_or(0, |oldest| now.ms_since(oldest)));
        gauge!(TURNS, "state" => state.as_str()).set(float(tally.turns));
        gauge!(OLDEST_TURN_SECONDS, "state" => state.as_str()).set(age.as_secs_f64());
    }
}

pub(crate) fn restarted(part: &'static str) {
    counter!(RESTARTS, "stage" => part).increment(1);
}

pub(crate) fn memory(budget: u64, reserved: u64, waiting: usize) {
    gauge!(MEMORY_BUDGET).set(float(budget));
    gauge!(MEMORY_RESERVED).set(float(reserved));
    gauge!(MEMORY_WAITING).set(float(waiting as u64));
}

pub(crate) fn waited_for_memory(stage: StageName, waited: Duration) {
    histogram!(MEMORY_WAIT_SECONDS, "stage" => stage.as_str()).record(waited);
}

pub(crate) fn worker_died(stage: StageName) {
    counter!(WORKER_DEATHS, "stage" => stage.as_str()).increment(1);
}

pub(crate) fn log_fill(fill: &Fill, growth: f64, oldest_open: Option<u64>) {
    gauge!(LOG_BYTES).set(float(fill.bytes));
    gauge!(LOG_GROWTH).set(growth);
    gauge!(LOG_OLDEST_OPEN).set(float(oldest_open.unwrap_or(0)));
    if let Some(max) = fill.max_bytes {
        gauge!(LOG_MAX_BYTES).set(float(max));
        let left = until(fill.bytes, max, growth);
        gauge!(LOG_SECONDS_LEFT).set(left.map_or(-1.0, |left| left.as_secs_f64()));
    }
    let log = Room { holds: "events", bytes: fill.bytes, max_bytes: fill.max_bytes };
    for room in fill.others.iter().chain([&log]) {
        let ratio = room.max_bytes.filter(|max| *max > 0).map_or(0.0, |max| float(room.bytes) / float(max));
        gauge!(LOG_FILL, "stream" => room.holds).set(ratio);
    }
}

pub(crate) fn log_held(age: Option<Duration>) {
    gauge!(LOG_HELD_SECONDS).set(age.map_or(0.0, |age| age.as_secs_f64()));
}

pub(crate) fn purged(removed: u64, archived: u64) {
    counter!(LOG_PURGED).increment(removed);
    counter!(LOG_ARCHIVED).increment(archived);
}

/// Counts a message that stood on the subject of an event and was none.
pub fn foreign_message() {
    counter!(FOREIGN_MESSAGES).increment(1);
}

pub(crate) fn released(bodies: u64) {
    counter!(BODIES_RELEASED).increment(bodies);
}

pub(crate) fn log_short_of_room(is_short: bool) {
    gauge!(LOG_SHORT_OF_ROOM).set(f64::from(u8::from(is_short)));
}

pub(crate) fn retention_failing(failing: bool) {
    gauge!(RETENTION_FAILING).set(f64::from(u8::from(failing)));
}

pub(crate) fn forgotten(turns: u64) {
    counter!(TURNS_FORGOTTEN).increment(turns);
}
