//! Every field at its limit, one below and one beyond.

use async_nats::jetstream::message::OutboundMessage;
use serde_json::{Value, json};
use throughline_schemas::{MAX_DEPTH, MAX_ID_BYTES};

use super::upstreams::{MAX_MODEL, MAX_SOURCE, answer};
use crate::harness::cluster::{BARE, message};

pub(super) const MAX_INPUT: usize = 32_768;
pub(super) const MAX_METADATA: usize = 8_192;

/// Characters of one to four bytes, and those that JSON writes longer than they are.
const UNITS: [char; 7] = ['x', 'ü', '€', '😀', '"', '\\', '\u{1}'];

pub(super) enum End {
    Saved { degraded: bool },
    Failed { code: &'static str, says: &'static str },
}

const SAVED: End = End::Saved { degraded: false };

fn invalid(says: &'static str) -> End {
    End::Failed { code: "invalid_input", says }
}

/// How a message is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Bare,
    Structured,
    Binary,
}

pub(super) struct Case {
    pub(super) name: String,
    pub(super) workflow: String,
    pub(super) end: End,
    /// What the model must have been understood to say.
    pub(super) answer: Option<String>,
    /// Whether commands are tried on it, which takes a process each.
    pub(super) is_shown: bool,
    form: Form,
    body: String,
}

impl Case {
    /// A message with one member of its own, whose value is JSON.
    fn new(name: String, form: Form, member: &str, value: &str, end: End) -> Self {
        let mut members =
            json!({"user_id": "demo", "session_id": name, "workflow_id": name, "user_input": "Hello"});
        let workflow = if member == "workflow_id" {
            serde_json::from_str::<String>(value).expect("a text")
        } else {
            name.clone()
        };
        members.as_object_mut().unwrap().remove(member);
        let mut data = members.to_string();
        data.insert_str(1, &format!("{}:{value},", Value::from(member)));
        let body = match form {
            Form::Bare | Form::Binary => data,
            Form::Structured => {
                format!(
                    r#"{{"specversion":"1.0","id":"1","source":"/edges","type":"user_input_received","data":{data}}}"#
                )
            }
        };
        Self { name, workflow, end, answer: None, is_shown: false, form, body }
    }

    pub(super) fn message(&self) -> OutboundMessage {
        let attributes = [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/edges"),
            ("ce-type", "user_input_received"),
        ];
        let headers = match self.form {
            Form::Binary => &attributes[..],
            Form::Bare | Form::Structured => &[],
        };
        message(BARE, headers, self.body.clone())
    }
}

/// Text of exactly so many bytes, which no reader takes for blank.
fn text(unit: char, bytes: usize) -> String {
    let units = (bytes - 1) / unit.len_utf8();
    let mut text: String = std::iter::repeat_n(unit, units).collect();
    text.extend(std::iter::repeat_n('x', bytes - units * unit.len_utf8()));
    text
}

/// One below a limit, the limit, and one beyond; whether it is within.
fn around(limit: usize) -> [(usize, bool); 3] {
    [(limit - 1, true), (limit, true), (limit + 1, false)]
}

fn texts(cases: &mut Vec<Case>, member: &str, limit: usize, says: &'static str) {
    for unit in UNITS {
        for (bytes, within) in around(limit) {
            let name = format!("{member}-{}-{bytes}", u32::from(unit));
            let value = Value::from(text(unit, bytes)).to_string();
            // Nobody but the demo's user has a profile.
            let saved = End::Saved { degraded: member == "user_id" };
            let mut case =
                Case::new(name, Form::Bare, member, &value, if within { saved } else { invalid(says) });
            // What cannot be an id is none: the end goes where the publisher listens for what it sent.
            if member == "workflow_id" && !within {
                continue;
            }
            case.is_shown = bytes == limit;
            cases.push(case);
        }
    }
}

