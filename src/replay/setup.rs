//! With what past workflows are made once more: a configuration, with something changed in it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use throughline_actors::{
    policy::routing::Routing,
    ports::tokenizer::Tokenizer,
    prompt::{PromptError, PromptTemplate},
    settings::EngineSettings,
};
use throughline_schemas::StageName;

use crate::{
    app::{PromptFileError, engine_settings, load_prompt},
    config::Config,
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

/// Past workflows cannot be made once more with this.
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

    /// Asks this model and no other.
    pub fn only_model(&mut self, name: &str) -> Result<(), SetupError> {
        let client = &mut self.settings.generation.client;
        if !client.models.iter().any(|model| model.name == name) {
            let known = client.models.iter().map(|model| model.name.clone()).collect();
            return Err(SetupError::UnknownModel { name: name.to_owned(), known });
        }
        client.routing = Routing::chain(vec![name.to_owned()]);
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
        self.template = Arc::new(template);
        Ok(())
    }
}
