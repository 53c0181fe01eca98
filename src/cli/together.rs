//! Log and database of a namespace, opened together: what is done with one and not the other would be half done.

use super::{Exit, Failure, bus_error};
use crate::{
    app::{connect_bus, database_url, open_store, open_store_patiently},
    bus::nats::NatsBus,
    config::{Config, Env},
    identity::{Verdict, decide, place},
    storage::{Database, Peeked, peek},
};

/// How long closing the connection may take.
const CLOSE_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// How long one statement of the database may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statements {
    /// As long as a worker's.
    Short,
    /// Minutes: they go through many rows.
    Long,
}

/// Both, of one namespace.
pub(super) struct Together {
    pub(super) bus: NatsBus,
    pub(super) store: Database,
}

impl Together {
    /// Opens the namespace's database and no other. `role` is part of the connection's name.
    pub(super) async fn open(
        config: &Config,
        env: &Env,
        role: &str,
        statements: Statements,
    ) -> Result<Self, Failure> {
        let bus = connect_bus(config, env, role).await?;
        let opened = async {
            check(config, env, &bus).await?;
            Ok(match statements {
                Statements::Short => open_store(config, env).await?,
                Statements::Long => open_store_patiently(config, env).await?,
            })
        };
        match opened.await {
            Ok(store) => Ok(Self { bus, store }),
            Err(failure) => {
                bus.close(CLOSE_LIMIT).await;
                Err(failure)
            }
        }
    }

    pub(super) async fn close(self) {
        self.store.close().await;
        self.bus.close(CLOSE_LIMIT).await;
    }
}

async fn check(config: &Config, env: &Env, bus: &NatsBus) -> Result<(), Failure> {
    let url = database_url(config, env)?;
    let namespace = bus.namespace().as_str();
    let entry = bus.deployment().await.map_err(|error| bus_error::failure(&error))?;
    let identity = match peek(url.expose(), namespace).await {
        Ok(Peeked::Identity(identity)) => Some(identity),
        Ok(Peeked::Nothing) => None,
        Ok(Peeked::Missing) => {
            return Err(Failure::failed(format!(
                "there is no database at {} yet; the first worker makes it",
                config.database.url
            )));
        }
        Err(error) => return Err(Failure::unavailable(&error)),
    };
    let here = place(config.database.url.expose());
    match decide(namespace, entry.as_ref().map(|(entry, _)| entry), identity.as_ref(), &here) {
        Verdict::Refuse(refusal) => {
            Err(Failure { exit: Exit::BadConfiguration, message: refusal.to_string() })
        }
        Verdict::Fine
        | Verdict::Moved { .. }
        | Verdict::Claim
        | Verdict::NewLog { .. }
        | Verdict::LostDatabase { .. } => Ok(()),
    }
}
