//! A server that is away, slow, locked, or not the right one.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Map;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, raw_sql};
use throughline::storage::postgres::{Limits, PostgresStore};
use throughline_actors::ports::store::{AdmissionResult, Interaction, Store, StoreError, StoreTrouble};
use tokio::time::Instant;

use super::{CONNECTIONS, NAMESPACE, Stores, material::*, open};
use crate::{
    harness::{Program, SOON, eventually, process::throughline},
    postgres_server::{PASSWORD, PostgresServer},
};

const SHORT: Limits = Limits {
    request: Duration::from_secs(3),
    lock: Duration::from_millis(100),
    connect: Duration::from_secs(1),
};

/// Opened once there is time to.
async fn impatient(url: &str) -> PostgresStore {
    eventually("an impatient store", async || {
        PostgresStore::open_with(url, CONNECTIONS, NAMESPACE, SHORT).await.ok()
    })
    .await
}

async fn count(look: &mut PgConnection, of: &'static str) -> i64 {
    look.fetch_one(of).await.unwrap().get(0)
}

const ROWS: &str = "SELECT count(*) FROM interactions";

/// Why it could not be opened.
fn reason(refused: Result<PostgresStore, StoreError>) -> String {
    let error = refused.unwrap_err();
    // What a first connection meets is told at once, whether or not a worker that runs would wait for its end.
    let is_named = [StoreTrouble::NoDatabase, StoreTrouble::WrongPassword].contains(&error.trouble());
    assert!(is_named || matches!(error, StoreError::Refused { .. }), "{error:?}");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    assert!(!text.contains(PASSWORD), "{text}");
    text
}

#[tokio::test]
async fn what_was_answered_is_there_when_the_database_is_opened_again() {
    let Some(stores) = Stores::new(1).await else { return };
    let batch = vec![admission("a", "s", 1), admission("b", "s", 2), admission("c", "s", 3)];
    stores.admit(batch.clone()).await.unwrap();
    stores.save(interaction("a", "s", 1)).await.unwrap();
    stores.close().await;
    assert!(matches!(stores.ping().await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(stores.save(interaction("w", "s", 1)).await, Err(StoreError::Unavailable { .. })));
    let store = open(&stores.url).await;
    let results = store.admit(batch).await.unwrap().into_iter().map(|answer| answer.result);
    assert_eq!(
        results.collect::<Vec<_>>(),
        [AdmissionResult::Ended, AdmissionResult::Running, AdmissionResult::Waiting]
    );
    assert_eq!(store.save(interaction("a", "s", 1)).await.unwrap(), saved(Some("b")));
}

#[tokio::test]
async fn closing_does_what_is_queued() {
    let Some(stores) = Stores::new(1).await else { return };
    let saves = (1..=100).map(|n| interaction(&n.to_string(), &n.to_string(), n));
    let saves = join_all(saves.map(|saved| stores.all[0].save(saved)));
    let (saves, ()) = tokio::join!(saves, stores.all[0].close());
    assert!(saves.iter().all(Result::is_ok), "{saves:?}");
    assert_eq!(count(&mut stores.look().await, ROWS).await, 100);
}

#[tokio::test]
async fn many_processes_may_open_a_new_database_at_once() {
    let Some(server) = PostgresServer::shared().await else { return };
    let url = server.database().await;
    let openings = (0..8).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { open(&url).await.ping().await.unwrap() })
    });
    for opening in openings.collect::<Vec<_>>() {
        opening.await.unwrap();
    }
    let mut look = PgConnection::connect(&url).await.unwrap();
    assert_eq!(count(&mut look, "SELECT count(*) FROM _sqlx_migrations").await, 8);
}

