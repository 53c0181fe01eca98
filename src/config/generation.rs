//! `[generation]`: which model answers, and how long it may take.

use std::time::Duration;

use super::providers::check_model;
use super::reader::Section;

/// The model when neither `generation.model` nor any `[[models]]` is configured.
pub const DEFAULT_MODEL: &str = "gpt-4o-mini";

/// `[generation]`.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The model's name. Default: the first of `[[models]]`, else `gpt-4o-mini`.
    pub model: String,
    /// Tried in this order when a model cannot answer. Default: none.
    pub fallback: Vec<String>,
    /// Tokens of the answer. Default 1000.
    pub max_tokens: u32,
    /// 0 to 2. Default 0.7.
    pub temperature: f64,
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
            max_tokens: 1000,
            temperature: 0.7,
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
    /// `first_model` is the name of the first configured model.
    pub(super) fn read(s: &mut Section<'_>, first_model: Option<&str>) -> Self {
        let d = Self::default();
        Self {
            model: s.or_where("model", first_model.map_or(d.model, str::to_owned), |name| check_model(name)),
            fallback: s.or_where("fallback", d.fallback, |names| {
                names.iter().try_for_each(|name| check_model(name))
            }),
            max_tokens: s.within("max_tokens", d.max_tokens, 1..=1_000_000),
            temperature: s.within("temperature", d.temperature, 0.0..=2.0),
            stream: s.or("stream", d.stream),
            connect_timeout: s.millis("connect_timeout_ms", d.connect_timeout, 1..=600_000),
            first_token_timeout: s.millis("first_token_timeout_ms", d.first_token_timeout, 1..=3_600_000),
            read_timeout: s.millis("read_timeout_ms", d.read_timeout, 1..=3_600_000),
            total_timeout: s.millis("total_timeout_ms", d.total_timeout, 1..=3_600_000),
            max_response_bytes: s.within("max_response_bytes", d.max_response_bytes, 1024..=(64 << 20)),
        }
    }

    /// The model, then its fallbacks, in the order in which they are tried.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.model.as_str()).chain(self.fallback.iter().map(String::as_str))
    }
}
