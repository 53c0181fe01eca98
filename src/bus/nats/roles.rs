//! What the users of a shared server need, role by role, and whether what the server grants covers it.
//! `deploy/nats/accounts.conf` grants exactly this kind of thing; `throughline doctor` compares.

use serde::Deserialize;
use throughline_schemas::{EventType, MAJOR, Namespace, StageName};

use super::Names;

/// What a process does on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Runs stages.
    Worker,
    /// Sends input and learns how workflows end.
    Publisher,
    /// Reads events and dead letters.
    Reader,
    /// Creates streams and consumers, sends dead letters again, exports and erases what is kept about a user.
    Admin,
}

impl Role {
    /// Its name, as it is written in commands and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Publisher => "publisher",
            Self::Reader => "reader",
            Self::Admin => "admin",
        }
    }

    /// Subjects of the kinds that it publishes on and subscribes to.
    pub fn needs(self, ns: &Namespace, names: &Names, inbox_prefix: &str) -> Needs {
        let (publish, subscribe) = match self {
            Self::Worker => (worker(ns, names), vec![ns.control("interrupt")]),
            Self::Publisher => {
                (publisher(ns, names), EventType::ends().map(|end| ns.stored_of(end)).collect())
            }
            Self::Reader => (reader(names), vec![ns.all_stored(), ns.control(">"), format!("{ns}.live.>")]),
            Self::Admin => (admin(ns, names), Vec::new()),
        };
        Needs { publish, subscribe: [vec![format!("{inbox_prefix}.>")], subscribe].concat() }
    }
}

/// Where an event is published, or is looked for.
fn event(ns: &Namespace, event_type: EventType) -> String {
    format!("{ns}.v{MAJOR}.{event_type}.s.w")
}

/// Reading a stream with a consumer of one's own.
fn read(stream: &str) -> [String; 3] {
    [
        format!("$JS.API.CONSUMER.CREATE.{stream}.x"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.x"),
        format!("$JS.API.STREAM.INFO.{stream}"),
    ]
}

/// Taking deliveries of a consumer that is there.
fn take(stream: &str, consumer: &str) -> [String; 3] {
    [
        format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
        format!("$JS.ACK.{stream}.{consumer}.1.1.1.1.1"),
    ]
}

/// Fetching a large body.
fn fetch(names: &Names) -> [String; 3] {
    let bodies = names.bodies_stream();
    [
        format!("$JS.API.STREAM.INFO.{bodies}"),
        format!("$JS.API.DIRECT.GET.{bodies}.x"),
        format!("$JS.API.CONSUMER.CREATE.{bodies}"),
    ]
}

fn worker(ns: &Namespace, names: &Names) -> Vec<String> {
    let events = names.events();
    let own = EventType::ALL.into_iter().filter(|of| *of != EventType::UserInputReceived);
    let mut publish: Vec<String> = own.map(|of| event(ns, of)).collect();
    for stage in StageName::ALL {
        publish.extend(take(events, Names::consumer(stage)));
        publish.extend(take(names.advisories(), Names::dead_lettering(stage)));
    }
    publish.extend([
        format!("{ns}.dead.v{MAJOR}.x.s.w"),
        ns.control("breaker"),
        ns.control("interrupt"),
        format!("$JS.API.CONSUMER.UNPIN.{events}.{}", Names::consumer(StageName::Input)),
        format!("{ns}.live.w"),
        format!("$JS.API.STREAM.INFO.{events}"),
        format!("$JS.API.STREAM.INFO.{}", names.dead()),
        format!("$JS.API.STREAM.INFO.{}", names.claims_stream()),
        format!("$JS.API.DIRECT.GET.{events}"),
        format!("$JS.API.DIRECT.GET.{events}.x"),
        format!("$JS.API.STREAM.MSG.GET.{events}"),
        format!("$JS.API.STREAM.MSG.DELETE.{events}"),
        format!("$JS.API.STREAM.PURGE.{events}"),
        format!("$JS.API.STREAM.MSG.GET.{}", names.advisories()),
        format!("$JS.API.STREAM.INFO.{}", names.advisories()),
        format!("$JS.API.STREAM.INFO.{}", names.dead()),
        format!("$JS.API.STREAM.INFO.{}", names.claims_stream()),
        format!("$KV.{}.x", names.claims()),
        format!("$JS.API.DIRECT.GET.{}.x", names.claims_stream()),
        format!("$KV.{}.x", names.meta()),
        format!("$JS.API.DIRECT.GET.{}.x", names.meta_stream()),
        format!("$JS.API.STREAM.INFO.{}", names.meta_stream()),
        format!("$O.{}.C.x", names.bodies()),
        format!("$O.{}.M.x", names.bodies()),
        format!("$JS.API.DIRECT.GET.{}", names.bodies_stream()),
        format!("$JS.API.STREAM.PURGE.{}", names.bodies_stream()),
        format!("$JS.API.DIRECT.GET.{}", names.dead()),
        format!("$JS.API.STREAM.MSG.GET.{}", names.dead()),
    ]);
    publish.extend(fetch(names));
    publish
}

fn publisher(ns: &Namespace, names: &Names) -> Vec<String> {
    let events = names.events();
    let mut publish = vec![ns.bare_input(), event(ns, EventType::UserInputReceived)];
    publish.extend(EventType::ends().map(|end| format!("$JS.API.DIRECT.GET.{events}.{}", event(ns, end))));
    publish.push(format!("$JS.API.STREAM.INFO.{events}"));
    publish
}

fn reader(names: &Names) -> Vec<String> {
    let (events, dead) = (names.events(), names.dead());
    let mut publish = [read(events), read(dead), fetch(names)].concat();
    publish.extend([
        format!("$JS.API.DIRECT.GET.{events}.x"),
        format!("$JS.API.DIRECT.GET.{dead}"),
        format!("$JS.API.DIRECT.GET.{dead}.x"),
        format!("$JS.API.CONSUMER.INFO.{events}.x"),
        format!("$JS.API.DIRECT.GET.{}.x", names.meta_stream()),
        format!("$JS.API.STREAM.INFO.{}", names.meta_stream()),
    ]);
    publish
}

fn admin(ns: &Namespace, names: &Names) -> Vec<String> {
    let (events, dead) = (names.events(), names.dead());
    let mut publish = vec![ns.bare_input(), event(ns, EventType::UserInputReceived)];
    let (bodies, claims, meta) = (names.bodies_stream(), names.claims_stream(), names.meta_stream());
    for stream in [events, dead, names.advisories(), &bodies, &claims, &meta] {
        publish.extend(
            ["INFO", "CREATE", "UPDATE"].map(|operation| format!("$JS.API.STREAM.{operation}.{stream}")),
        );
    }
    let consumer = |stage| format!("$JS.API.CONSUMER.CREATE.{events}.{}.x", Names::consumer(stage));
    publish.extend(StageName::ALL.map(consumer));
    publish.extend(read(dead));
    publish.push(format!("$KV.{}.x", names.meta()));
    publish.push(format!("$JS.API.DIRECT.GET.{}.x", names.meta_stream()));
    // `throughline forget` and `export`: everything of one user or session, found and erased.
    for stream in [events, dead, &bodies, &claims] {
        publish.push(format!("$JS.API.DIRECT.GET.{stream}"));
        publish.push(format!("$JS.API.STREAM.MSG.GET.{stream}"));
        publish.push(format!("$JS.API.STREAM.MSG.DELETE.{stream}"));
    }
    publish.extend(fetch(names));
    publish.push(format!("$JS.API.STREAM.MSG.GET.{}", names.advisories()));
    publish.extend(
        StageName::ALL.map(|stage| format!("$JS.API.CONSUMER.INFO.{events}.{}", Names::consumer(stage))),
    );
    publish
}

/// Subjects that a role must be allowed, with wildcards where it needs all that they stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// To publish on.
    pub publish: Vec<String>,
    /// To subscribe to.
    pub subscribe: Vec<String>,
}

