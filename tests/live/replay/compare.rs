//! Running again with a change, and taking up what failed.

use std::fs;

use futures_util::TryStreamExt;
use serde_json::{Value, json};

use super::{replay, summary};
use crate::harness::{Cluster, SOON, Settings, cluster::said, corpora, stand_ins::model};

const CONVERSATIONS: usize = 200;

/// How much each stream holds, and where it ends.
async fn streams(cluster: &Cluster) -> Vec<(String, u64, u64)> {
    let infos = async_nats::jetstream::new(cluster.client.clone());
    let mut all: Vec<_> = infos
        .streams()
        .map_ok(|info| (info.config.name, info.state.messages, info.state.last_sequence))
        .try_collect()
        .await
        .expect("streams");
    all.sort();
    all
}

#[tokio::test]
async fn conversations_run_again_are_compared_and_production_is_not_touched() {
    let Some(folder) = corpora::folder("support") else { return };
    let data = ["--data", folder.to_str().unwrap()];
    let Some(mut cluster) = Cluster::start_with(2, &Settings::new(""), &data).await else { return };
    let mut log = cluster.log().await;
    let cases: Vec<Value> =
        corpora::lines(&folder.join("cases.jsonl")).into_iter().take(CONVERSATIONS).collect();
    let names: Vec<_> = (0..cases.len()).map(|n| format!("support-{n}")).collect();
    let messages = cases.iter().zip(&names).map(|(case, id)| {
        let text = |name: &str| case[name].as_str().unwrap().to_owned();
        said(id, &text("user_id"), &text("user_id"), &text("instruction"))
    });
    cluster.publish_all(messages.collect()).await;
    log.until_ended_within(8 * SOON, &names).await;

    // Workers have their own say in the streams; what changes from here on is the replay's doing.
    cluster.assert_workers_run();
    for worker in &mut cluster.workers {
        worker.signal("TERM");
        assert!(worker.ended(SOON).await.success(), "{}", worker.stderr());
    }
    let before = (streams(&cluster).await, cluster.rows(), cluster.stand_ins.count("model").await);
    let prompt = cluster.dir().join("pirate.j2");
    fs::write(&prompt, "You are a pirate. Answer in one sentence.").unwrap();
    let page = cluster.dir().join("report.html");
    let (prompt, page) = (prompt.to_str().unwrap(), page.to_str().unwrap());
    let changed = ["run", "--model", "sandbox-large", "--prompt", prompt, "--html", page, "--budget", "5"];
    let (code, lines, err) = replay(&cluster, &changed).await;
    assert_eq!(code, 0, "{err}");
    let totals = &summary(&lines)["totals"];
    assert_eq!(totals["run"], json!(cases.len()), "{totals}");
    assert_eq!(totals["after"]["models"], json!({"sandbox-large": cases.len()}), "{totals}");
    assert_eq!(totals["changed"], json!(cases.len()), "the large one says more: {totals}");
    let cost = |side: &str| totals[side]["cost_usd"].as_str().unwrap().parse::<f64>().unwrap();
    assert!(cost("after") > cost("before"), "{totals}");
    let html = fs::read_to_string(page).unwrap();
    assert!(html.contains("sandbox-large") && html.matches("<details").count() == cases.len());
    // The model was asked, and that is all that happened.
    assert_eq!(cluster.stand_ins.count("model").await - before.2, cases.len() as u64);
    assert_eq!(streams(&cluster).await, before.0);
    assert_eq!(cluster.rows(), before.1);

    // What it may cost is known before it is spent.
    let (code, lines, _) = replay(&cluster, &["run", "--budget", "0.0001", "--limit", "20"]).await;
    let totals = &summary(&lines)["totals"];
    assert_eq!(code, 1);
    assert!(totals["not_run"].as_u64().unwrap() > 0, "{totals}");
    let spent: f64 = totals["after"]["cost_usd"].as_str().unwrap().parse().unwrap();
    assert!(spent <= 0.0001, "{totals}");
}

