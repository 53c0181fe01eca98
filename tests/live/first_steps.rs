//! The commands that a deployment begins with, on a nats-server that nobody has prepared.

use std::net::TcpListener;

use async_nats::jetstream;
use tokio::time::Instant;

use crate::{
    harness::{Cluster, Program, SOON, Settings, eventually, process::throughline},
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
}

/// Whoever starts both at once need not start them in order, and whoever watches sees at once what is waited for.
#[tokio::test]
async fn a_worker_without_a_server_says_so_at_once_waits_and_gives_up() {
    let Some(mut server) = NatsServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("throughline.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let run = |name: &str, command: &str, url: &str| {
        Program::start(name, dir.path(), throughline().env("NATS_URL", url).arg(command))
    };
    let url = server.url();
    let mut setup = run("setup", "setup", &url);
    assert_eq!(setup.ended(SOON).await.code(), Some(0), "{}", setup.stderr());
    server.kill();

    let mut patient = run("patient", "worker", &url);
    let mut lonely = run("lonely", "worker", "nats://127.0.0.1:1");
    let began = tokio::time::Instant::now();
    for worker in [&mut patient, &mut lonely] {
        crate::harness::eventually("it says what it waits for", async || {
            assert!(worker.is_running(), "{}", worker.stderr());
            let said = worker.stderr();
            (said.contains("no NATS server answers") && said.contains("trying for 10 s more")).then_some(())
        })
        .await;
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "at once: {:?}", began.elapsed());

    server.restart();
    crate::harness::eventually("the worker is ready", async || {
        assert!(patient.is_running(), "{}", patient.stderr());
        patient.stderr().contains("worker ready").then_some(())
    })
    .await;
    patient.signal("TERM");
    assert_eq!(patient.ended(SOON).await.code(), Some(0));

    assert_eq!(lonely.ended(SOON).await.code(), Some(69));
    let said = lonely.stderr();
    let last = said.lines().last().unwrap();
    assert!(last.contains("nats://127.0.0.1:1 within 10s; start one"), "{last}");
    assert!(last.contains("set nats.url"), "{last}");
}

/// Answers like a server of this version, as far as anybody asks.
async fn pretends_to_be(version: &str) -> String {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let info = serde_json::json!({
        "server_id": "N", "server_name": "n", "version": version, "go": "go1.23", "host": "127.0.0.1",
        "port": address.port(), "headers": true, "max_payload": 1 << 20, "jetstream": true, "proto": 1,
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let info = format!("INFO {info}\r\n");
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                write.write_all(info.as_bytes()).await?;
                let mut lines = BufReader::new(read).lines();
                while let Some(line) = lines.next_line().await? {
                    if line.starts_with("PING") {
                        write.write_all(b"PONG\r\n").await?;
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    format!("nats://{address}")
}

#[tokio::test]
async fn a_server_that_is_too_old_is_named_with_what_is_needed_and_what_it_loses() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("throughline.toml"), CONFIG).unwrap();
    for (version, loses) in [("2.9.10", false), ("2.10.21", true)] {
        let url = pretends_to_be(version).await;
        for command in ["doctor", "worker"] {
            let name = format!("{command}-{version}");
            let mut program =
                Program::start(&name, dir.path(), throughline().env("NATS_URL", &url).arg(command));
            assert_eq!(program.ended(SOON).await.code(), Some(69));
            let said = format!("{}{}", program.stdout(), program.stderr());
            let line = said.lines().find(|line| line.contains(version)).unwrap_or_else(|| panic!("{said}"));
            assert!(line.contains("at least 2.11 is needed: upgrade it"), "{line}");
            assert_eq!(line.contains("lose whole streams"), loses, "{line}");
        }
    }
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
