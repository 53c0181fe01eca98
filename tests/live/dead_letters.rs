//! `throughline dead`, as an operator uses it.

use serde_json::{Value, json};

use crate::harness::{
    Cluster, Log, SOON, Settings,
    cluster::{BARE, message},
    stand_ins,
};

/// Runs `throughline dead ...`; its exit code, stdout and stderr.
async fn dead(cluster: &Cluster, arguments: &[&str]) -> (i32, String, String) {
    let all = [&["dead"], arguments].concat();
    let mut program = cluster.run("dead", &all);
    let status = program.ended(SOON).await;
    (status.code().expect("an exit code"), program.stdout(), program.stderr())
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

async fn listed(cluster: &Cluster, filters: &[&str]) -> Vec<Value> {
    let (code, out, err) = dead(cluster, &[&["list", "--json"], filters].concat()).await;
    assert_eq!(code, 0, "{err}");
    lines(&out)
}

/// Kills the worker that asks the model about `text`, until its message is dead-lettered; `max_deliver` is 1.
async fn poisoned(cluster: &mut Cluster, log: &mut Log, workflow: &str, session: &str) {
    let before = cluster.stand_ins.count("model").await;
    cluster.add_worker();
    cluster.say(workflow, "demo", session, "Hello").await;
    crate::harness::eventually("the model is asked", async || {
        (cluster.stand_ins.count("model").await > before).then_some(())
    })
    .await;
    cluster.workers.pop().expect("a worker").kill();
    cluster.add_worker();
    log.until_ended(&[workflow]).await;
    assert_eq!(log.failure(workflow)["code"], "poison");
    cluster.workers.pop().expect("a worker").kill();
}

#[tokio::test]
async fn dead_letters_are_listed_shown_retried_and_dropped() {
    let settings = Settings::new("[worker]\nack_wait_ms = 1000\nmax_deliver = 1");
    let Some(mut cluster) = Cluster::start_with(0, &settings, &["--model-latency-ms", "3000"]).await else {
        return;
    };
    let mut log = cluster.log().await;
    poisoned(&mut cluster, &mut log, "w1", "s").await;
    cluster.add_worker();
    let hostile: &[u8] = b"\xff not JSON \x1b[2J";
    cluster.publish(BARE, &[("X-Kept", "yes")], hostile.to_vec()).await;
    log.until("the second dead letter", |log| log.dead().count() == 2).await;

    let letters = listed(&cluster, &[]).await;
    assert_eq!(letters.len(), 2);
    let [poison, garbage] = [&letters[0], &letters[1]];
    assert_eq!((&poison["stage"], &poison["code"]), (&json!("generation"), &json!("poison")));
    assert_eq!((&poison["workflow_id"], &poison["attempts"]), (&json!("w1"), &json!(1)));
    assert_eq!(poison["consumer"], "stage_generation");
    assert_eq!((&garbage["stage"], garbage.get("workflow_id")), (&json!("input"), None));
    assert_eq!(listed(&cluster, &["--stage", "input"]).await, letters[1..]);
    assert_eq!(listed(&cluster, &["--code", "poison", "--limit", "5"]).await, letters[..1]);
    assert_eq!(listed(&cluster, &["--newer-than", "1h"]).await.len(), 2);
    assert_eq!(listed(&cluster, &["--older-than", "1h"]).await.len(), 0);
    let (code, table, _) = dead(&cluster, &["list"]).await;
    assert_eq!(code, 0);
    assert!(table.contains("generation") && table.contains("w1") && !table.contains('\u{1b}'), "{table}");

    // The bytes are the original's.
    let id = garbage["id"].to_string();
    let (_, shown, _) = dead(&cluster, &["show", &id, "--json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["body_base64"], "/yBub3QgSlNPTiAbWzJK");
    assert!(shown["headers"].as_array().unwrap().contains(&json!(["X-Kept", "yes"])), "{shown}");
    let (_, shown, _) = dead(&cluster, &["show", &poison["id"].to_string()]).await;
    assert!(shown.contains("stage_generation") && shown.contains("external_data_fetched"), "{shown}");

    // What cannot be done is said, and does nothing.
    for (arguments, code, said) in [
        (&["show", "4711"][..], 1, "no dead letter 4711"),
        (&["retry"][..], 2, "say which letters"),
        (&["drop"][..], 2, "say which letters"),
        (&["drop", "--all"][..], 2, "--yes"),
        (&["list", "--code", "poisson"][..], 2, "no failure code"),
        (&["list", "--older-than", "soon"][..], 2, "is not a span"),
        (&["retry", "1", "--stage", "input"][..], 2, "cannot be used with"),
        (&["retry", "abc"][..], 2, "`throughline dead list`"),
        (&["show", "-1"][..], 2, "`throughline dead list`"),
        (&["drop", "1", "w1"][..], 2, "`throughline dead list`"),
    ] {
        let (exit, _, err) = dead(&cluster, arguments).await;
        assert_eq!(exit, code, "{arguments:?}: {err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
    assert_eq!(listed(&cluster, &[]).await.len(), 2);

    // Retrying runs it again, behind what its session has done meanwhile.
    cluster.say("w2", "demo", "s", "Meanwhile").await;
    let (code, out, err) = dead(&cluster, &["retry", &poison["id"].to_string(), "--json"]).await;
    assert_eq!(code, 0, "{err}");
    let retry = lines(&out)[0]["retry_workflow_id"].as_str().unwrap().to_owned();
    assert_eq!(retry, format!("w1-retry-{}", poison["id"]));
    log.until_ended(&["w2", &retry]).await;
    log.answer(&retry);
    let began = log.event(&retry, "input_validated").unwrap();
    assert!(began.sequence > log.end("w2").unwrap().sequence, "one turn at a time, in order");
    let input = log.event(&retry, "user_input_received").unwrap();
    assert_eq!(input.header("Throughline-Retry-Of"), poison["id"].to_string());
    assert_eq!(input.data()["user_input"], "Hello");
    // It is gone, and it is known what became of it.
    assert_eq!(listed(&cluster, &[]).await.len(), 1);
    let (exit, _, err) = dead(&cluster, &["retry", &poison["id"].to_string()]).await;
    assert!(exit == 1 && err.contains(&retry) && err.contains("was retried"), "{err}");
    assert_eq!(log.events(&retry).filter(|seen| seen.kind() == "user_input_received").count(), 1);

    // What nobody can read would be dead-lettered again.
    let (exit, out, err) = dead(&cluster, &["retry", "--stage", "input"]).await;
    assert!(exit == 1 && err.contains("no stage can read it") && err.contains("retried 0 of 1"), "{err}");
    assert!(!out.contains("retried"), "{out}");
    assert_eq!(listed(&cluster, &[]).await.len(), 1);
    let (exit, out, err) = dead(&cluster, &["drop", "--all", "--yes", "--json"]).await;
    assert_eq!((exit, lines(&out).len()), (0, 1), "{err}");
    assert!(listed(&cluster, &[]).await.is_empty());
    cluster.assert_workers_run();
}

/// Letters of one session as the input stage dead-letters them, the first one first.
async fn dead_letter(cluster: &Cluster, session: &str, names: &[String]) {
    for name in names {
        let body = json!({"user_id": "demo", "session_id": session, "workflow_id": name, "user_input": name});
        let headers =
            [("Throughline-Stage", "input"), ("Throughline-Code", "poison"), ("Throughline-Subject", BARE)];
        let subject = format!("throughline.dead.v1.user_input_received.{session}.{name}");
        cluster.publish_all(vec![message(&subject, &headers, body.to_string())]).await;
    }
}

/// Retries every letter that was dead-lettered as poison; the workflows that it makes.
async fn retry_all(cluster: &Cluster) -> Vec<String> {
    let (code, out, err) = dead(cluster, &["retry", "--code", "poison", "--json"]).await;
    assert_eq!(code, 0, "{err}");
    lines(&out).iter().map(|line| line["retry_workflow_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_session_s_letters_are_retried_in_their_order() {
    let Some(cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    // Events that say they belong to a stage and that no stage can read keep their session's order when retried.
    let names: Vec<_> = (0..5).map(|n| format!("lost-{n}")).collect();
    dead_letter(&cluster, "s", &names).await;
    let retries = retry_all(&cluster).await;
    assert_eq!(retries.len(), names.len());
    log.until_ended(&retries).await;
    let mut ended = 0;
    for (retry, name) in retries.iter().zip(&names) {
        assert!(retry.starts_with(name.as_str()), "{retry} {name}");
        log.answer(retry);
        assert!(log.event(retry, "input_validated").unwrap().sequence > ended);
        ended = log.end(retry).unwrap().sequence;
    }
    // A model that fails for good leaves no letter: its failure is an event.
    cluster.stand_ins.fault(stand_ins::model(json!({"status": 400}))).await;
    cluster.say("refused", "demo", "s", "Hello").await;
    log.until_ended(&["refused"]).await;
    assert!(listed(&cluster, &[]).await.is_empty());
}

/// Whatever is done with what users say to a busy session: who retries letters wants each of them answered.
#[tokio::test]
async fn retries_wait_for_each_other_whatever_else_a_busy_session_does() {
    for when_busy in ["reject", "interrupt", "merge"] {
        let settings = Settings::new(&format!("[sessions]\nwhen_busy = {when_busy:?}"));
        let slow = ["--model-latency-ms", "300"];
        let Some(cluster) = Cluster::start_with(1, &settings, &slow).await else { return };
        let mut log = cluster.log().await;
        let names: Vec<_> = (0..4).map(|n| format!("lost-{n}")).collect();
        dead_letter(&cluster, "s", &names).await;
        let retries = retry_all(&cluster).await;
        log.until_ended(&retries).await;
        let mut ended = 0;
        for retry in &retries {
            let end = log.end(retry).unwrap();
            assert_eq!(end.kind(), "interaction_saved", "{when_busy}: {retry} failed: {}", end.data());
            assert!(log.event(retry, "input_validated").unwrap().sequence > ended, "{when_busy}: in order");
            ended = end.sequence;
        }
    }
}
