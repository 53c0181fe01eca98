//! The keys of one provider: which one goes with the next call, and which are left alone for a while.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderValue, InvalidHeaderValue};
use throughline_actors::ports::model::ModelError;
use tokio::time::Instant;

use crate::http_client::credential::{Credential, Redactor};

/// A file is looked at again at most this often.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a key that was refused (401, 403) is left alone while there are others.
const REFUSED_COOLDOWN: Duration = Duration::from_mins(5);
/// How long a key whose quota is used up is left alone while there are others.
const QUOTA_COOLDOWN: Duration = Duration::from_mins(1);
/// A file that holds a key may have this many bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// So many values of earlier keys are still removed from what the provider says: calls under way carry them.
const MAX_FORMER: usize = 4;

/// Where one key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// It is this one for as long as the process runs.
    Fixed(Credential),
    /// A file whose content, without the line break at its end, is the key. It is read again when it changes: within a
    /// second, or at once when the provider refuses the key.
    File(PathBuf),
}

/// Why a key cannot be had. No message repeats one.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("the key file:{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing in the file, or too much.
    #[error("the key file:{} has no key in it: one line of at most 64 KiB is wanted", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A key with nothing in it but spaces and invisible characters.
    #[error("the key is empty")]
    Empty,
    /// A key with line breaks or other control characters.
    #[error("the key has characters that no header can have; is it the right one?")]
    Header(#[from] InvalidHeaderValue),
}

/// All keys of one provider.
#[derive(Debug)]
pub(super) struct KeyRing {
    /// What stands before a key in its header.
    prefix: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keys: Vec<Key>,
    /// Index of the key whose turn it is.
    next: usize,
    former: Vec<Credential>,
    /// Secrets that are no keys, such as a password in the URL.
    others: Vec<Credential>,
    redactor: Arc<Redactor>,
}

#[derive(Debug)]
struct Key {
    source: KeySource,
    value: Credential,
    header: HeaderValue,
    /// Of the file, when it was read.
    stamp: Option<Stamp>,
    looked_at: Instant,
    /// Left alone until then.
    rests_until: Option<Instant>,
    /// How often its value has changed.
    generation: u64,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<std::time::SystemTime>,
    bytes: u64,
}

/// The key of one call.
#[derive(Debug, Clone)]
pub(super) struct Picked {
    /// The header's value; none where the provider needs no key.
    pub header: Option<HeaderValue>,
    /// Removes all keys of the provider.
    pub redactor: Arc<Redactor>,
    index: usize,
    generation: u64,
}

/// Why a key is put to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// The provider refused it.
    Refused,
    /// Its quota is used up.
    Quota,
}

impl KeyRing {
    /// Reads every key; one that is missing is an error now and not with the first call. No sources: a provider that
    /// needs no key. `others` are further secrets that the provider gets.
    pub(super) fn new(
        provider: &str,
        sources: Vec<KeySource>,
        prefix: &'static str,
        others: Vec<Credential>,
    ) -> Result<Self, KeyError> {
        let read = |source| Key::read(provider, source, prefix);
        let keys = sources.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let redactor = Arc::new(Redactor::new(keys.iter().map(|key| &key.value).chain(&others)));
        let state = State { keys, next: 0, former: Vec::new(), others, redactor };
        Ok(Self { prefix, state: Mutex::new(state) })
    }

    /// The key for the next call: in turn, those at rest left out. If all are, the one whose rest ends first.
    pub(super) fn pick(&self) -> Picked {
        let now = Instant::now();
        let mut state = self.lock();
        state.refresh(self.prefix, now);
        let count = state.keys.len();
        let in_turn = (0..count).map(|step| (state.next + step) % count);
        let rests = |index: &usize| state.keys[*index].rests_until.filter(|until| *until > now);
        let picked =
            in_turn.clone().find(|index| rests(index).is_none()).or_else(|| in_turn.min_by_key(rests));
        let index = picked.unwrap_or_default();
        state.next = index + 1;
        state.picked(index)
    }

    /// Every key, in order, whether at rest or not; one without a header, where the provider needs none.
    pub(super) fn all(&self) -> Vec<Picked> {
        let state = self.lock();
        (0..state.keys.len().max(1)).map(|index| state.picked(index)).collect()
    }

