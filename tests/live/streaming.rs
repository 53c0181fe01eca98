//! `publish --stream`: what a person sees and a script reads while an answer comes, and when it does not come smoothly.
//! The frames and the ends are published here, so that every order of things can be had.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Cluster, Log, Program, SOON, Settings, cluster::NAMESPACE, eventually, process};

/// A frame of this delivery, attempt and sequence.
fn frame((delivery, attempt, seq): (u32, u32, u64), kind: &str, rest: &[(&str, &str)]) -> Value {
    let mut frame = json!({"delivery": delivery, "attempt": attempt, "seq": seq, "kind": kind});
    for (key, value) in rest {
        frame[*key] = json!(value);
    }
    frame
}

fn text(at: (u32, u32, u64), text: &str) -> Value {
    frame(at, "text", &[("text", text)])
}

/// A `publish --stream` that has published `workflow` and waits for what is said next.
async fn asking(cluster: &Cluster, log: &mut Log, workflow: &str, more: &[&str]) -> Program {
    let mut arguments = vec!["publish", "--user", "u", "--session", "s", "--workflow-id", workflow, "Hello"];
    arguments.extend(more);
    let program = cluster.run(workflow, &arguments);
    log.until("the input is published", |log| log.event(workflow, "user_input_received").is_some()).await;
    program
}

async fn say(cluster: &Cluster, workflow: &str, frames: &[Value]) {
    for frame in frames {
        let mut frame = frame.clone();
        frame["workflow_id"] = json!(workflow);
        let subject = format!("{NAMESPACE}.live.{workflow}");
        cluster.client.publish(subject, frame.to_string().into()).await.unwrap();
    }
    cluster.client.flush().await.unwrap();
}

async fn end(cluster: &Cluster, workflow: &str, kind: &str, data: Value) {
    let event = json!({"specversion": "1.0", "type": kind, "workflowid": workflow, "data": data});
    cluster.publish(&format!("{NAMESPACE}.v1.{kind}.s.{workflow}"), &[], event.to_string()).await;
}

async fn saved(cluster: &Cluster, workflow: &str, answer: &str) {
    let data = json!({"response": {"text": answer, "model": "m"}, "usage": {}, "cost_usd": "0.1"});
    end(cluster, workflow, "interaction_saved", data).await;
}

async fn cluster() -> Option<(Cluster, Log)> {
    let cluster = Cluster::start(0, &Settings::new("")).await?;
    let log = cluster.log().await;
    Some((cluster, log))
}

async fn ended(program: &mut Program, code: i32) -> (String, String) {
    assert_eq!(program.ended(SOON).await.code(), Some(code), "{}", program.stderr());
    (program.stdout(), program.stderr())
}

#[tokio::test]
async fn pieces_are_printed_as_they_come_and_the_stored_answer_has_the_last_word() {
    let Some((cluster, mut log)) = cluster().await else { return };

    let mut calm = asking(&cluster, &mut log, "calm", &["--stream"]).await;
    say(&cluster, "calm", &[frame((1, 1, 0), "started", &[("model", "m")]), text((1, 1, 1), "Hel")]).await;
    eventually("the first piece is printed before there is more", async || {
        (calm.stdout() == "Hel").then_some(())
    })
    .await;
    let rest = [text((1, 1, 2), "lo"), frame((1, 1, 3), "completed", &[("finish_reason", "stop")])];
    say(&cluster, "calm", &rest).await;
    saved(&cluster, "calm", "Hello").await;
    assert_eq!(ended(&mut calm, 0).await, ("Hello\n".to_owned(), String::new()));

    // A worker of a version that says nothing live.
    let mut silent = asking(&cluster, &mut log, "silent", &["--stream"]).await;
    saved(&cluster, "silent", "Hello").await;
    assert_eq!(ended(&mut silent, 0).await, ("Hello\n".to_owned(), String::new()));

    // Published again after its end: the stored answer.
    let mut again = cluster.run(
        "again",
        &["publish", "--user", "u", "--session", "s", "--workflow-id", "calm", "--stream", "Hello"],
    );
    assert_eq!(ended(&mut again, 0).await.0, "Hello\n");

    // The last frames are lost.
    let mut short = asking(&cluster, &mut log, "short", &["--stream"]).await;
    say(&cluster, "short", &[text((1, 1, 0), "Hel")]).await;
    saved(&cluster, "short", "Hello").await;
    assert_eq!(ended(&mut short, 0).await.0, "Hello\n");
}

