//! Secrets are named in the configuration, never written in it; their values are read when they are used.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use super::Env;
use super::field::Field;
use super::tree::Value;

/// A file that holds a secret may have this many bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Where a secret is kept: `env:NAME` or `file:PATH`. Safe to print: it holds the name, not the value.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// An environment variable.
    Env(String),
    /// A file whose content, without the line break at its end, is the secret (a mounted one, say).
    /// A relative path starts at the working directory.
    File(PathBuf),
}

impl Secret {
    /// Reads `env:NAME` or `file:PATH`. A literal is refused; the message does not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("env:") {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(word) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(
                    "\"env:\" must be followed by the name of a variable, as in \"env:API_KEY\"".to_owned()
                );
            }
            return Ok(Self::Env(name.to_owned()));
        }
        match text.strip_prefix("file:") {
            Some("") => {
                Err("\"file:\" must be followed by a path, as in \"file:/run/secrets/api_key\"".to_owned())
            }
            Some(path) => Ok(Self::File(PathBuf::from(path))),
            None => {
                Err("a secret is not written in the configuration: put it into a variable or a file and \
                         write \"env:NAME\" or \"file:PATH\""
                    .to_owned())
            }
        }
    }

    /// The secret's value, from `env` or from the file. Reads the file now, blocking: meant for start-up.
    pub fn resolve(&self, env: &Env) -> Result<SecretValue, SecretError> {
        let value = match self {
            Self::Env(name) => {
                // An empty variable is an unset one.
                let value = env.get(name).filter(|value| !value.trim().is_empty()).cloned();
                value.ok_or_else(|| SecretError::NotSet { name: name.clone() })?
            }
            Self::File(path) => {
                let unreadable = |source| SecretError::Unreadable { path: path.clone(), source };
                let mut text = String::new();
                let file = File::open(path).map_err(unreadable)?;
                file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
                if text.len() as u64 > MAX_SECRET_BYTES {
                    return Err(SecretError::TooLarge { path: path.clone() });
                }
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        if value.is_empty() {
            return Err(SecretError::Empty { secret: self.clone() });
        }
        Ok(SecretValue(value))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({self})")
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Field for Secret {
    fn read(value: &Value) -> Result<Self, String> {
        Self::parse(&String::read(value)?)
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.to_string())
    }
}

/// A secret's value. `Debug` prints `***`; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(String);

impl SecretValue {
    /// The value itself, for the one call that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn prefixed(&self, prefix: &str) -> Self {
        Self(format!("{prefix}{}", self.0))
    }

    pub(super) fn plain(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(***)")
    }
}

/// Why a secret has no value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable does not exist, or is empty.
    #[error("the secret env:{name} is not set: set the environment variable {name}")]
    NotSet {
        /// The variable.
        name: String,
    },
    /// It exists but holds nothing.
    #[error("the secret {secret} is empty")]
    Empty {
        /// Which secret.
        secret: Secret,
    },
    /// The file cannot be read.
    #[error("the secret file:{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is too large to be a secret.
    #[error("the secret file:{} has more than {MAX_SECRET_BYTES} bytes: is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const CANARY: &str = "canary-7f3a";

    #[test]
    fn a_variable_is_read_when_it_is_used_and_its_value_is_never_printed() {
        let secret = Secret::parse("env:API_KEY").unwrap();
        let env = Env::from([("API_KEY".to_owned(), CANARY.to_owned())]);
        let value = secret.resolve(&env).unwrap();
        assert_eq!(value.expose(), CANARY);
        assert_eq!(
            format!("{secret} {secret:?} {value:?}"),
            "env:API_KEY Secret(env:API_KEY) SecretValue(***)"
        );
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"env:API_KEY\"");
    }

    #[test]
    fn a_file_loses_its_last_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, format!("{CANARY}\n")).unwrap();
        let secret = Secret::parse(&format!("file:{}", path.display())).unwrap();
        assert_eq!(secret.resolve(&Env::new()).unwrap().expose(), CANARY);
    }

    #[test]
    fn what_is_missing_or_empty_is_said_without_values() {
        let env = Env::from([("EMPTY".to_owned(), String::new())]);
        let error = |text: &str| Secret::parse(text).unwrap().resolve(&env).unwrap_err().to_string();
        assert_eq!(error("env:NOPE"), "the secret env:NOPE is not set: set the environment variable NOPE");
        assert_eq!(error("env:EMPTY"), "the secret env:EMPTY is not set: set the environment variable EMPTY");
        assert_eq!(error("file:no/such/file"), "the secret file:no/such/file cannot be read");
    }

    #[test]
    fn a_literal_is_refused_and_not_repeated() {
        for literal in [CANARY.to_owned(), format!("env:{CANARY}"), "file:".to_owned(), String::new()] {
            let message = Secret::parse(&literal).unwrap_err();
            assert!(!message.contains(CANARY), "{message}");
        }
    }
}
