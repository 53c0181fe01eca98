//! Messages whose headers the client library cannot read.
//!
//! The server takes any bytes as headers; async-nats closes the connection when it cannot read them (a blank in a
//! header's name is enough). One such message would cut the connection at every redelivery. After each reconnect the
//! messages that are out are therefore looked at through the server's API, which wraps them in JSON; one that nobody
//! could receive is made a dead letter and deleted from the log, where it would stop every reader as well.

use std::time::Duration;

use throughline_actors::ports::bus::BusError;
use throughline_schemas::{FailureCode, StageName, dead_letter};

use crate::bus::nats::{Core, dead_lettering, error::unavailable, headers, stream_api};

/// How many messages are looked at after one reconnect.
const LOOK_AT_MOST: usize = 2_000;
/// How long looking may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Where a dead letter keeps headers that are none, as base64.
const RAW_HEADERS: &str = "Original-Headers-Base64";

/// Dead-letters every message that was delivered to a stage, is not acknowledged, and cannot be read.
pub(super) async fn dead_letter_all(core: &Core, stage: StageName) {
    match tokio::time::timeout(LIMIT, look(core, stage)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(moved)) => {
            tracing::warn!(%stage, moved, "messages with unreadable headers are dead letters now");
        }
        // If there is one, it cuts the connection again, and this is tried again.
        Ok(Err(error)) => tracing::debug!(%stage, %error, "cannot look for unreadable messages"),
        Err(_) => tracing::debug!(%stage, "looking for unreadable messages took too long"),
    }
}

async fn look(core: &Core, stage: StageName) -> Result<usize, BusError> {
    let consumer_state = stream_api::ConsumerState::ask(core, stage).await?;
    if consumer_state.num_ack_pending == 0 {
        return Ok(0);
    }
    let all = core.settings.namespace.events_of(stage.consumes());
    let bare = all.trim_end_matches(".>").to_owned();
    let mut moved = 0;
    for filter in [bare, all] {
        let mut sequence = consumer_state.ack_floor.stream_seq + 1;
        for _ in 0..LOOK_AT_MOST {
            let Some(message) = stream_api::message_from(core, sequence, &filter).await? else { break };
            if message.seq > consumer_state.delivered.stream_seq {
                break;
            }
            if stream_api::headers_of(&message).is_none() {
                dead_letter_one(core, stage, &message).await?;
                moved += 1;
            }
            sequence = message.seq + 1;
        }
    }
    Ok(moved)
}

async fn dead_letter_one(
    core: &Core,
    stage: StageName,
    message: &stream_api::RawMessage,
) -> Result<(), BusError> {
    let body =
        stream_api::decode_base64(&message.data).ok_or_else(|| unavailable("reading a stored message"))?;
    let sequence = message.seq;
    let values = [
        (dead_letter::STAGE, stage.to_string()),
        (dead_letter::CODE, FailureCode::UnreadableEvent.to_string()),
        (
            dead_letter::ERROR,
            "its NATS headers cannot be read; publish it with plain header names".to_owned(),
        ),
        (dead_letter::SUBJECT, message.subject.clone()),
        (dead_letter::SEQUENCE, sequence.to_string()),
        (dead_letter::TIME, message.time.clone()),
        (RAW_HEADERS, message.hdrs.clone()),
    ];
    let subject = dead_lettering::unaddressed(&core.settings.namespace, stage, sequence);
    dead_lettering::store(core, subject, stage, sequence, body.into(), |map| {
        for (name, value) in &values {
            headers::append(map, name, value);
        }
    })
    .await?;
    stream_api::delete(core, sequence).await
}
