//! Secrets that a connection would carry unencrypted to another machine.

use std::net::IpAddr;

use reqwest::Url;

use super::error::{Origin, Problem};
use super::{Config, Env, Nats, Provider, Secret, Source, SourceHeader};
use crate::http_client::{credential::MIN_REDACTED_BYTES, url_secrets};

/// The values of `sslmode` with which `PostgreSQL` gets nothing before the connection is encrypted.
const ENCRYPTED: [&str; 3] = ["require", "verify-ca", "verify-full"];

/// A secret on its way to another machine, for everybody in between to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} would go to {host} unencrypted; {instead}, or set {section}.allow_cleartext = true where nobody else can read \
     along"
)]
pub struct Cleartext {
    /// The key whose value is the address.
    key: String,
    what: &'static str,
    host: String,
    instead: &'static str,
    section: String,
}

impl Config {
    /// Whether `nats.url` keeps the secret with which this process connects.
    pub fn nats_cleartext(&self) -> Result<(), Cleartext> {
        let Nats { url, allow_cleartext, token, password, .. } = &self.nats;
        // With these, a server without TLS is refused.
        let encrypted = self.nats.tls_ca_file.is_some() || self.nats.tls_cert_file.is_some();
        if *allow_cleartext || encrypted {
            return Ok(());
        }
        for server in url.expose().split(',').map(str::trim) {
            let complete =
                if server.contains("://") { server.to_owned() } else { format!("nats://{server}") };
            let Ok(parsed) = Url::parse(&complete) else { continue };
            let in_url = !parsed.username().is_empty() || parsed.password().is_some();
            let has_secret = in_url || token.is_some() || password.is_some();
            let host = parsed.host_str().unwrap_or_default();
            if has_secret && matches!(parsed.scheme(), "nats" | "ws") && !is_here(host) {
                return Err(Cleartext {
                    key: "nats.url".to_owned(),
                    what: "the password or token of NATS",
                    host: host.to_owned(),
                    instead: "write tls:// or set nats.tls_ca_file",
                    section: "nats".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Whether `database.url` keeps the password. `PGSSLMODE` counts where the URL has no `sslmode`.
    pub fn database_cleartext(&self, env: &Env) -> Result<(), Cleartext> {
        let database = &self.database;
        let Ok(url) = Url::parse(database.url.expose()) else { return Ok(()) };
        if database.allow_cleartext || !matches!(url.scheme(), "postgres" | "postgresql") {
            return Ok(());
        }
        let parameter = |wanted: &str| {
            let found = url.query_pairs().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.into_owned())
        };
        let has_password =
            url.password().is_some() || parameter("password").is_some() || database.password.is_some();
        let mode = ["sslmode", "ssl-mode"].into_iter().find_map(parameter);
        let mode = mode.or_else(|| env.get("PGSSLMODE").cloned()).unwrap_or_default();
        let host = parameter("host").or_else(|| url.host_str().map(str::to_owned)).unwrap_or_default();
        let is_encrypted = ENCRYPTED.iter().any(|known| mode.eq_ignore_ascii_case(known));
        if !has_password || is_encrypted || is_here(&host) {
            return Ok(());
        }
        Err(Cleartext {
            key: "database.url".to_owned(),
            what: "the password of the database, or what is stored there,",
            host,
            instead: "add ?sslmode=verify-full",
            section: "database".to_owned(),
        })
    }

    /// Everything that a worker would refuse to send, with its place. Reads the secrets' files.
    pub fn cleartext(&self, env: &Env) -> Vec<Problem> {
        let sources = self.sources.iter().map(Source::cleartext);
        let providers = self.providers.iter().map(|provider| provider.cleartext(env));
        let all =
            [self.nats_cleartext(), self.database_cleartext(env)].into_iter().chain(sources).chain(providers);
        all.filter_map(Result::err)
            .map(|found| {
                let key = self.full_key(&found.key);
                let place = self.origin_of(&key).cloned().unwrap_or(Origin::Default);
                Problem { place, key, message: found.to_string() }
            })
            .collect()
    }

    /// Source URLs in which a secret is written, or what looks like one.
    pub fn written_secrets(&self) -> Vec<Problem> {
        let is_written =
            |source: &&Source| !url_secrets::secret_parts(source.url.template.expose()).is_empty();
        let written = self.sources.iter().filter(is_written).map(|source| {
            let key = self.full_key(&format!("sources.{}.url", source.name));
            let place = self.origin_of(&key).cloned().unwrap_or(Origin::Default);
            let message = "has what looks like a secret in it; put it into a variable or a file and write {env:NAME} or \
                           {file:PATH} in its place"
                .to_owned();
            Problem { place, key, message }
        });
        written.collect()
    }

    /// As keys are written: elements of lists by their number.
    fn full_key(&self, key: &str) -> String {
        let position = |list: &str, names: Vec<&String>| {
            let (name, rest) = key.strip_prefix(list)?.strip_prefix('.')?.split_once('.')?;
            let index = names.iter().position(|known| *known == name)?;
            Some(format!("{list}[{index}].{rest}"))
        };
        position("sources", self.sources.iter().map(|source| &source.name).collect())
            .or_else(|| position("providers", self.providers.iter().map(|provider| &provider.name).collect()))
            .unwrap_or_else(|| key.to_owned())
    }
}

impl Source {
    /// Whether its URL keeps the secrets that go with each call.
    pub fn cleartext(&self) -> Result<(), Cleartext> {
        let template = self.url.template.expose();
        let in_headers = self.headers.values().any(|header| matches!(header, SourceHeader::Secret { .. }));
        let has_secret =
            in_headers || !self.url.secrets.is_empty() || !url_secrets::secret_parts(template).is_empty();
        let host = remote_http(self.url.example.expose()).filter(|_| has_secret && !self.allow_cleartext);
        host.map_or(Ok(()), |host| {
            Err(Cleartext {
                key: format!("sources.{}.url", self.name),
                what: "a secret of the source",
                host,
                instead: "write https://",
                section: format!("sources.{}", self.name),
            })
        })
    }
}

impl Provider {
    /// Whether its address keeps the API key. What is too short for a key (`none`, as local servers take it) is none.
    pub fn cleartext(&self, env: &Env) -> Result<(), Cleartext> {
        let url = self.base_url.expose();
        let is_key = |secret: &Secret| match secret.resolve(env) {
            Ok(value) => value.expose().len() >= MIN_REDACTED_BYTES,
            // Told elsewhere; a file may have one later.
            Err(_) => matches!(secret, Secret::File(_)),
        };
        let Some(host) = remote_http(url).filter(|_| !self.allow_cleartext) else { return Ok(()) };
        // A part of a path that looks like a key is not shown; to refuse the address, that is not enough.
        let named = Url::parse(url).map_or_else(
            |_| url.to_owned(),
            |mut address| {
                address.set_path("");
                address.into()
            },
        );
        if url_secrets::secret_parts(&named).is_empty() && !self.api_keys.iter().any(is_key) {
            return Ok(());
        }
        Err(Cleartext {
            key: format!("providers.{}.base_url", self.name),
            what: "the API key",
            host,
            instead: "write https://",
            section: format!("providers.{}", self.name),
        })
    }
}

/// The host of an `http:` URL, if it is another machine.
fn remote_http(url: &str) -> Option<String> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "http")?;
    url.host_str().filter(|host| !is_here(host)).map(str::to_owned)
}

/// Whether what goes to this host stays on this machine: a loopback address, or the folder of a socket.
fn is_here(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let is_folder = host.starts_with('/') || name.starts_with("%2f");
    name.is_empty() || is_loopback || is_folder || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::Layers;

    const CANARY: &str = "canary-7f3a";

    fn told(text: &str, env: &[(&str, &str)]) -> Vec<String> {
        let env: Env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config = Layers { env: env.clone(), ..Layers::default() }.load_text("t.toml", text).unwrap();
        let told: Vec<String> = config.cleartext(&env).iter().map(ToString::to_string).collect();
        assert!(!told.join("").contains(CANARY), "{told:?}");
        told
    }

    fn provider(url: &str, more: &str) -> String {
        format!("[[providers]]\nname = 'p'\nkind = 'openai'\nbase_url = '{url}'\napi_key = 'env:KEY'\n{more}")
    }

    fn source(url: &str, more: &str) -> String {
        format!("[[sources]]\nname = 's'\nurl = '{url}'\n{more}")
    }

    #[test]
    fn a_secret_that_everybody_could_read_is_named_with_its_key_and_what_to_do() {
        let key = [("KEY", CANARY)];
        let bad = [
            (provider("http://gateway.internal/v1", ""), "providers[0].base_url"),
            (provider("http://10.0.0.7:8000/v1", ""), "providers[0].base_url"),
            (provider("http://[2001:db8::1]/v1", ""), "providers[0].base_url"),
            (source("http://crm/{user_id}", "headers.authorization = 'Bearer env:KEY'"), "sources[0].url"),
            (source("http://crm/?k=env:KEY", ""), "sources[0].url"),
            (source("http://crm/?api_key=canary-7f3a", ""), "sources[0].url"),
            (source("http://u:canary-7f3a@crm/", ""), "sources[0].url"),
            ("[nats]\nurl = 'nats://u:canary-7f3a@nats:4222'".to_owned(), "nats.url"),
            ("[nats]\nurl = 'tls://a,nats:4222'\ntoken = 'env:KEY'".to_owned(), "nats.url"),
            ("[nats]\nurl = 'ws://nats:80'\nuser = 'u'\npassword = 'env:KEY'".to_owned(), "nats.url"),
            ("[database]\nurl = 'postgres://u:canary-7f3a@db/x'".to_owned(), "database.url"),
            ("[database]\nurl = 'postgres://u:canary-7f3a@db/x?sslmode=prefer'".to_owned(), "database.url"),
            ("[database]\nurl = 'postgres://u@db/x'\npassword = 'env:KEY'".to_owned(), "database.url"),
        ];
        for (text, named) in bad {
            let told = told(&text, &key);
            let [one] = told.as_slice() else { unreachable!("one for {text}: {told:?}") };
            assert!(
                one.starts_with("t.toml:") && one.contains(named) && one.contains("allow_cleartext"),
                "{one}"
            );
        }
    }

    #[test]
    fn a_secret_that_is_written_in_a_url_is_told_and_not_repeated() {
        let told = |url: &str| {
            let config = Layers::default().load_text("t.toml", &source(url, "")).unwrap();
            config.written_secrets().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for url in ["https://h/?appid=canary-7f3a", "https://u:canary-7f3a@h/", "https://h/hooks/canary-7f3a"]
        {
            let told = told(url);
            assert!(
                told.len() == 1 && told[0].contains("sources[0].url") && !told[0].contains(CANARY),
                "{told:?}"
            );
        }
        for url in ["https://h/?appid=env:KEY", "https://h/customers/{user_id}?lang=en"] {
            assert_eq!(told(url), [""; 0], "{url}");
        }
    }

    #[test]
    fn what_is_encrypted_stays_here_has_no_secret_or_is_allowed_passes() {
        let good = [
            provider("https://gateway.internal/v1", ""),
            provider("http://127.0.0.1:8000/v1", ""),
            provider("http://[::1]:8000/v1", ""),
            provider("http://localhost:8000/v1", ""),
            provider("http://gateway.internal/v1", "allow_cleartext = true"),
            source("http://crm/{user_id}", ""),
            source("https://crm/{user_id}", "headers.authorization = 'Bearer env:KEY'"),
            source("http://crm/{user_id}", "headers.authorization = 'env:KEY'\nallow_cleartext = true"),
            "[nats]\nurl = 'nats://nats:4222'\nnkey = 'env:KEY'".to_owned(),
            "[nats]\nurl = 'tls://u:canary-7f3a@nats:4222'".to_owned(),
            "[nats]\nurl = 'nats://u:canary-7f3a@nats:4222'\ntls_ca_file = 'ca.pem'".to_owned(),
            "[nats]\nurl = 'nats://u:canary-7f3a@nats:4222'\nallow_cleartext = true".to_owned(),
            "[database]\nurl = 'postgres://u:canary-7f3a@db/x?sslmode=verify-full'".to_owned(),
            "[database]\nurl = 'postgres://u:canary-7f3a@localhost/x'".to_owned(),
            "[database]\nurl = 'postgres://u:canary-7f3a@db/x?host=/run/postgresql'".to_owned(),
            "[database]\nurl = 'postgres://u@db/x'".to_owned(),
            "[database]\nurl = 'postgres://u:canary-7f3a@db/x'\nallow_cleartext = true".to_owned(),
        ];
        for text in good {
            assert_eq!(told(&text, &[("KEY", CANARY)]), [""; 0], "{text}");
        }
        // A word that a local server takes for a key.
        assert_eq!(told(&provider("http://ollama:11434/v1", ""), &[("KEY", "none")]), [""; 0]);
        assert_eq!(told(&provider("http://gateway/team-2026-a/v1", ""), &[("KEY", "none")]), [""; 0]);
        let mode = [("PGSSLMODE", "require")];
        assert_eq!(told("[database]\nurl = 'postgres://u:canary-7f3a@db/x'", &mode), [""; 0]);
    }
}
