//! What the event bus's errors mean for a command.

use throughline_actors::ports::bus::BusError;

use super::{Exit, Failure, exit::with_causes};

/// How the command ends.
pub(super) fn failure(error: &BusError) -> Failure {
    match error {
        BusError::NotSetUp(what) => Failure {
            exit: Exit::Unavailable,
            message: format!("{what}; run `throughline setup` or `throughline dev`"),
        },
        BusError::Unavailable { .. } => Failure::unavailable(error),
        BusError::Full(_)
        | BusError::BodiesFull(_)
        | BusError::TooLarge { .. }
        | BusError::Forbidden(_)
        | BusError::Encode(_) => Failure::failed(with_causes(error)),
    }
}
