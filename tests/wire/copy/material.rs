//! A namespace with everything that a database may have of one, and what stands in a file afterwards.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Map, json};
use sqlx::{AssertSqlSafe, Connection, Executor, Row, SqliteConnection};
use throughline::{
    identity::place,
    storage::{
        Database,
        copy::{Copied, CopyError, Place, copy},
    },
};
use throughline_actors::ports::store::{
    Admission, Failing, FailureRecord, Fingerprint, Interaction, SessionOwner, Store, UserLimits, Verdict,
};
use throughline_schemas::{
    FailureCode, FinishReason, Metadata, SessionId, StageName, Timestamp, Usage, Usd, UserId, WorkflowFailed,
    WorkflowId,
    event::{
        generation::Response,
        input::{Request, WhenBusy},
    },
};

/// The namespace that is copied, and one beside it that stays.
pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const OTHER: &str = "other";
/// Turns that wait: more than two pages.
pub(crate) const WAITING: u64 = 1_100;

/// What only a stranger could write: an instant to the nanosecond, and a turn of an early version.
const BY_HAND: &str = "
    INSERT INTO turns (namespace, workflow_id, session_id, user_id, input_sequence, state, created_at, updated_at)
    VALUES ('shop', 'early', 'early', NULL, NULL, 'failed', '2025-10-09T08:53:20.123456789Z',
        '2025-10-09T08:53:20.999999999Z')";

/// A file in a folder.
pub(crate) fn file(folder: &Path, name: &str) -> (PathBuf, String) {
    let file = folder.join(name);
    let url = format!("sqlite://{}", file.display());
    (file, url)
}

pub(crate) async fn copied(from: &str, to: &str) -> Result<Copied, CopyError> {
    copied_telling(from, to, |_, _| {}).await
}

pub(crate) async fn copied_telling(
    from: &str,
    to: &str,
    tell: impl FnMut(&'static str, u64),
) -> Result<Copied, CopyError> {
    let (from_name, to_name) = (place(from), place(to));
    copy(Place { url: from, name: &from_name }, Place { url: to, name: &to_name }, NAMESPACE, tell).await
}

/// Makes the namespace in a new file.
pub(crate) async fn fill(url: &str) {
    let store = Database::open(url, 2, NAMESPACE).await.unwrap();
    store.claim_identity(NAMESPACE, "identity-of-the-shop").await.unwrap();
    let waiting = (0..WAITING).map(|n| admission(&format!("w{n:04}"), "busy", n + 10));
    store.admit(waiting.collect()).await.unwrap();
    store.admit(vec![admission("merged", "m", 5_000), merging("into", "m", 5_001)]).await.unwrap();
    store.admit(vec![merging("also", "m", 5_002)]).await.unwrap();
    store.save(interaction("saved", "s", 1)).await.unwrap();
    store.admit(vec![admission("failed", "s", 2)]).await.unwrap();
    store.fail(failing("failed", "s", 2)).await.unwrap();
    let preferences = Map::from_iter([
        ("a\0b".to_owned(), json!({"\0": ["\u{1a}0", "\0\u{1a}", 1.5]})),
        ("\u{1}".to_owned(), json!("brief")),
        ("language".to_owned(), json!("nb")),
    ]);
    store.set_preferences(&UserId::new("ann").unwrap(), &preferences).await.unwrap();
    store.set_mark(0, 77).await.unwrap();
    store.close().await;
    let other = Database::open(url, 2, OTHER).await.unwrap();
    other.claim_identity(OTHER, "identity-of-the-other").await.unwrap();
    other.save(interaction("saved", "s", 1)).await.unwrap();
    other.close().await;
    let mut hand = SqliteConnection::connect(url).await.unwrap();
    hand.execute(BY_HAND).await.unwrap();
    hand.close().await.unwrap();
}

/// Everything that a file has of a namespace: each table's rows, each value with its type and its bytes.
pub(crate) async fn rows(url: &str, namespace: &str) -> BTreeMap<String, Vec<Vec<(String, Vec<u8>)>>> {
    let mut look = SqliteConnection::connect(url).await.unwrap();
    let mut tables = BTreeMap::new();
    for table in ["turns", "interactions", "preferences", "namespace_marks"] {
        let columns = AssertSqlSafe(format!("SELECT name FROM pragma_table_info('{table}')"));
        let columns: Vec<String> = sqlx::query_scalar(columns).fetch_all(&mut look).await.unwrap();
        let values: Vec<_> =
            columns.iter().map(|name| format!("typeof({name}), CAST({name} AS BLOB)")).collect();
        let order = if columns.len() > 2 { "4, 6" } else { "4" };
        let select =
            format!("SELECT {} FROM {table} WHERE namespace = ? ORDER BY {order}", values.join(", "));
        let found = sqlx::query(AssertSqlSafe(select)).bind(namespace).fetch_all(&mut look).await.unwrap();
        let row = |row: sqlx::sqlite::SqliteRow| {
            let value = |n: usize| {
                let bytes: Option<Vec<u8>> = row.get(2 * n + 1);
                (row.get::<String, _>(2 * n), bytes.unwrap_or_default())
            };
            (0..columns.len()).map(value).collect()
        };
        tables.insert(table.to_owned(), found.into_iter().map(row).collect());
    }
    look.close().await.unwrap();
    tables
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_760_000_000_000 + ms)
}