fn metadata(cases: &mut Vec<Case>) {
    for unit in UNITS {
        for (bytes, within) in around(MAX_METADATA) {
            let value = super::upstreams::escaped_to(unit, bytes - r#"{"k":""}"#.len());
            let end = if within { SAVED } else { invalid("metadata is") };
            let value = json!({"k": value}).to_string();
            assert_eq!(value.len(), bytes);
            cases.push(Case::new(
                format!("metadata-{}-{bytes}", u32::from(unit)),
                Form::Bare,
                "metadata",
                &value,
                end,
            ));
        }
    }
    let widest = (MAX_METADATA - 2) / r#""0000":0,"#.len();
    let members: Vec<_> = (0..widest).map(|n| format!("\"{n:04}\":0")).collect();
    cases.push(Case::new(
        "metadata-wide".to_owned(),
        Form::Bare,
        "metadata",
        &format!("{{{}}}", members.join(",")),
        SAVED,
    ));
    for digits in [1, 17, 308, 309, 400, 8_000] {
        for (sign, end) in [("", ""), ("-", ""), ("", ".5"), ("0.", "1"), ("1e", "")] {
            let number = format!("{sign}{}{end}", "7".repeat(digits));
            let name = format!("number-{digits}-{sign}{end}").replace('.', "p");
            cases.push(Case::new(name, Form::Bare, "metadata", &format!("{{\"n\":{number}}}"), SAVED));
        }
    }
}

fn depth(cases: &mut Vec<Case>) {
    for (form, around_it) in [(Form::Bare, 1), (Form::Binary, 1), (Form::Structured, 2)] {
        for member in ["metadata", "something_else"] {
            for (levels, within) in around(MAX_DEPTH) {
                let inner = levels - around_it - 1;
                for (open, close) in [("[", "]"), ("{\"k\":", "}")] {
                    let value = format!("{{\"d\":{}7{}}}", open.repeat(inner), close.repeat(inner));
                    let end = if within { SAVED } else { invalid("nested more than 100 levels deep") };
                    let name = format!("depth-{form:?}-{member}-{levels}-{}", open.len());
                    let mut case = Case::new(name, form, member, &value, end);
                    case.is_shown = levels == MAX_DEPTH && open.len() == 1 && member == "metadata";
                    cases.push(case);
                }
            }
        }
    }
}

fn sources(cases: &mut Vec<Case>) {
    let mut asked = Vec::new();
    for unit in UNITS {
        asked.extend(
            around(MAX_SOURCE).map(|(bytes, within)| (format!("size-{}-{bytes}", u32::from(unit)), within)),
        );
    }
    asked.extend(around(MAX_DEPTH).map(|(levels, within)| (format!("deep-{levels}"), within)));
    asked.extend([1, 308, 309, 10_000].map(|digits| (format!("digits-{digits}"), true)));
    for (wanted, within) in asked {
        let value = json!({"source": wanted}).to_string();
        let end = End::Saved { degraded: !within };
        let mut case = Case::new(format!("source-{wanted}"), Form::Bare, "metadata", &value, end);
        case.is_shown = wanted == format!("deep-{MAX_DEPTH}");
        cases.push(case);
    }
}

fn answers(cases: &mut Vec<Case>) {
    for unit in UNITS {
        for (bytes, within) in around(MAX_MODEL) {
            let asked = format!("answer {} {bytes}", u32::from(unit));
            let name = format!("answer-{}-{bytes}", u32::from(unit));
            let end = if within {
                SAVED
            } else {
                End::Failed { code: "bad_response", says: "larger than 150000 bytes" }
            };
            let mut case = Case::new(name, Form::Bare, "user_input", &Value::from(asked).to_string(), end);
            case.answer = within.then(|| answer(unit, bytes));
            case.is_shown = bytes == MAX_MODEL && unit == '\u{1}';
            cases.push(case);
        }
    }
}

pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    texts(&mut cases, "user_id", MAX_ID_BYTES, "user_id is 257 bytes long");
    texts(&mut cases, "session_id", MAX_ID_BYTES, "session_id is 257 bytes long");
    texts(&mut cases, "workflow_id", MAX_ID_BYTES, "");
    texts(&mut cases, "user_input", MAX_INPUT, "user_input is 32769 bytes long");
    metadata(&mut cases);
    depth(&mut cases);
    sources(&mut cases);
    answers(&mut cases);
    cases
}
