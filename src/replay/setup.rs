//! What recorded workflows are replayed with: a configuration, with something changed in it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use throughline_actors::{
    model::prompt::{PromptError, PromptTemplate},
    policy::routing::Routing,
    ports::tokenizer::Tokenizer,
    supervision::settings::EngineSettings,
};
use throughline_schemas::{StageName, recording::Header};

use crate::{
    app::{PromptFileError, engine_settings, load_prompt, tried_prompt},
    config::{Config, ConfigErrors, Layers, Override},
    llm::RouteError,
    tokenizer::Tokenizers,
};

/// Settings, prompt and tokenizer.
#[derive(Clone)]
pub struct Setup {
    /// Settings of all stages.
    pub settings: EngineSettings,
    /// The prompt.
    pub template: Arc<PromptTemplate>,
    /// Counts tokens.
    pub tokenizer: Arc<dyn Tokenizer>,
}

/// Recorded workflows cannot be replayed with this.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The model is not configured.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The configured prompt is not usable.
    #[error(transparent)]
    Prompt(#[from] PromptFileError),
    /// The prompt to try cannot be read.
    #[error("cannot read the prompt {}", path.display())]
    Read {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The prompt to try does not compile.
    #[error(transparent)]
    Template(#[from] PromptError),
    /// A recording's configuration is none that this version understands.
    #[error("the configuration in the recording cannot be used")]
    Recorded(#[source] toml::ser::Error),
    /// It has mistakes, or what was changed in it has.
    #[error("the configuration in the recording, with what --set changes, cannot be used")]
    RecordedConfig(#[source] ConfigErrors),
    /// The model to try is not configured.
    #[error("no model is named {name:?}; configured are: {}", known.join(", "))]
    UnknownModel {
        /// The name.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
}

impl Setup {
    /// As configured.
    pub fn new(config: &Config) -> Result<Self, SetupError> {
        Ok(Self {
            settings: engine_settings(config, &StageName::ALL)?,
            template: Arc::new(load_prompt(&config.prompt)?),
            tokenizer: Arc::new(Tokenizers),
        })
    }

    /// As it was recorded, with changes; nothing of here and now.
    pub fn recorded(header: &Header, changes: Vec<Override>) -> Result<Self, SetupError> {
        let mut recorded = header.configuration.clone();
        without_nulls(&mut recorded);
        let text = toml::to_string(&recorded).map_err(SetupError::Recorded)?;
        let load = |overrides| {
            let layers = Layers { overrides, ..Layers::default() };
            layers.load_text("the recording", &text).map_err(SetupError::RecordedConfig)
        };
        let config = load(Vec::new())?;
        let id = config.id();
        let config = if changes.is_empty() { config } else { load(changes)? };
        let prompt = &header.prompt;
        let template = PromptTemplate::new(&prompt.id, &prompt.system, &prompt.data)?;
        let mut settings = engine_settings(&config, &StageName::ALL)?;
        // What is recorded is the id of the configuration with the addresses, which are not in the file.
        if config.id() == id {
            settings.generation.config_id.clone_from(&header.configuration_id);
        }
        Ok(Self { settings, template: Arc::new(template), tokenizer: Arc::new(Tokenizers) })
    }

    /// Asks this model and no other: by its name in the configuration, or by the provider's if only one has it.
    pub fn only_model(&mut self, name: &str) -> Result<(), SetupError> {
        let client = &mut self.settings.generation.client;
        let mut of_provider = client.models.iter().filter(|model| model.model == name);
        let name = match client.models.iter().find(|model| model.name == name) {
            Some(named) => named.name.clone(),
            None => of_provider
                .next()
                .filter(|_| of_provider.next().is_none())
                .map_or_else(|| name.to_owned(), |only| only.name.clone()),
        };
        if !client.models.iter().any(|model| model.name == name) {
            let known = client.models.iter().map(|model| model.name.clone()).collect();
            return Err(SetupError::UnknownModel { name, known });
        }
        client.routing = Routing::chain(vec![name]);
        Ok(())
    }

    /// Uses another prompt: a folder with `system.j2` and `data.j2`, or a file that takes the place of `system.j2`.
    /// `data` is what takes that of `data.j2` then.
    pub fn prompt(&mut self, path: &Path, data: &str) -> Result<(), SetupError> {
        let read = |path: PathBuf| {
            std::fs::read_to_string(&path).map_err(|source| SetupError::Read { path, source })
        };
        let name = path.file_stem().map_or_else(|| "prompt".into(), |stem| stem.to_string_lossy());
        let template = if path.is_dir() {
            PromptTemplate::new(&name, &read(path.join("system.j2"))?, &read(path.join("data.j2"))?)?
        } else {
            PromptTemplate::new(&name, &read(path.to_owned())?, data)?
        };
        // Nobody pays for answers to a prompt that cannot be made.
        let sources = self.settings.sources.iter().map(|source| source.name.as_str());
        self.template = Arc::new(tried_prompt(template, path.display().to_string(), sources)?.template);
        Ok(())
    }
}

/// TOML has no nulls: what is not set is left out.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
