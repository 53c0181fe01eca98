//! Requests to a cluster whose nodes are still finding each other: it refuses them, or takes them and does not answer. They
//! are repeated for a while, which is safe: a stream or consumer that exists as it is wanted is created again without change.

use std::{error::Error as _, time::Duration};

use async_nats::jetstream::{
    Error as Refusal, ErrorCode,
    context::{
        CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind, RequestError,
        RequestErrorKind,
    },
    stream::{ConsumerError, ConsumerErrorKind},
};
use throughline_actors::ports::bus::BusError;
use tokio::time::Instant;

use super::{super::Core, permitted};

/// How long a cluster may take before a request is given up.
const LIMIT: Duration = Duration::from_secs(15);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(250);

/// When to give up on a cluster that is still settling.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    /// Ask once: a check says what it finds.
    Once,
    /// Ask again for as long as a cluster may take.
    Settling,
}

/// An error that a cluster may cause while it settles.
pub(super) trait Settles {
    fn may_pass(&self) -> bool;
}

impl Settles for CreateStreamError {
    fn may_pass(&self) -> bool {
        match self.kind() {
            CreateStreamErrorKind::TimedOut => true,
            CreateStreamErrorKind::JetStream(refusal) => is_settling(&refusal),
            CreateStreamErrorKind::EmptyStreamName
            | CreateStreamErrorKind::InvalidStreamName
            | CreateStreamErrorKind::DomainAndExternalSet
            | CreateStreamErrorKind::JetStreamUnavailable
            | CreateStreamErrorKind::Response
            | CreateStreamErrorKind::NotFound
            | CreateStreamErrorKind::ResponseParse => false,
        }
    }
}

impl Settles for GetStreamError {
    fn may_pass(&self) -> bool {
        match self.kind() {
            // The library does not say in the kind whether the time ran out.
            GetStreamErrorKind::Request => self
                .source()
                .and_then(|source| source.downcast_ref::<RequestError>())
                .is_some_and(|error| error.kind() == RequestErrorKind::TimedOut),
            GetStreamErrorKind::JetStream(refusal) => is_settling(&refusal),
            GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => false,
        }
    }
}

impl Settles for ConsumerError {
    fn may_pass(&self) -> bool {
        match self.kind() {
            ConsumerErrorKind::TimedOut => true,
            ConsumerErrorKind::JetStream(refusal) => is_settling(&refusal),
            ConsumerErrorKind::Request
            | ConsumerErrorKind::InvalidConsumerType
            | ConsumerErrorKind::InvalidName
            | ConsumerErrorKind::Other => false,
        }
    }
}

fn is_settling(refusal: &Refusal) -> bool {
    [ErrorCode::CLUSTER_NO_PEERS, ErrorCode::CLUSTER_NOT_AVAILABLE, ErrorCode::CLUSTER_NOT_LEADER]
        .contains(&refusal.error_code())
}

/// Does `attempt`, again while a cluster settles. What the server forbids about `object` is an error at once, not after
/// the time limit of a request.
pub(super) async fn settled<T, E: Settles>(
    core: &Core,
    object: &str,
    patience: Patience,
    attempt: impl AsyncFn() -> Result<T, E>,
) -> Result<Result<T, E>, BusError> {
    let deadline = match patience {
        Patience::Once => Instant::now(),
        Patience::Settling => Instant::now() + LIMIT,
    };
    loop {
        let done = permitted(core, object, attempt()).await?;
        match done {
            Err(error) if error.may_pass() && Instant::now() < deadline => {
                tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            }
            done => return Ok(done),
        }
    }
}
