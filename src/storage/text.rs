//! Values as they are written into TEXT columns.

use std::fmt::Write as _;

use throughline_schemas::Timestamp;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// RFC 3339 with all nine digits of a second, so that text sorts by time.
pub(super) fn instant(at: Timestamp) -> String {
    let at = OffsetDateTime::from(at).to_offset(UtcOffset::UTC);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second, nanos) = (at.hour(), at.minute(), at.second(), at.nanosecond());
    let mut text = String::with_capacity("2025-01-01T00:00:00.000000000Z".len());
    // Writing into a string cannot fail.
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z");
    text
}

pub(super) fn parse_instant(text: &str) -> Result<Timestamp, time::error::Parse> {
    OffsetDateTime::parse(text, &Rfc3339).map(Timestamp::from)
}

/// SQLite's integers are signed; what does not fit stands at the end of the range.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn instants_sort_as_text_and_come_back() {
        let instants = [0, 999, 1_000, 1_760_000_000_000, 1_760_000_000_010].map(Timestamp::from_unix_ms);
        let texts = instants.map(instant);
        assert_eq!(texts[1], "1970-01-01T00:00:00.999000000Z");
        assert!(texts.is_sorted());
        assert_eq!(texts.each_ref().map(|text| parse_instant(text).unwrap()), instants);
    }
}
