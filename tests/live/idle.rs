//! What a worker costs that has nothing to do, and whether sessions that wait for somebody else change that.
//!
//! The test has a thousand of them. `THROUGHLINE_MEASURE=1 cargo test --release --test live -- --nocapture idle` has ten
//! thousand, and holds memory against its limit, which says something only in a release build.

use std::time::Duration;

use crate::harness::{
    Cluster, Program, SOON, Settings,
    cluster::said,
    usage::{cpu, memory_mib},
};

/// Everything but the stage that the sessions wait for.
const STAGES: &str = "input,context,external,persistence";
/// Looked at for so long, with at least one sweep (10 s, up to a quarter longer).
const WINDOW: Duration = Duration::from_secs(13);
/// Turns that one sweep looks at.
const SWEPT: usize = 2_048;
/// Of a core. Most of it are timers that follow the ack wait, which is a twentieth of the default here; a build without
/// optimisation takes about twice as long for each.
const MOST_CPU: f64 = if cfg!(debug_assertions) { 0.02 } else { 0.01 };
const MOST_MIB: u64 = 50;
/// More than before, for ten thousand sessions.
const MOST_GROWTH_MIB: u64 = 12;

async fn fresh(cluster: &Cluster, name: &str) -> Program {
    let worker = cluster.run(name, &["worker", "--stages", STAGES]);
    worker.until_ready().await;
    worker
}

/// The share of a core that a process uses, and its memory in MiB.
async fn idle(worker: &Program) -> (f64, u64) {
    let before = cpu(worker.pid());
    tokio::time::sleep(WINDOW).await;
    ((cpu(worker.pid()) - before) / WINDOW.as_secs_f64(), memory_mib(worker.pid()))
}

#[tokio::test]
async fn a_worker_that_is_idle_costs_next_to_nothing_however_many_sessions_wait() {
    if !cfg!(target_os = "linux") {
        crate::harness::left_out::say("what a process uses is read from /proc");
        return;
    }
    let measuring = std::env::var_os("THROUGHLINE_MEASURE").is_some();
    let sessions = if measuring { 10_000 } else { 1_000 };
    // All are one user's, and all are to run.
    let settings = Settings::new("[users]\nrunning = 0");
    let Some(cluster) = Cluster::start(0, &settings).await else { return };
    let mut worker = fresh(&cluster, "alone").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (cpu_alone, mib_alone) = idle(&worker).await;

    // In each session one turn waits for the model, and one for that turn.
    let turns = (0..2).flat_map(|turn| (0..sessions).map(move |session| (turn, session)));
    let said = turns
        .map(|(turn, session)| said(&format!("w{session}-{turn}"), "demo", &format!("s{session}"), "Hello"));
    cluster.publish_all(said.collect()).await;
    let mut log = cluster.log().await;
    log.until_within(10 * SOON, "every session waits for the model", |log| {
        log.all.iter().filter(|seen| seen.subject.contains(".external_data_fetched.")).count() >= sessions
    })
    .await;
    drop(log);
    worker.signal("TERM");
    assert_eq!(worker.ended(SOON).await.code(), Some(0), "{}", worker.stderr());

    let worker = fresh(&cluster, "among").await;
    // A process that starts looks at every turn once.
    tokio::time::sleep(WINDOW * u32::try_from(sessions.div_ceil(SWEPT) + 1).expect("few")).await;
    let (cpu_among, mib_among) = idle(&worker).await;
    eprintln!(
        "idle: {:.2} % of a core, {mib_alone} MiB; with {sessions} sessions that wait: {:.2} %, {mib_among} MiB",
        cpu_alone * 100.0,
        cpu_among * 100.0
    );
    assert!(cpu_alone < MOST_CPU && cpu_among < MOST_CPU, "{cpu_alone} {cpu_among}");
    assert!(mib_among < mib_alone + MOST_GROWTH_MIB, "{mib_alone} {mib_among}");
    assert!(!measuring || mib_among < MOST_MIB, "{mib_among} MiB");
}
