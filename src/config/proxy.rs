//! `proxy = ...` of a provider or a data source.

use super::{
    Env,
    field::Field,
    tree::Value,
    url::{SecretUrl, check_proxy},
};
use crate::http_client::proxy::Proxies;

/// The proxy through which a provider or a data source is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyChoice {
    /// None, whatever the environment says.
    None,
    /// This one.
    Url(SecretUrl),
}

impl Field for ProxyChoice {
    fn read(value: &Value) -> Result<Self, String> {
        let text = String::read(value)?;
        if text == "none" {
            return Ok(Self::None);
        }
        check_proxy(&text)?;
        Ok(Self::Url(SecretUrl::new(text)))
    }

    fn shown(&self) -> toml::Value {
        match self {
            Self::None => toml::Value::String("none".to_owned()),
            Self::Url(url) => url.shown(),
        }
    }
}

/// Through which proxies calls go: as the environment says, unless the entry says otherwise.
pub(crate) fn proxies(choice: Option<&ProxyChoice>, env: &Env) -> Proxies {
    match choice {
        None => Proxies::from_env(env),
        Some(ProxyChoice::None) => Proxies::none(),
        Some(ProxyChoice::Url(url)) => Proxies::one(url.expose()),
    }
}
