//! `[retention]`: how long things are kept, and where the log's past goes.

use std::path::PathBuf;
use std::time::Duration;

use throughline_actors::retention::RetentionSettings;

use super::field::Field;
use super::reader::Section;
use super::tree::Value;

const DAY: Duration = Duration::from_hours(24);
/// Longest time that can be written, in days: a hundred years.
const MOST_DAYS: u32 = 36_500;

/// Where messages are written before they are removed from the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ArchivePlace {
    /// Nowhere.
    #[default]
    Off,
    /// Files in a folder.
    File(PathBuf),
    /// Objects in a bucket of the NATS server.
    Bucket(String),
}

impl Field for ArchivePlace {
    fn read(value: &Value) -> Result<Self, String> {
        let text = String::read(value)?;
        match text.split_once(':') {
            None if text == "off" => Ok(Self::Off),
            Some(("file", folder)) if !folder.is_empty() => Ok(Self::File(PathBuf::from(folder))),
            Some(("bucket", name)) if is_bucket(name) => Ok(Self::Bucket(name.to_owned())),
            Some(("bucket", name)) => {
                Err(format!("{name:?} is no name of a bucket; use letters, digits, \"-\" and \"_\""))
            }
            Some(_) | None => Err(format!(
                "{text:?} is no place for archives; write \"off\", \"file:FOLDER\" or \"bucket:NAME\""
            )),
        }
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(match self {
            Self::Off => "off".to_owned(),
            Self::File(folder) => format!("file:{}", folder.display()),
            Self::Bucket(name) => format!("bucket:{name}"),
        })
    }
}

fn is_bucket(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// `[retention]`.
#[derive(Clone, Debug)]
pub struct Retention {
    /// `events_days`: events of finished work; earlier when the log is nearly full. Default 7.
    pub events: Duration,
    /// `interactions_days`: rows of ended turns, and the memory of their ids; 0: for ever. Default 365.
    pub interactions: Option<Duration>,
    /// `dead_letters_days`. Default 30.
    pub dead_letters: Duration,
    /// `archives_days`; 0: for ever. Default 365.
    pub archives: Option<Duration>,
    /// Where events go before they are removed. Default `off`.
    pub archive: ArchivePlace,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events: 7 * DAY,
            interactions: Some(365 * DAY),
            dead_letters: 30 * DAY,
            archives: Some(365 * DAY),
            archive: ArchivePlace::Off,
        }
    }
}

impl Retention {
    /// `older` is what `nats.max_age_hours` says, which was there before `events_days`.
    pub(super) fn read(s: &mut Section<'_>, older: Option<Duration>) -> Self {
        let d = Self::default();
        let events = DAY * s.within("events_days", days(d.events), 1..=MOST_DAYS);
        let interactions =
            s.within("interactions_days", days(d.interactions.unwrap_or_default()), 0..=MOST_DAYS);
        let dead_letters = DAY * s.within("dead_letters_days", days(d.dead_letters), 1..=MOST_DAYS);
        let archives = s.within("archives_days", days(d.archives.unwrap_or_default()), 0..=MOST_DAYS);
        let archive = s.or("archive", d.archive);
        let events = older.filter(|_| !s.was_written("events_days")).unwrap_or(events);
        let interactions = ever(interactions);
        if interactions.is_some_and(|interactions| interactions < events) {
            s.conflict(
                "interactions_days",
                "must not be less than events_days: an id must be remembered while the log has its events",
            );
        }
        Self { events, interactions, dead_letters, archives: ever(archives), archive }
    }

    /// As the engine wants it.
    pub fn settings(&self) -> RetentionSettings {
        RetentionSettings { events: self.events, interactions: self.interactions, archives: self.archives }
    }
}

fn days(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs() / DAY.as_secs()).unwrap_or(u32::MAX)
}

fn ever(days: u32) -> Option<Duration> {
    (days > 0).then(|| DAY * days)
}
