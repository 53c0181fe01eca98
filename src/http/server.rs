//! A small HTTP/1.1 server with limits on everything that a client can hold on to.
//!
//! `axum::serve` sets none on reading a request's head, so the connections are served by hyper directly.

use std::{collections::HashMap, io, net::SocketAddr, pin::pin, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, Id, JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    HttpError, HttpState,
    crowd::{Crowd, Doing},
    endpoints,
};

/// Connections at once; where there are more, one of those that say nothing is closed (see [`Crowd`]).
pub(super) const MAX_CONNECTIONS: usize = 256;
/// From the opening of a connection, or the end of its last answer, to the end of the next request's head. An idle
/// connection is closed after this time.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes. No endpoint reads a body: one that is sent is not kept.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long answers under way may take once the server is asked to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Pause after a failure to accept, usually because the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address that is bound. Clients that connect wait until they are served.
#[derive(Debug)]
pub struct HttpPort {
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpPort {
    /// Takes the address; `listen` may have port 0.
    pub async fn bind(listen: SocketAddr) -> Result<Self, HttpError> {
        let refused = |source: io::Error| {
            if source.kind() == io::ErrorKind::AddrInUse {
                HttpError::InUse { listen }
            } else {
                HttpError::Listen { listen, source }
            }
        };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    /// Where it is, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the endpoints from now on.
    pub fn serve(self, state: HttpState) -> HttpServer {
        let (stop, stopped) = watch::channel(());
        let task = tokio::spawn(accept(self.listener, endpoints::router(state), stopped));
        HttpServer { address: self.address, stop, task }
    }
}

/// A running server. Dropping it stops it, too, without waiting.
#[must_use = "the server stops when it is dropped"]
pub struct HttpServer {
    address: SocketAddr,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// Serves the endpoints from when it returns; `listen` may have port 0.
    pub async fn start(listen: SocketAddr, state: HttpState) -> Result<Self, HttpError> {
        Ok(HttpPort::bind(listen).await?.serve(state))
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes when nothing is served any more, without having been asked to stop.
    pub async fn ended(&mut self) {
        // A server that panicked has ended, too.
        let _ = (&mut self.task).await;
    }

    /// Stops listening, finishes the answers under way within two seconds, and closes.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(());
        // The task has a limit of its own, or has ended before.
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, router: Router, mut stopped: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    let mut handles: HashMap<Id, AbortHandle> = HashMap::new();
    let mut crowd = Crowd::new(MAX_CONNECTIONS);
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(ended) = connections.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                crowd.leave(id);
                handles.remove(&id);
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let doing = crowd.newcomer();
                    let router = router.clone().layer(middleware::from_fn_with_state(doing.clone(), told));
                    let handle = connections.spawn(connection(stream, router, stopped.clone()));
                    let leaves = crowd.enter(handle.id(), peer.ip(), doing);
                    handles.insert(handle.id(), handle);
                    if let Some(leaving) = leaves.and_then(|leaves| handles.remove(&leaves)) {
                        tracing::debug!("too many HTTP connections; an idle one is closed");
                        leaving.abort();
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "no new HTTP connections for now");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    if timeout(DRAIN_LIMIT, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(open = connections.len(), limit = ?DRAIN_LIMIT, "HTTP connections were cut off");
    }
}

/// Tells the crowd what a connection does.
async fn told(State(doing): State<Doing>, request: Request, next: Next) -> Response {
    doing.set_busy(true);
    let response = next.run(request).await;
    doing.set_busy(false);
    response
}

async fn connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<()>) {
    // Without it an answer can wait for the client's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "HTTP connection without TCP_NODELAY");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_header_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "HTTP connection ended early");
    }
}
