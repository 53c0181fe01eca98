//! Whether a provider takes its keys, found out without paying: its list of models costs nothing anywhere.

use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{StatusCode, Url};
use throughline_actors::ports::model::ModelError;
use tokio::time::timeout_at;

use super::{Picked, Provider, accept};
use crate::http_client;
use crate::llm::providers::error_body::ProviderError;

/// How long the list may take to be there.
const LIMIT: Duration = Duration::from_secs(5);

/// What a provider says to one of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyVerdict {
    /// Here are the models.
    Taken,
    /// This is no key of ours; with the provider's words.
    Refused(String),
    /// Something else, which leaves open whether a model would answer.
    Unknown(String),
}

impl Provider {
    /// The verdict on each key, in their order; on a request without any, if there is none.
    pub(in crate::llm::providers) async fn try_keys(&self) -> Vec<KeyVerdict> {
        let url = self.dialect.models_url();
        let tries = self.keys.all().into_iter().map(|picked| self.try_key(url.clone(), picked));
        futures_util::future::join_all(tries).await
    }

    async fn try_key(&self, url: Url, picked: Picked) -> KeyVerdict {
        let ends_by = http_client::after(LIMIT);
        let mut http =
            self.client.get(url.clone()).headers(self.headers.clone()).header(ACCEPT, accept(false));
        if let Some(key) = picked.header {
            http = http.header(self.key_header.clone(), key);
        }
        http = http.headers(self.own_headers.clone());
        let response = match timeout_at(ends_by, http.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return KeyVerdict::Unknown(http_client::describe(&url, &error)),
            Err(_) => return KeyVerdict::Unknown(format!("no answer within {LIMIT:?}")),
        };
        let status = response.status();
        if status.is_success() && http_client::content_type(response.headers()).contains("json") {
            return KeyVerdict::Taken;
        }
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return KeyVerdict::Unknown(format!("it has no list of models (HTTP {})", status.as_u16()));
        }
        let refusal = ProviderError::read(&self.error_body(response, &url, ends_by).await, &picked.redactor);
        let mut said = format!("{} (HTTP {})", refusal.text(), status.as_u16());
        picked.redactor.text(&mut said);
        // What is forbidden may be the list alone, to a key that is made for answers.
        if status != StatusCode::FORBIDDEN && matches!(refusal.classify(status), ModelError::Credentials(_)) {
            KeyVerdict::Refused(said)
        } else {
            KeyVerdict::Unknown(said)
        }
    }
}
