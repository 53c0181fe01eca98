//! What the server says of the log, of its consumers and of the account, for commands that look.

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;
use throughline_actors::ports::bus::BusError;
use throughline_schemas::{StageName, Timestamp};

use super::{Core, Names, error::unavailable_because, stream_api};

/// The event log as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// Sequence of the first message that it has, and of the last that it ever had.
    pub sequences: (u64, u64),
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Bytes that it may hold; `None` if it has no limit.
    pub max_bytes: Option<u64>,
    /// When the first and the last message were stored, by the server's clock; `None` if there is none.
    pub stored_at: Option<(Timestamp, Timestamp)>,
}

/// The account of this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountState {
    /// Bytes in use on disk.
    pub storage: u64,
    /// Bytes that may be in use; `None` if there is no limit.
    pub max_storage: Option<u64>,
}

/// The consumer of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct StageState {
    /// Requests for messages that wait: somebody works on this stage.
    #[serde(rename = "num_waiting")]
    pub waiting: u64,
    /// Messages that workers have in hand.
    #[serde(rename = "num_ack_pending")]
    pub in_hand: u64,
    /// Messages that were not delivered yet.
    #[serde(rename = "num_pending")]
    pub pending: u64,
}

/// See [`super::NatsBus::log_state`].
pub(super) async fn log(core: &Core) -> Result<LogState, BusError> {
    #[derive(Deserialize)]
    struct Info {
        config: Config,
        state: State,
    }
    #[derive(Deserialize)]
    struct Config {
        max_bytes: i64,
    }
    #[derive(Deserialize)]
    struct State {
        messages: u64,
        bytes: u64,
        first_seq: u64,
        last_seq: u64,
        first_ts: Timestamp,
        last_ts: Timestamp,
    }
    let Info { config, state } = ask(core, &info(core)).await?;
    Ok(LogState {
        sequences: (state.first_seq, state.last_seq),
        messages: state.messages,
        bytes: state.bytes,
        max_bytes: u64::try_from(config.max_bytes).ok().filter(|max| *max > 0),
        stored_at: (state.messages > 0).then_some((state.first_ts, state.last_ts)),
    })
}

/// See [`super::NatsBus::account_state`].
pub(super) async fn account(core: &Core) -> Result<AccountState, BusError> {
    #[derive(Deserialize)]
    struct Info {
        storage: u64,
        #[serde(default)]
        limits: Limits,
    }
    #[derive(Default, Deserialize)]
    struct Limits {
        max_storage: Option<i64>,
    }
    let Info { storage, limits } = ask(core, "$JS.API.INFO").await?;
    let max_storage = limits.max_storage.and_then(|max| u64::try_from(max).ok()).filter(|max| *max > 0);
    Ok(AccountState { storage, max_storage })
}

/// See [`super::NatsBus::stage_state`].
pub(super) async fn stage(core: &Core, stage: StageName) -> Result<StageState, BusError> {
    let (stream, consumer) = (core.names.events(), Names::consumer(stage));
    ask(core, &format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}")).await
}

/// See [`super::NatsBus::is_strict`].
pub(super) async fn is_strict(core: &Core) -> Option<bool> {
    #[derive(Deserialize)]
    struct Answer {
        state: Option<IgnoredAny>,
    }
    let body = Bytes::from(json!({"no_field_of_this_name": true}).to_string());
    match stream_api::answer(core, info(core), body).await {
        Ok(Ok(Answer { state: Some(_) })) => Some(false),
        Ok(Err(_)) => Some(true),
        Ok(Ok(Answer { state: None })) | Err(_) => None,
    }
}

fn info(core: &Core) -> String {
    format!("$JS.API.STREAM.INFO.{}", core.names.events())
}

async fn ask<T: for<'a> Deserialize<'a>>(core: &Core, address: &str) -> Result<T, BusError> {
    match stream_api::answer(core, address.to_owned(), Bytes::new()).await? {
        Ok(answer) => Ok(answer),
        Err(error) if error.is_not_found() => {
            let stream = core.names.events();
            Err(BusError::NotSetUp(format!("the stream {stream} does not exist, or lacks this consumer")))
        }
        Err(error) => Err(unavailable_because(format!("asking the server's API at {address}"), error)),
    }
}
