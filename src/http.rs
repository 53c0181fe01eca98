//! What a worker process answers over HTTP: `/healthz`, `/readyz` and `/metrics`.

mod crowd;
mod endpoints;
mod readiness;
mod server;

use std::{io, net::SocketAddr, sync::Arc};

use throughline_actors::{
    ports::{bus::Bus, store::Store},
    supervision::engine::Observer,
};

use tokio::sync::watch;

use crate::telemetry::metrics::Metrics;

pub use server::{HttpPort, HttpServer};

/// What the endpoints look at.
#[derive(Clone)]
pub struct HttpState {
    /// The stages of this process; `None` if it has none and never will, which then does not keep it from being ready.
    pub observer: Option<Observer>,
    /// The database.
    pub store: Arc<dyn Store>,
    /// The event bus.
    pub bus: Arc<dyn Bus>,
    /// Why this process must not use its database, as soon as that is known; `None` if that is not checked.
    pub refusal: Option<watch::Receiver<Option<String>>>,
    /// The metrics.
    pub metrics: Metrics,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is in use.
    #[error(
        "{listen} is in use by another process; set http.listen to a free address (port 0 takes any free port)"
    )]
    InUse {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// The address is not ours, or not for us.
    #[error(
        "cannot listen on {listen}; set http.listen to an address of this machine and a port that is permitted"
    )]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
}
