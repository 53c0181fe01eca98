//! A database that goes back in time while the log is kept: every session goes on, the tables get back what the log has, and
//! no model is asked again.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tokio::time::Instant;

use crate::harness::{
    Cluster, Deployment, SOON, Seen, Settings, cluster::said, eventually, stand_ins::model, stored,
};

const SESSIONS: usize = 10;
const TURNS: usize = 4;
const LATER: usize = 20;
/// What the task of a session may take to go on.
const WITHIN: Duration = Duration::from_mins(1);

fn settings() -> Settings {
    Settings::new("[sessions]\nsweep_interval_ms = 1000")
}

/// A database as it was, in the form that its operator keeps.
enum Backup {
    File(PathBuf),
    Database(String),
}

/// A backup of the database that the workers use meanwhile.
async fn back_up(deployment: &Deployment, cluster: &Cluster) -> Backup {
    match deployment {
        Deployment::Small => {
            let backup = cluster.dir().join("backup.db");
            copy(&cluster.database(), &backup).await;
            Backup::File(backup)
        }
        Deployment::Large { server, database, .. } => Backup::Database(server.copy_of(database).await),
    }
}

async fn copy(from: &Path, to: &Path) {
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", from.display())).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("VACUUM INTO '{}'", to.display())))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// The workers stop, and the database is the backup, or none.
async fn replace(deployment: &Deployment, cluster: &mut Cluster, by: Option<Backup>) {
    for mut worker in cluster.workers.drain(..) {
        worker.signal("TERM");
        assert_eq!(worker.ended(SOON).await.code(), Some(0), "{}", worker.stderr());
    }
    if let Deployment::Large { server, database, .. } = deployment {
        let by = by.as_ref().map(|backup| match backup {
            Backup::Database(name) => name.as_str(),
            Backup::File(_) => panic!("a file is no backup of a server"),
        });
        server.replace(database, by).await;
        return;
    }
    let database = cluster.database();
    for suffix in ["", "-wal", "-shm"] {
        let file = database.with_file_name(format!("throughline.db{suffix}"));
        if file.exists() {
            std::fs::remove_file(file).unwrap();
        }
    }
    if let Some(Backup::File(copy)) = by {
        std::fs::copy(copy, &database).unwrap();
    }
}

/// Some turns run and wait while a backup is made; they and others end; then the backup, or nothing, takes its place.
async fn goes_back(deployment: Deployment, keeps_a_backup: bool) {
    let Some(mut cluster) = Cluster::start_on(&deployment.parts(), 1, &settings(), &[]).await else { return };
    let mut log = cluster.log().await;
    cluster.stand_ins.fault(model(json!({"delay_ms": 3_000, "remaining": SESSIONS}))).await;
    let mut ids: Vec<String> =
        (0..TURNS).flat_map(|turn| (0..SESSIONS).map(move |s| format!("s{s}-t{turn}"))).collect();
    let say = |id: &String| said(id, "demo", id.split_once('-').unwrap().0, "Hello");
    cluster.publish_all(ids.iter().map(say).collect()).await;
    eventually("ten models are asked", async || {
        (cluster.stand_ins.count("model").await == SESSIONS as u64).then_some(())
    })
    .await;
    let backup = back_up(&deployment, &cluster).await;
    assert_eq!(log.events("s0-t0").filter(|event| event.kind() == "interaction_saved").count(), 0);
    let later: Vec<String> = (0..LATER).map(|n| format!("s{}-later{n}", n % (SESSIONS * 2))).collect();
    cluster.publish_all(later.iter().map(say).collect()).await;
    ids.extend(later);
    log.until_ended(&ids).await;
    let calls = cluster.stand_ins.count("model").await;
    assert_eq!(calls, ids.len() as u64);

    replace(&deployment, &mut cluster, keeps_a_backup.then_some(backup)).await;
    let mut doctor = cluster.run("doctor", &["doctor"]);
    doctor.ended(SOON).await;
    let finding = if keeps_a_backup { "is older than the log" } else { "was lost or replaced" };
    assert!(doctor.stdout().contains(finding), "{}", doctor.stdout());
    cluster.add_worker();
    cluster.add_worker();
    let began = Instant::now();
    let after: Vec<String> = (0..SESSIONS).map(|s| format!("s{s}-after")).collect();
    cluster.publish_all(after.iter().map(say).collect()).await;
    log.until_ended_within(WITHIN, &after).await;
    eprintln!("every session has gone on {:?} after the start", began.elapsed());
    ids.extend(after);
    eventually("the rows are back", async || (cluster.stored().await.len() == ids.len()).then_some(())).await;
    eprintln!("every row is back {:?} after the start", began.elapsed());
    assert_eq!(
        stored::turns(cluster.database_url()).await,
        [("saved".to_owned(), i64::try_from(ids.len()).unwrap())]
    );
    // Earlier turns are in prompts again.
    cluster.publish_all(vec![said("s0-last", "demo", "s0", "Hello")]).await;
    ids.push("s0-last".to_owned());
    log.until_ended(&ids).await;
    let context = log.event("s0-last", "context_retrieved").unwrap().data()["context"].clone();
    let recent = context["recent_turns"].as_array().unwrap();
    let of = |turn: &Value| turn["workflow_id"].as_str().unwrap().to_owned();
    let recent: Vec<String> = recent.iter().map(of).collect();
    for earlier in ["s0-t3", "s0-later0", "s0-after"] {
        assert!(recent.iter().any(|id| id == earlier), "{earlier}: {recent:?}");
    }
    for id in &ids {
        log.answer(id);
        let ends =
            log.events(id).filter(|event| ["interaction_saved", "workflow_failed"].contains(&&*event.kind()));
        assert_eq!(ends.count(), 1, "{id}");
    }
    assert_eq!(cluster.stand_ins.count("model").await, calls + SESSIONS as u64 + 1, "nobody was asked again");
    let said: String = cluster.workers.iter().map(crate::harness::Program::stderr).collect();
    assert!(said.contains("the database is older than the log"), "{said}");
    cluster.assert_workers_run();
}

#[tokio::test]
async fn a_backup_that_was_put_back_gets_the_ends_that_the_log_has() {
    goes_back(Deployment::Small, true).await;
}

#[tokio::test]
async fn a_backup_that_was_put_back_on_postgresql_gets_the_ends_that_three_servers_have() {
    let Some(deployment) = Deployment::large().await else { return };
    goes_back(deployment, true).await;
}

#[tokio::test]
async fn a_database_that_was_lost_gets_the_ends_that_the_log_has() {
    goes_back(Deployment::Small, false).await;
}

#[tokio::test]
async fn a_database_that_postgresql_has_lost_gets_the_ends_that_three_servers_have() {
    let Some(deployment) = Deployment::large().await else { return };
    goes_back(deployment, false).await;
}

/// The log has the end of an id that the database has forgotten: who publishes it again finds that end, and the session
/// goes on; another text under that id is told to its publisher.
async fn forgotten(deployment: Deployment) {
    let Some(mut cluster) = Cluster::start_on(&deployment.parts(), 1, &settings(), &[]).await else { return };
    let mut log = cluster.log().await;
    cluster.say("w1", "demo", "s", "Hello").await;
    log.until_ended(&["w1"]).await;
    replace(&deployment, &mut cluster, None).await;
    let backlog =
        [said("w1", "demo", "s", "Hello"), said("n1", "demo", "s", "And?"), said("w1", "demo", "s", "Else?")];
    cluster.publish_all(backlog.into()).await;
    cluster.add_worker();
    log.until_ended_within(WITHIN, &["n1"]).await;
    let is_refused = |seen: &Seen| seen.kind() == "workflow_failed" && seen.data()["code"] == "conflict";
    log.until("the other text is refused", |log| log.all.iter().any(is_refused)).await;
    eventually("the row is back", async || (cluster.stored().await.len() == 2).then_some(())).await;
    assert_eq!(cluster.stand_ins.count("model").await, 2);
    assert_eq!(log.events("w1").filter(|event| event.kind() == "interaction_saved").count(), 1);
    assert_eq!(log.events("w1").filter(|event| event.kind() == "workflow_failed").count(), 0);
    cluster.assert_workers_run();
}

#[tokio::test]
async fn an_id_that_the_database_has_forgotten_ends_as_it_did() {
    forgotten(Deployment::Small).await;
}

#[tokio::test]
async fn an_id_that_postgresql_has_forgotten_ends_as_it_did() {
    let Some(deployment) = Deployment::large().await else { return };
    forgotten(deployment).await;
}
