//! What the server says of this connection: its clock, and what the user may do.

use bytes::Bytes;
use serde::Deserialize;
use throughline_actors::ports::clock::Clock;
use throughline_schemas::Timestamp;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::finding::Finding;
use crate::{
    bus::nats::{NatsBus, Permissions, Role},
    cli::timeline::duration,
    config::Config,
    system::SystemClock,
};

/// A clock that is further off makes durations and `--since` misleading.
const MAX_SKEW: std::time::Duration = std::time::Duration::from_secs(1);
/// Missing permissions named at most.
const MAX_MISSING: usize = 5;

#[derive(Deserialize)]
struct Answer {
    server: Server,
    data: User,
}

#[derive(Deserialize)]
struct Server {
    time: String,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    account: String,
    #[serde(default)]
    permissions: Option<Permissions>,
}

/// The findings about clock and permissions.
pub(super) async fn check(config: &Config, bus: &NatsBus, role: Role) -> Vec<Finding> {
    const SUBJECT: &str = "$SYS.REQ.USER.INFO";
    let before = SystemClock.now();
    let answer = bus.unless_forbidden(SUBJECT, bus.client().request(SUBJECT, Bytes::new())).await;
    let after = SystemClock.now();
    let answer: Option<Answer> =
        answer.ok().and_then(Result::ok).and_then(|answer| serde_json::from_slice(&answer.payload).ok());
    let Some(Answer { server, data }) = answer else {
        let advice = format!("allow this user to publish on {SUBJECT}");
        return vec![Finding::warn("permissions", "the server does not say what this user may do", advice)];
    };
    let clock = OffsetDateTime::parse(&server.time, &Rfc3339).map_or_else(
        |_| {
            Finding::warn(
                "clock",
                "the server does not say what time it has",
                "compare `date -u` on both machines",
            )
        },
        |server| judge_clock(before, server.into(), after),
    );
    vec![judge_user(config, bus, role, &data), clock]
}

fn judge_user(config: &Config, bus: &NatsBus, role: Role, user: &User) -> Finding {
    const NAME: &str = "permissions";
    let permissions = user.permissions.clone().unwrap_or_default();
    let account = &user.account;
    let role_name = role.as_str();
    if permissions.are_unlimited() && role != Role::Admin {
        let detail = format!("this user may do everything in the account {account}");
        if config.nats.servers().all(is_loopback) {
            return Finding::ok(NAME, detail);
        }
        let advice = format!("give the {role_name} a user of its own, as deploy/nats/accounts.conf does");
        return Finding::warn(NAME, detail, advice);
    }
    let missing = permissions.missing(&role.needs(bus.namespace(), bus.names(), &config.nats.inbox_prefix));
    if missing.is_empty() {
        return Finding::ok(NAME, format!("all that a {role_name} needs in the account {account}"));
    }
    let mut words = missing.iter().take(MAX_MISSING).cloned().collect::<Vec<_>>().join(", ");
    if missing.len() > MAX_MISSING {
        words = format!("{words} and {} more", missing.len() - MAX_MISSING);
    }
    let advice =
        "use another user, or grant it as deploy/nats/accounts.conf does (nats.inbox_prefix goes with it)";
    Finding::fail(NAME, format!("a {role_name} must {words}, and this user may not"), advice)
}

/// Whether a server is on this machine.
pub(super) fn is_loopback(url: &str) -> bool {
    let host = url.rsplit_once("://").map_or(url, |(_, rest)| rest);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host).trim();
    host.starts_with("localhost") || host.starts_with("127.") || host.starts_with("[::1]")
}

fn judge_clock(before: Timestamp, server: Timestamp, after: Timestamp) -> Finding {
    const NAME: &str = "clock";
    let (before, server, after) =
        (OffsetDateTime::from(before), OffsetDateTime::from(server), OffsetDateTime::from(after));
    // It was asked between the two: only what lies outside of them is certain.
    let skew = if server < before {
        before - server
    } else if server > after {
        server - after
    } else {
        time::Duration::ZERO
    };
    let skew = skew.unsigned_abs();
    let direction = if server < before { "behind" } else { "ahead of" };
    if skew > MAX_SKEW {
        let detail = format!("the server's is {} {direction} ours", duration(skew));
        Finding::warn(NAME, detail, "synchronise both (NTP); durations and --since mislead until then")
    } else {
        Finding::ok(NAME, "the server's and ours agree")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Status;

    #[test]
    fn only_a_skew_that_the_journey_cannot_explain_counts() {
        let at = Timestamp::from_unix_ms;
        assert_eq!(judge_clock(at(1_000), at(1_500), at(9_000)).status, Status::Ok);
        assert_eq!(judge_clock(at(5_000), at(4_500), at(5_001)).status, Status::Ok);
        let behind = judge_clock(at(5_000), at(2_500), at(5_001));
        assert_eq!(behind.status, Status::Warn);
        assert!(behind.detail.contains("2500 ms behind"), "{}", behind.detail);
        assert!(judge_clock(at(0), at(5_000), at(1)).detail.contains("ahead of"));
    }

    #[test]
    fn servers_on_this_machine_are_told_apart() {
        for url in ["nats://127.0.0.1:4222", "localhost:4222", "tls://u:p@127.0.0.1", "nats://[::1]:4222"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["nats://10.0.0.1", "nats-1:4222", "tls://u:127.0.0.1@nats-1"] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
