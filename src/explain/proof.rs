//! Whether a prompt on record is what follows from its template and what was fetched.

use serde::Serialize;
use throughline_actors::model::prompt::{PromptTemplate, Tag};
use throughline_schemas::{
    Meta,
    event::{
        ExternalDataFetched,
        generation::{Message, Prompt},
    },
};

/// What shows that the messages are what was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Proof {
    /// Rendered again from the data on record, with the template of the recorded hash, they come out the same, byte
    /// for byte.
    Proved,
    /// The same, but for earlier turns: these were left out or summarised to fit a model's window.
    ProvedButTurns,
    /// Recorded when they were sent; the template has changed since, so they cannot be rendered again.
    OtherTemplate {
        /// Id of the template of today.
        id: String,
        /// Its hash.
        hash: String,
    },
    /// Recorded when they were sent, and with the same template something else comes out.
    Differs {
        /// The first message that is different, from 0.
        message: usize,
    },
    /// Recorded when they were sent, and not rendered again.
    NotRendered {
        /// Why not.
        why: String,
    },
    /// Not on record: rendered with the template of today. What was sent may have been something else.
    Rendered {
        /// Id of the template of today.
        id: String,
        /// Its hash.
        hash: String,
    },
}

/// What a prompt is made from.
#[derive(Clone, Copy)]
pub(super) struct Fetched<'a> {
    pub(super) meta: &'a Meta,
    pub(super) data: &'a ExternalDataFetched,
}

/// Renders prompts with the template of today.
pub struct Renderer {
    template: Result<PromptTemplate, String>,
    max_history_chars: usize,
}

impl Renderer {
    /// With a template, or why there is none; `max_history_chars` limits the earlier turns.
    pub fn new(template: Result<PromptTemplate, String>, max_history_chars: usize) -> Self {
        Self { template, max_history_chars }
    }

    /// Compares what is on record with what comes out.
    pub(super) fn compare(&self, sent: &Prompt, fetched: Option<Fetched<'_>>) -> Proof {
        let not_rendered = |why: &str| Proof::NotRendered { why: why.to_owned() };
        let template = match &self.template {
            Ok(template) => template,
            Err(why) => return not_rendered(why),
        };
        if template.hash() != sent.hash {
            return Proof::OtherTemplate { id: template.id().to_owned(), hash: template.hash().to_owned() };
        }
        let Some(fetched) = fetched else {
            return not_rendered("the data that it was made from is not on record any more");
        };
        let tag = Tag::of_record(sent.tag.as_deref());
        let rendered = match template.render(fetched.meta, fetched.data, self.max_history_chars, tag) {
            Ok((messages, _)) => messages,
            Err(error) => return not_rendered(&error.to_string()),
        };
        if rendered == sent.messages {
            return Proof::Proved;
        }
        let window = sent.window.as_ref();
        let cut = window.is_some_and(|window| window.dropped_turns > 0 || window.summarised_turns > 0);
        if cut && fixed(&rendered, fetched.data) == fixed(&sent.messages, fetched.data) {
            return Proof::ProvedButTurns;
        }
        let same = rendered.iter().zip(&sent.messages).take_while(|(now, then)| now == then).count();
        Proof::Differs { message: same }
    }

    /// What was sent is not on record: what it would be today.
    pub(super) fn rebuilt(&self, fetched: Fetched<'_>) -> (Vec<Message>, Proof) {
        let not_rendered = |why: String| (Vec::new(), Proof::NotRendered { why });
        let template = match &self.template {
            Ok(template) => template,
            Err(why) => return not_rendered(why.clone()),
        };
        // Which name its blocks of data would get nobody knows before.
        match template.render(fetched.meta, fetched.data, self.max_history_chars, Tag::PLAIN) {
            Ok((messages, _)) => {
                (messages, Proof::Rendered { id: template.id().to_owned(), hash: template.hash().to_owned() })
            }
            Err(error) => not_rendered(error.to_string()),
        }
    }
}

/// What does not depend on earlier turns: the instructions, the data if there is any, and the user's words.
fn fixed<'a>(messages: &'a [Message], fetched: &ExternalDataFetched) -> Vec<&'a Message> {
    use throughline_schemas::event::external::SourceStatus;
    let has_data = !fetched.context.preferences.is_empty()
        || fetched.external.values().any(|result| result.status != SourceStatus::Skipped);
    let tail = messages.len().saturating_sub(if has_data { 2 } else { 1 });
    messages.first().into_iter().chain(&messages[tail.max(1).min(messages.len())..]).collect()
}
