//! A small shop: three sources, one model, production's retry settings.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use regex::Regex;
use throughline_actors::{
    dependency::{DependencyPolicy, Patience},
    model::{
        client::{ClientSettings, ModelTarget, Sampling},
        cost::Price,
        prompt::PromptTemplate,
    },
    policy::{breaker::BreakerPolicy, limits::DeliveryLimits, retry::RetryPolicy},
    ports::source::Method,
    retention::RetentionSettings,
    stages::external::source_selection::SourceSpec,
    supervision::{
        settings::{EngineSettings, GenerationSettings, SessionSettings, StageSettings},
        supervisor::RestartPolicy,
    },
    workflow::users::UserSettings,
};
use throughline_schemas::{IngressLimits, StageName};

pub const ACK_WAIT: Duration = Duration::from_secs(30);
pub const PROVIDER: &str = "openai";

static PRODUCT_ID: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?i)\b(PROD-\d+)\b").unwrap());

pub fn settings() -> EngineSettings {
    EngineSettings {
        stages: StageName::ALL.into_iter().map(|stage| (stage, StageSettings::default())).collect(),
        ingress: IngressLimits { max_input_bytes: 4_000, max_metadata_bytes: 1_000 },
        sessions: SessionSettings::default(),
        users: UserSettings::default(),
        recent_turns: 5,
        sources: vec![
            source("user_profile", "http://crm/profile/{user_id}", &[]),
            source("order_history", "http://orders/{user_id}", &["order", "purchase"]),
            SourceSpec {
                extract: BTreeMap::from([("product_id".to_owned(), PRODUCT_ID.clone())]),
                defaults: BTreeMap::from([("product_id".to_owned(), "PROD-001".to_owned())]),
                ..source("product_info", "http://inventory/{product_id}", &["product", "headphone"])
            },
        ],
        generation: GenerationSettings {
            client: ClientSettings {
                sampling: Sampling { max_tokens: 100, ..Sampling::default() },
                ..ClientSettings::chain(vec![target("small", PROVIDER)])
            },
            max_history_chars: 10_000,
            config_id: "test".to_owned(),
        },
        ack_wait: ACK_WAIT,
        delivery: DeliveryLimits::default(),
        retention: RetentionSettings::default(),
        message_memory: u64::MAX,
        restart: RestartPolicy::default(),
    }
}

pub fn target(name: &str, provider: &str) -> ModelTarget {
    let price = Price {
        input: "1.00".parse().unwrap(),
        cached_input: None,
        cache_write: None,
        output: "2.00".parse().unwrap(),
        request: None,
        long_prompt: None,
    };
    ModelTarget { price: Some(price), ..ModelTarget::new(name, provider, format!("{name}-v1")) }
}

/// As the configuration makes it by default.
pub fn source(name: &str, url: &str, keywords: &[&str]) -> SourceSpec {
    let retry = RetryPolicy {
        max_attempts: 2,
        base_delay: Duration::from_millis(100),
        max_delay: Duration::from_secs(1),
    };
    let timeout = Duration::from_secs(2);
    let patience =
        Patience { longest_wait: retry.max_delay, total: (timeout + retry.max_delay) * retry.max_attempts };
    SourceSpec {
        name: name.to_owned(),
        url: url.to_owned(),
        recorded_url: url.to_owned(),
        method: Method::Get,
        headers: BTreeMap::new(),
        body: None,
        keywords: keywords.iter().map(|&keyword| keyword.to_owned()).collect(),
        extract: BTreeMap::new(),
        defaults: BTreeMap::new(),
        max_matches: 1,
        required: false,
        timeout,
        max_bytes: 10_000,
        policy: DependencyPolicy { retry, breaker: BreakerPolicy::default(), patience },
    }
}

pub fn template() -> PromptTemplate {
    let system = include_str!("../../../deploy/prompts/assistant/system.j2");
    let data = include_str!("../../../deploy/prompts/assistant/data.j2");
    PromptTemplate::new("assistant", system, data).unwrap()
}
