//! The adapters that the configuration asks for.

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::header::HeaderName;
use throughline_actors::{
    ports::{archive::Archive, clock::Clock, log::Keeper, model::Models, source::Sources, trace::Tracer},
    supervision::engine::Ports,
};
use throughline_schemas::{Namespace, NamespaceError, StageName};

use super::{PromptFileError, archive::archive};
use crate::{
    bus::nats::{ConnectError, NatsAuth, NatsBus, NatsSettings, Url, topology},
    config::{self, Cleartext, Config, Env, Origin, SecretError, SecretUrl, Source, SourceHeader},
    fetch::{Credential, HeaderText, HttpSource, HttpSources, HttpSourcesError},
    http_client::url_secrets,
    llm::{ModelProviders, SetupError, model_providers},
    storage::{Database, DatabaseError, Onlooker, OnlookerError},
    system::{SystemClock, SystemEntropy, host_name},
    tokenizer::Tokenizers,
};

/// How long closing a connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Why an adapter cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The namespace cannot stand in a subject.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A secret cannot be read.
    #[error("{key} cannot be read")]
    Secret {
        /// The configuration key that names the secret.
        key: String,
        /// Why not.
        #[source]
        source: SecretError,
    },
    /// A secret would go unencrypted over a network.
    #[error(transparent)]
    Cleartext(#[from] Cleartext),
    /// No NATS.
    #[error(transparent)]
    Nats(#[from] ConnectError),
    /// No database.
    #[error("the database {url} cannot be opened")]
    Store {
        /// Which one, without its password.
        url: String,
        /// Why not.
        #[source]
        source: DatabaseError,
    },
    /// The database cannot be looked at.
    #[error("the database {url} cannot be read")]
    Look {
        /// Which one, without its password.
        url: String,
        /// Why not.
        #[source]
        source: OnlookerError,
    },
    /// It is not configured where the database is, and there is no place for one.
    #[error(
        "database.url is not set, and there is no home directory for a database; set database.url, or XDG_DATA_HOME"
    )]
    NoDatabase,
    /// The folder or the file of the default database cannot be made.
    #[error("{} cannot be made for the database; make its folder, or set database.url", file.display())]
    DatabaseFile {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The data sources' client cannot be made.
    #[error(transparent)]
    Sources(#[from] HttpSourcesError),
    /// A header's name is not one.
    #[error("sources: {0:?} is not a header name")]
    HeaderName(String),
    /// The models cannot be asked.
    #[error(transparent)]
    Models(#[from] SetupError),
    /// The prompt, which stands in every archive, cannot be read.
    #[error(transparent)]
    Prompt(#[from] PromptFileError),
}

impl AdapterError {
    /// Whether a service could not be reached, rather than the configuration being wrong.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Nats(_)
            | Self::Store { source: DatabaseError::Store(_), .. }
            | Self::Look {
                source: OnlookerError::Store(_) | OnlookerError::Missing | OnlookerError::NotPrepared,
                ..
            } => true,
            Self::Namespace(_)
            | Self::Secret { .. }
            | Self::Cleartext(_)
            | Self::NoDatabase
            | Self::DatabaseFile { .. }
            | Self::Store { source: DatabaseError::Unknown, .. }
            | Self::Look { source: OnlookerError::Unknown, .. }
            | Self::Sources(_)
            | Self::HeaderName(_)
            | Self::Models(_)
            | Self::Prompt(_) => false,
        }
    }
}

/// Connects to NATS. `role` is part of the connection's name in the server's monitoring.
pub async fn connect_bus(config: &Config, env: &Env, role: &str) -> Result<NatsBus, AdapterError> {
    Ok(NatsBus::connect(nats_settings(config, env, role)?).await?)
}

fn nats_settings(config: &Config, env: &Env, role: &str) -> Result<NatsSettings, AdapterError> {
    config.nats_cleartext()?;
    let nats = &config.nats;
    let mut settings = NatsSettings::new(String::new(), Namespace::new(&nats.namespace)?);
    settings.url = Url(nats.url.expose().to_owned());
    settings.name = format!("throughline-{role}-{}-{}", host_name(), std::process::id());
    settings.auth = nats_auth(nats, env)?;
    // A configured authority means that no connection is wanted that none of them has vouched for.
    settings.require_tls = nats.tls_ca_file.is_some() || nats.tls_cert_file.is_some();
    settings.root_certificates.clone_from(&nats.tls_ca_file);
    settings.client_certificate = nats.tls_cert_file.clone().zip(nats.tls_key_file.clone());
    settings.inbox_prefix.clone_from(&nats.inbox_prefix);
    settings.request_timeout = nats.request_timeout;
    settings.ack_wait = config.worker.ack_wait;
    settings.max_deliver = config.worker.max_deliver;
    Ok(settings)
}

/// The configuration has at most one way to authenticate.
fn nats_auth(nats: &config::Nats, env: &Env) -> Result<NatsAuth, AdapterError> {
    if let Some(file) = &nats.credentials_file {
        return Ok(NatsAuth::CredentialsFile(file.clone()));
    }
    if let Some(token) = &nats.token {
        return Ok(NatsAuth::Token(secret("nats.token", token, env)?));
    }
    if let Some(seed) = &nats.nkey {
        return Ok(NatsAuth::NKey(secret("nats.nkey", seed, env)?));
    }
    let Some(user) = &nats.user else { return Ok(NatsAuth::None) };
    let password =
        nats.password.as_ref().map(|password| secret("nats.password", password, env)).transpose()?;
    Ok(NatsAuth::Password { user: user.clone(), password: password.unwrap_or_default() })
}

fn secret(key: &str, secret: &config::Secret, env: &Env) -> Result<String, AdapterError> {
    let value = secret.resolve(env).map_err(|source| AdapterError::Secret { key: key.to_owned(), source })?;
    Ok(value.expose().to_owned())
}

/// The limits that streams are made with.
pub fn stream_limits(config: &Config) -> topology::Limits {
    topology::Limits {
        max_age: config.retention.events,
        dead_letters: config.retention.dead_letters,
        // `dev` sets a size of its own, which was not configured either.
        fits: config
            .origin_of("nats.max_bytes_mib")
            .is_none_or(|origin| *origin == Origin::Default || *origin == Origin::Flag("dev".into())),
        max_bytes: config.nats.max_bytes,
        replicas: u8::try_from(config.nats.replicas).unwrap_or(u8::MAX),
    }
}

/// Opens the database and brings its tables up to date.
pub async fn open_store(config: &Config, env: &Env) -> Result<Database, AdapterError> {
    let url = database_url(config, env)?;
    if let Some(file) = &config.database.default_file {
        make_private(file).map_err(|source| AdapterError::DatabaseFile { file: file.clone(), source })?;
    }
    Database::open(url.expose(), config.database.max_connections, &config.nats.namespace)
        .await
        .map_err(|source| AdapterError::Store { url: config.database.url.to_string(), source })
}

/// As [`open_store`], for statements that go through many rows and may take minutes.
pub async fn open_store_patiently(config: &Config, env: &Env) -> Result<Database, AdapterError> {
    let url = database_url(config, env)?;
    Database::open_patiently(url.expose(), &config.nats.namespace)
        .await
        .map_err(|source| AdapterError::Store { url: config.database.url.to_string(), source })
}

/// Opens the database for looking at turns, which changes nothing in it and makes none.
pub async fn open_onlooker(config: &Config, env: &Env) -> Result<Onlooker, AdapterError> {
    let url = database_url(config, env)?;
    Onlooker::open(url.expose(), &config.nats.namespace)
        .await
        .map_err(|source| AdapterError::Look { url: config.database.url.to_string(), source })
}

/// The URL of the database with the password in it.
pub fn database_url(config: &Config, env: &Env) -> Result<SecretUrl, AdapterError> {
    if config.database.url.expose().is_empty() {
        return Err(AdapterError::NoDatabase);
    }
    config.database_cleartext(env)?;
    config
        .database
        .url_with_password(env)
        .map_err(|source| AdapterError::Secret { key: "database.password".to_owned(), source })
}

/// Makes a file, and its folder, that only this user may read, unless they are there.
fn make_private(file: &Path) -> io::Result<()> {
    let mut folder = DirBuilder::new();
    folder.recursive(true);
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        folder.mode(0o700);
        options.mode(0o600);
    }
    if let Some(parent) = file.parent() {
        folder.create(parent)?;
    }
    options.open(file).map(drop)
}

