//! Models behind providers, over HTTP: as a library ([`Client`]), and what it is made of.

mod client;
mod configured;
mod providers;

pub use client::{Answer, Client, Event, FromEnvError, GenerateError, Request};
pub use configured::{
    KnownModel, PriceSource, RouteError, SetupError, client_settings, known_models, model_providers,
};
pub use providers::{
    CallLimits, Credential, KeyError, KeySource, KeyVerdict, MaxTokensField, ModelOptions, ModelProviders,
    ModelProvidersError, ProviderKind, ProviderSettings, ProviderSpec, Proxies, ProxyError, SettingError,
    SettingValue,
};
pub use throughline_actors::{
    model::client::{ClientSettings, GenerationError, GenerationFailed, ModelTarget, ProviderStatus},
    ports::model::ToolCall,
};
