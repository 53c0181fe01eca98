//! A database of an earlier version, and workers of one.

use sqlx::{
    Connection, Executor, PgConnection, Row, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use throughline::storage::postgres::PostgresStore;
use throughline_actors::ports::store::{
    Admission, AdmissionResult, HeldQuery, KnownEnd, Share, Store, TurnsQuery, UserLimits,
};
use throughline_schemas::FailureCode;

use super::{CONNECTIONS, PATIENT, material::*, open};
use crate::postgres_server::PostgresServer;

const MIGRATIONS: [&str; 3] = [
    include_str!("../../../src/storage/migrations/postgres/0001_turns_interactions_preferences.sql"),
    include_str!("../../../src/storage/migrations/postgres/0002_functions.sql"),
    include_str!("../../../src/storage/migrations/postgres/0003_ended_turns.sql"),
];

const ROWS: &str = "
    INSERT INTO interactions VALUES (
        'old', 'interaction-old', 'ann', 's', 'question', 'answer', 'openai', 'm', 'stop', 1, 0, 2, 0, 0.5, '{}', 1, now(),
        now(), now(), 2000);
    INSERT INTO turns (workflow_id, session_id, user_id, input_sequence, state, event, created_at, updated_at, failure)
    VALUES
        ('old', 's', 'ann', 1, 'saved', NULL, now(), now(), NULL),
        ('no', 's', 'ann', 2, 'failed', NULL, now(), now(), 'rejected'),
        ('a', 's', 'ann', 3, 'running', 'a', now(), now(), NULL),
        ('b', 's', 'ann', 4, 'waiting', 'b', now(), now(), NULL);
    INSERT INTO preferences VALUES ('ann', 'tone', '\"formal\"', now())";

/// What a worker of the earlier version asks.
const APPLY: &str = "SELECT * FROM throughline_apply(
    '[]', '{w}', '{s}', '{ann}', '{9}', '{enqueue}', '{0}', '{NULL}', ARRAY[now()], now(), 65536)";

/// Its rows belong to the first namespace that opens it, and to nobody else; turns go on where they were. Workers of the
/// earlier version are told to wait, and change nothing.
#[tokio::test]
async fn a_database_of_an_earlier_version_is_adopted_by_the_first_namespace() {
    let Some(server) = PostgresServer::shared().await else { return };
    let url = server.database().await;
    let mut look = PgConnection::connect(&url).await.unwrap();
    let migrations = (1..).zip(MIGRATIONS).map(|(version, sql)| {
        Migration::new(version, "".into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect()).run_direct(None, &mut look, false).await.unwrap();
    look.execute(sqlx::raw_sql(ROWS)).await.unwrap();

    let open = async |namespace: &str| {
        PostgresStore::open_with(&url, CONNECTIONS, namespace, PATIENT).await.unwrap()
    };
    let (first, second) = (open("first").await, open("second").await);
    for _ in 0..2 {
        assert_eq!(second.latest_turns(TurnsQuery { limit: 9, ..TurnsQuery::default() }).await.unwrap(), []);
        let listed = first.latest_turns(TurnsQuery { limit: 9, ..TurnsQuery::default() }).await.unwrap();
        assert_eq!(listed.len(), 4);
        open("first").await;
    }
    let context = first.context(&user("ann"), &session("s"), 9).await.unwrap();
    assert_eq!((context.preferences.len(), context.recent_turns.len()), (1, 1));
    let end = async |id: &str| first.end(&workflow(id)).await.unwrap().unwrap();
    assert!(matches!(end("old").await, KnownEnd::Saved(kept) if kept.response.text == "answer"));
    let KnownEnd::Failed(rejected) = end("no").await else { panic!("it failed") };
    assert_eq!((rejected.code, rejected.record), (Some(FailureCode::SessionBusy), None));

    let refused = look.execute(APPLY).await.unwrap_err();
    let code = refused.as_database_error().and_then(|error| error.code().map(Into::into));
    assert_eq!(code, Some("55P03".to_owned()), "{refused}");
    assert_eq!(first.save(interaction("a", "s", 3)).await.unwrap(), saved(Some("b")));
}

/// What a worker of the version before shares has to say: an input behind a turn that is held, and the end of a turn that
/// nobody admitted.
const APPLY_3: &str = "SELECT question, state FROM throughline_apply_3(
    'test', '[]', '{c,d}', '{t,t}', '{ann,ann}', '{9,10}', '{enqueue,fail}', '{0,0}', '{f,f}',
    ARRAY['c', NULL]::bytea[], ARRAY[NULL, NULL]::bytea[], '{NULL,internal}', ARRAY[NULL, NULL]::bytea[],
    ARRAY[now(), now()], now(), 65536)
    ORDER BY question";

/// While workers are replaced, those of the version before go on, and start nothing that is held.
#[tokio::test]
async fn workers_of_the_version_before_go_on_and_start_nothing_that_is_held() {
    let Some(server) = PostgresServer::shared().await else { return };
    let url = server.database().await;
    let store = open(&url).await;
    let mut look = PgConnection::connect(&url).await.unwrap();
    let share = Some(Share { each: 1, all: 0 });
    let limits = UserLimits { share, open: None };
    let batch = [admission("a", "s", 1), admission("b", "t", 2)].map(|asked| Admission { limits, ..asked });
    let answers = store.admit(batch.to_vec()).await.unwrap();
    let result: Vec<_> = answers.into_iter().map(|answer| answer.result).collect();
    assert_eq!(result, [AdmissionResult::Running, AdmissionResult::Held]);
    let rows = look.fetch_all(APPLY_3).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<&str, _>(1)).collect::<Vec<_>>(), ["waiting", "failed"]);
    assert_eq!(store.opening(&workflow("b")).await.unwrap(), None, "it is held");
    assert_eq!(store.save(interaction("a", "s", 1)).await.unwrap(), saved(None));
    let started = store.start_held(HeldQuery { share, behind: None, most: 9, at: at(0) }).await.unwrap();
    assert_eq!((started.openings.len(), started.left), (1, false));
    assert_eq!(store.save(interaction("b", "t", 2)).await.unwrap(), saved(Some("c")));
}
