//! `throughline preferences`: what is known about a user, which prompts see from the next message on.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use throughline_actors::ports::store::{Store, StoreError};
use throughline_schemas::{SessionId, UserId};

use super::{
    Failure, output,
    together::{Statements, Together},
};
use crate::{
    config::{Config, Env},
    storage::Database,
};

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
    let together = Together::open(config, env, "preferences", Statements::Short).await?;
    let done = perform(&args.command, &user, &together.store).await;
    together.close().await;
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
