//! A log of a few MiB through which more goes than it can hold: nothing is refused, nothing open is removed.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;
use throughline::replay::recording::Reader;
use tokio::time::Instant;

use crate::{
    harness::{
        Cluster, Program, Settings,
        cluster::{BARE, message, said},
        process::throughline,
    },
    nats_server::NatsServer,
};

/// About twice what the log can hold: each takes 22 kB.
const WORKFLOWS: usize = 680;
/// Published at once, then waited for. Less than the fifth of the log that is free when room begins to be made.
const WAVE: usize = 30;
/// How long one wave may take, with a worker killed in it.
const WAVE_LIMIT: Duration = Duration::from_mins(1);

fn settings(more: &str) -> Settings {
    Settings::new("[nats]\nmax_bytes_mib = 8\n[worker]\nack_wait_ms = 2000\n").with(more)
}

/// Publishes waves of workflows; `between` is told after each how many are published. None may be refused, and each ends
/// once.
///
/// A patient publisher waits until a log is not nearly full: whoever makes room may have been killed.
async fn waves(
    cluster: &mut Cluster,
    patient: bool,
    mut between: impl AsyncFnMut(&mut Cluster, usize),
) -> Vec<String> {
    let mut log = cluster.log().await;
    let mut all = Vec::new();
    while all.len() < WORKFLOWS {
        if patient {
            room(cluster).await;
        }
        let wave: Vec<_> = (all.len()..all.len() + WAVE).map(|n| format!("w{n}")).collect();
        // Refused input would fail here.
        let text = "x".repeat(1_500);
        let messages =
            wave.iter().enumerate().map(|(n, id)| said(id, "demo", &format!("s{n}"), &text)).collect();
        cluster.publish_all(messages).await;
        all.extend(wave.iter().cloned());
        between(cluster, all.len()).await;
        log.until_ended_within(WAVE_LIMIT, &wave).await;
    }
    for workflow in &all {
        let ends = log
            .events(workflow)
            .filter(|seen| matches!(seen.kind().as_str(), "interaction_saved" | "workflow_failed"));
        assert_eq!(ends.count(), 1, "{workflow}");
    }
    all
}

async fn events(cluster: &Cluster) -> async_nats::jetstream::stream::Info {
    let jetstream = async_nats::jetstream::new(cluster.client.clone());
    let stream = jetstream.get_stream("throughline_EVENTS").await.unwrap();
    stream.cached_info().clone()
}

async fn first_sequence(cluster: &Cluster) -> u64 {
    events(cluster).await.state.first_sequence
}

async fn percent(cluster: &Cluster) -> u64 {
    let info = events(cluster).await;
    info.state.bytes * 100 / u64::try_from(info.config.max_bytes).unwrap()
}

