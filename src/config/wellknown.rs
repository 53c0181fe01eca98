//! Variables that mean the same to many programs: addresses, and the keys of model providers.

use std::sync::Arc;

use reqwest::Url;

use super::Env;
use super::error::Origin;
use super::providers::OPENAI_BASE_URL;
use super::tree::{Node, Table, Value};

/// Each overrides the file, as it does elsewhere; a `THROUGHLINE_` variable overrides it.
const ADDRESSES: [(&str, &str, &str); 2] = [("NATS_URL", "nats", "url"), ("DATABASE_URL", "database", "url")];

/// The variables of a kind of provider. `ANTHROPIC_*`, `GOOGLE_API_KEY` and `GEMINI_API_KEY` join when those
/// kinds can be used.
struct Vendor {
    kind: &'static str,
    base_url: &'static str,
    base_url_variable: &'static str,
    api_key_variable: &'static str,
}

const VENDORS: [Vendor; 1] = [Vendor {
    kind: "openai",
    base_url: OPENAI_BASE_URL,
    base_url_variable: "OPENAI_BASE_URL",
    api_key_variable: "OPENAI_API_KEY",
}];

/// A set but empty variable counts as not set.
fn value_of<'e>(env: &'e Env, name: &str) -> Option<&'e str> {
    env.get(name).map(String::as_str).filter(|value| !value.is_empty())
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
            let variable = [vendor.api_key_variable, vendor.base_url_variable]
                .into_iter()
                .find(|name| value_of(env, name).is_some())?;
            let entry = |key: &str| (key.to_owned(), from_variable(variable, vendor.kind.to_owned()));
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
        let Some(vendor) = VENDORS.iter().find(|vendor| vendor.kind == kind) else { continue };
        complete(provider, vendor, env);
    }
}

fn complete(provider: &mut Table, vendor: &Vendor, env: &Env) {
    // The vendor's key goes to the vendor, or where the same environment points: never to another host.
    let trusted = match provider.get("base_url").map(|node| &node.value) {
        None => true,
        Some(Value::Text(url) | Value::Raw(url)) => {
            same_host(url, vendor.base_url)
                || value_of(env, vendor.base_url_variable).is_some_and(|known| same_host(url, known))
        }
        Some(_) => false,
    };
    if !provider.contains_key("base_url")
        && let Some(url) = value_of(env, vendor.base_url_variable)
    {
        provider.insert("base_url".to_owned(), from_variable(vendor.base_url_variable, url.to_owned()));
    }
    if trusted && !provider.contains_key("api_key") && value_of(env, vendor.api_key_variable).is_some() {
        let variable = vendor.api_key_variable;
        provider.insert("api_key".to_owned(), from_variable(variable, format!("env:{variable}")));
    }
}

fn same_host(a: &str, b: &str) -> bool {
    match (Url::parse(a), Url::parse(b)) {
        (Ok(a), Ok(b)) => a.origin() == b.origin() && a.origin().is_tuple(),
        _ => false,
    }
}
