//! Gemini `generateContent`.

mod answer;
mod chunks;
mod request;

use reqwest::Url;
use reqwest::header::HeaderName;
use serde_json::Value;
use throughline_actors::ports::model::ModelRequest;
use throughline_schemas::Usage;

use super::dialect::{Assembly, Dialect};
use super::parsed_answer::{ParsedAnswer, Unusable};
use super::{BaseUrlError, ModelOptions};

const API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
/// The version of the API that this is written for.
const VERSION: &str = "v1beta";

pub(super) struct Gemini {
    base_url: Url,
}

impl Gemini {
    /// The version is added to a base that has no path.
    pub(super) fn new(mut base_url: Url) -> Result<Self, BaseUrlError> {
        let bare = matches!(base_url.path(), "" | "/");
        let mut path = base_url.path_segments_mut().map_err(|()| BaseUrlError)?;
        path.pop_if_empty();
        if bare {
            path.push(VERSION);
        }
        drop(path);
        Ok(Self { base_url })
    }
}

impl Dialect for Gemini {
    fn key_header(&self) -> (HeaderName, &'static str) {
        (API_KEY, "")
    }

    /// `{base_url}/models/{model}:generateContent`, the model as one segment of the path whatever is in it.
    fn url(&self, request: &ModelRequest) -> Url {
        let mut url = self.base_url.clone();
        let model = request.model.strip_prefix("models/").unwrap_or(&request.model);
        let method = if request.stream { "streamGenerateContent" } else { "generateContent" };
        if let Ok(mut path) = url.path_segments_mut() {
            path.push("models").push(&format!("{model}:{method}"));
        }
        if request.stream {
            url.query_pairs_mut().append_pair("alt", "sse");
        }
        url
    }

    fn models_url(&self) -> Url {
        let mut url = self.base_url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push("models");
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
        Box::new(chunks::Chunks::new(max_bytes))
    }

    /// Each event has the form of a whole answer: only the last one says why the answer ends.
    fn is_piece(&self, document: &Value, asked: bool) -> bool {
        asked
            && document["candidates"][0].is_object()
            && !document["candidates"][0]["finishReason"].is_string()
    }
}

#[cfg(test)]
#[path = "gemini/url_tests.rs"]
mod tests;
