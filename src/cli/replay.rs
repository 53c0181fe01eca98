//! `throughline replay`: past workflows once more.

mod comparison;
mod progress;
mod redo;
mod rerun;
mod simulate;
mod verify;

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Failure, bus_error};
use crate::{
    app::connect_bus,
    config::{Config, Env, Layers, Override},
    replay::{
        Setup,
        selection::{Selection, SelectionArgs},
        setup::SetupError,
        source::Source,
    },
};

/// How long closing the connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// `throughline replay ...`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum ReplayCommand {
    /// Make every recorded result once more from its recorded cause, and say what comes out otherwise
    Verify(verify::VerifyArgs),
    /// Really run past workflows again with something changed, and compare
    Run(rerun::RunArgs),
    /// Decide routes, attempts, waits, limits and prices anew under another configuration, without asking anybody
    Simulate(simulate::SimulateArgs),
    /// Take up a workflow that failed, from the stage that failed or from an earlier one
    Redo(redo::RedoArgs),
}

/// Settings to try.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ChangeArgs {
    /// Another value for a key of the configuration, for example generation.temperature=0 or
    /// providers.openai.requests_per_minute=60; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl ChangeArgs {
    /// The configuration with the changes.
    fn apply(&self, layers: &Layers) -> Result<Config, Failure> {
        let mut layers = layers.clone();
        for setting in &self.settings {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(Failure::usage(format!("--set {setting:?} is not KEY=VALUE")));
            };
            layers.overrides.push(Override::new("--set", key.trim(), value.trim()));
        }
        Ok(layers.load()?)
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
async fn open(args: &SelectionArgs, config: &Config, env: &Env) -> Result<(Source, Selection), Failure> {
    let selection = Selection::new(args).map_err(Failure::usage)?;
    let bus = connect_bus(config, env, "replay").await?;
    let source = Source::open(bus, selection.clone()).await.map_err(|error| bus_error::failure(&error))?;
    Ok((source, selection))
}

async fn close(source: Source) {
    source.into_bus().close(CLOSE_LIMIT).await;
}

/// Nothing was read: what was asked for is not there.
fn nothing(selection: &Selection) -> Failure {
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
            SetupError::Route(_) | SetupError::Prompt(_) => Self::configuration(&error),
        }
    }
}

/// The configured way of working.
fn setup(config: &Config) -> Result<Setup, Failure> {
    Ok(Setup::new(config)?)
}
