//! The last step before a provider's words leave the adapter: its keys are removed once more, now that all is decoded.

use throughline_actors::ports::model::ModelError;
use throughline_schemas::event::generation::ToolCall;

use super::draft::Draft;
use crate::http_client::credential::Redactor;

impl Draft {
    /// Without the provider's keys.
    pub(super) fn redacted(mut self, redactor: &Redactor) -> Self {
        let finish = self.finish.raw.iter_mut();
        let words = [&mut self.text, &mut self.reasoning].into_iter();
        words
            .chain(&mut self.refusal)
            .chain(&mut self.model)
            .chain(finish)
            .for_each(|text| redactor.text(text));
        for ToolCall { id, name, arguments } in &mut self.tool_calls {
            redactor.text(id);
            redactor.text(name);
            redactor.text(arguments);
        }
        self
    }
}

/// The error without the provider's keys.
pub(super) fn redacted(mut error: ModelError, redactor: &Redactor) -> ModelError {
    match &mut error {
        ModelError::BadRequest(said)
        | ModelError::QuotaExhausted(said)
        | ModelError::UnknownModel(said)
        | ModelError::ContextTooLong(said)
        | ModelError::ContentFiltered(said)
        | ModelError::Server(said)
        | ModelError::Unreachable(said)
        | ModelError::CutShort(said)
        | ModelError::BadResponse(said)
        | ModelError::Unfit(said) => redactor.text(said),
        ModelError::Credentials
        | ModelError::RateLimited
        | ModelError::TimedOut(_)
        | ModelError::TooLarge(_) => {}
    }
    error
}
