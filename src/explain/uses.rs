//! Which answers came from a model, a template or a source: decided on one event after the other.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use throughline_schemas::{EventType, Namespace, Timestamp, Usd, event::generation::Purpose};

use crate::bus::nats::StoredEvent;

/// Shortest beginning of a template's hash that stands for it.
const MIN_HASH_CHARS: usize = 6;
/// Workflows whose sources were read and whose answer was not, at most; beyond that the oldest are forgotten, and looked
/// up when their answer comes.
const MAX_OPEN: usize = 50_000;
/// Names that are remembered, to tell what there is where nothing matches.
const MAX_NAMES: usize = 40;

/// What answers are asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UseOf {
    /// A model, by its name in the configuration or by the provider's.
    Model {
        /// Either name.
        name: String,
        /// Provider and model of what the configuration of today calls so: events of earlier versions have no other name.
        configured: Option<(String, String)>,
    },
    /// A prompt template.
    Template {
        /// Its id, if that counts.
        id: Option<String>,
        /// Its hash, or the beginning of it, if that counts.
        hash: Option<String>,
    },
    /// A data source that answered.
    Source(String),
}

/// The text names no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no template: write its id, ID@VERSION, or at least {MIN_HASH_CHARS} characters of its hash; a version is \
     the beginning of the hash, as `throughline explain WORKFLOW` shows it"
)]
pub struct UseOfError(pub String);

impl UseOf {
    /// Reads `HASH`, `ID` or `ID@VERSION`, where a version is the beginning of a hash. What may be a hash is one.
    pub fn template(text: &str) -> Result<Self, UseOfError> {
        let wrong = || UseOfError(text.chars().take(80).collect());
        let is_hash = |text: &str| {
            (MIN_HASH_CHARS..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        match text.rsplit_once('@') {
            Some((id, version)) if !id.is_empty() && is_hash(version) => {
                Ok(Self::Template { id: Some(id.to_owned()), hash: Some(version.to_ascii_lowercase()) })
            }
            Some(_) => Err(wrong()),
            None if is_hash(text) => Ok(Self::Template { id: None, hash: Some(text.to_ascii_lowercase()) }),
            None if text.is_empty() => Err(wrong()),
            None => Ok(Self::Template { id: Some(text.to_owned()), hash: None }),
        }
    }

    /// What to read to find out. An answer does not carry what the sources said: their event comes before it.
    pub fn filters(&self, ns: &Namespace) -> Vec<String> {
        let mut filters = vec![ns.events_of(EventType::ResponseGenerated)];
        if matches!(self, Self::Source(_)) {
            filters.insert(0, ns.events_of(EventType::ExternalDataFetched));
        }
        filters
    }
}

/// An answer that came from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Use {
    /// The workflow.
    pub workflow: String,
    /// Its session.
    pub session: String,
    /// When the answer was stored.
    pub at: Timestamp,
    /// The model, as the provider names it.
    pub model: String,
    /// Its name in the configuration, if that is another one and on record.
    pub model_name: Option<String>,
    /// The provider.
    pub provider: String,
    /// Id of the template.
    pub template: String,
    /// Hash of the template.
    pub template_hash: String,
    /// What the answer cost, as far as it is known.
    pub cost_usd: Option<Usd>,
}

/// Goes through answers, in the order of the log.
#[derive(Debug)]
pub struct Uses {
    of: UseOf,
    /// Whether the source answered, by the end of the subject.
    open: HashMap<String, bool>,
    /// The same, oldest first; may name what is not open any more.
    order: VecDeque<String>,
    names: BTreeSet<String>,
    /// Answers that were read.
    pub answers: u64,
    /// Answers that nobody could read.
    pub unreadable: u64,
}

impl Uses {
    /// Nothing has been read yet.
    pub fn new(of: UseOf) -> Self {
        Self {
            of,
            open: HashMap::new(),
            order: VecDeque::new(),
            names: BTreeSet::new(),
            answers: 0,
            unreadable: 0,
        }
    }

    /// The subject that has to be looked up, and given to [`Self::take`], before this event can be judged.
    pub fn needs(&self, event: &StoredEvent) -> Option<String> {
        let (kind, address) = split(&event.subject)?;
        let unknown = kind == EventType::ResponseGenerated && !self.open.contains_key(address);
        (matches!(self.of, UseOf::Source(_)) && unknown).then(|| {
            let front = event.subject.split(&format!(".{kind}.")).next().unwrap_or_default();
            format!("{front}.{}.{address}", EventType::ExternalDataFetched)
        })
    }

