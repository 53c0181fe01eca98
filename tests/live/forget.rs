//! A user, or a session, is handed out and forgotten: not one byte of them is left in any store, and everybody else's is.

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use throughline::{
    archive::{Bucket, Folder},
    bus::nats::{NatsBus, NatsSettings},
    system::SystemClock,
};
use throughline_actors::ports::archive::Archive;
use throughline_schemas::{
    Namespace, Timestamp,
    recording::{FORMAT, Header, Prompt, VERSION},
};

use crate::{
    harness::{
        Cluster, Log, SOON, Settings,
        cluster::{BARE, NAMESPACE, Parts, said},
        eventually, process,
        stand_ins::model,
    },
    postgres_server::PostgresServer,
};

/// Nothing else says these.
const TEXT: &str = "canary-text-q7x";
const USER: &str = "canary-user-q7x";
const SESSION: &str = "canary-session-q7x";
const OTHERS: &str = "what-bob-says";
/// Where archives are in one of the tests.
const BUCKET: &str = "past";

/// What is said in each test: by the one who is to be forgotten alone and beside another one, small and large, accepted,
/// refused and unreadable. The workflows that end.
async fn say_everything(cluster: &Cluster) -> Vec<&'static str> {
    let large = format!("{TEXT} {}", "x".repeat(90_000));
    cluster
        .publish_all(vec![
            said("c1", USER, SESSION, TEXT),
            said("c2", USER, SESSION, "Where is my order #W10007?"),
            said("c3", USER, "shared", &large),
            said("b1", "bob", "shared", OTHERS),
            said("b2", "bob", "bobs", OTHERS),
            said("c4", USER, SESSION, ""),
        ])
        .await;
    // It names no workflow, so that it becomes a dead letter.
    cluster
        .publish(BARE, &[], format!(r#"{{"user_id": "{USER}", "session_id": "{SESSION}", "x": "{TEXT}""#))
        .await;
    cluster.publish(BARE, &[], r#"{"user_id": "bob", "session_id": "bobs", "x": "what-bob-says""#).await;
    vec!["c1", "c2", "c3", "b1", "b2", "c4"]
}

async fn good(cluster: &Cluster, arguments: &[&str]) -> (String, String) {
    let mut program = cluster.run("command", arguments);
    let status = program.ended(Duration::from_mins(1)).await;
    assert!(status.success(), "{arguments:?}: {}{}", program.stdout(), program.stderr());
    (program.stdout(), program.stderr())
}

async fn bus(cluster: &Cluster) -> Arc<NatsBus> {
    let settings = NatsSettings::new(cluster.nats.url(), Namespace::new(NAMESPACE).unwrap());
    Arc::new(NatsBus::connect(settings).await.unwrap())
}

/// Everything of the log so far as an archive, which retention would write when it is about to remove it: in a folder, else
/// in the bucket. What it is called.
async fn archive(cluster: &Cluster, folder: Option<&Path>) -> String {
    let bus = bus(cluster).await;
    let prompt =
        Prompt { id: String::new(), system: String::new(), data: String::new(), hash: String::new() };
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        created_at: Timestamp::from_unix_ms(0),
        namespace: NAMESPACE.to_owned(),
        selection: String::new(),
        configuration_id: String::new(),
        configuration: Value::Null,
        prompt,
        redacted: Vec::new(),
    };
    let clock = Arc::new(SystemClock);
    let archives: Box<dyn Archive> = match folder {
        Some(folder) => Box::new(Folder::new(Arc::clone(&bus), clock, folder.to_owned(), header)),
        None => Box::new(Bucket::new(Arc::clone(&bus), clock, BUCKET.to_owned(), header)),
    };
    let jetstream = async_nats::jetstream::new(cluster.client.clone());
    let last = jetstream.get_stream("throughline_EVENTS").await.unwrap().cached_info().state.last_sequence;
    let kept = archives.keep(1, last + 1).await.unwrap();
    assert!(kept.messages > 20, "{}", kept.messages);
    bus.close(SOON).await;
    kept.name.rsplit('/').next().unwrap().to_owned()
}

/// An archive of the bucket, unpacked.
async fn in_bucket(cluster: &Cluster, name: &str) -> String {
    let (bus, file) = (bus(cluster).await, tempfile::NamedTempFile::new().unwrap());
    let bucket = bus.archive_bucket(BUCKET).await.unwrap();
    assert!(bucket.get(name, file.path()).await.unwrap());
    let names: Vec<_> = bucket.list().await.unwrap().into_iter().map(|archive| archive.name).collect();
    assert_eq!(names, [name], "nothing is left beside it");
    bus.close(SOON).await;
    String::from_utf8(unpacked(&std::fs::read(file.path()).unwrap())).unwrap()
}

/// Files below a folder in which any of these stands, byte for byte; archives are looked at as they were before they were
/// packed.
fn files_with(folder: &Path, needles: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, needles));
            continue;
        }
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let bytes = if path.extension().is_some_and(|of| of == "gz") { unpacked(&bytes) } else { bytes };
        for needle in needles {
            if bytes.windows(needle.len()).any(|some| some == needle.as_bytes()) {
                found.push(format!("{needle} in {}", path.display()));
            }
        }
    }
    found
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut whole).unwrap();
    whole
}

