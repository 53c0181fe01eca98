//! How streams and consumers should be, and why.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, PriorityPolicy, ReplayPolicy, pull},
    stream::{self, DiscardPolicy, Republish, RetentionPolicy, StorageType},
};
use throughline_schemas::{EventType, StageName};

use super::Limits;
use crate::bus::nats::{Names, NatsSettings};

/// Says which version of this file made a consumer.
pub(in crate::bus::nats) const VERSION_KEY: &str = "throughline.consumer";
/// To be raised whenever workers of two versions must not share a consumer.
const VERSION: &str = "1";
/// The one priority group of the pinned consumer.
pub(in crate::bus::nats) const PIN_GROUP: &str = "admission";

/// Covers an ordinary retry; beyond it create-if-absent on the subject protects. Each id costs the server memory.
const EVENTS_DUPLICATE_WINDOW: Duration = Duration::from_mins(2);
/// Dead letters are few, and create-if-absent does not protect them: one workflow may have several.
const DEAD_DUPLICATE_WINDOW: Duration = Duration::from_hours(24);
/// Dead letters get this fraction of what events get.
const DEAD_SHARE: u64 = 8;
/// Bodies outlive the events that name them, so that no stored reference dangles.
const BODIES_OUTLIVE: Duration = Duration::from_hours(24);
/// Claims and advisories are small and few. The server sets it aside.
const SMALL_STREAM_BYTES: i64 = 16 * 1024 * 1024;
/// One small entry for each namespace.
const META_BYTES: i64 = 1024 * 1024;
/// Longer than it takes to dead-letter what the server has given up on.
const ADVISORIES_MAX_AGE: Duration = Duration::from_hours(30 * 24);
/// A message that kills even the worker that dead-letters it is left alone after so many.
const BURIAL_ATTEMPTS: i64 = 20;
/// More than all workers of a large deployment have in hand at once (64 processes with 1,024 slots). How much is in
/// hand is limited by what inboxes ask for; reaching this limit would stall every worker.
const MAX_ACK_PENDING: i64 = 65_536;
/// Each inbox has at most six requests waiting: one, and four top-ups of a quarter of its window, and one in
/// flight. The default of 512 would end at 85 processes.
const MAX_WAITING: i64 = 4_096;
/// A pinned client that is gone is replaced after this. Requests of a pinned client must expire well before.
const PIN_TIME_TO_LIVE: Duration = Duration::from_secs(5);

/// Whether one process at a time takes a stage's messages, so that they are admitted in the stream's order.
pub(in crate::bus::nats) fn is_pinned(stage: StageName) -> bool {
    stage == StageName::Input
}

/// The streams of a namespace.
pub(super) fn streams(settings: &NatsSettings, names: &Names, limits: &Limits) -> [stream::Config; 6] {
    let ns = &settings.namespace;
    let base = stream::Config {
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        num_replicas: usize::from(limits.replicas),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        allow_direct: true,
        ..stream::Config::default()
    };
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let events = stream::Config {
        name: names.events().to_owned(),
        description: Some("Throughline: the log of events".to_owned()),
        subjects: vec![ns.all_events()],
        // An age limit of the server's would remove what is open, too. Retention removes what is finished.
        max_age: Duration::ZERO,
        max_bytes: bytes(limits.max_bytes),
        // With `old`, a full stream would drop events that no stage has seen; with `new` it says so.
        discard: DiscardPolicy::New,
        // A plain subscriber of the log's own subjects also sees publishes that the server refuses.
        republish: Some(Republish {
            source: ns.all_events(),
            destination: ns.all_stored(),
            headers_only: false,
        }),
        duplicate_window: EVENTS_DUPLICATE_WINDOW,
        ..base.clone()
    };
    let dead = stream::Config {
        name: names.dead().to_owned(),
        description: Some("Throughline: dead letters".to_owned()),
        subjects: vec![ns.all_dead()],
        max_age: limits.dead_letters,
        max_bytes: bytes(limits.max_bytes / DEAD_SHARE),
        // What cannot be handled must never keep back what can: with `new`, a flood of it would fill the stream, and its
        // messages would hold the stages' slots until there is room.
        discard: DiscardPolicy::Old,
        duplicate_window: DEAD_DUPLICATE_WINDOW,
        ..base.clone()
    };
    // What an object store bucket is, by the specification that all clients follow (ADR-20).
    let bucket = names.bodies();
    let bodies = stream::Config {
        name: names.bodies_stream(),
        description: Some("Throughline: bodies that are too large for a message".to_owned()),
        subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
        max_age: limits.max_age.max(limits.dead_letters) + BODIES_OUTLIVE,
        max_bytes: bytes(limits.max_bytes),
        discard: DiscardPolicy::New,
        allow_rollup: true,
        duplicate_window: EVENTS_DUPLICATE_WINDOW,
        ..base.clone()
    };
    let bucket = names.claims();
    let claims = stream::Config {
        name: names.claims_stream(),
        description: Some("Throughline: who works on messages that came more than once".to_owned()),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_age: limits.max_age,
        max_bytes: SMALL_STREAM_BYTES,
        max_messages_per_subject: 1,
        // What is forgotten first is what has been over for longest.
        discard: DiscardPolicy::Old,
        allow_rollup: true,
        duplicate_window: EVENTS_DUPLICATE_WINDOW.min(limits.max_age),
        ..base.clone()
    };
    let advisories = stream::Config {
        name: names.advisories().to_owned(),
        description: Some("Throughline: messages that the server has given up on".to_owned()),
        subjects: vec![max_delivery_advisories(names, "*")],
        retention: RetentionPolicy::WorkQueue,
        max_age: ADVISORIES_MAX_AGE,
        max_bytes: SMALL_STREAM_BYTES,
        discard: DiscardPolicy::Old,
        duplicate_window: EVENTS_DUPLICATE_WINDOW,
        ..base.clone()
    };
    let bucket = names.meta();
    let meta = stream::Config {
        name: names.meta_stream(),
        description: Some("Throughline: which database this namespace has".to_owned()),
        subjects: vec![format!("$KV.{bucket}.>")],
        // It must never be forgotten.
        max_age: Duration::ZERO,
        max_bytes: META_BYTES,
        max_messages_per_subject: 1,
        discard: DiscardPolicy::Old,
        allow_rollup: true,
        duplicate_window: EVENTS_DUPLICATE_WINDOW,
        ..base
    };
    [events, dead, bodies, claims, advisories, meta]
}

