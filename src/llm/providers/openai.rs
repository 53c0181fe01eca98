//! `OpenAI` Chat Completions, and everything compatible: Azure, Groq, Mistral, `OpenRouter`, `DeepSeek`, vLLM, Ollama,
//! llama.cpp and others.

mod answer;
mod chunks;
mod request;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderName};
use serde_json::Value;
use throughline_actors::ports::model::ModelRequest;
use throughline_schemas::Usage;

use super::dialect::{Assembly, Dialect};
use super::parsed_answer::{ParsedAnswer, Unusable};
use super::{BaseUrlError, ModelOptions};

/// Azure takes its keys in a header of its own.
const API_KEY: HeaderName = HeaderName::from_static("api-key");

pub(super) struct OpenAi {
    url: Url,
}

impl OpenAi {
    /// `{base_url}/chat/completions`, before a query if there is one.
    pub(super) fn new(mut base_url: Url) -> Result<Self, BaseUrlError> {
        base_url
            .path_segments_mut()
            .map_err(|()| BaseUrlError)?
            .pop_if_empty()
            .extend(["chat", "completions"]);
        Ok(Self { url: base_url })
    }
}

impl Dialect for OpenAi {
    fn key_header(&self) -> (HeaderName, &'static str) {
        match self.url.host_str() {
            Some(host) if host.ends_with(".azure.com") => (API_KEY, ""),
            Some(_) | None => (AUTHORIZATION, "Bearer "),
        }
    }

    fn url(&self, _: &ModelRequest) -> Url {
        self.url.clone()
    }

    fn models_url(&self) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop().pop().push("models");
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

    fn is_piece(&self, document: &Value, _: bool) -> bool {
        document["object"] == "chat.completion.chunk" || document["choices"][0]["delta"].is_object()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_path_is_appended_to_any_base_url() {
        let cases = [
            ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions", "authorization"),
            ("http://localhost:11434/v1/", "http://localhost:11434/v1/chat/completions", "authorization"),
            ("http://localhost:8080", "http://localhost:8080/chat/completions", "authorization"),
            (
                "https://x.openai.azure.com/openai/deployments/d?api-version=1",
                "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=1",
                "api-key",
            ),
        ];
        for (base_url, expected, header) in cases {
            let openai = OpenAi::new(Url::parse(base_url).unwrap()).unwrap();
            assert_eq!((openai.url.as_str(), openai.key_header().0.as_str()), (expected, header));
        }
    }
}
