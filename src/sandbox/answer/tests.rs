#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use serde_json::{Value, json};

use super::*;

/// Asks `question` with `blocks` as data, the way Throughline's prompt does.
fn ask(question: &str, blocks: &[(&str, Value)]) -> String {
    let data: Vec<_> = blocks
        .iter()
        .map(|(name, value)| match value.as_str() {
            Some("failed") => format!("<data source=\"{name}\" status=\"failed\">timed out</data>"),
            _ => format!("<data source=\"{name}\">\n{}\n</data>", escaped(value)),
        })
        .collect();
    let data = format!("What we know:\n{}", data.join("\n"));
    answer(&[
        Turn { role: Role::System, text: "You are a support agent. <data source=\"preferences\">{}</data>" },
        Turn { role: Role::User, text: &data },
        Turn { role: Role::User, text: question },
    ])
}

fn escaped(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn profile() -> (&'static str, Value) {
    ("user_profile", json!({ "name": "Dana Demo", "email": "d@example.com" }))
}

fn history() -> (&'static str, Value) {
    let orders = json!({ "user_id": "demo", "orders": [
        { "order_id": "#W10007", "status": "shipped", "carrier": "Northwind Express", "estimated_delivery": "Thursday",
          "items": [{ "name": "Headphones", "quantity": 1 }, { "name": "Cable <2 m> & plug", "quantity": 2 }],
          "fulfillments": [{ "tracking_id": ["NWX1"] }] },
        { "order_id": "#W10003", "status": "cancelled", "estimated_delivery": "Monday", "items": [],
          "payment_history": [{ "transaction_type": "payment", "amount": 39.9 }, { "transaction_type": "refund", "amount": 39.9 }] },
    ]});
    ("order_history", orders)
}

#[test]
fn the_most_recent_order_answers_a_question_about_orders() {
    assert_eq!(
        ask("What is the status of my recent order?", &[profile(), history()]),
        "Hi Dana! Your most recent order #W10007 (Headphones, 2 x Cable <2 m> & plug) is shipped with Northwind Express, \
         tracking number NWX1. It should arrive on Thursday. Anything else I can do?"
    );
}

#[test]
fn a_named_order_is_found_in_the_details_and_in_the_history() {
    let details = ("order_details", json!([{ "order_id": "#W2611340", "status": "processed" }, null]));
    let said = ask("Compare #W2611340 with W10003, any refund?", &[history(), details]);
    assert!(said.contains("#W2611340 is processed. No refund"), "{said}");
    assert!(said.contains("#W10003 is cancelled. A refund of $39.90"), "{said}");
    assert!(!said.contains("Monday"), "a cancelled order does not arrive: {said}");
    let one = ask(
        "where is W2611340",
        &[("order_details", json!({ "order_id": "#W2611340", "status": "pending" }))],
    );
    assert!(one.contains("#W2611340 is pending"), "{one}");
}

#[test]
fn missing_data_is_admitted_and_nothing_is_invented() {
    let cases = [
        ("where is my order", ("order_history", json!("failed")), "order history is unavailable"),
        (
            "where is my order",
            ("order_history", json!({ "error": { "code": "x" } })),
            "order history is unavailable",
        ),
        ("where is my order", ("other", json!({})), "Which order"),
        ("where is my order", ("order_history", json!([])), "do not see any orders"),
        ("where is #W77777", ("order_details", json!("failed")), "could not look up order #W77777"),
        ("where is #W77777", ("order_details", json!("lies")), "could not look up order #W77777"),
        ("where is #W77777", ("order_details", json!({ "error": {} })), "could not find an order #W77777"),
        ("where is #W77777", history(), "could not find an order #W77777"),
        ("price of the headphones", ("product_info", json!("failed")), "product information is unavailable"),
        (
            "price of the headphones",
            ("product_info", json!({ "error": {} })),
            "product information is unavailable",
        ),
        ("price of the headphones", ("other", json!({})), "Which product"),
        (
            "is PROD-009 any good",
            ("product_info", json!({ "error": {} })),
            "could not find a product PROD-009",
        ),
    ];
    for (question, block, expected) in cases {
        let said = ask(question, std::slice::from_ref(&block));
        assert!(said.contains(expected), "{question} with {block:?}: {said}");
    }
}

#[test]
fn products_are_described_with_price_and_stock() {
    let product = |value: Value| ("product_info", value);
    let headphones =
        product(json!({ "product_id": "PROD-001", "name": "Aurora Headphones", "price": 129, "stock": 42 }));
    let said = ask("Are the headphones available?", &[headphones]);
    assert!(said.contains("Aurora Headphones (PROD-001) costs $129.00 and 42 are in stock."), "{said}");
    let shirt = product(json!({ "product_id": "952", "name": "T-Shirt", "variants": {
        "1": { "available": true, "price": 46.66 }, "2": { "available": false, "price": 54.84 } } }));
    let said = ask("What does the product cost?", &[shirt]);
    assert!(said.contains("T-Shirt (952) costs between $46.66 and $54.84; 1 of its 2 variants"), "{said}");
}

#[test]
fn tone_and_language_are_the_customers() {
    let preferences =
        |language: &str, tone: &str| ("preferences", json!({ "language": language, "tone": tone }));
    let status = "where is my order";
    assert!(
        ask(status, &[profile(), history(), preferences("en", "brief")])
            .starts_with("Your most recent order")
    );
    let formal = ask(status, &[profile(), history(), preferences("fr", "formal")]);
    assert!(formal.starts_with("Bonjour Dana Demo, your most recent order #W10007"), "{formal}");
    assert!(ask(status, &[history(), preferences("de-AT", "?")]).starts_with("Hallo! Your"));
    let from_profile = ("user_profile", json!({ "name": "Bo", "preferences": { "tone": "brief" } }));
    assert!(ask(status, &[from_profile.clone(), history()]).starts_with("Your"));
    assert!(ask(status, &[from_profile, preferences("es", "friendly"), history()]).starts_with("Hola Bo!"));
}

#[test]
fn all_orders_are_listed_when_asked_for() {
    let said = ask("How many orders do I have?", &[history()]);
    assert!(
        said.contains("You have 2 orders, newest first: #W10007 (shipped), #W10003 (cancelled)."),
        "{said}"
    );
}

#[test]
fn small_talk_is_greeted_by_name() {
    let said = ask("Hello there", &[profile(), history()]);
    assert!(said.starts_with("Hi Dana! I can help with your orders"), "{said}");
    assert_eq!(answer(&[]), ask("", &[]), "no question at all is small talk");
}

#[test]
fn the_last_question_of_a_long_conversation_counts() {
    let data = format!("<data source=\"order_history\">{}</data>", history().1);
    let turns = [
        Turn { role: Role::User, text: "What does PROD-001 cost?" },
        Turn { role: Role::Assistant, text: "A lot." },
        Turn { role: Role::User, text: &data },
        Turn { role: Role::User, text: "And my order?" },
    ];
    let said = answer(&turns);
    assert!(said.contains("#W10007") && !said.contains("PROD-001"), "{said}");
}
