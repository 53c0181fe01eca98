//! A check changes nothing, and neither does a command that reads: no table, no row, no file, no stream, no consumer.

use std::{collections::BTreeMap, path::Path};

use async_nats::jetstream;
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use sqlx::{
    Connection, Executor, PgConnection, SqlSafeStr, SqliteConnection,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::SqliteConnectOptions,
};

use crate::{
    harness::{Cluster, Program, SOON, Settings, cluster::Parts, process::throughline},
    nats_server::NatsServer,
    postgres_server::PostgresServer,
};

const SQLITE: [&str; 3] = [
    include_str!("../../src/storage/migrations/sqlite/0001_turns_interactions_preferences.sql"),
    include_str!("../../src/storage/migrations/sqlite/0002_busy_sessions_and_sweeping.sql"),
    include_str!("../../src/storage/migrations/sqlite/0003_ended_turns.sql"),
];
const POSTGRES: [&str; 3] = [
    include_str!("../../src/storage/migrations/postgres/0001_turns_interactions_preferences.sql"),
    include_str!("../../src/storage/migrations/postgres/0002_functions.sql"),
    include_str!("../../src/storage/migrations/postgres/0003_ended_turns.sql"),
];
const PENDING: &str = "the first worker migrates them: 4 namespaces, 5 identity";
const LATER: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (99, 'of a later version', TRUE, ";
/// Commands that look, and what they are told to look at. The first says what is wrong.
const LOOKS: [&[&str]; 9] = [
    &["doctor"],
    &["doctor", "--json"],
    &["config", "check"],
    &["config", "show"],
    &["events"],
    &["list"],
    &["explain", "w"],
    &["dead", "list"],
    &["replay", "verify", "w"],
];

fn earlier(migrations: [&'static str; 3]) -> Migrator {
    let migration = |(version, sql): (i64, &'static str)| {
        Migration::new(version, "".into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(migrations).map(migration).collect())
}

/// Every stream and consumer of a server: how it is configured, and how far it has come. Whoever reads a log has a reader on
/// the server, which keeps nothing on its disk and is forgotten half a minute later.
async fn on_the_server(client: &async_nats::Client) -> Value {
    let jetstream = jetstream::new(client.clone());
    let mut all = BTreeMap::new();
    let streams: Vec<_> = jetstream.streams().try_collect().await.unwrap();
    for info in streams {
        let stream = jetstream.get_stream(&info.config.name).await.unwrap();
        let consumers: Vec<_> = stream.consumers().try_collect().await.unwrap();
        let is_reader = |name: &str, durable: Option<&String>| name.starts_with("read_") && durable.is_none();
        let mut consumers: Vec<_> = consumers
            .iter()
            .filter(|of| !is_reader(&of.name, of.config.durable_name.as_ref()))
            .map(|of| json!([of.name, of.config, of.delivered.stream_sequence, of.ack_floor.stream_sequence]))
            .collect();
        consumers.sort_by_key(ToString::to_string);
        let state = &info.state;
        let state = json!([state.first_sequence, state.last_sequence, state.messages, state.bytes]);
        all.insert(info.config.name.clone(), json!([info.config, state, consumers]));
    }
    json!(all)
}

/// What is in a folder, to the byte. The index of a write-ahead log (`-shm`) is lock memory, not data.
fn in_the_folder(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let named = files.map(|file| (file.file_name().into_string().unwrap(), file.path()));
    named
        .filter(|(name, _)| !name.ends_with("-shm"))
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect()
}

/// Runs every command that looks; what `doctor` says of the database.
async fn looks(cluster: &Cluster) -> String {
    let before = on_the_server(&cluster.client).await;
    let mut told = String::new();
    for arguments in LOOKS {
        let mut program = cluster.run("look", arguments);
        program.ended(SOON).await;
        if arguments == LOOKS[0] {
            let said = program.stdout();
            said.lines().find(|line| line.contains(" database: ")).expect("a finding").clone_into(&mut told);
        }
    }
    assert_eq!(on_the_server(&cluster.client).await, before);
    told
}

#[tokio::test]
async fn a_file_is_looked_at_and_not_touched_whatever_its_age() {
    let folder = tempfile::tempdir().unwrap();
    let parts = Parts { database: Some(folder.path()), ..Parts::default() };
    let Some(mut cluster) = Cluster::start_on(&parts, 0, &Settings::new(""), &[]).await else { return };
    let unchanged = async |cluster: &Cluster, words: &str| {
        let before = in_the_folder(folder.path());
        let told = looks(cluster).await;
        assert!(told.contains(words), "{told}");
        assert!(in_the_folder(folder.path()) == before, "the files have changed: {told}");
    };
    unchanged(&cluster, "does not exist yet; the first worker creates it").await;

    let options = SqliteConnectOptions::new().filename(cluster.database()).create_if_missing(true);
    let mut old = SqliteConnection::connect_with(&options).await.unwrap();
    earlier(SQLITE).run_direct(None, &mut old, false).await.unwrap();
    old.close().await.unwrap();
    unchanged(&cluster, PENDING).await;
    assert_eq!(in_the_folder(folder.path()).len(), 1, "nothing is beside it");

    let mut log = cluster.log().await;
    cluster.say("w", "demo", "s", "Hello").await;
    cluster.add_worker();
    log.until_ended(&["w"]).await;
    cluster.workers.pop().unwrap().kill();
    let left = in_the_folder(folder.path());
    assert!(left.get("throughline.db-wal").is_some_and(|log| !log.is_empty()), "the worker left its log");
    unchanged(&cluster, "its tables are up to date").await;

    // Opening it for writing folds that in.
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE; ROLLBACK").await.unwrap();
    other.close().await.unwrap();
    assert!(!in_the_folder(folder.path()).contains_key("throughline.db-wal"));
    unchanged(&cluster, "its tables are up to date").await;

    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    unchanged(&cluster, "the database is locked by somebody else").await;
    other.execute("ROLLBACK").await.unwrap();
    other.execute(sqlx::AssertSqlSafe(format!("{LATER} x'00', 0)"))).await.unwrap();
    other.close().await.unwrap();
    unchanged(&cluster, "migration 99 is not known here").await;
}

#[tokio::test]
async fn a_database_server_is_looked_at_and_not_written_to_whatever_its_age() {
    // Only those who write get a transaction number, and nobody else is there.
    let Some(server) = PostgresServer::start(&["autovacuum=off"]).await else { return };
    let url = server.database().await;
    let parts = Parts { database_url: Some(&url), ..Parts::default() };
    let Some(mut cluster) = Cluster::start_on(&parts, 0, &Settings::new(""), &[]).await else { return };
    let mut look = PgConnection::connect(&url).await.unwrap();
    let unchanged = async |cluster: &Cluster, look: &mut PgConnection, words: &str| {
        let before = in_the_database(look).await;
        let told = looks(cluster).await;
        assert!(told.contains(words), "{told}");
        assert_eq!(in_the_database(look).await, before, "{told}");
    };
    unchanged(&cluster, &mut look, "it has no tables yet, the first worker makes them").await;

    earlier(POSTGRES).run_direct(None, &mut look, false).await.unwrap();
    unchanged(&cluster, &mut look, PENDING).await;

    cluster.add_worker();
    let mut worker = cluster.workers.pop().unwrap();
    worker.until_ready().await;
    worker.signal("TERM");
    worker.ended(SOON).await;
    unchanged(&cluster, &mut look, "its tables are up to date").await;

    look.execute(sqlx::AssertSqlSafe(format!("{LATER} ''::bytea, 0)"))).await.unwrap();
    unchanged(&cluster, &mut look, "migration 99 is not known here").await;
}

/// Tables and functions, rows that were ever written to, and the number of the next transaction that writes.
async fn in_the_database(look: &mut PgConnection) -> (Vec<String>, String) {
    let made = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
                UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1";
    let made = sqlx::query_scalar(made).fetch_all(&mut *look).await.unwrap();
    let next = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
    (made, sqlx::query_scalar(next).fetch_one(look).await.unwrap())
}

/// Nothing is prepared: no stream, no database, not even its folder. So it stays.
#[tokio::test]
async fn a_check_of_what_is_not_there_yet_makes_nothing_of_it() {
    let Some(server) = NatsServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let client = async_nats::connect(server.url()).await.unwrap();
    for arguments in LOOKS {
        let mut command = throughline();
        command.env("NATS_URL", server.url()).env("XDG_DATA_HOME", &home).args(arguments);
        Program::start("look", dir.path(), &mut command).ended(SOON).await;
    }
    assert_eq!(on_the_server(&client).await, json!({}));
    assert!(!home.exists());
    assert!(in_the_folder(dir.path()).keys().all(|name| name.starts_with("look.")), "only what they said");
}
