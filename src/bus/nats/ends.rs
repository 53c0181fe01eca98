//! Ends in the order of the log, a page at a time.

use futures_util::future::try_join;
use throughline_actors::ports::bus::{BusError, Ends};
use throughline_schemas::EventType;

use super::{Core, batch::messages_from, large_bodies, reader, sweep};

/// Bytes behind which no other end is read for a page.
const MOST_BYTES: usize = large_bodies::MAX_BODY_BYTES;

/// At most `most` of each kind, from a sequence on.
pub(super) async fn from(core: &Core, sequence: u64, most: u64) -> Result<Ends, BusError> {
    // Asked for before the pages, so that what is stored meanwhile is left to the next one.
    let (last, _) = sweep::end(core).await?;
    let ns = &core.settings.namespace;
    let (saved, failed) =
        (ns.events_of(EventType::InteractionSaved), ns.events_of(EventType::WorkflowFailed));
    let (saved, failed) =
        try_join(messages_from(core, sequence, &saved, most), messages_from(core, sequence, &failed, most))
            .await?;
    // Of a kind that has more, nothing is known behind its last one.
    let cut = [&saved, &failed].into_iter().filter(|page| page.left > 0);
    let mut read_to =
        cut.filter_map(|page| page.messages.last()).map(|end| end.sequence).min().unwrap_or(last);
    let mut found = [saved.messages, failed.messages].concat();
    found.retain(|end| end.sequence <= read_to);
    found.sort_by_key(|end| end.sequence);
    let mut ends = Vec::with_capacity(found.len());
    let mut bytes = 0;
    for end in &found {
        let body = reader::whole_body(core, end).await?;
        bytes += body.len();
        ends.push(body);
        if bytes >= MOST_BYTES {
            // The next page begins behind it.
            read_to = end.sequence;
            break;
        }
    }
    Ok(Ends { ends, read_to: read_to.max(sequence) })
}
