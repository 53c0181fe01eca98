//! Whether the event of an answer fits into the log, looked at before the answer is paid for and again when it is there.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;
use throughline_schemas::event::{ResponseGenerated, generation::Message, input::Request};

use crate::policy::memory::LARGEST_BODY_BYTES;

/// What an event has beside the request, the prompt and the answer, in bytes: its envelope, the attempts, the route.
const REST_BYTES: u64 = 256 * 1024;
/// Kept for the text of an answer, in bytes. A longer one loses its raw form first.
const ANSWER_BYTES: u64 = 1024 * 1024;
/// JSON writes a byte of a text in as many bytes at most, as `\u0001`.
const LONGEST_ESCAPE: usize = 6;

/// The prompt and the request take more of an event than leaves room for an answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the prompt and the message take {bytes} bytes on record, and an event has room for {} of them, so no model was asked; lower \
     max_bytes of the data sources or context.recent_turns",
    room()
)]
pub(super) struct PromptTooLarge {
    bytes: u64,
}

const fn room() -> u64 {
    LARGEST_BODY_BYTES - REST_BYTES - ANSWER_BYTES
}

/// Whether what will be asked can be recorded with its answer.
pub(super) fn check(messages: &[Message], request: &Request) -> Result<(), PromptTooLarge> {
    let texts = messages.iter().map(|message| message.content.len()).sum::<usize>()
        + request.user_input.len()
        + request.metadata.as_str().len();
    // Nearly always, and then nothing needs to be written to be measured. The other half is more than what is around texts.
    if (texts.saturating_mul(LONGEST_ESCAPE) as u64) < room() / 2 {
        return Ok(());
    }
    let bytes = bytes(messages) + bytes(request);
    if bytes <= room() { Ok(()) } else { Err(PromptTooLarge { bytes }) }
}

/// Leaves the raw answer out if the event would not fit with it: the text, the usage and the cost, which were taken from it,
/// are what others need.
pub(super) fn fit(data: &mut ResponseGenerated) {
    let raw = bytes(&data.raw_response);
    if raw < ANSWER_BYTES / 2 {
        return;
    }
    let all = bytes(&*data);
    if all > LARGEST_BODY_BYTES - REST_BYTES {
        data.raw_response =
            json!({"left_out": format!("{raw} bytes: the event would be larger than {LARGEST_BODY_BYTES}")});
    }
}

fn bytes(value: &(impl Serialize + ?Sized)) -> u64 {
    let mut count = Count(0);
    // What cannot be written is found where it is written.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// Counts what is written to it.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::{Metadata, Timestamp, event::generation::Role};

    use super::*;

    fn message(content: String) -> Message {
        Message { role: Role::User, content }
    }

    #[test]
    fn what_is_counted_is_what_is_written() {
        let value = json!({"text": "a\"b\u{1}\u{fc}", "list": [1, 2.5, null]});
        assert_eq!(bytes(&value), value.to_string().len() as u64);
    }

    #[test]
    fn a_prompt_is_measured_as_it_is_recorded() {
        let request = Request {
            user_input: "hello".to_owned(),
            metadata: Metadata::default(),
            input_sequence: 1,
            received_at: Timestamp::from_unix_ms(0),
            merged: Vec::new(),
            redo: None,
        };
        let rest = bytes(&[message(String::new())][..]) + bytes(&request);
        for (unit, escaped) in [("x", 1), ("\"", 2), ("\u{1}", 6)] {
            let largest = usize::try_from((room() - rest) / escaped).unwrap();
            assert_eq!(check(&[message(unit.repeat(largest))], &request), Ok(()), "{unit:?}");
            let refused = check(&[message(unit.repeat(largest + 1))], &request).unwrap_err();
            assert!(refused.to_string().contains("no model was asked"), "{refused}");
        }
    }
}
