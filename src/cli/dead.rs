//! `throughline dead`: what no stage could handle, and what becomes of it.

mod bulk;
mod json;
mod select;
mod show;
mod table;

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use clap::{Args, Subcommand};
use throughline_actors::ports::clock::Clock;
use throughline_schemas::StageName;

use super::{Exit, Failure, bus_error, output};
use crate::{
    app::connect_bus,
    bus::nats::NatsBus,
    config::{Config, Env},
    dead::{Action, Letter},
    system::SystemClock,
};
use select::Selection;

/// What is said if the filters leave nothing.
const NONE_MATCHES: &str = "no dead letter matches";
/// How long closing the connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  throughline dead list --stage generation --newer-than 1d
  throughline dead show 17
  throughline dead retry 17
  throughline dead retry --code poison --older-than 10m
  throughline dead drop --all --yes";

/// `throughline dead`
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum DeadCommand {
    /// List dead letters, oldest first
    List {
        #[command(flatten)]
        filters: Filters,
        /// Print JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter: where and why it was buried, its headers and its body
    Show {
        /// The letter's id, as `dead list` shows it
        #[arg(value_parser = letter_id, allow_negative_numbers = true)]
        id: u64,
        /// Print JSON
        #[arg(long, conflicts_with = "body")]
        json: bool,
        /// Print the body alone: byte for byte where it is piped, on a terminal with what would act on it escaped
        #[arg(long)]
        body: bool,
        /// With --body, on a terminal, too: every byte as it is, whatever it does to the terminal
        #[arg(long, requires = "body")]
        raw: bool,
    },
    /// Try dead letters again, each as a new workflow at the end of its session
    Retry {
        #[command(flatten)]
        which: Which,
        /// Print JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Remove dead letters for good
    Drop {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Print JSON lines
        #[arg(long)]
        json: bool,
    },
}

/// Which letters.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Filters {
    /// Only those of this stage
    #[arg(long, value_name = "STAGE")]
    pub(super) stage: Option<StageName>,
    /// Only those with this failure code, for example `poison` or `invalid_input`
    #[arg(long, value_name = "CODE")]
    pub(super) code: Option<String>,
    /// Only those buried longer ago than this, for example 10m, 2h, 1d
    #[arg(long, value_name = "SPAN")]
    pub(super) older_than: Option<String>,
    /// Only those buried in this last span
    #[arg(long, value_name = "SPAN")]
    pub(super) newer_than: Option<String>,
    /// At most so many, the oldest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
}

/// Which letters to change.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Which {
    /// Ids of letters, as `dead list` shows them
    #[arg(value_name = "ID", value_parser = letter_id, allow_negative_numbers = true, conflicts_with_all = ["stage", "code", "older_than", "newer_than", "limit", "all"])]
    ids: Vec<u64>,
    #[command(flatten)]
    filters: Filters,
    /// Every letter that the filters leave; needed if there is no filter
    #[arg(long)]
    all: bool,
}

/// Reads the id of a letter.
fn letter_id(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        "a letter's id is a whole number, as in the first column of `throughline dead list`".to_owned()
    })
}

pub(super) async fn run(args: &DeadArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    // What can be wrong in the arguments is found out before anything is opened.
    let task = Task::read(&args.command)?;
    let bus = connect_bus(config, env, "dead").await?;
    let done = Box::pin(perform(&task, &bus)).await;
    bus.close(CLOSE_LIMIT).await;
    done
}

/// How a body is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// On a terminal, with what would act on it escaped.
    FitForTerminals,
    /// Whatever they do.
    AsTheyAre,
}

/// The command, checked.
enum Task {
    List { selection: Selection, json: bool },
    Show { id: u64, json: bool, body: Option<Bytes> },
    Act { action: Action, target: Target, yes: bool, json: bool },
}

enum Target {
    Ids(Vec<u64>),
    Selected(Selection),
}

