//! Bad input of every kind ends in a `workflow_failed` or a dead letter that says what was wrong, and the next
//! message is served as if nothing had happened.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::json;

use crate::harness::{
    Cluster, Figures, Log, Program, SOON, Seen, Settings,
    cluster::{BARE, message},
    process::throughline,
};

const SESSION: &str = "unlucky";

/// How a message must end.
#[derive(Clone, Copy)]
enum End {
    /// `workflow_failed` with code `invalid_input` and a message that says this.
    Failed(&'static str),
    /// A dead letter whose error says this, if nothing names its workflow; `Failed` otherwise.
    Dead(&'static str),
    Saved,
}
use End::{Dead, Failed, Saved};

fn bare(data: &serde_json::Value) -> Vec<u8> {
    data.to_string().into_bytes()
}

fn ask(field: &str, value: serde_json::Value) -> Vec<u8> {
    let mut data = json!({"user_id": "demo", "session_id": SESSION, "user_input": "Hello"});
    data[field] = value;
    bare(&data)
}

fn event(field: &str, value: serde_json::Value) -> Vec<u8> {
    let mut event = json!({
        "specversion": "1.0", "source": "/tests", "type": "user_input_received",
        "data": {"user_id": "demo", "session_id": SESSION, "user_input": "Hello"},
    });
    event[field] = value;
    bare(&event)
}

#[rustfmt::skip]
fn cases() -> Vec<(&'static str, Vec<u8>, End)> {
    let deep = "[".repeat(100_000);
    let mut deep_object = br#"{"user_id":"demo","session_id":"s","user_input":"x","metadata":{"a":"#.to_vec();
    deep_object.extend_from_slice(deep.as_bytes());
    vec![
        ("nothing", Vec::new(), Dead("empty")),
        ("blanks", b"  \n".to_vec(), Dead("not JSON")),
        ("text", b"Where is my order?".to_vec(), Dead("not JSON")),
        ("cut", br#"{"user_id":"demo","session_id":"s","user_in"#.to_vec(), Dead("not JSON")),
        ("latin1", b"{\"user_id\":\"demo\",\"session_id\":\"s\",\"user_input\":\"gr\xfc\xdfe\"}".to_vec(), Dead("not JSON")),
        ("bytes", (0..=255).collect(), Dead("not JSON")),
        ("list", b"[1, 2]".to_vec(), Dead("an array")),
        ("null", b"null".to_vec(), Dead("null")),
        ("number", b"17".to_vec(), Dead("a number")),
        ("string", b"\"hi\"".to_vec(), Dead("a string")),
        ("deep", deep.into_bytes(), Dead("more than 100 levels")),
        ("deep-object", deep_object, Dead("more than 100 levels")),
        ("empty-object", bare(&json!({})), Failed("user_id is missing")),
        ("no-input", bare(&json!({"user_id": "demo", "session_id": SESSION})), Failed("user_input is missing")),
        ("no-user", bare(&json!({"session_id": SESSION, "user_input": "x"})), Failed("user_id is missing")),
        ("no-session", bare(&json!({"user_id": "demo", "user_input": "x"})), Failed("session_id is missing")),
        ("empty-input", ask("user_input", json!("")), Failed("user_input is empty")),
        ("blank-input", ask("user_input", json!(" \t\r\n\u{a0}\u{3000} ")), Failed("user_input is empty")),
        ("null-input", ask("user_input", json!(null)), Failed("user_input is missing")),
        ("number-input", ask("user_input", json!(5)), Failed("user_input must be a string")),
        ("list-input", ask("user_input", json!(["a"])), Failed("user_input must be a string")),
        ("object-user", ask("user_id", json!({"id": 1})), Failed("user_id must be a string")),
        ("bool-session", ask("session_id", json!(true)), Failed("session_id must be a string")),
        ("empty-user", ask("user_id", json!("")), Failed("user_id is empty")),
        ("empty-session", ask("session_id", json!("")), Failed("session_id is empty")),
        ("nul-user", ask("user_id", json!("a\0b")), Failed("user_id contains a NUL")),
        ("nul-session", ask("session_id", json!("a\0b")), Failed("session_id contains a NUL")),
        ("long-user", ask("user_id", json!("u".repeat(257))), Failed("user_id is 257 bytes long")),
        ("long-session", ask("session_id", json!("s".repeat(10_000))), Failed("session_id is 10000 bytes long")),
        ("empty-workflow", ask("workflow_id", json!("")), Failed("workflow_id is empty")),
        ("long-workflow", ask("workflow_id", json!("w".repeat(257))), Failed("workflow_id is 257 bytes long")),
        ("number-workflow", ask("workflow_id", json!(1)), Failed("workflow_id must be a string")),
        ("text-metadata", ask("metadata", json!("x")), Failed("metadata must be an object")),
        ("large-metadata", ask("metadata", json!({"x": "y".repeat(10_000)})), Failed("metadata is")),
        ("input-100k", ask("user_input", json!("x".repeat(100_000))), Failed("user_input is 100000 bytes long")),
        ("input-900k", ask("user_input", json!("ü".repeat(450_000))), Failed("user_input is 900000 bytes long")),
        ("body-900k", ask("something_else", json!("x".repeat(900_000))), Saved),
        ("just-fits", ask("user_input", json!("x".repeat(32_768))), Saved),
        ("nul-input", ask("user_input", json!("be\0fore")), Saved),
        ("unknown-field", ask("color", json!("green")), Saved),
        ("null-metadata", ask("metadata", json!(null)), Saved),
        ("blank-user", ask("user_id", json!(" ")), Saved),
        ("spec-old", event("specversion", json!("0.3")), Failed("specversion \"0.3\"")),
        ("spec-new", event("specversion", json!("2.0")), Failed("specversion \"2.0\"")),
        ("spec-number", event("specversion", json!(1.0)), Failed("specversion must be a string")),
        ("schema-v2", event("dataschema", json!("urn:throughline:event:user_input_received:v2")), Failed("dataschema")),
        ("schema-v99", event("dataschema", json!("https://example.com/chat/v99")), Failed("dataschema")),
        ("schema-v1", event("dataschema", json!("urn:throughline:event:user_input_received:v1")), Saved),
        ("schema-theirs", event("dataschema", json!("https://example.com/chat.json")), Saved),
        ("other-type", event("type", json!("com.example.hello")), Failed("type is \"com.example.hello\"")),
        ("no-data", event("data", json!(null)), Failed("data must be an object")),
        ("list-data", event("data", json!([])), Failed("data must be an object")),
        ("base64-data", {
            let mut event: serde_json::Value = serde_json::from_slice(&event("data_base64", json!("e30="))).unwrap();
            event.as_object_mut().unwrap().remove("data");
            bare(&event)
        }, Failed("data_base64")),
        ("bad-traceparent", event("traceparent", json!("00-zz")), Saved),
    ]
}

#[tokio::test]
async fn what_was_wrong_is_said_and_the_next_message_is_served() {
    let Some(mut cluster) = Cluster::start(2, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    let mut cases = cases();
    // What cannot be read is sent twice: with and without a name.
    let named = |(name, body, end): &(&'static str, Vec<u8>, End)| match end {
        Dead(reason) => Some((&*format!("named-{name}").leak(), body.clone(), Failed(reason))),
        Failed(_) | Saved => None,
    };
    cases.extend(cases.iter().filter_map(named).collect::<Vec<_>>());
    // The Nats-Msg-Id names the workflow of a message that names none itself.
    let header = |end: &End| if matches!(end, Dead(_)) { "X-Case" } else { "Nats-Msg-Id" };
    let mut messages: Vec<_> =
        cases.iter().map(|(name, body, end)| message(BARE, &[(header(end), name)], body.clone())).collect();
    messages.push(message(BARE, &[("Nats-Msg-Id", "good")], ask("x", json!(0))));
    cluster.publish_all(messages).await;
    for (name, _, end) in &cases {
        let workflow = workflow(&mut log, name, end).await;
        let workflow = workflow.as_str();
        match end {
            Saved => {
                log.answer(workflow);
            }
            Failed(reason) => {
                let failed = log.failure(workflow);
                assert_eq!((&failed["code"], &failed["stage"]), (&json!("invalid_input"), &json!("input")));
                assert_eq!(
                    (&failed["retryable"], &failed["may_have_happened"]),
                    (&json!(false), &json!(false))
                );
                assert!(failed["message"].as_str().unwrap().contains(reason), "{name}: {failed}");
            }
            Dead(reason) => {
                let letter = letter(&log, name).unwrap_or_else(|| panic!("no dead letter of {name}"));
                let error = letter.header("Throughline-Error");
                assert!(error.contains(reason), "{name}: {error}");
                assert_eq!(letter.header("Throughline-Code"), "invalid_input");
                assert_eq!(letter.header("Throughline-Stage"), "input");
                let sent = &cases.iter().find(|case| case.0 == *name).unwrap().1;
                assert_eq!(&letter.body[..], &sent[..], "{name}: byte for byte");
            }
        }
    }
    log.until_ended(&["good"]).await;
    log.answer("good");
    let mut all_ends = Vec::new();
    for (name, _, end) in &cases {
        let workflow = workflow(&mut log, name, end).await;
        let (ends, letters) = (ends(&log, &workflow), log.dead().filter(|seen| of(seen, name)).count());
        let wanted = if matches!(end, Dead(_)) { (0, 1) } else { (1, 0) };
        assert_eq!((ends, letters), wanted, "{name}: exactly one end");
        all_ends.push(ends + letters);
    }
    Figures::of_ends(25, "bad and odd messages of our own", cases.len(), all_ends.into_iter()).show();
    let saved = cases.iter().filter(|(_, _, end)| matches!(end, Saved)).count() + 1;
    assert_eq!(cluster.rows().len(), saved);
    assert_eq!(cluster.stand_ins.count("model").await, saved as u64, "nothing invalid reached the model");
    cluster.assert_workers_run();
}

/// Says something in the protocol and returns what the server said until it hung up.
fn raw(server: &str, command: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.trim_start_matches("nats://")).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"CONNECT {\"verbose\":false}\r\n").unwrap();
    // The server may hang up before it has read all of it.
    let _ = stream.write_all(command);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// What does not fit is refused where it is sent, and costs nobody else anything.
#[tokio::test]
async fn what_is_too_large_to_be_sent_is_refused_where_it_is_sent() {
    let Some(mut cluster) = Cluster::start(2, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    let most = cluster.client.server_info().max_payload;

    // By the server, which hangs up on whoever tried and on nobody else.
    let payload =
        [format!("PUB {BARE} {}\r\n", most + 1).as_bytes(), &vec![b'x'; most + 1], b"\r\n"].concat();
    let answer = raw(&cluster.nats.url(), &payload);
    assert!(answer.contains("-ERR 'Maximum Payload Violation'"), "{answer}");
    let subject = format!("PUB {BARE}.{}.w 2\r\n{{}}\r\n", "s".repeat(5_000));
    let answer = raw(&cluster.nats.url(), subject.as_bytes());
    assert!(answer.contains("-ERR 'maximum control line exceeded'"), "{answer}");

    // By a client that knows the server's limit; its connection goes on.
    let sent = cluster.client.publish(BARE, vec![b'x'; most + 1].into()).await;
    assert!(sent.is_err());

    // By ours, with words that say which limit.
    let file = cluster.dir().join("long.txt");
    std::fs::write(&file, "word ".repeat(2 * most / 5)).unwrap();
    let long_session = "s".repeat(5_000);
    for (session, from_file, reason) in [
        ("s", true, "stdin has more than 1048576 bytes"),
        (long_session.as_str(), false, "--session is 5000 bytes long"),
    ] {
        let mut command = throughline();
        command.arg("--config").arg(cluster.config());
        command.args([
            "publish",
            "--user",
            "demo",
            "--session",
            session,
            "--workflow-id",
            "refused",
            "--wait",
        ]);
        let mut publish = if from_file {
            let text = std::fs::File::open(&file).unwrap();
            Program::start_reading("publish", cluster.dir(), command.arg("-"), text)
        } else {
            Program::start("publish", cluster.dir(), command.arg("Hello"))
        };
        let status = publish.ended(SOON).await;
        assert!(matches!(status.code(), Some(1 | 2)), "{status}: {}", publish.stderr());
        assert!(publish.stderr().contains(reason), "{}", publish.stderr());
    }

    cluster.say("after", "demo", "s", "Hello").await;
    log.until_ended(&["after"]).await;
    let fault = "payloads and subjects over the server's limits";
    cluster.figures(23, fault, 5, &log, &["after".to_owned()]).await.show();
    assert_eq!(cluster.rows().len(), 1);
    assert_eq!(log.dead().count(), 0);
    cluster.assert_workers_run();
}

/// Other stages' subjects are open to anybody with access to the server, too.
#[tokio::test]
async fn rubbish_on_the_inner_subjects_is_dead_lettered() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    let kinds = ["input_validated", "context_retrieved", "external_data_fetched", "response_generated"];
    let mut bodies: Vec<(String, Vec<u8>)> = Vec::new();
    for (n, body) in ["", "{}", "[", "{\"specversion\":\"9.9\"}"].iter().enumerate() {
        bodies.push((format!("b{n}"), body.as_bytes().to_vec()));
    }
    // An event of the right type with the wrong content, and one of a future version.
    let envelope = |schema: &str| {
        json!({
            "specversion": "1.0", "id": "x", "source": "/tests", "type": "input_validated", "time": "2026-01-01T00:00:00Z",
            "dataschema": schema, "workflowid": "w", "sessionid": "s", "userid": "u",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "data": {"request": 1},
        })
        .to_string()
        .into_bytes()
    };
    bodies.push(("shape".to_owned(), envelope("urn:throughline:event:input_validated:v1")));
    bodies.push(("version".to_owned(), envelope("urn:throughline:event:input_validated:v2")));
    let mut messages = Vec::new();
    for kind in kinds {
        for (name, body) in &bodies {
            messages.push(message(&format!("throughline.v1.{kind}.nobody.{kind}-{name}"), &[], body.clone()));
        }
    }
    let wanted = messages.len();
    cluster.publish_all(messages).await;
    cluster.say("good", "demo", "s", "Hello").await;
    log.until_ended(&["good"]).await;
    log.answer("good");
    log.until("a dead letter of each", |log| log.dead().count() >= wanted).await;
    assert_eq!(log.dead().count(), wanted);
    for letter in log.dead() {
        assert_eq!(letter.header("Throughline-Code"), "unreadable_event");
        assert!(!letter.header("Throughline-Error").is_empty());
    }
    let versions = log.dead().filter(|letter| letter.header("Throughline-Error").contains(":v2")).count();
    assert_eq!(versions, kinds.len(), "a version that is not read is named");
    cluster.assert_workers_run();
}

#[tokio::test]
async fn large_bodies_travel_where_they_are_allowed() {
    let settings = Settings::new("[limits]\nmax_input_bytes = 1048576\nmax_metadata_bytes = 1048576");
    let Some(mut cluster) = Cluster::start(2, &settings).await else { return };
    let mut log = cluster.log().await;
    let text = format!("What is the status of my order? {}", "ä € ".repeat(14_000));
    cluster.say("w-100k", "demo", "s1", &text).await;
    // More than the model's context: the model refuses, once.
    cluster.say("w-900k", "demo", "s2", &"word ".repeat(180_000)).await;
    cluster.publish(BARE, &[], ask("metadata", json!({"x": "y".repeat(900_000)}))).await;
    cluster.say("w-after", "demo", SESSION, "Hello").await;
    log.until_ended(&["w-100k", "w-900k", "w-after"]).await;
    assert!(log.answer("w-100k").contains("#W10007"));
    let refused = log.failure("w-900k");
    assert_eq!((&refused["code"], &refused["attempts"]), (&json!("model_rejected"), &json!(1)));
    assert!(refused["message"].as_str().unwrap().contains("maximum context length"), "{refused}");
    log.answer("w-after");
    let rows = cluster.rows();
    assert_eq!(rows.len(), 3);
    let row = rows.iter().find(|row| row["workflow_id"] == "w-100k").unwrap();
    assert_eq!(row["input"], text.trim());
    let longest = rows.iter().map(|row| row["metadata"].as_str().unwrap().len()).max().unwrap();
    assert!(longest > 900_000, "metadata is stored whole");
    assert!(
        log.all
            .iter()
            .filter(|seen| seen.kind() != "user_input_received")
            .all(|seen| seen.body.len() <= 65_536),
        "an event is a small message whatever it carries"
    );
    cluster.assert_workers_run();
}

/// What is passed along comes out of the log, the database and the commands with the same digits.
#[tokio::test]
async fn what_is_clear_is_taken_and_handed_on_digit_by_digit() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    let digits = r#""id":12345678901234567890123,"ratio":0.1000000000000000055"#;
    let body = format!(
        "\u{feff}{{\"user_id\":\"demo\",\"session_id\":\"s\",\"workflow_id\":\"w1\",\"user_input\":\"Hello \\ud83d\",\
         \"metadata\":{{{digits}, \"cut\":\"\\ude00\"}}}}"
    );
    cluster.publish(BARE, &[], body.into_bytes()).await;
    log.until_ended(&["w1"]).await;
    log.answer("w1");
    let kept = format!("{{{digits},\"cut\":\"\u{fffd}\"}}");
    let rows = cluster.rows();
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["input"], &rows[0]["metadata"]), (&json!("Hello \u{fffd}"), &json!(kept)));
    for command in [&["events", "--workflow", "w1", "--json"][..], &["explain", "w1", "--json"]] {
        let mut shown = throughline();
        shown.arg("--config").arg(cluster.config()).args(command);
        let mut shown = Program::start(command[0], cluster.dir(), &mut shown);
        assert!(shown.ended(SOON).await.success(), "{}", shown.stderr());
        assert!(shown.stdout().contains(&kept), "{command:?}: {}", shown.stdout());
    }
    let publish =
        ["publish", "--user", "demo", "--session", "s", "--workflow-id", "w2", "--wait", "--metadata"];
    let mut command = throughline();
    command.arg("--config").arg(cluster.config()).args(publish).arg(&kept).arg("Hello");
    let mut published = Program::start("publish", cluster.dir(), &mut command);
    assert!(published.ended(SOON).await.success(), "{}", published.stderr());
    let rows = cluster.rows();
    let row = rows.iter().find(|row| row["workflow_id"] == "w2").unwrap();
    // Members of several arguments are put together in the order of their names.
    assert_eq!(row["metadata"], format!("{{\"cut\":\"\u{fffd}\",{digits}}}"));
    cluster.assert_workers_run();
}

