//! `[[sources]]`: the HTTP services that know something about the user or what they ask for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use regex::Regex;
use reqwest::header;
use throughline_actors::{
    message_values::{ALWAYS, LANGUAGE},
    ports::source::Method,
    stages::external::source_selection::{body_placeholders, is_name, is_of_message, placeholders},
};

use super::Env;
use super::connections::check_token;
use super::field::Field;
use super::proxy::ProxyChoice;
use super::reader::Section;
use super::secret::{Secret, SecretError, SecretValue};
use super::source_url::UrlTemplate;
use super::stages::{Breaker, Retry, Stage};
use super::tree::Value;
use super::url::{may_be_key, may_name_secret, names_secret};
use crate::fetch::is_no_secret;

/// One data source.
#[derive(Clone, Debug)]
pub struct Source {
    /// 1 to 64 of `A-Z a-z 0-9 _ -`; unique.
    pub name: String,
    /// Where to ask.
    pub url: UrlTemplate,
    /// `GET` or `POST`. Default `GET`.
    pub method: Method,
    /// Sent along, for POST. Default: none.
    pub body: Option<JsonTemplate>,
    /// Ask only when the text mentions one of these. Default: none, ask always.
    pub keywords: Vec<String>,
    /// Values taken from the text, by placeholder: the pattern's first group, or its whole match.
    pub extract: BTreeMap<String, Regex>,
    /// Values for placeholders that the text does not fill.
    pub defaults: BTreeMap<String, String>,
    /// How many different extracted values are fetched for one text, 1 to 16. Default 1.
    pub max_matches: usize,
    /// Fail the workflow when it gives no data, instead of answering without. Default false.
    pub required: bool,
    /// Sent with each request.
    pub headers: BTreeMap<String, SourceHeader>,
    /// Send secrets to another machine also without TLS. Default false.
    pub allow_cleartext: bool,
    /// Through which proxy it is reached. Default: as the environment says.
    pub proxy: Option<ProxyChoice>,
    /// `timeout_ms`: limit of one attempt, body included. Default 2 s.
    pub timeout: Duration,
    /// A longer body is refused. Default 65536.
    pub max_bytes: usize,
    /// Default 2 attempts, 100 ms doubling up to 1 s.
    pub retry: Retry,
    /// Default 5 failures, 30 s.
    pub breaker: Breaker,
}

impl Source {
    /// What a source does not say about retries and breaker is as in `[stages.external]`.
    pub(super) fn read(s: &mut Section<'_>, external: Stage) -> Self {
        let source = Self {
            name: s.required("name", |name: &String| check_token(name, 64)).unwrap_or_default(),
            url: s.required("url", |_| Ok(())).unwrap_or_default(),
            method: s.or("method", Method::Get),
            body: s.optional("body"),
            keywords: s.or_where("keywords", Vec::new(), |keywords| check_keywords(keywords)),
            extract: s.map("extract", |name, _| check_extract(name)),
            defaults: s.map("defaults", |name, _: &String| check_placeholder(name)),
            max_matches: s.within("max_matches", 1, 1..=16),
            required: s.or("required", false),
            headers: s.map("headers", check_header),
            allow_cleartext: s.or("allow_cleartext", false),
            proxy: s.optional("proxy"),
            timeout: s.millis("timeout_ms", Duration::from_secs(2), 1..=600_000),
            max_bytes: s.within("max_bytes", 65_536, 1..=(16 << 20)),
            retry: Retry::read(s, external.retry),
            breaker: Breaker::read(s, external.breaker),
        };
        if source.body.is_some() && source.method == Method::Get {
            s.conflict("body", "is sent only with method = \"POST\"");
        }
        source.check_placeholders(s);
        source
    }

    /// What is to be filled in, in URL, headers and body, each name once.
    pub fn placeholders(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.url.placeholders.iter().map(String::as_str).collect();
        let headers = self.headers.values().flat_map(SourceHeader::placeholders);
        let body = self.body.iter().flat_map(|body| body_placeholders(&body.0));
        for name in headers.chain(body) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Headers that are the same for every message.
    pub fn fixed_headers(&self) -> impl Iterator<Item = (&String, &SourceHeader)> {
        self.headers.iter().filter(|(_, value)| value.placeholders().is_empty())
    }

    /// Headers that the message fills, with their placeholders.
    pub fn filled_headers(&self) -> BTreeMap<String, String> {
        let filled = self.headers.iter().filter_map(|(name, value)| match value {
            SourceHeader::Plain(text) if !value.placeholders().is_empty() => {
                Some((name.clone(), text.clone()))
            }
            SourceHeader::Plain(_) | SourceHeader::Secret { .. } => None,
        });
        filled.collect()
    }

    fn check_placeholders(&self, s: &mut Section<'_>) {
        if self.url == UrlTemplate::default() {
            return; // refused already; its placeholders are not known
        }
        for name in self.placeholders() {
            // Not every message has metadata, and not of every one the language is known: then the source is skipped.
            let provided = ALWAYS.contains(&name)
                || is_of_message(name)
                || name == LANGUAGE
                || s.was_written(&format!("extract.{name}"))
                || s.was_written(&format!("defaults.{name}"));
            if !provided {
                let message = format!(
                    "nothing provides {{{name}}}: add extract.{name} (a pattern) or defaults.{name}, or use one \
                     of {{{}}}, {{language}}, {{metadata.NAME}}",
                    ALWAYS.join("}, {")
                );
                let in_url = self.url.placeholders.iter().any(|known| known == name);
                let key = match &self.body {
                    _ if in_url => "url",
                    Some(body) if body_placeholders(&body.0).contains(&name) => "body",
                    Some(_) | None => "headers",
                };
                s.conflict(key, message);
            }
        }
        let extracted = self.extract.keys().map(|name| ("extract", name));
        let defaulted = self.defaults.keys().map(|name| ("defaults", name));
        for (key, name) in extracted.chain(defaulted) {
            if !self.placeholders().contains(&name.as_str()) {
                let message =
                    format!("neither url, nor headers, nor body have a {{{name}}} that would use it");
                s.conflict(&format!("{key}.{name}"), message);
            }
        }
    }
}

fn check_keywords(keywords: &[String]) -> Result<(), String> {
    // An empty keyword would be mentioned by every text.
    if keywords.iter().any(|keyword| keyword.trim().is_empty()) {
        return Err("a keyword must not be empty".to_owned());
    }
    Ok(())
}

fn check_extract(name: &str) -> Result<(), String> {
    if is_of_message(name) {
        // Otherwise a text could choose whose data is fetched.
        return Err(format!("{{{name}}} comes from the message and cannot be taken from the text"));
    }
    check_placeholder(name)
}

pub(super) fn check_placeholder(name: &str) -> Result<(), String> {
    if is_name(name) {
        Ok(())
    } else {
        Err(format!(
            "{name:?} is not a placeholder's name of 1 to 64 characters from A-Z a-z 0-9 _, or metadata.NAME"
        ))
    }
}

/// A JSON document whose texts may have placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonTemplate(pub serde_json::Value);

impl Field for JsonTemplate {
    fn read(value: &Value) -> Result<Self, String> {
        let body: serde_json::Value = serde_json::from_str(&String::read(value)?).map_err(|error| {
            format!("is not JSON: {error}; placeholders stand in texts, as in \"{{user_input}}\"")
        })?;
        if let Some(name) = secret_field(&body) {
            return Err(format!(
                "{name:?} looks like a secret, and bodies are on record; send it as a header"
            ));
        }
        Ok(Self(body))
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.0.to_string())
    }
}

