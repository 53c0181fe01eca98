#![allow(clippy::unwrap_used)]

use throughline_actors::ports::model::AnswerFormat;
use throughline_schemas::TraceParent;

use super::*;

fn url(base_url: &str, model: &str, stream: bool) -> String {
    let request = ModelRequest {
        provider: String::new(),
        model: model.to_owned(),
        messages: Vec::new().into(),
        max_tokens: 1,
        temperature_milli: None,
        top_p_milli: None,
        stop: Vec::new(),
        format: AnswerFormat::Text,
        stream,
        traceparent: TraceParent::root(1, 1),
        takes_tool_calls: false,
    };
    Gemini::new(Url::parse(base_url).unwrap()).unwrap().url(&request).into()
}

#[test]
fn the_model_is_in_the_path() {
    let google = "https://generativelanguage.googleapis.com";
    for base_url in
        [google.to_owned(), format!("{google}/"), format!("{google}/v1beta"), format!("{google}/v1beta/")]
    {
        assert_eq!(
            url(&base_url, "gemini-2.5-flash", false),
            format!("{google}/v1beta/models/gemini-2.5-flash:generateContent")
        );
    }
    assert_eq!(
        url("http://proxy/v1?team=1", "models/g", true),
        "http://proxy/v1/models/g:streamGenerateContent?team=1&alt=sse"
    );
}

#[test]
fn no_model_leads_elsewhere() {
    for (model, expected) in [
        ("../../admin", "..%2F..%2Fadmin"),
        ("a?key=1#x", "a%3Fkey=1%23x"),
        ("..", ".."),
        ("%2e%2e/x", "%252e%252e%2Fx"),
        ("é\u{1F600} ", "%C3%A9%F0%9F%98%80%20"),
    ] {
        assert_eq!(
            url("http://h", model, false),
            format!("http://h/v1beta/models/{expected}:generateContent")
        );
    }
}
