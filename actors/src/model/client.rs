//! Everything between "here is a prompt" and "here is the answer, with every attempt on record": which model is
//! asked, when it is asked again and when another one, how long it waits, what is left out so that the prompt
//! fits, and what it cost. It knows no bus and no event, so the generation stage and a program that only wants an
//! answer use the same client.
//!
//! Of the things that decide, each has its place: [`crate::policy::routing`] (which models), [`crate::policy::retry`]
//! and [`crate::policy::breaker`] (when again), [`crate::policy::fallback`] (when another one),
//! [`crate::policy::bucket`] and [`crate::policy::announced`] (how fast), [`crate::policy::window`] and
//! [`crate::policy::summary`] (what is left out).

mod call;
mod error;
mod error_detail;
mod fit;
mod limits;
mod record;
mod route_run;
mod settings;
mod stream_observer;
mod summarise;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use throughline_schemas::{
    StageName, TraceParent,
    event::generation::{Attempt, Message, Role, Route},
};
use tokio::time::Instant;

use limits::{Limits, ProviderLimits};

pub use error::GenerationError;
pub(crate) use fit::EARLIER_TURNS;
pub use record::{Record, Sent, counts};
pub use settings::{ClientSettings, ModelTarget, OlderTurns, RateLimits, Sampling};
pub use stream_observer::{Failure, NoObserver, StreamEvent, StreamObserver};

use crate::{
    dependency::{Collaborators, Dependency, DependencyPolicy, vitals::DependencyKind},
    model::prompt::Tag,
    policy::{
        breaker::BreakerState,
        routing::{RequestFacts, RouteRequest},
    },
    ports::{
        model::{ModelAnswer, Models},
        tokenizer::Tokenizer,
    },
};

/// One request.
#[derive(Debug, Clone)]
pub struct GenerationRequest {
    /// The prompt. System messages and everything after the last answer of the model are always sent; what is
    /// between, the earlier turns, as far as it fits. Shared: a large prompt is in memory once.
    pub messages: Arc<Vec<Message>>,
    /// How to answer.
    pub sampling: Sampling,
    /// What the request says about its route.
    pub route: RouteRequest,
    /// How many data sources answered with data, for the rules of routing.
    pub sources: u64,
    /// Deliveries of the same request of whose attempts nothing is known; each counts as an attempt at each model.
    pub made: u32,
    /// Attempts on record that earlier deliveries made; the record of this one begins with them.
    pub earlier: Vec<Attempt>,
    /// Which delivery of the request this is, from 1.
    pub delivery: u32,
    /// The name of the blocks in which the messages have data, and a summary of earlier turns will be.
    pub tag: Tag,
    /// Trace context to send along.
    pub traceparent: TraceParent,
    /// Whether an answer may be nothing but calls of tools ([`crate::ports::model::ModelRequest::takes_tool_calls`]).
    pub takes_tool_calls: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// What the model said.
    pub answer: ModelAnswer,
    /// Which model it was.
    pub target: ModelTarget,
    /// The prompt as it got it.
    pub sent: Sent,
    /// How it came about.
    pub record: Record,
}

/// No answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct GenerationFailed {
    /// What went wrong last, with the model that matters: the one that may be asked again, if there is one.
    #[source]
    pub error: GenerationError,
    /// Attempts made with that model, those before this request included.
    pub made: u32,
    /// Another attempt may succeed after this wait, which is longer than the caller may be held. `None`: it is over.
    pub again_in: Option<Duration>,
    /// How it came about.
    pub record: Record,
}

/// The settings contradict themselves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A route, or the summary, names a model that is not there.
    #[error("no model is named {name:?}; there are: {}", known.join(", "))]
    UnknownModel {
        /// The name.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
}

/// How a provider is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderStatus {
    /// Its name in the configuration.
    pub provider: String,
    /// State of its breaker.
    pub breaker: BreakerState,
}

/// A model with everything that is shared by all requests to it.
struct Model {
    target: ModelTarget,
    /// Models of one provider share its breaker and its pace.
    provider: Dependency,
    limits: Limits,
    /// A warning was logged that its calls do not cost what our prices say.
    warned_of_costs: AtomicBool,
}

