//! How full the streams are, how fast the log fills, and what keeps it from making room.

use std::{fmt::Write, time::Duration};

use throughline_actors::{
    policy::retention::{BEGIN_PERCENT, percent},
    ports::log::{Fill, Log, Purge},
};

use super::{finding::Finding, nats::mib};
use crate::bus::nats::NatsBus;

const NAME: &str = "space";
/// Less history than this tells no pace, in seconds.
const LEAST_SPAN_S: u64 = 60;

/// Nothing if there is no log, which the check of the streams says.
pub(super) async fn check(bus: &NatsBus) -> Option<Finding> {
    let state = bus.log_state().await.ok()?;
    let max = state.max_bytes?;
    let mut detail = format!("{} events in {} of {}", state.messages, mib(state.bytes), mib(max));
    let span = state.stored_at.map_or(0, |(first, last)| last.ms_since(first) / 1_000);
    if span >= LEAST_SPAN_S
        && let Some(per_second) = state.bytes.checked_div(span).filter(|rate| *rate > 0)
    {
        let left = Duration::from_secs(max.saturating_sub(state.bytes) / per_second);
        // Writing to a string does not fail.
        let _ = write!(
            detail,
            ", {} an hour on average: full in {} if nothing were removed",
            mib(per_second.saturating_mul(3_600)),
            words(left)
        );
    }
    // A user that may not ask for the consumers sees how full it is, and no more.
    let Ok(fill) = bus.fill().await else { return Some(Finding::ok(NAME, detail)) };
    for room in &fill.others {
        if let Some(max) = room.max_bytes {
            let _ = write!(
                detail,
                "; {} {}%",
                room.holds.replace('_', " "),
                room.bytes.saturating_mul(100) / max
            );
        }
    }
    if let Ok(Some(purge)) = bus.last_purge().await {
        detail.push_str(&removed(&purge));
    }
    Some(judge(&fill, detail))
}

fn judge(fill: &Fill, detail: String) -> Finding {
    if percent(fill) < BEGIN_PERCENT {
        return Finding::ok(NAME, detail);
    }
    match fill.needed {
        // A look of the next worker makes room.
        None => Finding::ok(NAME, format!("{detail}; finished work makes room")),
        Some((sequence, stage)) if sequence <= fill.first => Finding::warn(
            NAME,
            format!("{detail}; message {sequence} keeps everything: the stage {stage} has not settled it"),
            "see what keeps it (`throughline events`, the workers' log), or raise nats.max_bytes_mib and run `throughline \
             setup`; a full log refuses input",
        ),
        Some((sequence, _)) => Finding::ok(
            NAME,
            format!("{detail}; finished work below message {sequence} makes room, but for open turns"),
        ),
    }
}

/// What retention has removed, to be put behind what is said of the log.
pub(in crate::cli) fn removed(purge: &Purge) -> String {
    let archive = purge.archive.as_ref().map(|name| format!(" and kept in {name}")).unwrap_or_default();
    format!("; events below {} were removed by retention, last at {}{archive}", purge.before, purge.at)
}

fn words(left: Duration) -> String {
    let (hours, minutes) = (left.as_secs() / 3_600, left.as_secs() / 60);
    match (hours, minutes) {
        (48.., _) => format!("{} days", hours / 24),
        (1.., _) => format!("{hours} h"),
        (_, 1..) => format!("{minutes} min"),
        _ => format!("{} s", left.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use throughline_schemas::{StageName, Timestamp};

    use super::*;
    use crate::cli::doctor::finding::Status;

    #[test]
    fn a_full_log_is_a_warning_only_if_nothing_can_go() {
        let fill = |bytes, needed| Fill {
            now: Timestamp::from_unix_ms(0),
            first: 7,
            last: 100,
            messages: 94,
            bytes,
            max_bytes: Some(100),
            needed,
            others: Vec::new(),
        };
        let status = |fill: Fill| judge(&fill, String::new()).status;
        assert_eq!(status(fill(50, Some((7, StageName::Input)))), Status::Ok);
        assert_eq!(status(fill(95, None)), Status::Ok);
        assert_eq!(status(fill(95, Some((50, StageName::Generation)))), Status::Ok);
        let held = judge(&fill(95, Some((7, StageName::Generation))), "d".to_owned());
        assert_eq!(held.status, Status::Warn);
        assert!(held.detail.contains("generation") && held.advice.contains("refuses"), "{held:?}");
        assert_eq!(words(Duration::from_hours(25)), "25 h");
    }
}
