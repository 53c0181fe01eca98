//! Whether data sources and providers can be connected to, and whether providers take their keys. Nothing else is asked of
//! them: an answer may cost money.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use reqwest::Url;
use throughline_actors::ports::clock::Clock;
use tokio::net::TcpStream;

use super::{finding::Finding, keys};
use crate::{
    config::{self, Config, Env, Provider},
    http_client::proxy::Proxies,
    llm::{ModelProviders, model_providers},
    system::SystemClock,
};

/// How long name resolution and connecting may take together.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Connections tried at once.
const AT_ONCE: usize = 16;

pub(super) async fn check(config: &Config, env: &Env) -> Vec<Finding> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // What keeps them from being set up (a missing key, say) is said by the checks of the settings.
    let models = model_providers(config, env, &clock).ok();
    let sources = config.sources.iter().map(|source| {
        let name = format!("source {}", source.name);
        let proxies = config::proxies(source.proxy.as_ref(), env);
        Box::pin(reach_source(name, source.url.example.expose(), proxies)) as Check<'_>
    });
    let providers = config.providers.iter().map(|provider| {
        let proxies = config::proxies(provider.proxy.as_ref(), env);
        Box::pin(reach_provider(provider, models.as_ref(), proxies)) as Check<'_>
    });
    stream::iter(sources.chain(providers)).buffered(AT_ONCE).collect().await
}

type Check<'c> = std::pin::Pin<Box<dyn Future<Output = Finding> + Send + 'c>>;

async fn reach_source(name: String, url: &str, proxies: Proxies) -> Finding {
    match connect_by(url, &proxies).await {
        Ok(address) => Finding::ok(name, format!("{address} accepts connections")),
        Err(problem) => {
            let advice = "answers go without its data until it is back; start it, or correct its url";
            Finding::warn(name, problem, advice)
        }
    }
}

/// One that no model uses needs no key, so it is only connected to.
async fn reach_provider(provider: &Provider, models: Option<&ModelProviders>, proxies: Proxies) -> Finding {
    let name = format!("provider {}", provider.name);
    let address = match connect_by(provider.base_url.expose(), &proxies).await {
        Ok(address) => address,
        Err(problem) if provider.is_vendor() => {
            let advice = "see why this machine cannot reach it: DNS, firewall, HTTPS_PROXY";
            return Finding::unreachable(name, problem, advice);
        }
        Err(problem) => return Finding::unreachable(name, problem, "start it, or correct its base_url"),
    };
    let verdicts = match models {
        Some(models) => models.try_keys(&provider.name).await,
        None => None,
    };
    match verdicts {
        Some(verdicts) => keys::judge(name, &address, provider.api_keys.len(), &verdicts),
        None => Finding::ok(name, format!("{address} accepts connections")),
    }
}

