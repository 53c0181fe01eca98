//! `throughline explain` and `throughline events`, as somebody uses them who wants to know what happened.

use serde_json::{Value, json};

use crate::harness::{Cluster, Program, SOON, Settings, process::throughline};

const QUESTION: &str = "Where is my order #W10007?\u{1b}[2J";

/// Runs a command; its exit code, stdout and stderr.
async fn run(cluster: &Cluster, arguments: &[&str]) -> (i32, String, String) {
    ended(cluster.run("read", arguments)).await
}

async fn ended(mut program: Program) -> (i32, String, String) {
    let status = program.ended(SOON).await;
    (status.code().expect("an exit code"), program.stdout(), program.stderr())
}

async fn good(cluster: &Cluster, arguments: &[&str]) -> String {
    let (code, out, err) = run(cluster, arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {err}");
    assert!(out.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()), "no terminal is harmed: {out:?}");
    out
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// A workflow whose source fails and whose model is asked twice, one that goes well, and one that is refused.
async fn three_workflows() -> Option<Cluster> {
    let cluster = Cluster::start(1, &Settings::new("")).await?;
    let mut log = cluster.log().await;
    cluster.stand_ins.fault(json!({"target": "orders", "status": 500})).await;
    cluster.stand_ins.fault(json!({"target": "model", "status": 503, "remaining": 1})).await;
    cluster.say("w1", "demo", "s", QUESTION).await;
    log.until_ended(&["w1"]).await;
    log.answer("w1");
    assert_eq!(log.end("w1").unwrap().data()["degraded"], json!(["order_details", "order_history"]));
    cluster.stand_ins.heal().await;
    cluster.say("w2", "demo", "s", "Thank you!").await;
    cluster.say("w3", "demo", "other", " ").await;
    log.until_ended(&["w2", "w3"]).await;
    log.answer("w2");
    assert_eq!(log.failure("w3")["code"], "invalid_input");
    Some(cluster)
}

#[tokio::test]
async fn an_answer_is_explained_and_found_by_what_it_came_from() {
    let Some(cluster) = three_workflows().await else { return };
    let out = good(&cluster, &["explain", "w1", "--json"]).await;
    let told = &lines(&out)[0];
    assert_eq!((&told["workflow"], &told["state"]), (&json!("w1"), &json!("complete")));
    assert_eq!(told["input"]["text"], QUESTION);
    let failed = &told["sources"]["order_details"];
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(
        failed["failed_calls"].as_array().unwrap().iter().all(|call| call["error"]["http_status"] == 500)
    );
    let profile = &told["sources"]["user_profile"];
    assert!(profile["status"] == "ok" && profile["data"].is_object(), "{profile}");
    assert_eq!(told["prompt"]["proof"], json!({"verdict": "proved"}));
    let messages = told["prompt"]["messages"].as_array().unwrap();
    assert_eq!(
        (&messages[0]["role"], &messages.last().unwrap()["content"]),
        (&json!("system"), &json!(QUESTION))
    );
    let attempts = told["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(
        (&attempts[0]["http_status"], &attempts[0]["error_class"]),
        (&json!(503), &json!("transient"))
    );
    assert_eq!(told["answer"]["response"]["finish_reason"], "stop");
    assert!(told["answer"]["cost_usd"].is_string() && told["failure"].is_null());
    let hash = told["prompt"]["record"]["hash"].as_str().unwrap();
    let model = told["answer"]["response"]["model"].as_str().unwrap();

    let text = good(&cluster, &["explain", "w1"]).await;
    for part in [
        r"Where is my order #W10007?\u{1b}[2J",
        "order_details failed (status)",
        "call failed: status 500",
        "user_profile ok",
        "proved: rendered again",
        hash,
        "--- system",
        "503",
        "transient",
        "finish reason stop",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    eprintln!("{text}");
    let text = good(&cluster, &["explain", "w2"]).await;
    assert!(text.contains("1 earlier turn: 1 in the prompt") && text.contains("workflow w1"), "{text}");
    let text = good(&cluster, &["explain", "w3"]).await;
    assert!(text.contains("invalid_input in input") && text.contains("no model was asked"), "{text}");

    let by_hash = ["explain", "--template", &hash[..8], "--json"];
    let by_version = format!("assistant@{}", &hash[..12]);
    let found = |out: &str| -> Vec<String> {
        lines(out).iter().map(|line| line["workflow"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(found(&good(&cluster, &["explain", "--model", model, "--json"]).await), ["w1", "w2"]);
    assert_eq!(found(&good(&cluster, &by_hash).await), ["w1", "w2"]);
    assert_eq!(found(&good(&cluster, &["explain", "--template", &by_version, "--json"]).await), ["w1", "w2"]);
    assert_eq!(
        found(&good(&cluster, &["explain", "--model", model, "--limit", "1", "--json"]).await),
        ["w1"]
    );
    assert_eq!(
        found(&good(&cluster, &["explain", "--source", "user_profile", "--json"]).await),
        ["w1", "w2"]
    );
    let table = good(&cluster, &["explain", "--source", "user_profile", "--since", "1h"]).await;
    assert!(table.contains("stored") && table.contains("w1") && table.contains(&by_version), "{table}");
    let (code, _, err) = run(&cluster, &["explain", "--source", "order_details"]).await;
    assert_eq!(code, 1, "it gave nothing");
    assert!(err.contains("user_profile") && err.contains("of 2 that are stored"), "{err}");
    let (code, _, err) = run(&cluster, &["explain", "--model", "gpt-9"]).await;
    assert!(code == 1 && err.contains("gpt-9") && err.contains(model), "{err}");
    let (code, _, err) = run(&cluster, &["explain", "--model", model, "--until", "1d"]).await;
    assert!(code == 1 && err.contains("none is stored in that time"), "{err}");

    let (code, out, err) = run(&cluster, &["explain", "nobody"]).await;
    assert!(code == 1 && out.is_empty() && err.contains("no event of workflow nobody"), "{err}");
    for wrong in [&["explain"][..], &["explain", "w1", "--model", "m"], &["explain", "w1", "--limit", "2"]] {
        assert_eq!(run(&cluster, wrong).await.0, 2, "{wrong:?}");
    }
    let (code, _, err) = run(&cluster, &["explain", "--template", "a@b"]).await;
    assert!(code == 2 && err.contains("ID@VERSION"), "{err}");
}

#[tokio::test]
async fn a_prompt_of_another_template_is_said_to_be_one() {
    let Some(cluster) = three_workflows().await else { return };
    let folder = cluster.dir().join("prompts/assistant");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("system.j2"), "Be brief.").unwrap();
    std::fs::write(folder.join("data.j2"), "{{ preferences }}").unwrap();
    let mut config: toml::Table = std::fs::read_to_string(cluster.config()).unwrap().parse().unwrap();
    let prompt = config.entry("prompt").or_insert_with(|| toml::Table::new().into());
    let dir = folder.parent().unwrap().display().to_string();
    prompt.as_table_mut().unwrap().insert("dir".to_owned(), dir.into());
    let other = cluster.dir().join("other.toml");
    std::fs::write(&other, config.to_string()).unwrap();
    let mut command = throughline();
    command.arg("--config").arg(&other).args(["explain", "w2"]);
    let (code, out, err) = ended(Program::start("other", cluster.dir(), &mut command)).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("the template of today is another one") && !out.contains("Be brief."), "{out}");
}

#[tokio::test]
async fn a_timeline_tells_what_was_slow_what_waited_and_what_failed() {
    let Some(cluster) = three_workflows().await else { return };
    let text = good(&cluster, &["events", "--workflow", "w1"]).await;
    eprintln!("{text}");
    for part in
        ["waited", "took", "generation", "order_details failed", "order_details failed: status 500", "503"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.contains("2 attempts") && text.contains("transient server"), "{text}");
    let seven = lines(&good(&cluster, &["events", "--workflow", "w1", "--json"]).await);
    assert_eq!(seven.len(), 6, "every event once: {seven:?}");
    assert_eq!(seven[0]["data"]["user_input"], QUESTION);

    let failed = good(&cluster, &["events", "--failed"]).await;
    assert!(failed.contains("workflow w3") && failed.contains("user_input is empty"), "{failed}");
    assert!(!failed.contains("w1") && !failed.contains("w2"), "{failed}");
    let failed = lines(&good(&cluster, &["events", "--failed", "--json", "--since", "1h"]).await);
    assert!(failed.iter().all(|event| event["workflowid"] == "w3") && failed.len() == 1, "{failed:?}");
    assert!(good(&cluster, &["events", "--failed", "--workflow", "w3"]).await.contains("invalid_input"));
    let (code, _, err) = run(&cluster, &["events", "--failed", "--workflow", "w1"]).await;
    assert!(code == 1 && err.contains("it has not failed"), "{err}");
    assert!(good(&cluster, &["events", "--until", "1d"]).await.is_empty());
    let before = good(&cluster, &["events", "--since", "1d", "--json"]).await;
    assert_eq!(lines(&before).len(), 6 + 6 + 2);
    let (code, _, err) = run(&cluster, &["events", "--workflow", "w1", "--until", "1d"]).await;
    assert!(code == 1 && err.contains("in that time"), "{err}");
    let (code, _, err) = run(&cluster, &["events", "--since", "1m", "--until", "1h"]).await;
    assert!(code == 2 && err.contains("--until is not after --since"), "{err}");
    let (code, _, err) = run(&cluster, &["events", "--until", "soon"]).await;
    assert!(code == 2 && err.contains("neither a span"), "{err}");
    // Until its end, which is there already.
    let followed = good(&cluster, &["events", "--workflow", "w1", "--follow"]).await;
    assert!(followed.contains("interaction_saved") && followed.contains("user_input_received"), "{followed}");
}
