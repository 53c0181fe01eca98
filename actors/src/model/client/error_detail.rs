//! The parts of an error, as they are recorded.

use throughline_schemas::event::ErrorDetail;

use super::GenerationError;
use crate::{dependency::whole_millis, ports::model::ModelError};

impl GenerationError {
    /// Its parts.
    pub(crate) fn detail(&self) -> ErrorDetail {
        let none = ErrorDetail::default();
        match self {
            Self::NoModel => none,
            Self::DoesNotFit { needed, answer, window } => ErrorDetail {
                needed_tokens: Some(*needed),
                answer_tokens: Some((*answer).into()),
                limit_tokens: Some((*window).into()),
                ..none
            },
            Self::OverRateLimit { tokens, limit } => {
                ErrorDetail { needed_tokens: Some(*tokens), limit_tokens: Some((*limit).into()), ..none }
            }
            Self::OwnRateLimit(wait) => ErrorDetail { wait_ms: Some(whole_millis(*wait)), ..none },
            Self::HeldTooLong { wait, total } => ErrorDetail {
                wait_ms: Some(whole_millis(*wait)),
                limit_ms: Some(whole_millis(*total)),
                ..none
            },
            Self::Refused(refused) => refused.detail(),
            Self::Failed(failure) => of_call(&failure.error),
        }
    }
}

fn of_call(error: &ModelError) -> ErrorDetail {
    let none = ErrorDetail::default();
    let well_formed = matches!(error, ModelError::Unfit(_));
    match error {
        ModelError::Credentials(message)
        | ModelError::Forbidden(message)
        | ModelError::BadRequest(message)
        | ModelError::QuotaExhausted(message)
        | ModelError::UnknownModel(message)
        | ModelError::ContextTooLong(message)
        | ModelError::ContentFiltered(message)
        | ModelError::RateLimited(message)
        | ModelError::Server(message)
        | ModelError::Unreachable(message)
        | ModelError::CutShort(message)
        | ModelError::BadResponse(message)
        | ModelError::Unfit(message)
        | ModelError::LimitUsedUp(message) => {
            let message = (!message.is_empty()).then(|| message.clone());
            ErrorDetail { message, well_formed, ..none }
        }
        // The code says which limit it was.
        ModelError::TimedOut(_) => none,
        ModelError::TooLarge(limit) => ErrorDetail { limit_bytes: u64::try_from(*limit).ok(), ..none },
    }
}
