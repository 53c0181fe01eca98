//! Moving from SQLite to PostgreSQL while turns wait: nothing is lost, and nobody goes on with the old database.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};

use crate::{
    harness::{Cluster, Program, SOON, Settings, cluster::said, eventually, process::throughline},
    postgres_server::PostgresServer,
};

const MESSAGES: usize = 20;
const SESSIONS: usize = 4;

fn run(cluster: &Cluster, name: &str, url: &str, arguments: &[&str]) -> Program {
    let mut command = throughline();
    command.arg("--config").arg(cluster.config()).arg("--database-url").arg(url).args(arguments);
    Program::start(name, cluster.dir(), &mut command)
}

#[tokio::test]
async fn turns_that_wait_go_on_in_the_database_they_were_copied_to() {
    let Some(server) = PostgresServer::shared().await else { return };
    let slow = Settings::new("[worker]\ndrain_grace_ms = 500");
    let arguments = ["--model-latency-ms", "800"];
    let Some(cluster) = Cluster::start_with(0, &slow, &arguments).await else { return };
    let (old, new) = (format!("sqlite://{}", cluster.database().display()), server.database().await);
    let mut log = cluster.log().await;

    let mut worker = run(&cluster, "before", &old, &["worker"]);
    worker.until_ready().await;
    let id = |n: usize| format!("w{n:02}");
    let sent: Vec<String> = (0..MESSAGES).map(id).collect();
    let messages = sent.iter().enumerate();
    let messages = messages.map(|(n, id)| said(id, "ann", &format!("s{}", n % SESSIONS), "What is new?"));
    cluster.publish_all(messages.collect()).await;
    eventually("some have ended, most have not", async || (cluster.rows().len() >= SESSIONS).then_some(()))
        .await;

    // While a worker uses it nothing is copied, and nothing changes.
    let mut refused = run(&cluster, "refused", &old, &["database", "copy", "--to", &new]);
    assert_eq!(refused.ended(SOON).await.code(), Some(1), "{}", refused.stderr());
    assert!(refused.stderr().contains("Stop all workers"), "{}", refused.stderr());
    worker.signal("TERM");
    assert_eq!(worker.ended(SOON).await.code(), Some(0), "{}", worker.stderr());
    let before = cluster.rows().len();
    assert!(before < MESSAGES, "turns wait");

    // Killed, it is run again.
    let mut killed = run(&cluster, "killed", &old, &["database", "copy", "--to", &new]);
    tokio::time::sleep(Duration::from_millis(30)).await;
    killed.kill();
    let mut copy = run(&cluster, "copy", &old, &["database", "copy", "--to", &new, "--json"]);
    assert_eq!(copy.ended(SOON).await.code(), Some(0), "{}", copy.stderr());
    let told: Value = serde_json::from_str(&copy.stdout()).unwrap();
    if told["copied_before"] == false {
        assert_eq!(told["rows"]["interactions"], before, "{told}");
    }

    let worker = run(&cluster, "after", &new, &["worker"]);
    worker.until_ready().await;
    log.until_ended(&sent).await;
    for id in &sent {
        let is_end = |kind: String| matches!(kind.as_str(), "interaction_saved" | "workflow_failed");
        assert_eq!(log.events(id).filter(|seen| is_end(seen.kind())).count(), 1, "{id}");
        log.answer(id);
    }
    let mut look = PgConnection::connect(&new).await.unwrap();
    let saved = "SELECT workflow_id, session_id FROM interactions ORDER BY input_sequence";
    let saved = sqlx::query(saved).fetch_all(&mut look).await.unwrap();
    assert_eq!(saved.len(), MESSAGES);
    let mut in_session: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in saved {
        in_session.entry(row.get(1)).or_default().push(row.get(0));
    }
    assert!(in_session.values().all(|ids| ids.is_sorted()), "in order: {in_session:?}");
    // The last turn of a session knows the ones before the move.
    let context = log.event(&id(MESSAGES - 1), "context_retrieved").unwrap();
    assert_eq!(context.data()["context"]["recent_turns"].as_array().unwrap().len(), MESSAGES / SESSIONS - 1);

    let mut doctor = run(&cluster, "doctor", &new, &["doctor"]);
    assert_eq!(doctor.ended(SOON).await.code(), Some(0), "{}", doctor.stdout());
    let place = new.split('@').nth(1).unwrap().split('?').next().unwrap();
    for (name, arguments, code) in [
        ("old-worker", &["worker"][..], 64),
        ("old-setup", &["setup"], 64),
        ("old-preferences", &["preferences", "get", "ann"], 64),
        ("old-doctor", &["doctor"], 1),
        ("old-list", &["list"], 0),
    ] {
        let mut old = run(&cluster, name, &old, arguments);
        assert_eq!(old.ended(SOON).await.code(), Some(code), "{}{}", old.stdout(), old.stderr());
        let told = old.stdout() + &old.stderr();
        for part in ["was copied to postgres", place, "set database.url"] {
            assert!(told.contains(part), "{name}: {part}: {told}");
        }
    }
}
