//! Stops the work on a delivery whose message the server has given to another process.
//!
//! A process can stand still for longer than the server waits (stopped, swapped out, cut off), and goes on afterwards
//! as if nothing had happened. Work is therefore driven only while its delivery's lease is held, and after that only
//! while no other delivery has claimed the message.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use throughline_schemas::StageName;
use tokio::time::{Instant, timeout_at};

use crate::ports::bus::{Bus, Delivery};

/// Work on a delivery without a lease goes on for this long before the claim is read again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Another delivery has claimed the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenOver;

/// Drives `work` while no other delivery has claimed the message. What `work` was doing when the delivery was taken
/// over is dropped, a call of a model included.
pub async fn fenced<T>(
    bus: &Arc<dyn Bus>,
    stage: StageName,
    delivery: &Delivery,
    work: impl Future<Output = T>,
) -> Result<T, TakenOver> {
    let Some(lease) = delivery.receipt.lease() else { return Ok(work.await) };
    let mut work = pin!(work);
    if let Some(done) = driven(work.as_mut(), |now| lease.is_held(now)).await {
        return Ok(done);
    }
    loop {
        if is_taken_over(bus, stage, delivery).await {
            tracing::warn!(
                %stage,
                sequence = delivery.sequence,
                delivery = delivery.delivered,
                "another worker has taken the message over, nothing is published here"
            );
            return Err(TakenOver);
        }
        let until = Instant::now() + ASK_AGAIN;
        if let Ok(Some(done)) = timeout_at(until, driven(work.as_mut(), |now| now < until)).await {
            return Ok(done);
        }
    }
}

/// Goes on with the work for as long as it `may` go on. That is looked at before each step: the process may have stood
/// still since the last one.
async fn driven<T>(mut work: Pin<&mut impl Future<Output = T>>, may: impl Fn(Instant) -> bool) -> Option<T> {
    poll_fn(
        |context| {
            if may(Instant::now()) { work.as_mut().poll(context).map(Some) } else { Poll::Ready(None) }
        },
    )
    .await
}

/// Whether a later delivery of the message has been claimed. While that cannot be asked, nothing can be published
/// either, and the work in hand may be an answer that was paid for.
async fn is_taken_over(bus: &Arc<dyn Bus>, stage: StageName, delivery: &Delivery) -> bool {
    if !bus.is_connected() {
        return false;
    }
    match bus.claim(stage, delivery.sequence).await {
        Ok(claimed) => claimed.is_some_and(|claimed| claimed.claim.delivery > delivery.delivered),
        Err(error) => {
            tracing::debug!(%stage, %error, "cannot ask whether a message was taken over");
            false
        }
    }
}
