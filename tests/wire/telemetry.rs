//! Traces as a collector sees them: a small OTLP collector on loopback, and workflows that run through real stages.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use throughline::{
    app::{engine_settings, load_prompt},
    config::{Config, Env, Layers, Log},
    system::{SystemClock, SystemEntropy},
    telemetry::{FLUSH_LIMIT, Telemetry},
};
use throughline_actors::{
    ports::{
        memory::{
            bus::MemoryBus,
            model::{ScriptedModels, answer},
            source::ScriptedSources,
            store::MemoryStore,
        },
        tokenizer::FourBytes,
        trace::Tracer,
    },
    supervision::engine::{Engine, Ports},
};
use throughline_schemas::{Event, EventType, Namespace, StageName, TraceParent, WorkflowId};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tracing::dispatcher::set_default;

/// Nothing here takes as long; a test that hangs says where.
const LIMIT: Duration = Duration::from_secs(20);

const PUBLISHER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} did not happen within {LIMIT:?}"))
}

/// An OTLP collector that keeps what it is sent.
struct Collector {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<(HeaderMap, ExportTraceServiceRequest)>,
}

impl Collector {
    /// One that answers its first `failures` requests with 503.
    async fn start(failures: usize) -> Self {
        let (sender, requests) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let left = Arc::new(AtomicUsize::new(failures));
        let take = move |headers: HeaderMap, body: Bytes| {
            let fails = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            if !fails {
                sender.send((headers, ExportTraceServiceRequest::decode(body).unwrap())).unwrap();
            }
            async move { if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK } }
        };
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, requests }
    }

    fn env(&self, more: &[(&str, &str)]) -> Env {
        let endpoint = format!("http://{}", self.address);
        let all = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
        all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// What arrived, after a shutdown: headers of the last request, attributes of the resource, and the spans.
    fn received(&mut self) -> Received {
        let mut received = Received::default();
        while let Ok((headers, request)) = self.requests.try_recv() {
            received.headers = headers;
            for resource in request.resource_spans {
                received.resource = attributes(&resource.resource.unwrap().attributes);
                received.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        received
    }
}

#[derive(Default)]
struct Received {
    headers: HeaderMap,
    resource: BTreeMap<String, String>,
    spans: Vec<Span>,
}

impl Received {
    fn span(&self, name: &str) -> &Span {
        let names: Vec<_> = self.spans.iter().map(|span| &span.name).collect();
        self.spans
            .iter()
            .find(|span| span.name == name)
            .unwrap_or_else(|| panic!("{name} is not among {names:?}"))
    }
}

/// Attributes by name, whatever their type.
fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes
        .iter()
        .map(|attribute| {
            let value = attribute.value.as_ref().and_then(|any| any.value.as_ref()).unwrap();
            let text = if let Value::StringValue(text) = value {
                text.clone()
            } else if let Value::IntValue(number) = value {
                number.to_string()
            } else {
                format!("{value:?}")
            };
            (attribute.key.clone(), text)
        })
        .collect()
}

fn trace_id(span: &Span) -> u128 {
    u128::from_be_bytes(span.trace_id.as_slice().try_into().unwrap())
}

fn id(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// Runs one workflow through all stages, with everything but the telemetry in memory, and returns its events.
async fn workflow(tracer: Arc<dyn Tracer>, traceparent: Option<&str>) -> Vec<Event> {
    let env = Env::from([("OPENAI_BASE_URL".to_owned(), "http://127.0.0.1:1/v1".to_owned())]);
    let config: Config = Layers { env, ..Layers::default() }.load().unwrap();
    let bus = MemoryBus::new(Namespace::new("traces").unwrap());
    let models = ScriptedModels::default();
    models.always("openai", Ok(answer("It has been shipped.")));
    let ports = Ports {
        bus: Arc::new(bus.clone()),
        store: Arc::new(MemoryStore::new()),
        sources: Arc::new(ScriptedSources::default()),
        models: Arc::new(models),
        tokenizer: Arc::new(FourBytes),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        tracer,
        keeper: None,
    };
    let settings = engine_settings(&config, &StageName::ALL).unwrap();
    let engine = Engine::start(ports, settings, load_prompt(&config.prompt).unwrap()).await.unwrap();
    let body = r#"{"user_id":"u","session_id":"s","workflow_id":"wf-1","user_input":"Where is my order?"}"#;
    let headers: Vec<_> = traceparent.map(|parent| ("traceparent", parent)).into_iter().collect();
    bus.publish_raw(&bus.namespace().bare_input(), &headers, body);
    let end = soon("the end of the workflow", bus.ended(&WorkflowId::new("wf-1").unwrap())).await;
    assert_eq!(end.event_type(), EventType::InteractionSaved);
    engine.drain(LIMIT).await;
    bus.events()
}

/// The events' contexts, in the order of the stages.
fn contexts(events: &[Event]) -> Vec<TraceParent> {
    events.iter().map(|event| event.meta.traceparent).collect()
}

#[tokio::test]
async fn a_workflow_is_one_trace_from_its_publisher_to_its_end() {
    let mut collector = Collector::start(0).await;
    let env = collector.env(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2,x-tenant=t"),
        ("OTEL_SERVICE_NAME", "support-bot"),
    ]);
    let (subscriber, telemetry) = Telemetry::apart(&quiet(), &env).unwrap();
    let _in_use = set_default(&subscriber);
    let events = workflow(telemetry.tracer(), Some(PUBLISHER)).await;
    soon("shutdown", telemetry.shutdown()).await;

    let received = collector.received();
    assert_eq!(received.headers["authorization"], "Bearer hunter2");
    assert_eq!(received.headers["content-type"], "application/x-protobuf");
    assert_eq!(received.resource["service.name"], "support-bot");
    assert_eq!(received.resource["service.version"], env!("CARGO_PKG_VERSION"));

    // Each stage's span is the parent that its event names, and the child of the one that its input names.
    let publisher: TraceParent = PUBLISHER.parse().unwrap();
    let mut parent = publisher;
    let consumed = [
        "user_input_received",
        "input_validated",
        "context_retrieved",
        "external_data_fetched",
        "response_generated",
    ];
    assert_eq!(events.len(), consumed.len());
    for (consumed, context) in consumed.iter().zip(contexts(&events)) {
        let span = received.span(&format!("process {consumed}"));
        assert_eq!(
            (trace_id(span), id(&span.parent_span_id)),
            (publisher.trace_id(), parent.span_id()),
            "{consumed}"
        );
        assert_eq!(
            (context.trace_id(), context.span_id()),
            (publisher.trace_id(), id(&span.span_id)),
            "{consumed}"
        );
        assert_eq!(context.flags(), 1, "{consumed}");
        parent = context;
    }

    let process = received.span("process external_data_fetched");
    let attributes_of_process = attributes(&process.attributes);
    for (name, value) in [
        ("messaging.system", "nats"),
        ("messaging.operation.type", "process"),
        ("messaging.consumer.group.name", "generation"),
        ("throughline.stage", "generation"),
        ("throughline.workflow", "wf-1"),
    ] {
        assert_eq!(attributes_of_process[name], value);
    }
    assert_eq!(process.kind(), opentelemetry_proto::tonic::trace::v1::span::SpanKind::Consumer);

    let chat = received.spans.iter().find(|span| span.name.starts_with("chat ")).unwrap();
    assert_eq!((trace_id(chat), &chat.parent_span_id), (publisher.trace_id(), &process.span_id));
    let attributes_of_chat = attributes(&chat.attributes);
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.response.model", "scripted"),
        ("gen_ai.usage.input_tokens", "10"),
        ("gen_ai.usage.output_tokens", "5"),
    ] {
        assert_eq!(attributes_of_chat[name], value);
    }
    let everything = format!("{:?}", received.spans);
    assert!(!everything.contains("Where is my order") && !everything.contains("shipped"), "{everything}");
}

