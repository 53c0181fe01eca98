//! What stages rely on from [`Sources`].

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use throughline_schemas::TraceParent;
use tokio::time::{Duration, Instant};

use crate::ports::source::{FetchCall, FetchError, Sources};
use crate::ports::{Classify, Fault, Health};

/// What the source does with the next call.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Whether a connection can be made.
    pub reachable: bool,
    /// The status of the answer; none: it never answers.
    pub status: Option<u16>,
    /// How long it asks to wait, in whole seconds.
    pub retry_after: Option<Duration>,
    /// The body's text.
    pub body: String,
}

impl Scene {
    /// An answer.
    pub fn answer(status: u16, body: impl Into<String>) -> Self {
        Self { reachable: true, status: Some(status), retry_after: None, body: body.into() }
    }

    /// A connection on which nothing is ever answered.
    pub fn silent() -> Self {
        Self { reachable: true, status: None, retry_after: None, body: String::new() }
    }

    /// No connection.
    pub fn unreachable() -> Self {
        Self { reachable: false, ..Self::silent() }
    }

    fn asking_to_wait(mut self, seconds: u64) -> Self {
        self.retry_after = Some(Duration::from_secs(seconds));
        self
    }
}

/// One implementation under test, together with the source that it calls.
#[async_trait]
pub trait SourceRig: Send + Sync {
    /// The implementation.
    fn sources(&self) -> Arc<dyn Sources>;
    /// Prepares the scene and returns the call that will meet it, with a limit of 1000 bytes and a time limit of at
    /// most a second.
    async fn stage(&self, scene: Scene) -> FetchCall;
    /// The trace contexts that have reached the source, in order.
    fn seen(&self) -> Vec<TraceParent>;
}

/// Runs the suite.
///
/// # Panics
/// Where the contract is broken.
pub async fn sources_keep_their_contract(rig: &dyn SourceRig) {
    let sources = rig.sources();
    let transient = Fault::Transient { wait_at_least: None };
    let wait = |seconds| Fault::Transient { wait_at_least: Some(Duration::from_secs(seconds)) };
    let document = json!({"name": "Zoë", "orders": [1, 2.5, null, "\u{1F600}"]});

    // A document arrives as it was sent, and the trace context goes along.
    let call = rig.stage(Scene::answer(200, document.to_string())).await;
    assert_eq!(call.max_bytes, 1000);
    assert_eq!(sources.fetch(&call).await, Ok(document.clone().into()));
    assert_eq!(rig.seen(), [call.traceparent]);

    // Every other status says what happened and what it means.
    let cases = [
        (Scene::answer(404, "{}"), FetchError::NotFound(404), Fault::Permanent, Health::Answered),
        (Scene::answer(410, ""), FetchError::NotFound(410), Fault::Permanent, Health::Answered),
        (Scene::answer(204, ""), FetchError::NotFound(204), Fault::Permanent, Health::Answered),
        (Scene::answer(400, "{}"), FetchError::Refused(400), Fault::Permanent, Health::Answered),
        (Scene::answer(401, "{}"), FetchError::Refused(401), Fault::Permanent, Health::Answered),
        (Scene::answer(302, ""), FetchError::Refused(302), Fault::Permanent, Health::Answered),
        (Scene::answer(429, "{}"), FetchError::RateLimited { retry_after: None }, transient, Health::Paced),
        (
            Scene::answer(429, "{}").asking_to_wait(9),
            FetchError::RateLimited { retry_after: Some(Duration::from_secs(9)) },
            wait(9),
            Health::Paced,
        ),
        (
            Scene::answer(500, "oops"),
            FetchError::Server { status: 500, retry_after: None },
            transient,
            Health::Failed,
        ),
        (
            Scene::answer(503, "").asking_to_wait(2),
            FetchError::Server { status: 503, retry_after: Some(Duration::from_secs(2)) },
            wait(2),
            Health::Failed,
        ),
        (
            Scene::answer(408, ""),
            FetchError::Server { status: 408, retry_after: None },
            transient,
            Health::Failed,
        ),
    ];
    for (scene, expected, fault, health) in cases {
        let call = rig.stage(scene.clone()).await;
        let result = sources.fetch(&call).await;
        assert_eq!(result, Err(expected.clone()), "{scene:?}");
        assert_eq!((expected.fault(), expected.health()), (fault, health), "{scene:?}");
    }

    // The cap counts bytes and is inclusive.
    let quoted = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let call = rig.stage(Scene::answer(200, quoted(1000))).await;
    assert!(sources.fetch(&call).await.is_ok());
    let call = rig.stage(Scene::answer(200, quoted(1001))).await;
    assert_eq!(sources.fetch(&call).await, Err(FetchError::TooLarge(1000)));

    // What is not JSON is not repeated.
    let call = rig.stage(Scene::answer(200, "<html>canary</html>")).await;
    let error = sources.fetch(&call).await;
    assert!(matches!(&error, Err(FetchError::NotJson(words)) if !words.contains("canary")), "{error:?}");

    // Silence ends with the call's own limit, not before and not much later.
    let call = rig.stage(Scene::silent()).await;
    let start = Instant::now();
    assert_eq!(sources.fetch(&call).await, Err(FetchError::TimedOut(call.timeout)));
    let took = start.elapsed();
    assert!(took >= call.timeout && took < call.timeout + Duration::from_secs(5), "{took:?}");

    let call = rig.stage(Scene::unreachable()).await;
    let error = sources.fetch(&call).await;
    assert!(matches!(error, Err(FetchError::Unreachable(_))), "{error:?}");

    // A name that nobody configured is not called.
    let mut call = rig.stage(Scene::answer(200, document.to_string())).await;
    let (source, calls) =
        (std::mem::replace(&mut call.source, "no-such-source".to_owned()), rig.seen().len());
    let error = sources.fetch(&call).await;
    assert!(matches!(error, Err(FetchError::Misconfigured(_))), "{error:?}");
    assert_eq!(rig.seen().len(), calls);
    call.source = source;

    // After all that, the source answers as before.
    assert_eq!(sources.fetch(&call).await, Ok(document.into()));
    assert_eq!(rig.seen().len(), calls + 1);
}
