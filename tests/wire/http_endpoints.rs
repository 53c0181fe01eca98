//! `/healthz`, `/readyz` and `/metrics` as probes and scrapers meet them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use throughline::{
    app::{engine_settings, load_prompt},
    config::{Config, Env, Log},
    http::{HttpError, HttpServer, HttpState},
    system::{SystemClock, SystemEntropy},
    telemetry::Telemetry,
};
use throughline_actors::{
    policy::retry::RetryPolicy,
    ports::{
        bus::{
            AttemptLog, Broadcast, Bus, BusError, Claim, Claimed, DeadLetter, DeadLetters, Delivery,
            DeliveryState, Ends, EventLog, Inbox, Inboxes, Latest, Position, Published,
        },
        memory::{bus::MemoryBus, model::ScriptedModels, source::ScriptedSources, store::MemoryStore},
        store::{
            Admission, Admitted, Closed, EndedTurn, Failing, HeldQuery, HeldStarted, Interaction, KnownEnd,
            ListedTurn, Mark, OpenTurns, Opening, RestoredTurn, RunningQuery, RunningTurn, Store, StoreError,
            StoreTrouble, TurnsQuery,
        },
        tokenizer::FourBytes,
    },
    supervision::engine::{Engine, Ports},
};
use throughline_schemas::{
    Event, Namespace, SessionId, StageName, Subject, Timestamp, UserId, WorkflowId, event::context::Context,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};

/// Nothing here takes as long; a test that hangs says where.
const LIMIT: Duration = Duration::from_secs(20);

/// A bus whose inboxes can be made to end, as when their consumer is deleted.
struct Breakable {
    bus: MemoryBus,
    broken: Arc<Notify>,
    full: AtomicBool,
}

struct BreakableInbox {
    inbox: Box<dyn Inbox>,
    broken: Arc<Notify>,
}

#[async_trait]
impl Inbox for BreakableInbox {
    async fn grant(&mut self, n: usize) -> Result<(), BusError> {
        self.inbox.grant(n).await
    }

    async fn next(&mut self) -> Result<Delivery, BusError> {
        tokio::select! {
            next = self.inbox.next() => next,
            () = self.broken.notified() => Err(BusError::NotSetUp("the consumer was deleted".to_owned())),
        }
    }
}

#[async_trait]
impl Inboxes for Breakable {
    async fn open(&self, stage: StageName) -> Result<Box<dyn Inbox>, BusError> {
        let inbox = self.bus.open(stage).await?;
        Ok(Box::new(BreakableInbox { inbox, broken: Arc::clone(&self.broken) }))
    }

    async fn open_undeliverable(&self, stage: StageName) -> Result<Box<dyn Inbox>, BusError> {
        self.bus.open_undeliverable(stage).await
    }
}

#[async_trait]
impl EventLog for Breakable {
    async fn publish(&self, event: &Event) -> Result<Published, BusError> {
        self.bus.publish(event).await
    }

    async fn exists(&self, subject: &Subject) -> Result<bool, BusError> {
        self.bus.exists(subject).await
    }

    async fn stored_at(&self, subject: &Subject) -> Result<Option<Timestamp>, BusError> {
        self.bus.stored_at(subject).await
    }

    async fn recorded(&self, subject: &Subject) -> Result<Option<Bytes>, BusError> {
        self.bus.recorded(subject).await
    }

    async fn position(&self) -> Result<Position, BusError> {
        self.bus.position().await
    }

    async fn latest(&self, session: &SessionId, workflow: &WorkflowId) -> Result<Option<Latest>, BusError> {
        self.bus.latest(session, workflow).await
    }

    async fn publish_again(&self, subject: &Subject, sequence: u64) -> Result<Published, BusError> {
        self.bus.publish_again(subject, sequence).await
    }

    async fn ends_from(&self, sequence: u64, most: u64) -> Result<Ends, BusError> {
        self.bus.ends_from(sequence, most).await
    }
}

#[async_trait]
impl DeadLetters for Breakable {
    async fn dead_letter(&self, delivery: &Delivery, letter: &DeadLetter) -> Result<(), BusError> {
        self.bus.dead_letter(delivery, letter).await
    }
}

#[async_trait]
impl DeliveryState for Breakable {
    async fn claim(&self, stage: StageName, sequence: u64) -> Result<Option<Claimed>, BusError> {
        self.bus.claim(stage, sequence).await
    }

    async fn set_claim(
        &self,
        stage: StageName,
        sequence: u64,
        claim: &Claim,
        revision: u64,
    ) -> Result<Published, BusError> {
        self.bus.set_claim(stage, sequence, claim, revision).await
    }

