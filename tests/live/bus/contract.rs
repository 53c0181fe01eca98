//! The port's contract on a real server.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use throughline::bus::nats::{NatsBus, ReadRequest};
use throughline_actors::ports::{
    bus::Bus,
    contract::{
        bus::{self as contract, Bench},
        log as log_contract,
    },
    log::Log,
    memory::bus::Stored,
};
use throughline_schemas::Namespace;
use tokio::sync::mpsc;

use super::{ACK_WAIT, set_up};
use crate::nats_server::NatsServer;

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
    fn log(&self) -> &dyn Log {
        &self.bus
    }
    fn namespace(&self) -> &Namespace {
        self.bus.namespace()
    }
    fn ack_wait(&self) -> Duration {
        ACK_WAIT
    }
    async fn publish_raw(&self, subject: &str, headers: &[(&str, &str)], body: Bytes) {
        super::publish_raw(&self.bus, subject.to_owned(), headers, body).await;
    }
    async fn dead_letters(&self) -> Vec<Stored> {
        let dead = super::read(&self.bus, ReadRequest::all_dead(self.namespace())).await;
        let stored = dead.into_iter().map(|dead| Stored {
            sequence: dead.sequence,
            subject: dead.subject,
            headers: dead.headers,
            body: dead.body,
            stored_at: dead.stored_at,
        });
        stored.collect()
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
    ($suite:ident: $($promise:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $promise() {
            let Some(server) = NatsServer::start() else { return };
            let bus = set_up(&server).await;
            $suite::$promise(&Live { bus, _server: server }).await;
        })*
    };
}

keeps!(
    contract:
    publishing_is_idempotent,
    what_is_stored_can_be_read,
    a_foreign_message_id_hides_no_event,
    what_is_no_event_hides_no_event,
    deliveries_arrive_in_stream_order,
    never_more_than_granted,
    what_is_not_settled_comes_again,
    a_returned_delivery_waits_for_its_delay,
    progress_keeps_a_delivery_alive,
    a_dead_letter_keeps_everything,
    a_process_that_takes_over_begins_with_what_was_left,
    a_claim_is_what_was_last_said,
    a_note_is_what_was_last_left,
    what_is_given_up_on_is_handed_over_for_dead_lettering,
    a_stage_is_shared_by_its_inboxes,
    announcements_reach_listeners,
    the_log_tells_where_a_workflow_stands_and_since_when,
    ends_come_page_by_page_in_the_order_of_the_log,
);

keeps!(
    log_contract:
    what_is_not_settled_is_needed,
    only_what_lies_below_is_removed,
    what_is_finished_can_be_removed_from_behind_what_is_needed,
    ages_are_those_of_the_log,
    what_waits_to_be_dead_lettered_is_needed,
);
