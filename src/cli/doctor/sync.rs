//! Whether what the server acknowledged survives a power cut.
//!
//! A client cannot ask for `sync_interval`; the server's monitoring tells it, where it is switched on at its usual
//! port on the same machine.

use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use tokio::time::Instant;

use super::finding::Finding;
use crate::{
    bus::nats::NatsBus,
    config::Config,
    http_client::{
        self,
        body::{self, BodyLimits},
    },
};

/// The monitoring port that everybody uses.
const MONITORING_PORT: u16 = 8222;
/// How long the monitoring may take to answer.
const LIMIT: Duration = Duration::from_secs(2);
/// Largest answer read, in bytes.
const MAX_BYTES: usize = 1 << 20;
const NAME: &str = "sync";
const ADVICE: &str = "set `jetstream { sync_interval: always }` in the server's configuration, or keep three replicas \
                      on machines that do not lose power together (nats.replicas)";

/// What the monitoring says.
#[derive(Debug, Deserialize)]
struct Answer {
    server_id: String,
    config: Option<Settings>,
}

#[derive(Debug, Deserialize)]
struct Settings {
    /// In nanoseconds.
    #[serde(default)]
    sync_interval: u64,
    #[serde(default)]
    sync_always: bool,
}

pub(super) async fn check(config: &Config, bus: &NatsBus) -> Finding {
    let server = bus.client().server_info().server_id;
    let told = match config.nats.servers().next() {
        Some(url) => ask(url, MONITORING_PORT, &server).await,
        None => None,
    };
    judge(told.as_ref())
}

fn judge(told: Option<&Settings>) -> Finding {
    match told {
        Some(Settings { sync_always: true, .. }) => {
            Finding::ok(NAME, "every event is on the disk before it is acknowledged")
        }
        Some(settings) => {
            let interval = Duration::from_nanos(settings.sync_interval);
            let detail = format!(
                "a power cut or a crash of the server's machine loses acknowledged events of up to the last \
                 {interval:?}; a crash of the server alone loses none"
            );
            Finding::warn(NAME, detail, ADVICE)
        }
        None => {
            let detail = format!(
                "cannot be told from here (no monitoring of this server at port {MONITORING_PORT}). By default a \
                 power cut loses acknowledged events of up to the last two minutes"
            );
            Finding::warn(NAME, detail, ADVICE)
        }
    }
}

/// What the monitoring on the host of `url` says, if it is the monitoring of this very server.
async fn ask(url: &str, port: u16, server_id: &str) -> Option<Settings> {
    let complete = if url.contains("://") { url.trim().to_owned() } else { format!("nats://{}", url.trim()) };
    let host = Url::parse(&complete).ok()?.host_str()?.to_owned();
    let monitoring = format!("http://{host}:{port}/jsz?config=true");
    let client = http_client::client(LIMIT, false).ok()?;
    let asked = async {
        let response = client.get(monitoring).send().await.ok()?;
        let limits =
            BodyLimits { max_bytes: MAX_BYTES, between_pieces: None, deadline: Instant::now() + LIMIT };
        serde_json::from_slice::<Answer>(&body::read(response, limits).await.ok()?).ok()
    };
    let answer = tokio::time::timeout(LIMIT, asked).await.ok()??;
    if answer.server_id == server_id { answer.config } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::{Router, routing::get};

    use super::*;
    use crate::cli::doctor::finding::Status;

    /// What nats-server 2.15.1 answers, shortened.
    const ANSWER: &str = r#"{"memory":0,"server_id":"NDTF","config":{"max_memory":1,"store_dir":"/js",
        "sync_interval":120000000000,"sync_always":true,"strict":true},"total":1}"#;

    #[tokio::test]
    async fn only_the_monitoring_of_this_very_server_is_believed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = axum::serve(listener, Router::new().route("/jsz", get(|| async { ANSWER })));
        tokio::spawn(async move { server.await });
        for url in ["nats://u:p@127.0.0.1:4222", "127.0.0.1:4222"] {
            let told = ask(url, port, "NDTF").await;
            assert!(told.as_ref().unwrap().sync_always, "{url}");
            assert_eq!(judge(told.as_ref()).status, Status::Ok);
        }
        assert!(ask("nats://127.0.0.1:4222", port, "OTHER").await.is_none());
    }

    #[test]
    fn what_would_be_lost_is_said() {
        let default = Settings { sync_interval: 120_000_000_000, sync_always: false };
        let finding = judge(Some(&default));
        assert_eq!(finding.status, Status::Warn);
        assert!(finding.detail.contains("120s") && finding.advice.contains("sync_interval: always"));
        assert!(judge(None).detail.contains("two minutes"));
    }
}
