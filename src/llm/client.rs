//! Asking models from a program: no NATS, no database, the same client as the engine's.
//!
//! A [`Client`] is made from a configuration or in code, is cheap to clone, and is meant to be shared: breakers, rate
//! limits and what providers asked to wait are common to all of its requests. It routes, falls back, retries and
//! paces as `throughline.toml` says, and every answer says what was tried and what it cost.
//!
//! ```
//! use throughline::llm::{Client, Request};
//! # use throughline::{config::Layers, sandbox::{Sandbox, SandboxConfig, SandboxOptions}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = Sandbox::start(SandboxOptions::default()).await?;
//! # let toml = SandboxConfig::toml(&sandbox.base_url());
//! # let config = Layers::default().load_text("throughline.toml", &toml)?;
//! // Client::from_env()? reads throughline.toml and the environment, as the program does.
//! let client = Client::from_config(&config, &Default::default())?;
//!
//! let answer = client.generate(Request::new("Hello!").max_tokens(200)).await?;
//! println!("{} ({}, cost {:?})", answer.text, answer.model, answer.cost_usd);
//! # assert!(!answer.text.is_empty() && answer.cost_usd.is_some());
//! # sandbox.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod answer;
mod request;
mod stream;

use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream as streams};
use throughline_actors::{
    dependency::{Collaborators, DependencyPolicy, vitals::Vitals},
    model::client::{
        ClientSettings, GenerationFailed, GenerationRequest, ModelClient, NoObserver, ProviderStatus,
    },
    ports::{
        clock::{Clock, Entropy},
        model::Models,
        tokenizer::Tokenizer,
    },
    supervision::settings::StageSettings,
};
use throughline_schemas::{TraceParent, event::generation::Route};

pub use answer::Answer;
pub use request::Request;
pub use stream::Event;

use super::{ModelProviders, ProviderSpec, SetupError, client_settings, model_providers};
use crate::{
    config::{Config, ConfigErrors, Env, Layers, process_env},
    system::{SystemClock, SystemEntropy},
    tokenizer::Tokenizers,
};

