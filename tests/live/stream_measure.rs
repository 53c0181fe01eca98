//! What streaming costs: how long a token takes from the provider to a NATS subscriber, and what a thousand streams in
//! one worker process take. Not a test: it runs only when `THROUGHLINE_MEASURE=1`, and says something only in a release
//! build on a quiet machine:
//! `THROUGHLINE_MEASURE=1 cargo test --release --test live -- --nocapture --exact stream_measure::streams`.
//!
//! The provider and the subscriber are in this process, so that both read one clock: each token is the time at which
//! it is written, in microseconds. The worker, the data sources and the nats-server are processes of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use hdrhistogram::Histogram;
use throughline_schemas::{LiveFrame, LiveKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};

use crate::harness::{
    Cluster, Settings,
    cluster::said,
    left_out,
    usage::{cpu, memory_mib},
};

/// One figure.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Streams at the same time.
    streams: usize,
    /// How often, one after the other.
    rounds: usize,
    /// Tokens of one stream.
    tokens: u32,
    /// Between two tokens of one stream.
    every: Duration,
}

const LOADS: [Load; 3] = [
    Load { streams: 1, rounds: 300, tokens: 5, every: Duration::from_millis(5) },
    Load { streams: 100, rounds: 1, tokens: 600, every: Duration::from_millis(50) },
    Load { streams: 1000, rounds: 1, tokens: 600, every: Duration::from_millis(50) },
];
/// Longest that all streams of a round take.
const LIMIT: Duration = Duration::from_mins(5);
/// Between looks at the worker's memory.
const SAMPLE: Duration = Duration::from_millis(500);
/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams() {
    if std::env::var_os("THROUGHLINE_MEASURE").is_none() {
        left_out::say("measuring takes two minutes (set THROUGHLINE_MEASURE=1)");
        return;
    }
    for load in LOADS {
        run(load).await;
    }
}

async fn run(load: Load) {
    let provider = Provider::start(load).await;
    let settings = format!(
        "[[providers]]\nname = \"p\"\nkind = \"openai\"\nbase_url = \"{}\"\n\
         [[models]]\nname = \"m\"\nprovider = \"p\"\n\
         [worker]\nack_wait_ms = 30000\n[generation]\nmodel = \"m\"\ntotal_timeout_ms = 300000\n\
         [stages.generation]\nconcurrency = {}\n",
        provider.base, load.streams
    );
    let Some(cluster) = Cluster::start(1, &Settings::new(&settings)).await else { return };
    let worker = cluster.workers[0].pid();
    let nats = cluster.nats.pid().expect("it runs");
    let mut log = cluster.log().await;
    let heard = tokio::spawn(hear(&cluster.client, provider.epoch, load).await);

    let before = memory_mib(worker);
    let (cpu_worker, cpu_nats) = (cpu(worker), cpu(nats));
    let memory = tokio::spawn(sample(worker, provider.writing.subscribe()));
    let began = Instant::now();
    for round in 0..load.rounds {
        let names: Vec<_> = (0..load.streams).map(|stream| format!("{round}-{stream}")).collect();
        cluster.publish_all(names.iter().map(|name| said(name, "demo", name, "Hello.")).collect()).await;
        log.until_ended_within(LIMIT, &names).await;
        for name in &names {
            log.answer(name);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let used = (cpu(worker) - cpu_worker, cpu(nats) - cpu_nats);
    let after = memory_mib(worker);
    provider.writing.send_replace(Writing::Over);
    let (at, samples) = memory.await.expect("samples");
    let heard = heard.await.expect("figures");
    let tokens = u32::try_from(load.streams * load.rounds).expect("few") * load.tokens;
    eprintln!("{load:?}");
    eprintln!(
        "  {tokens} tokens in {seconds:.1} s ({:.0}/s); {} heard, {} missed",
        f64::from(tokens) / seconds,
        heard.all.len(),
        heard.missed
    );
    for (name, figures) in [("first token", &heard.first), ("every token", &heard.all)] {
        let at = |q: f64| Duration::from_micros(figures.value_at_quantile(q)).as_secs_f64() * 1000.0;
        eprintln!(
            "  {name}: p50 {:.3} ms, p95 {:.3}, p99 {:.3}, max {:.3}",
            at(0.5),
            at(0.95),
            at(0.99),
            at(1.0)
        );
    }
    eprintln!(
        "  worker RSS MiB: {before} before, {at} when all streams were open, {after} after; each 0.5 s of streaming: {samples:?}"
    );
    eprintln!("  CPU s: worker {:.2}, nats-server {:.2}", used.0, used.1);
}

/// What a subscriber measured, in microseconds.
struct Heard {
    first: Histogram<u64>,
    all: Histogram<u64>,
    missed: u64,
}

async fn hear(
    client: &async_nats::Client,
    epoch: Instant,
    load: Load,
) -> impl Future<Output = Heard> + use<> {
    let mut frames = client.subscribe("throughline.live.>").await.expect("a subscription");
    client.flush().await.expect("the server knows of it");
    async move {
        let new = || Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds");
        let mut heard = Heard { first: new(), all: new(), missed: 0 };
        let mut left = load.streams * load.rounds;
        while left > 0 {
            let message = frames.next().await.expect("a frame");
            let now = epoch.elapsed();
            let frame: LiveFrame = serde_json::from_slice(&message.payload).expect("a frame");
            if frame.kind == LiveKind::Completed {
                left -= 1;
                // Started, tokens, completed.
                heard.missed += u64::from(load.tokens) + 1 - frame.seq.min(u64::from(load.tokens) + 1);
            }
            for stamp in frame.text.iter().flat_map(|text| text.split_whitespace()) {
                let written = Duration::from_micros(stamp.parse().expect("a time"));
                let took = u64::try_from(now.saturating_sub(written).as_micros()).expect("short").max(1);
                heard.all.record(took).expect("in bounds");
                if frame.seq == 1 {
                    heard.first.record(took).expect("in bounds");
                }
            }
        }
        heard
    }
}

/// The worker's memory when every stream is open, and from then on.
async fn sample(worker: u32, mut writing: watch::Receiver<Writing>) -> (u64, Vec<u64>) {
    if writing.wait_for(|writing| *writing != Writing::NotYet).await.is_err() {
        return (0, Vec::new());
    }
    let at = memory_mib(worker);
    let mut samples = Vec::new();
    while *writing.borrow() != Writing::Over {
        tokio::time::sleep(SAMPLE).await;
        samples.push(memory_mib(worker));
    }
    (at, samples)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// Some streams of the first round are not open.
    NotYet,
    Now,
    Over,
}

/// A provider of the `OpenAI` dialect whose tokens are the times at which they are written.
struct Provider {
    base: String,
    epoch: Instant,
    writing: watch::Sender<Writing>,
}

impl Provider {
    async fn start(load: Load) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let (writing, _) = watch::channel(Writing::NotYet);
        let (epoch, open) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let sender = writing.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, load, epoch, sender.clone(), Arc::clone(&open)));
            }
        });
        Self { base, epoch, writing }
    }
}

