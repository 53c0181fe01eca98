//! The SQLite store: the contract of every store, and what only a file can do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod earlier;
mod listing;
mod measure;

use std::{
    ops::Deref,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::{Map, Value, json};
use sqlx::{Connection, Executor, Row, SqliteConnection};
use tempfile::TempDir;
use throughline::storage::sqlite::{Limits, SqliteStore};
use throughline_actors::{
    ports::{
        contract::store::{self as story, UnderTest},
        store::{
            Admission, AdmissionResult, Admitted, Closed, EndedTurn, Ending, Failing, Fingerprint, HeldQuery,
            HeldStarted, Interaction, KnownEnd, ListedTurn, Mark, OpenTurns, Opening, RestoredTurn,
            RunningQuery, RunningTurn, SessionOwner, Store, StoreError, StoreTrouble, TurnsQuery, UserLimits,
            Verdict,
        },
    },
    store_contract,
};
use throughline_schemas::{
    FinishReason, Metadata, SessionId, Timestamp, Usage, Usd, UserId, WorkflowId,
    event::{
        context::Context,
        generation::Response,
        input::{Request, WhenBusy},
    },
};

/// Two readers, so that the contract also sees them at work at the same time.
const READERS: u32 = 2;

/// Whose rows these are.
const NAMESPACE: &str = "test";

/// Stores on one file, called in turn, in a directory that goes away with them.
struct Stores {
    all: Vec<SqliteStore>,
    calls: AtomicUsize,
    directory: TempDir,
}

impl Stores {
    async fn new(count: usize) -> Box<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(open(directory.path()).await);
        }
        Box::new(Self { all, calls: AtomicUsize::new(0), directory })
    }

    async fn look(&self) -> SqliteConnection {
        look(self.directory.path()).await
    }
}

impl Deref for Stores {
    type Target = SqliteStore;
    fn deref(&self) -> &SqliteStore {
        &self.all[self.calls.fetch_add(1, Ordering::Relaxed) % self.all.len()]
    }
}

#[async_trait::async_trait]
impl Store for Stores {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        self.deref().admit(batch).await
    }
    async fn start_held(&self, query: HeldQuery) -> Result<HeldStarted, StoreError> {
        self.deref().start_held(query).await
    }
    async fn context(&self, user: &UserId, session: &SessionId, turns: usize) -> Result<Context, StoreError> {
        self.deref().context(user, session, turns).await
    }
    async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError> {
        self.deref().save(interaction).await
    }
    async fn fail(&self, failing: Failing) -> Result<Closed, StoreError> {
        self.deref().fail(failing).await
    }
    async fn running(&self, query: RunningQuery) -> Result<Vec<RunningTurn>, StoreError> {
        self.deref().running(query).await
    }
    async fn opening(&self, workflow: &WorkflowId) -> Result<Option<Opening>, StoreError> {
        self.deref().opening(workflow).await
    }
    async fn ended_before(&self, places: &[(SessionId, u64)]) -> Result<Vec<Option<EndedTurn>>, StoreError> {
        self.deref().ended_before(places).await
    }
    async fn end(&self, workflow: &WorkflowId) -> Result<Option<KnownEnd>, StoreError> {
        self.deref().end(workflow).await
    }
    async fn oldest_open(&self) -> Result<Option<u64>, StoreError> {
        self.deref().oldest_open().await
    }
    async fn forget_ended(&self, ended_before: Timestamp, most: usize) -> Result<u64, StoreError> {
        self.deref().forget_ended(ended_before, most).await
    }
    async fn restore(&self, ended: RestoredTurn) -> Result<Closed, StoreError> {
        self.deref().restore(ended).await
    }
    async fn latest_turns(&self, query: TurnsQuery) -> Result<Vec<ListedTurn>, StoreError> {
        self.deref().latest_turns(query).await
    }
    async fn open_turns(&self) -> Result<OpenTurns, StoreError> {
        self.deref().open_turns().await
    }
    async fn mark(&self) -> Result<Mark, StoreError> {
        self.deref().mark().await
    }
    async fn set_mark(&self, from: u64, to: u64) -> Result<(), StoreError> {
        self.deref().set_mark(from, to).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.deref().ping().await
    }
}

impl UnderTest for Stores {
    async fn set_preferences(&self, user: &UserId, preferences: &Map<String, Value>) {
        self.deref().set_preferences(user, preferences).await.unwrap();
    }
    async fn delete_preferences(&self, user: &UserId, names: Option<&[String]>) -> u64 {
        self.deref().delete_preferences(user, names).await.unwrap()
    }
    async fn beside(&self) -> Box<dyn Store> {
        Box::new(SqliteStore::open(&url(self.directory.path()), READERS, "another").await.unwrap())
    }
}

store_contract!(async { Some(Stores::new(1).await) });

