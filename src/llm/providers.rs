//! Providers of models over HTTP: one shared call ([`call`]), and one form for each provider to fill in
//! ([`dialect::Dialect`]).

mod anthropic;
mod call;
mod dialect;
mod document;
mod error_body;
mod finish;
mod forwarder;
mod gemini;
mod halves;
mod incoming;
mod json;
mod keys;
mod openai;
mod options;
mod parsed_answer;
mod redact;
mod request;
mod response_headers;
mod settings;
mod size_limit;
mod sse;
mod stream;
mod thinking;
mod usage;

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Url;
use throughline_actors::ports::clock::Clock;
use throughline_actors::ports::model::{
    CallFacts, DeltaSink, ModelAnswer, ModelError, ModelFailure, ModelRequest, Models,
};

pub use crate::http_client::credential::Credential;
pub use crate::http_client::proxy::{Proxies, ProxyError};
pub use call::KeyVerdict;
use call::Provider;
use dialect::Dialect;
pub use keys::{KeyError, KeySource};
pub use options::{MaxTokensField, ModelOptions};
pub use settings::{ProviderSettings, SettingError, Value as SettingValue};

/// The protocol that a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// `OpenAI` Chat Completions, and everything compatible with it.
    OpenAi,
    /// Anthropic Messages.
    Anthropic,
    /// Gemini `generateContent`.
    Gemini,
}

/// The limits of one call. Each ends the call with the error that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Resolving the name, connecting, TLS. In effect at most nine tenths of `first_token` and of `total`.
    pub connect: Duration,
    /// From the start of the call until the answer begins (its first piece of text, of a stream; the first piece of its body
    /// otherwise), connecting included.
    pub first_token: Duration,
    /// Between two reads of an answer that has begun. A provider's signs of life (pings, comments) count.
    pub read: Duration,
    /// The whole call.
    pub total: Duration,
    /// The answer, in bytes: a whole body; of a stream, one event, and all that is kept of it.
    pub max_response_bytes: usize,
}

impl Default for CallLimits {
    /// 10 s, 60 s, 30 s, 120 s, 8 MiB.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_token: Duration::from_mins(1),
            read: Duration::from_secs(30),
            total: Duration::from_mins(2),
            max_response_bytes: 8 << 20,
        }
    }
}

/// One provider.
#[derive(Clone, Debug)]
pub struct ProviderSpec {
    /// As [`ModelRequest::provider`] has it.
    pub name: String,
    /// Its protocol.
    pub kind: ProviderKind,
    /// Root of its API: `https://api.openai.com/v1`, `https://api.anthropic.com`,
    /// `https://generativelanguage.googleapis.com`. A query, as Azure wants one, is kept.
    pub base_url: String,
    /// Its keys, used in turn. Local servers need none. Who only has one of them passes one.
    pub keys: Vec<KeySource>,
    /// How requests to certain models differ, by the provider's name of the model. Others have
    /// [`ModelOptions::usual`].
    pub options: HashMap<String, ModelOptions>,
    /// The limits of every call to it.
    pub limits: CallLimits,
    /// How it is reached, where that differs from what its protocol says.
    pub settings: ProviderSettings,
}

/// Why the providers cannot be set up. No message repeats a key or a URL's query.
#[derive(Debug, thiserror::Error)]
pub enum ModelProvidersError {
    /// The HTTP library refused its settings.
    #[error("the HTTP client for the provider {provider:?} cannot be made")]
    Client {
        /// The provider.
        provider: String,
        /// Why.
        source: reqwest::Error,
    },
    /// Two providers of one name.
    #[error("two providers are named {0:?}; rename one")]
    Duplicate(String),
    /// Not a URL that calls could be made to.
    #[error("the base_url of the provider {provider:?} is not an http(s) URL")]
    BaseUrl {
        /// The provider.
        provider: String,
        /// Why, if it is no URL at all.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// A header or a query parameter that cannot be sent.
    #[error("the settings of the provider {provider:?} cannot be used")]
    Setting {
        /// The provider.
        provider: String,
        /// Why.
        source: SettingError,
    },
    /// Its proxy cannot be used.
    #[error("the proxy of the provider {provider:?} cannot be used")]
    Proxy {
        /// The provider.
        provider: String,
        /// Why.
        source: ProxyError,
    },
    /// A key that is not there, or not one.
    #[error("the api_key of the provider {provider:?} cannot be used")]
    ApiKey {
        /// The provider.
        provider: String,
        /// Why.
        source: KeyError,
    },
}

/// A URL that no path can be appended to.
#[derive(Debug)]
struct BaseUrlError;

/// [`Models`] over HTTP/1.1 (TLS by rustls), one pool of connections for each provider.
///
/// A call is one POST, and one more for each key that the provider refuses. Redirects and retries are off; compressed
/// answers are read, and not wished for. A provider's keys are removed from everything that it answers.
pub struct ModelProviders(HashMap<String, Provider>);

impl ModelProviders {
    /// Prepares every provider's client and reads its keys. `clock` is asked when a provider names a date to wait for.
    pub fn new(specs: Vec<ProviderSpec>, clock: &Arc<dyn Clock>) -> Result<Self, ModelProvidersError> {
        let mut providers = HashMap::with_capacity(specs.len());
        for spec in specs {
            if providers.contains_key(&spec.name) {
                return Err(ModelProvidersError::Duplicate(spec.name));
            }
            let name = spec.name.clone();
            let not_a_url = |source| ModelProvidersError::BaseUrl { provider: name.clone(), source };
            let url = Url::parse(&spec.base_url).map_err(|error| not_a_url(Some(error.into())))?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err(not_a_url(None));
            }
            let https = url.scheme() == "https";
            let dialect =
                dialect(spec.kind, spec.settings.base(url)).map_err(|BaseUrlError| not_a_url(None))?;
            providers.insert(name, Provider::new(spec, dialect, https, Arc::clone(clock))?);
        }
        Ok(Self(providers))
    }
}

impl ModelProviders {
    /// What a provider says to each of its keys, without being asked for anything that costs; `None` if there is no provider
    /// of this name.
    pub async fn try_keys(&self, provider: &str) -> Option<Vec<KeyVerdict>> {
        Some(self.0.get(provider)?.try_keys().await)
    }
}

/// The form of a provider, filled in.
fn dialect(kind: ProviderKind, base_url: Url) -> Result<Box<dyn Dialect>, BaseUrlError> {
    Ok(match kind {
        ProviderKind::OpenAi => Box::new(openai::OpenAi::new(base_url)?),
        ProviderKind::Anthropic => Box::new(anthropic::Anthropic::new(base_url)?),
        ProviderKind::Gemini => Box::new(gemini::Gemini::new(base_url)?),
    })
}

#[async_trait]
impl Models for ModelProviders {
    async fn generate(
        &self,
        request: &ModelRequest,
        sink: &dyn DeltaSink,
    ) -> Result<ModelAnswer, ModelFailure> {
        match self.0.get(&request.provider) {
            Some(provider) => provider.generate(request, sink).await,
            None => Err(ModelFailure {
                error: ModelError::UnknownModel(format!(
                    "no provider is named {:?}; add it under [[providers]]",
                    request.provider
                )),
                usage: None,
                facts: CallFacts::default(),
            }),
        }
    }
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod mutated_tests;
#[cfg(test)]
mod recorded_tests;
