//! URLs that may carry a password, and are printed without it.

use std::{fmt, path::Path};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::Url;

use super::field::Field;
use super::tree::Value;
pub(super) use crate::http_client::url_secrets::{may_be_key, may_name_secret, names_secret};
use crate::http_client::url_secrets::{secret_parts, without};

/// A URL (or, for NATS, several with commas between them) whose `Debug`, `Display` and serialised forms hide
/// passwords. Validated by the key that holds it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The same with a password, if it is a database's and has a user and no password.
    pub(super) fn with_password(&self, password: &str) -> Option<Self> {
        let mut url = Url::parse(&self.0).ok()?;
        let takes_one = matches!(url.scheme(), "postgres" | "postgresql")
            && !url.username().is_empty()
            && url.password().is_none();
        if !takes_one {
            return None;
        }
        // The URL's own encoding lets a `%` stand.
        let password = percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC);
        url.set_password(Some(&password.to_string())).ok()?;
        Some(Self(url.into()))
    }

    /// Path and query of the URL, without secrets, and also without what will be put into secret query parameters. Where
    /// a source is, does not concern the reader of a recording.
    pub fn for_the_record(&self) -> String {
        let shown = without_secret_placeholders(&without(&self.0, secret_parts(&self.0)));
        let behind_scheme = shown.split_once("://").map_or(shown.as_str(), |(_, rest)| rest);
        behind_scheme.find(['/', '?']).map_or_else(|| "/".to_owned(), |at| behind_scheme[at..].to_owned())
    }

    /// The URL with everything in it, for the call that opens it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only NATS URLs are lists; elsewhere a comma may be part of the password.
        if matches!(self.0.split_once("://"), None | Some(("nats" | "tls" | "ws" | "wss", _))) {
            let servers: Vec<String> = self.0.split(',').map(|url| without(url, secret_parts(url))).collect();
            return f.write_str(&servers.join(","));
        }
        f.write_str(&without(&self.0, secret_parts(&self.0)))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl serde::Serialize for SecretUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Field for SecretUrl {
    fn read(value: &Value) -> Result<Self, String> {
        String::read(value).map(Self)
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.to_string())
    }
}

/// What is put into secret query parameters is no business of a record's, and neither are the names of secrets.
fn without_secret_placeholders(url: &str) -> String {
    let mut shown = String::with_capacity(url.len());
    let mut rest = url;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((inside, behind)) = after.split_once('}') else { break };
        let parameter = before.rsplit(['?', '&']).next().and_then(|pair| pair.strip_suffix('='));
        let is_secret = is_secret_placeholder(inside) || parameter.is_some_and(names_secret);
        shown.push_str(before);
        if is_secret {
            shown.push_str("***");
        } else {
            shown.extend(["{", inside, "}"]);
        }
        rest = behind;
    }
    shown + rest
}

/// Whether what stands between braces names a secret: `env:NAME` or `file:PATH`.
pub(super) fn is_secret_placeholder(inside: &str) -> bool {
    inside.starts_with("env:") || inside.starts_with("file:")
}

/// What would end the path in a database URL, or make a part of it look like a password.
const IN_DATABASE_URL: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#').add(b'@').add(b':');

/// The URL of a database file, whatever its path contains.
pub fn sqlite_url(file: &Path) -> String {
    format!("sqlite://{}", utf8_percent_encode(&file.to_string_lossy(), IN_DATABASE_URL))
}

/// One or more NATS servers, with commas between them.
pub(super) fn check_nats(url: &SecretUrl) -> Result<(), String> {
    for server in url.expose().split(',') {
        let complete = if server.contains("://") { server.to_owned() } else { format!("nats://{server}") };
        let parsed = parse(&complete)?;
        check_scheme(&parsed, &["nats", "tls", "ws", "wss"])?;
        if parsed.host_str().is_none_or(str::is_empty) {
            return Err("has no host; write it as \"nats://127.0.0.1:4222\"".to_owned());
        }
    }
    Ok(())
}

/// A `SQLite` file or a `PostgreSQL` server.
pub(super) fn check_database(url: &SecretUrl) -> Result<(), String> {
    let text = url.expose();
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.trim_start_matches("//");
        let named = path.split('?').next().is_some_and(|path| !path.is_empty());
        return if named {
            Ok(())
        } else {
            Err("names no file; write it as \"sqlite://throughline.db\"".to_owned())
        };
    }
    let parsed = parse(text)?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        let scheme = parsed.scheme();
        return Err(format!("{scheme}:// is no database known here; use sqlite:// or postgres://"));
    }
    if parsed.host_str().is_none_or(str::is_empty) && !text.contains("host=") {
        return Err("has no host; write it as \"postgres://user@host/database\"".to_owned());
    }
    Ok(())
}

