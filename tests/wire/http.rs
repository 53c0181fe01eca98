//! The HTTP adapters against servers that behave in every way that servers behave.

mod blocks;
mod contract;
mod corpora;
mod dialects;
mod keys;
mod models;
mod models_hostile;
mod odd_answers;
mod recorded;
mod requests;
mod secrets;
mod server;
mod settings;
mod sources;
mod sources_hostile;
mod sources_memory;
mod streams;

use std::sync::Arc;

use throughline_actors::ports::clock::Clock;
use throughline_schemas::Timestamp;

/// 1994-11-06T08:49:37Z, for ever.
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(784_111_777_000)
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(Fixed)
}
