//! Who may use a shared server tries to make it write where they may not: a server sends acknowledgements, deliveries and
//! traces to whatever subject a client names for them, past all permissions. Nothing of another's workflow changes.

use async_nats::{
    Client, HeaderMap,
    jetstream::{self, consumer::push},
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use throughline::bus::nats::{
    NatsBus, NatsSettings,
    topology::{self, Limits},
};
use throughline_actors::ports::{
    bus::{Bus, Published},
    contract::bus::sample_event,
};
use throughline_schemas::{Event, Namespace, Subject};

use crate::{
    harness::{
        SOON,
        cluster::{BARE, NAMESPACE},
        eventually,
    },
    nats_server::NatsServer,
};

/// The users of `accounts.conf`, with passwords in place of keys.
pub(crate) fn accounts_with_passwords() -> String {
    let conf = include_str!("../../deploy/nats/accounts.conf").replace("include \"users.conf\"", "");
    ["SYSTEM", "ADMIN", "WORKER", "PUBLISHER", "READER"].iter().fold(conf, |conf, role| {
        let user = role.to_lowercase();
        conf.replace(&format!("nkey: ${role}"), &format!("user: {user}, password: {user}"))
    })
}

/// A connection as a role, with the inbox that it may have.
pub(crate) async fn as_role(server: &NatsServer, role: &str) -> NatsBus {
    let url = server.url().replace("nats://", &format!("nats://{role}:{role}@"));
    let mut settings = NatsSettings::new(url, Namespace::new(NAMESPACE).unwrap());
    settings.inbox_prefix = if role == "admin" { "_INBOX".to_owned() } else { format!("_INBOX_{role}") };
    NatsBus::connect(settings).await.unwrap()
}

/// A server with the accounts of `deploy/nats`, strict as its configuration is, with streams and consumers.
async fn shared_server() -> Option<(NatsServer, NatsBus)> {
    let server = NatsServer::start_configured(&format!(
        "jetstream {{ strict: true }}\n{}",
        accounts_with_passwords()
    ))?;
    let admin = as_role(&server, "admin").await;
    let limits = Limits { max_bytes: 256 * 1024 * 1024, ..Limits::default() };
    topology::setup(&admin, &limits).await.unwrap();
    Some((server, admin))
}

/// What one workflow of somebody else has in the log, and where its next events will be.
struct Victim {
    told: Event,
    to_come: Event,
    end: Subject,
}

impl Victim {
    async fn in_the_log(worker: &NatsBus) -> Self {
        let told = sample_event("told", "s", "the true end");
        assert_eq!(worker.publish(&told).await.unwrap(), Published::New);
        let to_come = sample_event("to-come", "s", "the true end");
        Self { end: told.subject(), told, to_come }
    }

    /// Every subject on which the server could do harm to it.
    fn targets(&self) -> Vec<String> {
        let ns = Namespace::new(NAMESPACE).unwrap();
        let api = [
            "STREAM.PURGE.throughline_EVENTS",
            "STREAM.PURGE.throughline_DEAD",
            "STREAM.DELETE.throughline_EVENTS",
        ];
        let consumers = [
            "CONSUMER.DELETE.throughline_EVENTS.stage_input",
            "CONSUMER.RESET.throughline_EVENTS.stage_generation",
        ];
        let mut targets: Vec<_> =
            api.iter().chain(&consumers).map(|name| format!("$JS.API.{name}")).collect();
        targets.extend([self.end.live(&ns), self.to_come.subject().live(&ns)]);
        targets.extend([ns.control("interrupt"), ns.control("breaker"), "throughline.live.told".to_owned()]);
        targets.push("throughline.dead.v1.input_validated.s.told".to_owned());
        targets
    }

    /// What it has is there, what comes finds its place, and the stages' consumers are as they were.
    async fn is_unharmed(&self, worker: &NatsBus, admin: &NatsBus) {
        assert!(worker.exists(&self.end).await.unwrap());
        assert_eq!(worker.publish(&self.told).await.unwrap(), Published::Already);
        assert!(!worker.exists(&self.to_come.subject()).await.unwrap(), "something was taken for the end");
        assert_eq!(worker.publish(&self.to_come).await.unwrap(), Published::New);
        let stored = worker.last(&self.to_come.subject()).await.unwrap().unwrap();
        assert_eq!(throughline_schemas::decode(&stored.body).unwrap(), self.to_come);
        let stream = jetstream::new(admin.client().clone()).get_stream("throughline_EVENTS").await.unwrap();
        assert!(stream.cached_info().state.consumer_count >= 5, "a consumer is gone");
    }
}

async fn inputs(admin: &NatsBus) -> u64 {
    let stream = jetstream::new(admin.client().clone()).get_stream("throughline_EVENTS").await.unwrap();
    stream.cached_info().state.messages
}

#[tokio::test]
async fn a_publisher_cannot_make_the_server_write_for_it() {
    let Some((server, admin)) = shared_server().await else { return };
    let worker = as_role(&server, "worker").await;
    let publisher = as_role(&server, "publisher").await;
    let victim = Victim::in_the_log(&worker).await;
    let client = publisher.client();
    let mut harm = admin.client().subscribe("throughline.control.>").await.unwrap();
    admin.client().flush().await.unwrap();
    let before = inputs(&admin).await;
    let targets = victim.targets();
    let send = async |target: &str, headers: HeaderMap| {
        let input = json!({"user_id": "u", "session_id": "mine", "user_input": "hi", "workflow_id": target});
        let body = Bytes::from(input.to_string());
        client.publish_with_reply_and_headers(BARE, target.to_owned(), headers, body).await.unwrap();
    };
    for target in &targets {
        send(target, HeaderMap::new()).await;
    }
    let wanted = before + targets.len() as u64;
    eventually("every input is stored, and nothing was purged", async || {
        (inputs(&admin).await == wanted).then_some(())
    })
    .await;
    // A server need not store what it is to trace.
    for target in &targets {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Trace-Dest", target.as_str());
        send(target, headers).await;
    }
    client.flush().await.unwrap();
    assert!(
        tokio::time::timeout(SOON / 20, harm.next()).await.is_err(),
        "something was said on a control subject"
    );
    assert!(inputs(&admin).await >= wanted, "something was purged");
    victim.is_unharmed(&worker, &admin).await;
}

/// A reader has consumers, whose deliveries go where it says.
#[tokio::test]
async fn a_reader_cannot_pass_deliveries_off_as_events() {
    let Some((server, admin)) = shared_server().await else { return };
    let worker = as_role(&server, "worker").await;
    let reader = as_role(&server, "reader").await;
    let victim = Victim::in_the_log(&worker).await;
    let other = sample_event("another", "s", "another's end");
    worker.publish(&other).await.unwrap();
    let client: &Client = reader.client();
    let jetstream = jetstream::new(client.clone());
    let events = jetstream.get_stream_no_info("throughline_EVENTS").await.unwrap();
    let ns = Namespace::new(NAMESPACE).unwrap();
    for (n, target) in [victim.end.live(&ns), victim.to_come.subject().live(&ns)].into_iter().enumerate() {
        // Whether a server takes such a consumer is its business.
        let config = push::Config {
            durable_name: Some(format!("harm{n}")),
            deliver_subject: target.clone(),
            filter_subject: other.subject().live(&ns),
            ..push::Config::default()
        };
        drop(events.create_consumer(config).await);
        let next = "$JS.API.CONSUMER.MSG.NEXT.throughline_EVENTS.harm0";
        client.publish_with_reply(next, target.clone(), Bytes::from_static(b"1")).await.unwrap();
        let get = format!("$JS.API.DIRECT.GET.throughline_EVENTS.{}", other.subject().live(&ns));
        client.publish_with_reply(get, target, Bytes::new()).await.unwrap();
    }
    client.flush().await.unwrap();
    tokio::time::sleep(SOON / 20).await;
    victim.is_unharmed(&worker, &admin).await;
}

/// Who only waits uses nothing up: a server has room for a limited number of consumers.
#[tokio::test]
async fn many_who_wait_use_no_consumers() {
    let Some((server, admin)) = shared_server().await else { return };
    let worker = as_role(&server, "worker").await;
    let publisher = as_role(&server, "publisher").await;
    let consumers = async || {
        let stream = jetstream::new(admin.client().clone()).get_stream("throughline_EVENTS").await.unwrap();
        stream.cached_info().state.consumer_count
    };
    let before = consumers().await;
    let events: Vec<_> = (0..2_000).map(|n| sample_event(&format!("w{n}"), "s", "an end")).collect();
    let mut waiting = Vec::new();
    for event in &events {
        waiting.push(publisher.ends_of(&event.meta.session_id, &event.meta.workflow_id).await.unwrap());
    }
    assert_eq!(consumers().await, before);
    for event in &events {
        worker.publish(event).await.unwrap();
    }
    for (watch, event) in waiting.iter_mut().zip(&events) {
        let end = tokio::time::timeout(SOON, watch.next()).await.unwrap().unwrap();
        assert_eq!(&throughline_schemas::decode(&end.body).unwrap(), event);
    }
}
