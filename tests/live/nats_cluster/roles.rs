//! Each user can do its work and nothing else.

use std::sync::{Arc, Mutex};

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::rig::Rig;
use crate::harness::{
    Nodes, SOON, eventually,
    nodes::{Place, findings},
};

/// A forbidden request is refused well before its time limit of 5 s.
const AT_ONCE: std::time::Duration = std::time::Duration::from_secs(4);

const QUESTION: [&str; 9] =
    ["publish", "--user", "demo", "--session", "s", "--workflow-id", "w1", "--wait", "Where is my order?"];

/// A client of a role, with what the server complained about to it.
struct Stranger {
    client: async_nats::Client,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Stranger {
    async fn connect(nodes: &Nodes, role: &str) -> Self {
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&complaints);
        let options = nodes.stranger(role).event_callback(move |event| {
            let sink = Arc::clone(&sink);
            async move { sink.lock().unwrap().push(event.to_string()) }
        });
        let client = options.connect(nodes.url(0)).await.unwrap();
        Self { client, complaints }
    }

    async fn is_refused(&self, what: &str) {
        eventually(&format!("the server forbids {what}"), async || {
            let complaints = self.complaints.lock().unwrap();
            complaints.iter().any(|text| text.contains("Violation") && text.contains(what)).then_some(())
        })
        .await;
    }

    async fn may_not_publish(&self, subject: &str) {
        let reply = self.client.new_inbox();
        self.client.publish_with_reply(subject.to_owned(), reply, Bytes::new()).await.unwrap();
        self.is_refused(&format!("Publish to \"{subject}\"")).await;
    }

    async fn may_not_subscribe(&self, subject: &str) {
        let _subscriber = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.client.flush().await.unwrap();
        self.is_refused(&format!("Subscription to \"{subject}\"")).await;
    }
}

#[tokio::test]
async fn each_role_can_do_its_work_and_no_more() {
    let Some(nodes) = Nodes::start().await else { return };
    let rig = Rig::start(nodes, 2).await;
    let admin = rig.nodes.connect("admin", None).await;
    for name in ["throughline_EVENTS", "throughline_DEAD", "OBJ_throughline_BODIES"] {
        let stream = jetstream::new(admin.clone()).get_stream(name).await.unwrap();
        assert_eq!(stream.cached_info().config.num_replicas, 3, "{name}");
    }

    what_each_is_for(&rig).await;
    what_none_may(&rig.nodes).await;
    ours_says_so(&rig).await;
    strangers_stay_outside(&rig).await;
    forgetting(&rig).await;
}

/// Whoever may only read erases nothing; the admin does, on every server.
async fn forgetting(rig: &Rig) {
    let (code, _, stderr) = rig.ran("reader", &["forget", "--user", "demo"]).await;
    assert!(code != 0 && stderr.contains("does not permit"), "{code} {stderr}");
    let (code, events, stderr) = rig.ran("reader", &["events", "--workflow", "w1", "--json"]).await;
    assert_eq!((code, events.lines().count()), (0, 6), "{stderr}");
    let (code, told, stderr) = rig.ran("admin", &["forget", "--user", "demo", "--json"]).await;
    assert_eq!(code, 0, "{stderr}");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(told["events"].as_u64().unwrap() >= 6 && told["interactions"].as_u64().unwrap() >= 1, "{told}");
    let (code, _, stderr) = rig.ran("reader", &["events", "--workflow", "w1", "--json"]).await;
    assert_eq!(code, 1, "{stderr}");
}

