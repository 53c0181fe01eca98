//! What breakers, paces and rate limits decided, answering from a tape.

use throughline_schemas::StageName;

use super::tape::{Recording, with};
use crate::dependency::{HeldBack, RecordedGates, Refused};

impl RecordedGates for Recording {
    fn admit(&self, stage: StageName, dependency: &str) -> Option<Result<(), Refused>> {
        let (admitted, random) = match stage {
            StageName::External => match with(|tape| Some(tape.sources.admit(dependency)))? {
                Ok(()) => (Ok(()), None),
                Err((refused, random)) => (Err(refused), Some(random)),
            },
            StageName::Generation => with(|tape| Some(tape.models.admit()))?,
            // The database is a recording, which never fails.
            StageName::Input | StageName::Context | StageName::Persistence => (Ok(()), None),
        };
        use_random(random);
        Some(admitted)
    }

    fn enter(&self, provider: &str, model: &str) -> Option<HeldBack> {
        let (entered, random) = with(|tape| Some(tape.models.enter(provider, model)))?;
        use_random(random);
        Some(entered)
    }

    fn counts_tokens(&self, _: &str, _: &str) -> Option<bool> {
        with(|tape| Some(tape.models.counted()))
    }
}

fn use_random(random: Option<u64>) {
    if let Some(random) = random {
        with(|tape| tape.random = random);
    }
}
