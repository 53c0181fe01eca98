//! From a configuration to a running process: adapters are made, handed to the engine, and closed again.

mod prompt;
mod settings;

pub use prompt::{PromptFileError, load as load_prompt};
pub use settings::{RouteError, engine_settings};
