//! Answers for a delivery are plain messages to its reply subject.

use std::sync::Arc;

use async_nats::Subject;
use async_trait::async_trait;
use bytes::Bytes;
use throughline_actors::ports::bus::{BusError, Receipt, Settlement};

use super::{
    Core,
    error::{unavailable, unavailable_because},
    headers,
    requests::{self, NoAnswer},
};

/// Longest reason given with a termination, in characters.
const MAX_REASON_CHARS: usize = 200;

/// Answers for one delivery.
pub(super) struct NatsReceipt {
    core: Arc<Core>,
    reply: Subject,
}

impl NatsReceipt {
    pub(super) fn new(core: Arc<Core>, reply: Subject) -> Self {
        Self { core, reply }
    }
}

#[async_trait]
impl Receipt for NatsReceipt {
    async fn settle(&self, settlement: Settlement) -> Result<(), BusError> {
        requests::send(&self.core, self.reply.clone(), answer(&settlement)).await
    }

    async fn progress(&self) -> Result<(), BusError> {
        // With a reply subject the server answers when it has restarted the timer; a report that is merely sent may sit
        // in the buffer of a connection that is dead.
        let (core, limit) = (&self.core, self.core.settings.request_timeout);
        let report = Bytes::from_static(b"+WPI");
        match requests::request(core, self.reply.clone(), None, report, limit).await {
            Ok(_) => Ok(()),
            Err(NoAnswer::Forbidden(words)) => Err(BusError::Forbidden(words)),
            Err(NoAnswer::Client(source)) => Err(unavailable_because("reporting progress", source)),
            Err(NoAnswer::TimedOut | NoAnswer::Reconnected | NoAnswer::NoResponders | NoAnswer::TooLarge) => {
                Err(unavailable("reporting progress"))
            }
        }
    }
}

pub(super) fn answer(settlement: &Settlement) -> Bytes {
    match settlement {
        Settlement::Acknowledged => Bytes::from_static(b"+ACK"),
        Settlement::Retried { after } if after.is_zero() => Bytes::from_static(b"-NAK"),
        Settlement::Retried { after } => {
            // The server reads a signed 64-bit number of nanoseconds.
            let nanos = i64::try_from(after.as_nanos()).unwrap_or(i64::MAX);
            format!(r#"-NAK {{"delay": {nanos}}}"#).into()
        }
        Settlement::Terminated { reason } => {
            let reason: String = headers::one_line(reason).chars().take(MAX_REASON_CHARS).collect();
            let reason = reason.trim();
            if reason.is_empty() { Bytes::from_static(b"+TERM") } else { format!("+TERM {reason}").into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn answers_are_what_the_server_reads() {
        let terminated = |reason: &str| Settlement::Terminated { reason: reason.to_owned() };
        let after = |ms| Settlement::Retried { after: Duration::from_millis(ms) };
        for (settlement, expected) in [
            (Settlement::Acknowledged, "+ACK".to_owned()),
            (after(0), "-NAK".to_owned()),
            (after(1500), r#"-NAK {"delay": 1500000000}"#.to_owned()),
            (terminated("not\r\nJSON"), "+TERM not  JSON".to_owned()),
            (terminated("\n"), "+TERM".to_owned()),
            (terminated(&"é".repeat(500)), format!("+TERM {}", "é".repeat(200))),
        ] {
            assert_eq!(answer(&settlement), expected.as_bytes(), "{settlement:?}");
        }
    }
}