fn stop_nats(cluster: &mut Cluster) {
    // As an operator does, so that it writes what it has in memory.
    if let Some(pid) = cluster.nats.pid() {
        process::send("TERM", pid);
        while process::exists(pid) && !is_zombie(pid) {
            std::thread::yield_now();
        }
    }
    cluster.kill_nats();
}

fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

async fn two_letters(log: &mut Log) {
    log.until("both unreadable messages are buried", |log| log.dead().count() == 2).await;
}

#[tokio::test]
async fn not_one_byte_of_a_forgotten_user_is_left() {
    let settings = Settings::new(
        "[worker]\nack_wait_ms = 1500\n[limits]\nmax_input_bytes = 200_000\n[retention]\narchive = \"file:archives\"\n",
    );
    let Some(mut cluster) = Cluster::start(1, &settings).await else { return };
    let mut log = cluster.log().await;
    // Somebody else's work goes on all the while, and is older than anything that is forgotten.
    cluster.stand_ins.fault(model(json!({"delay_ms": 20_000, "remaining": 1}))).await;
    cluster.say("b0", "bob", "slow", OTHERS).await;
    log.until("its model is asked", |log| log.event("b0", "external_data_fetched").is_some()).await;
    eventually("its model is asked", async || (cluster.stand_ins.count("model").await > 0).then_some(()))
        .await;
    let workflows = say_everything(&cluster).await;
    log.until_ended(&workflows).await;
    two_letters(&mut log).await;
    good(&cluster, &["preferences", "set", USER, &format!("note={TEXT}")]).await;
    good(&cluster, &["preferences", "set", "bob", "note=what-bob-says"]).await;
    let archives = cluster.dir().join("archives");
    archive(&cluster, Some(&archives)).await;
    let store = cluster.nats.dir().join("store");
    let everywhere = [TEXT, USER, SESSION];
    for place in [&store, &archives] {
        assert!(files_with(place, &everywhere).len() >= everywhere.len(), "it can be found: {place:?}");
    }

    let out = cluster.dir().join("handed-out.jsonl");
    good(&cluster, &["export", "--user", USER, out.to_str().unwrap()]).await;
    let handed_out = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<Value> = handed_out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (store, least) in [
        ("turns", 4),
        ("interactions", 3),
        ("preferences", 1),
        ("events", 15),
        ("dead_letters", 1),
        ("archives", 15),
    ] {
        assert!(lines.iter().filter(|line| line["store"] == store).count() >= least, "{store}");
    }
    assert!(!handed_out.contains(OTHERS), "nothing of others is handed out");
    assert!(handed_out.contains(&"x".repeat(90_000)), "large bodies are in it");
    std::fs::remove_file(out).unwrap();

    let told = async |arguments: &[&str]| {
        let arguments = [&["forget", "--user", USER, "--json"], arguments].concat();
        let (out, err) = good(&cluster, &arguments).await;
        (serde_json::from_str::<Value>(&out).unwrap(), err)
    };
    let (would, _) = told(&["--dry-run"]).await;
    let (did, audit) = told(&[]).await;
    for what in [
        "turns",
        "interactions",
        "preferences",
        "events",
        "large_bodies",
        "dead_letters",
        "archived_messages",
    ] {
        assert_eq!(would[what], did[what], "{what}: {would} {did}");
        assert!(did[what].as_u64().unwrap() > 0, "{what}: {did}");
    }
    assert_eq!(did["turns"], 4, "{did}");
    assert_eq!((&did["archives"], &did["preferences"]), (&json!(1), &json!(1)));
    assert!(!did["out_of_reach"].as_array().unwrap().is_empty());
    let line = audit.lines().find(|line| line.contains("forgotten")).expect("an audit line");
    for secret in everywhere {
        assert!(!audit.contains(secret), "{line}");
    }
    assert!(line.contains("id_sha256"), "{line}");
    assert!(log.end("b0").is_none(), "others are not waited for");
    let (again, _) = told(&[]).await;
    for what in ["turns", "events", "large_bodies", "dead_letters", "claims", "archived_messages"] {
        assert_eq!(again[what], 0, "{what}: {again}");
    }

    // Everybody else's is there, archives are whole, and work goes on.
    let file = std::fs::read_dir(&archives).unwrap().next().unwrap().unwrap().path();
    good(&cluster, &["record", "show", file.to_str().unwrap()]).await;
    assert!(String::from_utf8(unpacked(&std::fs::read(file).unwrap())).unwrap().contains(OTHERS));
    log.until_ended(&["b0"]).await;
    log.answer("b0");
    assert_eq!(cluster.rows().len(), 3);
    cluster.say("b3", "bob", "shared", "And now?").await;
    log.until_ended(&["b3"]).await;
    let context = log.event("b3", "context_retrieved").unwrap();
    assert_eq!(context.data()["context"]["recent_turns"].as_array().unwrap().len(), 1);
    let (letters, _) = good(&cluster, &["dead", "list", "--json"]).await;
    assert_eq!(letters.lines().count(), 1, "{letters}");

    // While a worker uses the database, and when all have ended.
    let database = cluster.database();
    let beside = database.parent().unwrap();
    let of_database =
        |found: Vec<String>| found.into_iter().filter(|of| of.contains("throughline.db")).collect();
    let nothing: Vec<String> = Vec::new();
    let left: Vec<String> = of_database(files_with(beside, &everywhere));
    assert_eq!(left, nothing);
    for worker in &mut cluster.workers {
        worker.signal("TERM");
        worker.ended(SOON).await;
    }
    let left: Vec<String> = of_database(files_with(beside, &everywhere));
    assert_eq!(left, nothing);
    assert_eq!(files_with(&archives, &everywhere), nothing);
    stop_nats(&mut cluster);
    assert_eq!(files_with(&store, &everywhere), nothing);
    assert!(!files_with(&store, &[OTHERS]).is_empty(), "others are still there");
}

