//! Mistakes in what stands around the program: certificates, disks, other versions, clocks.

use serde_json::json;
use sqlx::{Connection, Executor, SqliteConnection};

use super::{
    TOLD_WITHIN,
    commands::{Mistake, mistake},
};
use crate::{
    harness::{
        Cluster, Program, SOON, Settings,
        certificates::{EXPIRED_DAYS, by_an_authority},
        clock,
        cluster::{BARE, Parts},
        disk::ReadOnly,
        eventually,
        log::Log,
        process::throughline,
    },
    nats_server::NatsServer,
    postgres_server::PostgresServer,
};

const PUBLISH: &[&str] = &["publish", "--user", "u", "--session", "s", "--wait", "Hello"];

async fn all_are_told(cluster: &Cluster, mistakes: &[Mistake]) {
    for mistake in mistakes {
        mistake.is_told(cluster).await;
    }
}

async fn stop(mut worker: Program) {
    worker.signal("TERM");
    assert_eq!(worker.ended(SOON).await.code(), Some(0), "{}", worker.stderr());
}

async fn answered(log: &mut Log, workflow: &str) {
    log.until_ended_within(SOON, &[workflow]).await;
    assert!(log.answer(workflow).contains("I can help"), "{workflow}");
}

#[tokio::test]
async fn a_certificate_of_nats_that_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    if !by_an_authority(dir.path(), EXPIRED_DAYS) {
        return;
    }
    let file = |name: &str| dir.path().join(name).display().to_string();
    let tls = format!("tls {{ cert_file: {:?}, key_file: {:?} }}\n", file("cert.pem"), file("key.pem"));
    let Some(server) = NatsServer::start_local_configured(&tls) else { return };
    let Some(cluster) = Cluster::start(0, &Settings::new("")).await else { return };
    let url = server.url().replace("nats://127.0.0.1", "tls://localhost");
    let told = &["the certificate of the NATS server at", "it has expired: renew it"][..];
    let expired = [("it is published", PUBLISH), ("a worker starts", &["worker"]), ("one asks", &["doctor"])];
    let expired = expired.map(|(what, arguments)| {
        mistake(what, arguments, 69, told)
            .variable("NATS_URL", &url)
            .variable("THROUGHLINE_NATS__TLS_CA_FILE", file("ca.pem"))
            .without("no NATS server answers")
    });
    all_are_told(&cluster, &expired).await;
}

#[tokio::test]
async fn a_certificate_of_the_database_that_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    if !by_an_authority(dir.path(), EXPIRED_DAYS) {
        return;
    }
    let Some(server) = PostgresServer::start_with_tls().await else { return };
    let database = server.database().await.replace("127.0.0.1", "localhost");
    server.take_certificate(dir.path()).await;
    let trusted = format!("sslmode=verify-full&sslrootcert={}", dir.path().join("ca.pem").display());
    let url = database.replace("sslmode=disable", &trusted);
    let Some(cluster) = Cluster::start(0, &Settings::new("")).await else { return };
    let told = &["the certificate of the database's server is not accepted", "renew it", "Expired"][..];
    let expired = [("a worker starts", "worker", 69), ("one asks", "doctor", 1), ("one lists", "list", 69)];
    let expired = expired.map(|(what, command, exit)| {
        mistake(what, &[command], exit, told).variable("DATABASE_URL", &url).without("start it")
    });
    all_are_told(&cluster, &expired).await;
}

/// What was written stays readable, and work goes on when it may be written to again.
#[tokio::test]
async fn a_database_on_a_disk_that_was_mounted_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let parts = Parts { database: Some(folder.path()), ..Parts::default() };
    let Some(mut cluster) = Cluster::start_on(&parts, 1, &Settings::new(""), &[]).await else { return };
    let mut log = cluster.log().await;
    cluster.say("before", "ann", "s", "Hello").await;
    answered(&mut log, "before").await;
    stop(cluster.workers.pop().unwrap()).await;
    let Some(read_only) = ReadOnly::mount(folder.path()) else { return };
    let url = format!("sqlite://{}/throughline.db", read_only.path().display());
    let cases: [(&str, &[&str], i32, &[&str]); 4] = [
        ("a worker starts", &["worker"], 69, &["cannot be opened", "its folder written to"]),
        ("one asks", &["doctor"], 1, &["the database is read-only", "make its file and its disk writable"]),
        ("one writes", &["preferences", "set", "ann", "tone=brief"], 69, &["database.url", "its folder"]),
        ("one lists", &["list"], 0, &["before", "saved"]),
    ];
    let read_only_cases = cases.map(|(what, arguments, exit, told)| {
        mistake(what, arguments, exit, told).variable("DATABASE_URL", &url)
    });
    cluster.say("meanwhile", "ann", "s", "Hello").await;
    all_are_told(&cluster, &read_only_cases).await;
    drop(read_only);
    cluster.add_worker();
    answered(&mut log, "meanwhile").await;
}