/// The workflow of a message, which is called as its message id unless its own `workflow_id` was unusable.
async fn workflow(log: &mut Log, name: &str, end: &End) -> String {
    let find = |log: &Log| {
        log.all.iter().find_map(|seen| {
            let reason = seen.data()["message"].as_str().unwrap_or_default();
            let mine = match end {
                Dead(_) => seen.kind().starts_with("dead.") && of(seen, name),
                Saved => seen.kind() == "interaction_saved" && of(seen, name),
                Failed(wanted) if wanted.starts_with("workflow_id ") => reason.starts_with(wanted),
                Failed(_) => seen.kind() == "workflow_failed" && of(seen, name),
            };
            let id = seen.attribute("workflowid");
            mine.then(|| if id.is_empty() { name.to_owned() } else { id.to_owned() })
        })
    };
    log.until(&format!("the right end of {name}"), |log| find(log).is_some()).await;
    find(log).unwrap()
}

fn of(seen: &Seen, name: &str) -> bool {
    seen.subject.ends_with(&format!(".{name}")) || seen.header("X-Case") == name
}

fn letter<'l>(log: &'l Log, name: &str) -> Option<&'l Seen> {
    log.dead().find(|seen| of(seen, name))
}

fn ends(log: &Log, name: &str) -> usize {
    log.events(name)
        .filter(|seen| matches!(seen.kind().as_str(), "interaction_saved" | "workflow_failed"))
        .count()
}
