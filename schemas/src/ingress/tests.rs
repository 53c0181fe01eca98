#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;

const SUBJECT: &str = "throughline.v1.user_input_received";
const LIMITS: IngressLimits = IngressLimits { max_input_bytes: 100, max_metadata_bytes: 50 };

fn read(
    body: &str,
    headers: &[(&'static str, &'static str)],
) -> Result<Result<Ingress, Box<Refused>>, IngressError> {
    let header = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    Ingress::read(SUBJECT, body.as_bytes(), header, WorkflowId::new("fallback").unwrap(), &LIMITS)
}

fn refusal(body: &str) -> String {
    match read(body, &[]) {
        Ok(Err(refused)) => refused.message,
        other => panic!("expected a refusal of {body}, got {other:?}"),
    }
}

#[test]
fn the_same_input_in_three_forms_reads_alike() {
    let bare = r#"{"user_id":"u","session_id":"s","user_input":" hi\r\nthere ","workflow_id":"w"}"#;
    let structured = r#"{"specversion":"1.0","type":"user_input_received","source":"x","id":"w",
        "data":{"user_id":"u","session_id":"s","user_input":"hi\nthere"}}"#;
    let data = r#"{"user_input":"hi\nthere"}"#;
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-type", "user_input_received"),
        ("ce-id", "w"),
        ("ce-source", "%78"),
        ("ce-userid", "u"),
        ("ce-sessionid", "%73"),
    ];
    let bare = read(bare, &[]).unwrap().unwrap();
    assert_eq!(bare.user_input, "hi\nthere");
    assert_eq!((bare.event_id.as_deref(), bare.source.as_deref()), (None, None));
    let event = Ingress { event_id: Some("w".to_owned()), source: Some("x".to_owned()), ..bare };
    assert_eq!(read(structured, &[]).unwrap().unwrap(), event);
    assert_eq!(read(data, &headers).unwrap().unwrap(), event);
}

#[test]
fn the_workflow_id_is_the_data_s_then_the_event_s_then_the_message_s_then_the_fallback() {
    let id = |body: &str, headers| read(body, headers).unwrap().unwrap().workflow_id.to_string();
    let ce = r#"{"specversion":"1.0","type":"user_input_received","id":"ce","data":{"user_id":"u","session_id":"s","user_input":"x"}}"#;
    let ce_and_data = &ce.replace(r#""user_id""#, r#""workflow_id":"data","user_id""#);
    let bare = r#"{"user_id":"u","session_id":"s","user_input":"x"}"#;
    assert_eq!(id(ce_and_data, &[("nats-msg-id", "msg")]), "data");
    assert_eq!(id(ce, &[("nats-msg-id", "msg")]), "ce");
    assert_eq!(id(bare, &[("nats-msg-id", "msg")]), "msg");
    assert_eq!(id(bare, &[]), "fallback");
}

#[test]
fn a_source_counts_only_where_the_event_s_id_is_the_workflow_s() {
    let source = |body: &str, headers: &[_]| read(body, headers).unwrap().unwrap().source;
    let event = r#"{"specversion":"1.0","type":"user_input_received","source":"/shop","id":"ce",
        "data":{"user_id":"u","session_id":"s","user_input":"x"}}"#;
    assert_eq!(source(event, &[]).as_deref(), Some("/shop"));
    let names_its_workflow = &event.replace(r#""user_id""#, r#""workflow_id":"data","user_id""#);
    assert_eq!(source(names_its_workflow, &[]), None);
    let has_no_id = &event.replace(r#""id":"ce","#, "");
    assert_eq!(source(has_no_id, &[("nats-msg-id", "msg")]), None);
    let refused =
        read(&event.replace(r#""user_input":"x""#, r#""user_input":"""#), &[]).unwrap().unwrap_err();
    assert_eq!(refused.source.as_deref(), Some("/shop"));
}

#[test]
fn everything_wrong_is_said_at_once() {
    assert_eq!(refusal("{}"), "user_id is missing; session_id is missing; user_input is missing");
    assert_eq!(
        refusal(r#"{"user_id":7,"session_id":"","user_input":[],"metadata":"no"}"#),
        "user_id must be a string, it is a number; session_id is empty; give it at least one character; \
         user_input must be a string, it is an array; metadata must be an object, it is a string"
    );
    let long = format!(r#"{{"user_id":"u","session_id":"s","user_input":"{}"}}"#, "x".repeat(101));
    assert_eq!(refusal(&long), "user_input is 101 bytes long; at most 100 are allowed");
    assert_eq!(refusal(r#"{"user_id":"u","session_id":"s","user_input":" \n "}"#), "user_input is empty");
}

#[test]
fn other_versions_and_types_are_refused() {
    let event = |spec: &str, kind: &str, schema: &str| {
        refusal(&format!(
            r#"{{"specversion":"{spec}","type":"{kind}","id":"i","dataschema":"{schema}",
            "data":{{"user_id":"u","session_id":"s","user_input":"x"}}}}"#
        ))
    };
    assert!(event("0.3", "user_input_received", "").contains("specversion \"0.3\""));
    assert!(event("1.0", "interaction_saved", "").contains("must be \"user_input_received\""));
    let schema = "urn:throughline:event:user_input_received:v2";
    assert!(event("1.0", "user_input_received", schema).contains("names a version"));
}

#[test]
fn what_is_not_an_object_is_unreadable() {
    for body in ["", "nope", "[1]", "\"text\"", "{\"a\":", &"[".repeat(10_000)] {
        assert!(read(body, &[]).is_err(), "{body}");
    }
}

#[test]
fn what_to_do_in_a_busy_session_is_one_of_four_words_or_left_to_the_configuration() {
    let input = |when_busy: &str| {
        format!(r#"{{"user_id":"u","session_id":"s","user_input":"x","when_busy":{when_busy}}}"#)
    };
    let read = |when_busy: &str| read(&input(when_busy), &[]).unwrap().unwrap().when_busy;
    for known in WhenBusy::ALL {
        assert_eq!(read(&format!("{:?}", known.as_str())), Some(known));
    }
    assert_eq!(read("null"), None);
    let message = refusal(&input(r#""Interrupt""#));
    assert_eq!(message, r#"when_busy: "Interrupt" is not enqueue, reject, interrupt or merge"#);
    assert_eq!(refusal(&input("true")), "when_busy must be a string, it is a boolean");
}
