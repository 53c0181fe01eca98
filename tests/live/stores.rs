//! One store of the server at a time goes wrong, whichever it is: it is filled by somebody else, or goes back in time.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use async_nats::jetstream::{self, stream::DiscardPolicy};
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{
    Cluster, Deployment, SOON, Settings, cluster::said, eventually, free_port, http_client, stand_ins::model,
};

/// Sessions go on within this time after a store went back in time.
const GOES_ON: Duration = Duration::from_mins(1);
/// Between looks at the rows, which another program reads.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Words of a message of which two are in events that are too large for a message of the server's.
const LONG: usize = 5_000;
/// Rubbish in one message.
const PIECE: usize = 900_000;

/// Every stream of the namespace, and one of its subjects that nobody uses.
async fn streams(cluster: &Cluster) -> Vec<(jetstream::stream::Config, String)> {
    let jetstream = jetstream::new(cluster.client.clone());
    let infos: Vec<_> = jetstream.streams().try_collect().await.unwrap();
    let unused = |subject: &String| subject.replace(['>', '*'], "rubbish");
    infos.into_iter().map(|info| (info.config.clone(), unused(&info.config.subjects[0]))).collect()
}

/// Publishes rubbish until the store has had as much as it can hold, or refuses it.
async fn fill(cluster: &Cluster, config: &jetstream::stream::Config, subject: &str) {
    let jetstream = jetstream::new(cluster.client.clone());
    let piece = PIECE.min(usize::try_from(config.max_bytes).unwrap() / 4);
    let mut left = usize::try_from(config.max_bytes).unwrap();
    for size in [piece, piece / 30, 1_000] {
        loop {
            let sent = jetstream.publish(subject.to_owned(), vec![b'x'; size].into()).await.unwrap();
            let refused = sent.await.is_err();
            left = left.saturating_sub(size);
            if refused || (config.discard == DiscardPolicy::Old && left == 0) {
                break;
            }
        }
    }
}

/// What does not need the full store ends as ever; where something needs it, it is told, and goes on as soon as there is room.
async fn filled(deployment: Deployment) {
    let ready = format!("127.0.0.1:{}", free_port());
    let settings = format!("[nats]\nmax_bytes_mib = 24\n[http]\nlisten = {ready:?}\n");
    let Some(cluster) = Cluster::start_on(&deployment.parts(), 1, &Settings::new(&settings), &[]).await
    else {
        return;
    };
    cluster.workers[0].until_ready().await;
    let mut log = cluster.log().await;
    for (n, (config, subject)) in streams(&cluster).await.into_iter().enumerate() {
        // A full log is a story of its own (`causes`, `retention`).
        if config.name == "throughline_EVENTS" {
            continue;
        }
        // What is said next in this session comes with what was said before.
        let talk = [format!("first-{n}"), format!("second-{n}"), format!("large-{n}")];
        for id in &talk[..2] {
            cluster.say(id, "demo", "talk", &"words ".repeat(LONG)).await;
        }
        log.until_ended(&talk[..2]).await;
        fill(&cluster, &config, &subject).await;
        let ids: Vec<_> = (0..5).map(|k| format!("small-{n}-{k}")).collect();
        cluster.publish_all(ids.iter().map(|id| said(id, "demo", id, "Hello")).collect()).await;
        log.until_ended(&ids).await;
        for id in &ids {
            log.answer(id);
        }
        if config.discard == DiscardPolicy::New {
            let [.., large] = &talk;
            cluster.say(large, "demo", "talk", &"words ".repeat(LONG)).await;
            eventually("readiness names the store", async || {
                let answer = http_client().get(format!("http://{ready}/readyz")).send().await.unwrap();
                let said = answer.text().await.unwrap();
                said.contains(&config.name).then_some(())
            })
            .await;
            let mut doctor = cluster.run("doctor", &["doctor"]);
            doctor.ended(SOON).await;
            assert!(doctor.stdout().contains(&config.name), "{}: {}", config.name, doctor.stdout());
            let after = format!("after-{n}");
            cluster.say(&after, "demo", &after, "Hello").await;
            log.until_ended(&[&after]).await;
            let jetstream = jetstream::new(cluster.client.clone());
            let stream = jetstream.get_stream(&config.name).await.unwrap();
            stream.purge().filter(&subject).await.unwrap();
            log.until_ended(&[large]).await;
            log.answer(large);
        }
    }
}

#[tokio::test]
async fn a_store_that_somebody_else_filled_stops_only_what_needs_it() {
    filled(Deployment::Small).await;
}

#[tokio::test]
async fn a_store_of_three_servers_that_somebody_else_filled_stops_only_what_needs_it() {
    let Some(deployment) = Deployment::large().await else { return };
    filled(deployment).await;
}

/// Waits until the publisher can publish again.
async fn until_connected(cluster: &Cluster) {
    let jetstream = jetstream::new(cluster.client.clone());
    eventually("the publisher is connected", async || jetstream.query_account().await.ok()).await;
}

/// The first folder of this name.
fn folder(under: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<_> = std::fs::read_dir(under).ok()?.flatten().map(|entry| entry.path()).collect();
    let found = entries.iter().find(|path| path.is_dir() && path.ends_with(name)).cloned();
    found.or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| folder(path, name)))
}