/// Each workflow of the selection is in the sum: run again, or left out with what helps. Nobody was called where nothing
/// was sent, and the exit code says whether something got worse.
#[tokio::test]
async fn what_is_left_out_is_told_with_what_helps_and_is_no_failure() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new("[stages.generation]\nmax_attempts = 1")).await
    else {
        return;
    };
    let mut log = cluster.log().await;
    cluster.say("fine", "demo", "a", "What is the status of my recent order?").await;
    cluster.say("empty", "demo", "b", " ").await;
    log.until_ended(&["fine", "empty"]).await;
    assert_eq!(log.failure("empty")["code"], "invalid_input");

    let (code, lines, err) = replay(&cluster, &["run"]).await;
    assert_eq!(code, 0, "{err}");
    let totals = &summary(&lines)["totals"];
    assert_eq!((&totals["run"], &totals["not_run"]), (&json!(1), &json!(1)), "{totals}");
    let because = totals["not_run_because"].as_object().unwrap().keys().next().unwrap();
    assert!(because.contains("begin at input"), "{because}");
    let mut shown = cluster.run("shown", &["replay", "run"]);
    assert_eq!(shown.ended(SOON).await.code(), Some(0), "{}", shown.stderr());
    let shown = shown.stdout();
    assert!(
        shown.contains("1 of 2 run again") && shown.contains("1 of 2 left out: it cannot begin at"),
        "{shown}"
    );

    // What it says helps.
    let (code, lines, err) = replay(&cluster, &["run", "--from", "input"]).await;
    assert_eq!(code, 0, "{err}");
    let totals = &summary(&lines)["totals"];
    assert_eq!((&totals["run"], &totals["not_run"]), (&json!(2), &json!(0)), "{totals}");
    assert_eq!(
        (&totals["before"]["attempts"], &totals["after"]["attempts"]),
        (&json!(1), &json!(1)),
        "{totals}"
    );
    assert_eq!(totals["after"]["cost_unknown"], 0, "{totals}");

    // An answer that is lost is a failure of the change.
    cluster.stand_ins.fault(model(json!({"status": 400}))).await;
    let (code, lines, err) = replay(&cluster, &["run", "fine"]).await;
    assert_eq!((code, &summary(&lines)["totals"]["newly_failed"]), (1, &json!(1)), "{err}");
    cluster.assert_workers_run();
}

#[tokio::test]
async fn a_failed_workflow_is_taken_up_where_it_failed() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new("[stages.generation]\nmax_attempts = 1")).await
    else {
        return;
    };
    let mut log = cluster.log().await;
    cluster.stand_ins.fault(model(json!({"status": 400}))).await;
    cluster.say("w", "demo", "s", "What is the status of my recent order?").await;
    log.until_ended(&["w"]).await;
    assert_eq!(log.failure("w")["code"], "model_rejected");
    let asked = cluster.stand_ins.count("customer_orders").await;
    let redo = async |arguments: &[&str]| {
        let (code, _, err) = replay(&cluster, &[&["redo"], arguments].concat()).await;
        (code, err)
    };
    // It fails again, and is taken up again.
    let (code, err) = redo(&["w", "--wait"]).await;
    assert_eq!(code, 1, "{err}");
    cluster.stand_ins.heal().await;
    let (code, err) = redo(&["w", "--wait"]).await;
    assert_eq!(code, 0, "{err}");
    log.until_ended(&["w-redo-1", "w-redo-2"]).await;
    assert!(log.answer("w-redo-2").contains("#W1"), "{}", log.answer("w-redo-2"));
    assert_eq!(cluster.stand_ins.count("customer_orders").await, asked, "no source is asked again");
    let input = log.event("w-redo-2", "user_input_received").unwrap();
    assert_eq!(input.data()["redo"], json!({"of": "w", "from": "generation"}));

    // The history has both, and says how they belong together.
    let timeline = async |workflow: &str| {
        let mut program = cluster.run("events", &["events", "--workflow", workflow]);
        assert!(program.ended(SOON).await.success(), "{}", program.stderr());
        program.stdout()
    };
    assert!(timeline("w").await.contains("taken up as w-redo-1\ntaken up as w-redo-2\n"));
    assert!(timeline("w-redo-2").await.contains("takes up w from generation"));

    for (arguments, code, said) in [
        (&["never"][..], 1, "no event of workflow never is stored"),
        (&["w-redo-2"][..], 1, "did not fail"),
        (&["w", "--from", "persistence"][..], 2, "it can be taken up from there or before"),
        (&["w", "--from", "nowhere"][..], 2, "the stages are"),
    ] {
        let (exit, err) = redo(arguments).await;
        assert_eq!(exit, code, "{arguments:?}: {err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
    let (code, lines, err) = replay(&cluster, &["verify"]).await;
    assert_eq!((code, &summary(&lines)["identical"]), (0, &json!(3)), "{err}");
    cluster.assert_workers_run();
}
