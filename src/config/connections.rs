//! `[nats]`, `[database]` and `[http]`: what the program connects to and where it listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Section;
use super::secret::{Secret, SecretError};
use super::url::{SecretUrl, check_database, check_nats};
use super::{Config, Env};

const HOUR: Duration = Duration::from_hours(1);
const MIB: u64 = 1 << 20;

/// `[nats]`: the server and the streams on it.
#[derive(Clone, Debug)]
pub struct Nats {
    /// One or more servers with commas between them. Default `nats://127.0.0.1:4222`.
    pub url: SecretUrl,
    /// First token of every subject and prefix of every stream and bucket: 1 to 32 of `A-Z a-z 0-9 _ -`.
    /// Default `throughline`.
    pub namespace: String,
    /// A `.creds` file (JWT and nkey).
    pub credentials_file: Option<PathBuf>,
    /// A token.
    pub token: Option<Secret>,
    /// A user name, with `password`.
    pub user: Option<String>,
    /// The password of `user`.
    pub password: Option<Secret>,
    /// The seed of an nkey user (`SU...`).
    pub nkey: Option<Secret>,
    /// PEM file of the authorities to trust, for a server with a private certificate.
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file of our own certificate, for a server that asks for one; with `tls_key_file`.
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file of that certificate's key.
    pub tls_key_file: Option<PathBuf>,
    /// Where the server sends answers: the first tokens of a subject that this user may subscribe to. Default `_INBOX`.
    pub inbox_prefix: String,
    /// The servers' monitoring, with commas between them, for `doctor`. Default: port 8222 of each server's host.
    pub monitoring_url: Option<String>,
    /// Send a password or a token to another machine also without TLS. Default false.
    pub allow_cleartext: bool,
    /// Copies of each stream in a cluster, 1 to 5. Default 1.
    pub replicas: usize,
    /// `max_age_hours`: the older form of `retention.events_days`, which is stronger.
    pub max_age: Option<Duration>,
    /// `max_bytes_mib`, in bytes: what the event stream may hold; finished work makes room. Reserved on the server,
    /// with as much again for large bodies and an eighth of it for dead letters. Default 2048 MiB.
    pub max_bytes: u64,
    /// `request_timeout_ms`: limit of one request to the server, publishing included. Default 5 s.
    pub request_timeout: Duration,
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            url: SecretUrl::new("nats://127.0.0.1:4222"),
            namespace: "throughline".to_owned(),
            credentials_file: None,
            token: None,
            user: None,
            password: None,
            nkey: None,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            inbox_prefix: "_INBOX".to_owned(),
            monitoring_url: None,
            allow_cleartext: false,
            replicas: 1,
            max_age: None,
            max_bytes: 2048 * MIB,
            request_timeout: Duration::from_secs(5),
        }
    }
}

impl Nats {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        let nats = Self {
            url: s.or_where("url", d.url, check_nats),
            namespace: s.or_where("namespace", d.namespace, |name| check_token(name, 32)),
            credentials_file: s.optional("credentials_file"),
            token: s.optional("token"),
            user: s.optional("user"),
            password: s.optional("password"),
            nkey: s.optional("nkey"),
            tls_ca_file: s.optional("tls_ca_file"),
            tls_cert_file: s.optional("tls_cert_file"),
            tls_key_file: s.optional("tls_key_file"),
            inbox_prefix: s.or_where("inbox_prefix", d.inbox_prefix, |prefix| check_inbox_prefix(prefix)),
            monitoring_url: s.optional("monitoring_url"),
            allow_cleartext: s.or("allow_cleartext", d.allow_cleartext),
            replicas: s.within("replicas", d.replicas, 1..=5),
            max_age: s
                .optional_where("max_age_hours", |hours| check_hours(*hours))
                .map(|hours: u32| HOUR * hours),
            max_bytes: MIB * s.within("max_bytes_mib", d.max_bytes / MIB, 1..=(1 << 30)),
            request_timeout: s.millis("request_timeout_ms", d.request_timeout, 100..=600_000),
        };
        nats.check_authentication(s);
        nats
    }

    fn check_authentication(&self, s: &mut Section<'_>) {
        let ways = [
            ("credentials_file", self.credentials_file.is_some()),
            ("token", self.token.is_some()),
            ("user", self.user.is_some()),
            ("nkey", self.nkey.is_some()),
        ];
        let used: Vec<&str> = ways.iter().filter(|(_, used)| *used).map(|(key, _)| *key).collect();
        if let [first, .., last] = used.as_slice() {
            s.conflict(last, format!("cannot be combined with {first}: the server takes one of them"));
        }
        if self.user.is_some() && self.password.is_none() {
            s.conflict("user", "needs a password, too");
        } else if self.password.is_some() && self.user.is_none() {
            s.conflict("password", "needs a user, too");
        }
        if self.tls_cert_file.is_some() && self.tls_key_file.is_none() {
            s.conflict("tls_cert_file", "needs tls_key_file, too");
        } else if self.tls_key_file.is_some() && self.tls_cert_file.is_none() {
            s.conflict("tls_key_file", "needs tls_cert_file, too");
        }
    }

    /// Each server of `url`.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.url.expose().split(',')
    }
}