/// What a stage of a later version publishes is told to whoever waits for the workflow, and kept; its session goes on.
#[tokio::test]
async fn a_worker_of_a_later_version_on_the_same_log() {
    let Some(mut cluster) = Cluster::start(0, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    let input = cluster.run("input", &["worker", "--stages", "input"]);
    cluster.say("mixed", "ann", "s", "Hello").await;
    cluster.say("behind", "ann", "s", "And then?").await;
    log.until("the turn has begun", |log| log.event("mixed", "input_validated").is_some()).await;
    stop(input).await;
    let later = json!({
        "specversion": "1.0", "id": "mixed.context_retrieved", "source": "throughline/context",
        "type": "context_retrieved", "time": "2031-01-01T00:00:00Z",
        "dataschema": "urn:throughline:event:context_retrieved:v2",
        "workflowid": "mixed", "sessionid": "s", "userid": "ann",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "data": {"all": "new"},
    });
    let subject = "throughline.v1.context_retrieved.s.mixed";
    cluster.publish(subject, &[("Nats-Msg-Id", "mixed.context_retrieved")], later.to_string()).await;
    cluster.add_worker();
    cluster.workers[0].until_ready().await;
    let began = tokio::time::Instant::now();
    let again = ["--user", "ann", "--session", "s", "--workflow-id", "mixed", "--wait", "Hello"];
    let mut waits = cluster.run("waits", &[&["publish"][..], &again].concat());
    assert_eq!(waits.ended(SOON).await.code(), Some(1));
    assert!(began.elapsed() < TOLD_WITHIN, "{:?}", began.elapsed());
    let told = waits.stderr();
    assert!(told.contains("unreadable_event") && told.contains("What to do"), "{told}");
    let mut list = cluster.run("list", &["dead", "list"]);
    list.ended(SOON).await;
    assert!(list.stdout().contains("unreadable_event"), "{}", list.stdout());
    answered(&mut log, "behind").await;
}

/// A later version has changed the tables: this one does not touch them, and work goes on with the later one.
#[tokio::test]
async fn a_database_that_a_later_version_has_migrated() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    cluster.workers[0].until_ready().await;
    stop(cluster.workers.pop().unwrap()).await;
    let migrated = async |sql: &'static str| {
        let url = format!("sqlite://{}", cluster.database().display());
        let mut other = SqliteConnection::connect(&url).await.unwrap();
        other.execute(sql).await.unwrap();
        other.close().await.unwrap();
    };
    migrated(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99, 'of a later version', TRUE, x'00', 0)",
    )
    .await;
    cluster.say("meanwhile", "ann", "s", "Hello").await;
    let told = &["migration 99 is not known here", "run that version"][..];
    let later = [("a worker starts", "worker", 69), ("one asks", "doctor", 1)];
    let later = later.map(|(what, command, exit)| mistake(what, &[command], exit, told));
    all_are_told(&cluster, &later).await;
    migrated("DELETE FROM _sqlx_migrations WHERE version = 99").await;
    cluster.add_worker();
    answered(&mut log, "meanwhile").await;
}

/// Neither a worker nor a publisher whose clock is wrong costs anybody a message or an order; the worker and the doctor say so.
#[tokio::test]
async fn a_clock_that_is_an_hour_ahead_or_behind() {
    for (name, hours, worker_says, doctor_says) in [
        ("ahead", 1, "clock is ahead of the NATS server's", "behind ours"),
        ("behind", -1, "clock is behind the NATS server's", "ahead of ours"),
    ] {
        let Some(wrong) = clock::ahead_by(hours * 3_600) else { return };
        let Some(mut cluster) = Cluster::start(1, &Settings::new("")).await else { return };
        let mut log = cluster.log().await;
        cluster.workers[0].until_ready().await;
        let run = |name: &str, command: &str| {
            let mut program = throughline();
            program.envs(wrong.clone()).arg("--config").arg(cluster.config()).arg(command);
            Program::start(name, cluster.dir(), &mut program)
        };
        let began = tokio::time::Instant::now();
        let other = run("wrong", "worker");
        eventually("the worker tells of it", async || other.stderr().contains(worker_says).then_some(()))
            .await;
        assert!(other.stderr().contains("set both by NTP"));
        let mut doctor = run("doctor", "doctor");
        doctor.ended(SOON).await;
        let said = doctor.stdout();
        assert!(said.contains(doctor_says) && said.contains("synchronise both (NTP)"), "{said}");
        assert!(began.elapsed() < TOLD_WITHIN, "{:?}", began.elapsed());
        // Both work, one after the other, in one session; publishers have wrong clocks, too.
        let mut workflows = Vec::new();
        for n in 0..10 {
            let workflow = format!("w{n}");
            let time = ["2020-01-01T00:00:00Z", "2031-01-01T00:00:00Z"][n % 2];
            let event = json!({
                "specversion": "1.0", "type": "user_input_received", "id": workflow, "source": "/shop", "time": time,
                "data": {"user_id": "ann", "session_id": "s", "user_input": format!("Hello {n}"), "workflow_id": workflow},
            });
            cluster.publish(BARE, &[], event.to_string()).await;
            workflows.push(workflow);
        }
        // The one whose clock is right goes, in the middle of it.
        stop(cluster.workers.pop().unwrap()).await;
        for workflow in &workflows {
            answered(&mut log, workflow).await;
        }
        let saved = log.all.iter().filter(|seen| seen.kind() == "interaction_saved");
        let ends: Vec<&str> = saved.map(|seen| seen.attribute("workflowid")).collect();
        assert_eq!(ends, workflows, "{name}: in the order of the session");
        drop(other);
    }
}
