//! The `JetStream` bus against a real server: the port's contract, and what only a real server can show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

mod bodies;
mod contract;
mod faults;
mod half_open;
mod ids;
mod measure;
mod pin;
mod poison;
mod setup;

use std::time::Duration;

pub(crate) use bodies::large_events_arrive;

use bytes::Bytes;
use throughline::bus::nats::{
    NatsBus, NatsSettings, ReadRequest, StoredEvent,
    topology::{self, Limits},
};
use throughline_actors::ports::{
    bus::{DeadLetters, Delivery, EventLog, Inbox, Inboxes, Settlement},
    contract::bus as bus_contract,
};
use throughline_schemas::{Namespace, StageName};
use tokio::time::timeout;

use crate::{harness::left_out, nats_server::NatsServer};

/// Within this something that must happen has happened.
const SOON: Duration = Duration::from_secs(20);
/// Short enough to wait for, long enough not to expire by accident on a busy machine.
const ACK_WAIT: Duration = Duration::from_secs(2);

fn settings(server: &NatsServer) -> NatsSettings {
    let mut settings = NatsSettings::new(server.url(), Namespace::new("t").unwrap());
    settings.ack_wait = ACK_WAIT;
    settings.max_deliver = bus_contract::MAX_DELIVER;
    settings
}

fn limits() -> Limits {
    Limits { max_bytes: 256 * 1024 * 1024, ..Limits::default() }
}

async fn connect(server: &NatsServer) -> NatsBus {
    NatsBus::connect(settings(server)).await.unwrap()
}

pub(crate) async fn set_up(server: &NatsServer) -> NatsBus {
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

/// Publishes as any client might, and waits until it is stored.
async fn publish_raw(
    bus: &NatsBus,
    subject: String,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> u64 {
    let mut map = async_nats::HeaderMap::new();
    for &(name, value) in headers {
        map.append(name, value);
    }
    let jetstream = async_nats::jetstream::new(bus.client().clone());
    let stored = jetstream.publish_with_headers(subject, map, body.into()).await.unwrap().await.unwrap();
    stored.sequence
}

async fn read(bus: &NatsBus, request: ReadRequest) -> Vec<StoredEvent> {
    let mut reader = bus.read(request).await.unwrap();
    let mut all = Vec::new();
    while let Some(stored) = timeout(SOON, reader.next()).await.expect("a stored event in time").unwrap() {
        all.push(stored);
    }
    all
}
