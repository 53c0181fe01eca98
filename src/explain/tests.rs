#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use serde_json::{Value, json};
use throughline_actors::{model::prompt::PromptTemplate, replay::Message as Recorded};
use throughline_schemas::Namespace;

use super::*;
use crate::bus::nats::StoredEvent;

const ID: &str = "p";
const DATA: &str = "{% for source in sources %}{{ source.name }}: {{ source.json }}{% endfor %}";

fn renderer(system: &str) -> Renderer {
    Renderer::new(Ok(PromptTemplate::new(ID, system, DATA).unwrap()), 1000)
}

fn hash(system: &str) -> String {
    PromptTemplate::new(ID, system, DATA).unwrap().hash().to_owned()
}

fn body(kind: &str, workflow: &str, data: &Value) -> Bytes {
    json!({
        "specversion": "1.0", "id": format!("{workflow}.{kind}"), "source": "throughline/x", "type": kind,
        "time": "1970-01-01T00:00:01Z", "workflowid": workflow, "sessionid": "s", "userid": "u",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "data": data,
    })
    .to_string()
    .into()
}

fn request() -> Value {
    json!({"user_input": "hello", "input_sequence": 1, "received_at": "1970-01-01T00:00:00Z"})
}

fn fetched(turns: usize) -> Value {
    let turn = |n: usize| json!({"workflow_id": format!("t{n}"), "user": "q", "assistant": "a", "at": "1970-01-01T00:00:00Z"});
    let turns: Vec<_> = (0..turns).map(turn).collect();
    json!({"request": request(), "context": {"recent_turns": turns}, "external": {
        "crm": {"status": "ok", "data": {"a": 1}, "calls": 1, "duration_ms": 1}, "stock": {"status": "skipped"},
        "orders": {"status": "failed", "error": {"code": "status", "message": "m"}, "calls": 1, "duration_ms": 1}}})
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// The prompt that `renderer("Be kind.")` makes of `fetched(0)`.
fn sent() -> Vec<Value> {
    let data = r#"crm: {"a":1}orders: null"#;
    vec![message("system", "Be kind."), message("user", data), message("user", "hello")]
}

fn answered(messages: &[Value], dropped: u32) -> Value {
    json!({
        "request": request(), "usage": {"input_tokens": 10, "output_tokens": 5}, "cost_usd": "0.0001",
        "response": {"text": "t", "model": "gpt-1-0125", "provider": "openai", "finish_reason": "stop"},
        "attempts": [{"provider": "openai", "model": "gpt-1", "started_at": "1970-01-01T00:00:00Z", "duration_ms": 7,
            "sent": true}],
        "prompt": {"id": ID, "hash": hash("Be kind."), "config": "c", "messages": messages, "max_tokens": 1,
            "window": {"dropped_turns": dropped}},
        "raw_response": null,
    })
}

fn recorded(events: &[(&str, Value)]) -> RecordedWorkflow {
    let messages = events.iter().zip(1..).map(|((kind, data), sequence)| Recorded {
        subject: format!("t.v1.{kind}.s.w"),
        headers: Vec::new(),
        body: body(kind, "w", data),
        sequence,
        stored_at: Timestamp::from_unix_ms(1000),
    });
    RecordedWorkflow::read(WorkflowId::new("w").unwrap(), messages).unwrap()
}

fn proof(fetched: Option<Value>, answered: Value, system: &str) -> Proof {
    let fetched = fetched.map(|data| ("external_data_fetched", data));
    let events: Vec<_> = fetched.into_iter().chain([("response_generated", answered)]).collect();
    let recorded = recorded(&events);
    Explanation::new(&recorded, &renderer(system)).prompt.unwrap().proof
}

#[test]
fn a_prompt_is_proved_by_rendering_it_again_and_nothing_else_is() {
    assert_eq!(proof(Some(fetched(0)), answered(&sent(), 0), "Be kind."), Proof::Proved);
    let other = proof(Some(fetched(0)), answered(&sent(), 0), "Be brief.");
    assert_eq!(other, Proof::OtherTemplate { id: ID.to_owned(), hash: hash("Be brief.") });
    let mut forged = sent();
    forged[1] = message("user", "crm: {}");
    assert_eq!(proof(Some(fetched(0)), answered(&forged, 0), "Be kind."), Proof::Differs { message: 1 });
    assert!(matches!(proof(None, answered(&sent(), 0), "Be kind."), Proof::NotRendered { .. }));
    // Its two earlier turns were left out to fit; everything else is there.
    assert_eq!(proof(Some(fetched(2)), answered(&sent(), 2), "Be kind."), Proof::ProvedButTurns);
    assert_eq!(proof(Some(fetched(2)), answered(&sent(), 0), "Be kind."), Proof::Differs { message: 1 });
    assert_eq!(proof(Some(fetched(2)), answered(&forged, 2), "Be kind."), Proof::Differs { message: 1 });
}

#[test]
fn an_explanation_says_what_is_there_and_leaves_out_what_is_not() {
    let explained =
        recorded(&[("external_data_fetched", fetched(2)), ("response_generated", answered(&sent(), 2))]);
    let renderer = renderer("Be kind.");
    let explained = Explanation::new(&explained, &renderer);
    assert_eq!((explained.state, explained.input.as_ref().unwrap().text.as_str()), (State::Open, "hello"));
    let known = explained.context.as_ref().unwrap();
    assert_eq!((known.earlier_turns.len(), known.left_out, known.summarised), (2, Some(2), Some(0)));
    assert_eq!(explained.sources.unwrap().len(), 3);
    assert_eq!(explained.answer.as_ref().unwrap().cost_usd.unwrap().to_string(), "0.0001");

    let attempt = json!({"provider": "p", "model": "m", "started_at": "1970-01-01T00:00:00Z", "duration_ms": 7,
        "sent": true, "error": "e", "error_class": "transient"});
    let failure = json!({"code": "model_unavailable", "stage": "generation", "message": "m", "attempts": 1,
        "retryable": true, "may_have_happened": false, "attempt_log": [attempt]});
    let failed = recorded(&[("external_data_fetched", fetched(0)), ("workflow_failed", failure)]);
    let failed = Explanation::new(&failed, &renderer);
    assert_eq!((failed.state, failed.attempts.len()), (State::Failed, 1));
    let asked = failed.prompt.unwrap();
    assert!(asked.record.is_none() && matches!(asked.proof, Proof::Rendered { .. }), "{asked:?}");
    assert_eq!(asked.messages.len(), 3);
    assert!(failed.answer.is_none() && failed.route.is_none());
}

fn stored(kind: &str, workflow: &str, data: &Value) -> StoredEvent {
    StoredEvent {
        sequence: 1,
        subject: format!("t.v1.{kind}.s.{workflow}"),
        stored_at: Timestamp::from_unix_ms(1000),
        headers: Vec::new(),
        body: body(kind, workflow, data),
    }
}

fn found(of: UseOf) -> bool {
    let mut uses = Uses::new(of);
    uses.take(&stored("external_data_fetched", "w", &fetched(0)));
    let event = stored("response_generated", "w", &answered(&sent(), 0));
    assert_eq!(uses.needs(&event), None);
    uses.take(&event).is_some()
}

#[test]
fn answers_are_found_by_model_template_and_source() {
    let model = |name: &str| found(UseOf::Model { name: name.to_owned(), configured: None });
    assert!(model("gpt-1") && model("gpt-1-0125") && !model("gpt"));
    // Events of earlier versions do not say by which name of the configuration it was asked.
    let configured = |model: &str| Some(("openai".to_owned(), model.to_owned()));
    let main = |configured| found(UseOf::Model { name: "main".to_owned(), configured });
    assert!(main(configured("gpt-1")) && !main(configured("gpt-2")) && !main(None));
    let template = |text: &str| found(UseOf::template(text).unwrap());
    let hash = hash("Be kind.");
    assert!(template(&hash) && template(&hash[..6].to_uppercase()) && template(ID));
    assert!(template(&format!("{ID}@{}", &hash[..8])) && !template(&format!("q@{}", &hash[..8])));
    assert!(!template("000000") && !template("q"));
    for bad in ["", "@", "p@", "p@latest", "@abcdef", "p@abc"] {
        assert!(UseOf::template(bad).is_err(), "{bad}");
    }
    let source = |name: &str| found(UseOf::Source(name.to_owned()));
    assert!(
        source("crm") && !source("stock") && !source("orders") && !source("other"),
        "only what gave data"
    );
}

#[test]
fn sources_that_were_not_read_are_looked_up_and_memory_is_bounded() {
    let mut uses = Uses::new(UseOf::Source("crm".to_owned()));
    let event = stored("response_generated", "w", &answered(&sent(), 0));
    assert_eq!(uses.needs(&event).unwrap(), "t.v1.external_data_fetched.s.w");
    uses.take(&stored("external_data_fetched", "w", &fetched(0)));
    let one = uses.take(&event).unwrap();
    assert_eq!((one.workflow.as_str(), one.session.as_str(), one.model.as_str()), ("w", "s", "gpt-1-0125"));
    let no_data = json!({"external": {}});
    for n in 0..50_100 {
        uses.take(&stored("external_data_fetched", &format!("w{n}"), &no_data));
    }
    assert!(uses.needs(&stored("response_generated", "w0", &json!({}))).is_some(), "forgotten");
    assert!(uses.needs(&stored("response_generated", "w50099", &json!({}))).is_none());
    assert_eq!(uses.names().collect::<Vec<_>>(), ["crm", "orders", "stock"]);
    let ns = Namespace::new("t").unwrap();
    let filters = UseOf::Model { name: "m".to_owned(), configured: None }.filters(&ns);
    assert_eq!(filters, ["t.v1.response_generated.>"], "nothing else is read");
}
