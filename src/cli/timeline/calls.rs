//! What became of calls to sources and models, in words.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use throughline_actors::model::{client::counts, cost::differs};
use throughline_schemas::{
    Usage, Usd,
    event::{
        external::{FailedCall, SourceResult},
        generation::{Attempt, CostUnknown, ErrorClass, Purpose},
    },
};

use super::{duration, text::clean};

/// Longest line about one call, in characters: what went wrong stands at its end.
const CALL_CHARS: usize = 400;

/// One line for each call that failed.
pub(super) fn failed_calls(external: &BTreeMap<String, SourceResult>) -> Vec<String> {
    let one = |name: &str, call: &FailedCall| {
        clean(&format!("{name} failed: {}", failed_call_line(call)), CALL_CHARS)
    };
    let mut lines = Vec::new();
    for (name, source) in external {
        lines.extend(source.failed_calls.iter().map(|call| one(name, call)));
    }
    lines
}

/// What became of one call to a source; not yet fit for a terminal.
pub(in crate::cli) fn failed_call_line(call: &FailedCall) -> String {
    format!(
        "{}{}, {}{}: {}",
        call.error.code,
        call.error.http_status.map_or_else(String::new, |status| format!(" {status}")),
        duration(call.duration_ms.duration()),
        again(call.retry_in_ms),
        call.error.message
    )
}

/// The wait before the next attempt.
fn again(ms: Option<u64>) -> String {
    ms.map_or_else(String::new, |ms| format!(", again in {}", duration(Duration::from_millis(ms))))
}

/// One line for each attempt that has more to tell than the event's own line: it failed, had to wait, or was for a summary.
pub(super) fn attempts(attempts: &[Attempt]) -> Vec<String> {
    let one = |attempt: &Attempt| {
        let tells = attempt.error.is_some() || held_back(attempt).is_some() || attempt.purpose.is_some();
        tells.then(|| clean(&attempt_line(attempt), CALL_CHARS))
    };
    attempts.iter().filter_map(one).collect()
}

/// How long limits held a call back, if they did.
fn held_back(attempt: &Attempt) -> Option<u64> {
    attempt.waited_ms.filter(|ms| *ms > 0)
}

/// A model in words: by its name in the configuration, and by the provider's where that is another one.
pub(in crate::cli) fn model_words(name: Option<&str>, model: &str) -> String {
    match name {
        Some(name) if name != model => format!("{name} ({model})"),
        Some(_) | None => model.to_owned(),
    }
}

/// What became of one call to a model; not yet fit for a terminal.
pub(in crate::cli) fn attempt_line(attempt: &Attempt) -> String {
    let mut line = format!(
        "{} at {} ({}){}, {}",
        match attempt.purpose {
            Some(Purpose::Summary) => "summary",
            // It is no attempt: nothing was tried.
            _ if !counts(attempt) => "no room",
            _ => "attempt",
        },
        model_words(attempt.name.as_deref(), &attempt.model),
        attempt.provider,
        attempt.http_status.map_or_else(String::new, |status| format!(" {status}")),
        duration(attempt.duration_ms.duration())
    );
    if let Some(ms) = held_back(attempt) {
        let _ = write!(line, ", held back {}", duration(Duration::from_millis(ms)));
    }
    if let Some(ms) = attempt.first_token_ms {
        let _ = write!(line, ", first token after {}", duration(Duration::from_millis(ms)));
    }
    if !attempt.sent {
        line.push_str(", nothing sent");
    }
    if let Some(usage) = attempt.usage {
        let _ = write!(line, ", {}", tokens(usage));
    }
    if let Some(known) = attempt.cost_usd {
        let _ = write!(line, ", {}", cost(known, false));
        if let Some(priced) = attempt.priced_cost_usd.filter(|priced| differs(known, *priced)) {
            let _ = write!(line, " by its provider ({} by our prices)", cost(priced, false));
        }
    }
    if attempt.cost_unknown == Some(CostUnknown::NothingCounted) {
        line.push_str(", its provider counted no token, which cannot be");
    }
    // What was counted was billed.
    if attempt.may_have_been_billed && attempt.usage.is_none() {
        line.push_str(", may have been billed");
    }
    match (attempt.error_class, attempt.error_code) {
        (Some(ErrorClass::Unknown), Some(code)) if attempt.usage.is_some() => {
            let _ = write!(line, ", {}", code.as_str());
        }
        (Some(class), Some(code)) => {
            let _ = write!(line, ", {} {}", class_name(class), code.as_str());
        }
        (Some(class), None) => {
            let _ = write!(line, ", {}", class_name(class));
        }
        (None, _) => {}
    }
    line.push_str(&again(attempt.retry_in_ms));
    if let Some(error) = &attempt.error {
        let _ = write!(line, ": {error}");
    }
    line
}

fn class_name(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Permanent => "permanent",
        ErrorClass::Transient => "transient",
        ErrorClass::Unknown => "unknown whether it happened,",
    }
}

pub(in crate::cli) fn tokens(usage: Usage) -> String {
    let cached = if usage.cached_input_tokens > 0 {
        format!(" ({} cached)", usage.cached_input_tokens)
    } else {
        String::new()
    };
    format!("{}{cached} + {} tokens", usage.input_tokens, usage.output_tokens)
}

/// A cost; `partial`: there may be more to it.
pub(in crate::cli) fn cost(cost: Usd, partial: bool) -> String {
    if partial { format!("at least ${cost}") } else { format!("${cost}") }
}

pub(in crate::cli) fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
