//! `throughline database copy`.

use std::{io::IsTerminal, time::Duration};

use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::Instant;

use super::CopyArgs;
use crate::{
    app::database_url,
    cli::{Exit, Failure, exit::with_causes, output},
    config::{Config, Env, Secret, SecretUrl, named_database},
    identity::place,
    storage::copy::{Copied, CopyError, Place, copy},
};

/// Between two lines of progress where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(10);

pub(super) async fn run(args: &CopyArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let (from, from_name) = match &args.from {
        Some(url) => {
            let url = named("--from", url, args.from_password.as_ref(), env)?;
            let name = place(url.expose());
            (url, name)
        }
        // Without a password the same place has the same name.
        None => (database_url(config, env)?, place(config.database.url.expose())),
    };
    let to = named("--to", &args.to, args.to_password.as_ref(), env)?;
    let to_name = place(to.expose());
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

/// A URL of the command line, checked as that of the configuration is.
fn named(flag: &str, url: &str, password: Option<&Secret>, env: &Env) -> Result<SecretUrl, Failure> {
    named_database(url, password, env)
        .map_err(|error| Failure::usage(format!("{flag} {}", with_causes(&error))))
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
