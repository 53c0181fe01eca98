//! What stops the engine is told in the places where an operator looks, with its cause, and work goes on when it is over.

use std::time::Duration;

use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use tokio::time::Instant;

use crate::{
    harness::{
        Cluster, Settings,
        cluster::{Parts, said},
        disk::Disk,
        eventually, free_port, http_client,
        process::throughline,
    },
    nats_server::NatsServer,
    postgres_server::PostgresServer,
};

/// Somebody who looks learns of a trouble within this.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// Work goes on within this after the end of a trouble; a second by design, the rest is for slow machines.
const BACK_WITHIN: Duration = Duration::from_secs(4);
const DATABASE_DISK_MIB: usize = 16;

/// One worker, whose endpoints are at this port.
async fn watched(parts: &Parts<'_>) -> Option<(Cluster, String)> {
    let listen = format!("127.0.0.1:{}", free_port());
    let settings = Settings::new(&format!("[http]\nlisten = {listen:?}\n[log]\nformat = \"json\"\n"));
    let cluster = Cluster::start_on(parts, 1, &settings, &[]).await?;
    cluster.workers[0].until_ready().await;
    Some((cluster, listen))
}

/// What `/readyz` says, and its status.
async fn readiness(listen: &str) -> (u16, Value) {
    let answer = http_client().get(format!("http://{listen}/readyz")).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn until_ready_again(listen: &str) {
    eventually("ready again", async || (readiness(listen).await.0 == 200).then_some(())).await;
}

fn doctor(cluster: &Cluster) -> String {
    let output = throughline().arg("--config").arg(cluster.config()).arg("doctor").output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The log, readiness and the doctor name the cause of what stops the database, within ten seconds.
async fn told_everywhere(cluster: &Cluster, listen: &str, class: &str, words: &str) {
    let since = Instant::now();
    eventually("the log tells it", async || {
        let log = cluster.workers[0].stderr();
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .any(|line| {
                line["level"] == "WARN"
                    && line["class"] == class
                    && line["cause"].as_str().is_some_and(|cause| cause.contains(words))
            })
            .then_some(())
    })
    .await;
    let not_ready = eventually("readiness tells it", async || {
        let (status, said) = readiness(listen).await;
        let database = said["checks"]["database"].as_str().unwrap_or_default().to_owned();
        (status == 503 && database.contains(words)).then_some(said)
    })
    .await;
    assert!(since.elapsed() < TOLD_WITHIN, "told after {:?}", since.elapsed());
    assert_eq!(not_ready["status"], "not_ready");
    let doctor = doctor(cluster);
    assert!(doctor.contains(words), "{doctor}");
    // What the database keeps from being admitted is no turn yet, and is not nothing.
    assert!(doctor.contains("in the hands of workers: ") && doctor.contains(" input"), "{doctor}");
}

#[tokio::test]
async fn a_full_disk_under_the_database() {
    let Some(disk) = Disk::mount(DATABASE_DISK_MIB) else { return };
    let parts = Parts { database: Some(disk.path()), ..Parts::default() };
    let Some((mut cluster, listen)) = watched(&parts).await else { return };
    let mut log = cluster.log().await;
    cluster.say("before", "demo", "before", "Hello").await;
    log.until_ended(&["before"]).await;
    disk.fill();
    let text = "Hello ".repeat(4_000);
    let ids: Vec<_> = (0..40).map(|n| format!("during-{n}")).collect();
    cluster.publish_all(ids.iter().map(|id| said(id, "demo", id, &text)).collect()).await;
    told_everywhere(&cluster, &listen, "disk_full", "the disk of the database is full").await;
    disk.empty();
    let emptied = Instant::now();
    log.until_ended(&ids[..1]).await;
    assert!(emptied.elapsed() < BACK_WITHIN, "it went on after {:?}", emptied.elapsed());
    log.until_ended(&ids).await;
    until_ready_again(&listen).await;
    cluster.assert_workers_run();
}

#[tokio::test]
async fn a_write_lock_that_somebody_else_holds() {
    let Some((mut cluster, listen)) = watched(&Parts::default()).await else { return };
    let mut log = cluster.log().await;
    let mut other =
        SqliteConnection::connect(&format!("sqlite://{}", cluster.database().display())).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let locked = Instant::now();
    cluster.say("w", "demo", "s", "Hello").await;
    told_everywhere(&cluster, &listen, "locked", "the database is locked by somebody else").await;
    tokio::time::sleep_until(locked + TOLD_WITHIN).await;
    other.execute("ROLLBACK").await.unwrap();
    let released = Instant::now();
    log.until_ended(&["w"]).await;
    assert!(released.elapsed() < BACK_WITHIN, "it went on after {:?}", released.elapsed());
    until_ready_again(&listen).await;
    cluster.assert_workers_run();
}

#[tokio::test]
async fn a_postgresql_server_that_takes_no_writes() {
    let Some(server) = PostgresServer::start(&[]).await else { return };
    let url = server.database().await;
    let parts = Parts { database_url: Some(&url), ..Parts::default() };
    let Some((mut cluster, listen)) = watched(&parts).await else { return };
    let mut log = cluster.log().await;
    cluster.say("before", "demo", "before", "Hello").await;
    log.until_ended(&["before"]).await;
    let name = url.rsplit('/').next().and_then(|name| name.split('?').next()).unwrap().to_owned();
    let mut other = PgConnection::connect(&url).await.unwrap();
    let switch = async |other: &mut PgConnection, to: &str| {
        let read_only = format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = {to}");
        other
            .execute(sqlx::AssertSqlSafe(format!("SET default_transaction_read_only = off; {read_only}")))
            .await
            .unwrap();
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
        other.execute(others).await.unwrap();
    };
    switch(&mut other, "on").await;
    cluster.say("w", "demo", "s", "Hello").await;
    told_everywhere(&cluster, &listen, "read_only", "the database is read-only").await;
    switch(&mut other, "off").await;
    let mended = Instant::now();
    log.until_ended(&["w"]).await;
    assert!(mended.elapsed() < BACK_WITHIN, "it went on after {:?}", mended.elapsed());
    assert_eq!(log.dead().count(), 0, "nothing was given up");
    cluster.assert_workers_run();
}

/// What stands in the way of a first connection is told in words and with what to do.
#[tokio::test]
async fn a_postgresql_server_that_lets_nobody_in() {
    let Some(server) = PostgresServer::start(&[]).await else { return };
    let url = server.database().await;
    let (scheme, rest) = url.split_once("://").unwrap();
    let (user, place) = rest.split_once('@').unwrap();
    let user = user.split(':').next().unwrap();
    let (host, _) = place.rsplit_once('/').unwrap();
    let cases = [
        (format!("{scheme}://{user}:wrong-password@{place}"), "does not accept the user and password"),
        (
            format!("{scheme}://{rest_user}@{host}/no_such", rest_user = rest.split_once('@').unwrap().0),
            "does not exist on its server",
        ),
    ];
    for (url, words) in cases {
        let output = throughline().args(["--database-url", &url, "doctor"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("wrong-password") && !said.contains("throughline doctor"), "{said}");
    }
}

/// The event log's limit is met: publishers, readiness and the doctor say so, and what to do.
#[tokio::test]
async fn a_full_event_stream() {
    let listen = format!("127.0.0.1:{}", free_port());
    let settings = Settings::new(&format!("[nats]\nmax_bytes_mib = 1\n[http]\nlisten = {listen:?}\n"));
    let Some(cluster) = Cluster::start(1, &settings).await else { return };
    cluster.workers[0].until_ready().await;
    until_ready_again(&listen).await;
    let jetstream = async_nats::jetstream::new(cluster.client.clone());
    let rubbish = "x".repeat(30_000);
    for n in 0..100 {
        // Of no stage, so that nothing of it is worked on.
        let sent = jetstream
            .publish(format!("throughline.v1.interaction_saved.s.w{n}"), rubbish.clone().into())
            .await;
        if sent.expect("sent").await.is_err() {
            break;
        }
    }
    let not_ready = eventually("readiness tells it", async || {
        let (status, said) = readiness(&listen).await;
        (status == 503).then(|| said["checks"]["bus"].as_str().unwrap_or_default().to_owned())
    })
    .await;
    assert!(not_ready.contains("the stream throughline_EVENTS is full"), "{not_ready}");
    assert!(not_ready.contains("raise nats.max_bytes_mib"), "{not_ready}");
    let doctor = doctor(&cluster);
    assert!(doctor.contains("the stream throughline_EVENTS is full"), "{doctor}");
}

/// A worker on a server that takes little at once: large answers arrive, and whoever looks is told.
#[tokio::test]
async fn a_server_that_takes_less_than_a_piece() {
    for max_payload in [32_768, 100_000] {
        let Some(server) = NatsServer::start_configured(&format!("max_payload: {max_payload}\n")) else {
            return;
        };
        let bus = crate::bus::set_up(&server).await;
        crate::bus::large_events_arrive(&bus, &[10, 30_000, 40_000, 90_000, 300_000]).await;
        assert!(bus.small_payload().is_some_and(|words| words.contains(&max_payload.to_string())));
    }
}

/// Nobody has said where the endpoints are to be: the second worker of one machine finds a place of its own.
#[tokio::test]
async fn two_workers_of_one_configuration() {
    let Some(cluster) = Cluster::start(0, &Settings::new("")).await else { return };
    let config = std::fs::read_to_string(cluster.config()).unwrap();
    let default = config.lines().filter(|line| !line.starts_with("listen")).collect::<Vec<_>>().join("\n");
    std::fs::write(cluster.config(), default).unwrap();
    // Whatever has the default port, the first worker or somebody else on this machine.
    let (first, second) = (cluster.run("first", &["worker"]), cluster.run("second", &["worker"]));
    for worker in [&first, &second] {
        worker.until_ready().await;
    }
    let told = |worker: &crate::harness::Program| {
        worker.stderr().contains("another process has the default address")
    };
    assert!(told(&first) || told(&second), "{}\n{}", first.stderr(), second.stderr());
    // Where the one is that has no default address, its log says, and it can be asked there.
    let moved = if told(&first) { &first } else { &second };
    let log = moved.stderr();
    let address = log.split("worker ready address=").nth(1).unwrap().split(' ').next().unwrap();
    let mut health = cluster.run("health", &["health", "--listen", address]);
    assert_eq!(health.ended(crate::harness::SOON).await.code(), Some(0), "{}", health.stderr());
    assert!(health.stdout().contains("\"ready\""), "{}", health.stdout());
    let configured =
        cluster.run("third", &["worker", "--listen", "127.0.0.1:8080"]).ended(crate::harness::SOON).await;
    assert_eq!(configured.code(), Some(69), "a port that was asked for is the one or none");
}