#[tokio::test]
async fn a_trace_that_its_publisher_did_not_sample_is_handed_on_and_not_exported() {
    let mut collector = Collector::start(0).await;
    let (subscriber, telemetry) = Telemetry::apart(&quiet(), &collector.env(&[])).unwrap();
    let _in_use = set_default(&subscriber);
    let unsampled = PUBLISHER.replace("-01", "-00");
    let events = workflow(telemetry.tracer(), Some(&unsampled)).await;
    soon("shutdown", telemetry.shutdown()).await;
    let publisher: TraceParent = unsampled.parse().unwrap();
    for context in contexts(&events) {
        assert_eq!((context.trace_id(), context.flags()), (publisher.trace_id(), 0));
    }
    assert_eq!(collector.received().spans.len(), 0);
}

#[tokio::test]
async fn without_a_collector_the_events_share_a_trace_all_the_same() {
    let (subscriber, telemetry) = Telemetry::apart(&quiet(), &Env::new()).unwrap();
    let _in_use = set_default(&subscriber);
    let contexts = contexts(&workflow(telemetry.tracer(), None).await);
    soon("shutdown", telemetry.shutdown()).await;
    let traces: BTreeMap<u128, usize> = contexts.iter().map(|context| (context.trace_id(), 1)).collect();
    let spans: BTreeMap<u64, usize> = contexts.iter().map(|context| (context.span_id(), 1)).collect();
    assert_eq!((traces.len(), spans.len()), (1, contexts.len()), "{contexts:?}");
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_the_batch_it_refused() {
    let mut collector = Collector::start(2).await;
    let (subscriber, telemetry) = Telemetry::apart(&quiet(), &collector.env(&[])).unwrap();
    let _in_use = set_default(&subscriber);
    workflow(telemetry.tracer(), None).await;
    soon("shutdown", telemetry.shutdown()).await;
    collector.received().span("process response_generated");
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_neither_work_nor_shutdown() {
    // Connections are accepted by the kernel and never read.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let env = Env::from([("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint)]);
    let (subscriber, telemetry) = Telemetry::apart(&quiet(), &env).unwrap();
    let _in_use = set_default(&subscriber);
    let tracer = telemetry.tracer();
    // More spans than may wait.
    for _ in 0..10_000 {
        let span = tracing::info_span!(target: "throughline_actors::delivery::handler", "process");
        tracer.adopt(&span, None);
    }
    workflow(tracer, None).await;
    let slack = Duration::from_secs(2);
    timeout(FLUSH_LIMIT + slack, telemetry.shutdown())
        .await
        .expect("shutdown takes no longer than its limit");
}

/// The log is not what is tested here.
fn quiet() -> Log {
    Log { filter: "off".to_owned(), ..Log::default() }
}
