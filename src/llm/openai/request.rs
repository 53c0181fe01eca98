//! What is asked.

use serde::Serialize;
use throughline_actors::ports::model::ModelRequest;
use throughline_schemas::event::generation::{Message, Role};

#[derive(Serialize)]
struct Completion<'a> {
    model: &'a str,
    messages: Vec<ChatMessage<'a>>,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    stream: bool,
}

#[derive(Serialize)]
struct ChatMessage<'a> {
    role: &'static str,
    content: &'a str,
}

/// The request's body.
pub(super) fn body(request: &ModelRequest) -> Vec<u8> {
    let completion = Completion {
        model: &request.model,
        messages: request.messages.iter().map(ChatMessage::from).collect(),
        max_tokens: request.max_tokens,
        // The closest double to a number of thousandths prints as that number.
        temperature: request.temperature_milli.map(|milli| f64::from(milli) / 1000.0),
        stream: false,
    };
    // Text and finite numbers can always be written as JSON.
    serde_json::to_vec(&completion).unwrap_or_default()
}

impl<'a> From<&'a Message> for ChatMessage<'a> {
    fn from(message: &'a Message) -> Self {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        Self { role, content: &message.content }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use throughline_actors::ports::model::AnswerFormat;
    use throughline_schemas::TraceParent;

    use super::*;

    #[test]
    fn the_body_is_exactly_what_the_protocol_wants() {
        let request = ModelRequest {
            provider: "p".to_owned(),
            model: "m".to_owned(),
            messages: vec![
                Message { role: Role::System, content: "Be brief.".to_owned() },
                Message { role: Role::User, content: "\"Hi\"\n\u{1F600}".to_owned() },
            ],
            max_tokens: 1000,
            temperature_milli: Some(700),
            top_p_milli: None,
            stop: Vec::new(),
            format: AnswerFormat::Text,
            stream: false,
            traceparent: TraceParent::root(1, 1),
        };
        assert_eq!(
            String::from_utf8(body(&request)).unwrap(),
            "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},\
             {\"role\":\"user\",\"content\":\"\\\"Hi\\\"\\n\u{1F600}\"}],\
             \"max_tokens\":1000,\"temperature\":0.7,\"stream\":false}"
        );
    }

    #[test]
    fn every_temperature_is_written_exactly() {
        for milli in 0..=2000_u32 {
            let written = serde_json::to_string(&(f64::from(milli) / 1000.0)).unwrap();
            let digits = format!("{}.{:03}", milli / 1000, milli % 1000);
            let shortest = digits.trim_end_matches('0');
            let expected = if shortest.ends_with('.') { format!("{shortest}0") } else { shortest.to_owned() };
            assert_eq!(written, expected);
        }
    }
}
