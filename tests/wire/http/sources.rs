//! Data sources: the contract, and exactly what goes over the wire.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use throughline::fetch::{Credential, HeaderText, HttpSource, HttpSources};
use throughline::llm::Proxies;
use throughline_actors::ports::contract::source::{Scene, SourceRig, sources_keep_their_contract};
use throughline_actors::ports::source::{AnswerRoom, FetchCall, FetchError, Method, Sources};
use throughline_schemas::TraceParent;
use tokio::net::TcpSocket;

use super::clock;
use super::server::{Server, Step, answer, json, refusing};

pub(super) fn sources() -> HttpSources {
    let headers = vec![
        ("x-tenant".parse().unwrap(), HeaderText::Plain("acme".to_owned())),
        (
            "authorization".parse().unwrap(),
            HeaderText::Secret { prefix: "Bearer ".to_owned(), secret: Credential::new("canary-token") },
        ),
    ];
    HttpSources::new(
        vec![HttpSource { name: "source".to_owned(), headers, ..HttpSource::default() }],
        clock(),
    )
    .unwrap()
}

pub(super) fn call(url: String) -> FetchCall {
    FetchCall {
        source: "source".to_owned(),
        url,
        method: Method::Get,
        headers: Vec::new(),
        body: None,
        timeout: Duration::from_secs(10),
        max_bytes: 1000,
        traceparent: TraceParent::root(0xabc, 0xdef),
        room: AnswerRoom::default(),
    }
}

struct Rig {
    server: Server,
    sources: Arc<HttpSources>,
    refusing: (TcpSocket, std::net::SocketAddr),
}

#[async_trait]
impl SourceRig for Rig {
    fn sources(&self) -> Arc<dyn Sources> {
        Arc::clone(&self.sources) as _
    }

    async fn stage(&self, scene: Scene) -> FetchCall {
        if !scene.reachable {
            return call(format!("http://{}/", self.refusing.1));
        }
        let wait = scene.retry_after.map(|wait| wait.as_secs().to_string());
        let headers: Vec<_> = wait.iter().map(|wait| ("retry-after", wait.as_str())).collect();
        self.server.script([scene.status.map_or(Step::Hang, |status| answer(status, &headers, &scene.body))]);
        let mut call = call(self.server.url("/"));
        if scene.status.is_none() {
            call.timeout = Duration::from_millis(200);
        }
        call
    }

    fn seen(&self) -> Vec<TraceParent> {
        let traceparent = |seen: super::server::Seen| seen.header("traceparent").unwrap().parse().unwrap();
        self.server.seen().into_iter().map(traceparent).collect()
    }
}

#[tokio::test]
async fn the_adapter_keeps_the_contract() {
    let rig = Rig { server: Server::start().await, sources: Arc::new(sources()), refusing: refusing() };
    sources_keep_their_contract(&rig).await;
}

#[tokio::test]
async fn a_request_has_exactly_the_headers_that_it_needs() {
    let server = Server::start().await;
    server.script([json("{}")]);
    sources().fetch(&call(server.url("/orders/u%2F1?limit=5"))).await.unwrap();
    let seen = server.seen();
    let mut lines: Vec<&str> = seen[0].head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "GET /orders/u%2F1?limit=5 HTTP/1.1");
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "accept: application/json",
            "authorization: Bearer canary-token",
            &format!("host: {}", server.addr),
            "traceparent: 00-00000000000000000000000000000abc-0000000000000def-01",
            concat!("user-agent: throughline/", env!("CARGO_PKG_VERSION")),
            "x-tenant: acme",
        ]
    );
    assert_eq!(seen[0].body, b"");
}

#[tokio::test]
async fn a_post_has_its_body_and_the_headers_of_its_message() {
    let server = Server::start().await;
    server.script([json("{}")]);
    let body = r#"{"query":"é"}"#.to_owned();
    let post = FetchCall {
        method: Method::Post,
        headers: vec![("x-tenant".to_owned(), "zoë".to_owned()), ("x-user".to_owned(), "u1".to_owned())],
        body: Some(body.clone()),
        ..call(server.url("/search"))
    };
    sources().fetch(&post).await.unwrap();
    let seen = &server.seen()[0];
    let lines: Vec<&str> = seen.head.trim_end().lines().collect();
    assert_eq!(lines[0], "POST /search HTTP/1.1");
    for line in [
        "content-type: application/json",
        "content-length: 14",
        "x-user: u1",
        "authorization: Bearer canary-token",
    ] {
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }
    assert_eq!(seen.body, body.as_bytes());

    for (name, value) in
        [("x-user", "u1\r\nhost: evil"), ("x-user", "a\nb"), ("content-length", "1"), ("traceparent", "x")]
    {
        let headers = vec![(name.to_owned(), value.to_owned())];
        let error = sources().fetch(&FetchCall { headers, ..call(server.url("/")) }).await.unwrap_err();
        assert!(matches!(&error, FetchError::Misconfigured(words) if words.contains(name)), "{error:?}");
        assert!(!error.to_string().contains("evil"), "{error}");
    }
    assert_eq!(server.seen().len(), 1, "nothing was sent");
}