/// Everything a worker uses, opened.
pub struct Adapters {
    /// NATS.
    pub bus: Arc<NatsBus>,
    /// The database.
    pub store: Arc<Database>,
    pub(super) sources: Arc<dyn Sources>,
    pub(super) models: Arc<dyn Models>,
    archive: Option<Arc<dyn Archive>>,
    clock: Arc<dyn Clock>,
}

impl Adapters {
    /// Connects to NATS and the database, and prepares the clients that `stages` need for sources and models, which
    /// connect when used.
    pub async fn open(
        config: &Config,
        env: &Env,
        role: &str,
        stages: &[StageName],
    ) -> Result<Self, AdapterError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        // A stage that does not run here needs no secrets here.
        let runs = |stage| stages.contains(&stage);
        let sources = if runs(StageName::External) { config.sources.as_slice() } else { &[] };
        let sources = http_sources(sources, env, Arc::clone(&clock))?;
        let models = if runs(StageName::Generation) {
            model_providers(config, env, &clock)?
        } else {
            ModelProviders::new(Vec::new(), &clock).map_err(SetupError::from)?
        };
        let bus = Arc::new(connect_bus(config, env, role).await?);
        let archive = archive(config, &bus, &clock)?;
        let store = open_store(config, env).await?;
        Ok(Self {
            bus,
            store: Arc::new(store),
            sources: Arc::new(sources),
            models: Arc::new(models),
            archive,
            clock,
        })
    }

    /// The same, as the engine wants it.
    pub fn ports(&self, tracer: Arc<dyn Tracer>) -> Ports {
        Ports {
            bus: self.bus.clone(),
            store: self.store.clone(),
            sources: self.sources.clone(),
            models: self.models.clone(),
            tokenizer: Arc::new(Tokenizers),
            clock: Arc::clone(&self.clock),
            entropy: Arc::new(SystemEntropy),
            tracer,
            keeper: Some(Keeper { log: self.bus.clone(), archive: self.archive.clone() }),
        }
    }

    /// Flushes and closes, within a limit.
    pub async fn close(&self) {
        self.bus.close(CLOSE_LIMIT).await;
        if tokio::time::timeout(CLOSE_LIMIT, self.store.close()).await.is_err() {
            tracing::warn!(limit = ?CLOSE_LIMIT, "the database did not close in time");
        }
    }
}

