//! Why there is no answer (yet).

use std::time::Duration;

use throughline_schemas::event::generation::{AttemptError, ErrorClass};

use crate::{
    dependency::Refused,
    ports::{
        Classify, Fault,
        model::{ModelError, ModelFailure, Phase},
    },
};

/// What went wrong with one attempt, made or prevented.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerationError {
    /// The route names no model.
    #[error("no model is configured; set generation.model and a provider")]
    NoModel,
    /// The prompt does not fit, whatever is left out. Nothing was sent.
    #[error(
        "the prompt is too long for the model: {needed} tokens with an answer of {answer} exceed its window of \
         {window}; shorten the text, lower max_tokens, or add a model with a larger window to the route"
    )]
    DoesNotFit {
        /// Tokens of the prompt with everything left out that can be.
        needed: u64,
        /// Tokens kept free for the answer.
        answer: u32,
        /// The model's window.
        window: u32,
    },
    /// Rate limits leave no room within the time that may be waited. Nothing was sent.
    #[error("the rate limit has no room for another {} ms", .0.as_millis())]
    OwnRateLimit(Duration),
    /// Rate limits have held the request back for as long as it may be held back in all. Nothing was sent.
    #[error(
        "rate limits have held the request back for the {} ms that generation.rate_total_ms allows in all; raise \
         requests_per_minute or tokens_per_minute as far as the provider permits, publish more slowly, add a model \
         of another provider to generation.fallback, or raise rate_total_ms; the next wait would be {} ms",
        total.as_millis(), wait.as_millis()
    )]
    HeldTooLong {
        /// How long it would have to wait still.
        wait: Duration,
        /// How long it may in all.
        total: Duration,
    },
    /// The request is larger than what is allowed in a whole minute. Nothing was sent.
    #[error(
        "the request is estimated at {tokens} tokens, more than the limit of {limit} in a minute allows at all"
    )]
    OverRateLimit {
        /// Estimate for the request.
        tokens: u64,
        /// The limit.
        limit: u32,
    },
    /// The breaker is open, or the provider has asked everybody to wait. Nothing was sent.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The call failed.
    #[error(transparent)]
    Failed(#[from] ModelFailure),
}

impl GenerationError {
    /// The error, for a machine.
    pub fn code(&self) -> AttemptError {
        match self {
            Self::NoModel => AttemptError::UnknownModel,
            Self::DoesNotFit { .. } => AttemptError::ContextTooLong,
            Self::OwnRateLimit(_) | Self::HeldTooLong { .. } | Self::OverRateLimit { .. } => {
                AttemptError::OwnRateLimit
            }
            Self::Refused(Refused::BreakerOpen(..)) => AttemptError::BreakerOpen,
            Self::Refused(Refused::Paced(_)) => AttemptError::Paced,
            Self::Failed(failure) => failure.error.code(),
        }
    }

    /// Whether trying again can help, and whether it may have happened.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NoModel
            | Self::DoesNotFit { .. }
            | Self::HeldTooLong { .. }
            | Self::OverRateLimit { .. } => Fault::Permanent,
            Self::OwnRateLimit(wait) => Fault::Transient { wait_at_least: Some(*wait) },
            Self::Refused(refused) => Fault::Transient { wait_at_least: Some(refused.wait()) },
            Self::Failed(failure) => failure.fault(),
        }
    }

    /// The same, as it is recorded. A call that was prevented has no class: nothing failed.
    pub(crate) fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::OwnRateLimit(_) | Self::HeldTooLong { .. } | Self::Refused(_) => return None,
            Self::NoModel | Self::DoesNotFit { .. } | Self::OverRateLimit { .. } | Self::Failed(_) => {}
        }
        Some(match self.fault() {
            Fault::Permanent => ErrorClass::Permanent,
            Fault::Transient { .. } => ErrorClass::Transient,
            Fault::Unknown => ErrorClass::Unknown,
        })
    }

    /// Whether a call was prevented that may be made later.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::OwnRateLimit(_) | Self::Refused(_))
    }

    /// How long a rate limit, ours, announced or asked for, has no room for the call. Waiting for one is no attempt.
    pub(super) fn held_back(&self) -> Option<Duration> {
        match self {
            Self::OwnRateLimit(wait) | Self::Refused(Refused::Paced(wait)) => Some(*wait),
            Self::NoModel
            | Self::DoesNotFit { .. }
            | Self::HeldTooLong { .. }
            | Self::OverRateLimit { .. }
            | Self::Refused(Refused::BreakerOpen(..))
            | Self::Failed(_) => None,
        }
    }

    /// Whether the other side asked to wait.
    pub(super) fn asks_to_wait(&self) -> bool {
        match self {
            Self::Failed(failure) => match failure.fault() {
                Fault::Transient { wait_at_least } => wait_at_least.is_some(),
                Fault::Permanent | Fault::Unknown => false,
            },
            Self::Refused(Refused::Paced(_)) => true,
            Self::Refused(Refused::BreakerOpen(..))
            | Self::OwnRateLimit(_)
            | Self::NoModel
            | Self::DoesNotFit { .. }
            | Self::HeldTooLong { .. }
            | Self::OverRateLimit { .. } => false,
        }
    }

    /// Whether a request went out.
    pub(super) fn was_sent(&self) -> bool {
        match self {
            Self::NoModel
            | Self::DoesNotFit { .. }
            | Self::OwnRateLimit(_)
            | Self::HeldTooLong { .. }
            | Self::OverRateLimit { .. }
            | Self::Refused(_) => false,
            Self::Failed(failure) => {
                !matches!(failure.error, ModelError::Unreachable(_) | ModelError::TimedOut(Phase::Connect))
            }
        }
    }
}
