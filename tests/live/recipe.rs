//! The recipe for a client in another language (`deploy/examples/ask.py`) does what the README says of it.

use std::path::Path;

use async_nats::jetstream;
use futures_util::StreamExt;
use serde_json::Value;
use throughline::bus::nats::topology::{self, Limits};
use throughline_actors::ports::{bus::EventLog, contract::bus::sample_event};
use throughline_schemas::Event;

use crate::{
    harness::{Cluster, Program, SOON, Settings, python},
    nats_server::NatsServer,
    strangers::{accounts_with_passwords, as_role},
};

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
}

#[test]
fn the_readme_has_exactly_the_recipe() {
    let recipe = file("deploy/examples/ask.py");
    let block = format!("```python\n{recipe}```\n");
    assert!(file("README.md").contains(&block), "put deploy/examples/ask.py into README.md as it is");
}

/// Somebody who runs it.
struct Asker<'a> {
    python: &'a Path,
    dir: &'a Path,
    url: String,
    inbox: &'static str,
}

impl Asker<'_> {
    fn start(&self, name: &str, words: [&str; 4]) -> Program {
        let mut command = std::process::Command::new(self.python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/ask.py")).args(words);
        command.env("NATS_URL", &self.url).env("NATS_INBOX_PREFIX", self.inbox);
        Program::start(name, self.dir, &mut command)
    }

    /// Exit code, stdout, stderr.
    async fn ask(&self, words: [&str; 4]) -> (i32, String, String) {
        let mut program = self.start("ask", words);
        let status = program.ended(SOON).await;
        (status.code().expect("it ended by itself"), program.stdout(), program.stderr())
    }
}

#[tokio::test]
async fn it_streams_and_waits_and_finds_an_end_that_was_there_before() {
    let Some(python) = python::with_nats() else { return };
    let Some(cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    let (dir, url) = (cluster.dir(), cluster.nats.url());
    let asker = Asker { python: &python, dir, url, inbox: "_INBOX" };
    let plain = ["demo", "s1", "my-own-id", "Where is my order #W10007?"];
    let hashed = ["demo", "Sitzung für müller/1", "a b > *", "Where is my order #W10007?"];
    for words in [plain, hashed] {
        let (code, out, err) = asker.ask(words).await;
        assert!(code == 0 && out.contains("#W10007"), "{code} {out} {err}");
        assert!(err.contains(out.trim()), "it came live: {err:?}");
        let (code, again, err) = asker.ask(words).await;
        assert_eq!((code, again.trim()), (0, out.trim()), "{err}");
        assert!(!err.contains("#W10007"), "nobody answers twice: {err}");
    }
    assert_eq!(cluster.stand_ins.count("model").await, 2);

    let (code, out, err) = asker.ask(["demo", "s2", "empty", " "]).await;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("invalid_input in input"), "{err}");
    let long = "w".repeat(300);
    let (code, _, err) = asker.ask(["demo", "s2", &long, "Hello"]).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("invalid_input in input: workflow_id is 300 bytes long"), "{err}");
}

/// The end of a workflow, as long as its text.
fn end(workflow: &str, bytes: usize) -> Event {
    sample_event(workflow, "s", &"m".repeat(bytes))
}

#[tokio::test]
async fn a_publisher_may_do_all_of_it_and_who_reads_bodies_gets_ends_of_any_size() {
    let Some(python) = python::with_nats() else { return };
    let Some(server) = NatsServer::start_configured(&accounts_with_passwords()) else { return };
    let admin = as_role(&server, "admin").await;
    let limits = Limits { max_bytes: 256 * 1024 * 1024, ..Limits::default() };
    topology::setup(&admin, &limits).await.unwrap();
    let worker = as_role(&server, "worker").await;
    worker.publish(&end("before", 200 * 1024)).await.unwrap();
    worker.publish(&end("huge", 700 * 1024)).await.unwrap();
    let url = |role: &str| server.url().replace("nats://", &format!("nats://{role}:{role}@"));
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let asker = |role, inbox| Asker { python: &python, dir, url: url(role), inbox };
    let publisher = asker("publisher", "_INBOX_publisher");
    let (code, _, err) = publisher.ask(["u", "s", "before", "hi"]).await;
    assert_eq!(code, 1, "a failure is told apart: {err}");
    assert!(err.len() > 200 * 1024, "all of a large end is there: {} bytes", err.len());

    // It waits for an end that comes later.
    let mut inputs = admin.client().subscribe("throughline.stored.v1.user_input_received").await.unwrap();
    admin.client().flush().await.unwrap();
    let mut waiting = publisher.start("waiting", ["u", "s", "later", "hi"]);
    let input = tokio::time::timeout(SOON, inputs.next()).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&input.payload).unwrap()["workflow_id"], "later");
    worker.publish(&end("later", 10)).await.unwrap();
    let status = waiting.ended(SOON).await;
    assert!(waiting.stderr().contains("mmmmmmmmmm"), "{status} {}", waiting.stderr());

    let reference = admin.client().clone();
    let stored = jetstream::new(reference).get_stream("throughline_EVENTS").await.unwrap();
    let subject = end("huge", 1).subject().live(admin.namespace());
    let message = stored.direct_get_last_for_subject(subject).await.unwrap();
    assert!(message.payload.len() < 4096, "it is a reference");
    let (_, _, err) = asker("admin", "_INBOX").ask(["u", "s", "huge", "hi"]).await;
    assert!(err.len() > 700 * 1024, "{} bytes", err.len());
}
