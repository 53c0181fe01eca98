//! How one value is read from TOML, checked for its type and shown again.

use std::net::SocketAddr;
use std::path::PathBuf;

use regex::Regex;
use rust_decimal::Decimal;

use super::error::Origin;
use super::secret::Secret;
use super::tree::{Value, parse_raw};

/// A type that a key can have.
pub(super) trait Field: Sized {
    /// Reads it. The message never repeats the value where that may be a secret.
    fn read(value: &Value) -> Result<Self, String>;
    /// As `config show` prints it: redacted.
    fn shown(&self) -> toml::Value;
    /// The same in a table, under this name, which may say that the value is secret.
    fn shown_under(&self, _name: &str) -> toml::Value {
        self.shown()
    }
}

fn expected<T>(what: &str, found: &Value) -> Result<T, String> {
    Err(format!("expected {what}, found {}", found.kind()))
}

/// Lets `f` see a variable's text as the value it spells.
fn typed<T>(value: &Value, f: impl FnOnce(&Value) -> Result<T, String>) -> Result<T, String> {
    match value {
        Value::Raw(raw) => f(parse_raw(raw, &Origin::Default).as_ref().unwrap_or(value)),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime
        | Value::Array(_)
        | Value::Table(_) => f(value),
    }
}

impl Field for String {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => Ok(text.clone()),
            Value::Raw(raw) => match parse_raw(raw, &Origin::Default) {
                Some(Value::Text(text)) => Ok(text),
                _ => Ok(raw.clone()),
            },
            Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime
            | Value::Array(_)
            | Value::Table(_) => expected("a string", value),
        }
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.clone())
    }
}

impl Field for bool {
    fn read(value: &Value) -> Result<Self, String> {
        typed(
            value,
            |value| if let Value::Boolean(b) = value { Ok(*b) } else { expected("true or false", value) },
        )
    }

    fn shown(&self) -> toml::Value {
        toml::Value::Boolean(*self)
    }
}

impl Field for f64 {
    fn read(value: &Value) -> Result<Self, String> {
        typed(value, |value| match value {
            Value::Float(number) => Ok(*number),
            // Every integer that a range here admits is exact in a float.
            Value::Integer(number) => {
                i32::try_from(*number).map(Self::from).map_err(|_| format!("{number} is out of range"))
            }
            Value::Text(_)
            | Value::Boolean(_)
            | Value::Datetime
            | Value::Array(_)
            | Value::Table(_)
            | Value::Raw(_) => expected("a number", value),
        })
    }

    fn shown(&self) -> toml::Value {
        toml::Value::Float(*self)
    }
}

macro_rules! integer_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn read(value: &Value) -> Result<Self, String> {
                typed(value, |value| match value {
                    Value::Integer(number) => {
                        Self::try_from(*number).map_err(|_| format!("{number} is out of range"))
                    }
                    _ => expected("an integer", value),
                })
            }

            fn shown(&self) -> toml::Value {
                i64::try_from(*self).map_or_else(|_| toml::Value::String(self.to_string()), toml::Value::Integer)
            }
        }
    )*};
}

integer_field!(u32, u64, usize);

/// `env` and `flag` forms may also be written `a,b,c`.
impl Field for Vec<String> {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Array(items) => items.iter().map(|item| String::read(&item.value)).collect(),
            Value::Raw(raw) => {
                Ok(raw.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
            }
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime
            | Value::Table(_) => expected("an array of strings", value),
        }
    }

    fn shown(&self) -> toml::Value {
        toml::Value::Array(self.iter().map(String::shown).collect())
    }
}

/// A list whose elements are read one by one; the message says which one is wrong.
fn read_list<T: Field>(value: &Value) -> Result<Vec<T>, String> {
    typed(value, |value| match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| T::read(&item.value).map_err(|error| format!("number {}: {error}", at + 1)))
            .collect(),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime
        | Value::Table(_)
        | Value::Raw(_) => expected("an array of strings", value),
    })
}

macro_rules! list_field {
    ($($type:ty),*) => {$(
        impl Field for Vec<$type> {
            fn read(value: &Value) -> Result<Self, String> {
                read_list(value)
            }

            fn shown(&self) -> toml::Value {
                toml::Value::Array(self.iter().map(Field::shown).collect())
            }
        }
    )*};
}

list_field!(Regex, Secret);

impl Field for PathBuf {
    fn read(value: &Value) -> Result<Self, String> {
        let text = String::read(value)?;
        if text.is_empty() { Err("a path must not be empty".to_owned()) } else { Ok(Self::from(text)) }
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.display().to_string())
    }
}

impl Field for SocketAddr {
    fn read(value: &Value) -> Result<Self, String> {
        let text = String::read(value)?;
        text.parse().map_err(|_| {
            format!("{text:?} is not an address and port; write it as \"127.0.0.1:8080\" or \"0.0.0.0:8080\"")
        })
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.to_string())
    }
}

/// Money is never a float, so it is written in quotes.
impl Field for Decimal {
    fn read(value: &Value) -> Result<Self, String> {
        if let Value::Float(_) = value {
            return Err("prices are decimals: write the number in quotes, as \"0.15\"".to_owned());
        }
        let text = if let Value::Integer(number) = value { number.to_string() } else { String::read(value)? };
        Self::from_str_exact(&text).map_err(|_| format!("{text:?} is not a decimal number such as \"0.15\""))
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.to_string())
    }
}

/// A pattern may not compile to more than this many bytes: it runs on text from users.
const MAX_REGEX_BYTES: usize = 1 << 20;

impl Field for Regex {
    fn read(value: &Value) -> Result<Self, String> {
        let pattern = String::read(value)?;
        regex::RegexBuilder::new(&pattern).size_limit(MAX_REGEX_BYTES).build().map_err(|error| {
            // regex draws the pattern over several lines; the last one says what is wrong.
            let drawn = error.to_string();
            let reason = drawn.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("'{pattern}' is not a usable regular expression: {reason}")
        })
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.as_str().to_owned())
    }
}
