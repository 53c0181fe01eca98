//! Lists of a database that has grown: as quick as those of a small one.
//!
//! `THROUGHLINE_MEASURE=1 cargo test --test wire -- --nocapture a_list_of` makes a million workflows; without it there are
//! fewer, and a plan that reads too much is found all the same.
#![allow(clippy::print_stdout, reason = "figures for a person")]

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, Row, SqliteConnection, raw_sql};
use throughline::storage::{Onlooker, OnlookerError};
use throughline_actors::ports::store::{TurnState, TurnsQuery};
use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId};

use super::{NAMESPACE, look, open, url};

const FEW: u64 = 20_000;
const MANY: u64 = 1_000_000;
/// Open turns among them, the newest: one in ten runs, the others wait in the same sessions.
const OPEN: u64 = 5_000;
/// What a question may take, however many workflows there are.
const QUICK: Duration = Duration::from_millis(100);
/// The best of so many counts: the machine has other work.
const TRIES: usize = 3;
const PAGE: usize = 50;

/// As many workflows, a second apart, one in fifty failed. Half of them are of one user and one session.
async fn fill(connection: &mut SqliteConnection, count: u64) {
    let indices =
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'turns' AND sql IS NOT NULL";
    let indices: Vec<(String, String)> = raw_sql(indices)
        .fetch_all(&mut *connection)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get("name"), row.get("sql")))
        .collect();
    // Making an index of all rows at once is much quicker than keeping it up row by row.
    let drop = indices.iter().map(|(name, _)| format!("DROP INDEX {name};\n")).collect::<Vec<_>>().concat();
    let make = indices.iter().map(|(_, sql)| format!("{sql};\n")).collect::<Vec<_>>().concat();
    let over = count - OPEN;
    let rows = format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {count}),
        rows (n, open, instant) AS (
            SELECT n, n - {over}, strftime('%Y-%m-%dT%H:%M:%f000000Z', 1760000000 + n, 'unixepoch') FROM numbers)
        INSERT INTO turns (
            namespace, workflow_id, session_id, user_id, input_sequence, state, created_at, updated_at, failure_code)
        SELECT
            '{NAMESPACE}', printf('w-%09d', n),
            CASE WHEN open >= 0 THEN 'open-' || (open / 10) WHEN n % 2 = 0 THEN 'busy' ELSE 's-' || (n % 9999) END,
            CASE WHEN n % 2 = 0 THEN 'everybody' ELSE 'u-' || (n % 999) END, n,
            CASE WHEN open >= 0 THEN iif(open % 10 = 0, 'running', 'waiting') WHEN n % 50 = 0 THEN 'failed' ELSE 'saved' END,
            instant, instant, iif(open < 0 AND n % 50 = 0, 'poison', NULL)
        FROM rows;\n"
    );
    let script = format!("PRAGMA synchronous = OFF; BEGIN;\n{drop}{rows}{make}COMMIT;");
    connection.execute(raw_sql(AssertSqlSafe(script))).await.unwrap();
}

