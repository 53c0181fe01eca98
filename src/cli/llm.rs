//! `throughline llm`: models without a workflow, by the same client as the engine's.

mod ask;
mod batch;
mod models;
mod record;
mod route;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use throughline_schemas::event::generation::AttemptError;

use super::{Exit, Failure, exit::with_causes};
use crate::{
    config::{Config, Env, Layers},
    llm::GenerateError,
    sandbox::{Sandbox, SandboxConfig, SandboxOptions},
};

/// `throughline llm`
#[derive(Debug, Clone, Args)]
pub(super) struct LlmArgs {
    /// Ask a local stand-in, which needs no key, in place of the configured models
    #[arg(long, global = true)]
    sandbox: bool,
    #[command(subcommand)]
    command: LlmCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum LlmCommand {
    /// Ask one question and print the answer
    Ask(AskArgs),
    /// Ask every line of a JSON Lines file, in order, going on where an earlier run stopped; exit 1 as long as a line lacks
    /// an answer
    Batch(BatchArgs),
    /// Show the models with their windows, limits and prices, and where the prices come from
    Models(ModelsArgs),
    /// Say which models a text would be sent to, and why, without asking anybody
    Route(RouteArgs),
}

#[derive(Debug, Clone, Args)]
struct AskArgs {
    /// What to ask; `-` reads stdin
    text: String,
    /// Ask this model first, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Instructions that come before the question
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Limit on the answer, in tokens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// Sampling temperature, 0 to 2
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Print the answer as it comes [default: on a terminal]
    #[arg(long, overrides_with = "no_stream")]
    stream: bool,
    /// Print the answer when it is complete
    #[arg(long)]
    no_stream: bool,
    /// Print one JSON object; with --stream, every event as a JSON line
    #[arg(long)]
    json: bool,
}

const BATCH_INPUT_HELP: &str = r#"JSON Lines: {"text" or "messages", "system"?, "model"?, "max_tokens"?, "temperature"?, "top_p"?, "stop"?, "format"?, "id"?}; `-` reads stdin"#;

#[derive(Debug, Clone, Args)]
struct BatchArgs {
    /// JSON Lines to ask
    #[arg(value_name = "FILE", help = BATCH_INPUT_HELP)]
    input: PathBuf,
    /// Where the answers go, one a line, in the order of the input. If the file exists, its lines must be answers to the
    /// first lines of the same input; those with an answer are not asked again [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do not ask lines again that an earlier run left without an answer
    #[arg(long, requires = "out")]
    keep_failed: bool,
    /// Questions under way at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_concurrency: u16,
}

#[derive(Debug, Clone, Args)]
struct ModelsArgs {
    /// Also try to connect to each provider; nothing is asked of it
    #[arg(long)]
    check: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Args)]
struct RouteArgs {
    /// The text of a user; `-` reads stdin
    text: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &LlmArgs, config: Config, env: &Env) -> Result<(), Failure> {
    if !args.sandbox {
        return perform(&args.command, &config, env).await;
    }
    let sandbox = Sandbox::start(SandboxOptions::default()).await?;
    let config = Layers::default().load_text("sandbox", &SandboxConfig::toml(&sandbox.base_url()))?;
    let done = perform(&args.command, &config, &Env::new()).await;
    sandbox.shutdown().await;
    done
}

async fn perform(command: &LlmCommand, config: &Config, env: &Env) -> Result<(), Failure> {
    match command {
        LlmCommand::Ask(args) => ask::run(args, config, env).await,
        LlmCommand::Batch(args) => Box::pin(batch::run(args, config, env)).await,
        LlmCommand::Models(args) => models::run(args, config, env).await,
        LlmCommand::Route(args) => route::run(args, config),
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        let exit = match &error {
            GenerateError::UnknownModel { .. } | GenerateError::Request(_) => Exit::Usage,
            GenerateError::Unanswered(unanswered) => match unanswered.error.code() {
                AttemptError::Unreachable | AttemptError::ConnectTimeout => Exit::Unavailable,
                AttemptError::Credentials => Exit::BadConfiguration,
                AttemptError::BadRequest
                | AttemptError::Forbidden
                | AttemptError::QuotaExhausted
                | AttemptError::UnknownModel
                | AttemptError::ContextTooLong
                | AttemptError::ContentFiltered
                | AttemptError::RateLimited
                | AttemptError::Server
                | AttemptError::CutShort
                | AttemptError::FirstTokenTimeout
                | AttemptError::ReadTimeout
                | AttemptError::TotalTimeout
                | AttemptError::TooLarge
                | AttemptError::BadResponse
                | AttemptError::LimitUsedUp
                | AttemptError::BreakerOpen
                | AttemptError::Paced
                | AttemptError::OwnRateLimit
                | AttemptError::Unrecognised => Exit::Failed,
            },
        };
        Self { exit, message: with_causes(&error) }
    }
}