#[tokio::test]
async fn nobody_reads_two_attempts_or_half_an_answer_as_one() {
    let Some((cluster, mut log)) = cluster().await else { return };

    let mut asked = asking(&cluster, &mut log, "restarted", &["--stream"]).await;
    let mut restarted = frame(
        (1, 1, 2),
        "restarted",
        &[("reason", "the connection broke"), ("model", "second"), ("provider", "anthropic")],
    );
    restarted["again_in_ms"] = json!(340);
    let frames = [
        frame((1, 1, 0), "started", &[("model", "first"), ("provider", "openai")]),
        text((1, 1, 1), "Hel"),
        restarted,
        frame((1, 2, 3), "started", &[("model", "second")]),
        text((1, 2, 4), "Hello"),
    ];
    say(&cluster, "restarted", &frames).await;
    saved(&cluster, "restarted", "Hello").await;
    let (out, err) = ended(&mut asked, 0).await;
    assert_eq!(out, "Hel\n----- the answer begins again -----\nHello\n");
    assert_eq!(
        err,
        "[openai (first) broke off after 1 word: the connection broke; asking anthropic (second) \
         instead, in 0.3 s]\n[the answer of second from the beginning; what came before does not count]\n"
    );

    // The worker dies, and another one takes over; a frame of the dead one is late.
    let mut died = asking(&cluster, &mut log, "died", &["--stream"]).await;
    say(&cluster, "died", &[text((1, 1, 0), "Hel"), text((2, 1, 0), "Hello"), text((1, 1, 1), "lo")]).await;
    saved(&cluster, "died", "Hello").await;
    let (out, err) = ended(&mut died, 0).await;
    assert_eq!(out, "Hel\n----- the answer begins again -----\nHello\n");
    assert!(err.contains("its worker went away"), "{err}");

    let mut gap = asking(&cluster, &mut log, "gap", &["--stream"]).await;
    say(&cluster, "gap", &[text((1, 1, 0), "Hel"), text((1, 1, 2), " you")]).await;
    saved(&cluster, "gap", "Hello you").await;
    let (out, err) = ended(&mut gap, 0).await;
    assert_eq!(out, "Hel you\n----- the whole answer -----\nHello you\n");
    assert_eq!(err, "[a piece of the answer got lost on the way]\n");
}

#[tokio::test]
async fn a_failure_exits_with_one_and_a_signal_leaves_the_workflow_running() {
    let Some((cluster, mut log)) = cluster().await else { return };

    let mut failed = asking(&cluster, &mut log, "failed", &["--stream"]).await;
    say(&cluster, "failed", &[text((1, 1, 0), "Hel"), frame((1, 1, 1), "failed", &[("reason", "too busy")])])
        .await;
    let data = json!({"code": "model_unavailable", "stage": "generation", "message": "nobody answers",
        "attempts": 2, "retryable": true, "may_have_happened": false});
    end(&cluster, "failed", "workflow_failed", data).await;
    let (out, err) = ended(&mut failed, 1).await;
    assert_eq!(out, "Hel\n");
    assert!(err.starts_with("[there is no answer for now: too busy]\n"), "{err}");
    assert!(err.contains("nobody answers") && err.contains("events --workflow failed"), "{err}");

    let mut stopped = asking(&cluster, &mut log, "stopped", &["--stream"]).await;
    say(&cluster, "stopped", &[text((1, 1, 0), "Hel")]).await;
    eventually("it has begun", async || (stopped.stdout() == "Hel").then_some(())).await;
    stopped.signal("INT");
    let (out, err) = ended(&mut stopped, 1).await;
    assert_eq!(out, "Hel\n");
    assert!(err.contains("goes on") && err.contains("throughline events --workflow stopped"), "{err}");
}

