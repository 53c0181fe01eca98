//! What stages rely on from [`Models`].

use std::mem::discriminant;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use throughline_schemas::event::generation::{Message, Role};
use throughline_schemas::{FinishReason, TraceParent, Usage};
use tokio::time::Duration;

use crate::ports::model::{
    AnswerFormat, Delta, DeltaSink, ModelAnswer, ModelError, ModelRequest, Models, NoSink, Phase,
};
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
    /// It answers, and tells what it thought before.
    Thoughtful {
        /// What it thought.
        reasoning: &'static str,
        /// The text.
        text: &'static str,
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
    /// Its filter leaves nothing of the answer.
    Filtered,
    /// It answers with success and no text.
    Empty,
    /// It answers with success and a web page.
    NotJson,
    /// It answers with more than is allowed.
    Huge,
    /// It breaks the connection in the middle of the answer.
    CutShort,
    /// It ends in good order without having said that the answer is complete; only of streams.
    Unfinished,
    /// It says in the middle of the answer that it is overloaded; only of streams.
    FailsMidway,
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
    /// Prepares the scene, for an answer that is whole or a stream, and returns the request that will meet it.
    async fn stage(&self, scene: Scene, stream: bool) -> ModelRequest;
    /// The trace contexts that have reached the provider, in order.
    fn seen(&self) -> Vec<TraceParent>;
}

/// A short request.
pub fn request(provider: &str) -> ModelRequest {
    ModelRequest {
        provider: provider.to_owned(),
        model: "model".to_owned(),
        messages: vec![Message { role: Role::User, content: "Where is my order?".to_owned() }].into(),
        max_tokens: 100,
        temperature_milli: Some(700),
        top_p_milli: None,
        stop: Vec::new(),
        format: AnswerFormat::Text,
        stream: false,
        traceparent: TraceParent::root(7, 9),
        takes_tool_calls: true,
    }
}

/// Remembers what it hears.
#[derive(Debug, Default)]
struct Collector(Mutex<Collected>);

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Collected {
    text: String,
    reasoning: String,
    pieces: usize,
}

impl Collector {
    fn collected(&self) -> Collected {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl DeltaSink for Collector {
    fn delta(&self, delta: Delta<'_>) {
        let mut collected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        collected.pieces += 1;
        match delta {
            Delta::Text(text) => collected.text.push_str(text),
            Delta::Reasoning(text) => collected.reasoning.push_str(text),
            Delta::Void => {
                let text = std::mem::take(&mut collected.text);
                collected.reasoning.push_str(&text);
            }
        }
        assert!(!matches!(delta, Delta::Text("") | Delta::Reasoning("")), "an empty piece");
    }
}

/// Runs the suite, with whole answers and with streams.
///
/// # Panics
/// Where the contract is broken.
pub async fn models_keep_their_contract(rig: &dyn ModelRig) {
    for stream in [false, true] {
        answers_arrive_whole(rig, stream).await;
        failures_say_what_happened(rig, stream).await;

        // A name that nobody configured is not called.
        let (models, calls) = (rig.models(), rig.seen().len());
        let error =
            models.generate(&request("no-such-provider"), &NoSink).await.map_err(|failure| failure.error);
        assert!(matches!(error, Err(ModelError::UnknownModel(_))), "{error:?}");
        assert_eq!(rig.seen().len(), calls);

        // After all that, the provider answers as before.
        answers_arrive_whole(rig, stream).await;
    }
}

async fn answers_arrive_whole(rig: &dyn ModelRig, stream: bool) {
    let text = "It ships \"tomorrow\", Zoë.\n\u{1F600}";
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
            let scene = Scene::Answer { text, finish_reason, usage };
            let Some(answer) = answer(rig, scene, stream, text, "").await else { continue };
            assert_eq!(answer.finish_reason, finish_reason);
            assert!(answer.finish_reason_raw.is_some_and(|word| !word.is_empty()));
            assert_eq!(answer.usage, usage);
        }
    }
    let reasoning = "The user asks when.\nTomorrow.";
    answer(rig, Scene::Thoughtful { reasoning, text }, stream, text, reasoning).await;
}