fn url(directory: &Path) -> String {
    format!("sqlite://{}/store.db", directory.display())
}

async fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(&url(directory), READERS, NAMESPACE).await.unwrap()
}

/// A client of SQLite that knows nothing of the store.
async fn look(directory: &Path) -> SqliteConnection {
    SqliteConnection::connect(&url(directory)).await.unwrap()
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_760_000_000_000 + ms)
}

fn admission(id: &str, session: &str, input_sequence: u64) -> Admission {
    Admission {
        workflow_id: WorkflowId::new(id).unwrap(),
        session_id: SessionId::new(session).unwrap(),
        user_id: UserId::new("ann").unwrap(),
        input_sequence,
        fingerprint: Fingerprint::of(
            &UserId::new("ann").unwrap(),
            &SessionId::new(session).unwrap(),
            id,
            None,
        ),
        at: at(0),
        verdict: Verdict::Accepted {
            event: id.as_bytes().to_vec(),
            when_busy: WhenBusy::Enqueue,
            owner: SessionOwner::Any,
        },
        limits: UserLimits::default(),
    }
}

fn interaction(id: &str, session: &str, input_sequence: u64) -> Interaction {
    Interaction {
        workflow_id: WorkflowId::new(id).unwrap(),
        interaction_id: format!("interaction-{id}"),
        session_id: SessionId::new(session).unwrap(),
        user_id: UserId::new("ann").unwrap(),
        request: Request {
            user_input: "Where is\0my order?".to_owned(),
            metadata: Metadata::read(r#"{"channel":"web","id":12345678901234567890123}"#).unwrap(),
            input_sequence,
            received_at: at(0),
            merged: Vec::new(),
            redo: None,
        },
        response: Response {
            text: "On its \"way\".\0".to_owned(),
            model: "gpt-4o-mini".to_owned(),
            provider: "openai".to_owned(),
            finish_reason: FinishReason::Length,
            finish_reason_raw: None,
            reasoning: None,
            tool_calls: Vec::new(),
        },
        usage: Usage {
            input_tokens: 40,
            output_tokens: 9,
            cached_input_tokens: 8,
            reasoning_tokens: u64::MAX,
            ..Usage::default()
        },
        cost_usd: Some(serde_json::from_value::<Usd>(json!("0.000195")).unwrap()),
        degraded: Vec::new(),
        saved_at: at(1_250),
        generated_at: at(1_200),
    }
}

fn saved(next: Option<&str>) -> Closed {
    let opening = |next: &str| Opening { event: next.as_bytes().to_vec(), merged: Vec::new() };
    Closed { ending: Ending::AsAsked, next: next.map(opening) }
}

#[tokio::test]
async fn two_stores_on_one_file_keep_the_order_of_every_session_between_them() {
    let stores = Stores::new(2).await;
    story::any_interleaving_keeps_the_order_of_every_session(&*stores).await;
}

#[tokio::test]
async fn a_row_says_all_that_is_known_under_the_names_that_dashboards_use() {
    let store = Stores::new(1).await;
    store.save(interaction("w", "s", 7)).await.unwrap();
    let row = store.look().await.fetch_one("SELECT * FROM interactions").await.unwrap();
    let text = |name: &str| row.get::<Option<String>, _>(name).unwrap_or_default();
    let number = |name: &str| row.get::<i64, _>(name);
    let texts = [
        ("namespace", "test"),
        ("workflow_id", "w"),
        ("interaction_id", "interaction-w"),
        ("user_id", "ann"),
        ("session_id", "s"),
        ("input", "Where is\0my order?"),
        ("response", "On its \"way\".\0"),
        ("provider", "openai"),
        ("model", "gpt-4o-mini"),
        ("finish_reason", "length"),
        ("cost_usd", "0.000195"),
        ("metadata", r#"{"channel":"web","id":12345678901234567890123}"#),
        ("received_at", "2025-10-09T08:53:20.000000000Z"),
        ("generated_at", "2025-10-09T08:53:21.200000000Z"),
        ("created_at", "2025-10-09T08:53:21.250000000Z"),
    ];
    for (name, expected) in texts {
        assert_eq!(text(name), expected, "{name}");
    }
    let numbers = [
        ("input_tokens", 40),
        ("cached_input_tokens", 8),
        ("output_tokens", 9),
        ("reasoning_tokens", i64::MAX),
        ("input_sequence", 7),
        ("total_ms", 1_250),
    ];
    for (name, expected) in numbers {
        assert_eq!(number(name), expected, "{name}");
    }
}

#[tokio::test]
async fn an_event_is_kept_only_while_its_turn_is_open() {
    let store = Stores::new(1).await;
    store.admit(vec![admission("a", "s", 1), admission("b", "s", 2)]).await.unwrap();
    let mut look = store.look().await;
    let mut kept = async || {
        let rows = look.fetch_all("SELECT workflow_id FROM turns WHERE event IS NOT NULL").await.unwrap();
        rows.into_iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    assert_eq!(kept().await, ["a", "b"]);
    store.save(interaction("a", "s", 1)).await.unwrap();
    assert_eq!(kept().await, ["b"]);
    store.save(interaction("b", "s", 2)).await.unwrap();
    assert!(kept().await.is_empty());
}

#[tokio::test]
async fn what_was_answered_is_there_when_the_file_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let batch = vec![admission("a", "s", 1), admission("b", "s", 2), admission("c", "s", 3)];
    store.admit(batch.clone()).await.unwrap();
    store.save(interaction("a", "s", 1)).await.unwrap();
    drop(store);
    let store = open(directory.path()).await;
    let result = store.admit(batch).await.unwrap();
    assert_eq!(
        result,
        [AdmissionResult::Ended, AdmissionResult::Running, AdmissionResult::Waiting].map(Admitted::from)
    );
    assert_eq!(store.save(interaction("a", "s", 1)).await.unwrap(), saved(Some("b")));
}

#[tokio::test]
async fn closing_does_what_is_queued_and_leaves_everything_in_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let saves: Vec<_> = (1..=100).map(|n| interaction(&n.to_string(), &n.to_string(), n)).collect();
    let saves = futures_util::future::join_all(saves.into_iter().map(|saved| store.save(saved)));
    let (saves, ()) = tokio::join!(saves, store.close());
    assert!(saves.iter().all(Result::is_ok), "{saves:?}");
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.save(interaction("w", "s", 1)).await, Err(StoreError::Unavailable { .. })));
    let files = std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap);
    // The write lock is files without anything in them.
    let files: Vec<_> =
        files.filter(|file| file.metadata().unwrap().len() > 0).map(|file| file.file_name()).collect();
    assert_eq!(files, ["store.db"]);
    let rows = look(directory.path()).await.fetch_one("SELECT count(*) FROM interactions").await.unwrap();
    assert_eq!(rows.get::<i64, _>(0), 100);
}

