//! An independent client publishes every accepted form of user input to two worker processes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{Cluster, Settings, cluster::NAMESPACE, python};

/// What must follow a `user_input_received`, in the order of the journey.
const JOURNEY: [&str; 5] = [
    "input_validated",
    "context_retrieved",
    "external_data_fetched",
    "response_generated",
    "interaction_saved",
];
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_LIMIT_S: u64 = 30;

/// One message of the plan, what it asks the data sources for, and what its answer names.
struct Case {
    session: &'static str,
    message: Value,
    paths: &'static [&'static str],
    says: &'static str,
}

fn case(
    session: &'static str,
    text: &str,
    how: &Value,
    paths: &'static [&'static str],
    says: &'static str,
) -> Case {
    let mut message = json!({
        "form": "bare", "user": "demo", "session": session, "text": text, "id": format!("wf-{session}"),
        "id_in": "data", "ids_in": "data", "traceparent": null, "tokens": false, "metadata": null,
    });
    for (key, value) in how.as_object().expect("an object") {
        message[key] = value.clone();
    }
    Case { session, message, paths, says }
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let trace = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let structured = json!({"form": "structured", "id_in": "event"});
    let binary = json!({"form": "binary", "id_in": "event"});
    vec![
        case("s-hello", "Hello there", &json!({}), &["/customers/demo"], "I can help"),
        case("s-recent", "What is the status of my recent order?", &json!({"id_in": null}),
            &["/customers/demo", "/customers/demo/orders"], "#W10007"),
        case("s-header", "Has my PACKAGE been delivered?", &json!({"id_in": "header"}),
            &["/customers/demo", "/customers/demo/orders"], "#W10007"),
        case("s-trace", "Hi", &json!({"traceparent": trace}), &["/customers/demo"], "I can help"),
        case("s-several", "Where are #W10001, W10007 and #W10003?", &structured,
            &["/customers/demo", "/orders/%23W10001", "/orders/W10007", "/orders/%23W10003"], "#W10003"),
        case("s-product", "Is PROD-004 in stock?", &json!({"form": "structured", "id_in": "event", "ids_in": "event", "traceparent": trace}),
            &["/customers/demo", "/products/PROD-004"], "Heron Mechanical Keyboard"),
        case("s-default", "Tell me about your headphones", &binary,
            &["/customers/demo", "/products/PROD-001"], "Aurora"),
        case("s-everything", "Refund order #W10002 please, and what is the price of prod-003?",
            &json!({"form": "binary", "id_in": "event", "ids_in": "event", "traceparent": trace}),
            &["/customers/demo", "/customers/demo/orders", "/orders/%23W10002", "/products/prod-003"], "#W10002"),
        case("s-border", "I crossed the border and PROD-002 was with me", &json!({"id_in": "data", "tokens": true}),
            &["/customers/demo"], ""),
        case("s-too-many", "#W10001 #W10002 #W10003 #W10004 #W10005 #W10006 #W10001",
            &json!({"form": "structured", "id_in": "data"}),
            &["/customers/demo", "/orders/%23W10001", "/orders/%23W10002", "/orders/%23W10003", "/orders/%23W10004", "/orders/%23W10005"],
            "#W10005"),
        case("Sitzung für müller/1", "Guten Tag", &json!({"form": "binary", "id_in": "event", "ids_in": "event", "user": "müller/../x?y=1 %"}),
            &["/customers/m%C3%BCller%2F..%2Fx%3Fy%3D1%20%25"], "I can help"),
        case("s-metadata", "Hello again", &json!({"metadata": {"channel": "mail", "deep": {"n": [1, null]}}}),
            &["/customers/demo"], "I can help"),
        // The same message a second time, in another form: it runs once.
        case("s-hello", "Hello there", &json!({"form": "structured", "id_in": "event"}), &[], ""),
    ]
}

