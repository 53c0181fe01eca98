//! What a store is asked to write and to read.

use throughline_actors::ports::store::{
    Admission, Admitted, Closed, Failing, HeldQuery, HeldStarted, Interaction, StoreError, UserLimits,
    Verdict,
};
use throughline_schemas::event::context::Context;
use tokio::sync::oneshot;

/// Where the answer goes. The caller may be gone; what it asked for is done all the same.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

#[derive(Debug)]
pub(super) enum Operation {
    Admit {
        batch: Vec<Admission>,
        answer: Answer<Vec<Admitted>>,
    },
    Save {
        interaction: Box<Interaction>,
        answer: Answer<Closed>,
    },
    Fail {
        failing: Failing,
        answer: Answer<Closed>,
    },
    StartHeld {
        query: HeldQuery,
        answer: Answer<HeldStarted>,
    },
    /// Do what is queued, then stop.
    Close(oneshot::Sender<()>),
}

impl Operation {
    /// Bytes of text it brings, roughly: what bounds a batch.
    pub(super) fn weight(&self) -> usize {
        const OVERHEAD: usize = 512;
        match self {
            Self::Admit { batch, .. } => batch
                .iter()
                .map(|admission| match &admission.verdict {
                    Verdict::Accepted { event, .. } => OVERHEAD + event.len(),
                    Verdict::Refused { .. } => OVERHEAD,
                })
                .sum(),
            Self::Save { interaction, .. } => {
                OVERHEAD + interaction.request.user_input.len() + interaction.response.text.len()
            }
            Self::Fail { .. } | Self::StartHeld { .. } | Self::Close(_) => OVERHEAD,
        }
    }

    /// Sessions that it is about, at most.
    pub(super) fn sessions(&self) -> usize {
        match self {
            Self::Admit { batch, .. } => batch.len(),
            Self::Save { .. } | Self::Fail { .. } => 1,
            Self::StartHeld { query, .. } => query.most,
            Self::Close(_) => 0,
        }
    }

    pub(super) fn refuse(self, error: StoreError) {
        // An error means that the answer is not awaited any more.
        match self {
            Self::Admit { answer, .. } => drop(answer.send(Err(error))),
            Self::Save { answer, .. } | Self::Fail { answer, .. } => drop(answer.send(Err(error))),
            Self::StartHeld { answer, .. } => drop(answer.send(Err(error))),
            Self::Close(_) => {}
        }
    }
}

/// What users may take, according to a batch: all inputs of a process have the same limits. `None` if nothing is admitted.
pub(super) fn limits(operations: &[Operation]) -> Option<UserLimits> {
    operations.iter().find_map(|operation| match operation {
        Operation::Admit { batch, .. } => batch.first().map(|admission| admission.limits),
        Operation::Save { .. }
        | Operation::Fail { .. }
        | Operation::StartHeld { .. }
        | Operation::Close(_) => None,
    })
}

/// What is known about this user, in this session?
#[derive(Debug)]
pub(super) struct Question {
    pub(super) user: String,
    pub(super) session: String,
    /// How many turns at most.
    pub(super) turns: usize,
    pub(super) answer: Answer<Context>,
}
