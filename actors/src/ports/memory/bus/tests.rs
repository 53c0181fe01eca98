#![allow(clippy::unwrap_used)]
use super::*;
use crate::ports::{
    bus::Settlement,
    contract::bus::{self as contract, Bench},
};

struct Memory(MemoryBus);

#[async_trait]
impl Bench for Memory {
    fn bus(&self) -> &dyn Bus {
        &self.0
    }
    fn log(&self) -> &dyn crate::ports::log::Log {
        &self.0
    }
    fn namespace(&self) -> &Namespace {
        self.0.namespace()
    }
    fn ack_wait(&self) -> Duration {
        self.0.shared.ack_wait
    }
    async fn publish_raw(&self, subject: &str, headers: &[(&str, &str)], body: Bytes) {
        self.0.publish_raw(subject, headers, body);
    }
    async fn dead_letters(&self) -> Vec<Stored> {
        self.0.dead_letters()
    }
    async fn listen(&self, topic: &str) -> mpsc::UnboundedReceiver<Bytes> {
        self.0.listen(topic)
    }
}

fn bench() -> Memory {
    // Short, so that the suite's patience covers several of them.
    let ns = Namespace::new("t").unwrap();
    Memory(MemoryBus::with_limits(ns, Duration::from_secs(2), contract::MAX_DELIVER))
}

macro_rules! keeps {
    ($($promise:ident),* $(,)?) => {
        $(#[tokio::test(start_paused = true)]
        async fn $promise() {
            contract::$promise(&bench()).await;
        })*
    };
}

keeps!(
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

#[tokio::test(start_paused = true)]
async fn an_unacknowledged_publish_is_there_all_the_same() {
    let bus = bench().0;
    bus.fail_publishes([PublishFault::Lost, PublishFault::Unacknowledged, PublishFault::Full]);
    let event = contract::sample_event("w", "s", "m");
    assert!(matches!(bus.publish(&event).await, Err(BusError::Unavailable { .. })));
    assert!(!bus.exists(&event.subject()).await.unwrap());
    assert!(matches!(bus.publish(&event).await, Err(BusError::Unavailable { .. })));
    assert!(bus.exists(&event.subject()).await.unwrap());
    assert!(matches!(bus.publish(&event).await, Err(BusError::Full(_))));
    assert_eq!(bus.publish(&event).await.unwrap(), Published::Already);
    assert_eq!(bus.ended(&event.meta.workflow_id).await, event);
}

#[tokio::test(start_paused = true)]
async fn an_interruption_is_ridden_out_and_answers_given_meanwhile_are_lost() {
    let bus = bench().0;
    bus.publish_input("u", "s", "w", "hello");
    let mut inbox = bus.open(StageName::Input).await.unwrap();
    inbox.grant(2).await.unwrap();
    let first = inbox.next().await.unwrap();
    bus.set_connected(false);
    assert!(!bus.is_connected());
    assert!(first.receipt.settle(Settlement::Acknowledged).await.is_err());
    let waiting = tokio::spawn(async move { inbox.next().await });
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!waiting.is_finished());
    bus.set_connected(true);
    let second = waiting.await.unwrap().unwrap();
    assert_eq!((second.sequence, second.delivered), (1, 2));
}

mod log {
    use super::bench;
    use crate::ports::contract::log as contract;

    macro_rules! keeps {
        ($($promise:ident),* $(,)?) => {
            $(#[tokio::test(start_paused = true)]
            async fn $promise() {
                contract::$promise(&bench()).await;
            })*
        };
    }

    keeps!(
        what_is_not_settled_is_needed,
        only_what_lies_below_is_removed,
        what_is_finished_can_be_removed_from_behind_what_is_needed,
        ages_are_those_of_the_log,
        what_waits_to_be_dead_lettered_is_needed,
    );
}
