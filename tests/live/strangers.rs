//! Who may use a shared server tries to make it write where they may not: a server sends acknowledgements, deliveries and
//! traces to whatever subject a client names for them, past all permissions. Nothing of another's workflow changes.

use async_nats::{Client, HeaderMap, jetstream};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use throughline::bus::nats::{
    NatsBus, NatsSettings,
    topology::{self, Limits},
};
use throughline_actors::ports::{
    bus::{EventLog, Published},
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

/// Servers of the newest and of the oldest supported version with the accounts of `deploy/nats`, strict as its
/// configuration is, with streams and consumers.
async fn shared_servers() -> Vec<(NatsServer, NatsBus)> {
    let configuration = format!("jetstream {{ strict: true }}\n{}", accounts_with_passwords());
    let servers =
        [NatsServer::start_configured(&configuration), NatsServer::start_oldest_configured(&configuration)];
    let mut ready = Vec::new();
    for server in servers.into_iter().flatten() {
        let admin = as_role(&server, "admin").await;
        let limits = Limits { max_bytes: 256 * 1024 * 1024, ..Limits::default() };
        topology::setup(&admin, &limits).await.unwrap();
        ready.push((server, admin));
    }
    ready
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

/// Headers by which a publisher can ask a server to write elsewhere, later, or in place of other messages.
fn headers_that_write(target: &str) -> Vec<HeaderMap> {
    let pairs: [&[(&str, &str)]; 6] = [
        &[],
        &[("Nats-Trace-Dest", target)],
        &[("Nats-Trace-Dest", target), ("Nats-Trace-Only", "1")],
        &[("Nats-Schedule", "@every 1s"), ("Nats-Schedule-Target", target)],
        &[("Nats-Rollup", "all"), ("Nats-Msg-Id", target)],
        &[
            ("Nats-Expected-Stream", "throughline_EVENTS"),
            ("Nats-TTL", "1s"),
            ("Nats-Marker-Reason", "Purge"),
        ],
    ];
    let map = |pairs: &&[(&str, &str)]| {
        let mut map = HeaderMap::new();
        for &(name, value) in *pairs {
            map.insert(name, value);
        }
        map
    };
    pairs.iter().map(map).collect()
}

/// Requests that a server answers to whatever subject it is told, and those that have it deliver there later.
fn requests(other: &str, target: &str) -> Vec<(String, Bytes)> {
    let stream = "throughline_EVENTS";
    let push = json!({"stream_name": stream, "config": {
        "durable_name": "harm", "deliver_subject": target, "filter_subject": other, "ack_policy": "none"}});
    let ephemeral =
        json!({"stream_name": stream, "config": {"deliver_subject": target, "ack_policy": "none"}});
    let last = json!({"last_by_subj": other});
    let bodies = [
        (format!("CONSUMER.DURABLE.CREATE.{stream}.harm"), push.to_string()),
        (format!("CONSUMER.CREATE.{stream}.harm.{other}"), push.to_string()),
        (format!("CONSUMER.CREATE.{stream}"), ephemeral.to_string()),
        (format!("CONSUMER.MSG.NEXT.{stream}.harm"), "1".to_owned()),
        (format!("CONSUMER.MSG.NEXT.{stream}.stage_input"), "1".to_owned()),
        (format!("CONSUMER.INFO.{stream}.stage_input"), String::new()),
        (format!("CONSUMER.NAMES.{stream}"), String::new()),
        (format!("DIRECT.GET.{stream}.{other}"), String::new()),
        (format!("DIRECT.GET.{stream}"), last.to_string()),
        (format!("STREAM.MSG.GET.{stream}"), last.to_string()),
        (format!("STREAM.INFO.{stream}"), String::new()),
        ("STREAM.NAMES".to_owned(), String::new()),
        (
            "STREAM.CREATE.harm".to_owned(),
            json!({"name": "harm", "subjects": ["harm.>"],
            "republish": {"src": ">", "dest": target}})
            .to_string(),
        ),
        ("INFO".to_owned(), String::new()),
    ];
    bodies.into_iter().map(|(api, body)| (format!("$JS.API.{api}"), body.into())).collect()
}

#[tokio::test]
async fn a_publisher_cannot_make_the_server_write_for_it() {
    for (server, admin) in shared_servers().await {
        let worker = as_role(&server, "worker").await;
        let publisher = as_role(&server, "publisher").await;
        let victim = Victim::in_the_log(&worker).await;
        let client = publisher.client();
        let mut harm = admin.client().subscribe("throughline.control.>").await.unwrap();
        admin.client().flush().await.unwrap();
        let before = inputs(&admin).await;
        let targets = victim.targets();
        let send = async |target: &str, headers: HeaderMap| {
            let input =
                json!({"user_id": "u", "session_id": "mine", "user_input": "hi", "workflow_id": target});
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
        // A server need not store what it is to trace, or refuses what it is asked for.
        for target in &targets {
            for headers in headers_that_write(target).into_iter().skip(1) {
                send(target, headers).await;
            }
        }
        client.flush().await.unwrap();
        // A schedule would be due by then.
        let heard = tokio::time::timeout(SOON / 20, harm.next()).await;
        assert!(heard.is_err(), "something was said on a control subject: {heard:?}");
        assert!(inputs(&admin).await >= wanted, "something was purged");
        victim.is_unharmed(&worker, &admin).await;
    }
}

/// Who reads, or publishes, asks the server for everything that it answers, and names a subject of somebody else for the answer.
#[tokio::test]
async fn nobody_can_pass_what_a_server_answers_off_as_an_event() {
    for (server, admin) in shared_servers().await {
        let worker = as_role(&server, "worker").await;
        let victim = Victim::in_the_log(&worker).await;
        let other = sample_event("another", "s", "another's end");
        worker.publish(&other).await.unwrap();
        let ns = Namespace::new(NAMESPACE).unwrap();
        let other = other.subject().live(&ns);
        let mut hints = admin.client().subscribe("throughline.control.>").await.unwrap();
        admin.client().flush().await.unwrap();
        let before = inputs(&admin).await;
        for role in ["publisher", "reader"] {
            let stranger = as_role(&server, role).await;
            let client: &Client = stranger.client();
            for target in victim.targets() {
                for (request, body) in requests(&other, &target) {
                    client.publish_with_reply(request, target.clone(), body).await.unwrap();
                }
            }
            client.flush().await.unwrap();
            let heard = tokio::time::timeout(SOON / 20, hints.next()).await;
            // A reader can have an event delivered where hints are: that is none, and a hint only makes a worker look.
            let is_hint = |body: &[u8]| {
                serde_json::from_slice::<serde_json::Value>(body)
                    .is_ok_and(|body| body["workflow_id"].is_string())
            };
            assert!(
                !heard.as_ref().is_ok_and(|heard| role == "publisher"
                    || heard.as_ref().is_some_and(|heard| is_hint(&heard.payload))),
                "{role}: something was said on a control subject: {heard:?}"
            );
        }
        // What a reader has delivered to a subject of the log is stored there, and taken for nothing that it is not.
        assert!(inputs(&admin).await >= before, "something was purged");
        victim.is_unharmed(&worker, &admin).await;
    }
}

/// Who only waits uses nothing up: a server has room for a limited number of consumers.
#[tokio::test]
async fn many_who_wait_use_no_consumers() {
    for (server, admin) in shared_servers().await {
        let worker = as_role(&server, "worker").await;
        let publisher = as_role(&server, "publisher").await;
        let consumers = async || {
            let stream =
                jetstream::new(admin.client().clone()).get_stream("throughline_EVENTS").await.unwrap();
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
}