/// An operator may keep the right to change tables from workers.
#[tokio::test]
async fn tables_that_are_up_to_date_need_no_right_to_create_any() {
    let Some(stores) = Stores::new(1).await else { return };
    let mut look = stores.look().await;
    let role = format!("worker_{}", stores.url.rsplit('/').next().unwrap().split('?').next().unwrap());
    let grants = format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}';
         REVOKE CREATE ON SCHEMA public FROM PUBLIC;
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}"
    );
    look.execute(raw_sql(AssertSqlSafe(grants))).await.unwrap();
    let store = open(&stores.url.replace("//postgres:", &format!("//{role}:"))).await;
    assert_eq!(store.admit(vec![admission("a", "s", 1)]).await.unwrap(), [AdmissionResult::Running.into()]);
    assert_eq!(store.save(interaction("a", "s", 1)).await.unwrap(), saved(None));
    store.set_preferences(&user("ann"), &Map::new()).await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_locked_is_busy_and_over_when_it_is_released() {
    let Some(stores) = Stores::new(1).await else { return };
    let store = impatient(&stores.url).await;
    stores.save(interaction("before", "s", 1)).await.unwrap();
    let mut other = stores.look().await;
    let mut transaction = other.begin().await.unwrap();
    transaction.execute("LOCK TABLE turns IN SHARE MODE").await.unwrap();
    let refused = store.admit(vec![admission("a", "s", 2)]).await;
    assert!(matches!(refused, Err(StoreError::Busy { .. })), "{refused:?}");
    assert_eq!(stores.context(&user("ann"), &session("s"), 9).await.unwrap().recent_turns.len(), 1);
    transaction.rollback().await.unwrap();
    assert_eq!(stores.admit(vec![admission("a", "s", 2)]).await.unwrap(), [AdmissionResult::Running.into()]);
}

/// A session that somebody else holds, for whatever reason, holds up nobody else.
#[tokio::test]
async fn a_session_that_is_locked_is_busy_alone() {
    let Some(stores) = Stores::new(1).await else { return };
    let store = impatient(&stores.url).await;
    let mut other = stores.look().await;
    let mut transaction = other.begin().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock(1952997996, hashtext('test/s'))";
    transaction.execute(lock).await.unwrap();
    let held = store.admit(vec![admission("a", "s", 1)]).await;
    assert!(matches!(held, Err(StoreError::Busy { .. })), "{held:?}");
    let free = stores.admit(vec![admission("b", "t", 2)]).await;
    assert_eq!(free.unwrap(), [AdmissionResult::Running.into()]);
    transaction.rollback().await.unwrap();
    assert_eq!(stores.admit(vec![admission("a", "s", 1)]).await.unwrap(), [AdmissionResult::Running.into()]);
}

#[tokio::test]
async fn an_operation_that_is_refused_does_not_take_the_others_of_its_batch_along() {
    let Some(stores) = Stores::new(1).await else { return };
    let store = &stores.all[0];
    let thief = Interaction { interaction_id: "interaction-a".to_owned(), ..interaction("b", "t", 2) };
    assert_eq!(store.save(interaction("a", "s", 1)).await.unwrap(), saved(None));
    let (refused, third, fourth) = tokio::join!(
        store.save(thief),
        store.save(interaction("c", "u", 3)),
        store.admit(vec![admission("d", "s", 4)]),
    );
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    assert_eq!(third.unwrap(), saved(None));
    assert_eq!(fourth.unwrap(), [AdmissionResult::Running.into()]);
    assert_eq!(store.admit(vec![admission("b", "t", 2)]).await.unwrap(), [AdmissionResult::Running.into()]);
}

/// More sessions than the server has locks for one connection: the batch runs alone, and nobody waits for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_many_sessions_are_admitted_next_to_small_ones() {
    let Some(stores) = Stores::new(2).await else { return };
    let large =
        |n: u64| (0..256_u64).map(move |s| admission(&format!("{n}-{s}"), &s.to_string(), n * 1000 + s));
    let (one, two) = (&stores.all[0], &stores.all[1]);
    let small = join_all((0..200_u64).map(|n| one.save(interaction(&format!("x{n}"), &n.to_string(), n))));
    let (first, second, small) =
        tokio::join!(one.admit(large(0).collect()), two.admit(large(1).collect()), small);
    assert!(small.iter().all(Result::is_ok), "{small:?}");
    let runs =
        |answer: &throughline_actors::ports::store::Admitted| answer.result == AdmissionResult::Running;
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.iter().filter(|a| runs(a)).count() + second.iter().filter(|a| runs(a)).count(), 256);
}

