//! One line of questions.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use throughline_schemas::event::generation::Message;

use crate::{cli::lines::LineError, llm::Request};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    text: Option<String>,
    messages: Option<Vec<Message>>,
    system: Option<String>,
    model: Option<String>,
    max_tokens: Option<u32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    stop: Option<Vec<String>>,
    format: Option<Format>,
    id: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    Text,
    Json,
}

/// The question's id, as far as it can be read, and the question.
pub(super) fn read(content: &[u8]) -> (Option<Value>, Result<Request, String>) {
    match serde_json::from_slice::<Question>(content) {
        Ok(mut question) => (question.id.take(), request(question)),
        Err(error) => {
            let object: Option<Value> = serde_json::from_slice(content).ok();
            (object.and_then(|mut object| Some(object.get_mut("id")?.take())), Err(error.to_string()))
        }
    }
}

fn request(question: Question) -> Result<Request, String> {
    let mut request = match (question.text, question.messages) {
        (Some(text), None) => Request::new(text),
        (None, Some(messages)) => Request::of_messages(messages),
        (None, None) => return Err("text is missing, and messages too: one of them is needed".to_owned()),
        (Some(_), Some(_)) => return Err("has text and messages: only one of them can be asked".to_owned()),
    };
    if let Some(system) = question.system {
        request = request.system(system);
    }
    if let Some(model) = question.model {
        request = request.model(model);
    }
    if let Some(tokens) = question.max_tokens {
        request = request.max_tokens(tokens);
    }
    if let Some(temperature) = question.temperature {
        request = request.temperature(temperature);
    }
    if let Some(top_p) = question.top_p {
        request = request.top_p(top_p);
    }
    if let Some(stop) = question.stop {
        request = request.stop(stop);
    }
    if let Some(Format::Json) = question.format {
        request = request.json(None);
    }
    Ok(request)
}

/// What a line of output names its line of input by: 16 hexadecimal digits of the SHA-256 of its content, without the
/// space around it. A line that could not be read is named by why.
pub(super) fn hash(content: &Result<Vec<u8>, LineError>) -> String {
    let digest = match content {
        Ok(content) => Sha256::digest(content.trim_ascii()),
        Err(error) => Sha256::digest(error.to_string()),
    };
    digest.iter().take(8).fold(String::new(), |mut hash, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hash, "{byte:02x}");
        hash
    })
}

/// How many lines there are to ask, if that can be known before.
pub(super) fn count(file: &Path) -> Option<u64> {
    let mut reader = BufReader::new(File::open(file).ok().filter(|_| file.as_os_str() != "-")?);
    let (mut lines, mut is_blank) = (0, true);
    loop {
        let part = reader.fill_buf().ok()?;
        if part.is_empty() {
            return Some(lines + u64::from(!is_blank));
        }
        for byte in part {
            if *byte == b'\n' {
                lines += u64::from(!is_blank);
                is_blank = true;
            } else {
                is_blank &= byte.is_ascii_whitespace();
            }
        }
        let length = part.len();
        reader.consume(length);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bad_line_says_what_is_wrong_and_keeps_its_id() {
        let refused = |line: &str| {
            let (id, request) = read(line.as_bytes());
            (id, request.unwrap_err())
        };
        let (id, error) = refused(r#"{"id": 7, "txt": "hi"}"#);
        assert_eq!(id, Some(json!(7)));
        assert!(error.contains("txt") && error.contains("text"), "{error}");
        assert!(refused(r#"{"id": "a"}"#).1.contains("text is missing"));
        assert!(refused(r#"{"text": "a", "messages": []}"#).1.contains("only one"));
        assert_eq!(refused("nonsense").0, None);
        assert!(read(br#"{"text": "hi", "id": {"any": 1}, "format": "json"}"#).1.is_ok());
        let turns =
            r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
        assert!(read(turns.as_bytes()).1.is_ok());
    }

    #[test]
    fn a_line_is_known_by_its_content_without_the_space_around_it() {
        let of = |text: &str| hash(&Ok(text.as_bytes().to_vec()));
        assert_eq!(of("{\"text\":\"a\"}\n"), of(" {\"text\":\"a\"}\r\n"));
        assert_ne!(of("{\"text\":\"a\"}"), of("{\"text\":\"b\"}"));
        assert_eq!(of("a").len(), 16);
    }

    #[test]
    fn blank_lines_are_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("in");
        for (text, lines) in [("", 0), ("a", 1), ("a\n\n \r\nb\n", 2), ("\n", 0)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(count(&file), Some(lines), "{text:?}");
        }
        assert_eq!(count(Path::new("-")), None);
    }
}