async fn what_each_is_for(rig: &Rig) {
    let (code, answer, stderr) = rig.ran("publisher", &QUESTION).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(answer.contains("order"), "{answer}");
    let many = rig.dir().join("many.jsonl");
    let line = |n: u8| format!("{{\"user_id\":\"demo\",\"session_id\":\"s{n}\",\"user_input\":\"Hello\"}}\n");
    std::fs::write(&many, (0..5).map(line).collect::<String>()).unwrap();
    let (code, _, stderr) =
        rig.ran("publisher", &["publish", "--wait", "--file", many.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{stderr}");
    let (code, events, stderr) = rig.ran("reader", &["events", "--workflow", "w1", "--json"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(events.lines().count(), 6, "{events}");
    large_bodies(rig).await;
    dead_letters(rig).await;
    for role in ["worker", "publisher", "reader", "admin"] {
        let (code, json, stderr) = rig.ran(role, &["doctor", "--json", "--role", role]).await;
        let found = findings(&json);
        assert_eq!(code, 0, "doctor as {role}: {json} {stderr}");
        assert!(found.contains(&"permissions ok".to_owned()), "{role}: {json}");
        assert!(found.contains(&"sync ok".to_owned()), "{role}: {json}");
        assert!(found.contains(&"streams ok".to_owned()), "{role}: {json}");
    }
}

/// What is kept beside the log is read as well, one event at a time and all of them, while it comes and afterwards.
async fn large_bodies(rig: &Rig) {
    let large = "\"word\" ".repeat(4_500);
    let question =
        ["publish", "--user", "demo", "--session", "l", "--workflow-id", "large", "--wait", large.as_str()];
    let mut follow = rig.run("follow", "reader", &["events", "--follow", "--json"]);
    let (code, _, stderr) = rig.ran("publisher", &question).await;
    assert_eq!(code, 0, "{stderr}");
    let (code, events, stderr) = rig.ran("reader", &["events", "--workflow", "large", "--json"]).await;
    assert_eq!((code, events.lines().count()), (0, 6), "{stderr}");
    assert!(events.lines().any(|event| event.len() > 65_536), "an event is kept beside the log");
    eventually("it is followed to its end", async || {
        assert!(follow.is_running(), "{}", follow.stderr());
        follow.stdout().contains("\"interaction_saved\"").then_some(())
    })
    .await;
    let file = rig.dir().join("all.jsonl");
    let (code, _, stderr) = rig.ran("reader", &["record", "export", file.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) =
        rig.ran("reader", &["replay", "verify", "--file", file.to_str().unwrap(), "large"]).await;
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = rig.ran("reader", &["explain", "large"]).await;
    assert_eq!(code, 0, "{stderr}");
}

/// An input that no stage can read is dead-lettered, seen by the reader, and removed by nobody but the admin.
async fn dead_letters(rig: &Rig) {
    let publisher = Stranger::connect(&rig.nodes, "publisher").await;
    publisher.client.publish("throughline.v1.user_input_received", "{".into()).await.unwrap();
    publisher.client.flush().await.unwrap();
    let letter = eventually("the dead letter is listed", async || {
        let (code, letters, stderr) = rig.ran("reader", &["dead", "list", "--json"]).await;
        assert_eq!(code, 0, "{stderr}");
        let letter: serde_json::Value = serde_json::from_str(letters.lines().next()?).unwrap();
        Some(letter["id"].to_string())
    })
    .await;
    let (code, body, stderr) = rig.ran("reader", &["dead", "show", &letter, "--body"]).await;
    assert_eq!((code, body.trim_end()), (0, "{"), "{stderr}");
    let (code, _, stderr) = rig.ran("reader", &["dead", "drop", &letter, "--yes"]).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("does not permit"), "{stderr}");
    let (code, _, stderr) = rig.ran("admin", &["dead", "drop", &letter, "--yes"]).await;
    assert_eq!(code, 0, "{stderr}");
}

/// Seen by a client that is not ours.
async fn what_none_may(nodes: &Nodes) {
    let publisher = Stranger::connect(nodes, "publisher").await;
    publisher.may_not_publish("throughline.v1.interaction_saved.s.w1").await;
    publisher
        .may_not_publish("$JS.API.DIRECT.GET.throughline_EVENTS.throughline.v1.user_input_received.s.w1")
        .await;
    publisher.may_not_publish("$JS.API.CONSUMER.CREATE.throughline_EVENTS").await;
    publisher.may_not_publish("$JS.API.CONSUMER.CREATE.throughline_EVENTS.x").await;
    publisher.may_not_publish("$JS.API.CONSUMER.CREATE.throughline_EVENTS.x.throughline.v1.>").await;
    publisher.may_not_publish("$JS.API.CONSUMER.MSG.NEXT.throughline_EVENTS.stage_input").await;
    publisher.may_not_publish("$JS.API.STREAM.MSG.GET.throughline_EVENTS").await;
    publisher.may_not_subscribe("throughline.v1.>").await;
    publisher.may_not_subscribe("throughline.stored.v1.>").await;
    publisher.may_not_publish("throughline.stored.v1.interaction_saved.s.w1").await;
    publisher.may_not_subscribe("_INBOX.>").await;
    publisher.may_not_subscribe("_INBOX_worker.>").await;
    let reader = Stranger::connect(nodes, "reader").await;
    reader.may_not_publish("throughline.v1.user_input_received").await;
    reader.may_not_publish("throughline.control.breaker").await;
    reader.may_not_publish("$JS.API.CONSUMER.CREATE.throughline_EVENTS.stage_input.throughline.v1.x.>").await;
    reader.may_not_publish("$JS.API.CONSUMER.MSG.NEXT.throughline_EVENTS.stage_generation").await;
    reader.may_not_publish("$JS.ACK.throughline_EVENTS.stage_input.1.1.1.1.1").await;
    let worker = Stranger::connect(nodes, "worker").await;
    worker.may_not_publish("throughline.v1.user_input_received").await;
    for forbidden in ["STREAM.DELETE", "STREAM.UPDATE", "STREAM.CREATE"] {
        worker.may_not_publish(&format!("$JS.API.{forbidden}.throughline_EVENTS")).await;
    }
    worker.may_not_publish("$JS.API.STREAM.PURGE.throughline_DEAD").await;
    worker.may_not_publish("$JS.API.CONSUMER.DELETE.throughline_EVENTS.stage_input").await;
    worker.may_not_subscribe("throughline.v1.>").await;
    let own = Stranger::connect(nodes, "admin").await;
    own.client.publish("$SYS.REQ.SERVER.PING.JSZ", Bytes::new()).await.unwrap();
    let mut system = own.client.subscribe("$SYS.>").await.unwrap();
    own.client.flush().await.unwrap();
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(200), system.next()).await.is_err(),
        "an admin of one account sees nothing of the server's"
    );
}

/// Ours says what is forbidden, at once, and what it is about.
async fn ours_says_so(rig: &Rig) {
    rig.write_config("shrink", "worker", "[nats]\nmax_bytes_mib = 99\n");
    for (config, arguments, told) in [
        ("reader", &QUESTION[..], "throughline.v1.user_input_received.s.w1"),
        ("publisher", &["events", "--workflow", "w1"], "DIRECT.GET.throughline_EVENTS."),
        ("publisher", &["events"], "CONSUMER.CREATE.throughline_EVENTS."),
        (
            "worker",
            &["publish", "--user", "u", "--session", "s", "Hi"],
            "throughline.v1.user_input_received.s.",
        ),
        ("worker", &["events"], "CONSUMER.CREATE.throughline_EVENTS."),
        ("shrink", &["setup"], "STREAM.UPDATE.throughline_EVENTS"),
    ] {
        let began = Instant::now();
        let (code, _, stderr) = rig.ran(config, arguments).await;
        assert_eq!(code, 1, "{config} {arguments:?}: {stderr}");
        assert!(
            stderr.contains("does not permit") && stderr.contains(told),
            "{config} {arguments:?}: {stderr}"
        );
        assert!(began.elapsed() < AT_ONCE, "{config} {arguments:?} took {:?}", began.elapsed());
    }
    let mut intruder = rig.run("intruder", "publisher", &["worker"]);
    assert!(!intruder.ended(SOON).await.success());
    assert!(intruder.stderr().contains("does not permit"), "{}", intruder.stderr());
    let (code, json, _) = rig.ran("publisher", &["doctor", "--json", "--role", "worker"]).await;
    assert_eq!(code, 1, "{json}");
    assert!(findings(&json).contains(&"permissions fail".to_owned()), "{json}");
}

/// A key that nobody knows, and a certificate that nobody vouches for.
async fn strangers_stay_outside(rig: &Rig) {
    let others =
        Nodes::prepare((0..3).map(|_| Place::at("127.0.0.1")).collect(), vec![Vec::new(); 3]).unwrap();
    let nkey = format!("file:{}", others.secret("worker.nk").display());
    rig.write_config("unknown", "worker", &format!("nats.nkey = {nkey:?}"));
    let (code, _, stderr) = rig.ran("unknown", &["events"]).await;
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains("refuses these credentials; correct nats.nkey"), "{stderr}");
    let authority = others.secret("tls/ca.pem").display().to_string();
    rig.write_config("untrusted", "reader", &format!("nats.tls_ca_file = {authority:?}"));
    let (code, _, stderr) = rig.ran("untrusted", &["events"]).await;
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains("certificate"), "{stderr}");
}
