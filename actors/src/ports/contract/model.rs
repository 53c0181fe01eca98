//! What stages rely on from [`Models`].

use std::mem::discriminant;
use std::sync::Arc;

use async_trait::async_trait;
use throughline_schemas::event::generation::{Message, Role};
use throughline_schemas::{FinishReason, TraceParent, Usage};
use tokio::time::Duration;

use crate::ports::model::{AnswerFormat, ModelError, ModelRequest, Models, Phase, Unheard};
use crate::ports::{Classify, Fault, Health};

/// What the provider does with the next call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scene {
    /// It answers.
    Answer {
        /// The text.
        text: &'static str,
        /// Why it stopped.
        finish_reason: FinishReason,
        /// What it reports.
        usage: Option<Usage>,
    },
    /// It asks to slow down.
    RateLimited {
        /// For how long, in whole seconds.
        retry_after: Duration,
    },
    /// It is overloaded.
    Overloaded,
    /// It refuses the key.
    BadKey,
    /// It asks to slow down because the account has no credit.
    QuotaUsedUp,
    /// It does not know the model.
    UnknownModel,
    /// It finds the prompt too long.
    TooLong,
    /// It finds something else wrong with the request.
    BadRequest,
    /// It answers with success and no text.
    Empty,
    /// It answers with success and a web page.
    NotJson,
    /// It answers with more than is allowed.
    Huge,
    /// It closes the connection in the middle of the answer.
    CutShort,
    /// It takes the request and never answers.
    Silent,
    /// It begins its answer and never goes on.
    Stalls,
    /// There is no connection.
    Unreachable,
}

/// One implementation under test, together with the provider that it calls. The provider's name is `provider`.
#[async_trait]
pub trait ModelRig: Send + Sync {
    /// The implementation, with limits on the first byte and between reads of at most a second.
    fn models(&self) -> Arc<dyn Models>;
    /// Prepares the scene and returns the request that will meet it.
    async fn stage(&self, scene: Scene) -> ModelRequest;
    /// The trace contexts that have reached the provider, in order.
    fn seen(&self) -> Vec<TraceParent>;
}

/// A short request.
pub fn request(provider: &str) -> ModelRequest {
    ModelRequest {
        provider: provider.to_owned(),
        model: "model".to_owned(),
        messages: vec![Message { role: Role::User, content: "Where is my order?".to_owned() }],
        max_tokens: 100,
        temperature_milli: Some(700),
        top_p_milli: None,
        stop: Vec::new(),
        format: AnswerFormat::Text,
        stream: false,
        traceparent: TraceParent::root(7, 9),
    }
}

/// Runs the suite.
///
/// # Panics
/// Where the contract is broken.
pub async fn models_keep_their_contract(rig: &dyn ModelRig) {
    answers_arrive_whole(rig).await;
    failures_say_what_happened(rig).await;

    // A name that nobody configured is not called.
    let (models, calls) = (rig.models(), rig.seen().len());
    let error =
        models.generate(&request("no-such-provider"), &Unheard).await.map_err(|failure| failure.error);
    assert!(matches!(error, Err(ModelError::UnknownModel(_))), "{error:?}");
    assert_eq!(rig.seen().len(), calls);

    // After all that, the provider answers as before.
    answers_arrive_whole(rig).await;
}

async fn answers_arrive_whole(rig: &dyn ModelRig) {
    let models = rig.models();
    let usage = Usage {
        input_tokens: 24,
        output_tokens: 4,
        cached_input_tokens: 23,
        reasoning_tokens: 1,
        ..Usage::default()
    };
    for finish_reason in
        [FinishReason::Stop, FinishReason::Length, FinishReason::ContentFilter, FinishReason::Other]
    {
        for usage in [Some(usage), None] {
            let text = "It ships \"tomorrow\", Zoë.\n\u{1F600}";
            let request = rig.stage(Scene::Answer { text, finish_reason, usage }).await;
            let answer = models.generate(&request, &Unheard).await;
            assert!(answer.is_ok(), "{answer:?}");
            let Ok(answer) = answer else { continue };
            assert_eq!(answer.text, text);
            assert_eq!(answer.finish_reason, finish_reason);
            assert_eq!(answer.usage, usage);
            assert!(!answer.model.is_empty() && answer.raw.is_object());
            assert_eq!(rig.seen().last(), Some(&request.traceparent));
        }
    }
}

async fn failures_say_what_happened(rig: &dyn ModelRig) {
    let models = rig.models();
    let words = String::new;
    let wait = Duration::from_secs(9);
    let transient = Fault::Transient { wait_at_least: None };
    let cases = [
        (
            Scene::RateLimited { retry_after: wait },
            ModelError::RateLimited,
            Fault::Transient { wait_at_least: Some(wait) },
            Health::Paced,
        ),
        (Scene::Overloaded, ModelError::Server(words()), transient, Health::Failed),
        (Scene::BadKey, ModelError::Credentials, Fault::Permanent, Health::Failed),
        (Scene::QuotaUsedUp, ModelError::QuotaExhausted(words()), Fault::Permanent, Health::Failed),
        (Scene::UnknownModel, ModelError::UnknownModel(words()), Fault::Permanent, Health::Answered),
        (Scene::TooLong, ModelError::ContextTooLong(words()), Fault::Permanent, Health::Answered),
        (Scene::BadRequest, ModelError::BadRequest(words()), Fault::Permanent, Health::Answered),
        (Scene::Empty, ModelError::BadResponse(words()), Fault::Unknown, Health::Failed),
        (Scene::NotJson, ModelError::BadResponse(words()), Fault::Unknown, Health::Failed),
        (Scene::Huge, ModelError::TooLarge(0), Fault::Unknown, Health::Failed),
        (Scene::CutShort, ModelError::CutShort(words()), Fault::Unknown, Health::Failed),
        (Scene::Silent, ModelError::TimedOut(Phase::FirstToken), Fault::Unknown, Health::Failed),
        (Scene::Stalls, ModelError::TimedOut(Phase::Read), Fault::Unknown, Health::Failed),
        (Scene::Unreachable, ModelError::Unreachable(words()), transient, Health::Failed),
    ];
    for (scene, expected, fault, health) in cases {
        let request = rig.stage(scene.clone()).await;
        let result = models.generate(&request, &Unheard).await;
        assert!(result.is_err(), "{scene:?}: {result:?}");
        let Err(failure) = result else { continue };
        assert_eq!(discriminant(&failure.error), discriminant(&expected), "{scene:?}: {failure:?}");
        if let (ModelError::TimedOut(phase), ModelError::TimedOut(expected)) = (&failure.error, &expected) {
            assert_eq!(phase, expected, "{scene:?}");
        }
        assert_eq!((failure.fault(), failure.health()), (fault, health), "{scene:?}: {failure:?}");
        assert!(failure.to_string().len() < 1000, "{scene:?}: {failure}");
    }
}
