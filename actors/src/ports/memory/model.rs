//! Models that answer from a script.

use std::{ops::Deref, time::Duration};

use async_trait::async_trait;
use serde_json::json;
use throughline_schemas::{FinishReason, Usage};

use super::script::{Reply, Script};
use crate::ports::model::{
    CallFacts, Delta, DeltaSink, ModelAnswer, ModelError, ModelFailure, ModelRequest, Models,
};

/// What a stream passes on that fails after it has begun, which a scripted failure says by its time to the first
/// token.
pub const BEGUN: &str = "It ships ";

/// [`Models`] that answer as scripted, by the name of the provider; see [`Script`].
/// Streams come word by word.
/// A provider without a script is one that is not configured. Limits are the real adapter's: script the error, or
/// let a call hang with [`Reply::Never`].
#[derive(Debug, Default)]
pub struct ScriptedModels(Script<ModelRequest, Result<ModelAnswer, ModelFailure>>);

impl ScriptedModels {
    /// What a provider answers, at once, whenever its queue is empty.
    pub fn always(&self, provider: &str, result: Result<ModelAnswer, ModelFailure>) {
        self.otherwise(provider, move |_| Reply::Now(result.clone()));
    }
}

impl Deref for ScriptedModels {
    type Target = Script<ModelRequest, Result<ModelAnswer, ModelFailure>>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A complete answer with this text: ten tokens in, five out.
pub fn answer(text: &str) -> ModelAnswer {
    ModelAnswer {
        text: text.to_owned(),
        reasoning: None,
        tool_calls: Vec::new(),
        model: "scripted".to_owned(),
        finish_reason: FinishReason::Stop,
        finish_reason_raw: Some("stop".to_owned()),
        usage: Some(Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() }),
        raw: json!({"model": "scripted", "choices": [{"message": {"content": text}, "finish_reason": "stop"}]}),
        facts: CallFacts { http_status: Some(200), ..CallFacts::default() },
    }
}

/// A failure of a stream of which [`BEGUN`] has been passed on.
pub fn broken_off(error: ModelError) -> ModelFailure {
    let facts = CallFacts { first_token: Some(Duration::from_millis(5)), ..CallFacts::default() };
    ModelFailure { facts, ..failure(error) }
}

/// A failure about which nothing else is known.
pub fn failure(error: ModelError) -> ModelFailure {
    ModelFailure { error, usage: None, facts: CallFacts::default() }
}

#[async_trait]
impl Models for ScriptedModels {
    async fn generate(
        &self,
        request: &ModelRequest,
        sink: &dyn DeltaSink,
    ) -> Result<ModelAnswer, ModelFailure> {
        let result = self.0.play(&request.provider, request).await;
        let result = result.unwrap_or_else(|| {
            let message = format!("nothing is scripted for the provider {:?}", request.provider);
            Err(failure(ModelError::UnknownModel(message)))
        });
        let tell = |text: &str| text.split_inclusive(' ').for_each(|word| sink.delta(Delta::Text(word)));
        match result {
            Ok(mut answer) if request.stream => {
                if let Some(reasoning) = &answer.reasoning {
                    sink.delta(Delta::Reasoning(reasoning));
                }
                tell(&answer.text);
                answer.facts.first_token.get_or_insert_default();
                Ok(answer)
            }
            Err(failure) if request.stream && failure.facts.first_token.is_some() => {
                sink.delta(Delta::Text(BEGUN));
                Err(failure)
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use throughline_schemas::TraceParent;

    use super::*;
    use crate::ports::contract::model::{ModelRig, Scene, models_keep_their_contract, request};
    use crate::ports::model::Phase;

    #[derive(Default)]
    struct Rig(Arc<ScriptedModels>);

    #[async_trait]
    impl ModelRig for Rig {
        fn models(&self) -> Arc<dyn Models> {
            Arc::clone(&self.0) as _
        }

        async fn stage(&self, scene: Scene, stream: bool) -> ModelRequest {
            let words = || "words".to_owned();
            let facts = |status, retry_after| CallFacts {
                http_status: Some(status),
                retry_after,
                ..CallFacts::default()
            };
            let fail = |error, facts| Err(ModelFailure { error, usage: None, facts });
            let begun = |error| {
                let first_token = stream.then_some(Duration::from_millis(1));
                fail(error, CallFacts { first_token, ..facts(200, None) })
            };
            let none = CallFacts::default;
            self.0.push(
                "provider",
                Reply::Now(match scene {
                    Scene::Answer { text, finish_reason, usage } => {
                        Ok(ModelAnswer { finish_reason, usage, ..answer(text) })
                    }
                    Scene::Thoughtful { reasoning, text } => {
                        Ok(ModelAnswer { reasoning: Some(reasoning.to_owned()), ..answer(text) })
                    }
                    Scene::RateLimited { retry_after } => {
                        fail(ModelError::RateLimited(words()), facts(429, Some(retry_after)))
                    }
                    Scene::Overloaded => fail(ModelError::Server(words()), facts(503, None)),
                    Scene::BadKey => fail(ModelError::Credentials(words()), facts(401, None)),
                    Scene::QuotaUsedUp => fail(ModelError::QuotaExhausted(words()), facts(429, None)),
                    Scene::UnknownModel => fail(ModelError::UnknownModel(words()), facts(404, None)),
                    Scene::TooLong => fail(ModelError::ContextTooLong(words()), facts(400, None)),
                    Scene::BadRequest => fail(ModelError::BadRequest(words()), facts(400, None)),
                    Scene::Filtered => fail(ModelError::ContentFiltered(words()), facts(200, None)),
                    Scene::Empty => fail(ModelError::Unfit(words()), facts(200, None)),
                    Scene::NotJson => fail(ModelError::BadResponse(words()), facts(200, None)),
                    Scene::Huge => begun(ModelError::TooLarge(1)),
                    Scene::CutShort => begun(ModelError::CutShort(words())),
                    Scene::Unfinished => begun(ModelError::BadResponse(words())),
                    Scene::FailsMidway => begun(ModelError::Server(words())),
                    Scene::Silent => fail(ModelError::TimedOut(Phase::FirstToken), none()),
                    Scene::Stalls => begun(ModelError::TimedOut(Phase::Read)),
                    Scene::Unreachable => fail(ModelError::Unreachable(words()), none()),
                }),
            );
            ModelRequest { stream, ..request("provider") }
        }

        fn seen(&self) -> Vec<TraceParent> {
            self.0.requests().iter().map(|request| request.traceparent).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_fake_keeps_the_contract() {
        models_keep_their_contract(&Rig::default()).await;
    }
}
