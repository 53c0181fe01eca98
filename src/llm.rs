//! Models behind providers, over HTTP.

mod providers;

pub use providers::{
    CallLimits, Credential, KeyError, KeySource, MaxTokensField, ModelOptions, ModelProviders,
    ModelProvidersError, ProviderKind, ProviderSpec,
};
