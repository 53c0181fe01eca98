//! Streams, consumers and the bucket: making them as they should be, and saying how they differ.

mod drift;
mod settling;
mod wanted;

use std::{fmt, time::Duration};

use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{FromConsumer, pull},
    context::{CreateStreamError, CreateStreamErrorKind, GetStreamErrorKind},
};
use throughline_actors::ports::bus::BusError;
use throughline_schemas::StageName;

use super::{
    Core, Names, NatsBus,
    error::{unavailable, unavailable_because},
    import::MARK,
    requests,
};

pub use drift::Drift;
use settling::{Patience, settled};
use wanted::Wanted;
pub(super) use wanted::{PIN_GROUP, is_pinned};

/// Least room for events that is worth setting up, in bytes.
const LEAST_BYTES: u64 = 16 * 1024 * 1024;

/// How much the streams may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long events are kept as a rule. The stream itself has no such limit, which would take what is open as well:
    /// retention removes what is old and finished. What belongs to events has this limit.
    pub max_age: Duration,
    /// How long dead letters are kept.
    pub dead_letters: Duration,
    /// How many bytes of events are kept; retention makes room before that, and beyond it the stream refuses new ones. As
    /// much again is allowed for large bodies, and an eighth of it for dead letters. The server sets all of it aside at
    /// once, and refuses if its store is smaller.
    pub max_bytes: u64,
    /// Whether less will do where the server has less.
    pub fits: bool,
    /// Copies in a cluster: 1, 3 or 5.
    pub replicas: u8,
}

impl Default for Limits {
    /// 7 days, 4 GiB of events, one copy; dead letters for 30 days.
    fn default() -> Self {
        const GIB: u64 = 1024 * 1024 * 1024;
        Self {
            max_age: Duration::from_hours(7 * 24),
            dead_letters: Duration::from_hours(30 * 24),
            max_bytes: 4 * GIB,
            fits: false,
            replicas: 1,
        }
    }
}

/// What setting up did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Did not exist.
    pub created: Vec<String>,
    /// Were different, and how.
    pub updated: Vec<Drift>,
    /// Were as they should be.
    pub unchanged: Vec<String>,
    /// Bytes of events that there is room for, if that is less than wanted.
    pub fitted: Option<(u64, u64)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.created {
            writeln!(f, "created {name}")?;
        }
        for drift in &self.updated {
            writeln!(f, "updated {drift}")?;
        }
        for name in &self.unchanged {
            writeln!(f, "unchanged {name}")?;
        }
        if let Some((room, wanted)) = self.fitted {
            writeln!(
                f,
                "the server has room for {} MiB of events instead of {} MiB (its disk, or max_file_store), and as much for \
                 large bodies; finished work makes room in them",
                room >> 20,
                wanted >> 20
            )?;
        }
        Ok(())
    }
}

/// Creates what is missing and updates what differs. Idempotent; may run while workers do.
pub async fn setup(bus: &NatsBus, limits: &Limits) -> Result<Report, BusError> {
    let mut report = Report::default();
    let mut fitting = *limits;
    // What this call has made is empty, and may be made smaller again.
    while let Err(no_room) = streams(bus, &fitting, &mut report).await? {
        let smaller = fitting.max_bytes / 2;
        if !limits.fits || smaller < LEAST_BYTES {
            return Err(no_room);
        }
        fitting.max_bytes = smaller;
        report.fitted = Some((smaller, limits.max_bytes));
    }
    consumers(bus, &mut report).await?;
    Ok(report)
}

/// The inner error is that the server has no room for them.
async fn streams(
    bus: &NatsBus,
    limits: &Limits,
    report: &mut Report,
) -> Result<Result<(), BusError>, BusError> {
    let core = &bus.core;
    report.unchanged.clear();
    for wanted in wanted::streams(&core.settings, &core.names, limits) {
        let found = stream_config(core, &wanted.name, Patience::Settling).await?;
        match &found {
            None => {
                if let Err(no_room) = create(core, &wanted).await? {
                    return Ok(Err(no_room));
                }
                report.created.push(wanted.name);
            }
            Some(_) if report.created.contains(&wanted.name) => {
                update(core, &wanted).await?;
            }
            Some(found) => {
                if holds_imported(found) {
                    return Err(unavailable(format!(
                        "setting up: the namespace {} holds imported recordings, which workers would run again; name \
                         another one with --namespace",
                        core.settings.namespace
                    )));
                }
                let drifts = drifts_of(&wanted, found, limits);
                if drifts.is_empty() {
                    report.unchanged.push(wanted.name);
                } else {
                    update(core, &wanted).await?;
                    report.updated.extend(drifts);
                }
            }
        }
    }
    Ok(Ok(()))
}