/// Connects to the host of a URL, or to the proxy through which it is asked.
async fn connect_by(url: &str, proxies: &Proxies) -> Result<String, String> {
    let proxy = Url::parse(url).ok().and_then(|url| proxies.of(&url));
    match proxy {
        Some(proxy) => connect(&format!("http://{proxy}")).await.map_or_else(
            |problem| Err(format!("its proxy {problem}")),
            |address| Ok(format!("its proxy {address}")),
        ),
        None => connect(url).await,
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
    use std::sync::Mutex;

    use axum::{
        Json, Router,
        extract::{Request, State},
        http::StatusCode,
    };
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;
    use crate::{cli::doctor::finding::Status, config::Layers};

    const RIGHT: &str = "the-right-key";

    /// Each line is a request: method and path.
    type Seen = Arc<Mutex<Vec<String>>>;

    /// A provider of any kind that knows one key, and answers with its models.
    async fn listing(State(seen): State<Seen>, request: Request) -> (StatusCode, Json<Value>) {
        seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        let headers = ["authorization", "x-api-key", "x-goog-api-key"];
        let given = headers.iter().find_map(|name| request.headers().get(*name)?.to_str().ok());
        match given {
            Some(key) if key.ends_with(RIGHT) => (StatusCode::OK, Json(json!({"data": []}))),
            Some(key) if key.ends_with("narrow-key") => {
                (StatusCode::FORBIDDEN, Json(json!({"error": {"message": "may not list models"}})))
            }
            // As Gemini does it.
            Some(key) if key.ends_with("odd-key") => {
                let details = json!([{"reason": "API_KEY_INVALID"}]);
                (
                    StatusCode::BAD_REQUEST,
                    Json(json!({"error": {"message": "not valid", "details": details}})),
                )
            }
            given => {
                let message = format!("who is {given:?}?");
                (StatusCode::UNAUTHORIZED, Json(json!({"error": {"message": message}})))
            }
        }
    }

    async fn provider() -> (String, Seen) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Seen::default();
        let server = axum::serve(listener, Router::new().fallback(listing).with_state(Arc::clone(&seen)));
        tokio::spawn(async move { server.await });
        (format!("http://{address}"), seen)
    }

    async fn finding(kind: &str, base_url: &str, keys: &[&str]) -> Finding {
        let names: Vec<String> = (0..keys.len()).map(|n| format!("\"env:KEY{n}\"")).collect();
        let env = keys.iter().enumerate().map(|(n, key)| (format!("KEY{n}"), (*key).to_owned())).collect();
        let api_keys =
            if keys.is_empty() { String::new() } else { format!("api_keys = [{}]\n", names.join(", ")) };
        let text = format!(
            "[[providers]]\nname = \"p\"\nkind = \"{kind}\"\nbase_url = \"{base_url}\"\n{api_keys}\
             [[models]]\nname = \"m\"\nprovider = \"p\"\n"
        );
        let config = Layers::default().load_text("t.toml", &text).unwrap();
        check(&config, &env).await.remove(0)
    }

    #[tokio::test]
    async fn a_key_is_tried_with_the_list_of_models_and_nothing_that_costs() {
        let (url, seen) = provider().await;
        for (kind, base, path) in [
            ("openai", "/v1", "/v1/models"),
            ("anthropic", "", "/v1/models"),
            ("gemini", "", "/v1beta/models"),
        ] {
            let found = finding(kind, &format!("{url}{base}"), &[RIGHT]).await;
            assert_eq!(found.status, Status::Ok, "{kind}: {found:?}");
            let found = finding(kind, &format!("{url}{base}"), &["a-wrong-key"]).await;
            assert_eq!(found.status, Status::Fail, "{kind}: {found:?}");
            assert!(found.detail.contains("refuses its key") && found.detail.contains("401"), "{found:?}");
            assert!(found.advice.contains("api_key") && !found.is_unreachable, "{found:?}");
            assert!(!found.detail.contains("a-wrong-key"), "what echoes a key is redacted: {found:?}");
            let requests = std::mem::take(&mut *seen.lock().unwrap());
            assert_eq!(requests, vec![format!("GET {path}"); 2], "{kind}");
        }
    }

    #[tokio::test]
    async fn what_is_said_of_keys_is_what_is_known_of_them() {
        let (url, _) = provider().await;
        let found = finding("openai", &url, &[RIGHT, "a-wrong-key", RIGHT]).await;
        assert_eq!(found.status, Status::Warn, "the others will do: {found:?}");
        assert!(found.detail.contains("1 of its 3 keys (no. 2)"), "{found:?}");
        let found = finding("openai", &url, &[]).await;
        assert_eq!(found.status, Status::Fail, "{found:?}");
        assert!(found.detail.contains("wants a key") && found.advice.contains("api_key"), "{found:?}");
        assert_eq!(finding("gemini", &url, &["an-odd-key"]).await.status, Status::Fail);
        let found = finding("openai", &url, &["a-narrow-key"]).await;
        assert_eq!(found.status, Status::Ok, "it may well answer: {found:?}");
        assert!(found.detail.contains("only a paid call can tell"), "{found:?}");
    }

    #[tokio::test]
    async fn a_provider_must_be_there_a_source_should() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let path = "/profile/{user_id}?secret=hunter2";
        let source = |url: String| async move { reach_source("x".to_owned(), &url, Proxies::none()).await };
        assert_eq!(source(format!("http://{open}{path}")).await.status, Status::Ok);
        let gone = source(format!("http://{closed}{path}")).await;
        assert_eq!(gone.status, Status::Warn);
        assert!(!gone.detail.contains("hunter2"));
        assert!(finding("openai", &format!("http://{closed}/v1"), &[]).await.is_unreachable);
        let behind = |proxy: std::net::SocketAddr| {
            let proxies = Proxies::one(format!("http://user:hunter2@{proxy}"));
            reach_source("x".to_owned(), "http://crm.example.test/", proxies)
        };
        let through = behind(open).await;
        assert_eq!(through.status, Status::Ok);
        assert!(through.detail.contains(&format!("its proxy {open}")), "{}", through.detail);
        let gone = behind(closed).await;
        assert_eq!(gone.status, Status::Warn);
        assert!(gone.detail.contains("its proxy") && !gone.detail.contains("hunter2"), "{}", gone.detail);
    }
}
