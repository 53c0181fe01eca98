//! Making the prompt of one message. A template that is broken is no fault of the message: messages wait until an operator
//! starts a worker with a better one, instead of failing one after another. A worker refuses to start with a template
//! whose samples break (see [`crate::model::prompt`]), so this is the way out for what the samples cannot show.

use std::{sync::Arc, time::Duration};

use throughline_schemas::{Event, StageName, event::ExternalDataFetched, event::generation::Message};
use tokio::time::Instant;

use crate::{
    dependency::{
        cause::{Cause, error_chain},
        vitals::{DependencyKind, Trouble, Vitals},
    },
    model::prompt::{PromptTemplate, Tag},
    ports::clock::{Clock, Entropy},
};

/// How long a message waits for a better template before it is tried again. Work goes on this long after one is there,
/// and `worker.max_deliver` times this long is waited for it.
pub(super) const TEMPLATE_WAIT: Duration = Duration::from_mins(1);
/// The name in readiness and logs.
const NAME: &str = "prompt";
/// The class of the cause there.
const CLASS: &str = "template";

/// Makes prompts.
pub struct Prompts {
    /// What to say.
    pub template: Arc<PromptTemplate>,
    /// Limit on the earlier turns in the prompt, in characters.
    pub max_history_chars: usize,
    /// Where a broken template is reported.
    pub vitals: Vitals,
    /// Since when it is broken.
    pub clock: Arc<dyn Clock>,
    /// What names the blocks of data.
    pub entropy: Arc<dyn Entropy>,
}

/// A prompt of one message.
pub(super) struct Rendered {
    pub(super) messages: Vec<Message>,
    /// How many earlier turns it leaves out.
    pub(super) left_out: usize,
    /// The name of its blocks of data.
    pub(super) tag: Tag,
}

/// Why there is no prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoPrompt {
    /// The template makes none of any message.
    Template(String),
    /// It makes none of this one.
    Message(String),
}

impl Prompts {
    /// The prompt, with a fresh name for its blocks of data.
    pub(super) fn render(&self, event: &Event, fetched: &ExternalDataFetched) -> Result<Rendered, NoPrompt> {
        let takes_tag = self.template.takes_tag();
        let tag = if takes_tag { Tag::random(self.entropy.next_u64()) } else { Tag::PLAIN };
        let error = match self.template.render(&event.meta, fetched, self.max_history_chars, tag) {
            Ok((messages, left_out)) => {
                self.vitals.answered(StageName::Generation, &NAME.into());
                return Ok(Rendered { messages, left_out, tag });
            }
            Err(error) => error_chain(&error),
        };
        // If samples break, too, it is not the message.
        let sources = fetched.external.keys().map(String::as_str);
        if self.template.mistakes(sources).is_empty() {
            return Err(NoPrompt::Message(error));
        }
        let is_first = self.vitals.failed(Trouble {
            stage: StageName::Generation,
            dependency: NAME.into(),
            kind: DependencyKind::Prompt,
            is_open: true,
            since: self.clock.now(),
            last: Instant::now(),
            cause: Cause { class: CLASS, text: error.as_str().into() },
        });
        if is_first {
            tracing::error!(
                error,
                "the prompt template is broken, and messages wait for a worker with a better one; `throughline config \
                 check` names what to correct"
            );
        }
        Err(NoPrompt::Template(error))
    }
}
