#![allow(clippy::unwrap_used)]
use std::{future::Future, task::Poll};

use tokio::time::{advance, sleep};

use super::*;

const MIB: u64 = 1024 * 1024;

fn stage(budget: &Budget) -> StageMemory {
    StageMemory::new(StageName::External, budget.clone(), 1_000)
}

/// Whether a future is done when it is polled once.
fn is_done<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
    matches!(future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())), Poll::Ready(_))
}

#[tokio::test(start_paused = true)]
async fn large_shares_are_had_in_turn_and_never_more_than_there_is() {
    let budget = Budget::new(16 * MIB);
    let memory = stage(&budget);
    let (one, two, three) = (memory.room(), memory.room(), memory.room());
    one.take_all(10 * MIB).await;
    let (mut second, mut third) = (pin!(two.take_all(10 * MIB)), pin!(three.take_all(3 * MIB)));
    assert!(!is_done(second.as_mut()));
    assert!(!is_done(third.as_mut()), "it is not overtaken, though there is room for three");
    let MemoryUse { budget: all, waiting, .. } = budget.usage();
    assert_eq!((all, waiting), (16 * MIB, 2));
    drop(one);
    assert!(is_done(second.as_mut()));
    assert!(!is_done(third.as_mut()));
    two.shrink(0);
    assert!(is_done(third.as_mut()));
    assert_eq!(budget.usage().reserved, 3 * MIB);
    three.shrink(0);
    assert_eq!((budget.usage().reserved, budget.usage().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn small_shares_do_not_wait_behind_large_ones_and_do_not_keep_them_from_their_turn() {
    let budget = Budget::new(64 * MIB);
    let memory = stage(&budget);
    let large = memory.room();
    large.take_all(48 * MIB).await;
    let next = memory.room();
    let mut waiting = pin!(next.take_all(48 * MIB));
    assert!(!is_done(waiting.as_mut()));
    // Sixteen small shares fill their part.
    let small: Vec<Room> = (0..16).map(|_| memory.room()).collect();
    for room in &small {
        assert!(is_done(pin!(room.take(MIB))));
    }
    let late = memory.room();
    assert!(!is_done(pin!(late.take(MIB))));
    drop(large);
    assert!(!is_done(pin!(memory.room().take(MIB))), "what is free is the waiting one's");
    assert!(is_done(waiting.as_mut()));
}

#[tokio::test(start_paused = true)]
async fn what_is_free_serves_small_shares_too() {
    let budget = Budget::new(64 * MIB);
    let memory = stage(&budget);
    let rooms: Vec<Room> = (0..64).map(|_| memory.room()).collect();
    for room in &rooms {
        assert!(is_done(pin!(room.take(MIB))));
    }
    assert_eq!(budget.usage().reserved, 64 * MIB);
}

#[tokio::test(start_paused = true)]
async fn a_share_that_is_larger_than_everything_is_had_alone() {
    let budget = Budget::new(16 * MIB);
    let memory = stage(&budget);
    let (huge, other) = (memory.room(), memory.room());
    huge.take_all(u64::MAX).await;
    let mut waiting = pin!(other.take_all(2 * MIB));
    assert!(!is_done(waiting.as_mut()));
    drop(huge);
    assert!(is_done(waiting.as_mut()));
}

#[tokio::test(start_paused = true)]
async fn more_is_taken_in_place_of_the_first_share_and_by_all_calls_of_a_delivery_together() {
    let budget = Budget::new(64 * MIB);
    let memory = stage(&budget);
    let (one, two) = (memory.room(), memory.room());
    one.take(MIB).await;
    two.take(MIB).await;
    assert!(one.take_more_now(30 * MIB));
    assert_eq!(budget.usage().reserved, 32 * MIB, "31 and 1");
    assert!(one.take_more_now(40 * MIB), "the first call has said what all of them need");
    assert!(!two.take_more_now(30 * MIB));
    let (mut a, mut b) = (pin!(two.take_more(30 * MIB)), pin!(two.take_more(30 * MIB)));
    assert!(!is_done(a.as_mut()) && !is_done(b.as_mut()));
    assert!(!two.take_more_now(MIB), "it waits already");
    // A waiter holds nothing: else two that have something each could wait for each other.
    one.shrink(0);
    assert!(is_done(a.as_mut()));
    assert!(is_done(b.as_mut()));
    assert_eq!(budget.usage().reserved, 32 * MIB, "1 is left of the first, and 31");
}

#[tokio::test(start_paused = true)]
async fn many_deliveries_that_all_need_more_come_to_their_end() {
    let budget = Budget::new(16 * MIB);
    let memory = stage(&budget);
    let work = (0..60).map(|n| {
        let memory = memory.clone();
        async move {
            let room = memory.room();
            room.take(MIB / 4).await;
            sleep(Duration::from_millis(n % 7)).await;
            tokio::join!(room.take_more((n % 12) * MIB), room.take_more(2 * MIB));
            sleep(Duration::from_millis(10)).await;
        }
    });
    timeout(Duration::from_mins(1), futures_util::future::join_all(work)).await.unwrap();
    assert_eq!(budget.usage().reserved, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_refuses_waiters_at_once_and_takes_nothing_from_others() {
    let budget = Budget::new(16 * MIB);
    let memory = stage(&budget);
    let (held, waits) = (memory.room(), memory.room());
    held.take_all(12 * MIB).await;
    let mut take = pin!(waits.take_all(12 * MIB));
    let mut refused = pin!(waits.refused());
    assert!(!is_done(take.as_mut()) && !is_done(refused.as_mut()));
    budget.close();
    assert!(!is_done(take.as_mut()), "there is none, so it never completes");
    assert_eq!(refused.await, NoRoom::Stopping);
    assert!(!is_done(pin!(held.refused())));
    let late = memory.room();
    assert!(!is_done(pin!(late.take(MIB))));
    assert_eq!(late.refused().await, NoRoom::Stopping);
    let Outcome::Later { after, .. } = NoRoom::Stopping.outcome() else { unreachable!() };
    assert_eq!(after, Duration::ZERO, "another worker has it at once");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_of_a_stage_wait_and_none_for_ever() {
    let budget = Budget::new(16 * MIB);
    let memory = StageMemory::new(StageName::Context, budget.clone(), 4);
    let held = memory.room();
    held.take_all(12 * MIB).await;
    let rooms: Vec<Room> = (0..3).map(|_| memory.room()).collect();
    let mut waits: Vec<_> = rooms.iter().map(|room| Box::pin(room.take_all(12 * MIB))).collect();
    for wait in &mut waits {
        assert!(!is_done(wait.as_mut()));
    }
    assert_eq!(rooms[2].refused().await, NoRoom::TooManyWait, "half of four slots");
    assert_eq!(budget.usage().waiting, 2);
    advance(MEMORY_LONG_WAIT).await;
    assert_eq!(budget.usage().longest_wait, MEMORY_LONG_WAIT);
    // A stage of its own has waits of its own.
    let other = StageMemory::new(StageName::External, budget.clone(), 4).room();
    assert!(!is_done(pin!(other.take_all(12 * MIB))));
    let refusals = futures_util::future::join(rooms[0].refused(), rooms[1].refused());
    let (first, second) = tokio::select! {
        refusals = refusals => refusals,
        _ = futures_util::future::join_all(waits) => unreachable!(),
    };
    assert_eq!((first, second), (NoRoom::TooLong, NoRoom::TooLong));
    assert_eq!(budget.usage().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_for_nothing() {
    let budget = Budget::new(0);
    budget.close();
    let room = stage(&budget).room();
    assert!(is_done(pin!(room.take(0))) && is_done(pin!(room.take_all(0))));
    assert_eq!(budget.usage().budget, MIB, "a budget is never smaller");
    assert_eq!(Budget::unbounded().usage().budget / MIB / MIB, 1);
}
