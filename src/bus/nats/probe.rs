//! Whether everything is there that events and letters are kept in, without publishing anything.

use std::time::Duration;

use futures_util::future::try_join_all;
use throughline_actors::ports::bus::BusError;

use super::{Core, large_bodies::INLINE_BYTES, requests};

/// How long the server may take to report on one stream.
const LIMIT: Duration = Duration::from_secs(2);

/// Asks for each stream whose lack of room would stop work. Claims and advisories drop what is oldest.
pub(super) async fn probe(core: &Core) -> Result<(), BusError> {
    let limit = core.settings.request_timeout.min(LIMIT);
    let names = &core.names;
    let bodies = names.bodies_stream();
    let streams = [names.events(), names.dead(), &bodies, &names.claims_stream()].map(str::to_owned);
    let asked = try_join_all(streams.iter().map(async |stream| {
        match requests::filling(core, stream, limit).await {
            Ok(filling) => Ok(Some((stream, filling))),
            // Who may not ask does not know; that is no reason not to work.
            Err(BusError::Forbidden(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }));
    for (stream, filling) in asked.await?.into_iter().flatten() {
        if filling.lacks_room_for(INLINE_BYTES as u64) {
            let full = no_room(stream, &filling);
            return Err(if *stream == bodies { BusError::BodiesFull(full) } else { BusError::Full(full) });
        }
    }
    Ok(())
}

/// What is said of a stream that is full, and what to do about it.
pub(super) fn no_room(stream: &str, filling: &requests::Filling) -> String {
    format!(
        "the stream {stream} is full ({}); finished work makes room in it, if there is any; else raise nats.max_bytes_mib \
         and run `throughline setup`",
        filling.in_words()
    )
}
