//! What the bus itself costs: a relay of five hops without any work in it. Not a test: it runs only when
//! `THROUGHLINE_MEASURE=1`, and says something only in a release build on a quiet machine:
//! `THROUGHLINE_MEASURE=1 cargo test --release --test live -- --nocapture --exact bus::measure::relay`.

use std::{collections::HashMap, sync::Arc};

use async_nats::{
    HeaderMap,
    jetstream::{self, consumer::pull},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use throughline_actors::ports::{bus::Published, contract::bus::sample_event};
use throughline_schemas::{Event, EventData, EventType, SessionId, UserId, WorkflowId, encode};
use tokio::{sync::mpsc, time::Instant};

use super::*;
use crate::harness::usage::cpu;

/// What each stage may have in hand.
const WINDOW: usize = 256;
/// How long one figure takes.
const RUN: Duration = Duration::from_secs(5);
/// Text in each event, so that a message is about a kibibyte.
const TEXT_BYTES: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// This adapter.
    Ours,
    /// async-nats' own consumer, publish and ack, with the same messages.
    Client,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay() {
    if std::env::var_os("THROUGHLINE_MEASURE").is_none() {
        left_out::say("measuring takes a minute (set THROUGHLINE_MEASURE=1)");
        return;
    }
    println!("variant in_flight workflows/s p50_ms p99_ms client_us/wf server_us/wf");
    for round in 0..2 {
        for in_flight in [1, 64, 256] {
            for variant in [Variant::Ours, Variant::Client] {
                let Some(server) = NatsServer::start_local() else { return };
                let line = run(&server, variant, in_flight).await;
                println!("{variant:?} {in_flight} {line} (round {round})");
            }
        }
    }
}

async fn run(server: &NatsServer, variant: Variant, in_flight: usize) -> String {
    let mut settings = settings(server);
    settings.ack_wait = Duration::from_secs(30);
    let bus = NatsBus::connect(settings).await.unwrap();
    topology::setup(&bus, &Limits { max_bytes: 3 << 30, ..limits() }).await.unwrap();
    let (done, mut ended) = mpsc::unbounded_channel();
    let mut stages = Vec::new();
    for stage in StageName::ALL {
        let (bus, done) = (bus.clone(), done.clone());
        stages.push(match variant {
            Variant::Ours => tokio::spawn(ours(bus, stage, done)),
            Variant::Client => tokio::spawn(theirs(bus, stage, done)),
        });
    }
    let mut started: HashMap<String, Instant> = HashMap::new();
    let mut took = Vec::new();
    let mut next_id = 0u64;
    let mut publishing = FuturesUnordered::new();
    let start = |started: &mut HashMap<String, Instant>, next_id: &mut u64| {
        let workflow = format!("wf-{next_id:08}");
        *next_id += 1;
        started.insert(workflow.clone(), Instant::now());
        let bus = bus.clone();
        async move { assert_eq!(bus.publish(&input(&workflow)).await.unwrap(), Published::New) }
    };
    for _ in 0..in_flight {
        publishing.push(start(&mut started, &mut next_id));
    }
    let (us, them) = (std::process::id(), server.pid().unwrap());
    let (client_before, server_before) = (cpu(us), cpu(them));
    let began = Instant::now();
    while began.elapsed() < RUN {
        tokio::select! {
            Some(()) = publishing.next(), if !publishing.is_empty() => {}
            Some(workflow) = ended.recv() => {
                let workflow: String = workflow;
                took.push(started.remove(&workflow).expect("once each").elapsed());
                publishing.push(start(&mut started, &mut next_id));
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let count = f64::from(u32::try_from(took.len()).unwrap());
    let client = (cpu(us) - client_before) * 1e6 / count;
    let serving = (cpu(them) - server_before) * 1e6 / count;
    for stage in stages {
        stage.abort();
    }
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    format!("{:.0} {:.2} {:.2} {client:.0} {serving:.0}", count / seconds, at(50), at(99))
}

async fn ours(bus: NatsBus, stage: StageName, done: mpsc::UnboundedSender<String>) {
    let mut open = inbox(&bus, stage, WINDOW).await;
    let mut working = FuturesUnordered::new();
    loop {
        tokio::select! {
            delivery = open.next() => {
                let (bus, done, delivery) = (bus.clone(), done.clone(), delivery.unwrap());
                working.push(async move {
                    let workflow = delivery.subject.rsplit('.').next().unwrap().to_owned();
                    if stage != StageName::Persistence {
                        assert_eq!(bus.publish(&event(stage, &workflow)).await.unwrap(), Published::New);
                    }
                    delivery.receipt.settle(Settlement::Acknowledged).await.unwrap();
                    if stage == StageName::Persistence {
                        let _ = done.send(workflow);
                    }
                });
            }
            Some(()) = working.next(), if !working.is_empty() => open.grant(1).await.unwrap(),
        }
    }
}

async fn theirs(bus: NatsBus, stage: StageName, done: mpsc::UnboundedSender<String>) {
    let jetstream = Arc::new(jetstream::new(bus.client().clone()));
    let consumer: jetstream::consumer::Consumer<pull::Config> = jetstream
        .get_consumer_from_stream(throughline::bus::nats::Names::consumer(stage), bus.names().events())
        .await
        .unwrap();
    let builder = consumer.stream().max_messages_per_batch(WINDOW);
    let builder = if stage == StageName::Input {
        builder.group("admission").expires(Duration::from_secs(2)).heartbeat(Duration::from_secs(1))
    } else {
        builder.expires(Duration::from_secs(30)).heartbeat(Duration::from_secs(5))
    };
    let mut messages = builder.messages().await.unwrap();
    let mut working = FuturesUnordered::new();
    loop {
        tokio::select! {
            message = messages.next(), if working.len() < WINDOW => {
                let (ns, done, message) = (bus.namespace().clone(), done.clone(), message.unwrap().unwrap());
                let jetstream = Arc::clone(&jetstream);
                working.push(async move {
                    let workflow = message.subject.rsplit('.').next().unwrap().to_owned();
                    if stage != StageName::Persistence {
                        let event = event(stage, &workflow);
                        let mut headers = HeaderMap::new();
                        headers.insert("Nats-Msg-Id", event.meta.id.as_str());
                        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
                        headers.insert("Content-Type", "application/cloudevents+json");
                        headers.insert("traceparent", event.meta.traceparent.to_string().as_str());
                        let subject = event.subject().live(&ns);
                        let body = encode(&event).unwrap().into();
                        jetstream.publish_with_headers(subject, headers, body).await.unwrap().await.unwrap();
                    }
                    message.ack().await.unwrap();
                    if stage == StageName::Persistence {
                        let _ = done.send(workflow);
                    }
                });
            }
            Some(()) = working.next(), if !working.is_empty() => {}
        }
    }
}

/// The event that a stage publishes, with about a kibibyte in it.
fn event(stage: StageName, workflow: &str) -> Event {
    let mut event = sample_event(workflow, "s", "");
    let event_type = stage.publishes();
    event.meta.id = format!("{workflow}.{event_type}");
    let request = throughline_schemas::event::input::Request {
        user_input: "x".repeat(TEXT_BYTES),
        metadata: throughline_schemas::Metadata::default(),
        merged: Vec::new(),
        redo: None,
        input_sequence: 1,
        received_at: event.meta.time,
    };
    let context = throughline_schemas::event::context::Context::default();
    event.data = match event_type {
        EventType::ContextRetrieved => {
            EventData::ContextRetrieved(throughline_schemas::event::ContextRetrieved { request, context })
        }
        EventType::ExternalDataFetched => {
            let external = std::collections::BTreeMap::new();
            EventData::ExternalDataFetched(throughline_schemas::event::ExternalDataFetched {
                request,
                context,
                external,
            })
        }
        EventType::ResponseGenerated => {
            use throughline_schemas::event::generation::{Prompt, Response};
            EventData::ResponseGenerated(Box::new(throughline_schemas::event::ResponseGenerated {
                request,
                response: Response {
                    text: "ok".to_owned(),
                    model: "m".to_owned(),
                    provider: "p".to_owned(),
                    finish_reason: throughline_schemas::FinishReason::Stop,
                    finish_reason_raw: None,
                    reasoning: None,
                    tool_calls: Vec::new(),
                },
                usage: throughline_schemas::Usage::default(),
                cost_usd: None,
                degraded: Vec::new(),
                attempts: Vec::new(),
                cost_is_partial: false,
                earlier_deliveries: 0,
                route: None,
                prompt: Prompt {
                    id: "p".to_owned(),
                    hash: String::new(),
                    config: String::new(),
                    tag: None,
                    messages: Vec::new(),
                    max_tokens: 1,
                    temperature_milli: None,
                    top_p_milli: None,
                    stop: Vec::new(),
                    format: None,
                    stream: false,
                    window: None,
                },
                raw_response: serde_json::Value::Null,
            }))
        }
        EventType::InputValidated
        | EventType::UserInputReceived
        | EventType::InteractionSaved
        | EventType::WorkflowFailed => {
            EventData::InputValidated(throughline_schemas::event::InputValidated { request })
        }
    };
    event
}

fn input(workflow: &str) -> Event {
    let mut event = sample_event(workflow, "s", "");
    event.meta.id = format!("{workflow}.user_input_received");
    event.data = EventData::UserInputReceived(throughline_schemas::event::UserInputReceived {
        user_id: UserId::new("u").unwrap(),
        session_id: SessionId::new("s").unwrap(),
        user_input: "x".repeat(TEXT_BYTES),
        workflow_id: Some(WorkflowId::new(workflow).unwrap()),
        metadata: throughline_schemas::Metadata::default(),
        when_busy: None,
        redo: None,
    });
    event
}
