//! `[limits]`, `[context]`, `[sessions]`, `[prompt]`, `[worker]`, `[log]` and `[sandbox]`: how a process behaves.

use std::path::PathBuf;
use std::time::Duration;

use throughline_actors::ports::store::SessionOwner;
use throughline_schemas::event::input::{UnknownWhenBusy, WhenBusy};

use super::connections::check_token;
use super::field::Field;
use super::reader::Section;
use super::tree::Value;

/// `[limits]`: what is accepted from outside; more is refused as invalid input.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of `user_input`, in bytes. Default 32768.
    pub max_input_bytes: usize,
    /// Of `metadata` as JSON, in bytes. Default 8192.
    pub max_metadata_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_input_bytes: 32_768, max_metadata_bytes: 8192 }
    }
}

impl Limits {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        // A NATS message has at most 1 MiB by default, so more could not arrive.
        Self {
            max_input_bytes: s.within("max_input_bytes", d.max_input_bytes, 1..=(1 << 20)),
            max_metadata_bytes: s.within("max_metadata_bytes", d.max_metadata_bytes, 0..=(1 << 20)),
        }
    }
}

/// `[context]`: what a prompt is told of the session's past.
#[derive(Clone, Debug)]
pub struct Context {
    /// How many of the session's last turns. Default 6.
    pub recent_turns: usize,
    /// How many characters of them; the oldest turns go first. Default 8000.
    pub max_history_chars: usize,
}

impl Default for Context {
    fn default() -> Self {
        Self { recent_turns: 6, max_history_chars: 8000 }
    }
}

impl Context {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self {
            recent_turns: s.within("recent_turns", d.recent_turns, 0..=100),
            max_history_chars: s.within("max_history_chars", d.max_history_chars, 0..=1_000_000),
        }
    }
}

impl Field for WhenBusy {
    fn read(value: &Value) -> Result<Self, String> {
        let name = String::read(value)?;
        name.parse().map_err(|error: UnknownWhenBusy| error.to_string())
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.as_str().to_owned())
    }
}

impl Field for SessionOwner {
    fn read(value: &Value) -> Result<Self, String> {
        let name = String::read(value)?;
        Self::ALL
            .into_iter()
            .find(|owner| owner.as_str() == name)
            .ok_or_else(|| format!("{name:?} is not \"any\" or \"first_user\""))
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.as_str().to_owned())
    }
}

/// `[sessions]`: how turns of a session follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    /// What to do with a message that finds its session busy and does not say so itself. Default `enqueue`.
    pub when_busy: WhenBusy,
    /// Who may speak in a session. Default `any`.
    pub owner: SessionOwner,
    /// `turn_limit_ms`: a turn that runs longer fails, and its session goes on. Default one hour.
    pub turn_limit: Duration,
    /// `sweep_interval_ms`: how often to look for turns on which nobody works. Default 10 s.
    pub sweep_interval: Duration,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            when_busy: WhenBusy::default(),
            owner: SessionOwner::default(),
            turn_limit: Duration::from_hours(1),
            sweep_interval: Duration::from_secs(10),
        }
    }
}

impl Sessions {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self {
            when_busy: s.or("when_busy", d.when_busy),
            owner: s.or("owner", d.owner),
            turn_limit: s.millis("turn_limit_ms", d.turn_limit, 1000..=7 * 86_400_000),
            sweep_interval: s.millis("sweep_interval_ms", d.sweep_interval, 100..=3_600_000),
        }
    }
}

/// `[prompt]`: the templates.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Which template. Default `assistant`.
    pub id: String,
    /// Folder with `<id>/system.j2` and `<id>/data.j2`, from the working directory. Default: the built-in ones.
    pub dir: Option<PathBuf>,
}

impl Default for Prompt {
    fn default() -> Self {
        Self { id: "assistant".to_owned(), dir: None }
    }
}

impl Prompt {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        // The id is part of a path.
        Self { id: s.or_where("id", Self::default().id, |id| check_token(id, 64)), dir: s.optional("dir") }
    }
}

/// `[worker]`: how a worker process restarts its actors, stops, and holds messages.
#[derive(Clone, Debug)]
pub struct Worker {
    /// `drain_grace_ms`: how long work in flight may go on after SIGTERM. Default 10 s.
    pub drain_grace: Duration,
    /// The process gives up when an actor restarts more often than this within `restart_window`. Default 5.
    pub restart_intensity: usize,
    /// `restart_window_ms`. Default 60 s.
    pub restart_window: Duration,
    /// `ack_wait_ms`: the server redelivers a message on which it hears nothing for so long. Default 30 s.
    pub ack_wait: Duration,
    /// How often a message is delivered before it is a dead letter, however it ended. Default 100.
    pub max_deliver: u32,
    /// Memory that messages in hand may take, in MiB; more wait. Default 0: half of what the container, else the machine,
    /// has; at least 32 MiB, at most 2 GiB.
    pub message_memory_mib: u64,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            drain_grace: Duration::from_secs(10),
            restart_intensity: 5,
            restart_window: Duration::from_mins(1),
            ack_wait: Duration::from_secs(30),
            max_deliver: 100,
            message_memory_mib: 0,
        }
    }
}

impl Worker {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self {
            drain_grace: s.millis("drain_grace_ms", d.drain_grace, 0..=600_000),
            restart_intensity: s.within("restart_intensity", d.restart_intensity, 0..=1000),
            restart_window: s.millis("restart_window_ms", d.restart_window, 1000..=3_600_000),
            ack_wait: s.millis("ack_wait_ms", d.ack_wait, 1000..=3_600_000),
            max_deliver: s.within("max_deliver", d.max_deliver, 1..=1000),
            message_memory_mib: s.within("message_memory_mib", d.message_memory_mib, 0..=1_048_576),
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

impl Field for LogFormat {
    fn read(value: &Value) -> Result<Self, String> {
        match String::read(value)?.as_str() {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is no format; use \"pretty\" or \"json\"")),
        }
    }

    fn shown(&self) -> toml::Value {
        let name = match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        };
        toml::Value::String(name.to_owned())
    }
}

/// `[log]`: logs go to stderr.
#[derive(Clone, Debug)]
pub struct Log {
    /// `pretty` or `json`. Default `pretty`.
    pub format: LogFormat,
    /// What is logged, as in `info,throughline=debug`. Default `info,async_nats=warn`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: "info,async_nats=warn".to_owned() }
    }
}

impl Log {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self { format: s.or("format", d.format), filter: s.or_where("filter", d.filter, check_filter) }
    }
}

fn check_filter(filter: &String) -> Result<(), String> {
    tracing_subscriber::EnvFilter::try_new(filter)
        .map(drop)
        .map_err(|error| format!("is no log filter such as \"info,throughline=debug\": {error}"))
}

/// `[sandbox]`: the local stand-ins of `throughline dev` and `throughline bench`.
#[derive(Clone, Debug, Default)]
pub struct Sandbox {
    /// Folder with the data that the stand-ins serve, from the working directory. Default: built-in data.
    pub data_dir: Option<PathBuf>,
    /// `model_latency_ms`: how long the model stand-in takes to answer. Default 0.
    pub model_latency: Duration,
    /// `source_latency_ms`: how long the data sources take to answer. Default 0.
    pub source_latency: Duration,
}

impl Sandbox {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self {
            data_dir: s.optional("data_dir"),
            model_latency: s.millis("model_latency_ms", d.model_latency, 0..=600_000),
            source_latency: s.millis("source_latency_ms", d.source_latency, 0..=600_000),
        }
    }
}
