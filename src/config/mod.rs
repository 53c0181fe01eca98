//! The configuration: `throughline.toml`, the environment and flags, put together, checked and typed.
//!
//! Layers, the later ones stronger, key by key:
//!
//! 1. defaults;
//! 2. the file: `--config F`, else `throughline.toml` in the working directory if there is one;
//! 3. `NATS_URL` and `DATABASE_URL`, which elsewhere, too, override files;
//! 4. `THROUGHLINE_SECTION__KEY`: two underscores separate levels, so `THROUGHLINE_STAGES__GENERATION__CONCURRENCY`;
//!    an element of an array of tables is addressed by its name, in capitals with `_` for everything but letters
//!    and digits: `THROUGHLINE_SOURCES__ORDER_HISTORY__TIMEOUT_MS`. The value is a TOML value or the bare text.
//!    A variable that is set but empty counts as not set;
//! 5. flags.
//!
//! `OPENAI_API_KEY` and `OPENAI_BASE_URL` create the provider `openai` where no provider is configured, and
//! complete a provider of kind `openai` that sets no `api_key` or `base_url` of its own. The key is only ever given
//! to OpenAI itself or to the host that `OPENAI_BASE_URL` names.
//!
//! Loading opens the configuration file and nothing else; secrets are read when they are used ([`Secret`]). All
//! mistakes are reported at once ([`ConfigErrors`]).

mod connections;
mod error;
mod field;
mod generation;
mod layers;
mod providers;
mod reader;
mod runtime;
mod secret;
mod show;
mod sources;
mod stages;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;
mod url;
mod wellknown;

use std::collections::BTreeMap;

pub use connections::{Database, Http, Nats};
pub use error::{ConfigErrors, Origin, Problem};
pub use generation::{DEFAULT_MODEL, Generation};
pub use layers::{DEFAULT_FILE, ENV_PREFIX, Layers, Override, process_env};
pub use providers::{Model, OPENAI_BASE_URL, Provider, ProviderKind};
pub use runtime::{Context, Limits, Log, LogFormat, Prompt, Sandbox, Worker};
pub use secret::{Secret, SecretError, SecretValue};
pub use sources::{BUILT_IN_PLACEHOLDERS, Source, SourceHeader, UrlTemplate};
pub use stages::{Breaker, Retry, Stage, Stages};
pub use url::SecretUrl;

use reader::{Entry, Report, Section};
use tree::Table;

/// Environment variables, as [`process_env`] collects them.
pub type Env = BTreeMap<String, String>;

/// The whole configuration. Printing it in any way prints no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server and its streams.
    pub nats: Nats,
    /// Where interactions are stored.
    pub database: Database,
    /// Health and metrics.
    pub http: Http,
    /// What is accepted from outside.
    pub limits: Limits,
    /// What a prompt is told of the past.
    pub context: Context,
    /// External data, in the order of the file.
    pub sources: Vec<Source>,
    /// Providers of models.
    pub providers: Vec<Provider>,
    /// The models, with those that `generation` names at the only provider without configuring them.
    pub models: Vec<Model>,
    /// Which model answers.
    pub generation: Generation,
    /// The templates.
    pub prompt: Prompt,
    /// Concurrency, retries and breakers.
    pub stages: Stages,
    /// Restarts, stopping and redelivery.
    pub worker: Worker,
    /// What is logged.
    pub log: Log,
    /// Local stand-ins.
    pub sandbox: Sandbox,
    entries: Vec<Entry>,
}

impl Default for Config {
    fn default() -> Self {
        Self::read(Table::new()).0
    }
}

impl Config {
    /// The configured or implied model of this name.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }

    /// The provider of this name.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// Who set a key, written as in messages: `nats.url`, `sources[0].timeout_ms`. None if there is no such key.
    pub fn origin_of(&self, key: &str) -> Option<&Origin> {
        self.entries.iter().find(|entry| entry.full_key() == key).map(|entry| &entry.origin)
    }

    /// Whether a key was set by anyone.
    pub fn is_set(&self, key: &str) -> bool {
        self.origin_of(key).is_some_and(|origin| *origin != Origin::Default)
    }

    /// Secrets that have no value now. Reads their files.
    pub fn missing_secrets(&self, env: &Env) -> Vec<Problem> {
        let nats = [("nats.token", &self.nats.token), ("nats.password", &self.nats.password)];
        let mut secrets: Vec<(String, &Secret)> =
            nats.into_iter().filter_map(|(key, secret)| Some((key.to_owned(), secret.as_ref()?))).collect();
        for (index, provider) in self.providers.iter().enumerate() {
            secrets.extend(provider.api_key.iter().map(|key| (format!("providers[{index}].api_key"), key)));
        }
        for (index, source) in self.sources.iter().enumerate() {
            secrets.extend(source.headers.iter().filter_map(|(name, header)| match header {
                SourceHeader::Plain(_) => None,
                SourceHeader::Secret { secret, .. } => {
                    Some((format!("sources[{index}].headers.{name}"), secret))
                }
            }));
        }
        let mut missing: Vec<Problem> = secrets
            .into_iter()
            .filter_map(|(key, secret)| {
                let message = secret.resolve(env).err()?.to_string();
                let place = self.origin_of(&key).cloned().unwrap_or(Origin::Default);
                Some(Problem { place, key, message })
            })
            .collect();
        missing.sort();
        missing
    }