/// The configured sources' client.
pub fn http_sources(
    sources: &[Source],
    env: &Env,
    clock: Arc<dyn Clock>,
) -> Result<HttpSources, AdapterError> {
    let mut specs = Vec::with_capacity(sources.len());
    for source in sources {
        source.cleartext()?;
        let mut headers = Vec::with_capacity(source.headers.len());
        for (name, value) in source.fixed_headers() {
            let key = format!("sources.{}.headers.{name}", source.name);
            let value = match value {
                SourceHeader::Plain(text) => HeaderText::Plain(text.clone()),
                SourceHeader::Secret { prefix, secret: hidden } => HeaderText::Secret {
                    prefix: prefix.clone(),
                    secret: Credential::new(secret(&key, hidden, env)?),
                },
            };
            let name = HeaderName::try_from(name).map_err(|_| AdapterError::HeaderName(name.clone()))?;
            headers.push((name, value));
        }
        let key = format!("sources.{}.url", source.name);
        let url_secrets = source.url.resolve(env).map_err(|source| AdapterError::Secret { key, source })?;
        let url_secrets =
            url_secrets.into_iter().map(|(name, value)| (name, Credential::new(value.expose())));
        specs.push(HttpSource {
            name: source.name.clone(),
            headers,
            url_secrets: url_secrets.collect(),
            in_url: url_secrets::secrets(source.url.template.expose()),
            proxies: config::proxies(source.proxy.as_ref(), env),
        });
    }
    Ok(HttpSources::new(specs, clock)?)
}