/// One answer, and what is true of every one.
async fn answer(
    rig: &dyn ModelRig,
    scene: Scene,
    stream: bool,
    text: &str,
    reasoning: &str,
) -> Option<ModelAnswer> {
    let collector = Collector::default();
    let request = rig.stage(scene, stream).await;
    let answer = rig.models().generate(&request, &collector).await;
    assert!(answer.is_ok(), "{answer:?}");
    let answer = answer.ok()?;
    assert_eq!((answer.text.as_str(), answer.reasoning.as_deref().unwrap_or_default()), (text, reasoning));
    assert!(!answer.model.is_empty() && answer.raw.is_object());
    assert!(answer.raw.to_string().contains("tomorrow"), "{}", answer.raw);
    assert_eq!(rig.seen().last(), Some(&request.traceparent));
    let collected = collector.collected();
    if stream {
        assert_eq!((collected.text.as_str(), collected.reasoning.as_str()), (text, reasoning));
        assert!(collected.pieces > 1, "{collected:?}");
    } else {
        assert_eq!(collected, Collected::default(), "nothing is heard of a whole answer");
    }
    assert_eq!(answer.facts.first_token.is_some(), stream);
    Some(answer)
}

async fn failures_say_what_happened(rig: &dyn ModelRig, stream: bool) {
    let models = rig.models();
    let words = String::new;
    let wait = Duration::from_secs(9);
    let transient = Fault::Transient { wait_at_least: None };
    let mut cases = vec![
        (
            Scene::RateLimited { retry_after: wait },
            ModelError::RateLimited(words()),
            Fault::Transient { wait_at_least: Some(wait) },
            Health::Paced,
        ),
        (Scene::Overloaded, ModelError::Server(words()), transient, Health::Failed),
        (Scene::BadKey, ModelError::Credentials(words()), Fault::Permanent, Health::Failed),
        (Scene::QuotaUsedUp, ModelError::QuotaExhausted(words()), Fault::Permanent, Health::Failed),
        (Scene::UnknownModel, ModelError::UnknownModel(words()), Fault::Permanent, Health::Answered),
        (Scene::TooLong, ModelError::ContextTooLong(words()), Fault::Permanent, Health::Answered),
        (Scene::BadRequest, ModelError::BadRequest(words()), Fault::Permanent, Health::Answered),
        (Scene::Filtered, ModelError::ContentFiltered(words()), Fault::Permanent, Health::Answered),
        (Scene::Empty, ModelError::Unfit(words()), Fault::Unknown, Health::Answered),
        (Scene::NotJson, ModelError::BadResponse(words()), Fault::Unknown, Health::Failed),
        (Scene::Huge, ModelError::TooLarge(0), Fault::Unknown, Health::Answered),
        (Scene::CutShort, ModelError::CutShort(words()), Fault::Unknown, Health::Failed),
        (Scene::Silent, ModelError::TimedOut(Phase::FirstToken), Fault::Unknown, Health::Failed),
        (Scene::Stalls, ModelError::TimedOut(Phase::Read), Fault::Unknown, Health::Failed),
        (Scene::Unreachable, ModelError::Unreachable(words()), transient, Health::Failed),
    ];
    if stream {
        cases.push((Scene::Unfinished, ModelError::BadResponse(words()), Fault::Unknown, Health::Failed));
        cases.push((Scene::FailsMidway, ModelError::Server(words()), transient, Health::Failed));
    }
    for (scene, expected, fault, health) in cases {
        let collector = Collector::default();
        let request = rig.stage(scene.clone(), stream).await;
        let result = models.generate(&request, &collector).await;
        assert!(result.is_err(), "{scene:?}: {result:?}");
        let Err(failure) = result else { continue };
        assert_eq!(discriminant(&failure.error), discriminant(&expected), "{scene:?}: {failure:?}");
        if let (ModelError::TimedOut(phase), ModelError::TimedOut(expected)) = (&failure.error, &expected) {
            assert_eq!(phase, expected, "{scene:?}");
        }
        assert_eq!((failure.fault(), failure.health()), (fault, health), "{scene:?}: {failure:?}");
        assert!(failure.to_string().len() < 1000, "{scene:?}: {failure}");
        let begins = matches!(
            scene,
            Scene::CutShort | Scene::Unfinished | Scene::FailsMidway | Scene::Stalls | Scene::Huge
        );
        if stream && begins {
            assert!(
                collector.collected().pieces > 0 && failure.facts.first_token.is_some(),
                "{scene:?}: {failure:?}"
            );
            assert!(failure.may_have_been_billed(), "{scene:?}: {failure:?}");
        } else {
            assert_eq!(collector.collected(), Collected::default(), "{scene:?}");
        }
    }
}
