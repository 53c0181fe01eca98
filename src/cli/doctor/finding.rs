//! One finding.

use std::time::Duration;

use serde::Serialize;

use crate::cli::timeline::{Style, Tone, clean};

/// Longest detail or advice printed, in characters.
const MAX_CHARS: usize = 600;

/// How serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Ok,
    /// It works, but not as well as it could, or nobody can tell.
    Warn,
    /// Workflows will not run.
    Fail,
}

/// What one check found, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) detail: String,
    /// Empty if there is nothing to change.
    pub(super) advice: String,
    #[serde(skip)]
    pub(super) is_unreachable: bool,
}

impl Finding {
    pub(super) fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, detail, "")
    }

    pub(super) fn warn(
        name: impl Into<String>,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, Status::Warn, detail, advice)
    }

    pub(super) fn fail(
        name: impl Into<String>,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, Status::Fail, detail, advice)
    }

    /// A failure because something does not answer.
    pub(super) fn unreachable(
        name: impl Into<String>,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { is_unreachable: true, ..Self::fail(name, detail, advice) }
    }

    fn new(
        name: impl Into<String>,
        status: Status,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (name, detail, advice) = (name.into(), detail.into(), advice.into());
        Self { name, status, detail, advice, is_unreachable: false }
    }

    /// For a person.
    pub(super) fn line(&self, style: Style) -> String {
        let (word, tone) = match self.status {
            Status::Ok => ("ok  ", Tone::Good),
            Status::Warn => ("warn", Tone::Caution),
            Status::Fail => ("fail", Tone::Bad),
        };
        let Self { name, detail, advice, .. } = self;
        let text = if advice.is_empty() {
            format!("{name}: {detail}")
        } else {
            format!("{name}: {detail}; {advice}")
        };
        format!("{} {}", style.paint(tone, word), clean(&text, MAX_CHARS))
    }
}

/// The result of a check, or that it took too long.
pub(super) async fn within(name: &str, limit: Duration, check: impl Future<Output = Finding>) -> Finding {
    match tokio::time::timeout(limit, check).await {
        Ok(finding) => finding,
        Err(_) => Finding::unreachable(name, format!("no answer within {limit:?}"), "see what keeps it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_and_what_to_change_and_moves_no_cursor() {
        let fail = Finding::fail("nats", "version \u{1b}[2J2.9", "upgrade");
        assert_eq!(fail.line(Style::plain()), r"fail nats: version \u{1b}[2J2.9; upgrade");
        assert_eq!(Finding::ok("clock", "same").line(Style::plain()), "ok   clock: same");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_a_finding() {
        let finding = within("x", Duration::from_secs(3), std::future::pending()).await;
        assert_eq!(finding.status, Status::Fail);
        assert!(finding.is_unreachable && finding.detail.contains("3s"), "{}", finding.detail);
    }
}
