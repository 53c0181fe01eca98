//! Deliveries with a lease: for how long they certainly belong to this process.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::ports::{
    bus::{BusError, Delivery, Receipt, Settlement},
    lease::Lease,
};

/// A receipt that renews a lease with each report.
struct Leased {
    inner: Arc<dyn Receipt>,
    lease: Lease,
}

/// The same delivery, with a lease since it was received.
pub(super) fn leased(delivery: Delivery, ack_wait: Duration) -> Delivery {
    let lease = Lease::new(ack_wait, delivery.received_at);
    Delivery { receipt: Arc::new(Leased { inner: Arc::clone(&delivery.receipt), lease }), ..delivery }
}

#[async_trait]
impl Receipt for Leased {
    async fn settle(&self, settlement: Settlement) -> Result<(), BusError> {
        self.inner.settle(settlement).await
    }

    async fn progress(&self) -> Result<(), BusError> {
        let reported = Instant::now();
        self.inner.progress().await?;
        self.lease.renew(reported, Instant::now());
        Ok(())
    }

    fn lease(&self) -> Option<&Lease> {
        Some(&self.lease)
    }
}
