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
//! complete a provider of kind `openai` that sets no `api_key`, `api_keys` or `base_url` of its own. So do
//! `ANTHROPIC_API_KEY` and `ANTHROPIC_BASE_URL`, and `GOOGLE_API_KEY`, before which `GEMINI_API_KEY` yields. A key is
//! only ever given to its vendor or to the host that the vendor's `_BASE_URL` variable names.
//!
//! Loading opens the configuration file and nothing else; secrets are read when they are used ([`Secret`]). All
//! mistakes are reported at once ([`ConfigErrors`]).

mod check;
mod cleartext;
mod connections;
mod data_home;
mod error;
mod field;
mod generation;
mod layers;
mod models;
mod providers;
mod proxy;
mod reader;
mod report;
mod retention;
mod routing;
mod runtime;
mod secret;
mod show;
mod source_url;
mod sources;
mod stages;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;
mod url;
mod users;
mod wellknown;

use std::collections::BTreeMap;

pub use cleartext::Cleartext;
pub use connections::{Database, Http, NamedUrlError, Nats};
pub use error::{ConfigErrors, Origin, Problem};
pub use generation::{AnswerForm, DEFAULT_MODEL, Generation, OlderTurns};
pub use layers::{DEFAULT_FILE, ENV_PREFIX, Layers, Override, process_env};
pub use models::{MaxTokensField, Model};
pub use providers::{ANTHROPIC_BASE_URL, GEMINI_BASE_URL, OPENAI_BASE_URL, Provider, ProviderKind, Rates};
pub use proxy::ProxyChoice;
pub(crate) use proxy::proxies;
pub use retention::{ArchivePlace, Retention};
pub use routing::Routing;
pub use runtime::{Context, Limits, Log, LogFormat, Prompt, Sandbox, Sessions, Worker};
pub use secret::{Secret, SecretError, SecretValue};
pub use source_url::UrlTemplate;
pub use sources::{JsonTemplate, Source, SourceHeader};
pub use stages::{Breaker, Retry, Stage, Stages};
pub(crate) use suggest::did_you_mean;
pub use url::{SecretUrl, sqlite_url};
pub use users::Users;

use check::Named;
use reader::Section;
use report::{Entry, Report};
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
    /// How long things are kept.
    pub retention: Retention,
    /// What is accepted from outside.
    pub limits: Limits,
    /// What a prompt is told of the past.
    pub context: Context,
    /// How turns of a session follow each other.
    pub sessions: Sessions,
    /// What one user may take.
    pub users: Users,
    /// External data, in the order of the file.
    pub sources: Vec<Source>,
    /// Providers of models.
    pub providers: Vec<Provider>,
    /// The models, with those that `generation` names at the only provider without configuring them.
    pub models: Vec<Model>,
    /// Which model answers.
    pub generation: Generation,
    /// Which model answers instead, by how demanding the request is.
    pub routing: Routing,
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

    /// Secrets that have no value now, and keys that a vendor will ask for. Reads the secrets' files.
    pub fn missing_secrets(&self, env: &Env) -> Vec<Problem> {
        let servers = [
            ("nats.token", &self.nats.token),
            ("nats.password", &self.nats.password),
            ("nats.nkey", &self.nats.nkey),
            ("database.password", &self.database.password),
        ];
        let mut secrets: Vec<(String, &Secret)> = servers
            .into_iter()
            .filter_map(|(key, secret)| Some((key.to_owned(), secret.as_ref()?)))
            .collect();
        for (index, provider) in self.providers.iter().enumerate() {
            let written = self.is_set(&format!("providers[{index}].api_key"));
            let key = if written { "api_key" } else { "api_keys" };
            secrets
                .extend(provider.api_keys.iter().map(|secret| (format!("providers[{index}].{key}"), secret)));
        }
        for (index, provider) in self.providers.iter().enumerate() {
            let values = [("headers", &provider.headers), ("query", &provider.query)];
            secrets.extend(values.into_iter().flat_map(|(key, values)| {
                values.iter().filter_map(move |(name, value)| match value {
                    SourceHeader::Plain(_) => None,
                    SourceHeader::Secret { secret, .. } => {
                        Some((format!("providers[{index}].{key}.{name}"), secret))
                    }
                })
            }));
        }
        for (index, source) in self.sources.iter().enumerate() {
            let in_url =
                source.url.secrets.iter().map(|(_, secret)| (format!("sources[{index}].url"), secret));
            secrets.extend(in_url);
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
        missing.extend(self.providers.iter().enumerate().filter_map(|(index, provider)| {
            let message = provider.missing_key()?;
            let place =
                self.origin_of(&format!("providers[{index}].name")).cloned().unwrap_or(Origin::Default);
            Some(Problem { place, key: format!("providers[{index}].api_key"), message })
        }));
        missing.sort();
        missing
    }

    /// Types the merged tree. With problems, the configuration has defaults in the places of the mistakes.
    fn read(tree: Table) -> (Self, Vec<Problem>) {
        let mut report = Report::default();
        let (mut config, lists) = Section::root(&mut report, tree, |root| {
            // In the order in which `config show` prints them.
            let nats = root.section("nats", Nats::read);
            let database = root.section("database", Database::read);
            let http = root.section("http", Http::read);
            let retention = root.section("retention", |s| Retention::read(s, nats.max_age));
            let limits = root.section("limits", Limits::read);
            let context = root.section("context", Context::read);
            let sessions = root.section("sessions", Sessions::read);
            let users = root.section("users", Users::read);
            let stages = root.section("stages", Stages::read);
            let external = stages.external;
            let sources = Named::read(root, "sources", |s| Source::read(s, external), |source| &source.name);
            let providers = Named::read(root, "providers", Provider::read, |provider| &provider.name);
            let models = Named::read(root, "models", Model::read, |model| &model.name);
            let config = Self {
                nats,
                database,
                http,
                retention,
                limits,
                context,
                sessions,
                users,
                sources: sources.items,
                generation: root.section("generation", |s| {
                    let configured = models.items.first().map(|model| model.name.as_str());
                    let vendors = providers.items.first().map(|provider| provider.kind.default_model());
                    Generation::read(s, configured.or(vendors))
                }),
                routing: root.section("routing", Routing::read),
                providers: providers.items,
                models: models.items,
                prompt: root.section("prompt", Prompt::read),
                stages,
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
}
