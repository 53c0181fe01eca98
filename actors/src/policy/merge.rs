//! How several messages become one turn.

use throughline_schemas::{DecodeError, Event, EventData, decode};

use crate::ports::store::Opening;

/// Between two messages of one turn.
pub(crate) const SEPARATOR: &str = "\n\n";

/// The `input_validated` that a turn begins with, and the sequence of its input. The texts of merged messages follow
/// its own, each after a blank line; metadata are those of the first message.
pub fn opened(opening: &Opening) -> Result<(Event, u64), DecodeError> {
    let mut event = decode(&opening.event)?;
    let merged = opening.merged.iter().map(|bytes| decode(bytes)).collect::<Result<Vec<_>, _>>()?;
    let EventData::InputValidated(first) = &mut event.data else { return Ok((event, 0)) };
    for Event { meta, data } in merged {
        let EventData::InputValidated(next) = data else { continue };
        first.request.user_input.push_str(SEPARATOR);
        first.request.user_input.push_str(&next.request.user_input);
        first.request.merged.push(meta.workflow_id);
    }
    let sequence = first.request.input_sequence;
    Ok((event, sequence))
}
