//! One workflow from its input to its end: the three forms of input, bad input, and the same input twice.

use throughline_schemas::{
    EventData, EventType, FailureCode, StageName, dead_letter, event::external::SourceStatus,
};

use crate::harness::{JOURNEY, PROVIDER, Rig, id, session, user};

#[tokio::test(start_paused = true)]
async fn a_question_about_an_order_is_answered_from_the_order() {
    let (rig, _worker) = Rig::running().await;
    let preferences = serde_json::json!({"language": "en"});
    rig.store.set_preferences(&user("ada"), preferences.as_object().unwrap());
    let workflow = rig.publish("w1", "s1", "  Where is my order?\r\n");
    let saved = rig.saved(&workflow).await;

    assert_eq!(rig.types(&workflow), JOURNEY, "exactly one of each event, in this order");
    assert_eq!(saved.response.text, "re: Where is my order?", "the text is normalised");
    let calls = ["user_profile", "order_history", "product_info"].map(|source| rig.sources.calls(source));
    assert_eq!(calls, [1, 1, 0], "the text asks for the profile and the orders, not for a product");
    assert_eq!(rig.models.calls(PROVIDER), 1);

    let prompt = rig.generated(&workflow).prompt;
    let data = &prompt.messages[prompt.messages.len() - 2].content;
    assert!(data.contains(r#""status":"shipped""#), "the prompt has the order: {data}");
    assert!(data.contains(r#""language":"en""#), "and the preferences: {data}");

    let row = rig.store.interaction(&workflow).expect("one row");
    assert_eq!(rig.store.interactions(), 1);
    assert_eq!(row.interaction_id, saved.interaction_id);
    assert_eq!((row.user_id, row.session_id), (user("ada"), session("s1")));
    assert_eq!(row.request.user_input, "Where is my order?");
    assert_eq!(row.cost_usd.map(|cost| cost.to_string()), saved.cost_usd.map(|cost| cost.to_string()));
    rig.pass(crate::harness::ACK_WAIT * 2).await;
    rig.assert_idle();
    assert_eq!(rig.types(&workflow), JOURNEY, "nothing comes again");
}

#[tokio::test(start_paused = true)]
async fn each_event_names_its_cause_and_carries_what_the_next_stage_needs() {
    let (rig, _worker) = Rig::running().await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    rig.publish_raw(
        &[("traceparent", traceparent)],
        r#"{"user_id":"ada","session_id":"s1","workflow_id":"w1","user_input":"hello","metadata":{"channel":"web"}}"#,
    );
    let workflow = id("w1");
    rig.saved(&workflow).await;

    let mut cause = "w1.user_input_received".to_owned();
    let mut spans = vec![0x00f0_67aa_0ba9_02b7];
    for event in rig.events(&workflow) {
        let name = event.event_type();
        assert_eq!(event.meta.causation_id.as_deref(), Some(cause.as_str()), "cause of {name}");
        assert_eq!(event.meta.id, format!("w1.{name}"), "ids are deterministic");
        assert_eq!(
            format!("{:032x}", event.meta.traceparent.trace_id()),
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "{name}"
        );
        assert!(!spans.contains(&event.meta.traceparent.span_id()), "{name} has a span of its own");
        spans.push(event.meta.traceparent.span_id());
        cause = event.meta.id;
        let request = match event.data {
            EventData::InputValidated(data) => data.request,
            EventData::ContextRetrieved(data) => data.request,
            EventData::ExternalDataFetched(data) => data.request,
            EventData::ResponseGenerated(data) => data.request,
            EventData::InteractionSaved(data) => {
                assert_eq!(data.response.text, "re: hello");
                continue;
            }
            EventData::UserInputReceived(_) | EventData::WorkflowFailed(_) => panic!("unexpected {name}"),
        };
        assert_eq!(request.user_input, "hello", "{name} carries the request");
        assert_eq!(request.metadata["channel"], "web", "{name} carries the metadata");
        assert_eq!(request.input_sequence, 1, "{name} carries the place in the stream");
    }
    let model_call = &rig.models.requests()[0];
    assert_eq!(format!("{:032x}", model_call.traceparent.trace_id()), "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[tokio::test(start_paused = true)]
async fn the_next_question_of_a_session_sees_the_earlier_turn() {
    let (rig, _worker) = Rig::running().await;
    rig.saved(&rig.publish("w1", "s1", "first")).await;
    rig.saved(&rig.publish("w2", "s1", "second")).await;
    let prompt = rig.generated(&id("w2")).prompt.messages;
    let said: Vec<_> = prompt.iter().map(|message| message.content.as_str()).collect();
    let first = said.iter().position(|text| *text == "first").expect("the earlier question");
    assert_eq!(said[first + 1], "re: first");
    assert_eq!(said.last(), Some(&"second"));
}

#[tokio::test(start_paused = true)]
async fn three_forms_of_the_same_input_run_alike() {
    let (rig, _worker) = Rig::running().await;
    rig.publish_raw(&[], r#"{"user_id":"ada","session_id":"s1","workflow_id":"bare","user_input":"hello"}"#);
    rig.publish_raw(
        &[("Content-Type", "application/cloudevents+json")],
        r#"{"specversion":"1.0","id":"structured","source":"/app","type":"user_input_received",
            "data":{"user_id":"ada","session_id":"s2","user_input":"hello"}}"#,
    );
    rig.publish_raw(
        &[
            ("ce-specversion", "1.0"),
            ("ce-type", "user_input_received"),
            ("ce-id", "binary"),
            ("ce-source", "/app"),
        ],
        r#"{"user_id":"ada","session_id":"s3","user_input":"hello"}"#,
    );
    let without_id = rig.publish_raw(&[], r#"{"user_id":"ada","session_id":"s4","user_input":"hello"}"#);
    for workflow in ["bare", "structured", "binary"].map(id) {
        assert_eq!(rig.saved(&workflow).await.response.text, "re: hello", "{workflow}");
        assert_eq!(rig.types(&workflow), JOURNEY, "{workflow}");
    }
    let given = rig
        .bus
        .wait_until(|bus| bus.events().into_iter().find(|event| event.meta.session_id == session("s4")));
    let given = given.await.meta.workflow_id;
    rig.saved(&given).await;
    assert_eq!(given.as_str().len(), 36, "message {without_id} got a UUID: {given}");
}

#[tokio::test(start_paused = true)]
async fn a_message_without_an_id_gets_the_same_one_from_the_next_worker() {
    let rig = Rig::new();
    let doomed = rig.worker().await;
    doomed.gate.once(crate::harness::Op::Settle, "input", crate::harness::Act::Die);
    rig.publish_raw(&[], r#"{"user_id":"ada","session_id":"s1","user_input":"hello"}"#);
    doomed.gate.died().await;
    let _other = rig.worker().await;
    rig.pass(crate::harness::ACK_WAIT * 3).await;
    assert_eq!(rig.store.interactions(), 1, "one message, one workflow, whoever reads it");
}

#[tokio::test(start_paused = true)]
async fn invalid_input_is_told_everything_that_is_wrong_and_the_next_is_served() {
    let (rig, _worker) = Rig::running().await;
    let long = "x".repeat(4_001);
    let cases = [
        ("missing", r#"{"workflow_id":"missing"}"#.to_owned(), vec!["user_id is missing", "session_id is missing", "user_input is missing"]),
        ("types", r#"{"workflow_id":"types","user_id":7,"session_id":"s1","user_input":["x"],"metadata":"no"}"#.to_owned(), vec!["user_id must be a string", "user_input must be a string", "metadata must be an object"]),
        ("empty", r#"{"workflow_id":"empty","user_id":"ada","session_id":"s1","user_input":" \n "}"#.to_owned(), vec!["user_input is empty"]),
        ("long", format!(r#"{{"workflow_id":"long","user_id":"ada","session_id":"s1","user_input":"{long}"}}"#), vec!["4001 bytes", "at most 4000"]),
        ("version", r#"{"specversion":"1.0","id":"version","source":"/x","type":"user_input_received","dataschema":"urn:throughline:event:user_input_received:v2","data":{"user_id":"ada","session_id":"s1","user_input":"x"}}"#.to_owned(), vec!["names a version", "it reads v1"]),
    ];
    for (name, body, complaints) in cases {
        rig.publish_raw(&[], &body);
        let failed = rig.failed(&id(name)).await;
        assert_eq!((failed.code, failed.stage), (FailureCode::InvalidInput, StageName::Input), "{name}");
        assert!(!failed.retryable && !failed.may_have_happened, "{name}: {failed:?}");
        for complaint in complaints {
            assert!(
                failed.message.contains(complaint),
                "{name} should say {complaint:?}: {}",
                failed.message
            );
        }
        assert_eq!(rig.types(&id(name)), [EventType::WorkflowFailed], "{name}");
    }
    rig.saved(&rig.publish("good", "s1", "hello")).await;
    assert_eq!(rig.store.interactions(), 1);
    assert_eq!(rig.models.calls(PROVIDER), 1, "no model is asked about invalid input");
    assert_eq!(rig.meters.count("throughline_workflows_failed_total", &[("code", "invalid_input")]), 5);
    assert_eq!(rig.meters.count("throughline_workflows_saved_total", &[]), 1);
    assert!(rig.bus.dead_letters().is_empty(), "what can be answered is not buried");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_dead_lettered_as_it_came_and_the_next_is_served() {
    let (rig, _worker) = Rig::running().await;
    let bodies: [&[u8]; 5] = [b"", b"{\"user_id\":", b"[1,2]", b"\xff\xfe\x00", b"just text"];
    for body in bodies {
        let subject = rig.bus.namespace().bare_input();
        rig.bus.publish_raw(&subject, &[("X-Trace", "abc")], body);
    }
    rig.saved(&rig.publish("good", "s1", "hello")).await;
    let dead = rig.bus.until_dead_letters(bodies.len()).await;
    for (letter, body) in dead.iter().zip(bodies) {
        assert_eq!(letter.body, body, "the original bytes");
        assert_eq!(letter.header("X-Trace"), Some("abc"), "the original headers");
        assert_eq!(letter.header(dead_letter::CODE), Some("invalid_input"));
        assert_eq!(letter.header(dead_letter::STAGE), Some("input"));
        assert!(
            letter.header(dead_letter::ERROR).is_some_and(|error| error.contains("the message is")),
            "{letter:?}"
        );
    }
    rig.pass(crate::harness::ACK_WAIT * 2).await;
    assert_eq!(rig.bus.dead_letters().len(), bodies.len(), "each is buried once");
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn the_same_workflow_id_runs_once() {
    let (rig, _worker) = Rig::running().await;
    let workflow = rig.publish("w1", "s1", "hello");
    rig.publish("w1", "s1", "hello");
    rig.publish("w1", "s1", " "); // invalid
    rig.saved(&workflow).await;
    rig.publish("w1", "s1", "hello, long after");
    rig.publish("w1", "s1", "");
    rig.saved(&rig.publish("w2", "s1", "the session goes on")).await;
    assert_eq!(rig.types(&workflow), JOURNEY, "one run, one end");
    assert_eq!(rig.models.calls(PROVIDER), 2);
    assert_eq!(rig.store.interactions(), 2);
    assert_eq!(rig.meters.count("throughline_duplicate_inputs_total", &[]), 1);
    assert_eq!(
        rig.meters.count("throughline_conflicts_total", &[]),
        3,
        "what says something else is refused"
    );
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_refused_stays_refused() {
    let (rig, _worker) = Rig::running().await;
    let workflow = rig.publish("w1", "s1", "");
    rig.failed(&workflow).await;
    rig.publish("w1", "s1", "now with text");
    rig.saved(&rig.publish("w2", "s1", "hello")).await;
    assert_eq!(rig.types(&workflow), [EventType::WorkflowFailed]);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_version_to_come_is_dead_lettered_and_others_pass() {
    let (rig, _worker) = Rig::running().await;
    let subject = "throughline.v1.context_retrieved.s9.w9";
    rig.bus.publish_raw(
        subject,
        &[],
        r#"{"specversion":"1.0","dataschema":"urn:throughline:event:context_retrieved:v9"}"#,
    );
    let dead = rig.bus.until_dead_letters(1).await;
    assert_eq!(dead[0].header(dead_letter::CODE), Some("unreadable_event"));
    rig.saved(&rig.publish("w1", "s1", "hello")).await;
}

#[tokio::test(start_paused = true)]
async fn preferences_of_the_profile_are_added_and_what_the_user_told_us_wins() {
    let (rig, _worker) = Rig::running().await;
    rig.sources.always(
        "user_profile",
        Ok(serde_json::json!({"preferences": {"tone": "formal", "currency": "EUR"}})),
    );
    let known = serde_json::json!({"tone": "brief"});
    rig.store.set_preferences(&user("ada"), known.as_object().unwrap());
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    let fetched = rig.fetched(&workflow);
    assert_eq!(fetched.context.preferences["tone"], "brief");
    assert_eq!(fetched.context.preferences["currency"], "EUR");
    let status = |name: &str| fetched.external[name].status;
    assert_eq!(
        ["user_profile", "order_history", "product_info"].map(status),
        [SourceStatus::Ok, SourceStatus::Skipped, SourceStatus::Skipped]
    );
}
