//! Time, chance and traces, answering from a tape.

use throughline_schemas::{Timestamp, TraceParent};

use super::tape::{Recording, with};
use crate::ports::{
    clock::{Clock, Entropy},
    trace::Tracer,
};

impl Clock for Recording {
    fn now(&self) -> Timestamp {
        let now = with(|tape| {
            if std::mem::take(&mut tape.is_fresh) {
                return tape.at;
            }
            tape.models.next_at().or(tape.store.saving_at).or(tape.at)
        });
        now.unwrap_or_else(|| Timestamp::from_unix_ms(0))
    }
}

impl Entropy for Recording {
    fn next_u64(&self) -> u64 {
        with(|tape| tape.tag.take().unwrap_or(tape.random))
    }
}

impl Tracer for Recording {
    fn adopt(&self, _: &tracing::Span, parent: Option<TraceParent>) -> TraceParent {
        let recorded = with(|tape| {
            tape.is_fresh = true;
            tape.traceparent
        });
        recorded.or(parent).unwrap_or_else(|| TraceParent::root(1, 1))
    }
}
