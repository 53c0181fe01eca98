//! Compares what was made again with what was made then.

mod error_texts;

use std::fmt::{self, Write as _};

use serde_json::Value;
use throughline_schemas::{EncodeError, Event, encode, json};

/// Longest value that is shown, in characters.
const MAX_SHOWN: usize = 160;
/// Which configuration made a prompt. It is no decision: another configuration that decides the same is not a
/// difference.
const PROVENANCE: &str = "/data/prompt/config";
/// What events of earlier versions do not say. Where it is not on record it cannot differ.
const ADDED_LATER: [&str; 1] = ["/data/degraded"];
/// The same of every source: the end of the pointer to what it was asked.
const REQUESTS: &str = "/requests";
/// The end of a part of it: where a source is to be had is no decision, either; what is asked of it is.
const URL: &str = "/url";
/// How long something took was measured, not decided.
const MEASURED: &str = "/duration_ms";

/// The first field in which two events differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Where it is, as a JSON pointer (RFC 6901) into the event.
    pub pointer: String,
    /// What was recorded there; `None` if nothing was.
    pub recorded: Option<Value>,
    /// What is there now; `None` if nothing is.
    pub now: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pointer, recorded, now } = self;
        let (recorded, now) = excerpts(recorded.as_ref(), now.as_ref());
        write!(f, "{pointer}: recorded {recorded}, now {now}")
    }
}

/// The first difference between a recorded event, as JSON, and one made now: of its data, and else of its envelope;
/// fields in alphabetical order. How an error is worded is no difference.
pub fn difference(recorded: &[u8], now: &Event) -> Result<Option<Difference>, CompareError> {
    let view = |json: &[u8]| json::view(json).map_err(CompareError::Recorded);
    let (recorded, mut now) = (view(recorded)?, view(&encode(now)?)?);
    error_texts::adopt(&recorded, &mut now);
    let mut pointer = String::new();
    let of_data = within(&mut pointer, "data", recorded.get("data"), now.get("data"));
    Ok(of_data.or_else(|| first(&mut pointer, Some(&recorded), Some(&now))))
}