fn ids(id: &str, session: &str) -> (WorkflowId, SessionId, UserId) {
    (WorkflowId::new(id).unwrap(), SessionId::new(session).unwrap(), UserId::new("ann").unwrap())
}

pub(crate) fn admission(id: &str, session: &str, input_sequence: u64) -> Admission {
    asking(WhenBusy::Enqueue, id, session, input_sequence)
}

fn merging(id: &str, session: &str, input_sequence: u64) -> Admission {
    asking(WhenBusy::Merge, id, session, input_sequence)
}

fn asking(when_busy: WhenBusy, id: &str, session: &str, input_sequence: u64) -> Admission {
    let (workflow_id, session_id, user_id) = ids(id, session);
    let fingerprint = Fingerprint::of(&user_id, &session_id, id, None);
    let verdict = Verdict::Accepted {
        event: format!("{id}\0\u{ff}").into_bytes(),
        when_busy,
        owner: SessionOwner::Any,
    };
    Admission {
        workflow_id,
        session_id,
        user_id,
        input_sequence,
        fingerprint,
        at: at(0),
        verdict,
        limits: UserLimits::default(),
    }
}

fn failing(id: &str, session: &str, input_sequence: u64) -> Failing {
    let (workflow_id, session_id, user_id) = ids(id, session);
    let failed = WorkflowFailed {
        code: FailureCode::Stalled,
        stage: StageName::Generation,
        message: "it ran\0 too long".to_owned(),
        attempts: 1,
        retryable: true,
        may_have_happened: true,
        superseded_by: None,
        earlier_deliveries: 0,
        attempt_log: Vec::new(),
        external: BTreeMap::new(),
    };
    let failure = FailureRecord::of(&failed);
    Failing { workflow_id, session_id, user_id, input_sequence, at: at(900), failure }
}

pub(crate) fn interaction(id: &str, session: &str, input_sequence: u64) -> Interaction {
    let (workflow_id, session_id, user_id) = ids(id, session);
    Interaction {
        workflow_id,
        interaction_id: format!("interaction-{id}"),
        session_id,
        user_id,
        request: Request {
            user_input: "Where is\0my order? \u{1a}0".to_owned(),
            metadata: Metadata::read(r#"{"channel":"web\u0000\u001a","\u0000":1e400,"n":0.10}"#).unwrap(),
            input_sequence,
            received_at: at(0),
            merged: Vec::new(),
            redo: None,
        },
        response: Response {
            text: "On its \"way\".\0\u{1a}0".to_owned(),
            model: "gpt-4o\0mini".to_owned(),
            provider: "openai".to_owned(),
            finish_reason: FinishReason::Length,
            finish_reason_raw: Some("max\0tokens".to_owned()),
            reasoning: Some("\u{1a}\u{1a}".to_owned()),
            tool_calls: Vec::new(),
        },
        usage: Usage { input_tokens: 40, output_tokens: 9, reasoning_tokens: u64::MAX, ..Usage::default() },
        cost_usd: Some(serde_json::from_value::<Usd>(json!("0.0001950000000000000000000010")).unwrap()),
        degraded: vec!["orders".to_owned()],
        saved_at: at(1_250),
        generated_at: at(1_200),
    }
}
