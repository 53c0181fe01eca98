//! Which letters the arguments select.

use throughline_schemas::{FailureCode, StageName, Timestamp};
use time::OffsetDateTime;

use super::Filters;
use crate::{
    bus::nats::{NatsBus, ReadRequest},
    cli::{Failure, bus_error},
    dead::{Letter, failure_code},
    period,
};

/// What the filters leave.
#[derive(Debug)]
pub(super) struct Selection {
    stage: Option<StageName>,
    code: Option<FailureCode>,
    /// Buried before this.
    before: Option<Timestamp>,
    /// Buried at this or later.
    after: Option<Timestamp>,
    limit: usize,
}

impl Selection {
    pub(super) fn new(filters: &Filters, now: Timestamp) -> Result<Self, Failure> {
        let ago = |flag: &str, span: &Option<String>| -> Result<Option<Timestamp>, Failure> {
            let Some(text) = span else { return Ok(None) };
            let span = period::parse(text).map_err(|error| Failure::usage(format!("{flag} {error}")))?;
            Ok(Some(Timestamp::from(OffsetDateTime::from(now) - span)))
        };
        let code = match &filters.code {
            Some(name) => Some(failure_code(name).ok_or_else(|| {
                let name: String = name.chars().take(40).collect();
                Failure::usage(format!(
                    "--code {name:?} is no failure code; `throughline dead list` shows the codes of the letters there are"
                ))
            })?),
            None => None,
        };
        let before = ago("--older-than", &filters.older_than)?;
        let after = ago("--newer-than", &filters.newer_than)?;
        if let (Some(before), Some(after)) = (before, after)
            && before <= after
        {
            return Err(Failure::usage("--older-than must be shorter than --newer-than, or nothing matches"));
        }
        let limit = filters.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Self { stage: filters.stage, code, before, after, limit })
    }

    /// Whether it leaves anything out.
    pub(super) fn narrows(&self) -> bool {
        self.stage.is_some()
            || self.code.is_some()
            || self.before.is_some()
            || self.after.is_some()
            || self.limit != usize::MAX
    }

    fn takes(&self, letter: &Letter) -> bool {
        self.stage.is_none_or(|stage| letter.stage == Some(stage))
            && self.code.is_none_or(|code| letter.code == Some(code))
            && self.before.is_none_or(|before| letter.at < before)
            && self.after.is_none_or(|after| letter.at >= after)
    }

    /// Shows each selected letter to `visit`, the oldest first. One at a time, because bodies may be large and letters many.
    pub(super) async fn each(
        &self,
        bus: &NatsBus,
        mut visit: impl FnMut(Letter) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed = |error| bus_error::failure(&error);
        let mut reader = bus.read(ReadRequest::all_dead(bus.namespace())).await.map_err(failed)?;
        let mut selected = 0;
        while selected < self.limit {
            let Some(stored) = reader.next().await.map_err(failed)? else { break };
            let letter = Letter::read(stored);
            if self.takes(&letter) {
                visit(letter)?;
                selected += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;
    use crate::bus::nats::StoredEvent;

    const NOW: i64 = 1_750_000_000_000;

    fn letter(stage: &str, code: &str, minutes_ago: i64) -> Letter {
        let at = Timestamp::from_unix_ms(NOW - minutes_ago * 60_000);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Letter::read(StoredEvent {
            sequence: 1,
            subject: "t.dead.v1.x.s.w".to_owned(),
            stored_at: at,
            headers: vec![header("Throughline-Stage", stage), header("Throughline-Code", code)],
            body: Bytes::new(),
        })
    }

    fn selects(filters: &Filters, letter: &Letter) -> bool {
        Selection::new(filters, Timestamp::from_unix_ms(NOW)).unwrap().takes(letter)
    }

    #[test]
    fn letters_are_selected_by_stage_code_and_age() {
        let letter = letter("generation", "poison", 30);
        let filter = |stage: &str, code: &str, older: &str, newer: &str| {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Filters {
                stage: text(stage).map(|stage| stage.parse().unwrap()),
                code: text(code),
                older_than: text(older),
                newer_than: text(newer),
                limit: None,
            }
        };
        assert!(selects(&filter("", "", "", ""), &letter));
        assert!(selects(&filter("generation", "poison", "10m", "1h"), &letter));
        for none in [
            filter("input", "", "", ""),
            filter("", "internal", "", ""),
            filter("", "", "31m", ""),
            filter("", "", "", "29m"),
        ] {
            assert!(!selects(&none, &letter), "{none:?}");
        }
        let wrong =
            |filters: Filters| Selection::new(&filters, Timestamp::from_unix_ms(NOW)).unwrap_err().message;
        assert!(wrong(filter("", "poisson", "", "")).contains("no failure code"));
        assert!(wrong(filter("", "unrecognised", "", "")).contains("no failure code"));
        assert!(wrong(filter("", "", "soon", "")).contains("--older-than"));
        assert!(wrong(filter("", "", "1h", "30m")).contains("nothing matches"));
    }
}