/// See the module's documentation. Meant to be shared: breakers, paces and rate limits are common to all requests.
pub struct ModelClient {
    models: Arc<dyn Models>,
    tokenizer: Arc<dyn Tokenizer>,
    collaborators: Collaborators,
    settings: ClientSettings,
    known: BTreeMap<String, Model>,
}

impl ModelClient {
    /// A client whose providers are in good health.
    pub fn new(
        models: Arc<dyn Models>,
        tokenizer: Arc<dyn Tokenizer>,
        settings: ClientSettings,
        policy: DependencyPolicy,
        collaborators: Collaborators,
    ) -> Result<Self, SettingsError> {
        let now = Instant::now();
        let mut providers: BTreeMap<&str, (Dependency, Arc<ProviderLimits>)> = BTreeMap::new();
        let mut known = BTreeMap::new();
        for target in &settings.models {
            let (provider, shared) = providers.entry(&target.provider).or_insert_with(|| {
                let name = &target.provider;
                let rates = settings.provider_rates.get(name).copied().unwrap_or_default();
                let (kind, stage) = (DependencyKind::Model, StageName::Generation);
                let provider = Dependency::new(kind, stage, name, policy, collaborators.clone());
                (provider, Arc::new(ProviderLimits::new(rates, now)))
            });
            let limits = Limits::new(Arc::clone(shared), target.rates, now);
            let warned_of_costs = AtomicBool::new(false);
            let model = Model { target: target.clone(), provider: provider.clone(), limits, warned_of_costs };
            known.insert(target.name.clone(), model);
        }
        let summariser = match &settings.older_turns {
            OlderTurns::Summarise(name) => Some(name.as_str()),
            OlderTurns::Drop | OlderTurns::Extract => None,
        };
        if let Some(name) =
            settings.routing.models().chain(summariser).find(|name| !known.contains_key(*name))
        {
            let (name, known) = (name.to_owned(), known.into_keys().collect());
            return Err(SettingsError::UnknownModel { name, known });
        }
        Ok(Self { models, tokenizer, collaborators, settings, known })
    }

    /// A request with the configured settings.
    pub fn request(&self, messages: Vec<Message>, traceparent: TraceParent) -> GenerationRequest {
        GenerationRequest {
            messages: Arc::new(messages),
            sampling: self.settings.sampling.clone(),
            route: RouteRequest::default(),
            sources: 0,
            made: 0,
            earlier: Vec::new(),
            delivery: 1,
            tag: Tag::random(self.collaborators.entropy.next_u64()),
            traceparent,
            takes_tool_calls: false,
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    /// Which models a request would be sent to, and why. Calls no model.
    pub fn route(&self, request: &GenerationRequest) -> Route {
        let routing = &self.settings.routing;
        let of = |role| request.messages.iter().filter(move |message| message.role == role);
        let text = of(Role::User).next_back().map_or("", |message| message.content.as_str());
        let first = routing.default.first().and_then(|name| self.known.get(name));
        let tokens = match first {
            Some(model) if routing.counts_tokens() => self.tokenizer.count(&model.target.model, text).tokens,
            Some(_) | None => 0,
        };
        let facts = RequestFacts {
            text,
            tokens,
            sources: request.sources,
            turns: of(Role::Assistant).count() as u64,
        };
        let known: Vec<&str> = self.known.keys().map(String::as_str).collect();
        routing.route(&facts, &request.route, &known)
    }

    /// Asks until there is an answer, or the policies say that enough is enough. `observer` sees how the answer
    /// comes into being. Dropping the future abandons the call under way; the provider may have charged for it.
    pub async fn generate(
        &self,
        request: &GenerationRequest,
        observer: &dyn StreamObserver,
    ) -> Result<Generated, GenerationFailed> {
        route_run::RouteRun::new(self, request, observer).run().await
    }

    /// Closes all breakers and forgets what providers asked to wait.
    pub fn reset_breakers(&self) {
        self.known.values().for_each(|model| model.provider.reset());
    }

    /// How each provider is doing.
    pub fn status(&self) -> Vec<ProviderStatus> {
        let states: BTreeMap<&str, BreakerState> =
            self.known.values().map(|model| (model.provider.name(), model.provider.state())).collect();
        states
            .into_iter()
            .map(|(provider, breaker)| ProviderStatus { provider: provider.to_owned(), breaker })
            .collect()
    }
}
