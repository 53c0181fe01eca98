//! The parts of an error from its text, for recordings of versions that recorded no parts. The beginnings of texts
//! stand here as those versions wrote them, whatever the errors say today.

use throughline_schemas::event::{
    ErrorDetail,
    external::FailedCall,
    generation::{Attempt, AttemptError, ErrorClass},
};

/// The parts of the error of an attempt.
pub(super) fn of_attempt(code: AttemptError, attempt: &Attempt) -> ErrorDetail {
    let none = ErrorDetail::default();
    let text = attempt.error.as_deref().unwrap_or_default();
    let beginning = match code {
        AttemptError::BreakerOpen => return breaker_open(text),
        AttemptError::Paced => return wait(text),
        // What does not fit is found out again, without asking anybody.
        AttemptError::OwnRateLimit if attempt.error_class.is_none() => return wait(text),
        AttemptError::OwnRateLimit
        | AttemptError::ConnectTimeout
        | AttemptError::FirstTokenTimeout
        | AttemptError::ReadTimeout
        | AttemptError::TotalTimeout => return none,
        AttemptError::ContextTooLong if !attempt.sent => return none,
        AttemptError::TooLarge => return ErrorDetail { limit_bytes: Some(last_number(text)), ..none },
        // Words that these may lack stand behind a colon.
        AttemptError::Credentials => {
            return may_lack("the provider refused the credentials; check the api_key of the provider", text);
        }
        AttemptError::RateLimited => return may_lack("the provider asked to slow down", text),
        AttemptError::BadResponse => {
            const UNFIT: &str = "the provider's answer is no answer to this request: ";
            if text.contains(UNFIT) {
                return ErrorDetail { well_formed: true, ..words(UNFIT, text) };
            }
            "the provider's answer is not usable: "
        }
        AttemptError::ContextTooLong => "the prompt is too long for the model: ",
        AttemptError::Forbidden => {
            "the provider does not let the request in, for a reason that another key would not change: "
        }
        AttemptError::BadRequest => "the provider refused the request: ",
        AttemptError::QuotaExhausted => "the provider's quota is used up: ",
        AttemptError::UnknownModel => "the provider does not know the model: ",
        AttemptError::ContentFiltered => "the provider's content filter withheld the answer: ",
        AttemptError::Server => "the provider failed: ",
        AttemptError::Unreachable => "the provider cannot be reached: ",
        AttemptError::CutShort => "the connection broke before the answer was complete: ",
        AttemptError::LimitUsedUp => {
            "the token limit was used up before any text came, by reasoning or by nothing that can be read; raise \
             max_tokens, or ask a model that reasons less: "
        }
        AttemptError::Unrecognised => "",
    };
    words(beginning, text)
}

/// The provider's word on trying again is not in the text, but where it overrides what the error suggests, the class is
/// that of the word.
pub(super) fn should_retry(code: AttemptError, class: Option<ErrorClass>) -> Option<bool> {
    let is_refused = code == AttemptError::BadRequest;
    let is_failed = matches!(code, AttemptError::RateLimited | AttemptError::Server);
    match class {
        Some(ErrorClass::Transient) if is_refused => Some(true),
        Some(ErrorClass::Permanent) if is_failed => Some(false),
        Some(ErrorClass::Transient | ErrorClass::Permanent | ErrorClass::Unknown) | None => None,
    }
}

/// The parts of the error of a call to a source.
pub(super) fn of_call(failed: &FailedCall) -> ErrorDetail {
    let text = failed.error.message.as_str();
    match failed.error.code.as_str() {
        "breaker_open" => breaker_open(text),
        "rate_limited" if failed.error.http_status.is_none() => wait(text),
        "rate_limited" | "not_found" | "status" => ErrorDetail::default(),
        "timed_out" => ErrorDetail { limit_ms: any_number(text), ..ErrorDetail::default() },
        "too_large" => ErrorDetail { limit_bytes: any_number(text), ..ErrorDetail::default() },
        "not_json" => words("answered with something that is not JSON: ", text),
        "misconfigured" => words("cannot be asked: ", text),
        // `unreachable`, and codes of other versions: the text says what happened.
        _ => words("cannot be reached: ", text),
    }
}

/// What a text has behind a beginning, wherever that begins; all of it, if that is not in it.
fn words(beginning: &str, text: &str) -> ErrorDetail {
    let beyond = text.find(beginning).and_then(|at| text.get(at + beginning.len()..)).unwrap_or(text);
    ErrorDetail { message: Some(beyond.to_owned()), ..ErrorDetail::default() }
}

fn may_lack(beginning: &str, text: &str) -> ErrorDetail {
    let beyond = words(beginning, text).message;
    let message = beyond.and_then(|beyond| beyond.strip_prefix(": ").map(str::to_owned));
    ErrorDetail { message, ..ErrorDetail::default() }
}

/// The refusal of an open breaker, with what opened it if that is on record.
fn breaker_open(text: &str) -> ErrorDetail {
    const BEFORE: &str = "breaker is open (";
    const BEHIND: &str = ") for another ";
    let cause = text.find(BEFORE).zip(text.rfind(BEHIND));
    let cause = cause.and_then(|(before, behind)| text.get(before + BEFORE.len()..behind));
    ErrorDetail { breaker_cause: cause.map(str::to_owned), ..wait(text) }
}

/// The wait stands last in every text that has one.
fn wait(text: &str) -> ErrorDetail {
    ErrorDetail { wait_ms: Some(last_number(text)), ..ErrorDetail::default() }
}

fn last_number(text: &str) -> u64 {
    any_number(text).unwrap_or_default()
}

/// The last number in a text, if there is one.
fn any_number(text: &str) -> Option<u64> {
    let digits = text.rsplit(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty());
    digits.and_then(|digits| digits.parse().ok())
}

#[cfg(test)]
mod tests;
