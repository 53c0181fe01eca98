//! Ids and texts that nobody expected come back as they went in, and never reach a subject.

use std::{env, fs, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;
use throughline_schemas::{
    Event, EventData, IdError, MAX_ID_BYTES, Metadata, Namespace, SessionId, Subject, UserId, WorkflowId,
    decode, encode, event::ErrorDetail,
};

use crate::{Golden, VALIDATOR, goldens, here};

/// Tried even where there is no corpus.
const ALWAYS: [&str; 12] = [
    "",
    " ",
    ".",
    "*",
    ">",
    "a.b.>",
    "a\r\nPUB x 0\r\n\r\n",
    "\u{202e}right to left\u{2066}",
    "\"},\"type\":\"workflow_failed\",\"x\":{\"",
    "e\u{301} 🏳️‍🌈 𐍈 \u{10ffff}",
    "nul \0 nul",
    "\\u0000\\",
];

#[test]
fn hostile_ids_and_texts_survive_the_wire_in_every_event_type() {
    let ns = Namespace::new("t").unwrap();
    let plain = |golden: &&Golden| golden.name == golden.event_type.as_str();
    let events: Vec<Event> =
        goldens().iter().filter(plain).map(|golden| decode(&golden.bytes).unwrap()).collect();
    let (mut carried, mut not_ids) = (0, 0);
    for text in texts() {
        for event in &events {
            let mut event = event.clone();
            say(&mut event.data, &text);
            match ids(&text) {
                Ok((workflow, session, user)) => {
                    event.meta.id = format!("{}.{}", workflow.token(), event.event_type());
                    event.meta.causation_id = Some(text.clone());
                    (event.meta.workflow_id, event.meta.session_id, event.meta.user_id) =
                        (workflow, session, user);
                    carried += 1;
                }
                Err(error) => {
                    assert!(
                        text.is_empty() || text.len() > MAX_ID_BYTES || text.contains('\0'),
                        "{text:?} {error}"
                    );
                    not_ids += 1;
                }
            }
            let bytes = encode(&event).unwrap();
            assert_eq!(decode(&bytes).unwrap(), event, "{text:?}");
            assert_eq!(encode(&decode(&bytes).unwrap()).unwrap(), bytes, "{text:?}");
            let json: Value = serde_json::from_slice(&bytes).unwrap();
            // A blank input is one that the input stage refuses, and so does its schema.
            let blank =
                matches!(&event.data, EventData::UserInputReceived(d) if d.user_input.trim().is_empty());
            let verdict = VALIDATOR.check(&format!("{}.schema.json", event.event_type()), &json);
            assert!(blank || verdict.is_ok(), "{text:?}: {verdict:?}");

            let subject = event.subject().live(&ns);
            assert!(subject.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)), "{subject}");
            assert_eq!(Subject::parse(&ns, &subject), Some(event.subject()), "{text:?}");
        }
    }
    assert!(carried > 0 && not_ids > 0);
}

fn ids(text: &str) -> Result<(WorkflowId, SessionId, UserId), IdError> {
    Ok((WorkflowId::new(text)?, SessionId::new(text)?, UserId::new(text)?))
}

/// Puts a text wherever the data has room for one that somebody else chose.
fn say(data: &mut EventData, text: &str) {
    let text = || text.to_owned();
    let value = || Value::String(text());
    match data {
        EventData::UserInputReceived(data) => {
            data.user_input = text();
            data.metadata = Metadata::from_iter([(text(), value())]);
        }
        EventData::InputValidated(data) => {
            data.request.user_input = text();
            data.request.metadata = Metadata::from_iter([(text(), value())]);
        }
        EventData::ContextRetrieved(data) => {
            data.context.preferences.insert(text(), value());
            if let Some(turn) = data.context.recent_turns.first_mut() {
                (turn.user, turn.assistant) = (text(), text());
            }
        }
        EventData::ExternalDataFetched(data) => {
            for source in data.external.values_mut() {
                source.data = Some(serde_json::json!([{text(): text()}]).into());
                if let Some(error) = &mut source.error {
                    error.message = text();
                }
            }
        }
        EventData::ResponseGenerated(data) => {
            (data.response.text, data.raw_response) = (text(), value());
            data.prompt.messages.iter_mut().for_each(|message| message.content = text());
            for attempt in &mut data.attempts {
                attempt.error = Some(text());
                let (message, breaker_cause) = (Some(text()), Some(text()));
                attempt.error_detail = Some(ErrorDetail { message, breaker_cause, ..ErrorDetail::default() });
            }
        }
        EventData::InteractionSaved(data) => data.response.text = text(),
        EventData::WorkflowFailed(data) => data.message = text(),
    }
}

/// The strings above, and the corpus of naughty strings where there is one.
fn texts() -> Vec<String> {
    #[derive(Deserialize)]
    struct Case {
        text: String,
    }
    let root = env::var_os("THROUGHLINE_CORPORA")
        .map_or_else(|| here("../../shared/corpora"), PathBuf::from)
        .join("naughty_strings/cases.jsonl");
    let mut texts: Vec<String> = ALWAYS.into_iter().map(str::to_owned).collect();
    texts.push("x".repeat(MAX_ID_BYTES + 1));
    match fs::read_to_string(&root) {
        Ok(lines) => {
            texts.extend(lines.lines().map(|line| serde_json::from_str::<Case>(line).unwrap().text));
        }
        Err(error) => {
            eprintln!("left out: no {}: {error}; set THROUGHLINE_CORPORA", root.display());
        }
    }
    texts
}
