//! Which parts of a URL are secret, or may be.

use std::ops::Range;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use percent_encoding::percent_decode_str;

use super::credential::{Credential, MIN_REDACTED_BYTES};

/// Names of one word that are given to keys.
const SECRET_WORDS: [&str; 10] =
    ["auth", "appid", "appkey", "bearer", "credential", "credentials", "jwt", "key", "pass", "sig"];

/// Whether a query parameter or a header of this name holds a secret.
pub(crate) fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let parts = ["password", "passwd", "secret", "token", "api_key", "apikey", "access_key", "authorization"];
    parts.iter().any(|part| name.contains(part))
        || matches!(name.as_str(), "key" | "sig" | "signature" | "pwd" | "cookie")
}

/// Whether a name may be that of a secret: not enough to refuse a value, but enough not to show it.
pub(crate) fn may_name_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    names_secret(name)
        || lower.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| SECRET_WORDS.contains(&word))
}

/// Whether a value looks like a key: long enough, with letters as well as digits, and no version such as `v1beta2-x`.
pub(crate) fn may_be_key(value: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| value.as_bytes().iter().any(kind);
    let is_version =
        value.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    value.len() >= MIN_REDACTED_BYTES
        && has(u8::is_ascii_digit)
        && (has(u8::is_ascii_alphabetic) || !value.is_ascii())
        && !is_version
}

/// Where the secrets of a URL stand: the password or a lone token before the `@`; query values under a name that may be
/// a secret's; and, of http and https, query values and path segments that look like keys. `{placeholders}` are none.
pub(crate) fn secret_parts(url: &str) -> Vec<Range<usize>> {
    let masked = mask(url);
    let (scheme, start) = masked.split_once("://").map_or(("", 0), |(scheme, _)| (scheme, scheme.len() + 3));
    let is_http = matches!(scheme, "http" | "https");
    let end = masked.find('#').unwrap_or(masked.len());
    let query = masked[..end].find('?').unwrap_or(end);
    let authority_end = masked[start..query].find('/').map_or(query, |at| start + at);
    let mut parts = Vec::new();
    if let Some(at) = masked[start..authority_end].rfind('@') {
        let userinfo = &masked[start..start + at];
        match userinfo.find(':') {
            Some(colon) => parts.push(start + colon + 1..start + at),
            // A database's user name is no secret; elsewhere a name alone is a token.
            None if scheme.starts_with("postgres") => {}
            None => parts.push(start..start + at),
        }
    }
    let is_literal = |range: &Range<usize>| !range.is_empty() && !masked[range.clone()].starts_with('{');
    if is_http {
        let segments = pieces(&masked, authority_end..query, '/');
        parts.extend(segments.filter(|range| is_literal(range) && may_be_key(&masked[range.clone()])));
    }
    for pair in pieces(&masked, (query + 1).min(end)..end, '&') {
        let Some(equals) = masked[pair.clone()].find('=') else { continue };
        let (name, value) = (&masked[pair.start..pair.start + equals], pair.start + equals + 1..pair.end);
        let is_secret = may_name_secret(name) || (is_http && may_be_key(&masked[value.clone()]));
        if is_secret && is_literal(&value) {
            parts.push(value);
        }
    }
    parts.retain(is_literal);
    parts
}

/// The secrets that stand in a URL, in the forms in which somebody may repeat them.
pub(crate) fn secrets(url: &str) -> Vec<Credential> {
    let mut found: Vec<String> = Vec::new();
    for part in secret_parts(url) {
        let written = &url[part];
        found.extend([written.to_owned(), decoded(written)]);
    }
    found.extend(basic(url));
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(Credential::new).collect()
}

/// User and password as they are sent, in a header `authorization: Basic`.
fn basic(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (userinfo, _) = rest.split(['/', '?', '#']).next()?.rsplit_once('@')?;
    Some(BASE64_STANDARD.encode(decoded(userinfo)))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The URL with `***` in place of these parts.
pub(crate) fn without(url: &str, mut parts: Vec<Range<usize>>) -> String {
    parts.sort_unstable_by_key(|part| part.start);
    let mut shown = String::with_capacity(url.len());
    let mut done = 0;
    for part in parts {
        shown.push_str(&url[done..part.start]);
        shown.push_str("***");
        done = part.end;
    }
    shown + &url[done..]
}

/// The same text with `{` all over each placeholder, whose inside is no part of the URL's form.
fn mask(url: &str) -> String {
    let mut masked = String::with_capacity(url.len());
    let mut rest = url;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((inside, behind)) = after.split_once('}') else { break };
        masked.push_str(before);
        masked.extend(std::iter::repeat_n('{', inside.len() + 2));
        rest = behind;
    }
    masked + rest
}

/// The parts of `range` between separators.
fn pieces(text: &str, range: Range<usize>, separator: char) -> impl Iterator<Item = Range<usize>> {
    let mut at = range.start;
    text[range].split(separator).map(move |piece| {
        let start = at;
        at = start + piece.len() + separator.len_utf8();
        start..start + piece.len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_wherever_a_url_may_have_them() {
        for (url, shown) in [
            ("http://h/x?appid=canary&units=metric", "http://h/x?appid=***&units=metric"),
            (
                "https://h/x?id=9f86d081884c&lang=en&api-version=2024-10-21",
                "https://h/x?id=***&lang=en&api-version=2024-10-21",
            ),
            ("http://h/hooks/T00CANARY1/{user_id}/list", "http://h/hooks/***/{user_id}/list"),
            ("http://h/v1beta2stable/customers/42", "http://h/v1beta2stable/customers/42"),
            (
                "http://{env:USER}:{file:/run/a?b#c}@h/{user_id}?k={env:K}",
                "http://{env:USER}:{file:/run/a?b#c}@h/{user_id}?k={env:K}",
            ),
            ("http://ann:canary@h/a#canary@x", "http://ann:***@h/a#canary@x"),
            ("http://canary@h/?a=b", "http://***@h/?a=b"),
            (
                "postgres://ann@h/db?application_name=worker12",
                "postgres://ann@h/db?application_name=worker12",
            ),
            ("no url at all", "no url at all"),
            ("", ""),
            ("http://h/{unended?token=canary", "http://h/{unended?token=***"),
        ] {
            assert_eq!(without(url, secret_parts(url)), shown);
        }
    }

    #[test]
    fn a_secret_is_known_as_it_is_written_as_it_is_meant_and_as_it_is_sent() {
        let found = secrets("https://ann:can%2Bary%21@h/x?token=abc%2Fdef12");
        let values: Vec<&str> = found.iter().map(Credential::expose).collect();
        assert_eq!(values, ["YW5uOmNhbithcnkh", "abc%2Fdef12", "abc/def12", "can%2Bary%21", "can+ary!"]);
    }
}