/// Asks models. See the [module's documentation](self).
#[derive(Clone)]
pub struct Client {
    inner: Arc<ModelClient>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GenerateError {
    /// The request names a model that is not there.
    #[error(
        "no model is named {name:?}; there are: {}; add it to [[models]]",
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    )]
    UnknownModel {
        /// The name.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// The request is not one that could be sent.
    #[error("{0}")]
    Request(String),
    /// Everything that the policies allow was tried; the record says what.
    #[error(transparent)]
    Unanswered(#[from] Box<GenerationFailed>),
}

/// Why [`Client::from_env`] has no client.
#[derive(Debug, thiserror::Error)]
pub enum FromEnvError {
    /// The configuration has mistakes.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// It has none, and models cannot be asked all the same.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

impl Client {
    /// A client as `throughline.toml` in the working directory (or the file that `THROUGHLINE_CONFIG` names) and the
    /// environment say. With nothing but `OPENAI_API_KEY`, `ANTHROPIC_API_KEY` or `GEMINI_API_KEY` set, it asks that
    /// vendor's default model.
    pub fn from_env() -> Result<Self, FromEnvError> {
        let env = process_env();
        let file = env.get("THROUGHLINE_CONFIG").filter(|file| !file.is_empty()).map(Into::into);
        let config = Layers { file, env: env.clone(), ..Layers::default() }.load()?;
        Ok(Self::from_config(&config, &env)?)
    }

    /// A client as a configuration says. `env` holds the secrets that it names as `env:NAME`.
    pub fn from_config(config: &Config, env: &Env) -> Result<Self, SetupError> {
        let models = model_providers(config, env, &clock())?;
        let policy = config.stages.generation.settings().for_calls();
        Self::of(Arc::new(models), client_settings(config)?, policy)
    }

    /// A client that knows the configured routes and cannot ask anybody, so that it needs no keys.
    pub(crate) fn for_routes(config: &Config) -> Result<Self, SetupError> {
        Self::new(Vec::new(), client_settings(config)?)
    }

    /// A client of these providers, asking as these settings say, with the default retries and breakers.
    ///
    /// ```
    /// use throughline::llm::{CallLimits, Client, ClientSettings, ModelTarget, ProviderKind, ProviderSpec, Request};
    /// # use throughline::sandbox::{Sandbox, SandboxOptions};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sandbox = Sandbox::start(SandboxOptions::default()).await?;
    /// # let url = sandbox.openai_base_url();
    /// let provider = ProviderSpec {
    ///     name: "local".to_owned(),
    ///     kind: ProviderKind::OpenAi,
    ///     base_url: url, // for instance http://127.0.0.1:11434/v1
    ///     keys: Vec::new(),
    ///     options: Default::default(),
    ///     limits: CallLimits::default(),
    ///     settings: Default::default(),
    /// };
    /// let model = ModelTarget::new("small", "local", "sandbox-small");
    /// let client = Client::new(vec![provider], ClientSettings::chain(vec![model]))?;
    /// let answer = client.generate(Request::new("Hello!")).await?;
    /// # assert!(answer.cost_usd.is_none(), "an unknown price is not zero");
    /// # sandbox.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(providers: Vec<ProviderSpec>, settings: ClientSettings) -> Result<Self, SetupError> {
        let models = ModelProviders::new(providers, &clock())?;
        Self::of(Arc::new(models), settings, StageSettings::default().for_calls())
    }

    fn of(
        models: Arc<dyn Models>,
        mut settings: ClientSettings,
        policy: DependencyPolicy,
    ) -> Result<Self, SetupError> {
        // The caller of this library also pays, so it may choose.
        settings.routing.requested_model = true;
        settings.routing.requested_complexity = true;
        let collaborators = Collaborators {
            clock: clock(),
            entropy: Arc::new(SystemEntropy),
            announcer: None,
            vitals: Vitals::default(),
            recorded_gates: None,
        };
        let inner = ModelClient::new(models, tokenizer(), settings, policy, collaborators)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// One answer, whole. Dropping the future abandons the call under way, for which the provider may charge.
    pub async fn generate(&self, request: Request) -> Result<Answer, GenerateError> {
        let prepared = self.prepare(request)?;
        match self.inner.generate(&prepared, &NoObserver).await {
            Ok(generated) => Ok(Answer::of(generated)),
            Err(failed) => Err(Box::new(failed).into()),
        }
    }

    /// One answer, piece by piece: [`Event`]s, of which the last is [`Event::Completed`] with the whole answer, or an
    /// error. An [`Event::Restarted`] voids all text before it.
    ///
    /// The call makes progress only while the stream is polled, so a slow reader slows it down, down to the limit between
    /// two reads. Dropping the stream abandons the call, for which the provider may charge.
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use throughline::llm::{Client, Event, Request};
    /// # use throughline::{config::Layers, sandbox::{Sandbox, SandboxConfig, SandboxOptions}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sandbox = Sandbox::start(SandboxOptions::default()).await?;
    /// # let toml = SandboxConfig::toml(&sandbox.base_url());
    /// # let config = Layers::default().load_text("throughline.toml", &toml)?;
    /// # let client = Client::from_config(&config, &Default::default())?;
    /// let mut events = client.stream(Request::new("Hello!"));
    /// let mut shown = String::new();
    /// while let Some(event) = events.next().await {
    ///     match event? {
    ///         Event::Text(piece) => shown.push_str(&piece),
    ///         Event::Restarted { .. } => shown.clear(),
    ///         Event::Completed(answer) => assert_eq!(answer.text, shown),
    ///         Event::Started { .. } | Event::Reasoning(_) => {}
    ///     }
    /// }
    /// # assert!(!shown.is_empty());
    /// # sandbox.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream(
        &self,
        request: Request,
    ) -> impl Stream<Item = Result<Event, GenerateError>> + Send + Unpin + 'static {
        let client = self.clone();
        match self.prepare(request) {
            Ok(mut prepared) => {
                prepared.sampling.stream = true;
                stream::of(client.inner, prepared).left_stream()
            }
            Err(error) => streams::iter([Err(error)]).right_stream(),
        }
    }

    /// Answers in the order of `requests`, at most `max_concurrency` of them (0 counts as 1) under way or waiting for an
    /// earlier one at any time. Requests are taken from the iterator as there is room, so neither they nor the answers
    /// need to fit in memory. One that fails does not stop the others.
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use throughline::llm::{Client, Request};
    /// # use throughline::{config::Layers, sandbox::{Sandbox, SandboxConfig, SandboxOptions}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sandbox = Sandbox::start(SandboxOptions::default()).await?;
    /// # let toml = SandboxConfig::toml(&sandbox.base_url());
    /// # let config = Layers::default().load_text("throughline.toml", &toml)?;
    /// # let client = Client::from_config(&config, &Default::default())?;
    /// let requests = ["Hello!", "What is your return policy?", "Goodbye!"].map(Request::new);
    /// let answers: Vec<_> = client.generate_batch(requests, 2).collect().await;
    /// assert_eq!(answers.len(), 3);
    /// for answer in answers {
    ///     println!("{}", answer?.text);
    /// }
    /// # sandbox.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn generate_batch<I>(
        &self,
        requests: I,
        max_concurrency: usize,
    ) -> impl Stream<Item = Result<Answer, GenerateError>> + use<I>
    where
        I: IntoIterator<Item = Request>,
    {
        let client = self.clone();
        streams::iter(requests)
            .map(move |request| {
                let client = client.clone();
                async move { client.generate(request).await }
            })
            .buffered(max_concurrency.max(1))
    }

    /// Which models a request would be sent to, in which order and why. Calls no model and costs nothing.
    pub fn route(&self, request: Request) -> Result<Route, GenerateError> {
        Ok(self.inner.route(&self.prepare(request)?))
    }

    /// Closes all breakers and forgets what providers asked to wait, for instance after an outage is known to be over.
    pub fn reset_breakers(&self) {
        self.inner.reset_breakers();
    }

    /// How each provider is doing.
    pub fn status(&self) -> Vec<ProviderStatus> {
        self.inner.status()
    }

    fn prepare(&self, request: Request) -> Result<GenerationRequest, GenerateError> {
        let trace_id = u128::from(SystemEntropy.next_u64()) << 64 | u128::from(SystemEntropy.next_u64());
        let trace = TraceParent::root(trace_id, SystemEntropy.next_u64());
        if let Some(name) = request.model_name() {
            let models = &self.inner.settings().models;
            if !models.iter().any(|model| model.name == name) {
                let known = models.iter().map(|model| model.name.clone()).collect();
                return Err(GenerateError::UnknownModel { name: name.to_owned(), known });
            }
        }
        request
            .into_generation(|messages| self.inner.request(messages, trace))
            .map_err(GenerateError::Request)
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn tokenizer() -> Arc<dyn Tokenizer> {
    Arc::new(Tokenizers)
}
