//! Whether what the server acknowledged survives a power cut.
//!
//! A client cannot ask for `sync_interval`; the servers' monitoring tells it, where it is switched on.

use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::{finding::Finding, whoami::is_loopback};
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
    meta_cluster: Option<Cluster>,
}

#[derive(Debug, Deserialize)]
struct Settings {
    /// In nanoseconds.
    #[serde(default)]
    sync_interval: u64,
    #[serde(default)]
    sync_always: bool,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    #[serde(default)]
    name: String,
}

/// Which servers are meant: their monitoring may be somebody else's who has the same port.
enum Whose {
    /// Whatever answers at an address that the configuration names.
    Named,
    /// This server, or another of its cluster.
    Server { id: String, cluster: Option<String> },
}

pub(super) async fn check(config: &Config, bus: &NatsBus) -> Finding {
    let (urls, whose) = monitorings(config, bus);
    let told = futures_util::future::join_all(urls.into_iter().map(|url| ask(url, &whose))).await;
    let replicas = config.nats.replicas;
    judge(&told, replicas, config.nats.servers().all(is_loopback))
}

/// What a server says of its own health, if that is bad. A stream that met a full disk once takes nothing until its server
/// is restarted, and only the monitoring tells.
pub(super) async fn health(config: &Config, bus: &NatsBus) -> Option<Finding> {
    let (urls, whose) = monitorings(config, bus);
    let asked = urls.into_iter().map(async |url| {
        ask(url.clone(), &whose).await?;
        let health: Health = get(&format!("{}/healthz", url.trim_end_matches('/'))).await?;
        health.error.filter(|error| !error.is_empty())
    });
    let errors = futures_util::future::join_all(asked).await;
    let error = errors.into_iter().flatten().next()?;
    let advice = "read the server's log; if its disk was full, make room and restart it, since it does not recover by itself";
    Some(Finding::fail("server", format!("the NATS server says of itself: {error}"), advice))
}

/// What the monitoring says of the server's health.
#[derive(Debug, Deserialize)]
struct Health {
    #[serde(default)]
    error: Option<String>,
}

/// Where the servers' monitoring may be.
fn monitorings(config: &Config, bus: &NatsBus) -> (Vec<String>, Whose) {
    if let Some(urls) = &config.nats.monitoring_url {
        return (urls.split(',').map(|url| url.trim().to_owned()).collect(), Whose::Named);
    }
    let info = bus.client().server_info();
    let whose = Whose::Server { id: info.server_id, cluster: info.cluster };
    let urls = config.nats.servers().filter_map(|url| monitoring_of(url, MONITORING_PORT));
    (urls.collect(), whose)
}

/// `told` is what each server's monitoring said, if it answered.
fn judge(told: &[Option<Settings>], replicas: usize, on_this_machine: bool) -> Finding {
    let known: Vec<&Settings> = told.iter().flatten().collect();
    let slowest =
        known.iter().filter(|settings| !settings.sync_always).map(|settings| settings.sync_interval).max();
    let servers =
        if known.len() == 1 { "the server".to_owned() } else { format!("each of {} servers", known.len()) };
    match slowest {
        Some(interval) => {
            let interval = Duration::from_nanos(interval);
            let detail = format!(
                "a power cut or a crash of the server's machine loses acknowledged events of up to the last \
                 {interval:?}; a crash of the server alone loses none"
            );
            // One copy, on a machine of its own: somebody relies on it.
            if replicas < 3 && !on_this_machine {
                Finding::fail(NAME, detail, ADVICE)
            } else {
                Finding::warn(NAME, detail, ADVICE)
            }
        }
        None if !known.is_empty() && known.len() == told.len() => {
            Finding::ok(NAME, format!("{servers} writes to the disk before it acknowledges"))
        }
        None => {
            let detail = format!(
                "cannot be told from here: the monitoring of {} of {} servers does not answer (port {MONITORING_PORT}, or \
                 nats.monitoring_url). By default a power cut loses acknowledged events of up to the last two minutes",
                told.len() - known.len(),
                told.len()
            );
            Finding::warn(NAME, detail, ADVICE)
        }
    }
}

