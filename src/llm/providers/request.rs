//! What requests of several dialects have in common.

use throughline_actors::ports::model::ModelRequest;
use throughline_schemas::event::generation::{Message, Role};

use super::ModelOptions;

/// Asks for JSON where the API itself cannot be told, or wants to see the word.
pub(super) const JSON_INSTRUCTION: &str =
    "Answer with one JSON document and nothing else: no code fence, no words before or after it.";

/// `temperature` and `top_p`, where the model takes them. The closest double to a number of thousandths prints as that
/// number.
pub(super) fn sampling(request: &ModelRequest, options: ModelOptions) -> (Option<f64>, Option<f64>) {
    let thousandths = |milli: Option<u32>| {
        milli.filter(|_| options.send_temperature).map(|milli| f64::from(milli) / 1000.0)
    };
    (thousandths(request.temperature_milli), thousandths(request.top_p_milli))
}

/// APIs and templates refuse a conversation that the model begins; one that was shortened may.
const OPENING: &str = "(The beginning of the conversation is left out.)";

/// The operator's instructions in one, with an empty line between each two: some APIs take them apart from the
/// conversation, and the templates of many open models take one system message, at the beginning.
pub(super) fn instructions(messages: &[Message]) -> Option<String> {
    let system =
        messages.iter().filter(|message| message.role == Role::System && !message.content.is_empty());
    let texts: Vec<&str> = system.map(|message| message.content.as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("\n\n"))
}

/// The same with the wish for JSON.
pub(super) fn instructions_for_json(messages: &[Message]) -> String {
    match instructions(messages) {
        Some(instructions) => format!("{instructions}\n\n{JSON_INSTRUCTION}"),
        None => JSON_INSTRUCTION.to_owned(),
    }
}

/// The conversation without the instructions, in turns that alternate and begin with the user: what the same side says in
/// several messages is one turn, as APIs and templates want it that insist on alternation. Messages without text are left
/// out: such APIs refuse them.
pub(super) fn turns(messages: &[Message]) -> Vec<(Role, Vec<&str>)> {
    let mut turns: Vec<(Role, Vec<&str>)> = Vec::new();
    for Message { role, content } in messages {
        if *role == Role::System || content.is_empty() {
            continue;
        }
        match turns.last_mut() {
            Some((last, texts)) if last == role => texts.push(content),
            Some(_) | None => turns.push((*role, vec![content])),
        }
    }
    if turns.first().is_some_and(|(role, _)| *role == Role::Assistant) {
        turns.insert(0, (Role::User, vec![OPENING]));
    }
    turns
}

#[cfg(test)]
mod tests {
    use throughline_actors::ports::model::AnswerFormat;
    use throughline_schemas::TraceParent;

    use super::*;

    #[test]
    fn every_temperature_is_written_exactly() {
        for milli in 0..=2000_u32 {
            let request = ModelRequest {
                provider: String::new(),
                model: String::new(),
                messages: Vec::new().into(),
                max_tokens: 1,
                temperature_milli: Some(milli),
                top_p_milli: None,
                stop: Vec::new(),
                format: AnswerFormat::Text,
                stream: false,
                traceparent: TraceParent::root(1, 1),
                takes_tool_calls: false,
            };
            let (temperature, top_p) = sampling(&request, ModelOptions::default());
            let written = serde_json::to_string(&temperature).unwrap_or_default();
            let digits = format!("{}.{:03}", milli / 1000, milli % 1000);
            let shortest = digits.trim_end_matches('0');
            let expected = if shortest.ends_with('.') { format!("{shortest}0") } else { shortest.to_owned() };
            assert_eq!((written, top_p), (expected, None));
        }
    }

    #[test]
    fn a_conversation_alternates() {
        let message = |role, content: &str| Message { role, content: content.to_owned() };
        let messages = [
            message(Role::System, "Be brief."),
            message(Role::User, "Data."),
            message(Role::User, ""),
            message(Role::User, "Question?"),
            message(Role::Assistant, "Answer."),
            message(Role::System, "Be kind."),
            message(Role::User, "Thanks."),
        ];
        assert_eq!(instructions(&messages).as_deref(), Some("Be brief.\n\nBe kind."));
        let expected = vec![
            (Role::User, vec!["Data.", "Question?"]),
            (Role::Assistant, vec!["Answer."]),
            (Role::User, vec!["Thanks."]),
        ];
        assert_eq!(turns(&messages), expected);
        assert_eq!((instructions(&messages[1..2]), turns(&[])), (None, Vec::new()));
        // One that was shortened begins with the user, too.
        let shortened =
            [(Role::User, vec![OPENING]), (Role::Assistant, vec!["Answer."]), (Role::User, vec!["Thanks."])];
        assert_eq!(turns(&messages[4..]), shortened);
        assert_eq!(instructions_for_json(&messages[..1]), format!("Be brief.\n\n{JSON_INSTRUCTION}"));
    }
}