/// The root of an HTTP API, to whose path more is appended. A query, as Azure wants one (`?api-version=`), is kept.
pub(super) fn check_base(url: &SecretUrl) -> Result<(), String> {
    let parsed = check_http(url.expose())?;
    if parsed.fragment().is_some() {
        return Err("is a base to which paths are appended: it must not have a fragment".to_owned());
    }
    if parsed.query_pairs().any(|(name, _)| names_secret(&name)) {
        return Err("has a key in its query; write it as api_key".to_owned());
    }
    Ok(())
}

/// A forward proxy.
pub(super) fn check_proxy(url: &str) -> Result<(), String> {
    let parsed = parse(url)?;
    check_scheme(&parsed, &["http", "https", "socks5", "socks5h"])?;
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err("has no host; write \"none\" for no proxy".to_owned());
    }
    Ok(())
}

/// Whether two URLs have scheme, host and port in common.
pub(super) fn same_host(a: &str, b: &str) -> bool {
    match (Url::parse(a), Url::parse(b)) {
        (Ok(a), Ok(b)) => a.origin() == b.origin() && a.origin().is_tuple(),
        _ => false,
    }
}

pub(super) fn check_http(url: &str) -> Result<Url, String> {
    let parsed = parse(url)?;
    check_scheme(&parsed, &["http", "https"])?;
    Ok(parsed)
}

/// Says what is wrong without repeating the URL, which may hold a password.
fn parse(url: &str) -> Result<Url, String> {
    Url::parse(url).map_err(|error| format!("is not a URL: {error}"))
}

fn check_scheme(url: &Url, allowed: &[&str]) -> Result<(), String> {
    if allowed.contains(&url.scheme()) {
        return Ok(());
    }
    let allowed: Vec<String> = allowed.iter().map(|scheme| format!("{scheme}://")).collect();
    Err(format!("has the scheme {}://; it must be {}", url.scheme(), allowed.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_tokens_are_hidden_and_the_rest_stays_readable() {
        for (url, shown) in [
            (
                "postgres://app:canary@db:5432/x?sslmode=require",
                "postgres://app:***@db:5432/x?sslmode=require",
            ),
            ("postgres://app@db/x?password=canary", "postgres://app@db/x?password=***"),
            ("postgres://app:can@a,ry@db/x", "postgres://app:***@db/x"),
            ("nats://canary@a:4222,nats://u:canary@b:4222", "nats://***@a:4222,nats://u:***@b:4222"),
            ("u:canary@localhost:4222", "u:***@localhost:4222"),
            ("http://h:80/users/@me?user={user_id}", "http://h:80/users/@me?user={user_id}"),
            ("http://h/?api_key=canary&token={token}", "http://h/?api_key=***&token={token}"),
            ("sqlite://throughline.db", "sqlite://throughline.db"),
        ] {
            let url = SecretUrl::new(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("{shown:?}"));
        }
    }

    #[test]
    fn the_record_has_path_and_query_and_neither_the_address_nor_secrets() {
        for (url, recorded) in [
            ("http://u:canary@h:80/users/@me?user={user_id}&key={key}", "/users/@me?user={user_id}&key=***"),
            ("http://h/{env:A}/x?q={user_input}&k={file:/b/c}", "/***/x?q={user_input}&k=***"),
            ("http://h/x?appid=canary&id=9f86d081884c", "/x?appid=***&id=***"),
            ("https://internal", "/"),
            ("https://internal?q={q}", "?q={q}"),
        ] {
            assert_eq!(SecretUrl::new(url).for_the_record(), recorded);
        }
    }

    #[test]
    fn a_bad_url_is_refused_without_being_repeated() {
        let bad = [
            check_nats(&SecretUrl::new("http://u:canary@h")),
            check_nats(&SecretUrl::new("nats://u:canary@h:99999")),
            check_database(&SecretUrl::new("mysql://u:canary@h/db")),
            check_database(&SecretUrl::new("sqlite://")),
            check_database(&SecretUrl::new("canary")),
            check_base(&SecretUrl::new("https://h/v1?key=canary")),
        ];
        for result in bad {
            let message = result.err().unwrap_or_default();
            assert!(!message.is_empty() && !message.contains("canary"), "{message}");
        }
        for good in ["nats://127.0.0.1:4222", "127.0.0.1:4222", "tls://a,tls://b", "ws://h:80"] {
            assert_eq!(check_nats(&SecretUrl::new(good)), Ok(()), "{good}");
        }
        for good in ["sqlite://a.db", "sqlite:/d/a.db?mode=rwc", "sqlite::memory:", "postgres://u:p@h/db"] {
            assert_eq!(check_database(&SecretUrl::new(good)), Ok(()), "{good}");
        }
    }
}
