//! The command line. Results go to stdout, logs and progress to stderr; exit codes are in [`Exit`].

mod bench;
mod bus_error;
mod config_command;
mod database;
mod dead;
mod dev;
mod doctor;
mod events;
mod exit;
mod explain;
mod export;
mod forget;
mod health;
mod lines;
mod list;
mod llm;
mod output;
mod preferences;
mod publish;
mod record;
mod replay;
mod run;
mod sandbox;
mod schema;
mod screen;
mod setup;
mod signal;
mod standing;
pub mod timeline;
mod together;
mod worker;

use std::{net::SocketAddr, path::PathBuf};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use throughline_schemas::{EventType, StageName, event::input::WhenBusy};

pub use exit::{Exit, Failure};

use crate::bus::nats::Role;

/// Durable, replayable, event-driven LLM workflows over NATS JetStream.
#[derive(Debug, Parser)]
#[command(name = "throughline", version, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file [default: throughline.toml, if there is one]
    #[arg(long, global = true, env = "THROUGHLINE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// NATS server, for example `nats://127.0.0.1:4222`
    #[arg(long, global = true, value_name = "URL")]
    nats_url: Option<String>,
    /// Database, for example `sqlite://throughline.db` or `postgres://user@host/database`
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// First token of every subject
    #[arg(long, global = true, value_name = "NAME")]
    namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process: a private nats-server, SQLite, and local stand-ins for sources and model
    Dev(DevArgs),
    /// Create or update the streams and consumers that workers use
    Setup(SetupArgs),
    /// Run stage actors until stopped
    Worker(WorkerArgs),
    /// Publish user input
    Publish(PublishArgs),
    /// List workflows, the newest first: what waits and for whom, what runs, what was saved, what failed
    List(list::ListArgs),
    /// Show events, stored and as they come
    Events(EventsArgs),
    /// Tell where an answer came from; or which answers came from a model, a template or a source
    Explain(explain::ExplainArgs),
    /// Get, set and delete what is known about a user
    Preferences(preferences::PreferencesArgs),
    /// Move everything of a namespace to another database
    #[command(subcommand)]
    Database(database::DatabaseCommand),
    /// List, show, retry and drop messages that no stage could handle
    Dead(dead::DeadArgs),
    /// Write everything that is kept about a user or a session to a file
    Export(export::ExportArgs),
    /// Erase everything that is kept about a user or a session, wherever it is
    Forget(forget::ForgetArgs),
    /// Check everything that a worker needs, and say what to change
    Doctor(DoctorArgs),
    /// Ask the worker at `http.listen` whether it is ready (for containers; exit 0, 1 or 69)
    Health(HealthArgs),
    /// Replay recorded workflows: verify them, run them with a change, simulate another configuration
    #[command(subcommand)]
    Replay(replay::ReplayCommand),
    /// Write past workflows to a file, load them elsewhere, look into such a file
    #[command(subcommand)]
    Record(record::RecordCommand),
    /// Ask models without a workflow: one question, a file of them, prices and routes
    Llm(llm::LlmArgs),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// JSON Schemas and AsyncAPI document
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Run only the stand-ins for data sources and model
    Sandbox(sandbox::SandboxArgs),
    /// Drive real workflows through a real nats-server and report figures
    Bench(BenchArgs),
}

const DEV_HELP: &str = "\
Everything that it makes is its own, in its data folder: a server and a database that are configured otherwise (in a file, in
NATS_URL or DATABASE_URL) are left alone. --nats-url makes it work on another server, in a namespace that nobody there uses yet;
--database-url in another database. At the start it says which model it asks and what that may cost; its first message asks it.";

/// `throughline dev`
#[derive(Debug, Clone, Args)]
#[command(after_help = DEV_HELP)]
pub struct DevArgs {
    /// Address of /healthz, /readyz and /metrics [default: as configured, else a free port]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Port of its own nats-server, on this machine only [default: a free one]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    nats_port: Option<u16>,
    /// Where the event store, the database and the effective configuration are kept
    #[arg(long, value_name = "DIR", default_value = ".throughline")]
    data_dir: PathBuf,
    /// Answer this one text, print the answer, and exit
    #[arg(long, value_name = "TEXT")]
    once: Option<String>,
}

/// `throughline setup`
#[derive(Debug, Clone, Args)]
pub struct SetupArgs {
    /// Make the configured database the one of this namespace, whichever was before. Stop all workers first
    #[arg(long)]
    adopt_database: bool,
    /// Print the accounts of a shared NATS server for this namespace, in the form of its configuration, and do nothing else
    #[arg(long, conflicts_with = "adopt_database")]
    print_accounts: bool,
}

const WORKER_HELP: &str = "\
SIGTERM or SIGINT: takes nothing more, finishes what is in hand within worker.drain_grace_ms, hands back the rest to other
workers, says what became of it, and exits 0. A second signal means now: exit 1, and what was in hand comes again after
worker.ack_wait_ms. A worker that cannot go on by itself exits 1, so that a supervisor starts it again.";

