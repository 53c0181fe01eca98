//! What the model stand-in says: a pure function from the conversation to the answer.
//!
//! It reads what a real model would read. The last user message is the question; an earlier user message carries
//! `<data source="...">` blocks with what the data sources answered. It names the order, product or reason that
//! it finds there and invents nothing, so that a test can tell from the answer whether the data arrived.

mod orders;
mod products;
mod prompt;
mod question;
mod records;
#[cfg(test)]
mod tests;
mod voice;

use super::config::LARGE_MODEL;
use prompt::Prompt;
use question::{Question, Topic};
pub(in crate::sandbox) use records::Text;
use records::{Customer, Preferences};
use voice::Voice;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions: `system` and `developer`.
    System,
    /// The customer, and the data that goes with the question.
    User,
    /// The model.
    Assistant,
    /// `tool` and `function`.
    Tool,
}

impl Role {
    pub(in crate::sandbox) fn from_wire(role: &str) -> Self {
        match role {
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" | "function" => Self::Tool,
            _ => Self::System,
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub text: &'a str,
}

/// What the large model says besides.
const MORE: &str = "I have looked all of this up for you just now, so you can rely on it.";

/// What a model answers.
pub(super) fn answer_of(model: &str, turns: &[Turn<'_>]) -> String {
    let said = answer(turns);
    if model == LARGE_MODEL { format!("{said} {MORE}") } else { said }
}

/// Answers the last user message from the data in an earlier one. The same conversation always gets the same
/// answer.
pub fn answer(turns: &[Turn<'_>]) -> String {
    let prompt = Prompt::read(turns);
    let customer: Customer<'_> = prompt.source("user_profile").parse().unwrap_or_default();
    let preferences: Preferences<'_> = prompt.source("preferences").parse().unwrap_or_default();
    let voice = Voice::new(&preferences, &customer);

    let question = Question::new(prompt.question);
    let answer = match question.topic {
        Topic::Named => {
            let mut sentences = Vec::new();
            if !question.order_ids.is_empty() {
                sentences.push(orders::named(&question, &prompt));
            }
            if question.product_id.is_some() {
                sentences.push(products::describe(&question, &prompt));
            }
            sentences.join(" ")
        }
        Topic::Orders => orders::recent(&question, &prompt),
        Topic::Products => products::describe(&question, &prompt),
        Topic::Other => {
            "I can help with your orders, deliveries and refunds, and with the price and stock of our products."
                .to_owned()
        }
    };
    voice.speak(&answer)
}