/// Answers the requests of one connection.
async fn serve(
    mut socket: TcpStream,
    load: Load,
    epoch: Instant,
    writing: watch::Sender<Writing>,
    open: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut received = Vec::new();
    while read_request(&mut socket, &mut received).await? {
        let stream = open.fetch_add(1, Ordering::Relaxed);
        socket
            .write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            .await?;
        if stream + 1 == load.streams {
            writing.send_replace(Writing::Now);
        }
        let mut begun = writing.subscribe();
        if begun.wait_for(|writing| *writing != Writing::NotYet).await.is_err() {
            return Ok(());
        }
        // Not all at the same moment.
        let share = u32::try_from(stream % load.streams).expect("small");
        tokio::time::sleep(load.every * share / u32::try_from(load.streams).expect("small")).await;
        let mut ticks = tokio::time::interval(load.every);
        for _ in 0..load.tokens {
            ticks.tick().await;
            let token = epoch.elapsed().as_micros();
            event(&mut socket, &format!(r#"{{"id":"c","object":"chat.completion.chunk","model":"m","choices":[{{"index":0,"delta":{{"content":"{token} "}},"finish_reason":null}}]}}"#)).await?;
        }
        event(&mut socket, r#"{"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#).await?;
        event(&mut socket, r#"{"id":"c","object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":10,"total_tokens":20}}"#).await?;
        event(&mut socket, "[DONE]").await?;
        socket.write_all(b"0\r\n\r\n").await?;
    }
    Ok(())
}

/// One server-sent event, as a chunk of its own.
async fn event(socket: &mut TcpStream, data: &str) -> std::io::Result<()> {
    // "data: " and two line ends.
    let chunk = format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8);
    socket.write_all(chunk.as_bytes()).await
}

/// Reads one request with a known length; false at the end of the connection.
async fn read_request(socket: &mut TcpStream, received: &mut Vec<u8>) -> std::io::Result<bool> {
    loop {
        let text = String::from_utf8_lossy(received);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            let whole = head.len() + 4 + length.expect("a length");
            if received.len() >= whole {
                received.drain(..whole);
                return Ok(true);
            }
        }
        if socket.read_buf(received).await? == 0 {
            return Ok(false);
        }
    }
}