/// `throughline worker`
#[derive(Debug, Clone, Args)]
#[command(after_help = WORKER_HELP)]
pub struct WorkerArgs {
    /// Stages to run: input, context, external, generation, persistence [default: all]
    #[arg(long, value_delimiter = ',', value_name = "STAGES")]
    stages: Vec<StageName>,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

const FILE_HELP: &str = r#"Publish each line of a JSON Lines file: {"user_id", "session_id", "user_input", "workflow_id"?, "metadata"?, "when_busy"?}; `-` reads stdin"#;

/// `throughline publish`
#[derive(Debug, Clone, Args)]
pub struct PublishArgs {
    /// Who is asking
    #[arg(long, required_unless_present = "file")]
    user: Option<String>,
    /// The conversation; its workflows run one at a time, in order
    #[arg(long, required_unless_present = "file")]
    session: Option<String>,
    /// Chosen id, which makes publishing idempotent [default: a new one]
    #[arg(long, conflicts_with = "file")]
    workflow_id: Option<String>,
    /// What to do if the session is busy: enqueue, reject, interrupt, merge [default: as the workers are configured]
    #[arg(long, value_name = "HOW", conflicts_with = "file", value_parser = PossibleValuesParser::new(WhenBusy::ALL.map(WhenBusy::as_str)).try_map(|name| name.parse::<WhenBusy>()))]
    when_busy: Option<WhenBusy>,
    /// What to pass along, as KEY=VALUE (a text) or a JSON object; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "file")]
    metadata: Vec<String>,
    /// Wait for the end; print the answer, or the failure and exit 1
    #[arg(long, group = "ends")]
    wait: bool,
    /// As --wait, printing the answer as it comes. Should it break off and begin again, notices on stderr say so; where
    /// stdout is no terminal, a line between dashes stands before what counts
    #[arg(long, group = "ends", conflicts_with = "file")]
    stream: bool,
    /// How long to wait for the end, in seconds; with --file, how long to wait without any end
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "ends", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    timeout: u64,
    /// Print JSON lines: what became of publishing; with --wait the end instead, with --stream every live frame, then the
    /// end
    #[arg(long)]
    json: bool,
    /// Publish each line of a JSON Lines file; `-` reads stdin
    #[arg(long, value_name = "FILE", help = FILE_HELP, conflicts_with_all = ["text", "user", "session"])]
    file: Option<PathBuf>,
    /// What the user says; `-` reads stdin
    #[arg(required_unless_present = "file")]
    text: Option<String>,
}

impl PublishArgs {
    /// For a message that is made otherwise.
    fn waiting(wait: bool, timeout: u64, json: bool) -> Self {
        Self {
            user: None,
            session: None,
            workflow_id: None,
            when_busy: None,
            metadata: Vec::new(),
            wait,
            stream: false,
            timeout,
            json,
            file: None,
            text: None,
        }
    }
}

const EVENTS_HELP: &str = "\
Each line of a timeline is one event: when the work for it began (from the start of the workflow), how long it had waited until
then, how long the work took, the stage that did it, and what came of it. Data sources and models are on record with their own
times; of the other stages it is not known when they began, and what they took includes their waiting.
`slow` marks a wait or work of 1 s or more; of a model, which may take its time, work of 30 s or more.

  throughline events --workflow my-own-id
  throughline events --failed --since 1h
  throughline events --limit 5
  throughline events --type response_generated --since 2h --until 1h --json";

/// `throughline events`
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EVENTS_HELP)]
pub struct EventsArgs {
    /// Only this workflow
    #[arg(long, value_name = "ID")]
    workflow: Option<String>,
    /// Only this session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only this type
    #[arg(long, value_name = "TYPE", value_parser = PossibleValuesParser::new(EventType::ALL.map(EventType::as_str)).try_map(|name| name.parse::<EventType>()))]
    r#type: Option<EventType>,
    /// Only events stored since then: a span such as 10m, 2h, 1d, or an instant such as 2026-01-31T09:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Only events stored before then
    #[arg(long, value_name = "WHEN", conflicts_with = "follow")]
    until: Option<String>,
    /// Only workflows that failed, each whole, in the order of their failures, which --since and --until are about; with
    /// --workflow: that one, and exit 1 if it has not failed
    #[arg(long, conflicts_with = "type")]
    failed: bool,
    /// Only the newest so many workflows, each whole, the newest first; with --type or --json, only the newest so many
    /// events, the newest first
    #[arg(long, value_name = "N", conflicts_with_all = ["follow", "workflow"], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: Option<u32>,
    /// Go on with events as they come; with --workflow, until its end
    #[arg(long, short)]
    follow: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// `throughline doctor`
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Whose permissions on the NATS server to check
    #[arg(long, value_enum, default_value_t = Role::Worker)]
    role: Role,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `throughline health`
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Where the worker listens, as it says at its start [default: http.listen]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

/// `throughline config`
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Report every mistake at once; exit 64 if there is one
    Check,
    /// Print the effective configuration, and where each value comes from
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `throughline schema`
#[derive(Debug, Clone, Subcommand)]
pub enum SchemaCommand {
    /// Print the AsyncAPI document, or write it and all JSON Schemas to a folder
    Export {
        /// Folder to write to
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// How the bench's nats-server syncs its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sync {
    /// Every two minutes: survives a crash of the server, not of the machine.
    Default,
    /// Before each acknowledgement: survives a power cut.
    Always,
}

/// `throughline bench`
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Workflows to run, after a warm-up of a tenth of them
    #[arg(long, default_value_t = 5_000)]
    workflows: usize,
    /// Workflows in flight
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// How long the model stand-in takes to answer, in milliseconds
    #[arg(long, default_value_t = 0, value_name = "MS")]
    model_latency_ms: u64,
    /// How long each data source stand-in takes to answer, in milliseconds
    #[arg(long, default_value_t = 0, value_name = "MS")]
    source_latency_ms: u64,
    /// Worker processes
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// How the nats-server syncs its files
    #[arg(long, value_enum, default_value_t = Sync::Default)]
    sync: Sync,
    /// Print JSON
    #[arg(long)]
    json: bool,
}
