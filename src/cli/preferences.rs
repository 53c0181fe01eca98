//! `throughline preferences`: what is known about a user, which prompts see from the next message on.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use throughline_actors::ports::store::{Store, StoreError};
use throughline_schemas::{SessionId, UserId};

use super::{Exit, Failure, bus_error, output};
use crate::{
    app::{connect_bus, database_url, open_store},
    config::{Config, Env},
    identity::{Verdict, decide, place},
    storage::{Database, Peeked, peek},
};

/// How long closing the connection may take.
const CLOSE_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

const EXAMPLES: &str = "\
A value is JSON if it reads as JSON, else text: tone=brief, limit=3, languages='[\"nb\",\"en\"]', zip='\"0150\"'.

  throughline preferences set demo tone=brief language=nb
  throughline preferences set demo --json '{\"tone\": \"brief\"}'
  throughline preferences get demo
  throughline preferences delete demo tone
  throughline preferences delete demo --all";

/// `throughline preferences`
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PreferencesArgs {
    #[command(subcommand)]
    command: PreferencesCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum PreferencesCommand {
    /// Print a user's preferences as one JSON object, or one of them
    Get {
        /// The user
        user: String,
        /// Only this one; exit 1 if there is none
        name: Option<String>,
    },
    /// Set some and leave the others
    Set {
        /// The user
        user: String,
        /// As NAME=VALUE
        #[arg(value_name = "NAME=VALUE", required_unless_present = "json", value_parser = pair)]
        values: Vec<(String, Value)>,
        /// The same as one JSON object
        #[arg(long, value_name = "OBJECT", value_parser = object)]
        json: Option<Map<String, Value>>,
    },
    /// Delete some, or all
    Delete {
        /// The user
        user: String,
        /// Which ones
        #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
        names: Vec<String>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
}

fn pair(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("is not NAME=VALUE")?;
    if name.is_empty() {
        return Err("has no name before \"=\"".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("is not a JSON object: {error}"))
}

pub(super) async fn run(args: &PreferencesArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let (PreferencesCommand::Get { user, .. }
    | PreferencesCommand::Set { user, .. }
    | PreferencesCommand::Delete { user, .. }) = &args.command;
    let user = UserId::new(user).map_err(|error| Failure::usage(format!("USER {error}")))?;
    let store = open(config, env).await?;
    let done = perform(&args.command, &user, &store).await;
    store.close().await;
    done
}

async fn perform(command: &PreferencesCommand, user: &UserId, store: &Database) -> Result<(), Failure> {
    let failed = |error: StoreError| Failure::unavailable(&error);
    match command {
        PreferencesCommand::Get { name, .. } => {
            // The preferences of a user are the same in every session.
            let anywhere = SessionId::new("any").map_err(Failure::failed)?;
            let mut preferences = store.context(user, &anywhere, 0).await.map_err(failed)?.preferences;
            let shown = match name {
                None => Value::Object(preferences),
                Some(name) => preferences.remove(name).ok_or_else(|| {
                    Failure::failed(format!("{} has no preference {name:?}", user.as_str()))
                })?,
            };
            output::line(&shown.to_string())
        }
        PreferencesCommand::Set { values, json, .. } => {
            let mut all = json.clone().unwrap_or_default();
            all.extend(values.iter().cloned());
            store.set_preferences(user, &all).await.map_err(failed)?;
            output::line(&format!("set {}; prompts see it from the next message on", count(all.len())))
        }
        PreferencesCommand::Delete { names, all, .. } => {
            let names = (!all).then_some(names.as_slice());
            let deleted = store.delete_preferences(user, names).await.map_err(failed)?;
            output::line(&format!("deleted {}", count(usize::try_from(deleted).unwrap_or(usize::MAX))))
        }
    }
}

fn count(preferences: usize) -> String {
    if preferences == 1 { "1 preference".to_owned() } else { format!("{preferences} preferences") }
}

/// Opens the namespace's database and no other: what is written elsewhere no worker reads.
async fn open(config: &Config, env: &Env) -> Result<Database, Failure> {
    let url = database_url(config, env)?;
    let bus = connect_bus(config, env, "preferences").await?;
    let namespace = bus.namespace().as_str().to_owned();
    let entry = bus.deployment().await;
    bus.close(CLOSE_LIMIT).await;
    let entry = entry.map_err(|error| bus_error::failure(&error))?;
    let identity = match peek(url.expose(), &namespace).await {
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
    if let Verdict::Refuse(refusal) =
        decide(&namespace, entry.as_ref().map(|(entry, _)| entry), identity.as_ref(), &here)
    {
        return Err(Failure { exit: Exit::BadConfiguration, message: refusal.to_string() });
    }
    Ok(open_store(config, env).await?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_json_if_it_reads_as_json_and_else_text() {
        for (text, value) in [
            ("a=brief", json!("brief")),
            ("a=3", json!(3)),
            ("a=\"3\"", json!("3")),
            ("a=", json!("")),
            ("a=x=y", json!("x=y")),
            ("a=[1]", json!([1])),
        ] {
            assert_eq!(pair(text), Ok(("a".to_owned(), value)), "{text}");
        }
        assert!(pair("a").is_err() && pair("=a").is_err());
    }
}
