//! `[generation]`: which model answers, and how long it may take.

use std::time::Duration;

use throughline_actors::policy::{
    fallback::{FallbackOn, UnknownFallback},
    limits::{FALLBACK_PATIENCE, RATE_PATIENCE, RATE_TOTAL},
};

use super::field::Field;
use super::models::check_model;
use super::reader::Section;
use super::tree::Value;

/// The model when neither `generation.model` nor any `[[models]]` nor any provider is configured.
pub const DEFAULT_MODEL: &str = "gpt-4o-mini";

/// The form that answers must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerForm {
    /// Any text.
    #[default]
    Text,
    /// A JSON document.
    Json,
}

impl Field for AnswerForm {
    fn read(value: &Value) -> Result<Self, String> {
        match String::read(value)?.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is no form of an answer; use \"text\" or \"json\"")),
        }
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(match self {
            Self::Text => "text".to_owned(),
            Self::Json => "json".to_owned(),
        })
    }
}

/// What becomes of earlier turns that do not fit the model's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OlderTurns {
    /// They are left out.
    Drop,
    /// Their most telling sentences stay.
    #[default]
    Extract,
    /// `summary_model` summarises them.
    Summarise,
}

impl Field for OlderTurns {
    fn read(value: &Value) -> Result<Self, String> {
        match String::read(value)?.as_str() {
            "drop" => Ok(Self::Drop),
            "extract" => Ok(Self::Extract),
            "summarise" => Ok(Self::Summarise),
            other => Err(format!("{other:?} is not known; use \"drop\", \"extract\" or \"summarise\"")),
        }
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(match self {
            Self::Drop => "drop".to_owned(),
            Self::Extract => "extract".to_owned(),
            Self::Summarise => "summarise".to_owned(),
        })
    }
}

impl Field for Vec<FallbackOn> {
    fn read(value: &Value) -> Result<Self, String> {
        let names = Vec::<String>::read(value)?;
        names.iter().map(|name| name.parse().map_err(|error: UnknownFallback| error.to_string())).collect()
    }

    fn shown(&self) -> toml::Value {
        toml::Value::Array(self.iter().map(|class| toml::Value::String(class.to_string())).collect())
    }
}

/// Texts at which an answer may end: more are refused by providers.
const MAX_STOPS: usize = 4;

/// `[generation]`.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The model's name. Default: the first of `[[models]]`, else what the first provider's vendor has for it.
    pub model: String,
    /// Tried in this order when a model cannot answer. Default: none.
    pub fallback: Vec<String>,
    /// After which errors the next model is asked. Default: all but `bad_request`.
    pub fallback_on: Vec<FallbackOn>,
    /// `fallback_patience_ms`: how long a model is waited for while another one may be asked now. Default 5 s.
    pub fallback_patience: Duration,
    /// `rate_patience_ms`: how long rate limits may hold a request back while another model may be asked. Default 30 s.
    pub rate_patience: Duration,
    /// `rate_total_ms`: how long they may in all, over all deliveries, before the workflow fails. Default 15 min.
    pub rate_total: Duration,
    /// Default [`OlderTurns::Extract`].
    pub older_turns: OlderTurns,
    /// Needed by, and only by, [`OlderTurns::Summarise`].
    pub summary_model: Option<String>,
    /// Tokens of the answer. Default 1000.
    pub max_tokens: u32,
    /// 0 to 2. Default 0.7.
    pub temperature: f64,
    /// `top_p`: 0 to 1. Default: not sent.
    pub top_p: Option<f64>,
    /// Texts at which the answer ends, at most 4. Default: none.
    pub stop: Vec<String>,
    /// Default: any text.
    pub format: AnswerForm,
    /// Ask for the answer token by token. Default true; false: one whole response.
    pub stream: bool,
    /// `connect_timeout_ms`. Default 10 s.
    pub connect_timeout: Duration,
    /// `first_token_timeout_ms`: from the request to the answer's beginning. Default 60 s.
    pub first_token_timeout: Duration,
    /// `read_timeout_ms`: between two pieces of the answer. Default 30 s.
    pub read_timeout: Duration,
    /// `total_timeout_ms`: the whole call. Default 120 s.
    pub total_timeout: Duration,
    /// A longer response is refused, in bytes. Default 4 MiB.
    pub max_response_bytes: usize,
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            model: DEFAULT_MODEL.to_owned(),
            fallback: Vec::new(),
            fallback_on: FallbackOn::default_set().into_iter().collect(),
            fallback_patience: FALLBACK_PATIENCE,
            rate_patience: RATE_PATIENCE,
            rate_total: RATE_TOTAL,
            older_turns: OlderTurns::default(),
            summary_model: None,
            max_tokens: 1000,
            temperature: 0.7,
            top_p: None,
            stop: Vec::new(),
            format: AnswerForm::default(),
            stream: true,
            connect_timeout: Duration::from_secs(10),
            first_token_timeout: Duration::from_mins(1),
            read_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_mins(2),
            max_response_bytes: 4 << 20,
        }
    }
}

