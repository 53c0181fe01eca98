//! What goes wrong, told apart by what to do about it.

use throughline_actors::ports::bus::BusError;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answered, for the whole time allowed.
    #[error(
        "no NATS server answers at {url} within {within:?}; start one (deploy/nats-server.sh) or set nats.url"
    )]
    Unreachable {
        /// Where, without credentials.
        url: String,
        /// For how long it was tried.
        within: std::time::Duration,
        /// The last attempt's error.
        #[source]
        source: Option<async_nats::ConnectError>,
    },
    /// The server answered and does not let us in.
    #[error("the NATS server at {url} refuses these credentials; check nats.credentials_file or the URL")]
    Refused {
        /// Where, without credentials.
        url: String,
        /// The client's error.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The settings cannot be used.
    #[error("the NATS settings cannot be used: {what}")]
    Settings {
        /// Which, and why.
        what: String,
        /// The client's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Older servers ignore, without a word, what exactly-once publishing and ordered admission rely on.
    #[error(
        "the NATS server at {url} is version {found}; at least {needed} is needed (deploy/nats-server.sh fetches one)"
    )]
    TooOld {
        /// Where, without credentials.
        url: String,
        /// Its version.
        found: String,
        /// The oldest that will do.
        needed: &'static str,
    },
    /// The server stores nothing.
    #[error("the NATS server at {url} runs without JetStream; start it with --jetstream and a --store_dir")]
    NoJetStream {
        /// Where, without credentials.
        url: String,
    },
}

/// No answer: it may have happened.
pub(super) fn unavailable(context: impl Into<String>) -> BusError {
    BusError::Unavailable { context: context.into(), source: None }
}

/// No answer, and what the client says about it.
pub(super) fn unavailable_because(
    context: impl Into<String>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> BusError {
    BusError::Unavailable { context: context.into(), source: Some(source.into()) }
}