#[tokio::test]
async fn a_session_is_forgotten_on_postgres_and_open_turns_are_not_touched() {
    let Some(server) = PostgresServer::shared().await else { return };
    let url = server.database().await;
    let parts = Parts { database_url: Some(&url), ..Parts::default() };
    let settings = Settings::new(
        "[worker]\nack_wait_ms = 1500\n[limits]\nmax_input_bytes = 200_000\n[retention]\narchive = \"bucket:past\"\n",
    );
    let Some(cluster) = Cluster::start_on(&parts, 1, &settings, &[]).await else { return };
    let mut log = cluster.log().await;
    let workflows = say_everything(&cluster).await;
    log.until_ended(&workflows).await;
    two_letters(&mut log).await;
    let archived = archive(&cluster, None).await;
    assert!(in_bucket(&cluster, &archived).await.contains(SESSION), "it can be found");
    let mut look = PgConnection::connect(&url).await.unwrap();
    assert!(!columns_with(&mut look, SESSION).await.is_empty(), "it can be found");

    // Whoever has an open turn is not forgotten by half.
    cluster.stand_ins.fault(model(json!({"delay_ms": 4_000, "remaining": 1}))).await;
    cluster.say("open", "bob", SESSION, OTHERS).await;
    log.until("its model is asked", |log| log.event("open", "external_data_fetched").is_some()).await;
    let rows = rows(&mut look).await;
    let mut refused = cluster.run("refused", &["forget", "--session", SESSION]);
    assert_eq!(refused.ended(SOON).await.code(), Some(1), "{}", refused.stdout());
    assert!(
        refused.stderr().contains("1 turns of session") && refused.stderr().contains("Nothing was erased")
    );
    assert_eq!(self::rows(&mut look).await, rows);
    log.until_ended(&["open"]).await;
    // Whoever is killed at it does it again.
    for ms in [150, 300, 450, 600, 900] {
        let mut killed = cluster.run("killed", &["forget", "--session", SESSION]);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        killed.kill();
    }
    let (told, _) = good(&cluster, &["forget", "--session", SESSION]).await;
    assert!(told.starts_with(&format!("erased of session {SESSION}")), "{told}");
    for needle in [SESSION, TEXT] {
        let left = columns_with(&mut look, needle).await;
        // The large input was said in another session.
        let left: Vec<_> =
            left.iter().filter(|column| needle != TEXT || !column.starts_with("interactions")).collect();
        assert!(left.is_empty(), "{needle}: {left:?}");
    }
    assert!(!columns_with(&mut look, USER).await.is_empty(), "the user spoke elsewhere, too");
    assert_eq!(self::rows(&mut look).await, 3, "what was said elsewhere is there");
    let left = in_bucket(&cluster, &archived).await;
    assert!(!left.contains(SESSION) && left.contains(OTHERS));
}

async fn rows(look: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM interactions").fetch_one(look).await.unwrap()
}

/// Columns in any row of which a text stands, also as bytes.
async fn columns_with(look: &mut PgConnection, needle: &str) -> Vec<String> {
    let columns =
        "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
        WHERE table_schema = 'public'";
    let columns: Vec<(String, String, String)> = sqlx::query_as(columns).fetch_all(&mut *look).await.unwrap();
    let mut found = Vec::new();
    for (table, column, kind) in columns {
        let holds = if kind == "bytea" {
            format!("position(convert_to($1, 'UTF8') in {column}) > 0")
        } else {
            format!("position($1 in {column}::text) > 0")
        };
        let count = AssertSqlSafe(format!("SELECT count(*) FROM {table} WHERE {holds}"));
        let rows: i64 = sqlx::query_scalar(count).bind(needle).fetch_one(&mut *look).await.unwrap();
        if rows > 0 {
            found.push(format!("{table}.{column}"));
        }
    }
    found
}