impl Generation {
    /// `default_model` is the name of the first configured model, or the first vendor's.
    pub(super) fn read(s: &mut Section<'_>, default_model: Option<&str>) -> Self {
        let d = Self::default();
        let read = Self {
            model: s
                .or_where("model", default_model.map_or(d.model, str::to_owned), |name| check_model(name)),
            fallback: s.or_where("fallback", d.fallback, |names| {
                names.iter().try_for_each(|name| check_model(name))
            }),
            fallback_on: s.or("fallback_on", d.fallback_on),
            fallback_patience: s.millis("fallback_patience_ms", d.fallback_patience, 0..=3_600_000),
            rate_patience: s.millis("rate_patience_ms", d.rate_patience, 0..=3_600_000),
            rate_total: s.millis("rate_total_ms", d.rate_total, 0..=86_400_000),
            older_turns: s.or("older_turns", d.older_turns),
            summary_model: s.optional_where("summary_model", |name: &String| check_model(name)),
            max_tokens: s.within("max_tokens", d.max_tokens, 1..=1_000_000),
            temperature: s.within("temperature", d.temperature, 0.0..=2.0),
            top_p: s.optional_where("top_p", |value: &f64| {
                if (0.0..=1.0).contains(value) {
                    Ok(())
                } else {
                    Err(format!("{value} is out of range; allowed are 0 to 1"))
                }
            }),
            stop: s.or_where("stop", d.stop, |stops| check_stops(stops)),
            format: s.or("format", d.format),
            stream: s.or("stream", d.stream),
            connect_timeout: s.millis("connect_timeout_ms", d.connect_timeout, 1..=600_000),
            first_token_timeout: s.millis("first_token_timeout_ms", d.first_token_timeout, 1..=3_600_000),
            read_timeout: s.millis("read_timeout_ms", d.read_timeout, 1..=3_600_000),
            total_timeout: s.millis("total_timeout_ms", d.total_timeout, 1..=3_600_000),
            max_response_bytes: s.within("max_response_bytes", d.max_response_bytes, 1024..=(64 << 20)),
        };
        match (read.older_turns, &read.summary_model) {
            (OlderTurns::Summarise, None) => s.conflict("older_turns", "needs summary_model beside it"),
            (OlderTurns::Drop | OlderTurns::Extract, Some(_)) => {
                s.conflict("summary_model", "is only asked with older_turns = \"summarise\"");
            }
            (OlderTurns::Summarise, Some(_)) | (OlderTurns::Drop | OlderTurns::Extract, None) => {}
        }
        read
    }

    /// The model, then its fallbacks, in the order in which they are tried.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.model.as_str()).chain(self.fallback.iter().map(String::as_str))
    }
}

fn check_stops(stops: &[String]) -> Result<(), String> {
    if stops.len() > MAX_STOPS {
        return Err(format!("has {} texts; allowed are up to {MAX_STOPS}", stops.len()));
    }
    if stops.iter().any(String::is_empty) {
        return Err("a text at which the answer ends must not be empty".to_owned());
    }
    Ok(())
}