    /// Types the merged tree. With problems, the configuration has defaults in the places of the mistakes.
    fn read(tree: Table) -> (Self, Vec<Problem>) {
        let mut report = Report::default();
        let (mut config, lists) = Section::root(&mut report, tree, |root| {
            let sources = Named::read(root, "sources", Source::read, |source| &source.name);
            let providers = Named::read(root, "providers", Provider::read, |provider| &provider.name);
            let models = Named::read(root, "models", Model::read, |model| &model.name);
            let config = Self {
                nats: root.section("nats", Nats::read),
                database: root.section("database", Database::read),
                http: root.section("http", Http::read),
                limits: root.section("limits", Limits::read),
                context: root.section("context", Context::read),
                sources: sources.items,
                providers: providers.items,
                generation: root.section("generation", |s| {
                    Generation::read(s, models.items.first().map(|model| model.name.as_str()))
                }),
                models: models.items,
                prompt: root.section("prompt", Prompt::read),
                stages: root.section("stages", Stages::read),
                worker: root.section("worker", Worker::read),
                log: root.section("log", Log::read),
                sandbox: root.section("sandbox", Sandbox::read),
                entries: Vec::new(),
            };
            (config, [sources.names, providers.names, models.names])
        });
        for names in &lists {
            names.check_unique(&mut report);
        }
        config.check_models(&mut report);
        let (problems, entries) = report.finish();
        config.entries = entries;
        (config, problems)
    }

    /// Every model has a provider, and every model that `generation` names exists.
    fn check_models(&mut self, report: &mut Report) {
        let providers: Vec<&str> = self.providers.iter().map(|provider| provider.name.as_str()).collect();
        for (index, model) in self.models.iter().enumerate() {
            let known = providers.contains(&model.provider.as_str());
            // A provider whose own name was refused may be the one that is meant.
            if !known && !model.provider.is_empty() && !providers.contains(&"") {
                let message = unknown_name(&model.provider, "providers", &providers);
                report.problem(&format!("models[{index}].provider"), &Origin::Default, message);
            }
        }
        let names: Vec<&str> = self.models.iter().map(|model| model.name.as_str()).collect();
        let unknown: Vec<(usize, String)> = self
            .generation
            .models()
            .enumerate()
            .filter(|(_, name)| !names.contains(name))
            .map(|(index, name)| (index, name.to_owned()))
            .collect();
        let mut implied: Vec<Model> = Vec::new();
        for (index, name) in unknown {
            let key = if index == 0 { "generation.model" } else { "generation.fallback" };
            match (names.as_slice(), providers.as_slice()) {
                ([], []) => {} // nothing to generate with: a matter for those who generate
                ([], [provider]) if implied.iter().all(|model| model.name != name) => {
                    implied.push(Model::implicit(&name, provider));
                }
                ([], [_]) => {}
                ([], [..]) => {
                    let message = format!(
                        "which provider has {name:?}? Add it to [[models]] with one of: {}",
                        providers.join(", ")
                    );
                    report.problem(key, &Origin::Default, message);
                }
                _ if names.contains(&"") => {} // the one whose name was refused may be meant
                _ => report.problem(key, &Origin::Default, unknown_name(&name, "models", &names)),
            }
        }
        self.models.extend(implied);
    }
}

fn unknown_name(name: &str, list: &str, known: &[&str]) -> String {
    let hint = suggest::did_you_mean(name, known.iter().copied());
    let known = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
    format!("{name:?} is none of [[{list}]] (configured: {known}){hint}")
}

/// The elements of an array of tables, whose names must differ.
struct Named<T> {
    items: Vec<T>,
    names: Names,
}

struct Names {
    list: &'static str,
    names: Vec<(Origin, String)>,
}

impl<T> Named<T> {
    fn read(
        root: &mut Section<'_>,
        list: &'static str,
        read: impl FnMut(&mut Section<'_>) -> T,
        name: impl Fn(&T) -> &String,
    ) -> Self {
        let (names, items): (Vec<_>, Vec<T>) = root
            .list(list, read)
            .into_iter()
            .map(|(origin, item)| ((origin, name(&item).clone()), item))
            .unzip();
        Self { items, names: Names { list, names } }
    }
}

impl Names {
    fn check_unique(&self, report: &mut Report) {
        for (index, (origin, name)) in self.names.iter().enumerate() {
            let first = self.names[..index].iter().position(|(_, other)| other == name && !name.is_empty());
            if let Some(first) = first {
                let message = format!("{name:?} is the name of {}[{first}] already", self.list);
                report.problem(&format!("{}[{index}].name", self.list), origin, message);
            }
        }
    }
}
