//! Headers that only this adapter knows, and conversions between the client's map and plain pairs.

use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue};

/// Names the object that holds the whole event, by its SHA-256 in lower-case hex.
pub(super) const BODY: &str = "Throughline-Body";
/// The size of that object in bytes, so that its reader can reserve memory before.
pub(super) const BODY_BYTES: &str = "Throughline-Body-Bytes";
/// Put before an original header of a dead letter that would otherwise mean something to the server or to us.
pub(super) const ORIGINAL: &str = "Original-";
/// Names of headers that the server acts on begin with this.
const SERVER_PREFIX: &str = "nats-";
/// Names of headers that we act on begin with this.
const OWN_PREFIX: &str = "throughline-";

/// The client's map as pairs, in no particular order.
pub(super) fn pairs(map: Option<&HeaderMap>) -> Vec<(String, String)> {
    let Some(map) = map else { return Vec::new() };
    let mut pairs = Vec::with_capacity(map.len());
    for (name, values) in map.iter() {
        let name: &str = name.as_ref();
        for value in values {
            pairs.push((name.to_owned(), value.as_str().to_owned()));
        }
    }
    pairs
}

/// Adds a header unless name or value cannot be one; values lose their line breaks.
pub(super) fn append(map: &mut HeaderMap, name: &str, value: &str) {
    let Ok(name) = HeaderName::from_str(name) else { return };
    if let Ok(value) = HeaderValue::from_str(value) {
        map.append(name, value);
    } else if let Ok(value) = HeaderValue::from_str(&one_line(value)) {
        map.append(name, value);
    }
}

/// The text without control characters, which would end a header or a protocol line.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The name under which a dead letter keeps an original header: control headers are renamed so that neither the
/// server nor a reader obeys them.
pub(super) fn kept_name(original: &str) -> std::borrow::Cow<'_, str> {
    let begins_with =
        |prefix: &str| original.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if begins_with(SERVER_PREFIX) || begins_with(OWN_PREFIX) {
        format!("{ORIGINAL}{original}").into()
    } else {
        original.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_headers_are_kept_under_a_name_that_nobody_obeys() {
        assert_eq!(kept_name("Nats-Msg-Id"), "Original-Nats-Msg-Id");
        assert_eq!(kept_name("nats-ttl"), "Original-nats-ttl");
        assert_eq!(kept_name("throughline-body"), "Original-throughline-body");
        assert_eq!(kept_name("traceparent"), "traceparent");
        assert_eq!(kept_name("é"), "é");
    }

    #[test]
    fn hostile_names_and_values_neither_panic_nor_break_the_protocol() {
        let mut map = HeaderMap::new();
        append(&mut map, "bad name", "x");
        append(&mut map, "", "x");
        append(&mut map, "ok", "a\r\nPUB evil 0\r\n");
        let pairs = pairs(Some(&map));
        assert!(pairs.iter().all(|(_, value)| !value.contains(['\r', '\n'])), "{pairs:?}");
        assert!(pairs.iter().any(|(name, value)| name == "ok" && value.contains("PUB evil 0")));
    }
}
