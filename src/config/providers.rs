//! `[[providers]]`: where models run, and with which keys they are asked.

use std::collections::BTreeMap;

use reqwest::header::HeaderName;

use super::connections::check_token;
use super::field::Field;
use super::proxy::ProxyChoice;
use super::reader::Section;
use super::secret::Secret;
use super::sources::{SourceHeader, check_header};
use super::tree::Value;
use super::url::{SecretUrl, check_base, names_secret};

/// Where `kind = "openai"` is found unless `base_url` or `OPENAI_BASE_URL` says otherwise.
pub const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";
/// Where `kind = "anthropic"` is found unless `base_url` or `ANTHROPIC_BASE_URL` says otherwise. Without a version, as
/// that variable is used elsewhere.
pub const ANTHROPIC_BASE_URL: &str = "https://api.anthropic.com";
/// Where `kind = "gemini"` is found unless `base_url` says otherwise. Without a version.
pub const GEMINI_BASE_URL: &str = "https://generativelanguage.googleapis.com";

/// Keys that one provider may have.
const MAX_KEYS: usize = 64;
/// More in a minute than this is no limit.
const MAX_RATE: u32 = 1_000_000_000;

/// The protocol that a provider speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderKind {
    /// `OpenAI` Chat Completions and everything compatible with it.
    #[default]
    Openai,
    /// Anthropic Messages.
    Anthropic,
    /// Gemini `generateContent`.
    Gemini,
}

impl ProviderKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Openai, Self::Anthropic, Self::Gemini];

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    /// The root of the vendor's own API.
    pub fn vendor_url(self) -> &'static str {
        match self {
            Self::Openai => OPENAI_BASE_URL,
            Self::Anthropic => ANTHROPIC_BASE_URL,
            Self::Gemini => GEMINI_BASE_URL,
        }
    }

    /// The model that is asked when none is configured.
    pub fn default_model(self) -> &'static str {
        match self {
            Self::Openai => "gpt-4o-mini",
            Self::Anthropic => "claude-haiku-4-5",
            Self::Gemini => "gemini-2.5-flash",
        }
    }

    /// The vendor whose model this is by its name, if the name tells.
    pub(super) fn of_model(name: &str) -> Option<Self> {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if begins(&["gpt-", "chatgpt-", "o1", "o3", "o4"]) {
            Some(Self::Openai)
        } else if begins(&["claude-"]) {
            Some(Self::Anthropic)
        } else if begins(&["gemini-"]) {
            Some(Self::Gemini)
        } else {
            None
        }
    }
}

impl Field for ProviderKind {
    fn read(value: &Value) -> Result<Self, String> {
        let name = String::read(value)?;
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
            format!(
                "{name:?} is no kind of provider; use \"openai\" (for compatible ones, too), \"anthropic\" or \
                 \"gemini\""
            )
        })
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.as_str().to_owned())
    }
}

/// Limits on what this process sends in a minute. None: no limit of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Requests.
    pub requests_per_minute: Option<u32>,
    /// Tokens, input and output together.
    pub tokens_per_minute: Option<u32>,
}

impl Rates {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        Self {
            requests_per_minute: s.optional_where("requests_per_minute", |rate| check_rate(*rate)),
            tokens_per_minute: s.optional_where("tokens_per_minute", |rate| check_rate(*rate)),
        }
    }
}

fn check_rate(rate: u32) -> Result<(), String> {
    match rate {
        1..=MAX_RATE => Ok(()),
        _ => Err(format!("{rate} is out of range; allowed are 1 to {MAX_RATE}")),
    }
}

