//! `throughline record`: past workflows as a file.

mod archives;
mod export;
mod import;
mod show;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Failure;
use crate::{
    config::{Config, Env},
    replay::selection::SelectionArgs,
};

const EXPORT_HELP: &str = "\
Writes compressed JSON lines: a header with the configuration and the prompt of here and now, each message of each selected
workflow, and a checksum. It is written beside FILE and renamed when it is whole. Keys, headers and addresses of providers and
sources are not in it. What users said is, unless --redact replaces it:
  user_input, answer, context, all   what stands in these fields, and whatever may quote it
  /data/request/metadata             what a JSON pointer names in an event
  text:REGEX                         whatever matches, in any text
Ids of users, sessions and workflows stay. Nothing can be verified by a redacted recording.

  throughline record export bug.jsonl.gz --since 1h
  throughline record export failed.jsonl.gz --failed --redact user_input --redact 'text:[0-9]{12,19}'";

const IMPORT_HELP: &str = "\
Imports into a namespace of its own, which is made if it is not there: it has a log and no consumers, so that no stage runs
anything of it, and `throughline setup` refuses it. A namespace that workers work on is refused. Times and sequences are shown
as they were recorded. Importing again adds what is missing and nothing else.

  throughline record import bug.jsonl.gz --namespace bug
  throughline events --namespace bug";

const SHOW_HELP: &str = "\
Reads the whole file. Exit 1 if it is not whole or was changed.

  throughline record show bug.jsonl.gz";

const ARCHIVES_HELP: &str = "\
Archives are where retention.archive says, a folder or a bucket of the NATS server. Each is a recording.

  throughline record archives
  throughline record archives --fetch throughline-1-4096.jsonl.gz
  throughline replay verify --file throughline-1-4096.jsonl.gz";

/// `throughline record ...`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum RecordCommand {
    /// Write past workflows to a file
    Export(ExportArgs),
    /// Load a file's workflows into a namespace of their own
    Import(ImportArgs),
    /// Say what is in a file, and whether it is whole
    Show(ShowArgs),
    /// List what retention has archived, or fetch one of it
    Archives(ArchivesArgs),
}

/// `throughline record export`
#[derive(Debug, Clone, Args)]
#[command(after_help = EXPORT_HELP)]
pub(super) struct ExportArgs {
    /// File to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Replace text, by a rule as below; may be repeated
    #[arg(long, value_name = "RULE")]
    redact: Vec<String>,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
}

/// `throughline record import`
#[derive(Debug, Clone, Args)]
#[command(after_help = IMPORT_HELP)]
pub(super) struct ImportArgs {
    /// File to read
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// `throughline record show`
#[derive(Debug, Clone, Args)]
#[command(after_help = SHOW_HELP)]
pub(super) struct ShowArgs {
    /// File to read
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `throughline record archives`
#[derive(Debug, Clone, Args)]
#[command(after_help = ARCHIVES_HELP)]
pub(super) struct ArchivesArgs {
    /// Copy this archive to a file, and say whether it is whole
    #[arg(long, value_name = "NAME")]
    fetch: Option<String>,
    /// The file [default: NAME in this folder]
    #[arg(long, value_name = "FILE", requires = "fetch")]
    out: Option<PathBuf>,
}

pub(super) async fn run(command: &RecordCommand, config: &Config, env: &Env) -> Result<(), Failure> {
    match command {
        RecordCommand::Export(args) => export::run(args, config, env).await,
        RecordCommand::Import(args) => import::run(args, config, env).await,
        RecordCommand::Show(args) => show::run(args),
        RecordCommand::Archives(args) => archives::run(args, config, env).await,
    }
}

/// What is wrong with a file.
fn broken(file: &std::path::Path, error: &dyn std::error::Error) -> Failure {
    Failure::failed(format!("{}: {}", file.display(), super::exit::with_causes(error)))
}
