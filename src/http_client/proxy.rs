//! Forward proxies, as most programs take them from the environment.

use std::collections::BTreeMap;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{ClientBuilder, NoProxy, Proxy};

/// Never asked for through a proxy, whatever the environment says: a proxy's own loopback is another machine's.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// Which proxies calls go through. Not printed: their URLs may have passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    /// Hosts, domains and networks that are asked directly, with commas between them.
    except: String,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_set = |proxy: &Option<String>| proxy.as_ref().map(|_| "***");
        f.debug_struct("Proxies")
            .field("http", &is_set(&self.http))
            .field("https", &is_set(&self.https))
            .field("except", &self.except)
            .finish()
    }
}

/// A proxy that cannot be used. The message does not repeat its URL, which may have a password.
#[derive(Debug, thiserror::Error)]
#[error(
    "the proxy's URL is not one: http://, https://, socks5:// or socks5h://, a host and a port are wanted"
)]
pub struct ProxyError(#[source] reqwest::Error);

impl Proxies {
    /// No proxy at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// This one for every host but those of this machine.
    pub fn one(url: impl Into<String>) -> Self {
        let url = url.into();
        Self { http: Some(url.clone()), https: Some(url), except: String::new() }
    }

    /// `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not (the small ones count first). An empty
    /// variable counts as none.
    pub fn from_env(env: &BTreeMap<String, String>) -> Self {
        let of = |name: &str| {
            let names = [name.to_ascii_lowercase(), name.to_owned()];
            let values = names.iter().filter_map(|name| env.get(name)).map(|value| value.trim());
            values.into_iter().find(|value| !value.is_empty()).map(str::to_owned)
        };
        let all = of("ALL_PROXY").map(with_scheme);
        Self {
            http: of("HTTP_PROXY").map(with_scheme).or_else(|| all.clone()),
            https: of("HTTPS_PROXY").map(with_scheme).or(all),
            except: of("NO_PROXY").unwrap_or_default(),
        }
    }

    /// Whether a proxy is reached over TLS.
    pub(crate) fn uses_tls(&self) -> bool {
        [&self.http, &self.https].into_iter().flatten().any(|url| url.starts_with("https:"))
    }

    /// Which proxy a call to this URL goes through, without its password: host and port, or what is known of it. `None`: it
    /// goes there directly.
    pub(crate) fn of(&self, url: &reqwest::Url) -> Option<String> {
        let matcher = Matcher::builder()
            .http(self.http.clone().unwrap_or_default())
            .https(self.https.clone().unwrap_or_default())
            .no(format!("{LOOPBACK},{}", self.except))
            .build();
        let proxy = matcher.intercept(&url.as_str().parse().ok()?)?;
        let authority = proxy.uri().authority()?;
        let port = authority.port_u16().unwrap_or(match proxy.uri().scheme_str() {
            Some("https") => 443,
            Some("socks4" | "socks4a" | "socks5" | "socks5h") => 1080,
            Some(_) | None => 80,
        });
        Some(format!("{}:{port}", authority.host()))
    }

    /// Whether calls go through one.
    pub fn is_any(&self) -> bool {
        self.http.is_some() || self.https.is_some()
    }

    /// Whether they can be used.
    pub fn check(&self) -> Result<(), ProxyError> {
        self.each().map(drop)
    }

    pub(crate) fn apply(&self, builder: ClientBuilder) -> ClientBuilder {
        // What cannot be used was refused before.
        self.each().unwrap_or_default().into_iter().fold(builder.no_proxy(), ClientBuilder::proxy)
    }

    fn each(&self) -> Result<Vec<Proxy>, ProxyError> {
        let except = NoProxy::from_string(&format!("{LOOPBACK},{}", self.except));
        let http = self.http.as_deref().map(Proxy::http);
        let https = self.https.as_deref().map(Proxy::https);
        let proxies = http.into_iter().chain(https);
        proxies.map(|proxy| Ok(proxy.map_err(ProxyError)?.no_proxy(except.clone()))).collect()
    }
}

/// A proxy is often written without its scheme.
fn with_scheme(url: String) -> String {
    if url.contains("://") { url } else { format!("http://{url}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Proxies {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Proxies::from_env(&pairs.iter().map(owned).collect())
    }

    #[test]
    fn the_proxy_of_a_call_is_known() {
        let url = |text: &str| reqwest::Url::parse(text).unwrap();
        let both = from(&[
            ("HTTP_PROXY", "http://user:word@a:3128"),
            ("HTTPS_PROXY", "https://b"),
            ("NO_PROXY", "inner.example,10.0.0.0/8"),
        ]);
        assert_eq!(both.of(&url("http://x.example/")).as_deref(), Some("a:3128"));
        assert_eq!(both.of(&url("https://x.example/")).as_deref(), Some("b:443"));
        for direct in
            ["http://crm.inner.example/", "https://10.1.2.3/", "http://127.0.0.1:9/", "http://[::1]:9/"]
        {
            assert_eq!(both.of(&url(direct)), None, "{direct}");
        }
        assert_eq!(Proxies::one("socks5h://c").of(&url("https://x.example/")).as_deref(), Some("c:1080"));
        assert_eq!(Proxies::none().of(&url("https://x.example/")), None);
    }

    #[test]
    fn the_environment_means_what_it_means_elsewhere() {
        assert_eq!(from(&[]), Proxies::none());
        assert_eq!(from(&[("HTTP_PROXY", ""), ("ALL_PROXY", " ")]), Proxies::none());
        let both = from(&[("HTTP_PROXY", "http://a:1"), ("http_proxy", "b:2"), ("NO_PROXY", "c.example")]);
        assert_eq!(
            (both.http.as_deref(), both.https, both.except.as_str()),
            (Some("http://b:2"), None, "c.example")
        );
        let all = from(&[("ALL_PROXY", "socks5h://a:1"), ("HTTPS_PROXY", "https://b:2")]);
        assert_eq!((all.http.as_deref(), all.https.as_deref()), (Some("socks5h://a:1"), Some("https://b:2")));
        assert!(all.check().is_ok() && all.uses_tls() && all.is_any());
        assert!(from(&[("HTTP_PROXY", "http://")]).check().is_err());
        assert!(!format!("{:?}", from(&[("HTTP_PROXY", "http://user:canary@a:1")])).contains("canary"));
    }
}