/// Where less will do, a stream that an earlier set-up made as large as there was room is as it should be.
fn drifts_of(
    wanted: &jetstream::stream::Config,
    found: &jetstream::stream::Config,
    limits: &Limits,
) -> Vec<Drift> {
    let fits = limits.fits && found.max_bytes > 0 && found.max_bytes < wanted.max_bytes;
    let mut drifts = drift::of_stream(wanted, found);
    drifts.retain(|drift| !(fits && drift.setting == Some("max_bytes")));
    drifts
}

async fn consumers(bus: &NatsBus, report: &mut Report) -> Result<(), BusError> {
    let core = &bus.core;
    let jetstream = &core.connection.jetstream;
    for Wanted { stream, name, config } in wanted::consumers(&core.settings, &core.names) {
        let found = consumer_config(core, &stream, name).await?;
        let drifts = found.as_ref().map(|found| drift::of_consumer(name, &config, found));
        if drifts.as_ref().is_some_and(Vec::is_empty) {
            report.unchanged.push(name.to_owned());
            continue;
        }
        let created = settled(core, name, Patience::Settling, async || {
            jetstream.create_consumer_on_stream(config.clone(), stream.clone()).await
        });
        created
            .await?
            .map_err(|error| unavailable_because(format!("creating the consumer {name}"), error))?;
        match drifts {
            Some(drifts) => report.updated.extend(drifts),
            None => report.created.push(name.to_owned()),
        }
    }
    Ok(())
}

/// Makes the namespace one for imports if there is none yet: a log with a mark and a place for large bodies, without
/// consumers. False if there is one that workers work on.
pub(super) async fn prepare_import(core: &Core, limits: &Limits) -> Result<bool, BusError> {
    let [mut events, _dead, bodies, ..] = wanted::streams(&core.settings, &core.names, limits);
    match stream_config(core, &events.name, Patience::Settling).await? {
        Some(found) if !holds_imported(&found) => return Ok(false),
        Some(_) => {}
        None => {
            // No retention runs on it.
            events.max_age = limits.max_age;
            events.metadata.insert(MARK.0.to_owned(), MARK.1.to_owned());
            // What happened long ago is no news.
            events.republish = None;
            create(core, &events).await??;
        }
    }
    if stream_config(core, &bodies.name, Patience::Settling).await?.is_none() {
        create(core, &bodies).await??;
    }
    Ok(true)
}

fn holds_imported(found: &jetstream::stream::Config) -> bool {
    found.metadata.get(MARK.0).is_some_and(|held| held == MARK.1)
}

/// What is missing or differs from what [`setup`] with these limits would make; nothing if all is well.
pub async fn check(bus: &NatsBus, limits: &Limits) -> Result<Vec<Drift>, BusError> {
    let core = &bus.core;
    let mut drifts = Vec::new();
    for wanted in wanted::streams(&core.settings, &core.names, limits) {
        match stream_config(core, &wanted.name, Patience::Once).await? {
            None => drifts.push(Drift::missing(&wanted.name)),
            Some(found) => drifts.extend(drifts_of(&wanted, &found, limits)),
        }
    }
    if drifts.iter().any(|drift| drift.is_missing() && drift.object == core.names.events()) {
        return Ok(drifts);
    }
    for Wanted { stream, name, config } in wanted::consumers(&core.settings, &core.names) {
        match consumer_config(core, &stream, name).await? {
            None => drifts.push(Drift::missing(name)),
            Some(found) => drifts.extend(drift::of_consumer(name, &config, &found)),
        }
    }
    Ok(drifts)
}

