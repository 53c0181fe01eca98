//! Stopping: what is in hand is finished or handed back, and counted.

use std::{mem, time::Duration};

use ractor::RpcReplyPort;

use super::{Drained, StageState};
use crate::ports::bus::{Delivery, Settlement};

impl StageState {
    pub(super) fn drain(&mut self, reply: RpcReplyPort<Drained>) {
        self.intake.abort();
        let waiting: Vec<Delivery> = self.queue.drain(..).collect();
        let handed_back = waiting.len();
        let (drained, replies) = self.draining.get_or_insert_default();
        drained.handed_back += handed_back;
        replies.push(reply);
        self.hand_back(waiting, Duration::ZERO);
        self.answer_if_drained(0);
    }

    pub(super) fn answer_if_drained(&mut self, finished: usize) {
        let nothing_left = self.in_hand() == 0;
        if let Some((drained, replies)) = &mut self.draining {
            drained.finished += finished;
            if nothing_left {
                let (replies, drained) = (mem::take(replies), *drained);
                self.answer_when_handed_back(replies, drained);
            }
        }
    }

    /// The receiver of the answer may end the process, so the last hand-back goes first.
    pub(super) fn answer_when_handed_back(&mut self, replies: Vec<RpcReplyPort<Drained>>, drained: Drained) {
        self.after_progress(async move {
            for reply in replies {
                let _ = reply.send(drained);
            }
        });
    }

    /// Starts something that waits on the network, behind what was started before.
    fn after_progress(&mut self, next: impl Future<Output = ()> + Send + 'static) {
        let before = self.progress.take();
        self.progress = Some(tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            next.await;
        }));
    }

    /// Kills all workers and hands their deliveries back.
    pub(super) fn abandon(&mut self) -> Drained {
        self.intake.abort();
        let mut left: Vec<Delivery> = self.queue.drain(..).collect();
        for (_, busy) in self.busy.drain() {
            busy.worker.kill();
            left.extend(busy.batch.iter().cloned());
        }
        let (mut drained, _) = self.draining.take().unwrap_or_default();
        drained.handed_back += left.len();
        self.draining = Some((drained, Vec::new()));
        self.hand_back(left, Duration::ZERO);
        drained
    }

    /// It was on its way from the intake when draining began.
    pub(super) fn hand_back_late(&mut self, delivery: Delivery) {
        if let Some((drained, _)) = &mut self.draining {
            drained.handed_back += 1;
        }
        self.hand_back(vec![delivery], Duration::ZERO);
    }

    pub(super) fn hand_back(&mut self, deliveries: Vec<Delivery>, after: Duration) {
        if deliveries.is_empty() {
            return;
        }
        self.after_progress(async move {
            for delivery in deliveries {
                if let Err(error) = delivery.receipt.settle(Settlement::Retried { after }).await {
                    tracing::warn!(%error, "delivery not handed back, it comes again after the ack wait");
                }
            }
        });
    }
}