fn check_hours(hours: u32) -> Result<(), String> {
    let allowed = 1..=87_600;
    if allowed.contains(&hours) {
        Ok(())
    } else {
        Err(format!("{hours} is out of range; allowed are {} to {}", allowed.start(), allowed.end()))
    }
}

/// A name that can stand in a subject, a metric label or a file name as it is.
pub(super) fn check_token(name: &str, max: usize) -> Result<(), String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=max).contains(&name.len()) && name.chars().all(word) {
        Ok(())
    } else {
        Err(format!("{name:?} is not a name of 1 to {max} characters from A-Z a-z 0-9 _ -"))
    }
}

/// A subject without wildcards: tokens with dots between them.
fn check_inbox_prefix(prefix: &str) -> Result<(), String> {
    if prefix.len() <= 64 && prefix.split('.').all(|token| check_token(token, 64).is_ok()) {
        Ok(())
    } else {
        Err(format!("{prefix:?} is not the beginning of a subject such as \"_INBOX_worker\""))
    }
}

/// `[database]`.
#[derive(Clone, Debug)]
pub struct Database {
    /// `sqlite://FILE` or `postgres://...`. Default: the file of the namespace in `$XDG_DATA_HOME/throughline`, or in
    /// `~/.local/share/throughline`; empty where there is no home.
    pub url: SecretUrl,
    /// The file of the default, if it is used.
    pub default_file: Option<PathBuf>,
    /// The password of the URL's user, for a URL that has none.
    pub password: Option<Secret>,
    /// Connect to another machine with a password also without TLS. Default false.
    pub allow_cleartext: bool,
    /// Connections of the pool, 1 to 1000. Default 4.
    pub max_connections: u32,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: SecretUrl::default(),
            default_file: None,
            password: None,
            allow_cleartext: false,
            max_connections: 4,
        }
    }
}

impl Database {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        let database = Self {
            url: s.optional_where("url", check_database).unwrap_or_default(),
            default_file: None,
            password: s.optional("password"),
            allow_cleartext: s.or("allow_cleartext", d.allow_cleartext),
            max_connections: s.within("max_connections", d.max_connections, 1..=1000),
        };
        if database.password.is_some() && database.url.with_password("").is_none() {
            s.conflict("password", "needs a postgres:// URL with a user and without a password".to_owned());
        }
        database
    }

    /// The URL with the password in it, for the call that opens it. Reads the secret now.
    pub fn url_with_password(&self, env: &Env) -> Result<SecretUrl, SecretError> {
        let Some(secret) = &self.password else { return Ok(self.url.clone()) };
        let password = secret.resolve(env)?;
        // That it can be put in was checked when the configuration was read.
        Ok(self.url.with_password(password.expose()).unwrap_or_else(|| self.url.clone()))
    }
}

/// What is wrong with the URL of a database that a command line names. The URL, which may hold a password, is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamedUrlError {
    /// No database can be there.
    #[error("{0}")]
    Url(String),
    /// It has no place for the password.
    #[error("is no postgres:// URL with a user and without a password, so it takes none")]
    TakesNoPassword,
}

impl Config {
    /// The same with another database, which a command line names.
    pub fn with_database(&self, url: &str, password: Option<Secret>) -> Result<Self, NamedUrlError> {
        let url = SecretUrl::new(url);
        check_database(&url).map_err(NamedUrlError::Url)?;
        if password.is_some() && url.with_password("").is_none() {
            return Err(NamedUrlError::TakesNoPassword);
        }
        let database = Database { url, password, default_file: None, ..self.database.clone() };
        Ok(Self { database, ..self.clone() })
    }
}

/// `[http]`: `/healthz`, `/readyz` and `/metrics`.
#[derive(Clone, Debug)]
pub struct Http {
    /// Address and port; port 0 takes a free one. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080) }
    }
}

impl Http {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        Self { listen: s.or("listen", Self::default().listen) }
    }
}
