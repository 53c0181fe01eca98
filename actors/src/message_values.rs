//! What prompts, and requests to data sources, may say about the message that they are made for. One list: a name means
//! the same in a template and in a URL, and comes from the event alone, so that replay makes the same of it.

use serde_json::{Map, Value};
use throughline_schemas::{Meta, Timestamp, event::input::Request};

/// The names that every message has a value for.
pub const ALWAYS: [&str; 6] = ["user_id", "session_id", "workflow_id", "user_input", "time", "date"];
/// The name of what the publisher passed along; its parts are `metadata.NAME`.
pub const METADATA: &str = "metadata";
/// The name of the language, which is not always known.
pub const LANGUAGE: &str = "language";

/// Where the first ten characters of an instant are its day.
const DAY: usize = "2026-11-30".len();

/// The values of one message, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageValues(Map<String, Value>);

impl MessageValues {
    /// Of a message, and of what is known about its user.
    pub fn of(meta: &Meta, request: &Request, preferences: &Map<String, Value>) -> Self {
        // When the log stored the input, which no stage measures; fractions of a second are of no use.
        let time = Timestamp::from_unix_ms(request.received_at.unix_ms() / 1000 * 1000).to_string();
        let date = time.get(..DAY).unwrap_or(&time).to_owned();
        let metadata = metadata(request);
        let mut values = Map::new();
        let mut add = |name: &str, value: Value| values.insert(name.to_owned(), value);
        add("user_id", meta.user_id.as_str().into());
        add("session_id", meta.session_id.as_str().into());
        add("workflow_id", meta.workflow_id.as_str().into());
        add("user_input", request.user_input.clone().into());
        add("time", time.into());
        add("date", date.into());
        if let Some(language) = language(&metadata, preferences) {
            add(LANGUAGE, language.into());
        }
        add(METADATA, Value::Object(metadata));
        Self(values)
    }

    /// All of them.
    pub fn all(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The value of a name or of a path into the metadata (`metadata.cart.id`); `None` if this message has none.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let first = self.0.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part)).filter(|value| !value.is_null())
    }

    /// The same as text: texts as they are, everything else as JSON. An empty text is none.
    pub fn text(&self, path: &str) -> Option<String> {
        match self.get(path)? {
            Value::String(text) => (!text.is_empty()).then(|| text.clone()),
            other
            @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Some(other.to_string())
            }
        }
    }
}

/// The only place that reads the metadata of a message for templates.
fn metadata(request: &Request) -> Map<String, Value> {
    request.metadata.view().clone()
}

/// What the message says wins over what the user once said.
fn language(metadata: &Map<String, Value>, preferences: &Map<String, Value>) -> Option<String> {
    let named = [metadata.get("language"), metadata.get("locale"), preferences.get("language")];
    let texts = named.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::trim).find(|text| !text.is_empty()).map(str::to_owned)
}
