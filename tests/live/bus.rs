//! The `JetStream` bus against a real server: the port's contract, and what only a real server can show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use throughline::bus::nats::{
    ConnectError, NatsBus, NatsSettings, ReadRequest,
    topology::{self, Limits},
};
use throughline_actors::ports::{
    bus::{Bus, BusError, Delivery, Inbox, Published, Settlement},
    contract::bus::{self as contract, Bench, sample_event},
    memory::bus::Stored,
};
use throughline_schemas::{
    Event, EventType, Namespace, SessionId, StageName, Subject, Timestamp, WorkflowId, decode, token,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::nats_server::NatsServer;

/// Within this something that must happen has happened.
const SOON: Duration = Duration::from_secs(20);
/// Short enough to wait for, long enough not to expire by accident on a busy machine.
const ACK_WAIT: Duration = Duration::from_secs(2);

fn settings(server: &NatsServer) -> NatsSettings {
    let mut settings = NatsSettings::new(server.url(), Namespace::new("t").unwrap());
    settings.ack_wait = ACK_WAIT;
    settings
}

fn limits() -> Limits {
    Limits { max_bytes: 256 * 1024 * 1024, ..Limits::default() }
}

async fn connect(server: &NatsServer) -> NatsBus {
    NatsBus::connect(settings(server)).await.unwrap()
}

async fn set_up(server: &NatsServer) -> NatsBus {
    let bus = connect(server).await;
    topology::setup(&bus, &limits()).await.unwrap();
    bus
}

async fn inbox(bus: &NatsBus, stage: StageName, granted: usize) -> Box<dyn Inbox> {
    let mut inbox = bus.open(stage).await.unwrap();
    inbox.grant(granted).await.unwrap();
    inbox
}

async fn next(inbox: &mut dyn Inbox) -> Delivery {
    timeout(SOON, inbox.next()).await.expect("a delivery in time").unwrap()
}

async fn ack(delivery: &Delivery) {
    delivery.receipt.settle(Settlement::Acknowledged).await.unwrap();
}

struct Live {
    bus: NatsBus,
    // Ends when the test does.
    _server: NatsServer,
}

#[async_trait]
impl Bench for Live {
    fn bus(&self) -> &dyn Bus {
        &self.bus
    }
    fn namespace(&self) -> &Namespace {
        self.bus.namespace()
    }
    fn ack_wait(&self) -> Duration {
        ACK_WAIT
    }
    async fn publish_raw(&self, subject: &str, headers: &[(&str, &str)], body: Bytes) {
        let mut map = async_nats::HeaderMap::new();
        for &(name, value) in headers {
            map.append(name, value);
        }
        let jetstream = async_nats::jetstream::new(self.bus.client().clone());
        jetstream.publish_with_headers(subject.to_owned(), map, body).await.unwrap().await.unwrap();
    }
    async fn dead_letters(&self) -> Vec<Stored> {
        let mut reader = self.bus.read(ReadRequest::all_dead(self.namespace())).await.unwrap();
        let mut dead = Vec::new();
        while let Some(stored) = reader.next().await.unwrap() {
            dead.push(Stored {
                sequence: stored.sequence,
                subject: stored.subject,
                headers: stored.headers,
                body: stored.body,
                stored_at: stored.stored_at,
            });
        }
        dead
    }
    async fn listen(&self, topic: &str) -> mpsc::UnboundedReceiver<Bytes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut subscriber = self.bus.client().subscribe(self.namespace().control(topic)).await.unwrap();
        self.bus.client().flush().await.unwrap();
        tokio::spawn(async move {
            while let Some(message) = subscriber.next().await {
                if sender.send(message.payload).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

macro_rules! keeps {
    ($($promise:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $promise() {
            let Some(server) = NatsServer::start() else { return };
            let bus = set_up(&server).await;
            contract::$promise(&Live { bus, _server: server }).await;
        })*
    };
}

keeps!(
    publishing_is_idempotent,
    a_foreign_message_id_hides_no_event,
    deliveries_arrive_in_stream_order,
    never_more_than_granted,
    what_is_not_settled_comes_again,
    a_returned_delivery_waits_for_its_delay,
    progress_keeps_a_delivery_alive,
    a_dead_letter_keeps_everything,
    a_stage_is_shared_by_its_inboxes,
    announcements_reach_listeners,
);