    async fn attempt_log(&self, stage: StageName, sequence: u64) -> Result<Option<AttemptLog>, BusError> {
        self.bus.attempt_log(stage, sequence).await
    }

    async fn keep_attempt_log(
        &self,
        stage: StageName,
        sequence: u64,
        attempt_log: &AttemptLog,
    ) -> Result<(), BusError> {
        self.bus.keep_attempt_log(stage, sequence, attempt_log).await
    }
}

#[async_trait]
impl Broadcast for Breakable {
    async fn announce(&self, topic: &str, body: Bytes) -> Result<(), BusError> {
        self.bus.announce(topic, body).await
    }

    async fn announced_on(&self, topic: &str) -> Result<BoxStream<'static, Bytes>, BusError> {
        self.bus.announced_on(topic).await
    }

    fn live(&self, workflow: &WorkflowId, frame: Bytes) -> bool {
        self.bus.live(workflow, frame)
    }
}

#[async_trait]
impl Bus for Breakable {
    fn is_connected(&self) -> bool {
        self.bus.is_connected()
    }

    async fn probe(&self) -> Result<(), BusError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(BusError::Full("the stream E is full".to_owned()));
        }
        self.bus.probe().await
    }
}

/// A store whose answers to a ping can be held back for ever.
#[derive(Default)]
struct Stuck {
    store: MemoryStore,
    silent: AtomicBool,
}

#[async_trait]
impl Store for Stuck {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        self.store.admit(batch).await
    }
    async fn start_held(&self, query: HeldQuery) -> Result<HeldStarted, StoreError> {
        self.store.start_held(query).await
    }
    async fn context(&self, user: &UserId, session: &SessionId, turns: usize) -> Result<Context, StoreError> {
        self.store.context(user, session, turns).await
    }
    async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError> {
        self.store.save(interaction).await
    }
    async fn fail(&self, failing: Failing) -> Result<Closed, StoreError> {
        self.store.fail(failing).await
    }
    async fn running(&self, query: RunningQuery) -> Result<Vec<RunningTurn>, StoreError> {
        self.store.running(query).await
    }
    async fn opening(&self, workflow: &WorkflowId) -> Result<Option<Opening>, StoreError> {
        self.store.opening(workflow).await
    }
    async fn ended_before(&self, places: &[(SessionId, u64)]) -> Result<Vec<Option<EndedTurn>>, StoreError> {
        self.store.ended_before(places).await
    }
    async fn end(&self, workflow: &WorkflowId) -> Result<Option<KnownEnd>, StoreError> {
        self.store.end(workflow).await
    }
    async fn oldest_open(&self) -> Result<Option<u64>, StoreError> {
        self.store.oldest_open().await
    }
    async fn forget_ended(&self, ended_before: Timestamp, most: usize) -> Result<u64, StoreError> {
        self.store.forget_ended(ended_before, most).await
    }
    async fn restore(&self, ended: RestoredTurn) -> Result<Closed, StoreError> {
        self.store.restore(ended).await
    }
    async fn latest_turns(&self, query: TurnsQuery) -> Result<Vec<ListedTurn>, StoreError> {
        self.store.latest_turns(query).await
    }
    async fn open_turns(&self) -> Result<OpenTurns, StoreError> {
        self.store.open_turns().await
    }
    async fn mark(&self) -> Result<Mark, StoreError> {
        self.store.mark().await
    }
    async fn set_mark(&self, from: u64, to: u64) -> Result<(), StoreError> {
        self.store.set_mark(from, to).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.store.ping().await
    }
}

/// A worker with two stages and its endpoints.
struct Rig {
    bus: Arc<Breakable>,
    store: Arc<Stuck>,
    engine: Engine,
    telemetry: Telemetry,
    http: HttpServer,
    client: Client,
}

