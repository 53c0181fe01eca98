//! What is asked.

use serde_json::Value;
use throughline_actors::{model::client::GenerationRequest, ports::model::AnswerFormat};
use throughline_schemas::event::generation::{Complexity, Message, Role};

/// A request. What it does not say is as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    messages: Vec<Message>,
    model: Option<String>,
    complexity: Option<Complexity>,
    max_tokens: Option<u32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    stop: Option<Vec<String>>,
    format: Option<AnswerFormat>,
}

impl Request {
    /// A user says this.
    pub fn new(text: impl Into<String>) -> Self {
        Self::of_messages(vec![Message { role: Role::User, content: text.into() }])
    }

    /// A conversation so far. Earlier turns are left out or summarised, as configured, if they do not fit the window of
    /// a model; system messages and what the user said last always stay.
    pub fn of_messages(messages: Vec<Message>) -> Self {
        Self {
            messages,
            model: None,
            complexity: None,
            max_tokens: None,
            temperature: None,
            top_p: None,
            stop: None,
            format: None,
        }
    }

    /// Instructions, before everything else.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.messages.insert(0, Message { role: Role::System, content: text.into() });
        self
    }

    /// Asks this model, by its name in the configuration, first. If it cannot answer, the models of the default route
    /// are asked as always; [`super::Answer::model`] says who answered.
    #[must_use]
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// Says how demanding the request is, instead of the rules of `[routing]`.
    #[must_use]
    pub fn complexity(mut self, complexity: Complexity) -> Self {
        self.complexity = Some(complexity);
        self
    }

    /// Limit on the answer, in tokens; at least 1.
    #[must_use]
    pub fn max_tokens(mut self, tokens: u32) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Sampling temperature, 0 to 2.
    #[must_use]
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// Nucleus sampling, 0 to 1.
    #[must_use]
    pub fn top_p(mut self, top_p: f64) -> Self {
        self.top_p = Some(top_p);
        self
    }

    /// Texts at which the answer ends, without them.
    #[must_use]
    pub fn stop(mut self, stop: Vec<String>) -> Self {
        self.stop = Some(stop);
        self
    }

    /// The answer must be a JSON document; of this JSON Schema, where the provider supports it.
    #[must_use]
    pub fn json(mut self, schema: Option<Value>) -> Self {
        self.format = Some(AnswerFormat::Json(schema));
        self
    }

    pub(super) fn model_name(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The request, completed by what `configured` makes of its messages. The error says what is wrong with it.
    pub(super) fn into_generation(
        self,
        configured: impl FnOnce(Vec<Message>) -> GenerationRequest,
    ) -> Result<GenerationRequest, String> {
        if !self.messages.iter().any(|message| message.role == Role::User) {
            return Err("a request needs at least one message of the user".to_owned());
        }
        if self.max_tokens == Some(0) {
            return Err("max_tokens must be at least 1".to_owned());
        }
        let temperature = thousandths("temperature", self.temperature, 2.0)?;
        let top_p = thousandths("top_p", self.top_p, 1.0)?;
        let mut request = configured(self.messages);
        request.route.model = self.model;
        request.route.complexity = self.complexity;
        request.takes_tool_calls = true;
        let sampling = &mut request.sampling;
        sampling.max_tokens = self.max_tokens.unwrap_or(sampling.max_tokens);
        sampling.temperature_milli = temperature.or(sampling.temperature_milli);
        sampling.top_p_milli = top_p.or(sampling.top_p_milli);
        sampling.stop = self.stop.unwrap_or_else(|| std::mem::take(&mut sampling.stop));
        sampling.format = self.format.unwrap_or_else(|| std::mem::take(&mut sampling.format));
        Ok(request)
    }
}

fn thousandths(name: &str, value: Option<f64>, max: f64) -> Result<Option<u32>, String> {
    let Some(value) = value else { return Ok(None) };
    if !(0.0..=max).contains(&value) {
        return Err(format!("{name} {value} is out of range; allowed are 0 to {max}"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: 0 to 2")]
    let milli = (value * 1000.0).round() as u32;
    Ok(Some(milli))
}
