//! How a provider is reached: through a proxy, with headers, parameters and keys where a gateway wants them.

use std::collections::{BTreeMap, HashMap};

use throughline::llm::{
    Credential, KeySource, ModelProviders, ModelProvidersError, ProviderKind, ProviderSettings, ProviderSpec,
    Proxies, SettingValue,
};
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::{Models, NoSink};

use super::clock;
use super::dialects::{Answer, base_path, send_whole};
use super::models::{KEY, limits};
use super::server::{Seen, Server};

fn spec(kind: ProviderKind, base_url: String, settings: ProviderSettings) -> ProviderSpec {
    ProviderSpec {
        name: "provider".to_owned(),
        kind,
        base_url,
        keys: vec![KeySource::Fixed(Credential::new(KEY))],
        options: HashMap::new(),
        limits: limits(),
        settings,
    }
}

/// What a server sees that gets one call, and what comes of its answer.
async fn seen(server: &Server, spec: ProviderSpec, text: &str) -> (Seen, String) {
    server.script([send_whole(spec.kind, &Answer::text(text))]);
    let models = ModelProviders::new(vec![spec], &clock()).unwrap();
    let answer = models.generate(&request("provider"), &NoSink).await.unwrap();
    (server.seen().pop().unwrap(), answer.text)
}

#[tokio::test]
async fn the_key_goes_where_the_gateway_wants_it() {
    let bearer = format!("Bearer {KEY}");
    for (kind, key_header, name, value) in [
        (ProviderKind::Anthropic, Some("authorization"), "authorization", bearer.as_str()),
        (ProviderKind::OpenAi, Some("api-key"), "api-key", KEY),
        (ProviderKind::Gemini, Some("Authorization"), "authorization", bearer.as_str()),
        (ProviderKind::Anthropic, None, "x-api-key", KEY),
    ] {
        let server = Server::start().await;
        let settings =
            ProviderSettings { key_header: key_header.map(str::to_owned), ..ProviderSettings::default() };
        let (seen, _) = seen(&server, spec(kind, server.url(base_path(kind)), settings), "x").await;
        assert_eq!(seen.header(name), Some(value), "{kind:?}");
        assert_eq!(seen.head.matches(KEY).count(), 1, "{}", seen.head);
    }
}

#[tokio::test]
async fn headers_and_parameters_go_along_and_their_secrets_come_back_to_nobody() {
    let secret = "gateway-canary-42";
    let value =
        |prefix: &str| SettingValue::Secret { prefix: prefix.to_owned(), secret: Credential::new(secret) };
    let settings = ProviderSettings {
        headers: vec![
            ("x-team".to_owned(), SettingValue::Plain("support".to_owned())),
            ("proxy-authorization".to_owned(), value("Bearer ")),
            ("authorization".to_owned(), SettingValue::Plain("none".to_owned())),
        ],
        query: vec![
            ("api-version".to_owned(), SettingValue::Plain("2026 & 1".to_owned())),
            ("token".to_owned(), value("")),
        ],
        ..ProviderSettings::default()
    };
    let server = Server::start().await;
    let base = format!("{}?deployment=d", server.url("/v1"));
    let (seen, text) =
        seen(&server, spec(ProviderKind::OpenAi, base, settings), &format!("It is {secret}.")).await;
    let line = seen.head.lines().next().unwrap();
    assert_eq!(
        line,
        "POST /v1/chat/completions?deployment=d&api-version=2026+%26+1&token=gateway-canary-42 HTTP/1.1"
    );
    assert_eq!(seen.header("x-team"), Some("support"));
    assert_eq!(seen.header("proxy-authorization"), Some("Bearer gateway-canary-42"));
    assert_eq!(seen.header("authorization"), Some("none"), "the operator's word counts");
    assert_eq!(text, "It is ***.");
}

#[tokio::test]
async fn calls_go_through_the_proxy_that_is_set_but_for_those_that_are_excepted() {
    let proxy = Server::start().await;
    let env = |pairs: &[(&str, String)]| {
        let env: BTreeMap<_, _> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Proxies::from_env(&env)
    };
    for proxies in [
        env(&[("HTTP_PROXY", proxy.url(""))]),
        env(&[("all_proxy", proxy.url(""))]),
        Proxies::one(proxy.url("")),
    ] {
        let settings = ProviderSettings { proxies, ..ProviderSettings::default() };
        let spec = spec(ProviderKind::OpenAi, "http://api.example.test/v1".to_owned(), settings);
        let (seen, _) = seen(&proxy, spec, "x").await;
        let line = seen.head.lines().next().unwrap();
        assert_eq!(line, "POST http://api.example.test/v1/chat/completions HTTP/1.1");
    }
    // This machine is not asked through another one.
    let (server, before) = (Server::start().await, proxy.seen().len());
    for proxies in [env(&[("HTTP_PROXY", proxy.url(""))]), Proxies::one(proxy.url("")), Proxies::none()] {
        let settings = ProviderSettings { proxies, ..ProviderSettings::default() };
        let (seen, _) = seen(&server, spec(ProviderKind::OpenAi, server.url("/v1"), settings), "x").await;
        assert!(seen.head.starts_with("POST /v1/chat/completions"), "{}", seen.head);
    }
    let excepted = env(&[("HTTP_PROXY", proxy.url("")), ("NO_PROXY", "example.test".to_owned())]);
    let settings = ProviderSettings { proxies: excepted, ..ProviderSettings::default() };
    let base = "http://no-such-host.example.test/v1".to_owned();
    let models = ModelProviders::new(vec![spec(ProviderKind::OpenAi, base, settings)], &clock()).unwrap();
    assert!(models.generate(&request("provider"), &NoSink).await.is_err());
    assert_eq!(proxy.seen().len(), before);
}

#[test]
fn what_cannot_be_sent_is_refused_at_once_and_not_repeated() {
    let refused = |settings: ProviderSettings| {
        let spec = spec(ProviderKind::OpenAi, "http://h/v1".to_owned(), settings);
        let error = ModelProviders::new(vec![spec], &clock()).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("canary\r"), "{error:?}");
        error
    };
    let header = |name: &str, text: &str| ProviderSettings {
        headers: vec![(name.to_owned(), SettingValue::Plain(text.to_owned()))],
        ..ProviderSettings::default()
    };
    assert!(matches!(refused(header("x y", "v")), ModelProvidersError::Setting { .. }));
    assert!(matches!(refused(header("x", "canary\r\n")), ModelProvidersError::Setting { .. }));
    let proxies = Proxies::one("http://");
    assert!(matches!(
        refused(ProviderSettings { proxies, ..ProviderSettings::default() }),
        ModelProvidersError::Proxy { .. }
    ));
}

#[tokio::test]
async fn a_key_is_sent_without_what_nobody_can_see() {
    for copied in [
        "  sk-abc-0123456789 ",
        "sk-abc-0123456789\r\n",
        "\"sk-abc-0123456789\"",
        "\u{FEFF}sk-abc\u{200B}-0123456789",
        "'sk-abc-0123456789' ",
    ] {
        let server = Server::start().await;
        let spec = ProviderSpec {
            keys: vec![KeySource::Fixed(Credential::new(copied))],
            ..spec(ProviderKind::OpenAi, server.url("/v1"), ProviderSettings::default())
        };
        let (seen, text) = seen(&server, spec, "It is sk-abc-0123456789.").await;
        assert_eq!(seen.header("authorization"), Some("Bearer sk-abc-0123456789"), "{copied:?}");
        assert_eq!(text, "It is ***.");
    }
}
