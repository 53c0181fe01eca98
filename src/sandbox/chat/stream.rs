//! The answer as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;

use super::reply::{FINGERPRINT, Reply, SERVICE_TIER, Usage};
use crate::sandbox::app::App;

/// A delta is at least this long, in bytes, and ends where a word ends.
const DELTA_BYTES: usize = 16;
const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// `chat.completion.chunk`.
#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    service_tier: &'static str,
    system_fingerprint: &'static str,
    choices: &'a [Choice<'a>],
    /// Absent unless usage was asked for; then `null` in every chunk but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ChunkUsage>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ChunkUsage {
    /// `null`
    Later(()),
    Total(Usage),
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize, Default)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    /// Absent or `null`: the sandbox never refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<()>,
}

pub(super) fn respond(app: &Arc<App>, reply: &Reply<'_>, include_usage: bool) -> Response {
    event_stream(app, frames(reply, include_usage))
}

/// Events as a body, each after the chunk latency.
pub(in crate::sandbox) fn event_stream(app: &Arc<App>, frames: Vec<Bytes>) -> Response {
    let body = if app.chunk_latency.is_zero() {
        Body::from_stream(stream::iter(frames.into_iter().map(Ok::<_, Infallible>)))
    } else {
        paced(Arc::clone(app), frames)
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The first frame at once, each further one after the chunk latency.
fn paced(app: Arc<App>, frames: Vec<Bytes>) -> Body {
    let frames = frames.into_iter().enumerate();
    Body::from_stream(stream::unfold((app, frames), |(app, mut frames)| async move {
        let (index, frame) = frames.next()?;
        let sent = index == 0 || app.pause(app.chunk_latency).await;
        Some((if sent { Ok(frame) } else { Err("the sandbox is stopping") }, (app, frames)))
    }))
}

/// Role first, then the text, then the reason for the end, then usage when asked for, then `[DONE]`.
fn frames(reply: &Reply<'_>, include_usage: bool) -> Vec<Bytes> {
    let chunk = |choices: &[Choice<'_>], usage: Option<Usage>| {
        frame(&Chunk {
            id: &reply.id,
            object: "chat.completion.chunk",
            created: reply.created,
            model: reply.model,
            service_tier: SERVICE_TIER,
            system_fingerprint: FINGERPRINT,
            choices,
            usage: include_usage.then_some(usage.map_or(ChunkUsage::Later(()), ChunkUsage::Total)),
        })
    };
    let choice = |delta, finish_reason| [Choice { index: 0, delta, logprobs: None, finish_reason }];
    let role = Delta { role: Some("assistant"), content: Some(""), refusal: Some(()) };
    let mut frames = vec![chunk(&choice(role, None), None)];
    frames.extend(deltas(&reply.text).map(|text| {
        let delta = Delta { content: Some(text), ..Delta::default() };
        chunk(&choice(delta, None), None)
    }));
    frames.push(chunk(&choice(Delta::default(), Some(reply.finish_reason)), None));
    if include_usage {
        frames.push(chunk(&[], Some(reply.usage)));
    }
    frames.push(DONE);
    frames
}

fn frame(chunk: &Chunk<'_>) -> Bytes {
    let mut frame = b"data: ".to_vec();
    // Writing plain structs with string keys to memory cannot fail; an empty frame would be ignored.
    if serde_json::to_writer(&mut frame, chunk).is_err() {
        return Bytes::new();
    }
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

/// The text in pieces.
pub(in crate::sandbox) fn deltas(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let from = rest.floor_char_boundary(DELTA_BYTES);
        let end = rest[from..].find(' ').map_or(rest.len(), |space| from + space);
        let (delta, after) = rest.split_at(end);
        rest = after;
        (!delta.is_empty()).then_some(delta)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn deltas_are_the_text_in_pieces() {
        for text in
            ["", "short", "Grüße aus München, Ihre Bestellung ist unterwegs. ✅✅✅✅✅✅✅✅ ", "   a  b  "]
        {
            assert_eq!(deltas(text).collect::<String>(), text);
        }
        assert!(deltas("one two three four five six seven eight nine ten").count() > 2);
    }
}
