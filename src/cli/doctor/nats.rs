//! Everything about NATS: the server, `JetStream`, streams and consumers, who works on them, and the clock.

use std::time::Duration;

use throughline_actors::ports::bus::{Bus, BusError};
use throughline_schemas::StageName;

use super::{
    finding::{Finding, within},
    identity, space, strict, sync, turns, whoami,
};
use crate::{
    app::{connect_bus, stream_limits},
    bus::nats::{NatsBus, Role, topology},
    cli::exit::with_causes,
    config::{Config, Env},
};

/// How long connecting may take. Longer than the bus itself tries, whose own error says more.
const CONNECT_LIMIT: Duration = Duration::from_secs(12);
/// How long each further check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// How long closing may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// A message must be able to hold an event of which all that may be kept elsewhere is.
const MIN_PAYLOAD: usize = 8 * 1024;
const RAISE_PAYLOAD: &str = "set max_payload: 1MB in the server's configuration";
/// Streams and accounts that are fuller than this, in percent, are worth a word.
const FULL_PERCENT: u64 = 80;
/// Differences named at most.
const MAX_DRIFTS: usize = 5;

pub(super) async fn check(config: &Config, env: &Env, role: Role) -> Vec<Finding> {
    let connected = tokio::time::timeout(CONNECT_LIMIT, connect_bus(config, env, "doctor")).await;
    let bus = match connected {
        Ok(Ok(bus)) => bus,
        Ok(Err(error)) if error.is_unavailable() => {
            return vec![Finding::unreachable("nats", with_causes(&error), "")];
        }
        Ok(Err(error)) => return vec![Finding::fail("nats", with_causes(&error), "correct [nats]")],
        Err(_) => {
            let detail = format!("{} does not answer within {CONNECT_LIMIT:?}", config.nats.url);
            return vec![Finding::unreachable("nats", detail, "start it, or correct nats.url")];
        }
    };
    let (account, streams, space, workers, turns, sync, whoami, identity, room, health, strict) = tokio::join!(
        within("jetstream", CHECK_LIMIT, account(&bus)),
        within("streams", CHECK_LIMIT, Box::pin(streams(config, &bus, role))),
        space::check(&bus),
        workers(&bus),
        Box::pin(turns::check(config, env, &bus)),
        within("sync", CHECK_LIMIT, sync::check(config, &bus)),
        Box::pin(whoami::check(config, &bus, role)),
        Box::pin(identity::check(config, env, &bus, role)),
        Box::pin(room(&bus, role)),
        Box::pin(sync::health(config, &bus)),
        tokio::time::timeout(CHECK_LIMIT, strict::check(&bus)),
    );
    let findings =
        [server(config, &bus), account, streams].into_iter().chain(space).chain(workers).chain(turns);
    let findings = findings
        .chain(room)
        .chain(health)
        .chain(identity)
        .chain(strict.ok().flatten())
        .chain([sync])
        .chain(whoami)
        .collect();
    bus.close(CLOSE_LIMIT).await;
    findings
}

fn server(config: &Config, bus: &NatsBus) -> Finding {
    // Connecting has checked the version: an older server is refused.
    let facts = bus.server();
    let detail = format!("{} is nats-server {}", config.nats.url, facts.version);
    if facts.max_payload < MIN_PAYLOAD {
        let detail = format!("{detail}, max_payload is {} bytes", facts.max_payload);
        return Finding::fail("nats", detail, RAISE_PAYLOAD);
    }
    match bus.small_payload() {
        Some(words) => Finding::warn("nats", format!("{detail}; {words}"), RAISE_PAYLOAD),
        None => Finding::ok("nats", detail),
    }
}

/// Whether everything that events are kept in answers and has room; nothing if so, or if this role may not ask.
async fn room(bus: &NatsBus, role: Role) -> Option<Finding> {
    const NAME: &str = "room";
    match role {
        Role::Worker | Role::Admin => {}
        Role::Publisher | Role::Reader => return None,
    }
    match bus.probe().await {
        // What is missing or forbidden, the checks of the streams and of the permissions say.
        Ok(()) | Err(BusError::NotSetUp(_) | BusError::Forbidden(_)) => None,
        Err(error) => Some(Finding::fail(NAME, with_causes(&error), "")),
    }
}