/// What the server grants a user, as it says when asked (`$SYS.REQ.USER.INFO`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Permissions {
    publish: Option<Lists>,
    subscribe: Option<Lists>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Lists {
    /// Nothing listed: everything.
    allow: Vec<String>,
    deny: Vec<String>,
}

impl Permissions {
    /// Whether nothing is restricted.
    pub fn are_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Whether publishing on this subject is allowed.
    pub fn may_publish(&self, subject: &str) -> bool {
        self.publish.as_ref().is_none_or(|lists| lists.grant(subject))
    }

    /// What of the needs is not granted: `publish on SUBJECT`, `subscribe to SUBJECT`.
    pub fn missing(&self, needs: &Needs) -> Vec<String> {
        let publish = needs.publish.iter().filter(|subject| !self.may_publish(subject));
        let may_subscribe = |subject: &str| self.subscribe.as_ref().is_none_or(|lists| lists.grant(subject));
        let subscribe = needs.subscribe.iter().filter(|subject| !may_subscribe(subject));
        publish
            .map(|subject| format!("publish on {subject}"))
            .chain(subscribe.map(|subject| format!("subscribe to {subject}")))
            .collect()
    }
}

impl Lists {
    fn grant(&self, subject: &str) -> bool {
        let any = |patterns: &[String]| {
            // A pattern may be followed by the name of a queue group.
            patterns.iter().any(|pattern| covers(pattern.split(' ').next().unwrap_or_default(), subject))
        };
        (self.allow.is_empty() || any(&self.allow)) && !any(&self.deny)
    }
}

/// Whether everything that matches `subject`, which may have wildcards itself, matches `pattern`.
fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            (None | Some(_), None | Some(_)) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_cover_what_the_server_says_they_do() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            ("a.>", "a", false),
            ("a.*", "a.b.c", false),
            ("a.*", "a.>", false),
            ("a.>", "a.>", true),
            ("a.b", "a.*", false),
            ("a.b.c", "a.b", false),
        ] {
            assert_eq!(covers(pattern, subject), expected, "{pattern} {subject}");
        }
    }

    #[test]
    fn a_missing_permission_is_named_and_a_denial_counts() {
        let permissions: Permissions = serde_json::from_str(
            r#"{"publish":{"allow":["n.>","$JS.>","$O.>","$KV.>"],"deny":["n.live.>"]},"subscribe":{"allow":["_INBOX_w.>","n.control.>"]}}"#,
        )
        .unwrap();
        let ns = Namespace::new("n").unwrap();
        let names = Names::new(&ns);
        let missing = |prefix: &str| permissions.missing(&Role::Worker.needs(&ns, &names, prefix));
        assert_eq!(missing("_INBOX_w"), ["publish on n.live.w"]);
        assert_eq!(missing("_INBOX"), ["publish on n.live.w", "subscribe to _INBOX.>"]);
        assert!(Permissions::default().missing(&Role::Admin.needs(&ns, &names, "_INBOX")).is_empty());
    }
}
