//! Many workflows while the model, the sources and the workers fail.

use std::{env, fs, process::Command, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{replay, summary};
use crate::harness::{
    Cluster, Log, Program, SOON, Settings,
    cluster::said,
    left_out,
    process::throughline,
    stand_ins::{model, of},
};

/// Small delays; breakers open now and then. Prices tell costs.
const SETTINGS: &str = r#"
[worker]
ack_wait_ms = 1500
[stages.external]
max_attempts = 2
[stages.generation]
max_attempts = 3
base_delay_ms = 50
max_delay_ms = 300
breaker_failures = 8
breaker_cooldown_ms = 300
[generation]
stream = true
first_token_timeout_ms = 400
read_timeout_ms = 400
total_timeout_ms = 500
[[sources]]
name = "order_history"
timeout_ms = 300
"#;
const SESSIONS: usize = 40;
/// Between faults.
const PACE: Duration = Duration::from_millis(25);
/// Between two killings.
const KILL_EVERY: Duration = Duration::from_millis(1_200);

/// 150 in the usual run; as many as `THROUGHLINE_REPLAY_WORKFLOWS` says.
fn workflows() -> usize {
    env::var("THROUGHLINE_REPLAY_WORKFLOWS").ok().and_then(|count| count.parse().ok()).unwrap_or(150)
}

/// One thing that goes wrong, once.
fn fault(chance: &mut StdRng) -> Value {
    match chance.random_range(0..8) {
        0 | 1 => model(json!({"status": 429, "headers": {"retry-after": "0"}, "remaining": 1})),
        2 => model(json!({"delay_ms": 900, "remaining": 1})),
        3 | 4 => model(json!({"cut": true, "remaining": 1})),
        5 => model(json!({"status": 400, "remaining": 1})),
        6 => of("orders", json!({"status": 503, "remaining": 2})),
        _ => of("orders", json!({"delay_ms": 700, "remaining": 1})),
    }
}

/// A log that was written while much went wrong.
pub(super) async fn recorded(cluster: &mut Cluster, log: &mut Log, count: usize) -> (Vec<String>, Duration) {
    let mut chance = StdRng::seed_from_u64(7);
    let names: Vec<String> = (0..count).map(|n| format!("w{n}")).collect();
    let messages = names.iter().enumerate().map(|(n, name)| {
        let session = format!("s{}", n % SESSIONS);
        let text = format!("What is the status of my recent order? This is question {n}.");
        said(name, "demo", &session, &text)
    });
    let began = Instant::now();
    cluster.publish_all(messages.collect()).await;
    let mut killed_at = Instant::now();
    let mut kills = 0;
    while names.iter().any(|name| log.end(name).is_none()) {
        assert!(began.elapsed() < 20 * SOON, "the workflows do not end");
        // Behind an open breaker they pile up.
        let _ = cluster.stand_ins.try_fault(&fault(&mut chance)).await;
        if killed_at.elapsed() > KILL_EVERY && kills < 1 + count / 50 {
            killed_at = Instant::now();
            kills += 1;
            let at = chance.random_range(0..cluster.workers.len());
            cluster.workers[at].kill();
            cluster.workers.remove(at);
            cluster.add_worker();
        }
        tokio::time::sleep(PACE).await;
        log.catch_up();
    }
    cluster.stand_ins.heal().await;
    eprintln!("{count} workflows, {kills} workers killed, {:?}", began.elapsed());
    (names, began.elapsed())
}

#[tokio::test]
async fn what_was_recorded_under_faults_comes_out_the_same() {
    let Some(mut cluster) = Cluster::start(2, &Settings::new(SETTINGS)).await else { return };
    let mut log = cluster.log().await;
    let (names, took) = recorded(&mut cluster, &mut log, workflows()).await;
    let failed = names.iter().filter(|name| log.end(name).is_some_and(|end| end.kind() == "workflow_failed"));
    assert!(failed.count() > 0, "something failed");
    let retried = names.iter().filter(|name| {
        let generated = log.event(name, "response_generated");
        generated.is_some_and(|event| event.data()["attempts"].as_array().unwrap().len() > 1)
    });
    assert!(retried.count() > 0, "something was tried again");

    // Whatever happened, the stages of now make the same of it.
    let began = Instant::now();
    let (code, lines, err) = replay(&cluster, &["verify"]).await;
    let different: Vec<_> = lines.iter().filter(|line| line["verdict"] == "different").take(5).collect();
    let sum = summary(&lines);
    assert_eq!((code, &sum["identical"]), (0, &json!(names.len())), "{sum} {different:#?} {err}");
    // How much faster a release build is than what happened is told, not asserted: this build is not one.
    let factor = took.as_secs_f64() / began.elapsed().as_secs_f64();
    eprintln!("verified {factor:.1} times as fast as it happened: {sum}");
    assert!(factor > 1.0, "{sum}");
    without_a_network(&cluster, names.len()).await;

    // A changed rule is found where it makes a difference first.
    let (code, lines, _) = replay(&cluster, &["verify", "--set", "context.recent_turns=0"]).await;
    let changed: Vec<_> = lines.iter().filter(|line| line["verdict"] == "different").collect();
    assert!(code == 1 && !changed.is_empty(), "{lines:#?}");
    for line in changed {
        assert_eq!(line["event"], "context_retrieved", "{line}");
        assert!(line["field"].as_str().unwrap().starts_with("/data/context/recent_turns"), "{line}");
    }

    // Unchanged, it is decided as it was, to the cent; at twice the price of answers, it costs what a sum over the
    // log says.
    let (code, lines, err) = replay(&cluster, &["simulate"]).await;
    let sum = summary(&lines);
    assert_eq!((code, &sum["changed"]), (0, &json!(0)), "{sum} {err}");
    assert_eq!(sum["recorded"], sum["simulated"], "{sum}");
    let dollars = |sum: &Value| sum["cost_usd"].as_str().unwrap().parse::<f64>().unwrap();
    let cost: f64 = names
        .iter()
        .filter_map(|name| log.event(name, "response_generated"))
        .flat_map(|event| event.data()["attempts"].as_array().unwrap().clone())
        .chain(failed_attempts(&log, &names))
        .filter_map(|attempt| attempt["cost_usd"].as_str().and_then(|cost| cost.parse::<f64>().ok()))
        .sum();
    assert!((dollars(&sum["recorded"]) - cost).abs() < 1e-9, "{sum} {cost}");
    cluster.assert_workers_run();
}

/// From a file, where there is no network at all.
async fn without_a_network(cluster: &Cluster, count: usize) {
    let file = cluster.dir().join("recording.jsonl.gz");
    let file = file.to_str().expect("UTF-8");
    let mut export = cluster.run("export", &["record", "export", file]);
    assert!(export.ended(4 * SOON).await.success(), "{}", export.stderr());
    // How the recordings in tests/recordings are made; see the README there.
    if let Some(kept) = env::var_os("THROUGHLINE_KEEP_RECORDING") {
        fs::copy(file, kept).expect("a copy");
    }
    let alone = ["--user", "--map-root-user", "--net"];
    if !Command::new("unshare").args(alone).arg("true").status().is_ok_and(|status| status.success()) {
        left_out::say("this machine gives us no network namespace of our own");
        return;
    }
    let (program, mut command) = (throughline(), Command::new("unshare"));
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(alone).arg(program.get_program()).args(["replay", "verify", "--file", file, "--json"]);
    let mut verify = Program::start("verify", cluster.dir(), &mut command);
    let status = verify.ended(4 * SOON).await;
    let out = verify.stdout();
    let last: Value = serde_json::from_str(out.lines().last().unwrap_or_default()).expect("a summary");
    assert!(status.success(), "{last} {}", verify.stderr());
    assert_eq!(last["summary"]["identical"], json!(count), "{last}");
}

fn failed_attempts<'a>(log: &'a Log, names: &'a [String]) -> impl Iterator<Item = Value> + 'a {
    names
        .iter()
        .filter_map(|name| log.end(name))
        .filter(|end| end.kind() == "workflow_failed")
        .flat_map(|end| end.data()["attempt_log"].as_array().cloned().unwrap_or_default())
}
