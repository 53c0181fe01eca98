//! How turns stand after a batch of operations, as the answers to those who asked.

use throughline_actors::ports::store::{
    Admission, AdmissionResult, Admitted, Closed, Ending, Fingerprint, Holder, Opening, StoreError,
    TurnState, Verdict, failure_code,
};
use throughline_schemas::{FailureCode, SessionId, UserId, WorkflowId};

use super::{context_rows, kept, operation::Operation};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Rejected,
    Interrupted,
    Merged,
}

/// How the turn of one question stands after the commit.
pub(super) struct Turn {
    state: TurnState,
    /// Unknown of turns that failed before they were admitted, in databases of the first version.
    input_sequence: Option<u64>,
    failure: Option<Failure>,
    superseded_by: Option<WorkflowId>,
    session: SessionId,
    user: Option<UserId>,
    fingerprint: Option<Fingerprint>,
    code: Option<FailureCode>,
    /// Means something while it waits.
    held: bool,
}

/// The same as it stands in a row.
pub(super) struct Columns<'a> {
    pub(super) state: &'a str,
    pub(super) input_sequence: Option<i64>,
    pub(super) failure: Option<&'a str>,
    pub(super) superseded_by: Option<&'a str>,
    pub(super) session: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) fingerprint: Option<&'a [u8]>,
    pub(super) code: Option<&'a str>,
    pub(super) held: bool,
}

/// What there is to say to one request.
pub(super) struct Answer {
    pub(super) turn: Turn,
    /// What the session's running turn began with.
    pub(super) opening: Option<Opening>,
    /// What the turn began with that it interrupted.
    pub(super) interrupted: Option<Vec<u8>>,
}

impl Turn {
    pub(super) fn new(row: &Columns<'_>) -> Result<Self, sqlx::Error> {
        let failure = match row.failure {
            None => None,
            Some("rejected") => Some(Failure::Rejected),
            Some("interrupted") => Some(Failure::Interrupted),
            Some("merged") => Some(Failure::Merged),
            Some(other) => return Err(undecodable(format!("unknown failure {other:?} of a turn"))),
        };
        Ok(Self {
            state: kept::state(row.state)?,
            input_sequence: row.input_sequence.map(kept::sequence).transpose()?,
            failure,
            superseded_by: kept::id(row.superseded_by)?,
            session: SessionId::new(row.session).map_err(context_rows::undecodable)?,
            user: kept::id(row.user)?,
            fingerprint: row
                .fingerprint
                .map(Fingerprint::try_from)
                .transpose()
                .map_err(context_rows::undecodable)?,
            code: row.code.map(failure_code),
            held: row.held,
        })
    }

    fn holder(&self) -> Holder<'_> {
        Holder {
            input_sequence: self.input_sequence,
            session_id: &self.session,
            user_id: self.user.as_ref(),
            fingerprint: self.fingerprint,
            state: self.state,
            code: self.code,
        }
    }

    fn is_of(&self, input_sequence: u64) -> bool {
        self.input_sequence.is_none_or(|known| known == input_sequence)
    }

    fn result(self, verdict: &Verdict) -> AdmissionResult {
        match (self.state, verdict, self.failure, self.superseded_by) {
            (TurnState::Running, ..) => AdmissionResult::Running,
            (TurnState::Waiting, ..) if self.held => AdmissionResult::Held,
            (TurnState::Waiting, ..) => AdmissionResult::Waiting,
            (TurnState::Failed, Verdict::Refused { .. }, ..) => AdmissionResult::Refused,
            (TurnState::Failed, Verdict::Accepted { .. }, Some(Failure::Rejected), _) => {
                // Three reasons for having no place in a session, of which the code tells which it was.
                if self.code == Some(FailureCode::NotSessionOwner) {
                    AdmissionResult::NotOwner
                } else if self.code == Some(FailureCode::TooManyOpen) {
                    AdmissionResult::TooManyOpen
                } else {
                    AdmissionResult::Rejected
                }
            }
            (TurnState::Failed, Verdict::Accepted { .. }, Some(Failure::Merged), Some(into)) => {
                AdmissionResult::Merged { into }
            }
            (
                TurnState::Failed,
                Verdict::Accepted { .. },
                Some(Failure::Merged | Failure::Interrupted) | None,
                _,
            )
            | (TurnState::Saved, ..) => AdmissionResult::Ended,
        }
    }
}

impl Answer {
    fn admitted(self, admission: &Admission) -> Admitted {
        if let Some(of_another) = admission.against(&self.turn.holder()) {
            return of_another.into();
        }
        let result = self.turn.result(&admission.verdict);
        Admitted { result, interrupted: self.interrupted, opening: self.opening }
    }

    fn saved(self) -> Closed {
        let ending = if self.turn.state == TurnState::Saved { Ending::AsAsked } else { Ending::Otherwise };
        Closed { ending, next: self.opening }
    }

    fn failed(self, input_sequence: u64) -> Closed {
        if !self.turn.is_of(input_sequence) {
            return Closed { ending: Ending::Duplicate, next: None };
        }
        let ending = if self.turn.state == TurnState::Failed { Ending::AsAsked } else { Ending::Otherwise };
        Closed { ending, next: self.opening }
    }
}

pub(super) fn undecodable(problem: String) -> sqlx::Error {
    sqlx::Error::Decode(problem.into())
}

/// The answers to a batch, in the order of its questions.
pub(super) struct Answers(std::vec::IntoIter<Answer>);

impl Answers {
    /// `answers` are those to `wanted` questions, in their order.
    pub(super) fn new(answers: Vec<Answer>, wanted: usize) -> Result<Self, sqlx::Error> {
        if answers.len() == wanted {
            Ok(Self(answers.into_iter()))
        } else {
            Err(sqlx::Error::Protocol(format!("{} answers to {wanted} questions", answers.len())))
        }
    }

    /// Answers an operation; operations come in the order in which they were given to the batch.
    pub(super) fn answer(&mut self, operation: Operation) {
        // A failed send means that the answer is not awaited any more. A missing answer cannot be, since they were
        // counted; should it be all the same, the caller gets an error.
        match operation {
            Operation::Admit { batch, answer } => {
                // The batch comes first in the zip, so that its end takes no answer of the next operation.
                let answers = batch.iter().zip(self.0.by_ref());
                let admitted = answers.map(|(admission, answer)| answer.admitted(admission)).collect();
                drop(answer.send(Ok(admitted)));
            }
            Operation::Save { answer, .. } => {
                drop(self.0.next().map(|known| answer.send(Ok::<_, StoreError>(known.saved()))));
            }
            Operation::Fail { failing, answer } => {
                let closed = self.0.next().map(|known| known.failed(failing.input_sequence));
                drop(closed.map(|closed| answer.send(Ok::<_, StoreError>(closed))));
            }
            // Started apart; see `Started`.
            Operation::StartHeld { .. } | Operation::Close(_) => {}
        }
    }
}
