//! Several keys of one provider, as the provider sees them.

use std::collections::HashMap;

use throughline::llm::{
    KeySource, ModelProviders, ModelProvidersError, ProviderKind, ProviderSettings, ProviderSpec,
};
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::{ModelError, Models, NoSink};

use super::clock;
use super::dialects::{Answer, KINDS, Refusal, base_path, refuse, send_whole};
use super::models::limits;
use super::server::Server;
use super::streams::provider;

/// The keys that have come, in order.
fn sent(kind: ProviderKind, server: &Server) -> Vec<String> {
    let header = match kind {
        ProviderKind::OpenAi => "authorization",
        ProviderKind::Anthropic => "x-api-key",
        ProviderKind::Gemini => "x-goog-api-key",
    };
    let key = |seen: super::server::Seen| seen.header(header).unwrap_or("none").replace("Bearer ", "");
    server.seen().into_iter().map(key).collect()
}

#[tokio::test]
async fn a_refused_key_is_followed_by_the_next_and_left_alone() {
    for kind in KINDS {
        for refusal in [Refusal::BadKey, Refusal::QuotaUsedUp] {
            let server = Server::start().await;
            let models = provider(kind, &server, &["key-a", "key-b"], limits());
            server.script([refuse(kind, refusal)]);
            for _ in 0..3 {
                server.script([send_whole(kind, &Answer::text("Hi"))]);
                models.generate(&request("provider"), &NoSink).await.unwrap();
            }
            assert_eq!(sent(kind, &server), ["key-a", "key-b", "key-b", "key-b"], "{kind:?}");
        }
    }
}

#[tokio::test]
async fn the_call_fails_when_all_keys_are_refused() {
    for kind in KINDS {
        let server = Server::start().await;
        let models = provider(kind, &server, &["key-a", "key-b", "key-c"], limits());
        for _ in 0..3 {
            server.script([refuse(kind, Refusal::BadKey)]);
        }
        let failure = models.generate(&request("provider"), &NoSink).await.unwrap_err();
        assert!(matches!(failure.error, ModelError::Credentials(_)), "{failure:?}");
        assert_eq!(sent(kind, &server), ["key-a", "key-b", "key-c"], "{kind:?}");
        // Anything else is not a matter of the key.
        server.script([refuse(kind, Refusal::Overloaded)]);
        let failure = models.generate(&request("provider"), &NoSink).await.unwrap_err();
        assert!(matches!(failure.error, ModelError::Server(_)));
        assert_eq!(server.seen().len(), 4);
    }
}

#[tokio::test]
async fn keys_take_turns_and_no_key_sends_no_header() {
    for kind in KINDS {
        let server = Server::start().await;
        let (two, none) =
            (provider(kind, &server, &["key-a", "key-b"], limits()), provider(kind, &server, &[], limits()));
        for models in [&two, &two, &two, &none] {
            server.script([send_whole(kind, &Answer::text("Hi"))]);
            models.generate(&request("provider"), &NoSink).await.unwrap();
        }
        assert_eq!(sent(kind, &server), ["key-a", "key-b", "key-a", "none"], "{kind:?}");
    }
}

#[tokio::test]
async fn a_key_file_that_changes_is_read_again_when_the_old_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let kind = ProviderKind::Anthropic;
    let server = Server::start().await;
    let spec = |path: &std::path::Path| ProviderSpec {
        name: "provider".to_owned(),
        kind,
        base_url: server.url(base_path(kind)),
        keys: vec![KeySource::File(path.to_owned())],
        options: HashMap::new(),
        limits: limits(),
        settings: ProviderSettings::default(),
    };
    let missing = ModelProviders::new(vec![spec(&path)], &clock()).err().unwrap();
    assert!(matches!(missing, ModelProvidersError::ApiKey { .. }), "{missing:?}");
    std::fs::write(&path, "old-key\n").unwrap();
    let models = ModelProviders::new(vec![spec(&path)], &clock()).unwrap();
    std::fs::write(&path, "the-new-key\n").unwrap();
    server.script([refuse(kind, Refusal::BadKey)]);
    server.script([send_whole(kind, &Answer::text("Hi"))]);
    models.generate(&request("provider"), &NoSink).await.unwrap();
    assert_eq!(sent(kind, &server), ["old-key", "the-new-key"]);
}
