//! Setting up, finding out that it was not done, and not getting in at all.

use throughline::bus::nats::ConnectError;
use throughline_actors::ports::{bus::BusError, contract::bus::sample_event};

use super::*;

#[tokio::test]
async fn setting_up_is_idempotent_and_drift_is_told_and_repaired() {
    let Some(server) = NatsServer::start() else { return };
    let bus = connect(&server).await;
    let missing = topology::check(&bus, &limits()).await.unwrap();
    assert!(missing.iter().all(topology::Drift::is_missing) && missing.len() == 6, "{missing:?}");

    let first = topology::setup(&bus, &limits()).await.unwrap();
    assert_eq!((first.created.len(), first.updated.len(), first.unchanged.len()), (16, 0, 0), "{first}");
    assert_eq!(topology::check(&bus, &limits()).await.unwrap(), []);
    let second = topology::setup(&bus, &limits()).await.unwrap();
    assert_eq!((second.created.len(), second.updated.len(), second.unchanged.len()), (0, 0, 16), "{second}");

    let mut other = settings(&server);
    other.ack_wait = ACK_WAIT * 2;
    let other = NatsBus::connect(other).await.unwrap();
    let larger = Limits { max_bytes: 300 * 1024 * 1024, ..limits() };
    let drifts = topology::check(&other, &larger).await.unwrap();
    assert_eq!(drifts.iter().filter(|drift| drift.setting == Some("ack_wait")).count(), 10, "{drifts:?}");
    assert_eq!(drifts.iter().filter(|drift| drift.setting == Some("max_bytes")).count(), 3, "{drifts:?}");
    assert_eq!(topology::setup(&other, &larger).await.unwrap().updated, drifts);
    assert_eq!(topology::check(&other, &larger).await.unwrap(), []);

    // As an older version made it.
    let jetstream = async_nats::jetstream::new(bus.client().clone());
    let mut events = jetstream.get_stream("t_EVENTS").await.unwrap().cached_info().config.clone();
    events.republish = None;
    jetstream.update_stream(&events).await.unwrap();
    let drifts = topology::check(&other, &larger).await.unwrap();
    assert_eq!(drifts.iter().map(|drift| drift.setting).collect::<Vec<_>>(), [Some("republish")]);
    assert_eq!(topology::setup(&other, &larger).await.unwrap().updated, drifts);
    assert_eq!(topology::check(&other, &larger).await.unwrap(), []);
}

#[tokio::test]
async fn nothing_works_before_setup_and_everything_says_so() {
    let Some(server) = NatsServer::start() else { return };
    let bus = connect(&server).await;
    let event = sample_event("w", "s", "m");
    let not_set_up = |error: &BusError| {
        assert!(matches!(error, BusError::NotSetUp(_)), "{error}");
        assert!(error.to_string().contains("throughline setup"), "{error}");
    };
    not_set_up(&bus.open(StageName::Input).await.err().unwrap());
    not_set_up(&bus.publish(&event).await.err().unwrap());
    not_set_up(&bus.exists(&event.subject()).await.err().unwrap());
    not_set_up(&bus.read(ReadRequest::all_events(bus.namespace())).await.err().unwrap());

    // A consumer that is deleted under an open inbox ends it.
    topology::setup(&bus, &limits()).await.unwrap();
    let mut open = inbox(&bus, StageName::Context, 1).await;
    bus.client().flush().await.unwrap();
    let jetstream = async_nats::jetstream::new(bus.client().clone());
    jetstream.delete_consumer_from_stream("stage_context", "t_EVENTS").await.unwrap();
    not_set_up(&timeout(SOON, open.next()).await.unwrap().err().unwrap());
}

#[tokio::test]
async fn who_cannot_connect_is_told_what_to_do() {
    let Some(mut server) = NatsServer::start_with(&["--user", "ann", "--pass", "hunter2"]) else { return };
    let mut settings = settings(&server);
    settings.connect_within = Duration::from_secs(5);
    settings.url.0 = server.url().replace("nats://", "nats://ann:hunter3@");
    let refused = NatsBus::connect(settings.clone()).await.err().unwrap();
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    assert!(!refused.to_string().contains("hunter"), "{refused}");
    settings.url.0 = server.url().replace("nats://", "nats://ann:hunter2@");
    assert!(NatsBus::connect(settings.clone()).await.is_ok());
    server.kill();
    settings.connect_within = Duration::from_millis(300);
    let unreachable = NatsBus::connect(settings).await.err().unwrap();
    assert!(matches!(unreachable, ConnectError::Unreachable { .. }), "{unreachable}");
}

#[tokio::test]
async fn a_full_stream_says_so_and_a_forbidden_subject_too() {
    let Some(server) = NatsServer::start() else { return };
    let bus = connect(&server).await;
    topology::setup(&bus, &Limits { max_bytes: 64 * 1024, ..limits() }).await.unwrap();
    let filler = "x".repeat(10 * 1024);
    let mut refusal = None;
    for n in 0..20 {
        if let Err(error) = bus.publish(&sample_event(&format!("w-{n}"), "s", &filler)).await {
            refusal = Some(error);
            break;
        }
    }
    assert!(matches!(refusal, Some(BusError::Full(_))), "{refusal:?}");

    let server = NatsServer::start_configured(
        r#"authorization { users = [
            { user: admin, password: a }
            { user: worker, password: w, permissions: { publish: ["$JS.>", "_INBOX.>"], subscribe: ">" } }
        ] }"#,
    );
    let Some(server) = server else { return };
    let as_user = |who: &str| {
        let mut settings = settings(&server);
        settings.url.0 = server.url().replace("nats://", &format!("nats://{who}@"));
        settings.request_timeout = Duration::from_secs(1);
        settings
    };
    let admin = NatsBus::connect(as_user("admin:a")).await.unwrap();
    topology::setup(&admin, &limits()).await.unwrap();
    let worker = NatsBus::connect(as_user("worker:w")).await.unwrap();
    let forbidden = worker.publish(&sample_event("w", "s", "m")).await.err().unwrap();
    assert!(matches!(forbidden, BusError::Forbidden(_)), "{forbidden}");
}
