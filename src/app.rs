//! From a configuration to a running process: adapters are made, handed to the engine, and closed again.

mod adapters;
mod archive;
mod clock;
mod prompt;
mod settings;
mod worker;

pub use adapters::{
    AdapterError, Adapters, connect_bus, database_url, http_sources, open_onlooker, open_store,
    open_store_patiently, stream_limits,
};
pub use archive::recording_header;
pub use prompt::{
    BUILT_IN_DATA, FORGEABLE, PromptFileError, PromptSources, Tried, in_words as mistake_in_words,
    load as load_prompt, load_tried as load_tried_prompt, sources as prompt_sources, tried as tried_prompt,
};
pub use settings::engine_settings;
pub use worker::{Replace, Replacements, Report, Worker, WorkerError};