    /// Puts a key to rest, unless its file has a new value by now. Returns whether a call with another key, or with
    /// that new value, may do better; `tried` is how many calls were refused already.
    pub(super) fn rest(&self, picked: &Picked, why: Rest, tried: usize) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let State { keys, former, .. } = &mut *state;
        let count = keys.len();
        let Some(key) = keys.get_mut(picked.index) else { return false };
        let changed = key.look_again(self.prefix, now, former) || key.generation != picked.generation;
        if changed {
            state.renew_redactor();
        } else {
            key.rests_until = Some(now + why.cooldown());
        }
        // Twice as many, so that files that change at every call do not go on for ever.
        let others = state.keys.iter().any(|key| key.rests_until.is_none_or(|until| until <= now));
        (others || changed) && tried < count * 2
    }

    /// The lock is held for a few instructions, and no panic is possible among them that would leave the state wrong.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rest {
    /// Why, if this is how a call failed.
    pub(super) fn after(error: &ModelError) -> Option<Self> {
        if matches!(error, ModelError::Credentials(_)) {
            Some(Self::Refused)
        } else if matches!(error, ModelError::QuotaExhausted(_)) {
            Some(Self::Quota)
        } else {
            None
        }
    }

    fn cooldown(self) -> Duration {
        match self {
            Self::Refused => REFUSED_COOLDOWN,
            Self::Quota => QUOTA_COOLDOWN,
        }
    }
}

impl State {
    /// The key at this place; none, if there is none.
    fn picked(&self, index: usize) -> Picked {
        let key = self.keys.get(index);
        Picked {
            header: key.map(|key| key.header.clone()),
            redactor: Arc::clone(&self.redactor),
            index,
            generation: key.map_or(0, |key| key.generation),
        }
    }

    /// Looks at the files whose time has come.
    fn refresh(&mut self, prefix: &str, now: Instant) {
        let mut changed = false;
        for key in &mut self.keys {
            if matches!(key.source, KeySource::File(_)) && now.duration_since(key.looked_at) >= FILE_INTERVAL
            {
                changed |= key.look_again(prefix, now, &mut self.former);
            }
        }
        if changed {
            self.renew_redactor();
        }
    }

    fn renew_redactor(&mut self) {
        let excess = self.former.len().saturating_sub(MAX_FORMER);
        self.former.drain(..excess);
        let secrets = self.keys.iter().map(|key| &key.value).chain(&self.former).chain(&self.others);
        self.redactor = Arc::new(Redactor::new(secrets));
    }
}

impl Key {
    fn read(provider: &str, source: KeySource, prefix: &str) -> Result<Self, KeyError> {
        let (value, stamp) = match &source {
            KeySource::Fixed(value) => {
                let tidy = tidy(value.expose());
                if tidy.is_empty() {
                    return Err(KeyError::Empty);
                }
                if tidy != value.expose() {
                    tracing::warn!(
                        provider,
                        "the api_key has quotes, spaces or invisible characters around or in it, which are not sent"
                    );
                }
                (Credential::new(tidy), None)
            }
            KeySource::File(path) => {
                let (value, stamp) = read_file(path)?;
                (value, Some(stamp))
            }
        };
        let header = value.header(prefix)?;
        Ok(Self { source, value, header, stamp, looked_at: Instant::now(), rests_until: None, generation: 0 })
    }

    /// Reads the file again if it has changed; returns whether the key has. A file that cannot be read (it is being
    /// replaced, say) leaves the key as it is. Blocks for one look at a small file, at most once a second.
    fn look_again(&mut self, prefix: &str, now: Instant, former: &mut Vec<Credential>) -> bool {
        let KeySource::File(path) = &self.source else { return false };
        self.looked_at = now;
        if Stamp::of(path).ok() == self.stamp {
            return false;
        }
        let read = read_file(path).and_then(|(value, stamp)| Ok((value.header(prefix)?, value, stamp)));
        match read {
            Ok((header, value, stamp)) => {
                self.stamp = Some(stamp);
                if value == self.value {
                    return false;
                }
                former.push(std::mem::replace(&mut self.value, value));
                self.header = header;
                self.rests_until = None;
                self.generation += 1;
                tracing::info!(file = %path.display(), "the provider's key has changed");
                true
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the provider's key stays as it was");
                false
            }
        }
    }
}

impl Stamp {
    fn of(path: &std::path::Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { modified: metadata.modified().ok(), bytes: metadata.len() })
    }
}

/// A key as it is meant: without what is around it when it is copied (spaces, line breaks, quotes), and without characters
/// that nobody can see.
fn tidy(key: &str) -> String {
    let is_around = |c: char| c.is_whitespace() || c.is_control();
    let visible: String = key
        .chars()
        .filter(|c| !matches!(c, '\u{00AD}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2064}' | '\u{FEFF}'))
        .collect();
    let trimmed = visible.trim_matches(is_around);
    let unquoted =
        ['"', '\'', '`'].iter().find_map(|quote| trimmed.strip_prefix(*quote)?.strip_suffix(*quote));
    unquoted.unwrap_or(trimmed).trim_matches(is_around).to_owned()
}

fn read_file(path: &std::path::Path) -> Result<(Credential, Stamp), KeyError> {
    use std::io::Read as _;

    let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
    let stamp = Stamp::of(path).map_err(unreadable)?;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    let key = tidy(&text);
    if key.is_empty() || text.len() as u64 > MAX_FILE_BYTES {
        return Err(KeyError::NoKey { path: path.to_owned() });
    }
    Ok((Credential::new(key), stamp))
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