#[tokio::test]
async fn many_processes_may_open_a_new_file_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let url = url(directory.path());
    let openings = (0..8).map(|_| {
        let url = url.clone();
        tokio::spawn(async move {
            SqliteStore::open(&url, READERS, NAMESPACE).await.unwrap().ping().await.unwrap();
        })
    });
    for opening in openings.collect::<Vec<_>>() {
        opening.await.unwrap();
    }
    let rows = look(directory.path()).await.fetch_one("SELECT count(*) FROM _sqlx_migrations").await.unwrap();
    assert_eq!(rows.get::<i64, _>(0), 8);
}

#[tokio::test]
async fn a_lock_held_elsewhere_is_busy_for_writers_only_and_over_when_it_is_released() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { busy: Duration::from_millis(20), ..Limits::default() };
    let store = SqliteStore::open_with(&url(directory.path()), READERS, NAMESPACE, limits).await.unwrap();
    store.save(interaction("before", "s", 1)).await.unwrap();
    let mut other = look(directory.path()).await;
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    let refused = store.admit(vec![admission("a", "s", 2)]).await;
    assert!(matches!(refused, Err(StoreError::Busy { .. })), "{refused:?}");
    let (ann, session) = (UserId::new("ann").unwrap(), SessionId::new("s").unwrap());
    assert_eq!(store.context(&ann, &session, 9).await.unwrap().recent_turns.len(), 1);
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(store.admit(vec![admission("a", "s", 2)]).await.unwrap(), [AdmissionResult::Running.into()]);
}

#[tokio::test]
async fn a_call_that_gave_up_may_have_written_and_can_be_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { request: Duration::from_millis(50), ..Limits::default() };
    let impatient = SqliteStore::open_with(&url(directory.path()), READERS, NAMESPACE, limits).await.unwrap();
    let mut other = look(directory.path()).await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let unknown = impatient.save(interaction("a", "s", 1)).await;
    assert!(matches!(unknown, Err(StoreError::Unavailable { .. })), "{unknown:?}");
    other.execute("ROLLBACK").await.unwrap();
    let store = open(directory.path()).await;
    assert_eq!(store.save(interaction("a", "s", 1)).await.unwrap(), saved(None));
    impatient.close().await;
    let rows = other.fetch_one("SELECT count(*) FROM interactions").await.unwrap();
    assert_eq!(rows.get::<i64, _>(0), 1);
}

