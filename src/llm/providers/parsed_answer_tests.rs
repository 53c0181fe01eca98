#![allow(clippy::unwrap_used)]

use serde_json::json;
use throughline_actors::ports::contract::model::request;

use super::*;

fn parsed(text: &str, finish: &str) -> ParsedAnswer {
    ParsedAnswer { text: text.to_owned(), finish: Finish::of(&json!(finish)), ..ParsedAnswer::default() }
}

fn asks_for_json() -> ModelRequest {
    ModelRequest { format: AnswerFormat::Json(None), ..request("p") }
}

#[test]
fn what_nobody_can_read_is_no_answer() {
    for text in ["", " \n\n", "\u{200B}", "\u{FEFF}\u{2060} ", "\u{3164}", "\u{00AD}\u{E0041}"] {
        let unfit = parsed(text, "stop").check(&request("p"));
        assert!(matches!(unfit, Err(Unusable::Unfit(_))), "{text:?}");
        let used_up = parsed(text, "max_tokens").check(&request("p"));
        assert!(matches!(used_up, Err(Unusable::LimitUsedUp(_))), "{text:?}");
        let withheld = parsed(text, "SAFETY").check(&request("p"));
        assert!(matches!(withheld, Err(Unusable::Withheld(_))), "{text:?}");
    }
    for text in ["0", ".", "\u{1F600}", "\u{200B}a"] {
        assert_eq!(parsed(text, "stop").check(&request("p")).unwrap().text, text);
    }
}

#[test]
fn half_an_answer_of_a_provider_that_failed_is_none() {
    for (word, retried) in [("network_error", true), ("insufficient_system_resource", true), ("abort", true)]
    {
        let error = parsed("Half of an ans", word).check(&request("p")).unwrap_err().error("");
        assert_eq!(matches!(error, ModelError::Server(_)), retried, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let slow =
        ParsedAnswer { finish_message: Some("rate limit reached".to_owned()), ..parsed("Half", "error") };
    assert!(matches!(slow.check(&request("p")).unwrap_err().error(""), ModelError::RateLimited(_)));
}

#[test]
fn a_call_of_a_tool_that_nobody_offered_is_an_answer_to_who_takes_them() {
    let calls = || ParsedAnswer {
        tool_calls: vec![ToolCall { id: "a".to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() }],
        ..parsed("", "tool_calls")
    };
    assert!(calls().check(&request("p")).is_ok());
    let for_a_user = ModelRequest { takes_tool_calls: false, ..request("p") };
    assert!(matches!(calls().check(&for_a_user), Err(Unusable::Unfit(_))));
    let with_text = ParsedAnswer { text: "Let me look.".to_owned(), ..calls() };
    assert!(with_text.check(&for_a_user).is_ok());
}

#[test]
fn json_is_taken_out_of_what_models_put_around_it() {
    for (text, document) in [
        ("{\"a\": 1}", "{\"a\": 1}"),
        ("```json\n{\"a\": 1}\n```", "{\"a\": 1}"),
        ("```\n{\"a\": 1}\n```", "{\"a\": 1}"),
        ("```JSON {\"a\": \"```\"} ```\n", "{\"a\": \"```\"}"),
        ("Here it is:\n```json\n[1]\n```\nAnything else?", "[1]"),
        ("```json\n{\"a\": 1}", "{\"a\": 1}"),
        ("\u{FEFF}{\"a\": 1}\u{200B}", "{\"a\": 1}"),
    ] {
        assert_eq!(parsed(text, "stop").check(&asks_for_json()).unwrap().text, document, "{text}");
    }
    for text in ["I cannot do that", "```json\nno\n```", "{\"a\": ", "It is {\"a\": 1}."] {
        assert!(matches!(parsed(text, "stop").check(&asks_for_json()), Err(Unusable::Unfit(_))), "{text}");
    }
    assert_eq!(parsed("{\"a\": ", "length").check(&asks_for_json()).unwrap().text, "{\"a\": ");
}

#[test]
fn thinking_is_moved_out_of_whole_answers() {
    let answer =
        parsed("<think>a plan</think>\n\nHello", "stop").without_thinking().check(&request("p")).unwrap();
    assert_eq!((answer.text.as_str(), answer.reasoning.as_str()), ("Hello", "a plan"));
    let cut = parsed("<think>a plan without end", "length").without_thinking().check(&request("p"));
    assert!(matches!(cut, Err(Unusable::LimitUsedUp(_))));
}
