//! How one provider is reached, where that differs from what its protocol says.

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::http_client::credential::Credential;
use crate::http_client::proxy::Proxies;

/// How a provider is reached. The default is what its protocol says, without a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSettings {
    /// The header that carries the key. With `authorization`, `Bearer ` stands before it. Default: the protocol's.
    pub key_header: Option<String>,
    /// Sent with every request, in place of what would be sent under these names.
    pub headers: Vec<(String, Value)>,
    /// Added to every request's query.
    pub query: Vec<(String, Value)>,
    /// The proxies that calls go through.
    pub proxies: Proxies,
    /// Whether the provider says why its answers end. `false`: the marker of the end of a stream is enough.
    pub sends_finish_reason: bool,
}

impl Default for ProviderSettings {
    fn default() -> Self {
        Self {
            key_header: None,
            headers: Vec::new(),
            query: Vec::new(),
            proxies: Proxies::none(),
            sends_finish_reason: true,
        }
    }
}

/// A value that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// As it is.
    Plain(String),
    /// `prefix`, then a secret, which is removed from whatever the provider says.
    Secret {
        /// For instance `Bearer `.
        prefix: String,
        /// The rest.
        secret: Credential,
    },
}

/// A header or a query parameter that cannot be sent. No message repeats a value.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// Not the name of a header.
    #[error("{0:?} is not the name of a header")]
    Name(String),
    /// A value that no header can have.
    #[error("the value of the header {0:?} has characters that no header can have")]
    HeaderValue(String),
}

impl Value {
    /// The secret in it.
    pub(super) fn secret(&self) -> Option<&Credential> {
        match self {
            Self::Plain(_) => None,
            Self::Secret { secret, .. } => Some(secret),
        }
    }

    fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Plain(text) => HeaderValue::from_str(text).ok(),
            Self::Secret { prefix, secret } => secret.header(prefix).ok(),
        }
    }
}

impl ProviderSettings {
    /// The header that carries the key, and what stands before the key in it; `usual` is the protocol's.
    pub(super) fn key_header(
        &self,
        usual: (HeaderName, &'static str),
    ) -> Result<(HeaderName, &'static str), SettingError> {
        let Some(name) = &self.key_header else { return Ok(usual) };
        let header = name_of(name)?;
        let prefix = if header == AUTHORIZATION { "Bearer " } else { "" };
        Ok((header, prefix))
    }

    pub(super) fn headers(&self) -> Result<HeaderMap, SettingError> {
        self.headers
            .iter()
            .map(|(name, value)| {
                let value = value.header().ok_or_else(|| SettingError::HeaderValue(name.clone()))?;
                Ok((name_of(name)?, value))
            })
            .collect()
    }

    /// The secrets that are sent besides the key.
    pub(super) fn secrets(&self) -> Vec<Credential> {
        let values = self.headers.iter().chain(&self.query);
        values.filter_map(|(_, value)| value.secret().cloned()).collect()
    }

    /// The base of every request's URL.
    pub(super) fn base(&self, mut url: Url) -> Url {
        if !self.query.is_empty() {
            let mut pairs = url.query_pairs_mut();
            for (name, value) in &self.query {
                match value {
                    Value::Plain(text) => pairs.append_pair(name, text),
                    Value::Secret { prefix, secret } => {
                        pairs.append_pair(name, &format!("{prefix}{}", secret.expose()))
                    }
                };
            }
        }
        url
    }
}

fn name_of(name: &str) -> Result<HeaderName, SettingError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| SettingError::Name(name.to_owned()))
}