/// Where a server's monitoring usually is.
fn monitoring_of(url: &str, port: u16) -> Option<String> {
    let complete = if url.contains("://") { url.trim().to_owned() } else { format!("nats://{}", url.trim()) };
    Some(format!("http://{}:{port}", Url::parse(&complete).ok()?.host_str()?))
}

/// What the monitoring at `url` says, if it is of a server that is meant.
async fn ask(url: String, whose: &Whose) -> Option<Settings> {
    let answer: Answer = get(&format!("{}/jsz?config=true", url.trim_end_matches('/'))).await?;
    let is_meant = match whose {
        Whose::Named => true,
        Whose::Server { id, cluster } => {
            answer.server_id == *id
                || cluster.as_ref().is_some_and(|name| {
                    !name.is_empty() && answer.meta_cluster.as_ref().is_some_and(|told| told.name == *name)
                })
        }
    };
    if is_meant { answer.config } else { None }
}

/// A small JSON document, whatever its status, within the limits.
pub(super) async fn get<T: DeserializeOwned>(url: &str) -> Option<T> {
    let client = http_client::client(LIMIT, false, &crate::http_client::proxy::Proxies::none()).ok()?;
    let asked = async {
        let response = client.get(url).send().await.ok()?;
        let limits =
            BodyLimits { max_bytes: MAX_BYTES, between_pieces: None, deadline: Instant::now() + LIMIT };
        serde_json::from_slice(&body::read(response, limits).await.ok()?).ok()
    };
    tokio::time::timeout(LIMIT, asked).await.ok()?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::{Router, routing::get};

    use super::*;
    use crate::cli::doctor::finding::Status;

    /// What nats-server 2.15.1 answers, shortened.
    const ANSWER: &str = r#"{"memory":0,"server_id":"NDTF","config":{"max_memory":1,"store_dir":"/js",
        "sync_interval":120000000000,"sync_always":true,"strict":true},"total":1,
        "meta_cluster":{"name":"throughline","leader":"n1","cluster_size":3}}"#;

    #[tokio::test]
    async fn only_the_monitoring_of_the_servers_that_are_meant_is_believed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = axum::serve(listener, Router::new().route("/jsz", get(|| async { ANSWER })));
        tokio::spawn(async move { server.await });
        let of = |id: &str, cluster: Option<&str>| Whose::Server {
            id: id.to_owned(),
            cluster: cluster.map(str::to_owned),
        };
        for url in ["nats://u:p@127.0.0.1:4222", "127.0.0.1:4222"] {
            let monitoring = monitoring_of(url, port).unwrap();
            for whose in [of("NDTF", None), of("OTHER", Some("throughline")), Whose::Named] {
                assert!(ask(monitoring.clone(), &whose).await.unwrap().sync_always, "{url}");
            }
            for whose in [of("OTHER", None), of("OTHER", Some("")), of("OTHER", Some("another"))] {
                assert!(ask(monitoring.clone(), &whose).await.is_none(), "{url}");
            }
        }
    }

    #[test]
    fn what_would_be_lost_is_said() {
        let told = |sync_always| Some(Settings { sync_interval: 120_000_000_000, sync_always });
        let finding = judge(&[told(true), told(false), told(true)], 3, false);
        assert_eq!(finding.status, Status::Warn);
        assert!(finding.detail.contains("120s") && finding.advice.contains("sync_interval: always"));
        assert_eq!(judge(&[told(false)], 1, true).status, Status::Warn);
        assert_eq!(judge(&[told(false)], 1, false).status, Status::Fail);
        assert_eq!(judge(&[told(true), told(true)], 3, false).status, Status::Ok);
        let unknown = judge(&[told(true), None], 3, false);
        assert_eq!(unknown.status, Status::Warn);
        assert!(unknown.detail.contains("1 of 2") && unknown.detail.contains("two minutes"));
        assert_eq!(judge(&[], 1, true).status, Status::Warn);
    }
}
