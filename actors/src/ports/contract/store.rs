//! What every [`Store`] keeps to, as small stories. `store_contract!` makes one test of each.

// Stories are tests: they end by panicking, and read their material without naming each piece of it.
#![allow(clippy::expect_used, clippy::missing_panics_doc, clippy::panic, clippy::wildcard_imports)]

mod busy;
mod context;
mod endings;
mod held;
mod interleavings;
mod listing;
mod material;
mod on_record;
mod order;
mod same_id;
mod sweep;

pub use busy::*;
pub use context::*;
pub use endings::*;
pub use held::*;
pub use interleavings::*;
pub use listing::*;
pub use on_record::*;
pub use order::*;
pub use same_id::*;
pub use sweep::*;

use serde_json::{Map, Value};
use throughline_schemas::UserId;

use crate::ports::{memory::store::MemoryStore, store::Store};

/// A store under test, with what the port itself does not offer.
#[allow(async_fn_in_trait)] // Nothing here leaves the task of its test.
pub trait UnderTest: Store {
    /// Sets these preferences of a user and leaves the others.
    async fn set_preferences(&self, user: &UserId, preferences: &Map<String, Value>);
    /// Deletes these preferences of a user, or all; says how many.
    async fn delete_preferences(&self, user: &UserId, names: Option<&[String]>) -> u64;
    /// A store of another namespace, in the same place.
    async fn beside(&self) -> Box<dyn Store>;
}

impl UnderTest for MemoryStore {
    async fn set_preferences(&self, user: &UserId, preferences: &Map<String, Value>) {
        Self::set_preferences(self, user, preferences);
    }

    async fn delete_preferences(&self, user: &UserId, names: Option<&[String]>) -> u64 {
        Self::delete_preferences(self, user, names)
    }

    async fn beside(&self) -> Box<dyn Store> {
        Box::new(MemoryStore::new())
    }
}

/// One `#[tokio::test]` for each story. The argument is a future of a fresh, empty store, in anything that
/// dereferences to it (so that a temporary directory may live as long as the test), or of `None` where this machine
/// cannot have one.
#[macro_export]
macro_rules! store_contract {
    ($make:expr) => {
        $crate::store_contract! { $make =>
            a_workflow_id_is_admitted_once
            a_refused_input_is_recorded_and_takes_no_place
            the_first_of_two_messages_with_one_workflow_id_wins_within_a_batch
            a_session_runs_one_turn_at_a_time_in_the_order_of_the_stream
            a_turn_admitted_late_runs_before_those_that_wait_behind_it
            sessions_do_not_wait_for_each_other
            an_empty_batch_is_answered
            a_saved_turn_stays_saved
            a_failed_turn_stays_failed_and_is_not_stored
            a_waiting_turn_that_ends_never_runs
            the_released_turn_is_named_again_when_asked_again
            a_turn_nobody_admitted_can_be_saved
            a_turn_nobody_admitted_can_be_failed_and_never_runs
            failing_one_message_leaves_the_workflow_of_another_alone
            a_second_answer_does_not_replace_the_first
            a_session_that_is_not_busy_runs_whatever_comes
            a_message_may_be_rejected_by_a_busy_session
            a_message_may_interrupt_the_running_turn
            an_interruption_takes_no_place_of_others
            waiting_messages_may_become_one_turn
            only_neighbours_who_want_it_are_merged
            a_session_may_belong_to_its_first_user
            the_owner_of_a_session_is_who_is_first_in_the_stream
            a_user_runs_no_more_turns_than_its_share
            users_share_what_there_is
            users_without_a_least_are_held_together
            a_held_turn_keeps_its_place_in_its_session
            the_next_turn_of_a_session_overtakes_nobody
            a_session_whose_turn_is_held_is_busy
            held_turns_of_many_users_are_looked_at_by_and_by
            a_user_has_no_more_open_turns_than_it_may
            without_a_share_nothing_is_held
            running_turns_are_listed_by_their_start
            a_running_turn_can_be_begun_again
            the_turn_that_ended_before_another_is_known
            a_message_that_is_published_again_is_a_repetition
            another_message_with_a_known_id_is_a_conflict
            a_message_that_is_read_otherwise_later_is_the_same_message
            a_turn_that_ended_before_it_was_admitted_is_known_by_user_and_session
            namespaces_share_nothing
            an_answer_on_record_can_be_told_again
            the_reason_of_a_failure_is_on_record
            the_oldest_open_turn_is_known
            ended_turns_are_forgotten_oldest_first
            an_end_that_was_told_is_put_on_record
            a_restored_end_starts_the_next_turn
            turns_are_listed_newest_first
            a_list_can_be_narrowed
            open_turns_are_counted
            the_mark_moves_only_from_where_it_is
            the_latest_turns_come_oldest_first
            users_who_share_a_session_id_do_not_see_each_other
            preferences_are_set_one_by_one
            preferences_are_deleted_by_name_or_all
            hostile_ids_and_texts_come_back_as_they_were
            any_interleaving_keeps_the_order_of_every_session
            any_interleaving_keeps_the_order_although_users_have_shares
        }
    };
    ($make:expr => $($story:ident)+) => {
        $(
            #[tokio::test]
            async fn $story() {
                let Some(subject) = $make.await else { return };
                $crate::ports::contract::store::$story(&*subject).await;
            }
        )+
    };
}
