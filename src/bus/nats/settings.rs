//! How to reach the server, and how patient to be.

use std::{fmt, path::PathBuf, time::Duration};

use throughline_schemas::Namespace;

/// How to reach the server, and how patient to be.
#[derive(Debug, Clone)]
pub struct NatsSettings {
    /// One or more server URLs, separated by commas. Printed without what stands before an `@`.
    pub url: Url,
    /// First token of every subject.
    pub namespace: Namespace,
    /// Name of the connection, shown by the server's monitoring.
    pub name: String,
    /// Who we are.
    pub auth: NatsAuth,
    /// Refuse a server without TLS.
    pub require_tls: bool,
    /// PEM file with the authorities to trust; the system's if unset.
    pub root_certificates: Option<PathBuf>,
    /// PEM files with our own certificate and its key, for a server that asks for one.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Where answers are sent: the first tokens of a subject that this user may subscribe to, `_INBOX` for anybody.
    pub inbox_prefix: String,
    /// How long to keep trying to connect at start.
    pub connect_within: Duration,
    /// How long one request, or one attempt of a publish, may take.
    pub request_timeout: Duration,
    /// How long a delivery may go without an answer or progress before it comes again. Takes effect with setup.
    pub ack_wait: Duration,
    /// How often a message is delivered at most. Takes effect with setup.
    pub max_deliver: u32,
}

impl NatsSettings {
    /// Defaults: no credentials, 10 s to connect, 5 s per request, 30 s ack wait, 100 deliveries.
    pub fn new(url: impl Into<String>, namespace: Namespace) -> Self {
        Self {
            url: Url(url.into()),
            namespace,
            name: "throughline".to_owned(),
            auth: NatsAuth::None,
            require_tls: false,
            root_certificates: None,
            client_certificate: None,
            inbox_prefix: "_INBOX".to_owned(),
            connect_within: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
            ack_wait: Duration::from_secs(30),
            max_deliver: 100,
        }
    }
}

/// Server URLs. May contain credentials, which its `Display` and `Debug` leave out.
#[derive(Clone)]
pub struct Url(pub String);

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, url) in self.0.split(',').map(str::trim).enumerate() {
            let separator = if index == 0 { "" } else { "," };
            match (url.split_once("://"), url.rsplit_once('@')) {
                (Some((scheme, _)), Some((_, host))) => write!(f, "{separator}{scheme}://{host}")?,
                (None, Some((_, host))) => write!(f, "{separator}{host}")?,
                (_, None) => write!(f, "{separator}{url}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Who we are, to the server.
#[derive(Clone)]
pub enum NatsAuth {
    /// No user, or what the URL says.
    None,
    /// A user with a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
    /// The seed of an nkey.
    NKey(String),
    /// A `.creds` file.
    CredentialsFile(PathBuf),
}

impl NatsAuth {
    /// What to correct if a server refuses it.
    pub(super) fn if_refused(&self) -> &'static str {
        match self {
            Self::None => {
                "correct the user and the password in nats.url, or set nats.user and nats.password, nats.token, nats.nkey or \
                 nats.credentials_file"
            }
            Self::Password { .. } => "correct nats.user and nats.password",
            Self::Token(_) => "correct nats.token",
            Self::NKey(_) => "correct nats.nkey",
            Self::CredentialsFile(_) => "put valid ones into the file of nats.credentials_file",
        }
    }
}

impl fmt::Debug for NatsAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
            Self::Token(_) => f.write_str("Token(..)"),
            Self::NKey(_) => f.write_str("NKey(..)"),
            Self::CredentialsFile(path) => f.debug_tuple("CredentialsFile").field(path).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn settings_print_no_secret() {
        let mut settings = NatsSettings::new(
            "nats://ann:hunter2@a:4222, tls://tok-hunter2@b, ben:hunter2@c:1, nats://d:4222",
            Namespace::new("n").unwrap(),
        );
        assert_eq!(settings.url.to_string(), "nats://a:4222,tls://b,c:1,nats://d:4222");
        for auth in [
            NatsAuth::Password { user: "ann".to_owned(), password: "hunter2".to_owned() },
            NatsAuth::Token("hunter2".to_owned()),
            NatsAuth::NKey("hunter2".to_owned()),
        ] {
            settings.auth = auth;
            assert!(!format!("{settings:?}").contains("hunter2"));
        }
    }
}
