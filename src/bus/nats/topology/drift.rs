//! How what is there differs from what is wanted.

use std::fmt;

use async_nats::jetstream::{consumer::pull, stream};

use super::wanted::VERSION_KEY;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The stream or consumer.
    pub object: String,
    /// Which of its settings; `None` if the whole object is missing.
    pub setting: Option<&'static str>,
    /// What `throughline setup` would make of it.
    pub wanted: String,
    /// What is there.
    pub found: String,
}

impl Drift {
    pub(super) fn missing(object: &str) -> Self {
        Self {
            object: object.to_owned(),
            setting: None,
            wanted: "exists".to_owned(),
            found: "missing".to_owned(),
        }
    }

    /// Whether the whole object is missing.
    pub fn is_missing(&self) -> bool {
        self.setting.is_none()
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.setting {
            None => write!(f, "{} is missing", self.object),
            Some(setting) => {
                write!(f, "{}: {setting} is {}, should be {}", self.object, self.found, self.wanted)
            }
        }
    }
}

struct Comparison<'a> {
    object: &'a str,
    drifts: Vec<Drift>,
}

impl Comparison<'_> {
    fn compare<T: fmt::Debug + PartialEq>(&mut self, setting: &'static str, wanted: &T, found: &T) {
        if wanted != found {
            self.drifts.push(Drift {
                object: self.object.to_owned(),
                setting: Some(setting),
                wanted: format!("{wanted:?}"),
                found: format!("{found:?}"),
            });
        }
    }
}

/// Settings that setup decides; the server adds others.
pub(super) fn of_stream(wanted: &stream::Config, found: &stream::Config) -> Vec<Drift> {
    let mut comparison = Comparison { object: &wanted.name, drifts: Vec::new() };
    comparison.compare("subjects", &wanted.subjects, &found.subjects);
    comparison.compare("storage", &wanted.storage, &found.storage);
    comparison.compare("retention", &wanted.retention, &found.retention);
    comparison.compare("discard", &wanted.discard, &found.discard);
    comparison.compare("max_age", &wanted.max_age, &found.max_age);
    comparison.compare("max_bytes", &wanted.max_bytes, &found.max_bytes);
    comparison.compare("max_msgs", &wanted.max_messages, &found.max_messages);
    comparison.compare("num_replicas", &wanted.num_replicas, &found.num_replicas);
    comparison.compare("duplicate_window", &wanted.duplicate_window, &found.duplicate_window);
    comparison.compare("allow_direct", &wanted.allow_direct, &found.allow_direct);
    comparison.compare("allow_rollup_hdrs", &wanted.allow_rollup, &found.allow_rollup);
    let republish = |config: &stream::Config| {
        let republish = config.republish.as_ref();
        republish.map(|one| (one.source.clone(), one.destination.clone(), one.headers_only))
    };
    comparison.compare("republish", &republish(wanted), &republish(found));
    comparison.drifts
}

/// Settings that setup decides; the server adds others.
pub(super) fn of_consumer(name: &str, wanted: &pull::Config, found: &pull::Config) -> Vec<Drift> {
    let mut comparison = Comparison { object: name, drifts: Vec::new() };
    comparison.compare("version", &wanted.metadata.get(VERSION_KEY), &found.metadata.get(VERSION_KEY));
    comparison.compare("filter_subject", &wanted.filter_subject, &found.filter_subject);
    comparison.compare("filter_subjects", &wanted.filter_subjects, &found.filter_subjects);
    comparison.compare("deliver_policy", &wanted.deliver_policy, &found.deliver_policy);
    comparison.compare("ack_policy", &wanted.ack_policy, &found.ack_policy);
    comparison.compare("ack_wait", &wanted.ack_wait, &found.ack_wait);
    comparison.compare("max_deliver", &wanted.max_deliver, &found.max_deliver);
    comparison.compare("max_ack_pending", &wanted.max_ack_pending, &found.max_ack_pending);
    comparison.compare("max_waiting", &wanted.max_waiting, &found.max_waiting);
    comparison.compare("backoff", &wanted.backoff, &found.backoff);
    comparison.compare("priority_policy", &wanted.priority_policy, &found.priority_policy);
    comparison.compare("priority_groups", &wanted.priority_groups, &found.priority_groups);
    comparison.compare("priority_timeout", &wanted.priority_timeout, &found.priority_timeout);
    comparison.drifts
}
