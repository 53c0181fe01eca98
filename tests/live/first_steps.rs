//! The commands that a deployment begins with, on a nats-server that nobody has prepared.

use std::net::TcpListener;

use async_nats::jetstream;
use tokio::time::Instant;

use crate::{
    harness::{Cluster, Program, SOON, Settings, eventually, process::throughline, reaper},
    nats_server::NatsServer,
};

/// A configuration without stand-ins: nothing of it is called here.
const CONFIG: &str = r#"
[http]
listen = "127.0.0.1:0"
[[providers]]
name = "nobody"
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[[models]]
name = "none"
provider = "nobody"
"#;

#[tokio::test]
async fn setup_comes_before_workers_and_may_be_repeated() {
    let Some(server) = NatsServer::start() else { return };
    reaper::watch(server.pid().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("throughline.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = throughline();
        // Set for the scripts in deploy/, it must not be taken for configuration.
        command.env("NATS_URL", server.url()).env("THROUGHLINE_CACHE", "/nowhere");
        Program::start(arguments[0], dir.path(), command.args(arguments))
    };

    let mut worker = run(&["worker"]);
    assert_eq!(worker.ended(SOON).await.code(), Some(69));
    let said = worker.stderr();
    let last = said.lines().last().unwrap();
    assert!(last.contains("run `throughline setup`") && !last.contains("panicked"), "{last}");

    for word in ["created", "unchanged"] {
        let mut setup = run(&["setup"]);
        assert_eq!(setup.ended(SOON).await.code(), Some(0), "{}", setup.stderr());
        let report = setup.stdout();
        assert!(report.lines().count() >= 8 && report.lines().all(|line| line.starts_with(word)), "{report}");
    }

    let mut worker = run(&["worker"]);
    eventually("the worker is ready", async || {
        assert!(worker.is_running(), "{}", worker.stderr());
        worker.stderr().contains("worker ready").then_some(())
    })
    .await;
    worker.signal("TERM");
    assert_eq!(worker.ended(SOON).await.code(), Some(0));
    reaper::forget(server.pid().unwrap());
}

/// A process that cannot be asked how it is takes no work.
#[tokio::test]
async fn a_worker_whose_port_is_taken_says_so_before_it_takes_anything() {
    let Some(cluster) = Cluster::start(0, &Settings::new("")).await else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    cluster.say("w", "demo", "s", "Hello").await;
    let mut worker = cluster.run("worker", &["worker", "--listen", &address]);
    assert_eq!(worker.ended(SOON).await.code(), Some(69));
    let said = worker.stderr();
    assert!(said.contains(&format!("{address} is in use")), "{said}");
    assert!(!said.contains("stage started"), "{said}");
}

/// Somebody deletes a consumer. No restart of its stage helps, so the process ends and says what does.
#[tokio::test]
async fn a_stage_that_cannot_stay_up_ends_its_worker_with_what_to_do_about_it() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    cluster.say("before", "demo", "s", "Hello").await;
    log.until_ended(&["before"]).await;
    let began = Instant::now();
    let events = jetstream::new(cluster.client.clone()).get_stream("throughline_EVENTS").await.unwrap();
    events.delete_consumer("stage_generation").await.unwrap();
    let mut worker = cluster.workers.pop().unwrap();
    let status = worker.ended(SOON).await;
    eprintln!("ended {:?} after its consumer", began.elapsed());
    let said = worker.stderr();
    assert_eq!(status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    for part in ["stage generation", "stage_generation does not exist", "run `throughline setup`"] {
        assert!(last.contains(part), "{last}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(said.matches("it failed, restarting").count(), 5, "the restart intensity: {said}");

    // What it says is what helps.
    assert_eq!(cluster.run("setup", &["setup"]).ended(SOON).await.code(), Some(0));
    cluster.say("after", "demo", "s", "Hello").await;
    cluster.add_worker();
    log.until_ended(&["after"]).await;
    log.answer("after");
}
