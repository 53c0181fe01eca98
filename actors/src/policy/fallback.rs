//! When the next model of a route is asked.

use std::{collections::BTreeSet, fmt, str::FromStr};

use throughline_schemas::event::generation::AttemptError;

/// A class of errors after which the next model may be asked. The names are those of `generation.fallback_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FallbackOn {
    /// The prompt does not fit the model's window.
    ContextTooLong,
    /// The provider's filter withheld the answer.
    ContentFiltered,
    /// The provider, or a limit of ours, asks to slow down.
    RateLimited,
    /// The provider cannot be reached, fails, stalls, or answers nonsense or nothing.
    Down,
    /// The provider's breaker is open.
    BreakerOpen,
    /// The account has no credit.
    Quota,
    /// The provider refuses the credentials, or does not serve this place or account.
    Credentials,
    /// The provider does not know the model.
    UnknownModel,
    /// The provider refuses the request as such; another one may understand it.
    BadRequest,
}

/// The text names no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown class {:?}; the classes are {}", .0, FallbackOn::ALL.map(FallbackOn::as_str).join(", "))]
pub struct UnknownFallback(pub String);

impl FallbackOn {
    /// All classes.
    pub const ALL: [Self; 9] = [
        Self::ContextTooLong,
        Self::ContentFiltered,
        Self::RateLimited,
        Self::Down,
        Self::BreakerOpen,
        Self::Quota,
        Self::Credentials,
        Self::UnknownModel,
        Self::BadRequest,
    ];

    /// All but `bad_request`: what one provider calls malformed usually is, and asking others hides the mistake.
    pub fn default_set() -> BTreeSet<Self> {
        Self::ALL.into_iter().filter(|class| *class != Self::BadRequest).collect()
    }

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContextTooLong => "context_too_long",
            Self::ContentFiltered => "content_filtered",
            Self::RateLimited => "rate_limited",
            Self::Down => "down",
            Self::BreakerOpen => "breaker_open",
            Self::Quota => "quota",
            Self::Credentials => "credentials",
            Self::UnknownModel => "unknown_model",
            Self::BadRequest => "bad_request",
        }
    }

    /// The class of an error.
    pub fn of(error: AttemptError) -> Self {
        match error {
            AttemptError::ContextTooLong => Self::ContextTooLong,
            AttemptError::ContentFiltered => Self::ContentFiltered,
            AttemptError::RateLimited | AttemptError::Paced | AttemptError::OwnRateLimit => Self::RateLimited,
            AttemptError::BreakerOpen => Self::BreakerOpen,
            AttemptError::QuotaExhausted => Self::Quota,
            AttemptError::Credentials | AttemptError::Forbidden => Self::Credentials,
            AttemptError::UnknownModel => Self::UnknownModel,
            AttemptError::BadRequest => Self::BadRequest,
            AttemptError::Server
            | AttemptError::Unreachable
            | AttemptError::CutShort
            | AttemptError::ConnectTimeout
            | AttemptError::FirstTokenTimeout
            | AttemptError::ReadTimeout
            | AttemptError::TotalTimeout
            | AttemptError::TooLarge
            | AttemptError::BadResponse
            | AttemptError::LimitUsedUp
            | AttemptError::Unrecognised => Self::Down,
        }
    }
}

impl fmt::Display for FallbackOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FallbackOn {
    type Err = UnknownFallback;

    fn from_str(name: &str) -> Result<Self, UnknownFallback> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == name)
            .ok_or_else(|| UnknownFallback(name.to_owned()))
    }
}
