//! The merged configuration before it is typed: TOML values that remember where each was set.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Origin, Problem};

pub(super) type Table = BTreeMap<String, Node>;

/// A value and where it was set. Not `Debug`: what it holds is not redacted yet.
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

pub(super) enum Value {
    Text(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Table),
    /// From a variable or a flag, where `5` may be a number or a text: the field that reads it decides.
    Raw(String),
}

impl Value {
    /// With its article, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Raw(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }

    /// The value of a variable or a flag. Arrays and tables are taken apart at once, so that later layers
    /// can address their parts.
    pub(super) fn from_raw(raw: &str, origin: &Origin) -> Self {
        match parse_raw(raw, origin) {
            Some(structured @ (Self::Array(_) | Self::Table(_))) => structured,
            _ => Self::Raw(raw.to_owned()),
        }
    }
}

/// A variable's text as the TOML value it spells, if it spells one.
pub(super) fn parse_raw(raw: &str, origin: &Origin) -> Option<Value> {
    let parsed = DeValue::parse(raw).ok()?;
    Some(convert(parsed.into_inner(), &|_| origin.clone()))
}

/// Reads a file's text. Syntax errors are problems; what could be read around them is still returned, so
/// that one missing quote does not hide the other mistakes.
pub(super) fn parse_file(text: &str, file: &Arc<str>) -> (Table, Vec<Problem>) {
    let line_starts: Vec<usize> =
        std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let place = |at: usize| {
        let line = line_starts.partition_point(|start| *start <= at);
        Origin::File { file: Arc::clone(file), line }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    let problems = errors
        .iter()
        .map(|error| Problem {
            place: error.span().map_or_else(|| Origin::whole_file(file), |span| place(span.start)),
            key: String::new(),
            message: format!("not valid TOML: {}", explain(error.message())),
        })
        .collect();
    (convert_table(table.into_inner(), &place), problems)
}

/// An unquoted text that starts like `nan` or `inf` (nats://..., info) is taken for a number.
fn explain(message: &str) -> String {
    let hint = if message.starts_with("invalid float") { "; a text needs quotes" } else { "" };
    format!("{message}{hint}")
}

fn convert_table(table: DeTable<'_>, place: &dyn Fn(usize) -> Origin) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let origin = place(key.span().start);
            let value = convert(value.into_inner(), place);
            (key.into_inner().into_owned(), Node { value, origin })
        })
        .collect()
}

fn convert(value: DeValue<'_>, place: &dyn Fn(usize) -> Origin) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(digits) => {
            // Beyond i128 is beyond every field's range too; saturating lets the range check say so.
            Value::Integer(i128::from_str_radix(digits.as_str(), digits.radix()).unwrap_or(i128::MAX))
        }
        DeValue::Float(digits) => Value::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => Value::Array(
            items
                .into_iter()
                .map(|item: Spanned<DeValue<'_>>| {
                    let origin = place(item.span().start);
                    Node { value: convert(item.into_inner(), place), origin }
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, place)),
    }
}
