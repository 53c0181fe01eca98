//! `OpenAI` Chat Completions, whole responses.

mod answer;
mod refusal;
mod request;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Response, Url};
use throughline_actors::ports::clock::Clock;
use throughline_actors::ports::model::{
    CallFacts, ModelAnswer, ModelError, ModelFailure, ModelRequest, Phase,
};
use tokio::time::{Instant, timeout_at};

use super::{CallLimits, ModelProvidersError, ProviderSpec};
use crate::fetch::{TRACEPARENT, traceparent};
use crate::http_client::body::{self, BodyError, BodyLimits};
use crate::http_client::{self, credential::Redactor, retry_after, text};

/// The status of an error is known before its body, which may therefore take only this long.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest request id that is kept, in characters.
const MAX_REQUEST_ID_CHARS: usize = 128;

pub(super) struct OpenAi {
    client: Client,
    url: Url,
    headers: HeaderMap,
    redactor: Redactor,
    limits: CallLimits,
    clock: Arc<dyn Clock>,
}

impl OpenAi {
    pub(super) fn new(spec: &ProviderSpec, clock: Arc<dyn Clock>) -> Result<Self, ModelProvidersError> {
        let provider = || spec.name.clone();
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(key) = &spec.api_key {
            let value = key
                .header("Bearer ")
                .map_err(|source| ModelProvidersError::ApiKey { provider: provider(), source })?;
            headers.insert(AUTHORIZATION, value);
        }
        let url = completions_url(&spec.base_url)
            .map_err(|source| ModelProvidersError::BaseUrl { provider: provider(), source })?;
        let limits = spec.limits;
        // A tenth earlier than the others: they say that a request may have been sent, which while connecting is wrong.
        let connect = limits.connect.min(limits.first_token.min(limits.total).saturating_mul(9) / 10);
        Ok(Self {
            client: http_client::client(connect, url.scheme() == "https")
                .map_err(|source| ModelProvidersError::Client { provider: provider(), source })?,
            url,
            headers,
            redactor: Redactor::new(&spec.api_key),
            limits,
            clock,
        })
    }

    pub(super) async fn generate(&self, request: &ModelRequest) -> Result<ModelAnswer, ModelFailure> {
        let mut facts = CallFacts::default();
        match self.call(request, &mut facts).await {
            Ok(answer) => Ok(answer.with(&request.model, facts)),
            Err(error) => Err(ModelFailure { error, usage: None, facts }),
        }
    }

    async fn call(
        &self,
        request: &ModelRequest,
        facts: &mut CallFacts,
    ) -> Result<answer::Answer, ModelError> {
        let begins_by = http_client::after(self.limits.first_token);
        let deadline = http_client::after(self.limits.total);
        let http = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(TRACEPARENT, traceparent(request.traceparent))
            .body(request::body(request));
        let response = match timeout_at(begins_by.min(deadline), http.send()).await {
            Ok(response) => response.map_err(|error| self.send_error(&error))?,
            Err(_) if begins_by < deadline => return Err(ModelError::TimedOut(Phase::FirstToken)),
            Err(_) => return Err(ModelError::TimedOut(Phase::Total)),
        };
        *facts = self.facts(&response);
        let status = response.status();
        if !status.is_success() {
            let body = self.error_body(response, deadline).await;
            let refusal = refusal::Refusal::read(&body, &self.redactor);
            facts.retry_after = facts.retry_after.or_else(|| refusal.wait());
            return Err(refusal.classify(status));
        }
        if let Some(encoding) = http_client::unwanted_encoding(response.headers()) {
            return Err(ModelError::BadResponse(format!(
                "it is compressed ({encoding}), which was not asked for"
            )));
        }
        let content_type = http_client::content_type(response.headers());
        let limits = BodyLimits {
            max_bytes: self.limits.max_response_bytes,
            between_pieces: Some(self.limits.read),
            deadline,
        };
        let body = body::read(response, limits).await.map_err(|error| match error {
            BodyError::TooLarge => ModelError::TooLarge(self.limits.max_response_bytes),
            BodyError::Stalled => ModelError::TimedOut(Phase::Read),
            BodyError::Late => ModelError::TimedOut(Phase::Total),
            BodyError::Broken(error) => ModelError::CutShort(http_client::describe(&self.url, &error)),
        })?;
        answer::Answer::read(&body, &self.redactor).map_err(|unusable| unusable.error(&content_type))
    }

    /// What the headers say.
    fn facts(&self, response: &Response) -> CallFacts {
        let headers = response.headers();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        CallFacts {
            http_status: Some(response.status().as_u16()),
            request_id: text("x-request-id").map(|id| {
                let mut id = id.to_owned();
                self.redactor.text(&mut id);
                text::one_line(&id, MAX_REQUEST_ID_CHARS)
            }),
            retry_after: retry_after::from_headers(headers, self.clock.now()),
            should_retry: text("x-should-retry").and_then(|word| word.trim().parse().ok()),
            ..CallFacts::default()
        }
    }

    /// What there is of an error's body. Its status counts even if the body is late, broken or too large.
    async fn error_body(&self, response: Response, deadline: Instant) -> Bytes {
        let limits = BodyLimits {
            max_bytes: self.limits.max_response_bytes,
            between_pieces: None,
            deadline: deadline.min(http_client::after(ERROR_BODY_TIMEOUT.min(self.limits.read))),
        };
        body::read(response, limits).await.unwrap_or_default()
    }

    /// Without an answer, the question is whether the request was sent.
    fn send_error(&self, error: &reqwest::Error) -> ModelError {
        let description = || http_client::describe(&self.url, error);
        if !error.is_connect() {
            return ModelError::CutShort(description());
        }
        if error.is_timeout() {
            return ModelError::TimedOut(Phase::Connect);
        }
        ModelError::Unreachable(description())
    }
}

/// `{base_url}/chat/completions`, before a query if there is one.
fn completions_url(base_url: &str) -> Result<Url, Option<Box<dyn std::error::Error + Send + Sync>>> {
    let mut url = Url::parse(base_url).map_err(|error| Some(error.into()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(None);
    }
    url.path_segments_mut().map_err(|()| None)?.pop_if_empty().extend(["chat", "completions"]);
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_path_is_appended_to_any_base_url() {
        let cases = [
            ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
            ("http://localhost:11434/v1/", "http://localhost:11434/v1/chat/completions"),
            ("http://localhost:8080", "http://localhost:8080/chat/completions"),
            (
                "https://x.openai.azure.com/openai/deployments/d?api-version=1",
                "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=1",
            ),
        ];
        for (base_url, expected) in cases {
            assert_eq!(completions_url(base_url).unwrap().as_str(), expected);
        }
        for wrong in ["", "api.openai.com/v1", "ftp://host/v1", "data:x"] {
            assert!(completions_url(wrong).is_err(), "{wrong}");
        }
    }
}