impl Task {
    fn read(command: &DeadCommand) -> Result<Self, Failure> {
        Ok(match command {
            DeadCommand::List { filters, json } => {
                Self::List { selection: Selection::new(filters, SystemClock.now())?, json: *json }
            }
            DeadCommand::Show { id, json, body, raw } => {
                let bytes = if *raw { Bytes::AsTheyAre } else { Bytes::FitForTerminals };
                Self::Show { id: *id, json: *json, body: body.then_some(bytes) }
            }
            DeadCommand::Retry { which, json } => {
                Self::Act { action: Action::Retried, target: Target::read(which)?, yes: true, json: *json }
            }
            DeadCommand::Drop { which, yes, json } => {
                let target = Target::read(which)?;
                Self::Act { action: Action::Dropped, target, yes: *yes, json: *json }
            }
        })
    }
}

impl Target {
    fn read(which: &Which) -> Result<Self, Failure> {
        if !which.ids.is_empty() {
            let mut ids = which.ids.clone();
            ids.sort_unstable();
            ids.dedup();
            return Ok(Self::Ids(ids));
        }
        let selection = Selection::new(&which.filters, SystemClock.now())?;
        if !which.all && !selection.narrows() {
            return Err(Failure::usage(
                "say which letters: their ids, a filter such as --stage or --code, or --all",
            ));
        }
        Ok(Self::Selected(selection))
    }
}

async fn perform(task: &Task, bus: &NatsBus) -> Result<(), Failure> {
    match task {
        Task::List { selection, json } => {
            if *json {
                return selection.each(bus, |letter| output::line(&json::summary(&letter))).await;
            }
            let mut rows = table::Rows::new(SystemClock.now());
            selection
                .each(bus, |letter| {
                    rows.add(&letter);
                    Ok(())
                })
                .await?;
            if let Some(table) = rows.render() {
                return output::line(&table);
            }
            output::note(NONE_MATCHES);
            Ok(())
        }
        Task::Show { id, json, body } => {
            let letter = find(bus, *id).await?;
            match body {
                Some(Bytes::FitForTerminals) if io::stdout().is_terminal() => {
                    output::note(
                        "what would act on a terminal is escaped; --raw, or a pipe, gets every byte as it is",
                    );
                    return output::payload(&String::from_utf8_lossy(&letter.body));
                }
                Some(Bytes::FitForTerminals | Bytes::AsTheyAre) => return output::bytes(&letter.body),
                None => {}
            }
            output::line(&if *json { json::whole(&letter) } else { show::render(&letter) })
        }
        Task::Act { action, target, yes, json } => {
            let mut letters = Vec::new();
            match target {
                Target::Selected(selection) => {
                    let note = |letter: Letter| {
                        letters.push(letter.id);
                        Ok(())
                    };
                    selection.each(bus, note).await?;
                }
                Target::Ids(ids) => {
                    // One that is not there is most likely a mistake, so nothing is done to the others.
                    for id in ids {
                        letters.push(find(bus, *id).await?.id);
                    }
                }
            }
            if letters.is_empty() {
                output::note(NONE_MATCHES);
                return Ok(());
            }
            if !yes && !confirmed(letters.len())? {
                return Err(Failure { exit: Exit::Failed, message: "nothing was dropped".to_owned() });
            }
            bulk::perform(bus, &letters, *action, *json).await
        }
    }
}

/// The letter with this id; what became of it, if it is not there any more.
async fn find(bus: &NatsBus, id: u64) -> Result<Letter, Failure> {
    let bus_failed = |error| bus_error::failure(&error);
    if let Some(stored) = bus.letter(id).await.map_err(bus_failed)? {
        return Ok(Letter::read(stored));
    }
    let message = match crate::dead::record_of(bus, id).await.map_err(bus_failed)? {
        Some(record) => {
            let (action, at, by) = (record.action, record.at, &record.by);
            let how = record.retry.as_ref().map(|retry| format!(" as workflow {retry}")).unwrap_or_default();
            format!("dead letter {id} was {action}{how} at {at} on {by}")
        }
        None => format!("there is no dead letter {id}; `throughline dead list` shows those there are"),
    };
    Err(Failure { exit: Exit::Failed, message })
}

/// Whether a person at a terminal agrees. Without one, nobody can.
fn confirmed(count: usize) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("dropping is for good; say --yes to do it without being asked"));
    }
    output::ask(&format!("Drop {count} dead letter{} for good? [y/N] ", if count == 1 { "" } else { "s" }))?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::failed(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
