//! Variables that mean the same to many programs: addresses, and the keys of model providers.

use std::sync::Arc;

use super::Env;
use super::error::Origin;
use super::providers::ProviderKind;
use super::tree::{Node, Table, Value};
use super::url::same_host;

/// Each overrides the file, as it does elsewhere; a `THROUGHLINE_` variable overrides it.
const ADDRESSES: [(&str, &str, &str); 2] = [("NATS_URL", "nats", "url"), ("DATABASE_URL", "database", "url")];

/// The variables of a vendor.
struct Vendor {
    kind: ProviderKind,
    base_url_variable: Option<&'static str>,
    /// The first one that is set wins.
    api_key_variables: &'static [&'static str],
    /// A key that goes into the `authorization` header, where no other one is set.
    bearer_variable: Option<&'static str>,
    /// Further keys of the provider, by the variables that hold them.
    others: &'static [(&'static str, &'static [&'static str])],
}

const VENDORS: [Vendor; 3] = [
    Vendor {
        kind: ProviderKind::Openai,
        base_url_variable: Some("OPENAI_BASE_URL"),
        api_key_variables: &["OPENAI_API_KEY"],
        bearer_variable: None,
        others: &[
            ("organization", &["OPENAI_ORG_ID", "OPENAI_ORGANIZATION"]),
            ("project", &["OPENAI_PROJECT_ID", "OPENAI_PROJECT"]),
        ],
    },
    Vendor {
        kind: ProviderKind::Anthropic,
        base_url_variable: Some("ANTHROPIC_BASE_URL"),
        api_key_variables: &["ANTHROPIC_API_KEY"],
        bearer_variable: Some("ANTHROPIC_AUTH_TOKEN"),
        others: &[],
    },
    Vendor {
        kind: ProviderKind::Gemini,
        base_url_variable: Some("GOOGLE_GEMINI_BASE_URL"),
        api_key_variables: &["GOOGLE_API_KEY", "GEMINI_API_KEY"],
        bearer_variable: None,
        others: &[],
    },
];

impl Vendor {
    /// The variable that holds a key.
    fn key(&self, env: &Env) -> Option<&'static str> {
        self.api_key_variables.iter().copied().find(|name| value_of(env, name).is_some())
    }

    /// The variable that holds a key for the `authorization` header, if there is no other.
    fn bearer(&self, env: &Env) -> Option<&'static str> {
        self.bearer_variable.filter(|name| self.key(env).is_none() && value_of(env, name).is_some())
    }

    /// The variable that holds a base URL, and what it holds.
    fn base_url<'e>(&self, env: &'e Env) -> Option<(&'static str, &'e str)> {
        self.base_url_variable.and_then(|name| Some((name, value_of(env, name)?)))
    }
}

/// The variables that hold the key of a kind of provider.
pub(super) fn key_variables(kind: ProviderKind) -> &'static [&'static str] {
    VENDORS.iter().find(|vendor| vendor.kind == kind).map_or(&[], |vendor| vendor.api_key_variables)
}

/// A set but empty variable counts as not set.
fn value_of<'e>(env: &'e Env, name: &str) -> Option<&'e str> {
    env.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
}

fn from_variable(name: &str, raw: String) -> Node {
    Node { value: Value::Raw(raw), origin: Origin::Env(Arc::from(name)) }
}

/// `NATS_URL` and `DATABASE_URL`.
pub(super) fn addresses(tree: &mut Table, env: &Env) {
    for (name, section, key) in ADDRESSES {
        let Some(url) = value_of(env, name) else { continue };
        let empty = || Node { value: Value::Table(Table::new()), origin: Origin::Env(Arc::from(name)) };
        if let Value::Table(table) = &mut tree.entry(section.to_owned()).or_insert_with(empty).value {
            table.insert(key.to_owned(), from_variable(name, url.to_owned()));
        }
    }
}

/// Where no provider is configured, one exists for each vendor whose variables are set.
pub(super) fn default_providers(tree: &mut Table, env: &Env) {
    if tree.contains_key("providers") {
        return;
    }
    let providers: Vec<Node> = VENDORS
        .iter()
        .filter_map(|vendor| {
            let key = vendor.key(env).or_else(|| vendor.bearer(env));
            let variable = key.or_else(|| Some(vendor.base_url(env)?.0))?;
            let entry =
                |key: &str| (key.to_owned(), from_variable(variable, vendor.kind.as_str().to_owned()));
            let table = Table::from([entry("name"), entry("kind")]);
            Some(Node { value: Value::Table(table), origin: Origin::Env(Arc::from(variable)) })
        })
        .collect();
    if let Some(first) = providers.first() {
        let origin = first.origin.clone();
        tree.insert("providers".to_owned(), Node { value: Value::Array(providers), origin });
    }
}

/// Gives providers the base URL and the key that the vendor's variables hold, where they set none.
pub(super) fn complete_providers(tree: &mut Table, env: &Env) {
    let Some(Value::Array(providers)) = tree.get_mut("providers").map(|node| &mut node.value) else { return };
    for provider in providers {
        let Value::Table(provider) = &mut provider.value else { continue };
        let Some(Value::Text(kind) | Value::Raw(kind)) = provider.get("kind").map(|node| &node.value) else {
            continue;
        };
        let Some(vendor) = VENDORS.iter().find(|vendor| vendor.kind.as_str() == kind) else { continue };
        complete(provider, vendor, env);
    }
}

fn complete(provider: &mut Table, vendor: &Vendor, env: &Env) {
    // The vendor's key goes to the vendor, or where the same environment points: never to another host.
    let known = vendor.base_url(env);
    let trusted = match provider.get("base_url").map(|node| &node.value) {
        None => true,
        Some(Value::Text(url) | Value::Raw(url)) => {
            same_host(url, vendor.kind.vendor_url()) || known.is_some_and(|(_, known)| same_host(url, known))
        }
        Some(_) => false,
    };
    if !provider.contains_key("base_url")
        && let Some((variable, url)) = known
    {
        provider.insert("base_url".to_owned(), from_variable(variable, url.to_owned()));
    }
    if !trusted {
        return;
    }
    for (key, variables) in vendor.others {
        let value = variables.iter().find_map(|name| Some((*name, value_of(env, name)?)));
        if let Some((variable, value)) = value.filter(|_| !provider.contains_key(*key)) {
            provider.insert((*key).to_owned(), from_variable(variable, value.trim().to_owned()));
        }
    }
    if ["api_key", "api_keys"].iter().any(|key| provider.contains_key(*key)) {
        return;
    }
    if let Some(variable) = vendor.key(env) {
        provider.insert("api_key".to_owned(), from_variable(variable, format!("env:{variable}")));
    } else if let Some(variable) = vendor.bearer(env) {
        provider.insert("api_key".to_owned(), from_variable(variable, format!("env:{variable}")));
        let header = from_variable(variable, "authorization".to_owned());
        provider.entry("key_header".to_owned()).or_insert(header);
    }
}
