//! Workers on a PostgreSQL server that is away, locked, paused, or kills their connections: fault matrix, rows 11
//! and 12.

use std::{collections::BTreeSet, time::Duration};

use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::time::Instant;

use crate::{
    crashes::{assert_ordered, conversation},
    harness::{Cluster, Figures, Log, SOON, Settings, cluster::Parts, eventually},
    postgres_server::{PASSWORD, PostgresServer},
};

/// A breaker that was opened tries again after a second, not after half a minute.
const SETTINGS: &str = "
[stages.input]
breaker_cooldown_ms = 1000
[stages.context]
breaker_cooldown_ms = 1000
[stages.persistence]
breaker_cooldown_ms = 1000
";

/// Longer than the server's own patience with locks, which is five seconds.
const LOCKED: Duration = Duration::from_secs(6);

struct Deployment {
    cluster: Cluster,
    log: Log,
    workflows: Vec<String>,
    url: String,
}

impl Deployment {
    /// Two workers, with ten conversations of five turns under way.
    async fn start(server: &PostgresServer) -> Option<Self> {
        let url = server.database().await;
        let parts = Parts { database_url: Some(&url), ..Parts::default() };
        let latency = ["--model-latency-ms", "40"];
        let mut cluster = Cluster::start_on(&parts, 2, &Settings::new(SETTINGS), &latency).await?;
        let mut log = cluster.log().await;
        let (workflows, messages): (Vec<_>, Vec<_>) = conversation().into_iter().unzip();
        cluster.publish_all(messages).await;
        log.until("the first workflows have ended", |log| ended(log) >= 5).await;
        cluster.assert_workers_run();
        Some(Self { cluster, log, workflows, url })
    }

    /// Everything ended, once, in order, with one model call and one row each; nobody said the password.
    async fn check(mut self, row: u8, fault: &'static str, faults: usize, calm: Instant) {
        self.log.until_ended_within(2 * SOON, &self.workflows).await;
        let recovered = calm.elapsed();
        assert_ordered(&self.log);
        assert_eq!(self.log.dead().count(), 0);
        let mut look = PgConnection::connect(&self.url).await.unwrap();
        let rows = look.fetch_all("SELECT workflow_id FROM interactions").await.unwrap();
        let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let calls = self.cluster.stand_ins.count("model").await;
        let figures = Figures::count(row, fault, faults, &self.log, &self.workflows);
        figures.rows(&self.log, &self.workflows, rows.clone()).calls(calls).recovered(recovered).show();
        let saved: BTreeSet<String> = rows.iter().cloned().collect();
        assert_eq!((rows.len(), saved), (self.workflows.len(), self.workflows.iter().cloned().collect()));
        assert_eq!(calls, self.workflows.len() as u64);
        self.cluster.assert_workers_run();
        for worker in &self.cluster.workers {
            assert!(!worker.stderr().contains(PASSWORD), "{}", worker.stderr());
        }
    }
}

fn ended(log: &Log) -> usize {
    log.all.iter().filter(|seen| seen.kind() == "interaction_saved").count()
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for() {
    let Some(mut server) = PostgresServer::start(&[]).await else { return };
    let Some(deployment) = Deployment::start(&server).await else { return };
    let mut opened = deployment.cluster.client.subscribe("throughline.control.breaker").await.unwrap();
    server.stop();
    // Away until a worker has given up asking.
    let stopped = Instant::now();
    futures_util::StreamExt::next(&mut opened).await.expect("a breaker opens");
    let opened_after = stopped.elapsed();
    let calls = deployment.cluster.stand_ins.count("model").await;
    assert!(calls <= deployment.workflows.len() as u64, "{calls} model calls");
    server.start_again().await;
    let (back, mut look) = (Instant::now(), PgConnection::connect(&deployment.url).await.unwrap());
    let rows = "SELECT count(*) FROM interactions";
    let before: i64 = look.fetch_one(rows).await.unwrap().get(0);
    eventually("another one is saved", async || {
        (look.fetch_one(rows).await.unwrap().get::<i64, _>(0) > before).then_some(())
    })
    .await;
    eprintln!(
        "breaker open after {opened_after:?}, next workflow saved {:?} after the database was back",
        back.elapsed()
    );
    deployment.check(11, "PostgreSQL stopped until a breaker has opened", 1, back).await;
}

#[tokio::test]
async fn a_database_that_crashes_again_and_again_loses_nothing() {
    let Some(mut server) = PostgresServer::start(&[]).await else { return };
    let Some(mut deployment) = Deployment::start(&server).await else { return };
    let mut back = Instant::now();
    for _ in 0..3 {
        server.kill();
        server.start_again().await;
        back = Instant::now();
        let before = ended(&deployment.log);
        if before < deployment.workflows.len() {
            deployment.log.until("another one has ended", |log| ended(log) > before).await;
        }
    }
    deployment.check(11, "PostgreSQL killed", 3, back).await;
}

#[tokio::test]
async fn a_database_that_is_locked_or_paused_is_waited_for() {
    let Some(server) = PostgresServer::start(&[]).await else { return };
    let Some(deployment) = Deployment::start(&server).await else { return };
    let mut operator = PgConnection::connect(&deployment.url).await.unwrap();
    let mut transaction = operator.begin().await.unwrap();
    // In the order in which batches write them: the other way round is a deadlock, of which this may be the victim.
    transaction.execute("LOCK TABLE interactions, turns IN EXCLUSIVE MODE").await.unwrap();
    tokio::time::sleep(LOCKED).await;
    transaction.rollback().await.unwrap();
    server.pause();
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.resume();
    deployment.check(11, "PostgreSQL's tables locked for 6 s, then frozen for 2 s", 2, Instant::now()).await;
}

#[tokio::test]
async fn connections_may_be_killed_in_the_middle_of_anything() {
    let Some(server) = PostgresServer::shared().await else { return };
    let Some(mut deployment) = Deployment::start(server).await else { return };
    let mut operator = PgConnection::connect(&deployment.url).await.unwrap();
    let (mut killed, mut last) = (0, Instant::now());
    while ended(&deployment.log) < deployment.workflows.len() {
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'throughline'
            ORDER BY state = 'active' DESC, random() LIMIT 1";
        killed += operator.fetch_all(kill).await.unwrap().len();
        last = Instant::now();
        let before = ended(&deployment.log);
        deployment.log.until("another one has ended", |log| ended(log) > before).await;
    }
    eprintln!("{killed} connections were ended from outside");
    assert!(killed > 10);
    deployment.check(12, "PostgreSQL connections killed (over: after the last)", killed, last).await;
}
