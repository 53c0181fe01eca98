//! A database of a version that knew no namespaces.

use serde_json::{Map, json};
use sqlx::{
    Connection, Executor, Row, SqlSafeStr, SqliteConnection,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::SqliteConnectOptions,
};
use throughline::storage::sqlite::SqliteStore;
use throughline_actors::ports::store::{AdmissionResult, FailedTurn, KnownEnd, Store, TurnsQuery};
use throughline_schemas::{FailureCode, SessionId, UserId, WorkflowId};

use super::{READERS, admission, interaction, look, saved, url};

const MIGRATIONS: [&str; 3] = [
    include_str!("../../../src/storage/migrations/sqlite/0001_turns_interactions_preferences.sql"),
    include_str!("../../../src/storage/migrations/sqlite/0002_busy_sessions_and_sweeping.sql"),
    include_str!("../../../src/storage/migrations/sqlite/0003_ended_turns.sql"),
];

/// A turn that was saved, one that was rejected, one that runs, one that waits; and a preference.
const ROWS: &str = "
    INSERT INTO interactions VALUES (
        'old', 'interaction-old', 'ann', 's', 'question', 'answer', 'openai', 'm', 'stop', 1, 0, 2, 0, '0.5', '{}', 1,
        '2025-10-09T08:53:20.000000000Z', '2025-10-09T08:53:21.000000000Z', '2025-10-09T08:53:22.000000000Z', 2000);
    INSERT INTO turns (workflow_id, session_id, user_id, input_sequence, state, event, created_at, updated_at, failure)
    VALUES
        ('old', 's', 'ann', 1, 'saved', NULL, '2025-10-09T08:53:20.000000000Z', '2025-10-09T08:53:22.000000000Z', NULL),
        ('no', 's', 'ann', 2, 'failed', NULL, '2025-10-09T08:53:20.000000000Z', '2025-10-09T08:53:20.000000000Z',
            'rejected'),
        ('early', 's', NULL, NULL, 'failed', NULL, '2025-10-09T08:53:20.000000000Z', '2025-10-09T08:53:20.000000000Z',
            NULL),
        ('a', 's', 'ann', 3, 'running', x'61', '2025-10-09T08:53:20.000000000Z', '2025-10-09T08:53:20.000000000Z', NULL),
        ('b', 's', 'ann', 4, 'waiting', x'62', '2025-10-09T08:53:20.000000000Z', '2025-10-09T08:53:20.000000000Z', NULL);
    INSERT INTO preferences VALUES ('ann', 'tone', '\"formal\"', '2025-10-09T08:53:20.000000000Z')";

async fn a_file_of_the_earlier_version(directory: &std::path::Path) {
    let path = directory.join("store.db");
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let migrations = (1..).zip(MIGRATIONS).map(|(version, sql)| {
        Migration::new(version, "".into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect()).run_direct(None, &mut connection, false).await.unwrap();
    connection.execute(sqlx::raw_sql(ROWS)).await.unwrap();
    connection.close().await.unwrap();
}

/// Its rows belong to the first namespace that opens it, and to nobody else; turns go on where they were.
#[tokio::test]
async fn a_database_of_an_earlier_version_is_adopted_by_the_first_namespace() {
    let directory = tempfile::tempdir().unwrap();
    a_file_of_the_earlier_version(directory.path()).await;
    let open =
        async |namespace: &str| SqliteStore::open(&url(directory.path()), READERS, namespace).await.unwrap();
    let (first, second) = (open("first").await, open("second").await);
    for _ in 0..2 {
        assert_eq!(second.latest_turns(TurnsQuery { limit: 9, ..TurnsQuery::default() }).await.unwrap(), []);
        let listed = first.latest_turns(TurnsQuery { limit: 9, ..TurnsQuery::default() }).await.unwrap();
        assert_eq!(listed.len(), 5);
        // Again, as another process does.
        open("first").await;
    }
    let (ann, session) = (UserId::new("ann").unwrap(), SessionId::new("s").unwrap());
    let context = first.context(&ann, &session, 9).await.unwrap();
    assert_eq!(context.preferences, Map::from_iter([("tone".to_owned(), json!("formal"))]));
    assert_eq!(context.recent_turns[0].assistant, "answer");
    let end = async |id: &str| first.end(&WorkflowId::new(id).unwrap()).await.unwrap().unwrap();
    assert!(matches!(end("old").await, KnownEnd::Saved(kept) if kept.response.text == "answer"));
    let KnownEnd::Failed(rejected) = end("no").await else { panic!("it failed") };
    let FailedTurn { code, record, .. } = *rejected;
    assert_eq!((code, record), (Some(FailureCode::SessionBusy), None));
    let KnownEnd::Failed(early) = end("early").await else { panic!("it failed") };
    assert_eq!((early.code, early.user_id), (None, None));

    let again = vec![admission("a", "s", 3), admission("b", "s", 9), admission("old", "t", 10)];
    let result = first.admit(again).await.unwrap().into_iter().map(|admitted| admitted.result);
    let conflict = AdmissionResult::Conflict { session_id: session };
    let expected = [AdmissionResult::Running, AdmissionResult::Repeated { ended: false }, conflict];
    assert_eq!(result.collect::<Vec<_>>(), expected, "by user and session");
    assert_eq!(first.save(interaction("a", "s", 3)).await.unwrap(), saved(Some("b")));
}

/// What the operator deletes from `interactions` stays deleted, and its workflow ended.
#[tokio::test]
async fn an_answer_that_was_deleted_is_known_to_have_been_given() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&url(directory.path()), READERS, "n").await.unwrap();
    store.save(interaction("w", "s", 1)).await.unwrap();
    let mut look = look(directory.path()).await;
    look.execute("DELETE FROM interactions").await.unwrap();
    let (user, session_id) = (UserId::new("ann").unwrap(), SessionId::new("s").unwrap());
    let forgotten = KnownEnd::Forgotten { user_id: Some(user), session_id };
    assert_eq!(store.end(&WorkflowId::new("w").unwrap()).await.unwrap(), Some(forgotten));
    store.save(interaction("w", "s", 1)).await.unwrap();
    let rows = look.fetch_one("SELECT count(*) FROM interactions").await.unwrap();
    assert_eq!(rows.get::<i64, _>(0), 0);
}