#[tokio::test]
async fn a_list_of_a_large_database_is_as_quick_as_that_of_a_small_one() {
    let count = if std::env::var_os("THROUGHLINE_MEASURE").is_some() { MANY } else { FEW };
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).await.close().await;
    let began = tokio::time::Instant::now();
    let mut connection = look(directory.path()).await;
    fill(&mut connection, count).await;
    println!("{count} workflows made in {:?}", began.elapsed());

    let onlooker = Onlooker::open(&url(directory.path()), NAMESPACE).await.unwrap();
    let any = || TurnsQuery { limit: PAGE, ..TurnsQuery::default() };
    let user = |name: &str| Some(UserId::new(name).unwrap());
    let session = |name: &str| Some(SessionId::new(name).unwrap());
    let middle = i64::try_from(count / 2).unwrap();
    let after = Some((
        Timestamp::from_unix_ms((1_760_000_000 + middle) * 1_000),
        WorkflowId::new(format!("w-{middle:09}")).unwrap(),
    ));
    let open = vec![TurnState::Waiting, TurnState::Running];
    let questions = [
        ("the newest", any()),
        ("behind the middle", TurnsQuery { after: after.clone(), ..any() }),
        ("open", TurnsQuery { states: open.clone(), ..any() }),
        ("failed", TurnsQuery { states: vec![TurnState::Failed], ..any() }),
        ("of a user of half of all", TurnsQuery { user: user("everybody"), ..any() }),
        (
            "the same, failed",
            TurnsQuery { user: user("everybody"), states: vec![TurnState::Failed], ..any() },
        ),
        (
            "the same, behind the middle",
            TurnsQuery { user: user("everybody"), after: after.clone(), ..any() },
        ),
        ("of a session of half of all", TurnsQuery { session: session("busy"), ..any() }),
        ("the same, of a user", TurnsQuery { session: session("busy"), user: user("everybody"), ..any() }),
        ("of a session that waits", TurnsQuery { session: session("open-7"), limit: 10, ..any() }),
        ("one", TurnsQuery::of(WorkflowId::new("w-000000007").unwrap())),
    ];
    for (name, query) in questions {
        let mut best = Duration::MAX;
        for _ in 0..TRIES {
            let began = tokio::time::Instant::now();
            let found = onlooker.latest_turns(&query).await.unwrap();
            best = best.min(began.elapsed());
            assert_eq!(found.len(), query.limit, "{name}");
            let order = |turn: &throughline_actors::ports::store::ListedTurn| {
                std::cmp::Reverse((turn.created_at, turn.workflow_id.clone()))
            };
            assert!(found.is_sorted_by_key(order), "{name}");
        }
        println!("{name:28} {best:?}");
        assert!(best < QUICK, "{name}: {best:?} of {count} workflows");
    }
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let began = tokio::time::Instant::now();
        let open = onlooker.open_turns().await.unwrap();
        best = best.min(began.elapsed());
        assert_eq!((open.running.turns, open.waiting.turns), (OPEN / 10, OPEN - OPEN / 10));
    }
    println!("{:28} {best:?}", "how many are open");
    assert!(best < QUICK, "{best:?} to count open turns");
    onlooker.close();
}

/// What a plan must use: one index each, which has the rows in the order of the list.
#[tokio::test]
async fn every_list_is_read_in_its_order_from_an_index() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).await.close().await;
    let mut connection = look(directory.path()).await;
    for (sql, index) in [
        (include_str!("../../../src/storage/sqlite/list_all.sql"), "turns_by_state"),
        (include_str!("../../../src/storage/sqlite/list_user.sql"), "turns_by_user"),
        (include_str!("../../../src/storage/sqlite/list_session.sql"), "turns_by_session"),
        (include_str!("../../../src/storage/sqlite/open_turns.sql"), "turns_by_state"),
    ] {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = raw_sql(explain).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|step| step.contains(&format!("INDEX {index} "))), "{plan:#?}");
    }
}

#[tokio::test]
async fn an_onlooker_makes_no_file_and_no_table() {
    let directory = tempfile::tempdir().unwrap();
    let database = url(directory.path());
    let missing = Onlooker::open(&database, NAMESPACE).await.unwrap_err();
    assert!(matches!(missing, OnlookerError::Missing), "{missing}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was made");

    let file = directory.path().join("store.db");
    std::fs::write(&file, "").unwrap();
    let bare = Onlooker::open(&database, NAMESPACE).await.unwrap_err();
    assert!(matches!(bare, OnlookerError::NotPrepared), "{bare}");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 0, "no table was made");

    let store = open(directory.path()).await;
    let onlooker = Onlooker::open(&database, NAMESPACE).await.unwrap();
    let any = TurnsQuery { limit: PAGE, ..TurnsQuery::default() };
    assert_eq!(onlooker.latest_turns(&any).await.unwrap(), []);
    // It sees what others write, while they do.
    throughline_actors::ports::store::Store::admit(&store, vec![super::admission("a", "s", 1)])
        .await
        .unwrap();
    assert_eq!(onlooker.latest_turns(&any).await.unwrap().len(), 1);
    let other = Onlooker::open(&database, "another").await.unwrap();
    assert_eq!(other.latest_turns(&any).await.unwrap(), [], "of its own namespace only");
}
