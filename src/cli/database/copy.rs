//! `throughline database copy`.

use std::{io::IsTerminal, time::Duration};

use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::Instant;

use super::CopyArgs;
use crate::{
    app::database_url,
    cli::{Exit, Failure, exit::with_causes, output},
    config::{Config, Env, Secret},
    identity::place,
    storage::copy::{Copied, CopyError, Place, copy},
};

/// Between two lines of progress where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(10);

pub(super) async fn run(args: &CopyArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let from = args.from.as_ref().map(|url| named("--from", url, args.from_password.as_ref(), config));
    let to = named("--to", &args.to, args.to_password.as_ref(), config)?;
    let from = from.transpose()?.unwrap_or_else(|| config.clone());
    let (from_name, to_name) = (place(from.database.url.expose()), place(to.database.url.expose()));
    let (from, to) = (database_url(&from, env)?, database_url(&to, env)?);
    let mut progress = Progress::new(args.json);
    let copied = copy(
        Place { url: from.expose(), name: &from_name },
        Place { url: to.expose(), name: &to_name },
        &config.nats.namespace,
        |table, rows| progress.show(table, rows),
    )
    .await;
    progress.end();
    report(&copied.map_err(|error| failure(&error))?, (&from_name, &to_name), args.json)
}

/// The configuration with a database of the command line, so that it is judged as that of the configuration is.
fn named(flag: &str, url: &str, password: Option<&Secret>, config: &Config) -> Result<Config, Failure> {
    let named = config.with_database(url, password.cloned());
    named.map_err(|error| Failure::usage(format!("{flag} {error}")))
}

fn failure(error: &CopyError) -> Failure {
    let exit = if error.is_unavailable() { Exit::Unavailable } else { Exit::Failed };
    Failure { exit, message: with_causes(error) }
}

fn report(copied: &Copied, (from, to): (&str, &str), json: bool) -> Result<(), Failure> {
    if json {
        let rows: serde_json::Map<_, _> =
            copied.tables.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect();
        let said = json!({"from": from, "to": to, "copied_before": copied.before, "rows": rows});
        return output::line(&said.to_string());
    }
    if copied.before {
        output::line(&format!("{from} was copied to {to} before"))?;
    } else {
        let rows: Vec<_> =
            copied.tables.iter().map(|(table, rows)| format!("{rows} {}", row_name(table, *rows))).collect();
        output::line(&format!("copied {} from {from} to {to}", rows.join(", ")))?;
    }
    output::note(
        "set database.url to the new database and start the workers; the old one is refused from now on, and can be deleted",
    );
    Ok(())
}

/// Tables are named after their rows.
fn row_name(table: &str, rows: u64) -> &str {
    if rows == 1 { table.strip_suffix('s').unwrap_or(table) } else { table }
}

/// How far it is: a line that changes on a terminal, a line now and then elsewhere, nothing beside JSON.
enum Progress {
    Line(ProgressBar),
    Lines(Instant),
    Silent,
}

impl Progress {
    fn new(json: bool) -> Self {
        if std::io::stderr().is_terminal() {
            Self::Line(ProgressBar::new_spinner())
        } else if json {
            Self::Silent
        } else {
            Self::Lines(Instant::now() + TELL_EVERY)
        }
    }

    fn show(&mut self, table: &str, rows: u64) {
        match self {
            Self::Line(bar) => {
                bar.set_message(format!("{rows} {} copied", row_name(table, rows)));
                bar.tick();
            }
            Self::Lines(next) if Instant::now() >= *next => {
                output::note(&format!("{rows} {} copied", row_name(table, rows)));
                *next = Instant::now() + TELL_EVERY;
            }
            Self::Lines(_) | Self::Silent => {}
        }
    }

    fn end(self) {
        match self {
            Self::Line(bar) => bar.finish_and_clear(),
            Self::Lines(_) | Self::Silent => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Layers;

    #[test]
    fn a_database_of_the_command_line_is_judged_as_the_configured_one_is() {
        let env = Env::from([("PASSWORD".to_owned(), "canary-7f3a".to_owned())]);
        let config = Layers::default().load_text("t.toml", "").unwrap();
        let secret = Secret::parse("env:PASSWORD").unwrap();
        let opened = |url: &str, password: Option<&Secret>| {
            named("--to", url, password, &config).and_then(|named| Ok(database_url(&named, &env)?))
        };
        let good = opened("postgres://u@db/x?sslmode=verify-full", Some(&secret)).unwrap();
        assert!(good.expose().contains("canary%2D7f3a"));
        for (url, password, words) in [
            ("mysql://db/x", None, "--to mysql://"),
            ("sqlite://", None, "names no file"),
            ("sqlite://a.db", Some(&secret), "takes none"),
            ("postgres://u@db/x", Some(&secret), "unencrypted"),
            ("postgres://u:canary-7f3a@db/x", None, "unencrypted"),
        ] {
            let told = opened(url, password).unwrap_err().message;
            assert!(told.contains(words) && !told.contains("canary"), "{url}: {told}");
        }
    }
}
