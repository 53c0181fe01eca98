//! The members of an object, each as it was written.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// What a JSON value is, by its first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Number,
    Text,
    Array,
    Object,
}

impl Kind {
    pub(crate) fn of(value: &RawValue) -> Self {
        match value.get().bytes().next() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'"') => Self::Text,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            Some(_) | None => Self::Number,
        }
    }

    /// Behind the name of whatever it is.
    pub(crate) fn said(self) -> &'static str {
        match self {
            Self::Null => "is null",
            Self::Boolean => "is a boolean",
            Self::Number => "is a number",
            Self::Text => "is a string",
            Self::Array => "is an array",
            Self::Object => "is an object",
        }
    }
}

/// The members of an object. Of several with one name, the last.
#[derive(Debug, Default)]
pub(crate) struct Members<'t> {
    by_name: BTreeMap<String, &'t RawValue>,
    /// Names that several members have.
    pub(crate) repeated: Vec<String>,
}

impl<'t> Members<'t> {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<&'t RawValue> {
        self.by_name.remove(name)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members::default();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if members.by_name.insert(name.clone(), value).is_some() {
                        members.repeated.push(name);
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