/// Where the server announces that a consumer has given up on a message.
fn max_delivery_advisories(names: &Names, consumer: &str) -> String {
    format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{}.{consumer}", names.events())
}

/// A consumer, and the stream that it reads.
pub(super) struct Wanted {
    pub(super) stream: String,
    pub(super) name: &'static str,
    pub(super) config: pull::Config,
}

/// Every consumer of a namespace.
pub(super) fn consumers(settings: &NatsSettings, names: &Names) -> Vec<Wanted> {
    let stages = StageName::ALL.into_iter().map(|stage| Wanted {
        stream: names.events().to_owned(),
        name: Names::consumer(stage),
        config: consumer(settings, stage),
    });
    let dead_lettering = StageName::ALL.into_iter().map(|stage| Wanted {
        stream: names.advisories().to_owned(),
        name: Names::dead_lettering(stage),
        config: dead_lettering(settings, names, stage),
    });
    stages.chain(dead_lettering).collect()
}

/// The consumer of advisories about a stage's messages.
fn dead_lettering(settings: &NatsSettings, names: &Names, stage: StageName) -> pull::Config {
    pull::Config {
        durable_name: Some(Names::dead_lettering(stage).to_owned()),
        description: Some(format!("Throughline: burials of the {stage} stage")),
        filter_subject: max_delivery_advisories(names, Names::consumer(stage)),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: settings.ack_wait,
        max_deliver: BURIAL_ATTEMPTS,
        replay_policy: ReplayPolicy::Instant,
        max_ack_pending: MAX_ACK_PENDING,
        max_waiting: MAX_WAITING,
        metadata: HashMap::from([(VERSION_KEY.to_owned(), VERSION.to_owned())]),
        ..pull::Config::default()
    }
}

/// A stage's consumer.
pub(super) fn consumer(settings: &NatsSettings, stage: StageName) -> pull::Config {
    let ns = &settings.namespace;
    let consumed = stage.consumes();
    let filter = ns.events_of(consumed);
    let base = pull::Config {
        durable_name: Some(Names::consumer(stage).to_owned()),
        description: Some(format!("Throughline: the {stage} stage")),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: settings.ack_wait,
        max_deliver: i64::from(settings.max_deliver),
        replay_policy: ReplayPolicy::Instant,
        max_ack_pending: MAX_ACK_PENDING,
        max_waiting: MAX_WAITING,
        metadata: HashMap::from([(VERSION_KEY.to_owned(), VERSION.to_owned())]),
        ..pull::Config::default()
    };
    let base = if consumed == EventType::UserInputReceived {
        pull::Config { filter_subjects: vec![ns.bare_input(), filter], ..base }
    } else {
        pull::Config { filter_subject: filter, ..base }
    };
    if is_pinned(stage) {
        pull::Config {
            priority_policy: PriorityPolicy::PinnedClient,
            priority_groups: vec![PIN_GROUP.to_owned()],
            priority_timeout: PIN_TIME_TO_LIVE,
            ..base
        }
    } else {
        base
    }
}
