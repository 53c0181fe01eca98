//! `throughline export`: everything that is kept about a user or a session, in one file.

use std::{
    io::BufWriter,
    path::{Path, PathBuf},
};

use clap::Args;
use tempfile::NamedTempFile;
use throughline_actors::ports::clock::Clock;

use super::{
    Failure,
    forget::{WhomArgs, failure, stores},
    output,
    signal::Signals,
    together::{Statements, Together},
};
use crate::{
    config::{Config, Env},
    personal::{Exported, export},
    system::SystemClock,
};

const EXPORT_HELP: &str = "\
Writes JSON lines: what the file is; each row of turns, interactions and (of a user) preferences, as {\"store\": \"turns\", \"row\":
{...}}; each message of the archives, the event log, the dead letters and the notes, as {\"store\": \"events\", \"message\": {...}} with
the fields that a message has in a recording, large bodies included; and last how much there is of each. Messages that were
archived and are still in the log are there twice. The file is written beside OUT, for this user only to read, and renamed when
it is whole. It selects as `throughline forget` does. (Workflows alone, for `replay --file` and `record show`, are written by
`throughline record export --session ID`.)

  throughline export --user ada ada.jsonl
  jq -r 'select(.store == \"interactions\") | .row.input' ada.jsonl";

/// `throughline export`
#[derive(Debug, Clone, Args)]
#[command(after_help = EXPORT_HELP)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    whom: WhomArgs,
    /// File to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(args: &ExportArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let whom = args.whom.read()?;
    if args.out.exists() && !args.force {
        return Err(Failure::usage(format!("{} exists; --force replaces it", args.out.display())));
    }
    let together = Together::open(config, env, "export", Statements::Long).await?;
    let mut signals = Signals::install()?;
    let written = tokio::select! {
        biased;
        // The temporary file goes with the future that holds it.
        name = signals.next() => Err(Failure::failed(format!("stopped by {name}; nothing was written"))),
        written = Box::pin(write(args, &whom, &together, config)) => written,
    };
    together.close().await;
    let Exported { rows, events, archived, letters, claims } = written?;
    output::line(&format!(
        "{}: {rows} rows, {events} messages of the event log, {archived} of archives, {letters} of dead letters, {claims} notes",
        args.out.display()
    ))
}

async fn write(
    args: &ExportArgs,
    whom: &crate::personal::Whom,
    together: &Together,
    config: &Config,
) -> Result<Exported, Failure> {
    let out = args.out.as_path();
    let failed = |error: &std::io::Error| Failure::failed(format!("{}: {error}", out.display()));
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
    let mut writer = BufWriter::new(file);
    let exported = export(stores(together, config), whom, SystemClock.now(), &mut writer).await;
    let exported = exported.map_err(|error| failure(&error))?;
    let file = writer.into_inner().map_err(|error| failed(error.error()))?;
    file.as_file().sync_all().map_err(|error| failed(&error))?;
    let kept = if args.force { file.persist(out) } else { file.persist_noclobber(out) };
    kept.map_err(|error| failed(&error.error))?;
    Ok(exported)
}
