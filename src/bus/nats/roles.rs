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
    /// Sends input and hears how workflows end.
    Publisher,
    /// Reads events and dead letters.
    Reader,
    /// Creates streams and consumers, and sends dead letters again.
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
        let (events, dead, bodies) = (names.events(), names.dead(), names.bodies_stream());
        let event = |event_type: EventType| format!("{ns}.v{MAJOR}.{event_type}.s.w");
        let read = |stream: &str, filter: &str| {
            vec![
                format!("$JS.API.CONSUMER.CREATE.{stream}.x{filter}"),
                format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.x"),
                format!("$JS.API.STREAM.INFO.{stream}"),
            ]
        };
        let bodies_of = |operation: &str| format!("$JS.API.{operation}.{bodies}");
        let fetch = [bodies_of("STREAM.INFO"), bodies_of("DIRECT.GET") + ".x", bodies_of("CONSUMER.CREATE")];
        let ends = || EventType::ALL.into_iter().filter(|event_type| event_type.is_end());
        let (publish, subscribe) =
            match self {
                Self::Worker => {
                    let own = EventType::ALL.into_iter().filter(|of| *of != EventType::UserInputReceived);
                    let mut publish: Vec<String> = own.map(event).collect();
                    for stage in StageName::ALL {
                        let consumer = Names::consumer(stage);
                        publish.push(format!("$JS.API.CONSUMER.INFO.{events}.{consumer}"));
                        publish.push(format!("$JS.API.CONSUMER.MSG.NEXT.{events}.{consumer}"));
                        publish.push(format!("$JS.ACK.{events}.{consumer}.1.1.1.1.1"));
                    }
                    publish.extend([
                        format!("{ns}.dead.v{MAJOR}.x.s.w"),
                        ns.control("breaker"),
                        format!("{ns}.live.w"),
                        format!("$JS.API.DIRECT.GET.{events}.x"),
                        format!("$JS.API.STREAM.INFO.{events}"),
                        format!("$JS.API.STREAM.MSG.GET.{events}"),
                        format!("$JS.API.STREAM.MSG.DELETE.{events}"),
                        format!("$O.{}.C.x", names.bodies()),
                        format!("$O.{}.M.x", names.bodies()),
                    ]);
                    publish.extend(fetch);
                    (publish, Vec::new())
                }
                Self::Publisher => {
                    let mut publish = vec![ns.bare_input(), event(EventType::UserInputReceived)];
                    for end in ends() {
                        publish.extend(read(events, &format!(".{}", event(end))));
                        publish.push(format!("$JS.API.DIRECT.GET.{events}.{}", event(end)));
                    }
                    (publish, ends().map(|end| ns.events_of(end)).collect())
                }
                Self::Reader => {
                    let mut publish = [read(events, ""), read(dead, "")].concat();
                    publish.extend([
                        format!("$JS.API.DIRECT.GET.{events}.x"),
                        format!("$JS.API.CONSUMER.INFO.{events}.x"),
                    ]);
                    publish.extend(fetch);
                    (publish, vec![ns.all_events(), ns.control(">"), format!("{ns}.live.>")])
                }
                Self::Admin => {
                    let mut publish = vec![ns.bare_input(), event(EventType::UserInputReceived)];
                    for stream in [events, dead, &bodies] {
                        publish.extend(
                            ["INFO", "CREATE", "UPDATE"].map(|op| format!("$JS.API.STREAM.{op}.{stream}")),
                        );
                    }
                    publish.extend(StageName::ALL.map(|stage| {
                        format!("$JS.API.CONSUMER.CREATE.{events}.{}.x", Names::consumer(stage))
                    }));
                    publish.push(format!("$JS.API.STREAM.MSG.DELETE.{dead}"));
                    publish.extend(read(dead, ""));
                    (publish, Vec::new())
                }
            };
        Needs { publish, subscribe: [vec![format!("{inbox_prefix}.>")], subscribe].concat() }
    }
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
            r#"{"publish":{"allow":["n.>","$JS.>","$O.>"],"deny":["n.live.>"]},"subscribe":{"allow":["_INBOX_w.>"]}}"#,
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
