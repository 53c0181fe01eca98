//! Failures of workflows that a session has no turn for.

use std::num::NonZeroU32;

use throughline_schemas::{FailureCode, StageName, WorkflowFailed, WorkflowId};

/// It did not want to wait.
pub(crate) fn rejected() -> WorkflowFailed {
    let message =
        "the session is busy, and the message asked to be rejected then; publish it again under another \
                   workflow id when the session has answered"
            .to_owned();
    WorkflowFailed { retryable: true, ..failed(FailureCode::SessionBusy, message, None) }
}

/// Its user does not own the session.
pub(crate) fn not_owner() -> WorkflowFailed {
    let message =
        "the session belongs to another user, and only its first user may speak in it (sessions.owner = \
                   \"first_user\"); publish under a session id of your own"
            .to_owned();
    failed(FailureCode::NotSessionOwner, message, None)
}

/// Its user has as many open turns as it may have: `most`, if that is known.
pub(crate) fn too_many_open(most: Option<NonZeroU32>) -> WorkflowFailed {
    let most = most.map_or_else(String::new, |most| format!(", which is {most}"));
    let message = format!(
        "the user has as many workflows open as the configuration allows one user (users.open){most}; publish it again \
         under another workflow id when some of them have ended"
    );
    WorkflowFailed { retryable: true, ..failed(FailureCode::TooManyOpen, message, None) }
}

/// Its text is part of another turn.
pub(crate) fn merged(into: WorkflowId) -> WorkflowFailed {
    let message = format!("its text is part of the turn of workflow {into}, which answers both");
    failed(FailureCode::Merged, message, Some(into))
}

/// A later message did not let it finish.
pub(crate) fn interrupted(by: &WorkflowId) -> WorkflowFailed {
    let message = format!("interrupted by workflow {by} of the same session");
    WorkflowFailed { may_have_happened: true, ..failed(FailureCode::Interrupted, message, Some(by.clone())) }
}

fn failed(code: FailureCode, message: String, superseded_by: Option<WorkflowId>) -> WorkflowFailed {
    WorkflowFailed {
        code,
        stage: StageName::Input,
        message,
        attempts: 1,
        retryable: false,
        may_have_happened: false,
        superseded_by,
        earlier_deliveries: 0,
        attempt_log: Vec::new(),
        external: std::collections::BTreeMap::new(),
    }
}
