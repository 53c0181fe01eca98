//! The commands that a deployment begins with, on a nats-server that nobody has prepared.

use crate::{
    harness::{Program, SOON, process::throughline},
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
    crate::harness::eventually("the worker is ready", async || {
        assert!(worker.is_running(), "{}", worker.stderr());
        worker.stderr().contains("worker ready").then_some(())
    })
    .await;
    worker.signal("TERM");
    assert_eq!(worker.ended(SOON).await.code(), Some(0));
}
