//! From a configuration to a running process: adapters are made, handed to the engine, and closed again.

mod adapters;
mod models;
mod prompt;
mod settings;
mod worker;

pub use adapters::{AdapterError, Adapters, connect_bus, open_store, stream_limits};
pub use prompt::{PromptFileError, load as load_prompt};
pub use models::{KnownModel, PriceSource, RouteError, client_settings, known_models};
pub use settings::engine_settings;
pub(crate) use settings::stage_settings;
pub use worker::{Worker, WorkerError};