#[tokio::test]
async fn an_operation_that_is_refused_does_not_take_the_others_of_its_batch_along() {
    let store = Stores::new(1).await;
    let thief = Interaction { interaction_id: "interaction-a".to_owned(), ..interaction("b", "t", 2) };
    let (first, refused, third, fourth) = tokio::join!(
        store.save(interaction("a", "s", 1)),
        store.save(thief),
        store.save(interaction("c", "u", 3)),
        store.admit(vec![admission("d", "s", 4)]),
    );
    assert_eq!(first.unwrap(), saved(None));
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    assert_eq!(third.unwrap(), saved(None));
    assert_eq!(fourth.unwrap(), [AdmissionResult::Running.into()]);
    assert_eq!(store.admit(vec![admission("b", "t", 2)]).await.unwrap(), [AdmissionResult::Running.into()]);
}

#[tokio::test]
async fn a_database_that_this_program_cannot_use_is_refused_with_the_reason() {
    let reason = |error: StoreError| {
        let is_damaged = error.trouble() == StoreTrouble::Corrupt;
        assert!(is_damaged || matches!(error, StoreError::Refused { .. }), "{error:?}");
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
    };
    for url in ["sqlite::memory:", "sqlite://:memory:", "sqlite://x.db?mode=memory"] {
        let error = reason(SqliteStore::open(url, READERS, NAMESPACE).await.unwrap_err());
        assert!(error.contains("give a file"), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("store.db"), "this is a text, and one that is long enough").unwrap();
    let error = reason(SqliteStore::open(&url(directory.path()), READERS, NAMESPACE).await.unwrap_err());
    assert!(error.contains("not a database"), "{error}");

    let newer = Stores::new(1).await;
    let migration = "INSERT INTO _sqlx_migrations VALUES (99, 'later', '', TRUE, x'00', 0)";
    newer.look().await.execute(migration).await.unwrap();
    let error =
        reason(SqliteStore::open(&url(newer.directory.path()), READERS, NAMESPACE).await.unwrap_err());
    assert!(error.contains("99"), "{error}");
}

/// Indexes that have only turns that are open.
const OF_WHAT_IS_OPEN: [&str; 5] =
    ["turns_open", "turns_running", "turns_started", "turns_waiting", "turns_held"];

/// Every table is reached by an index, and by more of it than the namespace, but for what is open, which are few: the store
/// stays as fast as it is when it has grown.
#[tokio::test]
async fn no_statement_reads_a_whole_table() {
    let store = Stores::new(1).await;
    let mut look = store.look().await;
    let files = [
        include_str!("../../src/storage/sqlite/apply/end.sql"),
        include_str!("../../src/storage/sqlite/apply/admit.sql"),
        include_str!("../../src/storage/sqlite/apply/answer.sql"),
        include_str!("../../src/storage/sqlite/running.sql"),
        include_str!("../../src/storage/sqlite/opening.sql"),
        include_str!("../../src/storage/sqlite/ended_before.sql"),
        include_str!("../../src/storage/sqlite/context.sql"),
        include_str!("../../src/storage/sqlite/end.sql"),
        include_str!("../../src/storage/sqlite/forget.sql"),
        include_str!("../../src/storage/sqlite/list_all.sql"),
        include_str!("../../src/storage/sqlite/list_one.sql"),
        include_str!("../../src/storage/sqlite/list_session.sql"),
        include_str!("../../src/storage/sqlite/list_user.sql"),
        include_str!("../../src/storage/sqlite/oldest_open.sql"),
        include_str!("../../src/storage/sqlite/open_turns.sql"),
        include_str!("../../src/storage/sqlite/restore.sql"),
        include_str!("../../src/storage/sqlite/restore_interaction.sql"),
        include_str!("../../src/storage/sqlite/start.sql"),
        include_str!("../../src/storage/sqlite/held_users.sql"),
        include_str!("../../src/storage/sqlite/held_start.sql"),
        include_str!("../../src/storage/sqlite/held_openings.sql"),
        include_str!("../../src/storage/sqlite/held_left.sql"),
    ];
    for file in files {
        let code: Vec<&str> = file.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
        for statement in code.join("\n").split(';').map(str::trim) {
            if ["", "BEGIN IMMEDIATE", "COMMIT"].contains(&statement) {
                continue;
            }
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            for row in sqlx::raw_sql(explain).fetch_all(&mut look).await.unwrap() {
                let step: String = row.get("detail");
                // What other steps have made is short.
                let is_made = |of: &str| {
                    of == "CONSTANT ROW"
                        || of.starts_with("(subquery")
                        || ["b", "c", "f", "i", "p", "s", "u", "users", "x"].contains(&of)
                };
                let is_given =
                    |of: &str| of.starts_with("q ") || is_made(of) || of.contains(" VIRTUAL TABLE ");
                let of_a_table = step.strip_prefix("SCAN ").filter(|of| !is_given(of));
                assert_eq!(of_a_table, None, "{step} in {statement}");
                let is_of_few = OF_WHAT_IS_OPEN.iter().any(|index| step.contains(&format!(" {index} ")));
                assert!(!step.contains("(namespace=?)") || is_of_few, "{step} in {statement}");
            }
        }
    }
}
