//! What an error is, by everything that stands in it: one table for all providers, tried on every status, because gateways
//! pass the errors of one provider on in the form, and under the status, of another.
//!
//! A name (a code, a type, a reason) that says what happened decides first, then words, then names that only say of which
//! kind it is, then the status. Words are patterns with room for numbers and names in them, not sentences of one vendor.

mod table;

use std::sync::LazyLock;

use regex::bytes::{RegexSet, RegexSetBuilder};

use self::table::{DECISIVE, GENERIC, QUOTA_IF_NOT_RATE, RATE, Row};

/// What an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    ContextTooLong,
    Quota,
    ContentFiltered,
    UnknownModel,
    /// Neither the key nor the request is at fault: the place or the account is not served.
    Forbidden,
    Credentials,
    RateLimited,
    /// It may succeed when it is tried again.
    Transient,
    BadRequest,
}

/// What there is to judge by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence<'a> {
    /// Codes, types and reasons.
    pub names: &'a [String],
    /// All words, on one line.
    pub words: &'a str,
    /// The HTTP status, or the one in the body where that says more.
    pub status: Option<u16>,
    /// A web page stands where the provider's answer should be.
    pub is_page: bool,
    /// It says how long to wait.
    pub says_wait: bool,
}

/// The patterns of one line, compiled.
struct Patterns {
    rows: Vec<RegexSet>,
    weak_quota: RegexSet,
    rate: RegexSet,
    generic: Vec<RegexSet>,
    /// What is temporary is no matter of names.
    temporary: RegexSet,
    /// Limits on an answer, which are no matter of the prompt.
    of_answer: RegexSet,
    /// Words that are of the prompt all the same.
    of_prompt: RegexSet,
    /// A request that is larger than what a whole minute allows.
    never_fits: RegexSet,
}

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
    // Each pattern is a constant, which the tests below compile.
    // Over bytes, because that is made many times faster.
    let set = |patterns: &[&str]| {
        let set = RegexSetBuilder::new(patterns).unicode(false).build();
        set.unwrap_or_else(|_| RegexSet::empty())
    };
    Patterns {
        rows: DECISIVE.iter().map(|row| set(row.words)).collect(),
        weak_quota: set(QUOTA_IF_NOT_RATE.words),
        rate: set(RATE.words),
        generic: GENERIC.iter().map(|row| set(row.words)).collect(),
        temporary: set(&[r"temporar|currently|overload|is loading|at capacity|\bbusy\b|try again later"]),
        of_answer: set(&[
            r"\bmax_(completion_|output_)?tokens\b.{0,60}(too large|is too|must be|cannot be|at most|greater|exceed)",
            r"(completion|output) tokens,? (whereas|but)",
        ]),
        of_prompt: set(&[r"context (length|limit|window|size)|\b(prompt|inputs?|messages)\b"]),
        never_fits: set(&[r"request too large for .{0,80}requested \d+"]),
    }
});

/// Makes the patterns.
pub(super) fn prepare() {
    LazyLock::force(&PATTERNS);
}

/// What the error is, as far as there is evidence besides its status.
pub(super) fn weigh(evidence: Evidence<'_>) -> Option<Class> {
    let words = evidence.words.to_ascii_lowercase();
    let words = words.as_bytes();
    let plain_names: Vec<String> = evidence.names.iter().map(|name| plain(name)).collect();
    let is_of = |part: &&str| plain_names.iter().any(|name| is_named(name, part));
    let named = |row: &Row| row.names.iter().any(&is_of);
    let is_rate = named(&RATE) || PATTERNS.rate.is_match(words);
    let holds = |class: Class| match class {
        // "Exceeds your rate limit of 30,000 input tokens per minute" is about time, not about length.
        Class::ContextTooLong => {
            let is_of_answer = PATTERNS.of_answer.is_match(words) && !PATTERNS.of_prompt.is_match(words);
            let is_size = evidence.status == Some(413) || PATTERNS.never_fits.is_match(words);
            !is_of_answer && (!is_rate || is_size)
        }
        Class::UnknownModel => !PATTERNS.temporary.is_match(words),
        Class::Quota
        | Class::ContentFiltered
        | Class::Forbidden
        | Class::Credentials
        | Class::RateLimited
        | Class::Transient
        | Class::BadRequest => true,
    };
    if let Some(row) = DECISIVE.iter().find(|row| named(row)) {
        return Some(row.class);
    }
    let worded =
        DECISIVE.iter().zip(&PATTERNS.rows).find(|(row, set)| set.is_match(words) && holds(row.class));
    if let Some((row, _)) = worded {
        return Some(row.class);
    }
    if evidence.is_page {
        // Something before the provider answered: a challenge, a firewall, a proxy.
        return Some(Class::Transient).filter(|_| matches!(evidence.status, Some(403 | 429 | 503)));
    }
    let is_quota = named(&QUOTA_IF_NOT_RATE) || PATTERNS.weak_quota.is_match(words);
    if is_quota && !is_rate && !evidence.says_wait {
        return Some(Class::Quota);
    }
    let generic = GENERIC.iter().find(|row| named(row));
    if let Some(row) = generic.filter(|row| fits(row.class, evidence.status)) {
        return Some(row.class);
    }
    let worded = GENERIC
        .iter()
        .zip(&PATTERNS.generic)
        .find(|(row, set)| set.is_match(words) && fits(row.class, evidence.status));
    worded.map(|(row, _)| row.class)
}

/// Whether a kind may be told under a status that says something else.
fn fits(class: Class, status: Option<u16>) -> bool {
    match (class, status) {
        // A status of its own says more than a name for every bad request, or a phrase for every failure.
        (Class::Transient | Class::BadRequest, Some(status)) => matches!(status, 200..=299 | 400 | 422),
        // A request that is too large stays so, whatever the body calls it (RESOURCE_EXHAUSTED, for one).
        (Class::RateLimited, Some(status)) => !matches!(status, 401 | 404 | 410 | 413),
        (Class::Credentials, Some(status)) => !matches!(status, 404 | 410 | 429 | 500..=599),
        (
            Class::ContextTooLong
            | Class::Quota
            | Class::ContentFiltered
            | Class::UnknownModel
            | Class::Forbidden
            | Class::Credentials
            | Class::RateLimited
            | Class::Transient
            | Class::BadRequest,
            _,
        ) => true,
    }
}

/// What a status says where nothing else does.
pub(super) fn by_status(status: u16) -> Class {
    match status {
        401 => Class::Credentials,
        402 => Class::Quota,
        403 | 451 => Class::Forbidden,
        404 | 410 => Class::UnknownModel,
        429 => Class::RateLimited,
        // 424: what it depends on failed; 498 and 499: cancelled or dropped, and not by us.
        408 | 409 | 421 | 424 | 425 | 498 | 499 | 500..=599 => Class::Transient,
        _ => Class::BadRequest,
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn is_named(name: &str, part: &str) -> bool {
    if part.bytes().all(|byte| byte.is_ascii_digit()) { name == part } else { name.contains(part) }
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