#[tokio::test]
async fn calls_share_a_connection() {
    let (server, sources) = (Server::start().await, sources());
    for n in 0..5 {
        server.script([json(n.to_string())]);
        assert_eq!(sources.fetch(&call(server.url("/"))).await, Ok(json!(n).into()));
    }
    // An error that came with its whole body does not cost the connection, either.
    server.script([answer(503, &[], "later")]);
    sources.fetch(&call(server.url("/"))).await.unwrap_err();
    server.script([json("6")]);
    assert_eq!(sources.fetch(&call(server.url("/"))).await, Ok(json!(6).into()));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_date_to_wait_for_is_relative_to_our_clock() {
    let server = Server::start().await;
    server.script([answer(429, &[("Retry-After", "Sun, 06 Nov 1994 08:51:37 GMT")], "")]);
    let error = sources().fetch(&call(server.url("/"))).await;
    assert_eq!(error, Err(FetchError::RateLimited { retry_after: Some(Duration::from_mins(2)) }));
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let (server, canary) = (Server::start().await, Server::start().await);
    let sources = sources();
    for status in [301, 302, 303, 307, 308] {
        server.script([answer(status, &[("location", &canary.url("/"))], "")]);
        assert_eq!(sources.fetch(&call(server.url("/"))).await, Err(FetchError::Refused(status)));
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_url_that_cannot_be_called_is_named_but_not_repeated() {
    let sources = sources();
    for url in [
        "",
        "orders/1",
        "file:///etc/passwd",
        "ftp://host/canary",
        "http://",
        "http://[canary]/",
        "data:canary",
    ] {
        let error = sources.fetch(&call(url.to_owned())).await.unwrap_err();
        assert!(matches!(error, FetchError::Misconfigured(_)), "{url}: {error:?}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn a_failed_call_names_the_host_but_not_the_path() {
    let (_socket, addr) = refusing();
    let error =
        sources().fetch(&call(format!("http://{addr}/canary?key=canary"))).await.unwrap_err().to_string();
    assert!(error.contains(&addr.to_string()) && error.contains("refused"), "{error}");
    assert!(!error.contains("canary"), "{error}");
    // A name that no resolver is asked about, because it is too long for one.
    let error = sources().fetch(&call(format!("http://{}.invalid/", "x".repeat(64)))).await.unwrap_err();
    assert!(matches!(&error, FetchError::Unreachable(words) if words.contains("invalid:80")), "{error:?}");
}

#[tokio::test]
async fn a_secret_that_the_source_echoes_is_removed() {
    let server = Server::start().await;
    server.script([json(r#"{"headers":{"authorization":"Bearer \u0063anary-token","x-tenant":"acme"}}"#)]);
    let echo = sources().fetch(&call(server.url("/"))).await.unwrap();
    assert_eq!(*echo, json!({"headers": {"authorization": "Bearer ***", "x-tenant": "acme"}}));
}

#[tokio::test]
async fn each_source_is_asked_through_its_own_proxy_and_this_machine_through_none() {
    let proxy = Server::start().await;
    let behind = |name: &str, proxies| HttpSource { name: name.to_owned(), proxies, ..HttpSource::default() };
    let sources = HttpSources::new(
        vec![behind("far", Proxies::one(proxy.url(""))), behind("near", Proxies::none())],
        clock(),
    )
    .unwrap();
    let ask = async |source: &str, url: String| {
        sources.fetch(&FetchCall { source: source.to_owned(), ..call(url) }).await
    };
    proxy.script([json(r#"{"by":"proxy"}"#)]);
    assert_eq!(*ask("far", "http://crm.example.test/a".to_owned()).await.unwrap(), json!({"by": "proxy"}));
    let seen = proxy.seen();
    assert!(seen[0].head.starts_with("GET http://crm.example.test/a HTTP/1.1"), "{}", seen[0].head);
    assert!(ask("near", "http://no-such-host.example.test/".to_owned()).await.is_err());

    let server = Server::start().await;
    server.script([json("{}")]);
    ask("far", server.url("/own")).await.unwrap();
    assert!(server.seen()[0].head.starts_with("GET /own HTTP/1.1"));
    assert_eq!(proxy.seen().len(), 1);
}

#[test]
fn settings_that_cannot_work_are_refused_and_secrets_not_repeated() {
    let with = |header: &str, text: HeaderText| {
        let headers = vec![(header.parse().unwrap(), text)];
        HttpSources::new(
            vec![HttpSource { name: "crm".to_owned(), headers, ..HttpSource::default() }],
            clock(),
        )
        .err()
        .map(|error| format!("{error} {error:?}"))
    };
    let secret = |value: &str| HeaderText::Secret { prefix: String::new(), secret: Credential::new(value) };
    let message = with("x-key", secret("canary\r\nhost: evil")).unwrap();
    assert!(message.contains("x-key") && message.contains("crm") && !message.contains("canary"), "{message}");
    for reserved in ["accept-encoding", "content-length", "transfer-encoding", "traceparent"] {
        let message = with(reserved, HeaderText::Plain("x".to_owned())).unwrap();
        assert!(message.contains(reserved), "{message}");
    }
    assert_eq!(with("accept", HeaderText::Plain("application/hal+json".to_owned())), None);
    let twice = vec![HttpSource { name: "crm".to_owned(), ..HttpSource::default() }; 2];
    assert!(HttpSources::new(twice, clock()).is_err());
    let proxies = Proxies::one("http://user:canary@");
    let behind = vec![HttpSource { name: "crm".to_owned(), proxies, ..HttpSource::default() }];
    let error = HttpSources::new(behind, clock()).err().unwrap();
    let error = format!("{error} {error:?}");
    assert!(error.contains("crm") && error.contains("proxy") && !error.contains("canary"), "{error}");
}
