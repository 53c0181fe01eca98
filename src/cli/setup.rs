//! `throughline setup`.

use throughline_actors::ports::store::{RunningQuery, Store};
use throughline_schemas::Timestamp;

use super::{Exit, Failure, SetupArgs, bus_error, output};
use crate::{
    app::{connect_bus, database_url, open_store, stream_limits},
    bus::nats::{NatsBus, topology},
    config::{ArchivePlace, Config, Env},
    identity::{Verdict, adopt, compare, decide, place},
    storage::{Peeked, peek},
};

/// No turn has started later.
const ANY_TIME_UNIX_MS: i64 = 253_402_300_799_000;

/// The accounts of the namespace that has no other name.
const ACCOUNTS: &str = include_str!("../../deploy/nats/accounts.conf");
/// That name.
const DEFAULT_NAMESPACE: &str = "throughline";

pub(super) async fn run(args: &SetupArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    if args.print_accounts {
        return output::line(accounts(&config.nats.namespace).trim_end());
    }
    let bus = connect_bus(config, env, "setup").await?;
    let report =
        topology::setup(&bus, &stream_limits(config)).await.map_err(|error| bus_error::failure(&error))?;
    output::line(report.to_string().trim_end())?;
    if let ArchivePlace::Bucket(name) = &config.retention.archive {
        let made = bus.create_archive_bucket(name, config.nats.replicas).await;
        let made = made.map_err(|error| bus_error::failure(&error))?;
        output::line(&format!(
            "{} the bucket {name} for archives",
            if made { "created" } else { "unchanged" }
        ))?;
    }
    if args.adopt_database { adopt_database(config, env, &bus).await } else { look(config, env, &bus).await }
}

async fn adopt_database(config: &Config, env: &Env, bus: &NatsBus) -> Result<(), Failure> {
    let store = open_store(config, env).await?;
    let here = place(config.database.url.expose());
    let adopted = adopt(bus, &store, &here).await;
    let any_time = Timestamp::from_unix_ms(ANY_TIME_UNIX_MS);
    let running = store.running(RunningQuery { started_by: any_time, after: None, limit: 1 }).await;
    store.close().await;
    let before = adopted?;
    output::line(&format!("{} is the database of the namespace {} now", here, bus.namespace()))?;
    if let Some(before) = before {
        output::note(&format!("before, it was {before}; workers that use that one end by themselves"));
    }
    let has_work = topology::has_work(bus).await.map_err(|error| bus_error::failure(&error))?;
    let knows_none = running.is_ok_and(|running| running.is_empty());
    if has_work && knows_none {
        output::note(
            "warning: the log has events that wait for a stage, and this database knows of no turn that runs: what those \
             workflows still save is kept, and those that fail end only in the log",
        );
    }
    Ok(())
}

/// Tells the log of a database that has been used already, and says at once what a worker would refuse. A database that
/// is not there yet is left to the first worker: who sets up need not reach it.
async fn look(config: &Config, env: &Env, bus: &NatsBus) -> Result<(), Failure> {
    let Ok(url) = database_url(config, env) else { return Ok(()) };
    let namespace = bus.namespace().as_str();
    let identity = match peek(url.expose(), namespace).await {
        Ok(Peeked::Identity(identity)) => Some(identity),
        Ok(Peeked::Nothing) if config.is_set("database.url") => None,
        Ok(Peeked::Nothing | Peeked::Missing) => return Ok(()),
        Err(_) => {
            output::note(
                "the database cannot be asked from here; the first worker looks whether it is the namespace's",
            );
            return Ok(());
        }
    };
    let entry = bus.deployment().await.map_err(|error| bus_error::failure(&error))?;
    let here = place(config.database.url.expose());
    match decide(namespace, entry.as_ref().map(|(entry, _)| entry), identity.as_ref(), &here) {
        Verdict::Refuse(refusal) => {
            Err(Failure { exit: Exit::BadConfiguration, message: refusal.to_string() })
        }
        Verdict::NewLog { .. } => {
            let store = open_store(config, env).await?;
            let compared = compare(bus, &store, &here, true).await;
            store.close().await;
            compared?;
            output::line(&format!("{here} is the database of the namespace {namespace}"))
        }
        Verdict::Fine | Verdict::Moved { .. } | Verdict::Claim | Verdict::LostDatabase { .. } => Ok(()),
    }
}

/// The accounts of another namespace: its name stands before a dot in subjects and before an underscore in names of streams.
fn accounts(namespace: &str) -> String {
    [".", "_"].iter().fold(ACCOUNTS.to_owned(), |accounts, behind| {
        accounts.replace(&format!("{DEFAULT_NAMESPACE}{behind}"), &format!("{namespace}{behind}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_of_another_namespace_name_nothing_of_the_default_one() {
        let accounts = accounts("shop");
        assert!(
            accounts.contains("\"$JS.API.STREAM.INFO.shop_EVENTS\"")
                && accounts.contains("shop.v1.user_input_received")
        );
        let rest = accounts.lines().filter(|line| !line.trim_start().starts_with('#'));
        for line in rest {
            assert!(!line.contains(DEFAULT_NAMESPACE), "{line}");
        }
    }
}
