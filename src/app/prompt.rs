//! Prompt templates come from a folder, or from the ones built in.

use std::path::{Path, PathBuf};

use throughline_actors::model::prompt::{Mistake, PromptError, PromptTemplate};

use crate::config::{self, Config, did_you_mean};

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
    #[error("the prompt template in {place} cannot be used; correct it, or [prompt]")]
    Template {
        /// Its folder.
        place: String,
        /// Why.
        #[source]
        source: PromptError,
    },
    /// It compiles, and makes no prompt.
    #[error(
        "the prompt template in {place} makes no prompt of a made-up message; correct it, or [prompt]:{}",
        listed(mistakes)
    )]
    Mistakes {
        /// Its folder.
        place: String,
        /// What is wrong.
        mistakes: Vec<Mistake>,
    },
}

fn listed(mistakes: &[Mistake]) -> String {
    let separator = if mistakes.len() == 1 { " " } else { "\n  " };
    let words: Vec<String> = mistakes.iter().map(in_words).collect();
    format!("{separator}{}", words.join(separator))
}

/// A mistake, and what may have been meant.
pub fn in_words(mistake: &Mistake) -> String {
    let hint = mistake.unknown.as_ref().map_or_else(String::new, |name| did_you_mean(name, mistake.known()));
    format!("{mistake}{hint}")
}

/// A template that was tried, and what could not be tried to its end.
pub struct Tried {
    /// To be used.
    pub template: PromptTemplate,
    /// Where a made-up message may be at fault.
    pub doubts: Vec<Mistake>,
}

/// The texts of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptSources {
    /// `system.j2`.
    pub system: String,
    /// `data.j2`.
    pub data: String,
}

/// What is to be said of a template whose blocks of data users could write.
pub const FORGEABLE: &str = "its blocks of data have a name that users may write, too, so that one could pass off words of their own \
                             as data; name the blocks {{ tag }} in data.j2, and say so in system.j2, as the shipped prompt does";

/// Loads the configured template.
pub fn load(prompt: &config::Prompt) -> Result<PromptTemplate, PromptFileError> {
    let PromptSources { system, data } = sources(prompt)?;
    PromptTemplate::new(&prompt.id, &system, &data)
        .map_err(|source| PromptFileError::Template { place: place(prompt), source })
}

/// Loads the configured template and renders made-up messages with it.
pub fn load_tried(config: &Config) -> Result<Tried, PromptFileError> {
    let sources = config.sources.iter().map(|source| source.name.as_str());
    tried(load(&config.prompt)?, place(&config.prompt), sources)
}

/// Renders made-up messages with a template, and the data of sources of these names.
pub fn tried<'n>(
    template: PromptTemplate,
    place: String,
    sources: impl IntoIterator<Item = &'n str>,
) -> Result<Tried, PromptFileError> {
    let found = template.mistakes(sources);
    let (mistakes, doubts): (Vec<_>, Vec<_>) = found.into_iter().partition(|mistake| mistake.is_certain);
    if mistakes.is_empty() {
        Ok(Tried { template, doubts })
    } else {
        Err(PromptFileError::Mistakes { place, mistakes })
    }
}

fn place(prompt: &config::Prompt) -> String {
    match &prompt.dir {
        Some(dir) => dir.join(&prompt.id).display().to_string(),
        None => "this program".to_owned(),
    }
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
