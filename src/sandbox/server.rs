use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::app::App;
use super::dataset::{Dataset, DatasetError};
use super::fault::{Fault, FaultError};
use super::ledger::{Counts, Ledger};
use super::options::SandboxOptions;
use super::routes::router;

/// How long requests that are being answered may take once the sandbox is told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Why a sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The address is taken or not ours.
    #[error("cannot listen on {addr} for the sandbox; choose another address, or port 0 for a free one")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data set could not be loaded.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// A running sandbox. Dropping it stops it too, without waiting.
#[derive(Debug)]
#[must_use = "the sandbox stops when it is dropped"]
pub struct Sandbox {
    addr: SocketAddr,
    app: Arc<App>,
    stopping: watch::Sender<bool>,
    server: JoinHandle<io::Result<()>>,
}

impl Sandbox {
    /// Loads the data set, binds the address and serves from then on.
    pub async fn start(options: SandboxOptions) -> Result<Self, SandboxError> {
        let dataset = Dataset::load(options.data_dir.as_deref()).await?;
        let listen = options.listen;
        let refused = |source| SandboxError::Listen { addr: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        let (stopping, stopped) = watch::channel(false);
        let app = Arc::new(App::new(dataset, options, stopped.clone()));
        // Without TCP_NODELAY an answer can wait for the client's delayed acknowledgement.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "sandbox connection without TCP_NODELAY");
            }
        });
        let until_stopped = async move {
            let mut stopped = stopped;
            // An error means that the handle is gone, which is a stop as well.
            let _ = stopped.wait_for(|stopping| *stopping).await;
        };
        let serve = axum::serve(listener, router(Arc::clone(&app))).with_graceful_shutdown(until_stopped);
        let server = tokio::spawn(async move { serve.await });
        Ok(Self { addr, app, stopping, server })
    }

    /// Where it listens, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://ADDR`, where the data sources and `/_sandbox/...` are.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// `http://ADDR/v1`, for `OPENAI_BASE_URL` and a provider's `base_url`.
    pub fn openai_base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// The ids of the customers it knows, sorted.
    pub fn user_ids(&self) -> Vec<String> {
        self.app.dataset.user_ids()
    }

    /// What `POST /_sandbox/faults` does.
    pub fn set_fault(&self, fault: Fault) -> Result<(), FaultError> {
        self.app.faults.set(fault)
    }

    /// What `DELETE /_sandbox/faults` does.
    pub fn clear_faults(&self) {
        self.app.faults.clear();
    }

    /// What `GET /_sandbox/counts` answers.
    pub fn counts(&self) -> Counts {
        self.app.recorder.counts()
    }

    /// What `GET /_sandbox/ledger` answers; empty unless `record_requests` is on.
    pub fn ledger(&self) -> Ledger {
        self.app.recorder.ledger()
    }

    /// Stops accepting, answers what is being asked (delays end at once) and closes, within two seconds.
    pub async fn shutdown(mut self) {
        self.stopping.send_replace(true);
        match tokio::time::timeout(SHUTDOWN_GRACE, &mut self.server).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the sandbox stopped with an error"),
            Ok(Err(error)) => tracing::warn!(%error, "the sandbox's server ended abnormally"),
            Err(_) => {
                self.server.abort();
                tracing::warn!(grace = ?SHUTDOWN_GRACE, "the sandbox still had open connections");
            }
        }
    }
}
