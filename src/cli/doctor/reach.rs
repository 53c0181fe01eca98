//! Whether data sources and providers can be connected to. Nothing is asked of them: an answer may cost money.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use reqwest::Url;
use tokio::net::TcpStream;

use super::finding::Finding;
use crate::config::Config;

/// How long name resolution and connecting may take together.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Connections tried at once.
const AT_ONCE: usize = 16;

/// Where to connect to, and what it means if that fails.
struct Target {
    name: String,
    url: String,
    needed: bool,
}

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let sources = config.sources.iter().map(|source| Target {
        name: format!("source {}", source.name),
        url: source.url.template.expose().to_owned(),
        needed: false,
    });
    let providers = config.providers.iter().map(|provider| Target {
        name: format!("provider {}", provider.name),
        url: provider.base_url.expose().to_owned(),
        needed: true,
    });
    stream::iter(sources.chain(providers)).map(reach).buffered(AT_ONCE).collect().await
}

async fn reach(target: Target) -> Finding {
    let Target { name, url, needed } = target;
    let problem = match connect(&url).await {
        Ok(address) => return Finding::ok(name, format!("{address} accepts connections")),
        Err(problem) => problem,
    };
    if needed {
        Finding::unreachable(name, problem, "start it, or correct its base_url")
    } else {
        let advice = "answers go without its data until it is back; start it, or correct its url";
        Finding::warn(name, problem, advice)
    }
}

/// Connects to the host of a URL: its address, or what is wrong, without anything secret of the URL.
pub(in crate::cli) async fn connect(url: &str) -> Result<String, String> {
    let parsed = Url::parse(url).ok();
    let address = parsed
        .as_ref()
        .and_then(|url| Some((url.host_str()?.trim_matches(['[', ']']), url.port_or_known_default()?)));
    let (host, port) = address.ok_or("its URL has no host")?;
    match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(format!("{host}:{port}")),
        Ok(Err(error)) => Err(format!("{host}:{port}: {error}")),
        Err(_) => Err(format!("{host}:{port} does not answer within {CONNECT_LIMIT:?}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::doctor::finding::Status;

    #[tokio::test]
    async fn a_provider_must_be_there_a_source_should() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let target = |url: String, needed| Target { name: "x".to_owned(), url, needed };
        let path = "/profile/{user_id}?secret=hunter2";
        assert_eq!(reach(target(format!("http://{open}{path}"), true)).await.status, Status::Ok);
        let source = reach(target(format!("http://{closed}{path}"), false)).await;
        assert_eq!(source.status, Status::Warn);
        assert!(!source.detail.contains("hunter2"));
        assert!(reach(target(format!("http://{closed}/v1"), true)).await.is_unreachable);
    }
}
