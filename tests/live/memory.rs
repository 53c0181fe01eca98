//! A worker's memory is bounded, whatever is in hand.
//!
//! The test has 16 workflows of 1.5 MB. `THROUGHLINE_MEASURE=1 cargo test --release --test live -- --nocapture memory` has 64 of
//! 15 MB in what a container of 512 MiB leaves to messages, and prints what the worker took.

use std::time::Duration;

use axum::{Router, body::Bytes, extract::DefaultBodyLimit, routing::any};
use serde_json::json;
use tokio::time::Instant;

use crate::harness::{Cluster, SOON, Settings, cluster::said, left_out, usage::peak_mib};

const MIB: usize = 1024 * 1024;

/// One size of the test.
struct Size {
    workflows: usize,
    /// Bytes of each source's answer, of which there are three.
    answer: usize,
    budget_mib: usize,
    /// What the process may take at most.
    limit_mib: u64,
    patience: Duration,
}

fn size() -> Size {
    let budget = |default| {
        std::env::var("THROUGHLINE_MEASURE_BUDGET_MIB").map_or(default, |mib| mib.parse().expect("a number"))
    };
    if std::env::var_os("THROUGHLINE_MEASURE").is_some() {
        let answer = 5_000_000;
        Size { workflows: 64, answer, budget_mib: budget(0), limit_mib: 512, patience: 10 * SOON }
    } else {
        let budget_mib = budget(12);
        Size { workflows: 16, answer: MIB / 2, budget_mib, limit_mib: 110, patience: 6 * SOON }
    }
}

/// Answers as a source with so many bytes of JSON, and as a model with one word. What it was asked is thrown away.
async fn upstreams(answer: usize) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    // Few quotes: in the prompt on record each is escaped, and the event must stay below 16 MiB.
    let row = format!(r#"{{"id":12345,"text":"{}"}}"#, "Aurora Wireless Headphones, in stock. ".repeat(50));
    let rows = answer / (row.len() + 1);
    let document = Bytes::from(format!("[{}]", vec![row; rows].join(",")));
    let completion = json!({
        "id": "1", "object": "chat.completion", "model": "sink",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Done."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })
    .to_string();
    let json = [("content-type", "application/json")];
    let router = Router::new()
        .route("/big/{*rest}", any(move || async move { (json, document.clone()) }))
        .route("/v1/chat/completions", any(move |_: Bytes| async move { (json, completion.clone()) }))
        .layer(DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

fn settings(base: &str, size: &Size) -> Settings {
    let max_bytes = size.answer + MIB / 8;
    let source = |n: usize| {
        format!(
            "[[sources]]\nname = \"big{n}\"\nurl = \"{base}/big/{n}/{{user_id}}\"\nmax_bytes = {max_bytes}\n\
             timeout_ms = 60000\n"
        )
    };
    let budget = match size.budget_mib {
        0 => String::new(),
        mib => format!("message_memory_mib = {mib}\n"),
    };
    Settings::new(&format!(
        "[nats]\nmax_bytes_mib = 8192\n[worker]\nack_wait_ms = 30000\n{budget}\
         {}{}{}\
         [[providers]]\nname = \"sink\"\nkind = \"openai\"\nbase_url = \"{base}/v1\"\n\
         [[models]]\nname = \"sink\"\nprovider = \"sink\"\n\
         [generation]\nmodel = \"sink\"\nstream = false\n",
        source(1),
        source(2),
        source(3),
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_are_worked_on_a_few_at_a_time_and_all_end() {
    if !cfg!(target_os = "linux") {
        left_out::say("what a process uses is read from /proc");
        return;
    }
    let size = size();
    let base = upstreams(size.answer).await;
    let Some(mut cluster) = Cluster::start(0, &settings(&base, &size)).await else { return };
    let mut environment = Vec::new();
    let override_budget = std::env::var("THROUGHLINE_MEASURE_BUDGET_MIB").ok();
    if size.budget_mib == 0 && override_budget.is_none() {
        // As a worker chooses by itself in a container of 512 MiB.
        environment.push(("THROUGHLINE_WORKER__MESSAGE_MEMORY_MIB", "256"));
    }
    cluster.add_worker_with(&environment);
    cluster.workers[0].until_ready().await;
    let before = peak_mib(cluster.workers[0].pid());
    let workflows: Vec<_> = (0..size.workflows).map(|n| format!("large-{n}")).collect();
    let messages = workflows.iter().map(|id| said(id, id, id, "Hello"));
    let began = Instant::now();
    cluster.publish_all(messages.collect()).await;
    let mut log = cluster.log().await;
    log.until_ended_within(size.patience, &workflows).await;
    let took = began.elapsed();
    let peak = peak_mib(cluster.workers[0].pid());
    eprintln!(
        "memory: {} workflows of 3 x {} bytes: {took:?}, peak {peak} MiB (before the first {before})",
        size.workflows, size.answer
    );
    for id in &workflows {
        assert_eq!(log.answer(id), "Done.", "{id}");
    }
    assert_eq!(log.dead().count(), 0);
    assert!(peak < size.limit_mib, "{peak} MiB of {} MiB", size.limit_mib);
    cluster.assert_workers_run();
}