/// One provider of models.
#[derive(Clone, Debug)]
pub struct Provider {
    /// 1 to 64 of `A-Z a-z 0-9 _ -`; unique.
    pub name: String,
    /// Its protocol.
    pub kind: ProviderKind,
    /// Root of its API, without a slash at the end. Default: [`ProviderKind::vendor_url`].
    pub base_url: SecretUrl,
    /// `api_key` or `api_keys`, used in turn. Default: the vendor's variable where that is set and the provider is the
    /// vendor itself or the one that the vendor's `_BASE_URL` variable names. Local servers need none.
    pub api_keys: Vec<Secret>,
    /// Send keys to another machine also without TLS. Default false.
    pub allow_cleartext: bool,
    /// Limits for all of its models together.
    pub rates: Rates,
    /// The header that carries the key: `authorization` (with `Bearer ` before the key), `api-key` or any other. Default:
    /// as the protocol has it.
    pub key_header: Option<String>,
    /// `OpenAI` only: the organisation that pays.
    pub organization: Option<String>,
    /// `OpenAI` only: the project that pays.
    pub project: Option<String>,
    /// Sent with each request.
    pub headers: BTreeMap<String, SourceHeader>,
    /// Added to the query of each request.
    pub query: BTreeMap<String, SourceHeader>,
    /// Through which proxy it is reached. Default: as the environment says.
    pub proxy: Option<ProxyChoice>,
    /// Whether it says why its answers end. Default true; false: the marker of a stream's end is enough.
    pub sends_finish_reason: bool,
}

fn check_header_name(name: &str) -> Result<(), String> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{name:?} is not the name of a header")),
    }
}

fn check_parameter(name: &str, value: &SourceHeader) -> Result<(), String> {
    if name.is_empty() {
        return Err("a parameter needs a name".to_owned());
    }
    if matches!(value, SourceHeader::Plain(_)) && names_secret(name) {
        return Err(
            "looks like a secret: put it into a variable or a file and write \"env:NAME\" or \"file:PATH\""
                .to_owned(),
        );
    }
    Ok(())
}

impl Provider {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let name = s.required("name", |name: &String| check_token(name, 64)).unwrap_or_default();
        let kind: ProviderKind = s.required("kind", |_| Ok(())).unwrap_or_default();
        let base_url = s.or_where("base_url", SecretUrl::new(kind.vendor_url()), check_base);
        let one: Option<Secret> = s.optional("api_key");
        let several = s.optional_where("api_keys", |keys: &Vec<Secret>| match keys.len() {
            0 => Err("has no key; leave it out if none is needed".to_owned()),
            1..=MAX_KEYS => Ok(()),
            some => Err(format!("has {some} keys; allowed are up to {MAX_KEYS}")),
        });
        if one.is_some() && several.is_some() {
            s.conflict("api_keys", "cannot be combined with api_key: write all keys here");
        }
        let rates = Rates::read(s);
        let key_header = s.optional_where("key_header", |name: &String| check_header_name(name));
        let organization: Option<String> = s.optional("organization");
        let project: Option<String> = s.optional("project");
        for (key, value) in [("organization", &organization), ("project", &project)] {
            if value.is_some() && kind != ProviderKind::Openai {
                s.conflict(
                    key,
                    "is known to providers of kind \"openai\" only; others may want it in headers",
                );
            }
        }
        Self {
            name,
            kind,
            base_url: SecretUrl::new(base_url.expose().trim_end_matches('/')),
            api_keys: one.into_iter().chain(several.into_iter().flatten()).collect(),
            allow_cleartext: s.or("allow_cleartext", false),
            rates,
            key_header,
            organization,
            project,
            headers: s.map("headers", check_header),
            query: s.map("query", check_parameter),
            proxy: s.optional("proxy"),
            sends_finish_reason: s.or("sends_finish_reason", true),
        }
    }

    /// What to do about a vendor's missing key; none if there is a key, or the address is not the vendor's.
    pub fn missing_key(&self) -> Option<String> {
        (self.api_keys.is_empty() && self.is_vendor()).then(|| {
            let variables = super::wellknown::key_variables(self.kind).join(" or ");
            format!(
                "{} needs a key: set {variables}, or write api_key = \"env:NAME\" or \"file:PATH\"",
                self.base_url
            )
        })
    }

    /// Whether its address is the vendor's own.
    pub fn is_vendor(&self) -> bool {
        super::url::same_host(self.base_url.expose(), self.kind.vendor_url())
    }
}
