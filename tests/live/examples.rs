//! The programs of `deploy/examples`, as a newcomer would run them.

use std::{path::PathBuf, process::Command};

use crate::harness::{Cluster, Program, SOON, Settings, left_out, process::throughline};

/// An example, which `cargo test` builds beside the tests.
fn example(name: &str) -> Option<PathBuf> {
    let program = throughline();
    let path = PathBuf::from(program.get_program()).with_file_name("examples").join(name);
    if path.is_file() {
        return Some(path);
    }
    left_out::must_run("the examples are not built (cargo build --examples)");
    None
}

async fn ran(cluster: &Cluster, path: &PathBuf, arguments: &[&str]) -> String {
    let mut command = Command::new(path);
    command.arg(cluster.nats.url()).args(arguments);
    let mut program = Program::start("example", cluster.dir(), &mut command);
    assert!(program.ended(2 * SOON).await.success(), "{}", program.stderr());
    program.stdout()
}

#[tokio::test]
async fn a_program_publishes_streams_waits_and_looks_up() {
    let (Some(ask), Some(session)) = (example("ask"), example("session")) else { return };
    let Some(cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    let answer = ran(&cluster, &ask, &["demo", "s1", "Where is my order?"]).await;
    assert!(answer.contains("#W10007") && answer.contains("dollars"), "{answer}");
    let told = ran(&cluster, &session, &["demo", "s2", "Hello", "Where is my order #W10007?"]).await;
    assert_eq!(told.matches("events, the last is interaction_saved").count(), 2, "{told}");
    // A failure is told as such.
    cluster
        .stand_ins
        .fault(crate::harness::stand_ins::model(serde_json::json!({"status": 401, "remaining": 20})))
        .await;
    let mut command = Command::new(&ask);
    command.arg(cluster.nats.url()).args(["demo", "s3", "Hello"]);
    let mut failed = Program::start("failed", cluster.dir(), &mut command);
    assert!(!failed.ended(2 * SOON).await.success());
    assert!(failed.stderr().contains("model_rejected"), "{}", failed.stderr());
}

#[tokio::test]
async fn a_worker_has_a_source_and_a_model_of_the_program_s_own() {
    let (Some(ask), Some(own_source)) = (example("ask"), example("own_source")) else { return };
    let settings = "[[sources]]\nname = \"crm\"\nurl = \"http://crm/{user_id}\"\n\
                    [[models]]\nname = \"echo\"\nprovider = \"sandbox\"\n[generation]\nmodel = \"echo\"\n";
    let Some(cluster) = Cluster::start(0, &Settings::new(settings)).await else { return };
    let mut command = Command::new(&own_source);
    command.arg(cluster.config());
    let mut worker = Program::start("own_source", cluster.dir(), &mut command);
    let answer = ran(&cluster, &ask, &["demo", "s1", "Who am I?"]).await;
    assert!(answer.starts_with("You are a gold customer."), "{answer}");
    assert_eq!(cluster.stand_ins.count("model").await, 0, "the configured model is not asked");
    assert!(worker.is_running(), "{}", worker.stderr());
    worker.signal("INT");
    assert!(worker.ended(SOON).await.success(), "{}", worker.stderr());
}
