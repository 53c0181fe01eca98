//! Every error of a source and of a model, whether it is tried again, and whether it counts against what others share.

use std::time::Duration;

use super::{
    Classify,
    Fault::{self, Permanent, Unknown},
    Health::{self, Answered, Failed, Paced},
    model::{CallFacts, ModelError, ModelFailure, Phase},
    source::FetchError,
};

const TRANSIENT: Fault = Fault::Transient { wait_at_least: None };

/// The next kind of error of a source; without a wildcard, so that a new kind does not compile until it has its place.
fn sources() -> Vec<(FetchError, Fault, Health)> {
    let words = String::new;
    let mut table = vec![(FetchError::TimedOut(Duration::ZERO), TRANSIENT, Failed)];
    while let Some((last, ..)) = table.last() {
        table.push(match last {
            FetchError::TimedOut(_) => (FetchError::Unreachable(words()), TRANSIENT, Failed),
            FetchError::Unreachable(_) => {
                (FetchError::Server { status: 503, retry_after: None }, TRANSIENT, Failed)
            }
            FetchError::Server { .. } => (FetchError::RateLimited { retry_after: None }, TRANSIENT, Paced),
            // From here on it is about the one request.
            FetchError::RateLimited { .. } => (FetchError::NotFound(404), Permanent, Answered),
            FetchError::NotFound(_) => (FetchError::Refused(403), Permanent, Answered),
            FetchError::Refused(_) => (FetchError::TooLarge(1), Permanent, Answered),
            FetchError::TooLarge(_) => (FetchError::NotJson(words()), Permanent, Answered),
            // No call was made.
            FetchError::NotJson(_) => (FetchError::Misconfigured(words()), Permanent, Paced),
            FetchError::Misconfigured(_) => break,
        });
    }
    table
}

/// The same of a model.
fn models() -> Vec<(ModelError, Fault, Health)> {
    let words = String::new;
    let mut table = vec![(ModelError::Server(words()), TRANSIENT, Failed)];
    while let Some((last, ..)) = table.last() {
        table.push(match last {
            ModelError::Server(_) => (ModelError::Unreachable(words()), TRANSIENT, Failed),
            ModelError::Unreachable(_) => (ModelError::CutShort(words()), Unknown, Failed),
            ModelError::CutShort(_) => (ModelError::TimedOut(Phase::Connect), TRANSIENT, Failed),
            ModelError::TimedOut(Phase::Connect) => {
                (ModelError::TimedOut(Phase::FirstToken), Unknown, Failed)
            }
            ModelError::TimedOut(Phase::FirstToken) => (ModelError::TimedOut(Phase::Read), Unknown, Failed),
            ModelError::TimedOut(Phase::Read) => (ModelError::TimedOut(Phase::Total), Unknown, Failed),
            ModelError::TimedOut(Phase::Total) => (ModelError::BadResponse(words()), Unknown, Failed),
            ModelError::BadResponse(_) => (ModelError::Credentials(words()), Permanent, Failed),
            ModelError::Credentials(_) => (ModelError::Forbidden(words()), Permanent, Failed),
            ModelError::Forbidden(_) => (ModelError::QuotaExhausted(words()), Permanent, Failed),
            ModelError::QuotaExhausted(_) => (ModelError::RateLimited(words()), TRANSIENT, Paced),
            // From here on it is about the one request.
            ModelError::RateLimited(_) => (ModelError::BadRequest(words()), Permanent, Answered),
            ModelError::BadRequest(_) => (ModelError::UnknownModel(words()), Permanent, Answered),
            ModelError::UnknownModel(_) => (ModelError::ContextTooLong(words()), Permanent, Answered),
            ModelError::ContextTooLong(_) => (ModelError::ContentFiltered(words()), Permanent, Answered),
            ModelError::ContentFiltered(_) => (ModelError::TooLarge(1), Unknown, Answered),
            ModelError::TooLarge(_) => (ModelError::Unfit(words()), Unknown, Answered),
            ModelError::Unfit(_) => (ModelError::LimitUsedUp(words()), Permanent, Answered),
            ModelError::LimitUsedUp(_) => break,
        });
    }
    table
}

#[test]
fn what_depends_on_one_request_does_not_count_against_what_others_share() {
    let sources = sources();
    assert_eq!(sources.len(), 9);
    for (error, fault, health) in sources {
        assert_eq!((error.fault(), error.health()), (fault, health), "{error:?}");
    }
    let models = models();
    assert_eq!(models.len(), 19);
    for (error, fault, health) in models {
        let failure = ModelFailure { error, usage: None, facts: CallFacts::default() };
        assert_eq!((failure.fault(), failure.health()), (fault, health), "{failure:?}");
    }
}
