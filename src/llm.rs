//! Models behind providers, over HTTP.

mod openai;

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::InvalidHeaderValue;
use throughline_actors::ports::clock::Clock;
use throughline_actors::ports::model::{
    CallFacts, DeltaSink, ModelAnswer, ModelError, ModelFailure, ModelRequest, Models,
};

pub use crate::http_client::credential::Credential;
use openai::OpenAi;

/// The protocol that a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// `OpenAI` Chat Completions, and everything compatible with it.
    OpenAi,
}

/// The limits of one call. Each ends the call with the error that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Resolving the name, connecting, TLS. In effect at most nine tenths of `first_token` and of `total`.
    pub connect: Duration,
    /// From the start of the call until the answer begins (its headers), connecting included.
    pub first_token: Duration,
    /// Between two pieces of the answer.
    pub read: Duration,
    /// The whole call.
    pub total: Duration,
    /// The answer's body, in bytes.
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
    /// Root of its API, as in `https://api.openai.com/v1`; a query, as Azure wants one, is kept.
    pub base_url: String,
    /// Local servers need none.
    pub api_key: Option<Credential>,
    /// The limits of every call to it.
    pub limits: CallLimits,
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
    /// A key with line breaks or other control characters.
    #[error(
        "the api_key of the provider {provider:?} has characters that no header can have; is it the right one?"
    )]
    ApiKey {
        /// The provider.
        provider: String,
        /// The library's words, which do not repeat the key.
        source: InvalidHeaderValue,
    },
}

/// [`Models`] over HTTP/1.1 (TLS by rustls), one pool of connections for each provider.
///
/// A call is one POST that asks for a whole response. Redirects, retries, proxies from the environment and
/// compression are off. A provider's key is removed from everything that it answers.
pub struct ModelProviders(HashMap<String, Provider>);

enum Provider {
    OpenAi(Box<OpenAi>),
}

impl ModelProviders {
    /// Prepares every provider's client. `clock` is asked when a provider names a date to wait for.
    pub fn new(specs: Vec<ProviderSpec>, clock: &Arc<dyn Clock>) -> Result<Self, ModelProvidersError> {
        let mut providers = HashMap::with_capacity(specs.len());
        for spec in specs {
            if providers.contains_key(&spec.name) {
                return Err(ModelProvidersError::Duplicate(spec.name));
            }
            let provider = match spec.kind {
                ProviderKind::OpenAi => Provider::OpenAi(Box::new(OpenAi::new(&spec, Arc::clone(clock))?)),
            };
            providers.insert(spec.name, provider);
        }
        Ok(Self(providers))
    }
}

#[async_trait]
impl Models for ModelProviders {
    async fn generate(&self, request: &ModelRequest, _: &dyn DeltaSink) -> Result<ModelAnswer, ModelFailure> {
        match self.0.get(&request.provider) {
            Some(Provider::OpenAi(openai)) => openai.generate(request).await,
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
