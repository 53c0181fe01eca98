//! What publishers really send: it is taken as it came, or refused with an end that its publisher hears.

use throughline_schemas::{EventData, EventType, FailureCode, MAX_DEPTH, StageName, WorkflowFailed, token};

use crate::harness::{ACK_WAIT, JOURNEY, PROVIDER, Rig, id, session, user};

/// The end that stands where a publisher listens that sent these ids, whatever they are.
async fn refused(rig: &Rig, session: &str, workflow: &str) -> WorkflowFailed {
    let (session, workflow) = (token(session), token(workflow));
    let subject = format!("throughline.v1.workflow_failed.{session}.{workflow}");
    let end = rig.bus.wait_until(|bus| {
        let ns = bus.namespace().clone();
        bus.events().into_iter().find(|event| event.subject().live(&ns) == subject)
    });
    let end = tokio::time::timeout(ACK_WAIT, end).await;
    match end.unwrap_or_else(|_| panic!("nobody hears of {subject}")).data {
        EventData::WorkflowFailed(failed) => failed,
        other => panic!("{subject} has {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_clear_is_taken() {
    let (rig, _worker) = Rig::running().await;
    let cases: [(&str, &[u8], &str); 6] = [
        ("cut", br#"{"user_id":"ada","session_id":"s1","workflow_id":"cut","user_input":"Hi \ud83d"}"#, "Hi \u{fffd}"),
        ("pair", br#"{"user_id":"ada","session_id":"s2","workflow_id":"pair","user_input":"Hi \ud83d\ude00"}"#, "Hi 😀"),
        ("python", b"{\"user_id\":\"ada\",\"session_id\":\"s3\",\"workflow_id\":\"python\",\"user_input\":\"Hi \xed\xa0\xbd\"}", "Hi \u{fffd}"),
        ("bom", b"\xef\xbb\xbf{\"user_id\":\"ada\",\"session_id\":\"s4\",\"workflow_id\":\"bom\",\"user_input\":\"Hi\"}", "Hi"),
        ("within", "{\"user_id\":\"ada\",\"session_id\":\"s5\",\"workflow_id\":\"within\",\"user_input\":\"a\u{feff}b\"}".as_bytes(), "a\u{feff}b"),
        ("event", b"\xef\xbb\xbf{\"specversion\":\"1.0\",\"id\":\"event\",\"source\":\"/x\",\"type\":\"user_input_received\",\"data\":{\"user_id\":\"ada\",\"session_id\":\"s6\",\"user_input\":\"\\ude00 Hi\"}}", "\u{fffd} Hi"),
    ];
    for (name, body, text) in cases {
        rig.bus.publish_raw(&rig.bus.namespace().bare_input(), &[], body);
        rig.saved(&id(name)).await;
        assert_eq!(rig.types(&id(name)), JOURNEY, "{name}");
        assert_eq!(rig.store.interaction(&id(name)).expect("a row").request.user_input, text, "{name}");
    }
    assert!(rig.bus.dead_letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn half_characters_are_mended_wherever_they_stand() {
    let (rig, _worker) = Rig::running().await;
    rig.publish_raw(
        &[],
        r#"{"user_id":"ada\ud83d","session_id":"s\ude00","workflow_id":"w\ud83d","user_input":"Hi",
            "metadata":{"k\ud83d":["\ude00",{"deep":"\ud83d\ude00"}]}}"#,
    );
    let workflow = id("w\u{fffd}");
    rig.saved(&workflow).await;
    let row = rig.store.interaction(&workflow).expect("a row");
    assert_eq!((row.user_id, row.session_id), (user("ada\u{fffd}"), session("s\u{fffd}")));
    assert_eq!(row.request.metadata["k\u{fffd}"], serde_json::json!(["\u{fffd}", {"deep": "😀"}]));
}

#[tokio::test(start_paused = true)]
async fn numbers_are_handed_on_digit_by_digit() {
    let (rig, _worker) = Rig::running().await;
    let metadata =
        r#"{"id":12345678901234567890123,"n":[0.1000000000000000055,1e400,-0,[1.50]],"channel":"web"}"#;
    let bare = format!(
        r#"{{"user_id":"ada","session_id":"s1","workflow_id":"w1","user_input":"Hi","metadata":{metadata}}}"#
    );
    rig.publish_raw(&[], &bare);
    rig.publish_raw(
        &[],
        &format!(
            r#"{{"specversion":"1.0","id":"w2","source":"/x","type":"user_input_received","data":{}}}"#,
            bare.replace("w1", "w2")
        ),
    );
    for workflow in ["w1", "w2"].map(id) {
        rig.saved(&workflow).await;
        let row = rig.store.interaction(&workflow).expect("a row");
        assert_eq!(row.request.metadata.as_str(), metadata, "{workflow}");
        let events = rig.events(&workflow);
        let carried: Vec<_> = events.iter().filter_map(|event| event.data.request()).collect();
        assert_eq!(carried.len(), 4);
        for request in carried {
            assert_eq!(request.metadata.as_str(), metadata, "{workflow}");
            assert_eq!(
                request.metadata["id"], "12345678901234567890123",
                "who looks into it sees the digits"
            );
            assert_eq!(request.metadata["n"][3][0], 1.5);
        }
    }
    assert!(rig.verify().await.is_empty(), "made once more, they are the same");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_and_names_its_workflow_ends() {
    let (rig, _worker) = Rig::running().await;
    let nested = |levels: usize| {
        let levels = levels - 2;
        format!(r#""metadata":{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
    };
    let bare = |workflow: &str, rest: &str| {
        let ids = format!(r#""user_id":"ada","session_id":"s1","workflow_id":"{workflow}""#);
        format!(r#"{{{ids},"user_input":"Hi",{rest}}}"#)
    };
    let latin1 = bare("latin1", r#""metadata":{"a":"gr~n"}"#);
    let latin1 = latin1.bytes().map(|byte| if byte == b'~' { 0xfc } else { byte }).collect();
    let utf16 = format!("\u{feff}{}", bare("utf16", r#""x":1"#));
    let utf16 = utf16.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let event = r#"{"specversion":"1.0","id":"event","sessionid":"s1","userid":"ada","data":{"x":NaN}}"#;
    let cases: [(&str, Vec<u8>, &str); 9] = [
        (
            "nan",
            bare("nan", r#""metadata":{"scores":[1,NaN]}"#).into(),
            "metadata.scores[1] is NaN at line 1",
        ),
        ("infinity", bare("infinity", r#""metadata":{"a":-Infinity}"#).into(), "metadata.a is -Infinity"),
        ("comma", bare("comma", "").into(), "not JSON that can be read: "),
        ("cut", bare("cut", r#""metadata":{"a":"b"#).into(), "not JSON"),
        ("mark", bare("mark", "\u{feff}").into(), "a byte order mark stands at"),
        ("deep", bare("deep", &nested(MAX_DEPTH + 1)).into(), "nested more than 100 levels deep"),
        ("latin1", latin1, "not UTF-8 at line 1"),
        ("utf16", utf16, "UTF-16"),
        ("event", event.into(), "data.x is NaN"),
    ];
    for (name, body, said) in cases {
        rig.bus.publish_raw(&rig.bus.namespace().bare_input(), &[], body);
        let failed = refused(&rig, "s1", name).await;
        assert_eq!((failed.code, failed.stage), (FailureCode::InvalidInput, StageName::Input), "{name}");
        assert!(failed.message.contains(said), "{name}: {}", failed.message);
        assert_eq!(rig.types(&id(name)), [EventType::WorkflowFailed], "{name}");
        assert_eq!(
            rig.bus.event(EventType::WorkflowFailed, &id(name)).expect("told").meta.user_id,
            user("ada")
        );
    }
    rig.publish_raw(&[], &bare("deep-enough", &nested(MAX_DEPTH)));
    rig.saved(&id("deep-enough")).await;
    assert!(rig.bus.dead_letters().is_empty(), "what can be answered is not buried");
    assert_eq!(rig.models.calls(PROVIDER), 1);
    assert_eq!(rig.meters.count("throughline_workflows_failed_total", &[("code", "invalid_input")]), 9);
    rig.pass(ACK_WAIT).await;
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn a_header_or_the_subject_names_the_workflow_of_what_is_nothing() {
    let (rig, _worker) = Rig::running().await;
    let bare = rig.bus.namespace().bare_input();
    rig.bus.publish_raw(&bare, &[("Nats-Msg-Id", "by-id")], "");
    assert!(refused(&rig, "unknown", "by-id").await.message.contains("the message is empty"));
    rig.bus.publish_raw(
        &bare,
        &[("ce-specversion", "1.0"), ("ce-id", "by%2Devent"), ("ce-sessionid", "s1")],
        "[1, 2]",
    );
    assert!(refused(&rig, "s1", "by-event").await.message.contains("an array"));
    rig.bus.publish_raw(&format!("{bare}.s2.by-subject"), &[], "Where is my order?");
    assert!(refused(&rig, "s2", "by-subject").await.message.contains("not JSON"));
    rig.bus.publish_raw(&format!("{bare}.s3.by-subject"), &[], r#"{"user_id":"ada"}"#);
    assert!(refused(&rig, "s3", "by-subject").await.message.contains("session_id is missing"));
    let nobody = format!("{bare}.{}.{}", token("a b"), token("c d"));
    rig.bus.publish_raw(&nobody, &[], "Where is my order?");
    assert_eq!(rig.bus.until_dead_letters(1).await.len(), 1, "a hash names nobody");
    rig.bus.publish_raw(&bare, &[("Nats-Msg-Id", "letter-retry-2"), ("Throughline-Retry-Of", "2")], "hello");
    assert_eq!(rig.bus.until_dead_letters(2).await.len(), 2, "what is tried again is kept again");
    rig.pass(ACK_WAIT).await;
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn ids_that_cannot_be_used_are_refused_where_their_publisher_listens() {
    let (rig, _worker) = Rig::running().await;
    let long = "w".repeat(64 << 10);
    let cases = [
        ("s1", long.as_str(), "workflow_id is 65536 bytes long"),
        (long.as_str(), "w1", "session_id is 65536 bytes long"),
        ("s1", "", "workflow_id is empty"),
        ("", "w2", "session_id is empty"),
        ("s1", "a\0b", "workflow_id contains a NUL"),
        ("a\0b", "w3", "session_id contains a NUL"),
    ];
    for (session, workflow, said) in cases {
        let body = serde_json::json!({"user_id": "ada", "session_id": session, "workflow_id": workflow, "user_input": "Hi"});
        rig.publish_raw(&[], &body.to_string());
        let failed = refused(&rig, session, workflow).await;
        assert_eq!(failed.code, FailureCode::InvalidInput);
        assert!(failed.message.contains(said), "{}", failed.message);
    }
    rig.publish_raw(&[("Nats-Msg-Id", &long)], r#"{"user_id":"ada","session_id":"s9","user_input":"Hi"}"#);
    assert!(refused(&rig, "s9", &long).await.message.contains("the Nats-Msg-Id header is 65536 bytes long"));
    rig.publish_raw(&[], r#"{"user_id":42,"session_id":7,"workflow_id":1e3,"user_input":"Hi"}"#);
    assert!(refused(&rig, "7", "1e3").await.message.contains("workflow_id must be a string, it is a number"));
    rig.saved(&rig.publish("good", "s1", "hello")).await;
    assert!(rig.bus.dead_letters().is_empty());
    rig.pass(ACK_WAIT).await;
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn two_members_with_one_name_are_believed_by_nobody() {
    let (rig, _worker) = Rig::running().await;
    rig.publish_raw(
        &[],
        r#"{"user_id":"ada","user_id":"eve","session_id":"s1","workflow_id":"w1","user_input":"Hi"}"#,
    );
    assert!(refused(&rig, "s1", "w1").await.message.contains("user_id is there more than once"));
    rig.publish_raw(
        &[],
        r#"{"user_id":"ada","session_id":"s1","workflow_id":"w2","user_input":"Hi","metadata":{"b":1,"model":"x","model":"y"}}"#,
    );
    assert!(
        refused(&rig, "s1", "w2").await.message.contains("metadata has a member \"model\" more than once")
    );
}

#[tokio::test(start_paused = true)]
async fn a_broken_message_ends_nobody_elses_workflow() {
    let (rig, _worker) = Rig::running().await;
    let workflow = rig.publish("w1", "s1", "hello");
    let broken = r#"{"user_id":"ada","session_id":"s1","workflow_id":"w1","user_input":"hello","x":NaN}"#;
    let sequence = rig.publish_raw(&[], broken);
    rig.saved(&workflow).await;
    assert_eq!(rig.types(&workflow), JOURNEY, "one run, one end");
    let told = format!("w1-conflict-{sequence}");
    assert!(refused(&rig, "s1", &told).await.message.contains("x is NaN"), "its publisher hears why");

    // The other way round: what was refused stays so, and whoever says the same again hears the same.
    rig.publish_raw(&[], &broken.replace("w1", "w2"));
    refused(&rig, "s1", "w2").await;
    rig.publish_raw(&[], &broken.replace("w1", "w2"));
    rig.pass(ACK_WAIT).await;
    assert_eq!(rig.types(&id("w2")), [EventType::WorkflowFailed]);
    rig.pass(ACK_WAIT).await;
    rig.assert_idle();
}
