//! Anthropic Messages.

mod answer;
mod events;
mod request;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;
use throughline_actors::ports::model::ModelRequest;
use throughline_schemas::Usage;

use super::dialect::{Assembly, Dialect};
use super::parsed_answer::{ParsedAnswer, Unusable};
use super::{BaseUrlError, ModelOptions};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The version of the API that this is written for.
const VERSION: [(HeaderName, HeaderValue); 1] =
    [(HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01"))];

pub(super) struct Anthropic {
    url: Url,
}

impl Anthropic {
    /// `{base_url}/v1/messages`, whether or not the base has the version in it.
    pub(super) fn new(mut base_url: Url) -> Result<Self, BaseUrlError> {
        let trimmed = base_url.path().trim_end_matches('/');
        let has_version = trimmed.ends_with("/v1");
        let mut path = base_url.path_segments_mut().map_err(|()| BaseUrlError)?;
        path.pop_if_empty();
        if !has_version {
            path.push("v1");
        }
        path.push("messages");
        drop(path);
        Ok(Self { url: base_url })
    }
}

impl Dialect for Anthropic {
    fn key_header(&self) -> (HeaderName, &'static str) {
        (API_KEY, "")
    }

    fn headers(&self) -> &'static [(HeaderName, HeaderValue)] {
        static HEADERS: [(HeaderName, HeaderValue); 1] = VERSION;
        &HEADERS
    }

    fn url(&self, _: &ModelRequest) -> Url {
        self.url.clone()
    }

    fn models_url(&self) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop().push("models");
        }
        url
    }

    fn body(&self, request: &ModelRequest, options: ModelOptions) -> Value {
        request::body(request, options)
    }

    fn read(&self, raw: &Value) -> Result<ParsedAnswer, Unusable> {
        answer::read(raw)
    }

    fn usage(&self, raw: &Value) -> Option<Usage> {
        answer::usage(raw)
    }

    fn assembly(&self, max_bytes: usize) -> Box<dyn Assembly> {
        Box::new(events::Events::new(max_bytes))
    }

    fn is_piece(&self, document: &Value, _: bool) -> bool {
        document["type"].as_str().is_some_and(|kind| kind != "message")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_path_is_appended_to_any_base_url() {
        for (base_url, expected) in [
            ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
            ("https://api.anthropic.com/v1/", "https://api.anthropic.com/v1/messages"),
            ("http://proxy/anthropic?team=1", "http://proxy/anthropic/v1/messages?team=1"),
        ] {
            assert_eq!(Anthropic::new(Url::parse(base_url).unwrap()).unwrap().url.as_str(), expected);
        }
    }
}
