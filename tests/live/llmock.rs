//! An outside judge of the model client: llmock answers as a provider would, breaks in every way it knows, keeps its own
//! ledger, and says what its client did wrong. Published message to saved interaction, in all three dialects.

mod cases;
mod judged;
mod people;
mod stories;

use serde_json::Value;

use crate::harness::{Cluster, Frames, LlMock, Log, Settings};

/// A dialect of llmock, and how its streams are cut into chunks when the answer is [`ANSWER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Role, four pieces of text, finish reason, usage, `[DONE]`.
    Openai,
    /// `message_start`, `content_block_start`, `ping`, four pieces of text, `content_block_stop`, `message_delta`,
    /// `message_stop`.
    Anthropic,
    /// Four pieces of text, the last one with the finish reason.
    Gemini,
}

impl Dialect {
    fn kind(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    fn base_url(self, llmock: &LlMock) -> String {
        let path = match self {
            Self::Openai => "/v1",
            Self::Anthropic => "/anthropic",
            Self::Gemini => "/gemini/v1beta",
        };
        format!("{}{path}", llmock.base)
    }

    fn chunks(self) -> u32 {
        match self {
            Self::Openai => 8,
            Self::Anthropic => 10,
            Self::Gemini => 4,
        }
    }
}

impl Dialect {
    /// After how many chunks of [`ANSWER`] the reason to stop has been sent: what is missing then is none of the answer.
    fn chunks_until_reason(self) -> u32 {
        match self {
            Self::Openai => 6,
            Self::Anthropic => 9,
            Self::Gemini => 4,
        }
    }
}

impl Dialect {
    /// How many chunks of [`ANSWER`] are JSON: what becomes of the marker behind them changes nothing of the answer.
    fn chunks_of_json(self) -> u32 {
        match self {
            Self::Openai => 7,
            Self::Anthropic | Self::Gemini => self.chunks(),
        }
    }
}

/// What llmock says when nothing else is scripted.
const ANSWER: &str = "Mock response from judged-model.";
/// Attempts in all, the first one included.
const MAX_ATTEMPTS: usize = 4;
/// Delays that show a backoff through a busy machine's noise, and limits that a healthy call stays far below.
const SETTINGS: &str = r"
[generation]
first_token_timeout_ms = 3000
read_timeout_ms = 1500
total_timeout_ms = 10000
[stages.generation]
max_attempts = 4
base_delay_ms = 200
max_delay_ms = 5000
breaker_failures = 1000
";

/// Everything that one judgement needs.
struct Court {
    llmock: LlMock,
    cluster: Cluster,
    log: Log,
    frames: Frames,
    _dir: tempfile::TempDir,
}

impl Court {
    /// Starts it, or says why this machine cannot.
    async fn open(dialect: Dialect, stream: bool, environment: &[(&str, &str)]) -> Option<Self> {
        Self::open_with(dialect, stream, "", environment).await
    }

    /// The same, with settings that differ.
    async fn open_with(
        dialect: Dialect,
        stream: bool,
        settings: &str,
        environment: &[(&str, &str)],
    ) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let llmock = LlMock::start(dir.path(), environment).await?;
        let settings = Settings::new(SETTINGS)
            .with(&provider("judged", dialect, &llmock))
            .with(&format!("[generation]\nmodel = \"judged-model\"\nstream = {stream}"))
            .with(settings);
        let cluster = Cluster::start(1, &settings).await?;
        let log = cluster.log().await;
        let frames = Frames::listen(&cluster.client).await;
        Some(Self { llmock, cluster, log, frames, _dir: dir })
    }

    /// Says something in a session of its own, and waits for the end.
    async fn ask(&mut self, workflow: &str) {
        self.cluster.say(workflow, "demo", workflow, &question(workflow)).await;
        self.log.until_ended(&[workflow]).await;
    }

    /// The attempts on record in the event that ended the generation.
    fn attempts(&self, workflow: &str) -> Vec<Value> {
        let attempts = match self.log.event(workflow, "response_generated") {
            Some(generated) => &generated.data()["attempts"],
            None => &self.log.failure(workflow)["attempt_log"],
        };
        attempts.as_array().expect("attempts").clone()
    }
}

/// A provider of that name, with one model.
fn provider(name: &str, dialect: Dialect, llmock: &LlMock) -> String {
    format!(
        "[[providers]]\nname = \"{name}\"\nkind = \"{}\"\nbase_url = \"{}\"\n\
         [[models]]\nname = \"{name}-model\"\nprovider = \"{name}\"\n\
         input_usd_per_million = \"1\"\noutput_usd_per_million = \"2\"\n",
        dialect.kind(),
        dialect.base_url(llmock)
    )
}

/// Tells the calls of a workflow from all others, to llmock as well.
fn question(workflow: &str) -> String {
    format!("Hello, this is <{workflow}>.")
}