async fn account(bus: &NatsBus) -> Finding {
    const NAME: &str = "jetstream";
    let account = match bus.account_state().await {
        Ok(account) => account,
        Err(error @ BusError::Forbidden(_)) => {
            return Finding::warn(NAME, with_causes(&error), "allow this user to ask for it");
        }
        Err(error) => {
            let advice = "switch JetStream on for this account, or use another user";
            return Finding::fail(NAME, with_causes(&error), advice);
        }
    };
    let used = account.storage;
    match account.max_storage {
        Some(limit) => {
            let detail = format!("on; {} of {} used", mib(used), mib(limit));
            if used / FULL_PERCENT > limit / 100 {
                Finding::warn(NAME, detail, "raise the account's storage, or lower nats.max_bytes_mib")
            } else {
                Finding::ok(NAME, detail)
            }
        }
        None => Finding::ok(NAME, format!("on; {} used, no limit for this account", mib(used))),
    }
}

async fn streams(config: &Config, bus: &NatsBus, role: Role) -> Finding {
    const NAME: &str = "streams";
    const ADVICE: &str = "run `throughline setup`";
    if role == Role::Publisher {
        // It need not see the others, nor the stages' consumers.
        return match bus.log_state().await {
            Ok(_) => Finding::ok(NAME, "the event stream is there"),
            Err(error) => Finding::fail(NAME, with_causes(&error), ADVICE),
        };
    }
    let drifts = match topology::check(bus, &stream_limits(config)).await {
        Ok(drifts) => drifts,
        Err(error @ BusError::Unavailable { .. }) => {
            return Finding::unreachable(NAME, with_causes(&error), "see the server's log");
        }
        Err(error) => return Finding::fail(NAME, with_causes(&error), ADVICE),
    };
    if drifts.is_empty() {
        return Finding::ok(NAME, "streams and consumers are as `throughline setup` makes them");
    }
    let mut words: Vec<String> = drifts.iter().take(MAX_DRIFTS).map(ToString::to_string).collect();
    if drifts.len() > MAX_DRIFTS {
        words.push(format!("and {} more", drifts.len() - MAX_DRIFTS));
    }
    let words = words.join(", ");
    if drifts.iter().any(topology::Drift::is_missing) {
        Finding::fail(NAME, words, ADVICE)
    } else {
        Finding::warn(NAME, words, ADVICE)
    }
}

/// Whether anybody works; nothing if there is no consumer to work on.
async fn workers(bus: &NatsBus) -> Option<Finding> {
    const NAME: &str = "workers";
    let mut idle = Vec::new();
    let mut behind = Vec::new();
    // What a worker holds while it cannot go on, for a database that is away perhaps, is no turn yet and waits for no worker.
    let mut in_hand = Vec::new();
    for stage in StageName::ALL {
        let state = bus.stage_state(stage).await.ok()?;
        if state.waiting == 0 && state.in_hand == 0 {
            idle.push(stage.as_str());
        }
        if state.pending > 0 {
            behind.push(format!("{} {stage}", state.pending));
        }
        if state.in_hand > 0 {
            in_hand.push(format!("{} {stage}", state.in_hand));
        }
    }
    let waiting = if behind.is_empty() {
        "no event waits for one".to_owned()
    } else {
        format!("events that wait: {}", behind.join(", "))
    };
    let waiting = if in_hand.is_empty() {
        waiting
    } else {
        format!("{waiting}; in the hands of workers: {}", in_hand.join(", "))
    };
    Some(if idle.is_empty() {
        Finding::ok(NAME, format!("every stage has one; {waiting}"))
    } else {
        let detail = format!("none for {}; {waiting}", idle.join(", "));
        Finding::warn(NAME, detail, "start `throughline worker`")
    })
}

pub(super) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