impl Rig {
    async fn start() -> Self {
        let config = Config::default();
        let memory = MemoryBus::new(Namespace::new("endpoints").unwrap());
        let bus = Arc::new(Breakable { bus: memory, broken: Arc::default(), full: AtomicBool::new(false) });
        let store = Arc::new(Stuck::default());
        let (_, telemetry) = Telemetry::apart(&Log::default(), &Env::new()).unwrap();
        let ports = Ports {
            bus: Arc::clone(&bus) as _,
            store: Arc::clone(&store) as _,
            sources: Arc::new(ScriptedSources::default()),
            models: Arc::new(ScriptedModels::default()),
            tokenizer: Arc::new(FourBytes),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            tracer: telemetry.tracer(),
            keeper: None,
        };
        let mut settings = engine_settings(&config, &[StageName::Context, StageName::Persistence]).unwrap();
        // A stage that is down stays down for as long as anybody looks.
        let hour = Duration::from_hours(1);
        settings.restart.backoff = RetryPolicy { max_attempts: u32::MAX, base_delay: hour, max_delay: hour };
        let engine = Engine::start(ports, settings, load_prompt(&config.prompt).unwrap()).await.unwrap();
        let state = HttpState {
            observer: Some(engine.observer()),
            store: Arc::clone(&store) as _,
            bus: Arc::clone(&bus) as _,
            refusal: None,
            metrics: telemetry.metrics(),
        };
        let http = HttpServer::start("127.0.0.1:0".parse().unwrap(), state).await.unwrap();
        let client = Client::builder().no_proxy().timeout(LIMIT).tls_certs_only([]).build().unwrap();
        Self { bus, store, engine, telemetry, http, client }
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("http://{}{path}", self.http.address())).send().await.unwrap()
    }

    /// Asks until this is the answer.
    async fn until(&self, expected: &(u16, Value)) {
        let mut answer = self.ready().await;
        let asking = async {
            while answer != *expected {
                tokio::time::sleep(Duration::from_millis(50)).await;
                answer = self.ready().await;
            }
        };
        let in_time = timeout(LIMIT, asking).await.is_ok();
        assert!(in_time, "{answer:?} instead of {expected:?}");
    }

    async fn ready(&self) -> (u16, Value) {
        let response = self.get("/readyz").await;
        assert_eq!(response.headers()["cache-control"], "no-store");
        let status = response.status().as_u16();
        let mut told: Value = response.json().await.unwrap();
        // Nothing is in hand here, whatever else is the matter.
        let memory = told.as_object_mut().unwrap().remove("message_memory").unwrap();
        assert!(memory["budget_bytes"].as_u64().unwrap() > 0, "{memory}");
        assert_eq!((&memory["reserved_bytes"], &memory["waiting"]), (&json!(0), &json!(0)), "{memory}");
        (status, told)
    }
}

fn checks(stages: &str, bus: &str, database: &str) -> Value {
    json!({"stages": stages, "bus": bus, "database": database, "namespace": "ok"})
}

fn not_ready(checks: &Value) -> (u16, Value) {
    (503, json!({"status": "not_ready", "checks": checks, "breakers": []}))
}

#[tokio::test]
async fn ready_means_that_bus_database_and_stages_are() {
    throughline_tls();
    let rig = Rig::start().await;
    let ready = (200, json!({"status": "ready", "checks": checks("ok", "ok", "ok"), "breakers": []}));
    assert_eq!(rig.ready().await, ready);

    rig.bus.bus.set_connected(false);
    assert_eq!(rig.ready().await, not_ready(&checks("ok", "not connected", "ok")));
    rig.bus.bus.set_connected(true);

    // For as long as it takes until the next probe.
    rig.store.store.fail_next(usize::from(u8::MAX), || StoreError::Busy {
        context: "trying to write",
        trouble: StoreTrouble::DiskFull,
        source: Some("database or disk is full, password=hunter2".into()),
    });
    let full = "the disk of the database is full: trying to write; make room on it; what waits goes on by itself: database \
                or disk is full, password=***";
    rig.until(&not_ready(&checks("ok", "ok", full))).await;
    rig.store.store.mend();

    rig.store.silent.store(true, Ordering::SeqCst);
    rig.until(&not_ready(&checks("ok", "ok", "no answer within 800ms"))).await;
    // None of which is a reason to kill the process.
    assert_eq!(rig.get("/healthz").await.status(), 200);
    rig.store.silent.store(false, Ordering::SeqCst);
    rig.until(&ready).await;

    rig.bus.full.store(true, Ordering::SeqCst);
    rig.until(&not_ready(&checks("ok", "there is no room: the stream E is full", "ok"))).await;
    rig.bus.full.store(false, Ordering::SeqCst);
    rig.until(&ready).await;

    // A stage that lost its consumer, then no stage at all.
    rig.bus.broken.notify_one();
    timeout(LIMIT, async { while rig.ready().await.0 == 200 {} })
        .await
        .expect("a stage without its consumer makes the process not ready");
    let checks = rig.ready().await.1["checks"]["stages"].clone();
    assert!(
        matches!(checks.as_str(), Some("not consuming: context" | "not consuming: persistence")),
        "{checks}"
    );
    let Rig { engine, http, client, .. } = rig;
    engine.drain(LIMIT).await;
    let url = format!("http://{}/readyz", http.address());
    let body: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(body["checks"]["stages"], "the supervisor has ended");
}