/// The name of a field that holds a text of the configuration's and says that it is secret.
fn secret_field(body: &serde_json::Value) -> Option<&str> {
    match body {
        serde_json::Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            let text = field.as_str().filter(|text| !text.is_empty() && placeholders(text).is_empty());
            if text.is_some() && names_secret(name) { Some(name.as_str()) } else { secret_field(field) }
        }),
        serde_json::Value::Array(items) => items.iter().find_map(secret_field),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => None,
    }
}

impl Field for Method {
    fn read(value: &Value) -> Result<Self, String> {
        match String::read(value)?.as_str() {
            "GET" => Ok(Self::Get),
            "POST" => Ok(Self::Post),
            other => Err(format!("{other:?} is not \"GET\" or \"POST\"")),
        }
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.as_str().to_owned())
    }
}

/// A header's value: plain text, or a secret with what stands before it, as in `Bearer env:CRM_TOKEN`. `Debug` shows no
/// plain text, which may be a secret all the same.
#[derive(Clone, PartialEq, Eq)]
pub enum SourceHeader {
    /// As it is.
    Plain(String),
    /// `prefix` (with its space, or empty), then the secret's value.
    Secret {
        /// For instance `Bearer `.
        prefix: String,
        /// Where the rest is kept.
        secret: Secret,
    },
}

impl SourceHeader {
    /// What a message fills in. Secrets have none.
    pub fn placeholders(&self) -> Vec<&str> {
        match self {
            Self::Plain(text) => placeholders(text),
            Self::Secret { .. } => Vec::new(),
        }
    }

    /// The value to send; reads a secret's file now.
    pub fn resolve(&self, env: &Env) -> Result<SecretValue, SecretError> {
        match self {
            Self::Plain(text) => Ok(SecretValue::plain(text)),
            Self::Secret { prefix, secret } => Ok(secret.resolve(env)?.prefixed(prefix)),
        }
    }
}

impl fmt::Debug for SourceHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(***)"),
            Self::Secret { secret, .. } => write!(f, "{secret:?}"),
        }
    }
}

impl Field for SourceHeader {
    fn read(value: &Value) -> Result<Self, String> {
        let text = String::read(value)?;
        let (prefix, last) = text.rfind(' ').map_or(("", text.as_str()), |at| text.split_at(at + 1));
        if last.starts_with("env:") || last.starts_with("file:") {
            return Ok(Self::Secret { prefix: prefix.to_owned(), secret: Secret::parse(last)? });
        }
        header::HeaderValue::from_str(&text).map_err(|_| "has characters that a header cannot have")?;
        Ok(Self::Plain(text))
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(match self {
            Self::Plain(text) => text.clone(),
            Self::Secret { prefix, secret } => format!("{prefix}{secret}"),
        })
    }

    fn shown_under(&self, name: &str) -> toml::Value {
        match self {
            Self::Plain(text)
                if self.placeholders().is_empty()
                    && !is_no_secret(name)
                    && (may_name_secret(name) || may_be_key(text)) =>
            {
                toml::Value::String("***".to_owned())
            }
            Self::Plain(_) | Self::Secret { .. } => self.shown(),
        }
    }
}

/// Whether this can be a header. A secret is not written out.
pub(super) fn check_header(name: &str, value: &SourceHeader) -> Result<(), String> {
    if header::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(format!("{name:?} is not the name of a header"));
    }
    // What a message fills in is no secret of ours.
    if matches!(value, SourceHeader::Plain(_)) && value.placeholders().is_empty() && names_secret(name) {
        return Err("looks like a secret: put it into a variable or a file and write \"env:NAME\", \
                    \"file:PATH\" or \"Bearer env:NAME\""
            .to_owned());
    }
    Ok(())
}