/// Waits until the log is not about to refuse input. From 90 % on everything that is finished may go.
async fn room(cluster: &Cluster) {
    let deadline = Instant::now() + WAVE_LIMIT;
    while percent(cluster).await >= 90 {
        assert!(Instant::now() < deadline, "nobody makes room");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn saved(rows: &[Value]) -> Vec<String> {
    let mut ids: Vec<_> = rows.iter().map(|row| row["workflow_id"].as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn more_than_the_log_can_hold_goes_through_it() {
    let Some(mut cluster) = Cluster::start(2, &settings("")).await else { return };
    for worker in &cluster.workers {
        worker.until_ready().await;
    }
    let began = Instant::now();
    let mut kills = 0;
    let all = waves(&mut cluster, false, async |cluster, published| {
        // While its wave is under way, in every fourth.
        if published % (WAVE * 4) == 0 {
            cluster.workers.remove(0).kill();
            cluster.add_worker();
            kills += 1;
        }
    })
    .await;
    eprintln!("{} workflows in {:?}, {kills} kills", all.len(), began.elapsed());
    assert!(first_sequence(&cluster).await > 1_000, "nothing made room");
    let mut expected = all.clone();
    expected.sort_unstable();
    assert_eq!(saved(&cluster.rows()), expected);
    cluster.assert_workers_run();
    let log = cluster.workers.last().unwrap().stderr();
    assert!(!log.contains("cannot be removed"), "{log}");
}

/// Every archive, read by itself: it is whole, its messages lie in the range of its name, and together they leave out
/// nothing from the first message on. The subjects by sequence.
fn archived(folder: &Path) -> BTreeMap<u64, String> {
    let mut ranges = Vec::new();
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let Some(range) = name.strip_suffix(".jsonl.gz").and_then(|name| name.strip_prefix("throughline-"))
        else {
            // Left by a process that was killed while it wrote.
            assert!(name.starts_with(".part-"), "{name}");
            continue;
        };
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
        let mut reader = Reader::open(&entry.path()).unwrap();
        while let Some(message) = reader.next_message().unwrap() {
            assert!((first..=last).contains(&message.sequence), "{name}: {}", message.sequence);
            all.insert(message.sequence, message.subject);
        }
        ranges.push((first, last));
    }
    ranges.sort_unstable();
    let mut next = 1;
    for (first, last) in &ranges {
        assert!(*first <= next, "nothing holds {next} to {first}: {ranges:?}");
        next = next.max(last + 1);
    }
    all
}

/// Whoever archives is killed at any moment, between archiving and removing, too.
#[tokio::test]
async fn what_is_removed_is_in_archives_that_are_whole() {
    let Some(mut cluster) = Cluster::start(0, &settings("[retention]\narchive = \"file:archives\"\n")).await
    else {
        return;
    };
    let folder = cluster.dir().join("archives");
    for _ in 0..2 {
        cluster.add_worker();
    }
    for worker in &cluster.workers {
        worker.until_ready().await;
    }
    let mut kills = 0;
    let all = waves(&mut cluster, true, async |cluster, published| {
        if published % (WAVE * 3) == 0 {
            // As soon as there is one more archive, whoever wrote it is about to remove what is in it.
            let count = || std::fs::read_dir(&folder).map_or(0, Iterator::count);
            let before = count();
            let until = Instant::now() + Duration::from_secs(3);
            while count() == before && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            cluster.workers.remove(kills % 2).kill();
            cluster.add_worker();
            kills += 1;
        }
    })
    .await;
    let first = first_sequence(&cluster).await;
    assert!(first > 1_000, "nothing made room");
    let held = archived(&folder);
    // Deleted from the middle of the log were only first copies of events that were published again.
    let missing = (1..first).filter(|sequence| !held.contains_key(sequence)).count();
    let again =
        cluster.workers.iter().map(|worker| worker.stderr().matches("resumed").count()).sum::<usize>();
    assert!(missing <= again, "{missing} messages were removed and are in no archive");
    let mut expected = all.clone();
    expected.sort_unstable();
    assert_eq!(saved(&cluster.rows()), expected);
    // It is a recording as any other.
    let newest = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
    let newest =
        newest.filter(|path| path.extension().is_some_and(|extension| extension == "gz")).max().unwrap();
    let mut verify = cluster.run("verify", &["replay", "verify", "--file", newest.to_str().unwrap()]);
    verify.ended(Duration::from_mins(1)).await;
    let out = verify.stdout();
    assert!(out.contains("identical"), "{out}{}", verify.stderr());
    eprintln!(
        "{} archives, {kills} kills, {missing} missing of {first}",
        std::fs::read_dir(&folder).unwrap().count()
    );
}

/// Large bodies have a store of their own, which is full long before the log is: what they belonged to makes room in it.
#[tokio::test]
async fn more_large_bodies_than_their_store_can_hold_go_through_it() {
    const STORE: u64 = 40 << 20;
    let Some(mut cluster) = Cluster::start(2, &Settings::new("[nats]\nmax_bytes_mib = 40\n")).await else {
        return;
    };
    for worker in &cluster.workers {
        worker.until_ready().await;
    }
    let mut log = cluster.log().await;
    let jetstream = async_nats::jetstream::new(cluster.client.clone());
    let bodies = async || {
        let stream = jetstream.get_stream("OBJ_throughline_BODIES").await.unwrap();
        let state = &stream.cached_info().state;
        (state.last_sequence, state.messages, state.bytes)
    };
    let (began, mut kills, mut n) = (Instant::now(), 0, 0);
    while n < 180 {
        let deadline = Instant::now() + WAVE_LIMIT;
        while bodies().await.2 > STORE / 10 * 9 {
            assert!(Instant::now() < deadline, "nobody makes room");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let wave: Vec<_> = (n..n + 3).map(|n| format!("w{n}")).collect();
        // Earlier turns of the session are in the events of later ones.
        for (session, id) in wave.iter().enumerate() {
            cluster.say(id, "demo", &format!("s{session}"), &"words ".repeat(5_000)).await;
        }
        n += wave.len();
        if n % 30 == 0 {
            cluster.workers.remove(0).kill();
            cluster.add_worker();
            kills += 1;
        }
        log.until_ended_within(WAVE_LIMIT, &wave).await;
        for id in &wave {
            log.answer(id);
        }
    }
    let (last, messages, _) = bodies().await;
    eprintln!("{n} workflows in {:?}, {kills} kills, {messages} of {last} pieces left", began.elapsed());
    assert_eq!(cluster.rows().len(), n);
    assert!(messages + 200 < last, "their store held all of them");
    assert!(first_sequence(&cluster).await > 1, "their events stayed, and name what is gone");
    // What the log still has can still be read as a whole.
    let mut export = cluster.run("export", &["record", "export", "all.jsonl.gz"]);
    let status = export.ended(WAVE_LIMIT).await;
    assert!(status.success(), "{}", export.stderr());
    cluster.assert_workers_run();
}

/// Archives in a bucket of the server: the same, with whoever archives killed now and then.
#[tokio::test]
async fn what_is_removed_is_in_a_bucket_if_that_is_the_place() {
    let mut cluster = Cluster::start(2, &settings("[retention]\narchive = \"bucket:past\"\n")).await;
    let Some(cluster) = &mut cluster else { return };
    for worker in &cluster.workers {
        worker.until_ready().await;
    }
    let all = waves(cluster, true, async |cluster, published| {
        if published % (WAVE * 6) == 0 {
            cluster.workers.remove(0).kill();
            cluster.add_worker();
        }
    })
    .await;
    assert_eq!(cluster.rows().len(), all.len());
    let first = first_sequence(cluster).await;
    assert!(first > 1_000, "nothing made room");
    let run = async |arguments: &[&str]| {
        let mut program = cluster.run("record", arguments);
        let status = program.ended(WAVE_LIMIT).await;
        assert!(status.success(), "{arguments:?}: {}", program.stderr());
        program.stdout()
    };
    let listed = run(&["record", "archives"]).await;
    let folder = cluster.dir().join("fetched");
    std::fs::create_dir(&folder).unwrap();
    for line in listed.lines() {
        let name = line.split_whitespace().next().unwrap();
        let out = folder.join(name);
        run(&["record", "archives", "--fetch", name, "--out", out.to_str().unwrap()]).await;
        run(&["record", "show", out.to_str().unwrap()]).await;
    }
    let held = archived(&folder);
    let again =
        cluster.workers.iter().map(|worker| worker.stderr().matches("resumed").count()).sum::<usize>();
    let missing = (1..first).filter(|sequence| !held.contains_key(sequence)).count();
    assert!(missing <= again, "{missing} messages were removed and are in no archive:\n{listed}");
}

/// A flood of what is no message: whatever it fills, it keeps nobody from their work.
#[tokio::test]
async fn rubbish_stops_nobody() {
    let Some(cluster) = Cluster::start(1, &Settings::new("[nats]\nmax_bytes_mib = 24\n")).await else {
        return;
    };
    cluster.workers[0].until_ready().await;
    let mut log = cluster.log().await;
    // Nine times what the stream of dead letters can hold.
    for (waves, count, bytes) in [(30, 20, 30_000), (10, 1, 900_000)] {
        for _ in 0..waves {
            room(&cluster).await;
            let rubbish = (0..count).map(|_| message(BARE, &[], "x".repeat(bytes))).collect();
            cluster.publish_all(rubbish).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let began = Instant::now();
    cluster.say("other", "demo", "other", "Hello").await;
    log.until_ended_within(Duration::from_secs(20), &["other"]).await;
    eprintln!("the other user waited {:?}", began.elapsed());
    log.answer("other");
}

/// On a server with little room `setup` takes what there is, says so, and says it once.
#[tokio::test]
async fn setting_up_takes_what_room_there_is() {
    let Some(server) = NatsServer::start_configured("jetstream { max_file_store: 320MB }") else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("throughline.toml");
    let run = async |name: &str, more: &str, arguments: &[&str]| {
        std::fs::write(&file, format!("[nats]\nurl = {:?}\n{more}", server.url())).unwrap();
        let mut command = throughline();
        command.arg("--config").arg(&file).args(arguments).env("HOME", dir.path());
        let mut program = Program::start(name, dir.path(), &mut command);
        let status = program.ended(crate::harness::SOON).await;
        (status.code(), program.stdout(), program.stderr())
    };
    let (code, _, err) = run("strict", "max_bytes_mib = 2048\n", &["setup"]).await;
    assert!(code != Some(0) && err.contains("max_bytes_mib"), "what is asked for is not made smaller: {err}");
    let (code, out, err) = run("fits", "", &["setup"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("room for 128 MiB of events instead of 2048 MiB"), "{out}");
    let (code, out, _) = run("again", "", &["setup"]).await;
    assert!(code == Some(0) && !out.contains("updated") && !out.contains("created"), "{out}");
}
