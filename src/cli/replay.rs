//! `throughline replay`: recorded workflows again.

mod comparison;
mod progress;
mod redo;
mod rerun;
mod simulate;
mod verify;

use std::{path::Path, time::Duration};

use clap::{Args, Subcommand};

use super::{Failure, bus_error, exit::with_causes};
use crate::{
    app::connect_bus,
    config::{Config, Env, Layers, Override},
    replay::{
        Setup,
        selection::{Selection, SelectionArgs},
        setup::SetupError,
        source::{Source, SourceError},
    },
};

/// How long closing the connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// `throughline replay ...`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum ReplayCommand {
    /// Replay every recorded result from its recorded cause, and report what comes out differently
    Verify(verify::VerifyArgs),
    /// Really run past workflows again with something changed, and compare
    Run(rerun::RunArgs),
    /// Decide routes, attempts, waits, limits and prices again under another configuration, without calling anything
    Simulate(simulate::SimulateArgs),
    /// Take up a workflow that failed, from the stage that failed or from an earlier one
    Redo(redo::RedoArgs),
}

const SET_HELP: &str = "Another value for a key of the configuration, for example generation.temperature=0 or \
                        providers.openai.requests_per_minute=60; may be repeated";

/// Settings to try.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ChangeArgs {
    /// Another value for a key of the configuration; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", help = SET_HELP)]
    settings: Vec<String>,
}

impl ChangeArgs {
    /// The configuration with the changes.
    fn apply(&self, layers: &Layers) -> Result<Config, Failure> {
        let mut layers = layers.clone();
        layers.overrides.extend(self.overrides()?);
        Ok(layers.load()?)
    }

    fn overrides(&self) -> Result<Vec<Override>, Failure> {
        let one = |setting: &String| match setting.split_once('=') {
            Some((key, value)) => Ok(Override::new("--set", key.trim(), value.trim())),
            None => Err(Failure::usage(format!("--set {setting:?} is not KEY=VALUE"))),
        };
        self.settings.iter().map(one).collect()
    }
}

pub(super) async fn run(
    command: &ReplayCommand,
    layers: &Layers,
    config: &Config,
    env: &Env,
) -> Result<(), Failure> {
    match command {
        ReplayCommand::Verify(args) => verify::run(args, layers, config, env).await,
        ReplayCommand::Run(args) => rerun::run(args, layers, config, env).await,
        ReplayCommand::Simulate(args) => simulate::run(args, layers, config, env).await,
        ReplayCommand::Redo(args) => redo::run(args, config, env).await,
    }
}

/// Begins to read what is selected.
pub(super) async fn open(
    args: &SelectionArgs,
    config: &Config,
    env: &Env,
) -> Result<(Source, Selection), Failure> {
    let selection = Selection::new(args).map_err(Failure::usage)?;
    if let Some(path) = &args.file {
        let source = Source::file(path, selection.clone()).map_err(|error| unreadable(&error, args))?;
        return Ok((source, selection));
    }
    let bus = connect_bus(config, env, "replay").await?;
    let source = Source::log(bus, selection.clone()).await.map_err(|error| unreadable(&error, args))?;
    Ok((source, selection))
}

/// As [`open`], for what cannot be done once texts were replaced.
async fn open_whole(
    args: &SelectionArgs,
    config: &Config,
    env: &Env,
) -> Result<(Source, Selection), Failure> {
    let (source, selection) = open(args, config, env).await?;
    match source.header() {
        Some(header) if !header.redacted.is_empty() => Err(Failure::failed(format!(
            "the recording is redacted ({}): what it holds is not what was said, so that nothing can be made of it once \
             more; export it again without --redact",
            header.redacted.join(", ")
        ))),
        Some(_) | None => Ok((source, selection)),
    }
}

/// The way of working of here and now, or of a recording, and the same with the changes.
fn setups(
    source: &Source,
    change: &ChangeArgs,
    layers: &Layers,
    config: &Config,
) -> Result<(Setup, Setup), Failure> {
    match source.header() {
        Some(header) => {
            Ok((Setup::recorded(header, Vec::new())?, Setup::recorded(header, change.overrides()?)?))
        }
        None => Ok((Setup::new(config)?, Setup::new(&change.apply(layers)?)?)),
    }
}

/// What reading ended with.
pub(super) fn unreadable(error: &SourceError, args: &SelectionArgs) -> Failure {
    match error {
        SourceError::Log(error) => bus_error::failure(error),
        SourceError::Recording(error) => {
            let file = args.file.as_deref().unwrap_or(Path::new("")).display();
            Failure::failed(format!("{file}: {}", with_causes(error)))
        }
    }
}

pub(super) async fn close(source: Source) {
    if let Some(bus) = source.into_bus() {
        bus.close(CLOSE_LIMIT).await;
    }
}

/// Nothing was read: what was asked for is not there.
pub(super) fn nothing(selection: &Selection) -> Failure {
    Failure::failed(match &selection.workflows[..] {
        [] => format!("no stored workflow matches: {}", selection.in_words()),
        [workflow] => format!(
            "no event of workflow {workflow} is stored: the id is wrong, it has not begun yet, or its events have expired"
        ),
        workflows => format!("no event of these {} workflows is stored", workflows.len()),
    })
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        match &error {
            SetupError::UnknownModel { .. } | SetupError::Read { .. } | SetupError::Template(_) => {
                Self { message: super::exit::with_causes(&error), ..Self::usage("") }
            }
            SetupError::Recorded(_) | SetupError::RecordedConfig(_) => {
                Self::failed(super::exit::with_causes(&error))
            }
            SetupError::Route(_) | SetupError::Prompt(_) => Self::configuration(&error),
        }
    }
}