#[tokio::test]
async fn every_form_of_input_reaches_its_end_across_two_workers() {
    let Some(python) = python::with_nats() else { return };
    let Some(mut cluster) = Cluster::start(2, &Settings::new("")).await else { return };
    let cases = cases();
    let messages: Vec<_> = cases.iter().map(|case| &case.message).collect();
    let workflows: BTreeMap<_, _> = cases.iter().rev().map(|case| (case.session, case)).collect();
    let plan = json!({
        "url": cluster.nats.url(), "namespace": NAMESPACE, "messages": messages,
        "ends": workflows.len(), "limit_s": CLIENT_LIMIT_S,
    });
    let plan = plan.to_string();
    let seen =
        tokio::task::spawn_blocking(move || python::run(&python, "converse.py", &[], &plan)).await.unwrap();
    let events = seen["events"].as_array().unwrap();
    assert_eq!(seen["dead"], json!([]));

    let mut traces = BTreeSet::new();
    let mut ids = BTreeMap::new();
    for (session, case) in &workflows {
        let of_session: Vec<_> = events
            .iter()
            .filter(|seen| seen["event"]["sessionid"] == **session && kind(seen) != "user_input_received")
            .collect();
        let kinds: Vec<_> = of_session.iter().map(|seen| kind(seen)).collect();
        assert_eq!(kinds, JOURNEY, "{session}: one of each, in order");
        let workflow = of_session[0]["event"]["workflowid"].as_str().unwrap();
        if case.message["id_in"].is_null() {
            assert_eq!(uuid::Uuid::parse_str(workflow).unwrap().get_version_num(), 7, "{workflow}");
        } else {
            assert_eq!(workflow, case.message["id"]);
        }
        ids.insert(workflow.to_owned(), *session);
        let mut cause = match case.message["form"].as_str() {
            Some("bare") => format!("{workflow}.user_input_received"),
            _ => case.message["id"].as_str().unwrap().to_owned(),
        };
        let trace = trace_id(of_session[0]);
        for seen in &of_session {
            check_envelope(seen, &case.message, workflow);
            assert_eq!(trace_id(seen), trace, "{session}: one trace");
            assert_eq!(seen["event"]["causationid"], cause.as_str());
            seen["event"]["id"].as_str().unwrap().clone_into(&mut cause);
        }
        if case.message["traceparent"].is_null() {
            assert!(traces.insert(trace.to_owned()), "{session} shares a trace with another workflow");
        } else {
            assert_eq!(trace, TRACE, "{session}: the publisher's trace");
        }
        let saved = &of_session[4]["event"]["data"];
        let text = saved["response"]["text"].as_str().unwrap();
        assert!(text.contains(case.says), "{session}: {text}");
        assert!(saved["interaction_id"].as_str().is_some_and(|id| !id.is_empty()));
        check_generated(&of_session[3]["event"]["data"], text);
    }
    assert_eq!(ids.len(), workflows.len());

    let (asked, model_calls) = cluster.stand_ins.asked().await;
    let mut wanted: Vec<_> =
        workflows.values().flat_map(|case| case.paths).map(|&path| path.to_owned()).collect();
    wanted.sort_unstable();
    assert_eq!(asked, wanted, "exactly the calls that the texts ask for");
    assert_eq!(model_calls, workflows.len());

    let rows = cluster.rows();
    assert_eq!(rows.len(), workflows.len());
    for row in rows {
        let session = ids[row["workflow_id"].as_str().unwrap()];
        let message = &workflows[session].message;
        assert_eq!((&row["session_id"], &row["user_id"]), (&message["session"], &message["user"]));
        assert_eq!(row["input"], message["text"]);
        assert!(row["response"].as_str().unwrap().contains(workflows[session].says));
        assert_eq!(row["model"], "sandbox-small");
        assert!(row["input_tokens"].as_u64().unwrap() > 0 && row["output_tokens"].as_u64().unwrap() > 0);
        let metadata: Value = serde_json::from_str(row["metadata"].as_str().unwrap()).unwrap();
        let sent = if message["metadata"].is_null() { json!({}) } else { message["metadata"].clone() };
        assert_eq!(metadata, sent);
    }
    cluster.assert_workers_run();
}

fn kind(seen: &Value) -> &str {
    seen["subject"].as_str().unwrap().split('.').nth(2).unwrap()
}

fn trace_id(seen: &Value) -> &str {
    seen["event"]["traceparent"].as_str().unwrap().split('-').nth(1).unwrap()
}

/// What a CloudEvents reader relies on.
fn check_envelope(seen: &Value, message: &Value, workflow: &str) {
    let event = &seen["event"];
    let kind = kind(seen);
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["type"], kind);
    assert_eq!(event["datacontenttype"], "application/json");
    assert_eq!(event["dataschema"], format!("urn:throughline:event:{kind}:v1"));
    assert_eq!(event["workflowid"], workflow);
    assert_eq!(event["sessionid"], message["session"]);
    assert_eq!(event["userid"], message["user"]);
    assert_eq!(event["attempt"], 1);
    for attribute in ["id", "source", "subject", "traceparent", "causationid"] {
        assert!(event[attribute].as_str().is_some_and(|text| !text.is_empty()), "{attribute}: {event}");
    }
    let time = event["time"].as_str().unwrap();
    time::OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339).expect(time);
    assert!(event["data"].is_object());
    // Extension attributes are lower-case letters and digits.
    for name in event.as_object().unwrap().keys() {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{name}");
    }
    let header = seen["headers"]["traceparent"].as_str().expect("a traceparent header");
    assert_eq!(header, event["traceparent"]);
}

fn check_generated(data: &Value, text: &str) {
    assert_eq!(data["response"]["text"], text);
    assert_eq!(data["response"]["model"], "sandbox-small");
    assert_eq!(data["response"]["finish_reason"], "stop");
    for count in ["input_tokens", "output_tokens", "cached_input_tokens"] {
        assert!(data["usage"][count].is_u64(), "{count}: {data}");
    }
    let cost: rust_decimal::Decimal = data["cost_usd"].as_str().expect("a decimal string").parse().unwrap();
    assert!(cost > rust_decimal::Decimal::ZERO);
    let attempts = data["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0]["http_status"], 200);
    assert!(attempts[0]["request_id"].as_str().is_some_and(|id| id.starts_with("req_")));
    assert!(data["prompt"]["messages"].as_array().is_some_and(|messages| messages.len() >= 2));
    assert!(data["raw_response"]["choices"].is_array());
}