/// The Raft groups of a stream and its consumers; none on one server.
async fn raft_groups(cluster: &Cluster, stream: &str) -> Vec<String> {
    let mut groups = Vec::new();
    for request in ["STREAM.INFO", "CONSUMER.LIST"] {
        let answer = cluster.client.request(format!("$JS.API.{request}.{stream}"), "".into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        let consumers = answer["consumers"].as_array();
        let all: Vec<&Value> = consumers.map_or(vec![&answer], |consumers| consumers.iter().collect());
        groups.extend(
            all.into_iter().filter_map(|one| Some(one["cluster"]["raft_group"].as_str()?.to_owned())),
        );
    }
    groups
}

/// Where the servers keep a stream and what they have agreed on about it.
async fn folders_of(cluster: &Cluster, stream: &str) -> Vec<PathBuf> {
    let groups = raft_groups(cluster, stream).await;
    assert_eq!(groups.is_empty(), cluster.nats.dirs().len() == 1, "{groups:?}");
    let mut folders = Vec::new();
    for dir in cluster.nats.dirs() {
        folders.push(folder(&dir, "streams").expect("streams").join(stream));
        folders.extend(groups.iter().map(|group| folder(&dir, "_js_").expect("Raft groups").join(group)));
    }
    folders
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// One stream at a time is put back to an earlier moment, with work under way: whatever was admitted is stored once, the
/// sessions go on, and no model is asked for an answer that somebody has.
async fn put_back(deployment: Deployment) {
    const SESSIONS: usize = 4;
    let settings = Settings::new("[sessions]\nsweep_interval_ms = 1000\n");
    let Some(mut cluster) = Cluster::start_on(&deployment.parts(), 2, &settings, &[]).await else { return };
    for worker in &cluster.workers {
        worker.until_ready().await;
    }
    let mut ids = BTreeSet::new();
    let mut calls = 0;
    // One of each session, the first with a body that is kept apart; and what becomes a dead letter.
    let wave = |name: &str| -> Vec<_> {
        (0..SESSIONS)
            .map(|s| {
                let text = if s == 0 { "words ".repeat(LONG) } else { "Hello".to_owned() };
                (format!("{name}-{s}"), format!("session-{s}"), text)
            })
            .collect()
    };
    let publish = async |cluster: &Cluster, wave: &[(String, String, String)]| {
        cluster
            .publish_all(wave.iter().map(|(id, session, text)| said(id, "demo", session, text)).collect())
            .await;
        cluster.publish("throughline.v1.context_retrieved.rubbish.rubbish", &[], "rubbish").await;
    };
    let until_stored = async |cluster: &Cluster, ids: &BTreeSet<String>| {
        let deadline = Instant::now() + GOES_ON;
        loop {
            let rows = cluster.stored().await;
            let stored: BTreeSet<_> = rows.iter().cloned().collect();
            assert_eq!(stored.len(), rows.len(), "a row twice");
            if stored == *ids {
                break;
            }
            let missing: Vec<_> = ids.difference(&stored).collect();
            assert!(Instant::now() < deadline, "not within {GOES_ON:?}: {missing:?}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let names: Vec<_> = streams(&cluster).await.into_iter().map(|(config, _)| config.name).collect();
    for name in names {
        let before = wave(&format!("{name}-before"));
        publish(&cluster, &before).await;
        ids.extend(before.into_iter().map(|(id, ..)| id));
        calls += SESSIONS as u64;
        until_stored(&cluster, &ids).await;

        let folders = folders_of(&cluster, &name).await;
        let earlier = cluster.dir().join("earlier");
        cluster.kill_nats();
        for (at, folder) in folders.iter().enumerate() {
            copy_folder(folder, &earlier.join(at.to_string()));
        }
        cluster.revive_nats();
        until_connected(&cluster).await;

        let since = wave(&format!("{name}-since"));
        publish(&cluster, &since).await;
        ids.extend(since.into_iter().map(|(id, ..)| id));
        calls += SESSIONS as u64;
        until_stored(&cluster, &ids).await;

        cluster.stand_ins.fault(model(json!({"delay_ms": 2_000, "remaining": SESSIONS}))).await;
        let under_way = wave(&format!("{name}-under-way"));
        publish(&cluster, &under_way).await;
        ids.extend(under_way.into_iter().map(|(id, ..)| id));
        calls += SESSIONS as u64;
        eventually("the model is asked", async || {
            (cluster.stand_ins.count("model").await == calls).then_some(())
        })
        .await;
        cluster.kill_nats();
        for (at, folder) in folders.iter().enumerate() {
            std::fs::remove_dir_all(folder).unwrap();
            copy_folder(&earlier.join(at.to_string()), folder);
        }
        std::fs::remove_dir_all(&earlier).unwrap();
        cluster.revive_nats();
        until_connected(&cluster).await;

        let after = wave(&format!("{name}-after"));
        publish(&cluster, &after).await;
        ids.extend(after.into_iter().map(|(id, ..)| id));
        calls += SESSIONS as u64;
        until_stored(&cluster, &ids).await;
        let asked = cluster.stand_ins.count("model").await;
        // An answer that was on its way while the server was away may be asked for again.
        assert!(asked <= calls + SESSIONS as u64, "{name}: {asked} calls, {calls} answers");
        calls = asked;
        eprintln!("{name}: put back, {asked} calls");
    }
    cluster.assert_workers_run();
}

#[tokio::test]
async fn any_store_of_the_server_may_be_put_back() {
    put_back(Deployment::Small).await;
}

#[tokio::test]
async fn any_store_of_three_servers_may_be_put_back() {
    let Some(deployment) = Deployment::large().await else { return };
    put_back(deployment).await;
}
