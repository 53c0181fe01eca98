//! What a data source answered.

use std::{ops::Deref, sync::OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, value::RawValue};

use crate::json::{self, JsonProblem};

/// A JSON document that is handed on as it was written: the same digits, the same order, the same members. Only blanks
/// between its parts and escapes that texts do not need are left out. It reads like a value ([`Document::view`] says how).
#[derive(Clone)]
pub struct Document {
    json: Box<RawValue>,
    view: OnceLock<Value>,
}

impl Document {
    /// Reads a document, as tolerantly as a message and with the same limit of depth, so that it can still be read after
    /// events, archives and reports have wrapped it.
    pub fn read(bytes: &[u8]) -> Result<Self, JsonProblem> {
        let whole = json::read(bytes)?;
        // What it is must be known before it is shortened: that does not look.
        serde_json::from_str::<&RawValue>(&whole)?;
        Ok(Self::of(RawValue::from_string(json::shortest(&whole))?))
    }

    fn of(json: Box<RawValue>) -> Self {
        Self { json, view: OnceLock::new() }
    }

    /// Several, as one.
    pub fn array(items: &[Self]) -> Self {
        let items: Vec<&str> = items.iter().map(Self::as_str).collect();
        // Documents with commas between them are one.
        RawValue::from_string(format!("[{}]", items.join(","))).map_or_else(|_| Value::Null.into(), Self::of)
    }

    /// The items of an array; `None` of anything else.
    pub fn items(&self) -> Option<Vec<Self>> {
        let items: Vec<Box<RawValue>> = serde_json::from_str(self.as_str()).ok()?;
        Some(items.into_iter().map(Self::of).collect())
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        self.json.get()
    }

    /// The JSON text of a member of an object, the last one of that name. Unlike [`Document::view`] it makes no value of the rest,
    /// which would take many times the memory of the text.
    pub fn member(&self, name: &str) -> Option<&str> {
        json::member(self.as_str(), name)
    }

    /// The document as a value, for whoever looks into it. A number that no number of ours can hold is a text there, of the
    /// same digits; of several members with one name there is the last.
    pub fn view(&self) -> &Value {
        // It was read as JSON, and is nested no deeper than a reader goes.
        self.view.get_or_init(|| json::view(self.as_str().as_bytes()).unwrap_or_default())
    }

    /// The same with other texts, keys included. What `change` leaves alone stays as it was written.
    #[must_use]
    pub fn map_texts(&self, change: impl Fn(&str) -> String) -> Self {
        // Texts were put in the place of texts.
        serde_json::from_str(&json::map_texts(self.as_str(), change)).map_or_else(|_| self.clone(), Self::of)
    }
}

impl Deref for Document {
    type Target = Value;

    fn deref(&self) -> &Self::Target {
        self.view()
    }
}

impl From<Value> for Document {
    fn from(value: Value) -> Self {
        // A value can always be written.
        let json = RawValue::from_string(value.to_string()).unwrap_or_default();
        Self { json, view: OnceLock::from(value) }
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self::of)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::MAX_DEPTH;

    fn read(text: &str) -> Document {
        Document::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_written_comes_back_digit_by_digit() {
        for number in ["12345678901234567890123", "0.1000000000000000055", "1e400", "-0", "1.0", "1E5"] {
            let written = format!(r#"{{"z":{number},"a":[[{number}],{{"a":{number}}}],"a":"é"}}"#);
            let document = read(&written.replace(',', " ,\n ").replace('é', "\\u00e9"));
            assert_eq!(document.as_str(), written);
            let again: Document = serde_json::from_str(&serde_json::to_string(&document).unwrap()).unwrap();
            assert_eq!(again, document);
            assert_eq!(read(number).as_str(), number);
        }
        let document = read(r#"{"n":12345678901234567890123,"m":[1,2.5]}"#);
        assert_eq!(
            *document,
            json!({"n": "12345678901234567890123", "m": [1, 2.5]}),
            "it reads like a value"
        );
    }

    #[test]
    fn one_member_is_found_without_reading_the_others() {
        let document = read(r#"{"a":{"b":1e400},"b":[1],"b":{"c":2},"\u0064":"x","n":1e999}"#);
        assert_eq!(document.member("b"), Some(r#"{"c":2}"#), "the last one");
        assert_eq!(document.member("a"), Some(r#"{"b":1e400}"#));
        assert_eq!(document.member("d"), Some(r#""x""#), "a name may be written with escapes");
        assert_eq!(document.member("c"), None, "not of one deeper in");
        for none in ["[{\"b\":1}]", "\"b\"", "null", "1e400", "{}"] {
            assert_eq!(read(none).member("b"), None, "{none}");
        }
    }

    #[test]
    fn arrays_are_put_together_and_taken_apart() {
        let items = ["1e400", "[2]", "{\"a\":\"x\"}", "null"].map(read);
        let array = Document::array(&items);
        assert_eq!(array.as_str(), r#"[1e400,[2],{"a":"x"},null]"#);
        assert_eq!(array.items().unwrap(), items);
        assert_eq!(Document::array(&[]).items().unwrap(), []);
        assert_eq!(read("{}").items(), None);
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_none() {
        for other in ["", "NaN", "{\"a\":1,}", "[1 2]", "{} {}", "1e", "\"a", "[1,-]", "tru"] {
            assert!(Document::read(other.as_bytes()).is_err(), "{other}");
        }
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Document::read(nested(MAX_DEPTH).as_bytes()).is_ok());
        let error = Document::read(nested(MAX_DEPTH + 1).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("100 levels"), "{error}");
    }
}