#[tokio::test]
async fn a_script_reads_every_frame_and_the_end_as_json_lines() {
    let Some((cluster, mut log)) = cluster().await else { return };
    let mut program = asking(&cluster, &mut log, "json", &["--stream", "--json"]).await;
    let mut later = text((1, 1, 1), "lo");
    later["of_a_later_version"] = json!(true);
    // What is not a frame of this workflow is nobody's business.
    cluster.client.publish(format!("{NAMESPACE}.live.json"), "nonsense".into()).await.unwrap();
    say(&cluster, "json", &[text((1, 1, 0), "Hel\n"), later]).await;
    saved(&cluster, "json", "Hel\nlo").await;
    let (out, _) = ended(&mut program, 0).await;
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert_eq!(lines[0]["text"], "Hel\n");
    assert_eq!(lines[1]["of_a_later_version"], true);
    assert_eq!((&lines[2]["status"], &lines[2]["response"]["text"]), (&json!("saved"), &json!("Hel\nlo")));
}

#[tokio::test]
async fn a_terminal_gets_dim_notices_and_no_control_characters_of_the_model() {
    let Some((cluster, mut log)) = cluster().await else { return };
    let config = cluster.config();
    let dir = config.parent().unwrap();
    let mut command = std::process::Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/client/terminal.py"));
    let plain = process::throughline();
    // What the machine's environment would tell it is kept from it here, too.
    for (name, _) in plain.get_envs() {
        command.env_remove(name);
    }
    command.arg(plain.get_program()).arg("--config").arg(&config);
    command.args(["publish", "--user", "u", "--session", "s", "--workflow-id", "tty", "--stream", "Hello"]);
    let mut program = Program::start("terminal", dir, &mut command);
    log.until("the input is published", |log| log.event("tty", "user_input_received").is_some()).await;
    let frames = [
        text((1, 1, 0), "a\u{1b}"),
        text((1, 1, 1), "[2Jb"),
        frame((1, 1, 2), "restarted", &[("reason", "\u{1b}[31mred")]),
        frame((1, 2, 3), "started", &[("model", "m")]),
        text((1, 2, 4), "good"),
    ];
    say(&cluster, "tty", &frames).await;
    saved(&cluster, "tty", "good").await;
    let (seen, _) = ended(&mut program, 0).await;
    let seen = seen.replace("\r\n", "\n");
    let (told, signed) = seen.split_once("good\n").expect(&seen);
    assert_eq!(
        told,
        "a\\u{1b}[2Jb\n\u{1b}[2m[the model broke off after 1 word: \\u{1b}[31mred]\u{1b}[0m\n\
         \u{1b}[2m[the answer of m from the beginning; what came before does not count]\u{1b}[0m\n"
    );
    // What broke off may have cost something, too.
    let begins = "\u{1b}[2m[answered by unknown (m): tokens unknown, at least $0.1, ";
    assert!(signed.starts_with(begins) && signed.ends_with(" s]\u{1b}[0m\n"), "{signed:?}");
}

/// Nothing is pretended here: a worker, a provider that streams, and one that drops the connection in the middle.
#[tokio::test]
async fn tokens_travel_from_the_provider_to_the_reader_and_a_broken_stream_begins_again() {
    let Some(cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    let mut calm = cluster.run(
        "whole",
        &[
            "publish",
            "--user",
            "u",
            "--session",
            "s",
            "--workflow-id",
            "whole",
            "--stream",
            "--json",
            "Hello",
        ],
    );
    let (out, _) = ended(&mut calm, 0).await;
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert_eq!(
        kinds[..4],
        ["stage", "stage", "stage", "started"],
        "what it does before the first text: {out}"
    );
    assert_eq!(kinds.last(), Some(&"completed"), "{out}");
    let pieces: Vec<_> = lines.iter().filter(|line| line["kind"] == "text").collect();
    assert!(pieces.len() > 2, "it was streamed: {out}");
    let told: String = pieces.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(lines.last().unwrap()["response"]["text"], told);

    cluster.stand_ins.fault(json!({"target": "model", "cut": true, "remaining": 1})).await;
    let mut broken = cluster.run(
        "broken",
        &["publish", "--user", "u", "--session", "s", "--workflow-id", "broken", "--stream", "Hello"],
    );
    let (out, err) = ended(&mut broken, 0).await;
    log.until_ended(&["broken"]).await;
    let (void, answer) = out.split_once("\n----- the answer begins again -----\n").expect(&out);
    assert_eq!(answer.trim_end(), log.answer("broken"));
    assert!(!void.is_empty() && answer.starts_with(void), "{out}");
    assert!(
        err.contains(" (sandbox-small) broke off after ")
            && err.contains("; asking again in ")
            && err.contains(" (sandbox-small) from the beginning; what came before does not count]"),
        "{err}"
    );
}
