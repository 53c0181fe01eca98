//! Data sources that answer from a script.

use std::ops::Deref;

use async_trait::async_trait;
use serde_json::Value;
use throughline_schemas::Document;

use super::script::{Reply, Script};
use crate::ports::source::{FetchCall, FetchError, Sources};

/// [`Sources`] that answer as scripted; see [`Script`]. A source without a script is
/// one that is not configured.
///
/// ```
/// # use serde_json::json;
/// # use throughline_actors::ports::{memory::{script::Reply, source::ScriptedSources}, source::FetchError};
/// let sources = ScriptedSources::default();
/// sources.push("orders", Reply::Now(Err(FetchError::NotFound(404))));
/// sources.always("orders", Ok(json!({"status": "shipped"})));
/// assert_eq!(sources.calls("orders"), 0);
/// ```
#[derive(Debug, Default)]
pub struct ScriptedSources(Script<FetchCall, Result<Document, FetchError>>);

impl ScriptedSources {
    /// What a source answers, at once, whenever its queue is empty.
    pub fn always(&self, source: &str, result: Result<Value, FetchError>) {
        let result = result.map(Document::from);
        self.otherwise(source, move |_| Reply::Now(result.clone()));
    }
}

impl Deref for ScriptedSources {
    type Target = Script<FetchCall, Result<Document, FetchError>>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

#[async_trait]
impl Sources for ScriptedSources {
    async fn fetch(&self, call: &FetchCall) -> Result<Document, FetchError> {
        let document = tokio::time::timeout(call.timeout, self.0.play(&call.source, call))
            .await
            .map_err(|_| FetchError::TimedOut(call.timeout))?
            .ok_or_else(|| {
                FetchError::Misconfigured(format!("nothing is scripted for {:?}", call.source))
            })??;
        if document.as_str().len() > call.max_bytes {
            return Err(FetchError::TooLarge(call.max_bytes));
        }
        call.room.take(document.as_str().len()).await;
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;
    use throughline_schemas::TraceParent;

    use super::*;
    use crate::ports::{
        contract::source::{Scene, SourceRig, sources_keep_their_contract},
        source::{AnswerRoom, Method},
    };

    #[derive(Default)]
    struct Rig(Arc<ScriptedSources>);

    #[async_trait]
    impl SourceRig for Rig {
        fn sources(&self) -> Arc<dyn Sources> {
            Arc::clone(&self.0) as _
        }

        async fn stage(&self, scene: Scene) -> FetchCall {
            let retry_after = scene.retry_after;
            let not_json = || FetchError::NotJson("line 1".to_owned());
            let result = match scene.status {
                Some(200) => Document::read(scene.body.as_bytes()).map_err(|_| not_json()),
                Some(status @ (204 | 404 | 410)) => Err(FetchError::NotFound(status)),
                Some(429) => Err(FetchError::RateLimited { retry_after }),
                Some(status @ (408 | 425 | 500..)) => Err(FetchError::Server { status, retry_after }),
                Some(status) => Err(FetchError::Refused(status)),
                None => Err(FetchError::Unreachable("refused".to_owned())),
            };
            let silent = scene.reachable && scene.status.is_none();
            let reply = if silent { Reply::Never } else { Reply::Now(result) };
            self.0.push("source", reply);
            call()
        }

        fn seen(&self) -> Vec<TraceParent> {
            self.0.requests().iter().map(|call| call.traceparent).collect()
        }
    }

    fn call() -> FetchCall {
        FetchCall {
            source: "source".to_owned(),
            url: "http://source/".to_owned(),
            method: Method::Get,
            headers: Vec::new(),
            body: None,
            timeout: Duration::from_millis(300),
            max_bytes: 1000,
            traceparent: TraceParent::root(1, 2),
            room: AnswerRoom::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_fake_keeps_the_contract() {
        sources_keep_their_contract(&Rig::default()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_comes_first_then_the_default_and_every_call_is_recorded() {
        let sources = ScriptedSources::default();
        sources.push("source", Reply::After(Duration::from_millis(200), Ok(json!(1).into())));
        sources.always("source", Ok(json!(2)));
        let start = tokio::time::Instant::now();
        assert_eq!(sources.fetch(&call()).await, Ok(json!(1).into()));
        assert_eq!(start.elapsed(), Duration::from_millis(200));
        assert_eq!(sources.fetch(&call()).await, Ok(json!(2).into()));
        assert_eq!(sources.fetch(&call()).await, Ok(json!(2).into()));
        assert_eq!((sources.calls("source"), sources.calls("other")), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_overlap_and_an_abandoned_one_is_no_longer_under_way() {
        let sources = ScriptedSources::default();
        sources.otherwise("source", |_| Reply::Never);
        let (call, short) = (call(), Duration::from_millis(10));
        let (a, b) = tokio::join!(
            tokio::time::timeout(short, sources.fetch(&call)),
            tokio::time::timeout(short, sources.fetch(&call))
        );
        assert!(a.is_err() && b.is_err());
        assert_eq!(sources.peak_in_flight(), 2);
        sources.always("source", Ok(json!(2)));
        sources.fetch(&call).await.unwrap();
        assert_eq!(sources.peak_in_flight(), 2);
    }
}