/// Two events cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The recorded one is not JSON.
    #[error("a recorded event is not JSON")]
    Recorded(#[source] serde_json::Error),
    /// The other one cannot be written.
    #[error(transparent)]
    Now(#[from] EncodeError),
}

fn first(pointer: &mut String, recorded: Option<&Value>, now: Option<&Value>) -> Option<Difference> {
    match (recorded, now) {
        (Some(Value::Object(recorded)), Some(Value::Object(now))) => {
            let mut keys: Vec<&String> = recorded.keys().chain(now.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.into_iter().find_map(|key| {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                within(pointer, &escaped, recorded.get(key), now.get(key))
            })
        }
        (Some(Value::Array(recorded)), Some(Value::Array(now))) => (0..recorded.len().max(now.len()))
            .find_map(|index| within(pointer, &index.to_string(), recorded.get(index), now.get(index))),
        (Some(Value::String(_)), Some(Value::String(_))) if is_address(pointer) => None,
        (None, Some(_)) if pointer.ends_with(REQUESTS) || is_model_name(pointer) => None,
        _ if recorded == now || pointer.ends_with(MEASURED) || pointer == PROVENANCE => None,
        (None, Some(_)) if ADDED_LATER.contains(&pointer.as_str()) => None,
        _ => Some(Difference { pointer: pointer.clone(), recorded: recorded.cloned(), now: now.cloned() }),
    }
}

/// Earlier versions wrote down the provider's name of a model only.
fn is_model_name(pointer: &str) -> bool {
    pointer.ends_with("/name")
        && ["/data/attempts/", "/data/attempt_log/"].iter().any(|list| pointer.starts_with(list))
}

fn is_address(pointer: &str) -> bool {
    pointer.ends_with(URL) && pointer.contains(REQUESTS)
}

fn within(
    pointer: &mut String,
    part: &str,
    recorded: Option<&Value>,
    now: Option<&Value>,
) -> Option<Difference> {
    let before = pointer.len();
    // Writing to a string cannot fail.
    let _ = write!(pointer, "/{part}");
    let found = first(pointer, recorded, now);
    pointer.truncate(before);
    found
}

/// Both values in short: of long texts, the place where they begin to differ.
fn excerpts(recorded: Option<&Value>, now: Option<&Value>) -> (String, String) {
    let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    let (recorded, now) = (shown(recorded), shown(now));
    let common = recorded.chars().zip(now.chars()).take_while(|(a, b)| a == b).count();
    let from = common.saturating_sub(MAX_SHOWN / 4);
    let cut = |text: &str| {
        let mut shown: String = text.chars().skip(from).take(MAX_SHOWN).collect();
        if from > 0 {
            shown.insert(0, '…');
        }
        if text.chars().count() > from + MAX_SHOWN {
            shown.push('…');
        }
        shown
    };
    (cut(&recorded), cut(&now))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(recorded: &Value, now: &Value) -> Option<String> {
        first(&mut String::new(), Some(recorded), Some(now)).map(|found| found.to_string())
    }

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let recorded = json!({"data": {"attempts": [{"model": "a"}, {"model": "b"}], "x/y": 1}});
        assert_eq!(found(&recorded, &recorded.clone()), None);
        let mut now = recorded.clone();
        now["data"]["attempts"][1]["model"] = json!("c");
        now["data"]["x/y"] = json!(2);
        assert_eq!(
            found(&recorded, &now).as_deref(),
            Some("/data/attempts/1/model: recorded \"b\", now \"c\"")
        );
        let now = json!({"data": {"attempts": [{"model": "a"}, {"model": "b"}]}});
        assert_eq!(found(&recorded, &now).as_deref(), Some("/data/x~1y: recorded 1, now nothing"));
        let now = json!({"data": {"attempts": [{"model": "a"}], "x/y": 1}});
        assert_eq!(
            found(&recorded, &now).as_deref(),
            Some("/data/attempts/1: recorded {\"model\":\"b\"}, now nothing")
        );
    }

    #[test]
    fn what_was_measured_is_no_difference_and_what_was_decided_is() {
        let of = |took: f64, waited: u32| json!({"duration_ms": took, "waited_ms": waited});
        assert_eq!(found(&of(12.3, 1), &of(99.9, 1)), None);
        assert!(found(&of(12.3, 1), &of(12.3, 2)).is_some());
    }

    #[test]
    fn what_an_earlier_version_did_not_say_is_no_difference() {
        let of = |degraded: Value| json!({"data": {"degraded": degraded}});
        assert_eq!(found(&json!({"data": {}}), &of(json!(["crm"]))), None);
        assert!(found(&of(json!(["crm"])), &json!({"data": {}})).is_some());
        assert!(found(&of(json!(["crm"])), &of(json!(["shop"]))).is_some());
    }

    #[test]
    fn what_a_source_was_asked_is_compared_but_for_its_address() {
        let of = |url: &str, id: &str| json!({"requests": [{"url": url, "values": {"id": id}}]});
        assert_eq!(found(&of("http://a/1", "1"), &of("http://b:80/1", "1")), None);
        assert_eq!(
            found(&of("http://a/1", "1"), &of("http://a/2", "2")).as_deref(),
            Some("/requests/0/values/id: recorded \"1\", now \"2\"")
        );
        assert_eq!(found(&json!({}), &of("http://a/1", "1")), None, "an earlier version did not say");
    }

    #[test]
    fn long_texts_are_shown_where_they_differ() {
        let text = |word: &str| json!(format!("{}{word}{}", "a".repeat(5_000), "b".repeat(5_000)));
        let shown = found(&text("then"), &text("now")).unwrap_or_default();
        assert!(shown.contains("then") && shown.contains("now") && shown.len() < 500, "{shown}");
    }
}
