//! How long it takes to find one workflow in a log of a million events. Not a test: it runs only when
//! `THROUGHLINE_MEASURE=1`, takes two minutes and 2 GiB of disk, and says something only in a release build on a quiet
//! machine: `THROUGHLINE_MEASURE=1 cargo test --release --test live -- --nocapture --exact explain_measure::million`.

use std::time::Duration;

use async_nats::jetstream;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    harness::{LOOK_AGAIN, Program, SOON, left_out, process::throughline},
    nats_server::NatsServer,
};

const EVENTS: u64 = 1_000_000;
/// Workflows of one session.
const TURNS: u64 = 4;
/// Messages after which the publisher waits until the server has taken them.
const WINDOW: u64 = 5_000;
/// How often each command is run.
const ROUNDS: usize = 5;
/// Longest that all of them take to be stored.
const LIMIT: Duration = Duration::from_mins(3);
const TYPES: [&str; 5] = [
    "input_validated",
    "context_retrieved",
    "external_data_fetched",
    "response_generated",
    "interaction_saved",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn million() {
    if std::env::var_os("THROUGHLINE_MEASURE").is_none() {
        left_out::say("measuring takes two minutes (set THROUGHLINE_MEASURE=1)");
        return;
    }
    let Some(nats) = NatsServer::start_local() else { return };
    let url = nats.url();
    let dir = tempfile::tempdir().expect("a directory");
    let run = |arguments: &[&str]| {
        let mut command = throughline();
        command.args(["--nats-url", &url]).args(arguments);
        Program::start("measured", dir.path(), &mut command)
    };
    assert!(run(&["setup"]).ended(SOON).await.success());
    fill(&url).await;
    let last = EVENTS / 5 - 1;
    for workflow in [3, last / 2, last].map(|n| format!("wf-{n:07}")).into_iter().chain(["nobody".to_owned()])
    {
        for arguments in [["events", "--workflow", &workflow], ["explain", "--json", &workflow]] {
            let mut took = Vec::new();
            for _ in 0..ROUNDS {
                let began = Instant::now();
                let mut program = run(&arguments);
                let code = program.ended(SOON).await.code();
                took.push(began.elapsed().as_millis());
                assert_eq!(code, Some(i32::from(workflow == "nobody")), "{}", program.stderr());
                assert!(program.stdout().contains(&workflow) || workflow == "nobody");
            }
            eprintln!("{arguments:?}: {took:?} ms");
        }
    }
    for arguments in [["events", "--session", "s-025000"], ["explain", "--template", "abcdef01"]] {
        let began = Instant::now();
        let mut program = run(&arguments);
        program.ended(LIMIT).await;
        eprintln!(
            "{arguments:?}: {} ms, {} lines",
            began.elapsed().as_millis(),
            program.stdout().lines().count()
        );
    }
}

/// Publishes what five stages would have, without waiting for each.
async fn fill(url: &str) {
    let client = async_nats::connect(url).await.expect("a client");
    let began = Instant::now();
    let bodies = TYPES.map(body);
    let mut sent = 0;
    for workflow in 0..EVENTS / 5 {
        let (id, session) = (format!("wf-{workflow:07}"), format!("s-{:06}", workflow / TURNS));
        for (kind, body) in TYPES.iter().zip(&bodies) {
            let body = body.replace("WORKFLOW", &id).replace("SESSION", &session);
            let subject = format!("throughline.v1.{kind}.{session}.{id}");
            client.publish(subject, body.into()).await.expect("sent");
            sent += 1;
        }
        if sent % WINDOW == 0 {
            stored(&client, sent).await;
        }
    }
    stored(&client, EVENTS).await;
    eprintln!("{EVENTS} events stored in {:.0} s", began.elapsed().as_secs_f64());
}

async fn stored(client: &async_nats::Client, count: u64) {
    client.flush().await.expect("flushed");
    let jetstream = jetstream::new(client.clone());
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut stream = jetstream.get_stream("throughline_EVENTS").await.expect("the stream");
        let state = &stream.info().await.expect("its state").state;
        if state.messages >= count {
            return;
        }
        assert!(Instant::now() < deadline, "{} of {count} are stored", state.messages);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// An event of a type, of about the size of real ones.
fn body(kind: &str) -> String {
    let request = json!({"user_input": "Where is my order?", "input_sequence": 1, "received_at": "2026-01-01T00:00:00Z"});
    let context = json!({"preferences": {"tone": "friendly"}, "recent_turns": []});
    let response = json!({"text": "It is on its way. ".repeat(10), "model": "m", "provider": "p", "finish_reason": "stop"});
    let usage = json!({"input_tokens": 700, "output_tokens": 50});
    let data = match kind {
        "input_validated" => json!({"request": request}),
        "context_retrieved" => json!({"request": request, "context": context}),
        "external_data_fetched" => json!({"request": request, "context": context, "external": {
            "order_history": {"status": "ok", "data": {"orders": "x".repeat(300)}, "calls": 1, "duration_ms": 2.5}}}),
        "response_generated" => {
            json!({"request": request, "response": response, "usage": usage, "cost_usd": "0.0001",
            "attempts": [{"provider": "p", "model": "m", "started_at": "2026-01-01T00:00:00Z", "duration_ms": 5,
                "sent": true}],
            "prompt": {"id": "assistant", "hash": "abcdef0123456789", "config": "c", "max_tokens": 800,
                "messages": [{"role": "system", "content": "y".repeat(1200)}, {"role": "user", "content": "hello"}]},
            "raw_response": null})
        }
        _ => json!({"interaction_id": "i", "response": response, "usage": usage,
            "received_at": "2026-01-01T00:00:00Z", "saved_at": "2026-01-01T00:00:00Z"}),
    };
    json!({
        "specversion": "1.0", "id": format!("WORKFLOW.{kind}"), "source": "throughline/x", "type": kind,
        "time": "2026-01-01T00:00:00Z", "workflowid": "WORKFLOW", "sessionid": "SESSION", "userid": "u",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "data": data,
    })
    .to_string()
}
