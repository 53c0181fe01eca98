//! What goes wrong, by what to do about it.

use throughline_actors::ports::bus::BusError;

/// What to do where no server answers.
pub(super) const START_ONE: &str =
    "start one (`nats-server --jetstream`, or `throughline dev` for everything at once), or set nats.url";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There was no answer within the time allowed.
    #[error("no NATS server answers at {url} within {within:?}; {}", START_ONE)]
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
    #[error("the NATS server at {url} refuses these credentials; {advice}")]
    Refused {
        /// Where, without credentials.
        url: String,
        /// What to correct.
        advice: &'static str,
        /// The client's error.
        #[source]
        source: async_nats::ConnectError,
    },
    /// A server answered whose certificate is not accepted.
    #[error("the certificate of the NATS server at {url} is not accepted: {words}")]
    Certificate {
        /// Where, without credentials.
        url: String,
        /// What is wrong with it, and what to do.
        words: &'static str,
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
        "the NATS server at {url} is version {found}{}; at least {needed} is needed: upgrade it \
         (deploy/nats-server.sh fetches one)",
        flaw(found)
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

/// What is worse about a version than that it is old: those who do without Throughline's reasons to upgrade should know it.
fn flaw(version: &str) -> &'static str {
    // https://github.com/nats-io/nats-server/issues/6888
    if matches!(version, "2.10.20" | "2.10.21" | "2.10.22") {
        ", which can lose whole streams with all their events when its process is killed"
    } else {
        ""
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_old_says_what_is_needed_and_which_versions_lose_streams() {
        let said = |found: &str| {
            let url = "nats://n".to_owned();
            ConnectError::TooOld { url, found: found.to_owned(), needed: "2.11" }.to_string()
        };
        for found in ["2.9.10", "2.10.19", "2.10.20", "2.10.22", "2.10.23"] {
            let is_flawed = matches!(found, "2.10.20" | "2.10.22");
            assert!(said(found).contains(found) && said(found).contains("at least 2.11"), "{}", said(found));
            assert_eq!(said(found).contains("lose whole streams"), is_flawed, "{}", said(found));
        }
    }
}
