//! Whether the database is the one of the namespace. Nothing is changed.

use std::time::Duration;

use super::finding::Finding;
use crate::{
    app::database_url,
    bus::nats::{NatsBus, Role},
    cli::exit::with_causes,
    config::{Config, Env},
    identity::{Verdict, decide, place},
    storage::{Peeked, peek, peek_end},
};

const NAME: &str = "namespace";
/// How long asking both may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Nothing for a role that does not use the database, or where one of the two cannot be asked, which other checks say.
pub(super) async fn check(config: &Config, env: &Env, bus: &NatsBus, role: Role) -> Option<Finding> {
    if role == Role::Publisher {
        return None;
    }
    let url = database_url(config, env).ok()?;
    let namespace = bus.namespace().as_str();
    let (entry, peeked) =
        tokio::time::timeout(LIMIT, async { (bus.deployment().await, peek(url.expose(), namespace).await) })
            .await
            .ok()?;
    let entry = match entry {
        Ok(entry) => entry.map(|(entry, _)| entry),
        Err(error) => return Some(Finding::fail(NAME, with_causes(&error), "")),
    };
    let identity = match peeked.ok()? {
        Peeked::Identity(identity) => Some(identity),
        Peeked::Missing | Peeked::Nothing => None,
    };
    let here = place(config.database.url.expose());
    let finding = match decide(namespace, entry.as_ref(), identity.as_ref(), &here) {
        Verdict::Fine | Verdict::Moved { .. } if is_older(bus, url.expose()).await => Finding::warn(
            NAME,
            format!("the database {here} is older than the log of {namespace}: it lacks ends that were told"),
            "start a worker, or let it run: it puts them back, and asks no model again",
        ),
        Verdict::Fine | Verdict::Moved { .. } => {
            Finding::ok(NAME, format!("{namespace} and the database {here} belong together"))
        }
        Verdict::Claim => {
            Finding::ok(NAME, format!("{namespace} has no database yet; the first worker makes it {here}"))
        }
        Verdict::NewLog { .. } => Finding::warn(
            NAME,
            format!(
                "the log of {namespace} does not know the database {here}, which has been used before: it is new or was wiped"
            ),
            "if that is intended, start a worker; else check nats.url and nats.namespace",
        ),
        Verdict::LostDatabase { .. } => Finding::warn(
            NAME,
            format!("the database {here} was lost or replaced: this one has never been used by {namespace}"),
            "restore a backup before a worker starts; without one the answers that the log has are put back",
        ),
        Verdict::Refuse(refusal) => Finding::fail(NAME, refusal.to_string(), ""),
    };
    Some(finding)
}

/// Whether the database lacks the answer that was told last. What cannot be found out is no reason to warn.
async fn is_older(bus: &NatsBus, url: &str) -> bool {
    let Ok(Ok(Some(last))) = tokio::time::timeout(LIMIT, bus.last_saved()).await else { return false };
    peek_end(url, bus.namespace().as_str(), last.as_str()).await.is_ok_and(|is_known| !is_known)
}
