//! The sandbox on customers' own words and on strings chosen to hurt.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::dataset::Dataset;
use super::super::{Role, Turn, answer};
use super::start;

/// A folder of the test material, or `None`, said aloud, where it is not installed.
#[allow(clippy::print_stderr)]
fn corpus(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("THROUGHLINE_CORPORA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora"), PathBuf::from);
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("left out: no {folder} in {}; set THROUGHLINE_CORPORA", root.display());
    None
}

#[derive(Deserialize)]
struct Case {
    user_id: String,
    instruction: String,
    order_ids: Vec<String>,
}

#[tokio::test]
async fn every_order_that_a_customer_names_is_answered_with_its_own_status() {
    let Some(dir) = corpus("support") else { return };
    let dataset = Dataset::load(Some(&dir)).await.unwrap();
    let cases = std::fs::read_to_string(dir.join("cases.jsonl")).unwrap();
    let mut named = 0;
    for case in cases.lines().map(|line| serde_json::from_str::<Case>(line).unwrap()) {
        let history = dataset.orders_of(&case.user_id).expect("a known customer");
        let details: Vec<Value> = case
            .order_ids
            .iter()
            .map(|id| serde_json::from_slice(&dataset.order(id).expect("a known order")).unwrap())
            .collect();
        let data = format!(
            "<data source=\"order_history\">{}</data><data source=\"order_details\">{}</data>",
            std::str::from_utf8(&history).unwrap(),
            json!(details)
        );
        let said = answer(&[
            Turn { role: Role::User, text: &data },
            Turn { role: Role::User, text: &case.instruction },
        ]);
        for (id, order) in case.order_ids.iter().zip(&details) {
            named += 1;
            let about = said.split("Your order ").find(|about| about.starts_with(id.as_str()));
            let status = order["status"].as_str().unwrap();
            assert!(about.is_some_and(|about| about.contains(&format!("is {status}"))), "{id} in {said}");
        }
    }
    assert!(named > 300, "only {named} orders were named");
}

#[tokio::test]
async fn hostile_strings_are_just_questions_and_unknown_ids() {
    let Some(dir) = corpus("naughty_strings") else { return };
    let strings = std::fs::read_to_string(dir.join("cases.jsonl")).unwrap();
    let sandbox = start().await;
    for line in strings.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = case["text"].as_str().unwrap();
        let body = json!({ "model": "sandbox-small", "messages": [
            { "role": "user", "content": format!("<data source=\"order_history\">{text}</data>") },
            { "role": "user", "content": text },
        ]});
        let response = sandbox.chat(&body).await;
        assert_eq!(response.status(), 200, "{text:?}");
        let id = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        assert_eq!(sandbox.get(&format!("/customers/{id}")).await.0, 404, "{text:?}");
    }
    sandbox.stop().await;
}