/// Whether a stage has events to work on, or in hand.
pub async fn has_work(bus: &NatsBus) -> Result<bool, BusError> {
    let core = &bus.core;
    for stage in StageName::ALL {
        let (name, stream) = (Names::consumer(stage), core.names.events());
        let asked = core.connection.jetstream.get_consumer_from_stream::<pull::Config, _, _>(name, stream);
        let found = permitted(core, name, asked).await?;
        let found =
            found.map_err(|error| unavailable_because(format!("looking up the consumer {name}"), error))?;
        let info = found.cached_info();
        if info.num_pending > 0 || info.num_ack_pending > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks that a stage's consumer is there and was made by a version that this one agrees with.
pub(super) async fn bind(core: &Core, stage: StageName) -> Result<(), BusError> {
    let name = Names::consumer(stage);
    let Some(found) = consumer_config(core, core.names.events(), name).await? else {
        return Err(BusError::NotSetUp(format!("the consumer {name} does not exist")));
    };
    let wanted = wanted::consumer(&core.settings, stage);
    if found.metadata.get(wanted::VERSION_KEY) != wanted.metadata.get(wanted::VERSION_KEY) {
        return Err(BusError::NotSetUp(format!("the consumer {name} was made by another version")));
    }
    for drift in drift::of_consumer(name, &wanted, &found) {
        tracing::warn!(%drift, "a consumer is not as the settings say; `throughline setup` changes it");
    }
    Ok(())
}

/// Forbidden requests say so at once, not after their time limit.
async fn permitted<T>(core: &Core, object: &str, work: impl Future<Output = T>) -> Result<T, BusError> {
    core.connection.complaints().unless_forbidden(object, work).await
}

async fn stream_config(
    core: &Core,
    name: &str,
    patience: Patience,
) -> Result<Option<jetstream::stream::Config>, BusError> {
    let found = settled(core, name, patience, async || core.connection.jetstream.get_stream(name).await);
    match found.await? {
        Ok(stream) => Ok(Some(stream.cached_info().config.clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(told)
                if told.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            GetStreamErrorKind::JetStream(_)
            | GetStreamErrorKind::EmptyName
            | GetStreamErrorKind::Request
            | GetStreamErrorKind::InvalidStreamName => {
                Err(unavailable_because(format!("looking up the stream {name}"), error))
            }
        },
    }
}

async fn consumer_config(core: &Core, stream: &str, name: &str) -> Result<Option<pull::Config>, BusError> {
    let asked = core.connection.jetstream.get_consumer_from_stream::<pull::Config, _, _>(name, stream);
    match permitted(core, name, asked).await? {
        Ok(consumer) => Ok(Some(
            pull::Config::try_from_consumer_config(consumer.cached_info().config.clone())
                .map_err(|error| unavailable_because(format!("looking up the consumer {name}"), error))?,
        )),
        Err(error) => {
            if requests::stream_is_missing(core, stream).await
                || requests::consumer_is_missing(core, stream, name).await
            {
                return Ok(None);
            }
            Err(unavailable_because(format!("looking up the consumer {name}"), error))
        }
    }
}

/// The inner error is that the server has no room for it.
async fn create(core: &Core, wanted: &jetstream::stream::Config) -> Result<Result<(), BusError>, BusError> {
    let created = settled(core, &wanted.name, Patience::Settling, async || {
        core.connection.jetstream.create_stream(wanted.clone()).await
    });
    match created.await? {
        Ok(_) => Ok(Ok(())),
        Err(error) if has_no_room(&error) => Ok(Err(refused(&wanted.name, error))),
        Err(error) => Err(refused(&wanted.name, error)),
    }
}

async fn update(core: &Core, wanted: &jetstream::stream::Config) -> Result<(), BusError> {
    let updated = settled(core, &wanted.name, Patience::Settling, async || {
        core.connection.jetstream.update_stream(wanted).await
    });
    updated.await?.map(drop).map_err(|error| refused(&wanted.name, error))
}

fn has_no_room(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STORAGE_RESOURCES_EXCEEDED)
}

fn refused(name: &str, error: CreateStreamError) -> BusError {
    let no_room = has_no_room(&error);
    // The streams set aside what they may hold, and a server offers three quarters of its free disk by default.
    let advice =
        if no_room { "; lower nats.max_bytes_mib, or raise the server's max_file_store" } else { "" };
    unavailable_because(format!("creating the stream {name}{advice}"), error)
}