    /// Takes the next event; an answer that came from what is asked for is given back.
    pub fn take(&mut self, event: &StoredEvent) -> Option<Use> {
        let (kind, address) = split(&event.subject)?;
        if kind == EventType::ExternalDataFetched {
            self.fetched(address, &event.body);
            return None;
        }
        if kind != EventType::ResponseGenerated {
            return None;
        }
        self.answers += 1;
        let answered = self.open.remove(address).unwrap_or(false);
        let Ok(Envelope { workflowid, sessionid, data }) =
            serde_json::from_slice::<Envelope<Answer>>(&event.body)
        else {
            self.unreadable += 1;
            return None;
        };
        let asked = data.attempts.iter().rev().find(|attempt| attempt.has_answered());
        let model_name = asked.and_then(|attempt| attempt.name.clone().filter(|name| *name != attempt.model));
        let matches = match &self.of {
            UseOf::Model { name, configured } => {
                for known in [Some(&data.response.model), model_name.as_ref()].into_iter().flatten() {
                    remember(&mut self.names, known);
                }
                let called = |attempt: &Attempt| match &attempt.name {
                    Some(known) => known == name,
                    None => configured.as_ref().is_some_and(|(provider, model)| {
                        (provider, model) == (&data.response.provider, &attempt.model)
                    }),
                };
                data.response.model == *name
                    || asked.is_some_and(|attempt| attempt.model == *name || called(attempt))
            }
            UseOf::Template { id, hash } => {
                let version: String = data.prompt.hash.chars().take(12).collect();
                remember(&mut self.names, &format!("{}@{version}", data.prompt.id));
                id.as_ref().is_none_or(|id| data.prompt.id == *id)
                    && hash.as_ref().is_none_or(|hash| data.prompt.hash.starts_with(hash.as_str()))
            }
            UseOf::Source(_) => answered,
        };
        matches.then_some(Use {
            workflow: workflowid,
            session: sessionid,
            at: event.stored_at,
            model: data.response.model,
            model_name,
            provider: data.response.provider,
            template: data.prompt.id,
            template_hash: data.prompt.hash,
            cost_usd: data.cost_usd,
        })
    }

    /// What there was instead, where nothing matches; some of it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    fn fetched(&mut self, address: &str, body: &[u8]) {
        let UseOf::Source(wanted) = &self.of else { return };
        let Ok(envelope) = serde_json::from_slice::<Envelope<Fetched>>(body) else { return };
        for name in envelope.data.external.keys() {
            remember(&mut self.names, name);
        }
        let answered = envelope.data.external.get(wanted).is_some_and(|source| source.data.is_some());
        if self.open.insert(address.to_owned(), answered).is_none() {
            self.order.push_back(address.to_owned());
        }
        while self.open.len() > MAX_OPEN {
            let Some(oldest) = self.order.pop_front() else { break };
            self.open.remove(&oldest);
        }
        if self.order.len() > 2 * MAX_OPEN {
            self.order.retain(|address| self.open.contains_key(address));
        }
    }
}

fn remember(names: &mut BTreeSet<String>, name: &str) {
    if names.len() < MAX_NAMES && !names.contains(name) {
        names.insert(name.to_owned());
    }
}

/// The type of an event, and whose it is: session and workflow.
fn split(subject: &str) -> Option<(EventType, &str)> {
    let mut parts = subject.splitn(4, '.').skip(2);
    Some((parts.next()?.parse().ok()?, parts.next()?))
}

/// An event, as far as it matters here: bodies are large, and there are many.
#[derive(Deserialize)]
struct Envelope<T> {
    workflowid: String,
    sessionid: String,
    data: T,
}

#[derive(Deserialize)]
struct Answer {
    response: Response,
    prompt: Template,
    #[serde(default)]
    attempts: Vec<Attempt>,
    #[serde(default)]
    cost_usd: Option<Usd>,
}

#[derive(Deserialize)]
struct Response {
    model: String,
    provider: String,
}

#[derive(Deserialize)]
struct Template {
    id: String,
    hash: String,
}

#[derive(Deserialize)]
struct Attempt {
    model: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    purpose: Option<Purpose>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

impl Attempt {
    fn has_answered(&self) -> bool {
        self.error.is_none() && self.purpose.is_none_or(|purpose| purpose == Purpose::Answer)
    }
}

#[derive(Deserialize)]
struct Fetched {
    external: BTreeMap<String, Source>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    data: Option<IgnoredAny>,
}
