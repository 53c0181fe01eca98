//! Models that are asked only as long as the money lasts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use rust_decimal::Decimal;
use throughline_schemas::{Usage, Usd};

use super::tape::with;
use crate::{
    model::{
        client::ModelTarget,
        cost::{Price, cost},
    },
    policy::window::prompt_tokens,
    ports::{
        model::{CallFacts, DeltaSink, ModelAnswer, ModelError, ModelFailure, ModelRequest, Models},
        tokenizer::Tokenizer,
    },
};

/// [`Models`] with a budget. Before a call its cost is estimated at its prompt and its longest answer, and set aside; a
/// call for which there is no room, or whose model has no known price, is not made. Afterwards what was set aside is
/// replaced by what the provider counted, or stays where that is not known: so no more is spent than the budget, as far
/// as estimates of prompts are right.
pub struct Budgeted {
    models: Arc<dyn Models>,
    tokenizer: Arc<dyn Tokenizer>,
    prices: BTreeMap<(String, String), Option<Price>>,
    budget: Decimal,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// Spent, and set aside for calls under way.
    gone: Decimal,
    /// Why calls were not made.
    refused: Option<String>,
}

impl Budgeted {
    /// Models that may cost so much together.
    pub fn new(
        models: Arc<dyn Models>,
        tokenizer: Arc<dyn Tokenizer>,
        targets: &[ModelTarget],
        budget: Usd,
    ) -> Self {
        let prices = targets
            .iter()
            .map(|target| ((target.provider.clone(), target.model.clone()), target.price))
            .collect();
        Self { models, tokenizer, prices, budget: budget.dollars(), account: Mutex::default() }
    }

    /// What has been spent, or may have been.
    pub fn spent(&self) -> Usd {
        Usd::new(self.lock().gone)
    }

    /// Why a call was not made, if one was not: later calls will be refused, too.
    pub fn refused(&self) -> Option<String> {
        self.lock().refused.clone()
    }

    fn set_aside(&self, request: &ModelRequest) -> Result<Decimal, ModelFailure> {
        let ModelRequest { provider, model, .. } = request;
        let price = self.prices.get(&(provider.clone(), model.clone())).copied().flatten();
        let usage = Usage {
            input_tokens: prompt_tokens(self.tokenizer.as_ref(), model, &request.messages).tokens,
            output_tokens: request.max_tokens.into(),
            ..Usage::default()
        };
        let Ok(most) = cost(Some(&usage), price.as_ref()).map(Usd::dollars) else {
            let text = format!(
                "the price of {model} ({provider}) is not known, so no budget can be kept; set it in [[models]], or run \
                 without a budget"
            );
            return Err(self.refuse(text));
        };
        let mut account = self.lock();
        if account.gone + most > self.budget {
            let (budget, left, most) =
                (Usd::new(self.budget), Usd::new(self.budget - account.gone), Usd::new(most));
            drop(account);
            let text =
                format!("the budget of ${budget} has ${left} left, and the next call may cost ${most}");
            return Err(self.refuse(text));
        }
        account.gone += most;
        Ok(most)
    }

    fn refuse(&self, text: String) -> ModelFailure {
        self.lock().refused.get_or_insert_with(|| text.clone());
        // Not the provider's refusal: it must neither pace others nor count as what the workflow came to.
        with(|tape| tape.refused = Some(text.clone()));
        ModelFailure { error: ModelError::BadRequest(text), usage: None, facts: CallFacts::default() }
    }

    fn settle(&self, request: &ModelRequest, set_aside: Decimal, usage: Option<&Usage>) {
        let price = self.prices.get(&(request.provider.clone(), request.model.clone())).copied().flatten();
        if let Ok(known) = cost(usage, price.as_ref()) {
            self.lock().gone += known.dollars() - set_aside;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        // Nothing panics while holding the lock.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Models for Budgeted {
    async fn generate(
        &self,
        request: &ModelRequest,
        sink: &dyn DeltaSink,
    ) -> Result<ModelAnswer, ModelFailure> {
        let set_aside = self.set_aside(request)?;
        let result = self.models.generate(request, sink).await;
        match &result {
            Ok(answer) => self.settle(request, set_aside, answer.usage.as_ref()),
            Err(failure) if failure.may_have_been_billed() => {
                self.settle(request, set_aside, failure.usage.as_ref());
            }
            Err(_) => self.settle(request, set_aside, Some(&Usage::default())),
        }
        result
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::{
        TraceParent,
        event::generation::{Message, Role},
    };

    use super::*;
    use crate::ports::{
        memory::model::{ScriptedModels, answer, failure},
        model::{AnswerFormat, NoSink},
        tokenizer::FourBytes,
    };

    fn request(model: &str) -> ModelRequest {
        ModelRequest {
            provider: "p".to_owned(),
            model: model.to_owned(),
            messages: vec![Message { role: Role::User, content: "x".repeat(372) }].into(),
            max_tokens: 100,
            temperature_milli: None,
            top_p_milli: None,
            stop: Vec::new(),
            format: AnswerFormat::Text,
            stream: false,
            traceparent: TraceParent::root(1, 1),
            takes_tool_calls: false,
        }
    }

    fn models(budget: &str) -> (Arc<ScriptedModels>, Budgeted) {
        let scripted = Arc::new(ScriptedModels::default());
        // Ten tokens in, five out.
        scripted.always("p", Ok(answer("yes")));
        let price = Price {
            input: 1_000.into(),
            cached_input: None,
            cache_write: None,
            output: 2_000.into(),
            request: None,
            long_prompt: None,
        };
        let priced = ModelTarget { price: Some(price), ..ModelTarget::new("m", "p", "m") };
        let targets = [priced, ModelTarget::new("free", "p", "free")];
        let budget = Usd::new(budget.parse().unwrap());
        let models = Budgeted::new(scripted.clone(), Arc::new(FourBytes), &targets, budget);
        (scripted, models)
    }

    #[tokio::test]
    async fn it_is_never_exceeded_and_what_was_not_used_comes_back() {
        // A call may cost 100 tokens of prompt and 100 of answer, $0.30, and costs $0.02.
        let (scripted, budgeted) = models("0.35");
        for n in 1..=3 {
            budgeted.generate(&request("m"), &NoSink).await.unwrap();
            assert_eq!(budgeted.spent().to_string(), format!("0.0{}", 2 * n));
        }
        let refused = budgeted.generate(&request("m"), &NoSink).await.unwrap_err();
        assert!(refused.to_string().contains("$0.35 has $0.29 left"), "{refused}");
        assert_eq!((scripted.calls("p"), budgeted.refused().is_some()), (3, true));
    }

    #[tokio::test]
    async fn what_may_have_been_charged_stays_set_aside_and_what_was_not_does_not() {
        let (scripted, budgeted) = models("1");
        scripted.always("p", Err(failure(ModelError::Server("down".to_owned()))));
        budgeted.generate(&request("m"), &NoSink).await.unwrap_err();
        assert_eq!(budgeted.spent().to_string(), "0");
        scripted.always("p", Err(failure(ModelError::CutShort("reset".to_owned()))));
        budgeted.generate(&request("m"), &NoSink).await.unwrap_err();
        assert_eq!(budgeted.spent().to_string(), "0.3");
    }

    #[tokio::test]
    async fn a_model_without_a_price_is_not_asked() {
        let (scripted, budgeted) = models("1");
        let refused = budgeted.generate(&request("free"), &NoSink).await.unwrap_err();
        assert!(refused.to_string().contains("the price of free (p) is not known"), "{refused}");
        assert_eq!(scripted.calls("p"), 0);
    }
}