#[tokio::test]
async fn a_database_that_this_program_cannot_use_is_refused_with_the_reason() {
    let Some(server) = PostgresServer::shared().await else { return };
    let missing = reason(PostgresStore::open(&server.url("nowhere"), 1, NAMESPACE).await);
    assert!(missing.contains("\"nowhere\" does not exist"), "{missing}");
    let wrong = server.url("postgres").replace(PASSWORD, "wrong");
    let wrong = reason(PostgresStore::open(&wrong, 1, NAMESPACE).await);
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    let plaintext = server.url("postgres").replace("sslmode=disable", "sslmode=require");
    let refused = PostgresStore::open(&plaintext, 1, NAMESPACE).await.unwrap_err();
    assert!(format!("{refused:?}").contains("does not support TLS"), "{refused:?}");

    let mut look = server.connect("postgres").await;
    let create = "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    look.execute(create).await.unwrap();
    let encoding = reason(PostgresStore::open(&server.url("latin"), 1, NAMESPACE).await);
    assert!(encoding.contains("LATIN1; create it with ENCODING 'UTF8'"), "{encoding}");

    let stores = Stores::new(1).await.unwrap();
    let later = "INSERT INTO _sqlx_migrations VALUES (99, 'later', now(), TRUE, '\\x00', 0)";
    stores.look().await.execute(later).await.unwrap();
    let newer = reason(PostgresStore::open(&stores.url, 1, NAMESPACE).await);
    assert!(newer.contains("99"), "{newer}");
}

/// Fault matrix, row 11, at the port: away, crashed, and paused. Nothing is lost, nothing is stored twice.
#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    let Some(mut server) = PostgresServer::start(&[]).await else { return };
    let url = server.database().await;
    let store = open(&url).await;
    let began = |at: &Instant| at.elapsed().as_millis();

    // It restarts while nobody calls: nobody notices.
    store.save(interaction("a", "s", 1)).await.unwrap();
    server.stop();
    server.start_again().await;
    let back = Instant::now();
    assert_eq!(store.save(interaction("b", "s", 2)).await.unwrap(), saved(None));
    eprintln!("after a restart: {} ms", began(&back));

    // It crashes and is away while somebody calls: the call waits for it, or says that it may have happened.
    server.kill();
    let ((), ()) = tokio::join!(server.start_again(), async {
        while let Err(error) = store.save(interaction("c", "s", 3)).await {
            assert!(!matches!(error, StoreError::Refused { .. }), "{error:?}");
        }
    });

    // It stays away: the call ends in time, and says that it may have happened.
    let impatient = self::impatient(&url).await;
    server.stop();
    let away = Instant::now();
    let unknown = impatient.save(interaction("d", "s", 4)).await;
    assert!(matches!(unknown, Err(StoreError::Unavailable { .. })), "{unknown:?}");
    assert!(away.elapsed() < 10 * SHORT.request, "{:?}", away.elapsed());
    assert!(matches!(impatient.ping().await, Err(StoreError::Unavailable { .. })));
    server.start_again().await;
    let back = Instant::now();
    assert_eq!(store.save(interaction("d", "s", 4)).await.unwrap(), saved(None));
    eprintln!("after an outage: {} ms", began(&back));

    // It hangs.
    let impatient = self::impatient(&url).await;
    server.pause();
    let unknown = impatient.save(interaction("e", "s", 5)).await;
    assert!(matches!(unknown, Err(StoreError::Unavailable { .. })), "{unknown:?}");
    server.resume();
    assert_eq!(store.save(interaction("e", "s", 5)).await.unwrap(), saved(None));
    let mut look = PgConnection::connect(&url).await.unwrap();
    assert_eq!(count(&mut look, ROWS).await, 5);
}

/// What `doctor` says of the database: status and advice.
async fn advice(url: &str) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = throughline();
    // Nobody is there: the checks of the database do not depend on it.
    command.env("NATS_URL", "nats://127.0.0.1:1").env("DATABASE_URL", url).args(["doctor", "--json"]);
    let mut doctor = Program::start("doctor", dir.path(), &mut command);
    doctor.ended(SOON).await;
    let findings: serde_json::Value = serde_json::from_str(&doctor.stdout()).unwrap();
    let found = findings.as_array().unwrap().iter().find(|finding| finding["name"] == "database").unwrap();
    let word = |key: &str| found[key].as_str().unwrap().to_owned();
    assert!(!found.to_string().contains(PASSWORD), "{found}");
    (word("status"), word("advice"))
}

#[tokio::test]
async fn doctor_says_what_to_do_about_a_database_that_refuses() {
    let Some(server) = PostgresServer::shared().await else { return };
    let (missing, made) = (server.url("of_nobody"), server.database().await);
    let (missing, made) = tokio::join!(advice(&missing), advice(&made));
    assert!(missing.0 == "fail" && missing.1.contains("createdb"), "{missing:?}");
    assert_ne!(made.0, "fail", "{made:?}");
}
