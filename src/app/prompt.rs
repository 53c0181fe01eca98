//! Prompt templates come from a folder, or from the ones built in.

use std::path::{Path, PathBuf};

use throughline_actors::prompt::{PromptError, PromptTemplate};

use crate::config;

const BUILT_IN: &str = "assistant";
const BUILT_IN_SYSTEM: &str = include_str!("../../deploy/prompts/assistant/system.j2");
/// The data template that is built in.
pub const BUILT_IN_DATA: &str = include_str!("../../deploy/prompts/assistant/data.j2");

/// Why a prompt template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptFileError {
    /// A file is missing or unreadable.
    #[error("cannot read the prompt template {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Only one template is built in.
    #[error("there is no built-in prompt {0:?}; set prompt.dir to the folder that has it")]
    NotBuiltIn(String),
    /// It does not compile.
    #[error(transparent)]
    Template(#[from] PromptError),
}

/// The texts of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptSources {
    /// `system.j2`.
    pub system: String,
    /// `data.j2`.
    pub data: String,
}

/// Loads the configured template.
pub fn load(prompt: &config::Prompt) -> Result<PromptTemplate, PromptFileError> {
    let PromptSources { system, data } = sources(prompt)?;
    Ok(PromptTemplate::new(&prompt.id, &system, &data)?)
}

/// Reads the texts of the configured template.
pub fn sources(prompt: &config::Prompt) -> Result<PromptSources, PromptFileError> {
    let Some(dir) = &prompt.dir else {
        if prompt.id != BUILT_IN {
            return Err(PromptFileError::NotBuiltIn(prompt.id.clone()));
        }
        return Ok(PromptSources { system: BUILT_IN_SYSTEM.to_owned(), data: BUILT_IN_DATA.to_owned() });
    };
    let folder = dir.join(&prompt.id);
    Ok(PromptSources { system: read(&folder.join("system.j2"))?, data: read(&folder.join("data.j2"))? })
}

fn read(path: &Path) -> Result<String, PromptFileError> {
    std::fs::read_to_string(path).map_err(|source| PromptFileError::Read { path: path.to_owned(), source })
}
