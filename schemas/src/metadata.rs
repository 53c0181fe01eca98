//! What a publisher passes along with a message.

use std::{fmt, ops::Deref, sync::OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value, value::RawValue};

use crate::json::{self, JsonProblem};

/// A JSON object that is handed on as its publisher wrote it: the same digits, the same order, the same members. Only
/// blanks between its parts and escapes that texts do not need are left out. It reads like a map ([`Metadata::view`] says
/// how).
#[derive(Clone, Default)]
pub struct Metadata {
    /// `None` is `{}`.
    json: Option<Box<RawValue>>,
    view: OnceLock<Map<String, Value>>,
}

impl Metadata {
    /// Reads an object, as tolerantly as a message.
    pub fn read(json: &str) -> Result<Self, JsonProblem> {
        let whole = json::read(json.as_bytes())?;
        Ok(serde_json::from_str(&json::shortest(&whole))?)
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        self.json.as_ref().map_or("{}", |json| json.get())
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.json.is_none()
    }

    /// The members as values, for whoever looks into them. A number that no number of ours can hold is a text there, of the
    /// same digits; of several members with one name there is the last.
    pub fn view(&self) -> &Map<String, Value> {
        self.view.get_or_init(|| match json::view(self.as_str().as_bytes()) {
            Ok(Value::Object(members)) => members,
            // It was read as an object, and is nested no deeper than a reader goes.
            Ok(_) | Err(_) => Map::new(),
        })
    }

    /// The same with other texts, keys included. What `change` leaves alone stays as it was written.
    #[must_use]
    pub fn map_texts(&self, change: impl Fn(&str) -> String) -> Self {
        let changed = json::map_texts(self.as_str(), change);
        // Texts were put in the place of texts.
        serde_json::from_str(&changed).unwrap_or_default()
    }
}

impl Deref for Metadata {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        self.view()
    }
}

impl From<Map<String, Value>> for Metadata {
    fn from(members: Map<String, Value>) -> Self {
        if members.is_empty() {
            return Self::default();
        }
        Self { json: RawValue::from_string(Value::Object(members).to_string()).ok(), view: OnceLock::new() }
    }
}

impl FromIterator<(String, Value)> for Metadata {
    fn from_iter<T: IntoIterator<Item = (String, Value)>>(members: T) -> Self {
        Map::from_iter(members).into()
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.json {
            Some(json) => json.serialize(serializer),
            None => Map::<String, Value>::new().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        if !json.get().starts_with('{') {
            return Err(D::Error::custom("metadata must be an object"));
        }
        let is_empty = json.get()[1..].trim_start().starts_with('}');
        Ok(Self { json: Some(json).filter(|_| !is_empty), view: OnceLock::new() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const NUMBERS: [&str; 9] = [
        "12345678901234567890123",
        "0.1000000000000000055",
        "1e400",
        "-1E-400",
        "-0",
        "1.0",
        "1E5",
        "18446744073709551616",
        "1e99999999999999999999",
    ];

    #[test]
    fn what_is_written_comes_back_digit_by_digit() {
        for number in NUMBERS {
            let written = format!(r#"{{"z":{number},"a":[[{number}],{{"a":{number}}}],"a":"é\u0000"}}"#);
            let metadata = Metadata::read(&written.replace(',', " ,\n ").replace('é', "\\u00e9")).unwrap();
            assert_eq!(metadata.as_str(), written);
            let again: Metadata = serde_json::from_str(&serde_json::to_string(&metadata).unwrap()).unwrap();
            assert_eq!(again, metadata);
        }
    }

    #[test]
    fn the_view_has_numbers_where_they_are_exact_and_their_digits_elsewhere() {
        let view =
            |number: &str| Metadata::read(&format!(r#"{{"n":[{number}]}}"#)).unwrap().view()["n"][0].clone();
        for exact in [
            "0",
            "-7",
            "18446744073709551615",
            "-9223372036854775808",
            "0.1",
            "1.50",
            "1E5",
            "-0",
            "0e9",
            "2.5e-3",
        ] {
            assert!(view(exact).is_number(), "{exact}");
        }
        for other in [
            "12345678901234567890123",
            "18446744073709551617",
            "0.1000000000000000055",
            "1e400",
            "1e-400",
            "1e99999999999999999999",
        ] {
            assert_eq!(view(other), json!(other));
        }
        let metadata = Metadata::read(r#"{"a":1,"a":"2","1e400":true}"#).unwrap();
        assert_eq!(Value::Object(metadata.view().clone()), json!({"a": "2", "1e400": true}));
        assert_eq!(metadata["a"], "2", "it reads like a map");
    }

    #[test]
    fn nothing_else_than_an_object_is_one() {
        for other in ["", "[]", "1", "null", "\"{}\"", "{", "{\"a\":NaN}", "{\"a\":1,}"] {
            assert!(Metadata::read(other).is_err(), "{other}");
        }
        for empty in ["{}", " { } ", "\u{feff}{}"] {
            let empty = Metadata::read(empty).unwrap();
            assert!(empty.is_empty() && empty == Metadata::default() && empty.view().is_empty());
        }
        assert_eq!(serde_json::to_string(&Metadata::default()).unwrap(), "{}");
        assert_eq!(Metadata::from(Map::new()), Metadata::default());
    }

    #[test]
    fn a_json_value_is_written_and_read_as_well() {
        let metadata = Metadata::read(r#"{"b":[1,2.5],"a":null}"#).unwrap();
        let value = serde_json::to_value(&metadata).unwrap();
        assert_eq!(value, json!({"a": null, "b": [1, 2.5]}));
        assert_eq!(serde_json::from_value::<Metadata>(value).unwrap().view(), metadata.view());
    }

    #[test]
    fn other_texts_leave_everything_else_as_it_was() {
        let metadata = Metadata::read(r#"{"a\u0000":[1.50,"é","x\u0000y"]}"#).unwrap();
        let changed = metadata.map_texts(|text| text.replace('\0', "!"));
        assert_eq!(changed.as_str(), r#"{"a!":[1.50,"é","x!y"]}"#);
    }
}