#[tokio::test]
async fn a_scrape_is_prometheus_text() {
    throughline_tls();
    let rig = Rig::start().await;
    let response = rig.get("/metrics").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    assert!(text.contains("\nprocess_start_time_seconds "), "{text}");
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    drop(rig.telemetry);
}

#[tokio::test]
async fn whatever_else_is_asked_gets_an_answer_in_json() {
    throughline_tls();
    let rig = Rig::start().await;
    assert_eq!(rig.get("/healthz").await.json::<Value>().await.unwrap(), json!({"status": "ok"}));
    for path in ["/", "/healthz/", "/nothing?here=1", "/%00"] {
        let response = rig.get(path).await;
        assert_eq!(response.status(), 404, "{path}");
        assert!(response.json::<Value>().await.unwrap()["error"].is_string(), "{path}");
    }
    let url = format!("http://{}/metrics", rig.http.address());
    let response = rig.client.request(Method::POST, url).body(vec![b'x'; 1 << 20]).send().await;
    // The body is not read: the answer, or the closed connection if the client is still sending.
    if let Ok(response) = response {
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &"GET, HEAD".parse().unwrap())
        );
    }
    assert_eq!(rig.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn heads_without_end_are_refused() {
    throughline_tls();
    let rig = Rig::start().await;
    let mut stream = TcpStream::connect(rig.http.address()).await.unwrap();
    let mut head = b"GET /healthz HTTP/1.1\r\nhost: h\r\nx-padding: ".to_vec();
    head.resize(20 * 1024, b'x');
    // The server may close before all of it is sent.
    let _ = stream.write_all(&head).await;
    let mut answer = String::new();
    // Well before the limit on sending a head, which would end it, too.
    let ended = timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
    let _ = ended.expect("the server refuses a large head at once");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(rig.get("/healthz").await.status(), 200);
}

/// Connects, sends half a head, and connects again when it is closed, until it is aborted.
async fn hold_a_connection(address: std::net::SocketAddr, held: Arc<AtomicUsize>) {
    loop {
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\nx-half: ").await;
        held.fetch_add(1, Ordering::SeqCst);
        let _ = stream.read(&mut [0; 64]).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Half of the limit on sending a head, after which strangers go by themselves. An idle machine takes milliseconds.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_hold_connections_keep_nobody_from_asking() {
    const STRANGERS: usize = 600;
    throughline_tls();
    let rig = Rig::start().await;
    let address = rig.http.address();
    let held = Arc::new(AtomicUsize::new(0));
    let mut strangers = tokio::task::JoinSet::new();
    for _ in 0..STRANGERS {
        strangers.spawn(hold_a_connection(address, Arc::clone(&held)));
    }
    timeout(LIMIT, async {
        while held.load(Ordering::SeqCst) < STRANGERS {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("all of them are there");
    for path in ["/healthz", "/readyz", "/metrics"].iter().cycle().take(30) {
        // A connection of its own each time, as a probe has.
        let probe = Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let asked = probe.get(format!("http://{address}{path}")).send();
        let answer = timeout(AT_ONCE, asked).await;
        assert_eq!(answer.expect("an answer at once").unwrap().status(), 200, "{path}");
    }
    assert!(held.load(Ordering::SeqCst) > STRANGERS, "some were closed, and came again");
    // Who has a connection and uses it keeps it, as far as there is room.
    assert_eq!(rig.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    throughline_tls();
    let rig = Rig::start().await;
    let taken = rig.http.address();
    let state = HttpState {
        observer: None,
        store: Arc::clone(&rig.store) as _,
        bus: Arc::clone(&rig.bus) as _,
        refusal: None,
        metrics: rig.telemetry.metrics(),
    };
    let error = HttpServer::start(taken, state).await.map(drop).unwrap_err();
    assert!(matches!(error, HttpError::InUse { listen } if listen == taken), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&taken.to_string()) && text.contains("http.listen"), "{text}");
}

#[tokio::test]
async fn shutdown_ends_idle_and_stuck_connections_within_its_limit() {
    throughline_tls();
    let rig = Rig::start().await;
    let address = rig.http.address();
    assert_eq!(rig.get("/healthz").await.status(), 200);
    let mut half_asked = TcpStream::connect(address).await.unwrap();
    half_asked.write_all(b"GET /healthz HT").await.unwrap();
    timeout(LIMIT, rig.http.shutdown()).await.expect("shutdown has a limit");
    let mut rest = Vec::new();
    let _ = timeout(LIMIT, half_asked.read_to_end(&mut rest)).await.expect("the connection is closed");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

/// The client is built without a TLS provider of its own.
fn throughline_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
