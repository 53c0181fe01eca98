//! Real-sounding requests, 1,000 orders and 500 users run through two workers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::harness::{Cluster, SOON, Settings, cluster::said, corpora};

/// Orders of one text that are looked up.
const MAX_ORDERS: usize = 5;

#[tokio::test]
async fn every_order_that_is_named_is_in_the_prompt_and_the_answer_is_stored() {
    let Some(folder) = corpora::folder("support") else { return };
    let settings = Settings::new("");
    let data = ["--data", folder.to_str().unwrap()];
    let Some(mut cluster) = Cluster::start_with(2, &settings, &data).await else { return };
    let mut log = cluster.log().await;
    let cases = corpora::lines(&folder.join("cases.jsonl"));
    let orders: BTreeMap<String, Value> =
        serde_json::from_slice(&std::fs::read(folder.join("retail_orders.json")).unwrap()).unwrap();
    let text = |case: &Value| case["instruction"].as_str().unwrap().to_owned();
    // A session for each user, as it would be: requests of one user run in order.
    let user = |case: &Value| case["user_id"].as_str().unwrap().to_owned();
    let workflows: Vec<_> = (0..cases.len()).map(|n| format!("support-{n}")).collect();
    let messages =
        cases.iter().zip(&workflows).map(|(case, id)| said(id, &user(case), &user(case), &text(case)));
    cluster.publish_all(messages.collect()).await;
    log.until_ended_within(2 * SOON, &workflows).await;

    // What reached the model, by the question, which is the end of the last message, behind the blocks of data.
    let ledger = cluster.stand_ins.ledger().await;
    let mut prompts: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for entry in ledger["model"].as_array().unwrap() {
        let message = entry["prompt"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
        let behind = message.rsplit_once("</data-").and_then(|(_, tag)| tag.split_once('>'));
        let question = behind.map_or(message, |(_, question)| question).trim().to_owned();
        prompts.entry(question).or_default().push(&entry["prompt"]);
    }
    let calls: usize = prompts.values().map(Vec::len).sum();
    assert_eq!(calls, cases.len(), "one call for each request");

    let rows = cluster.rows();
    let rows: BTreeMap<_, _> = rows.iter().map(|row| (row["workflow_id"].as_str().unwrap(), row)).collect();
    assert_eq!(rows.len(), cases.len());
    let order_of = |id: &str| orders.get(&format!("#{}", id.trim_start_matches('#')));
    let pattern = regex::Regex::new(r"#?W\d{7}").unwrap();
    let mut named = 0;
    let mut fetched = BTreeSet::new();
    for (case, id) in cases.iter().zip(&workflows) {
        let question = text(case).trim().to_owned();
        // Two of the requests leave out the #, which the corpus's own list does not count as naming an order.
        let ids: BTreeSet<_> = pattern.find_iter(&question).map(|found| found.as_str()).collect();
        let mut listed = case["order_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap());
        assert!(listed.all(|listed| ids.contains(listed)), "{id}");
        let prompts =
            prompts.get(&question).unwrap_or_else(|| panic!("{id}: the question is not in a prompt"));
        assert!(ids.len() <= MAX_ORDERS, "{id}");
        for order in &ids {
            named += 1;
            fetched.insert(format!("/orders/{}", order.replace('#', "%23")));
            let Some(known) = order_of(order) else { continue };
            for prompt in prompts {
                let data = prompt.as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
                for fact in facts(known) {
                    assert!(data.contains(&fact), "{id}: {fact} of {order} is not in the prompt");
                }
            }
        }
        let answer = log.answer(id);
        for order in ids.iter().filter(|order| order_of(order).is_some()) {
            assert!(answer.contains(*order), "{id}: {answer}");
        }
        let row = rows[id.as_str()];
        assert_eq!(
            (row["response"].as_str(), row["input"].as_str()),
            (Some(answer), Some(question.as_str()))
        );
        assert_eq!(row["user_id"], case["user_id"]);
    }
    assert!(named > 200, "the corpus names orders: {named}");
    let (paths, _) = cluster.stand_ins.asked().await;
    let asked: BTreeSet<_> = paths.into_iter().filter(|path| path.starts_with("/orders/")).collect();
    assert_eq!(asked, fetched, "the orders that the requests name, and no others");
    assert_eq!(log.dead().count(), 0);
    cluster.assert_workers_run();
}

/// What only this order has: its tracking numbers and its items.
fn facts(order: &Value) -> Vec<String> {
    let fulfillments = order["fulfillments"].as_array().into_iter().flatten();
    let tracking = fulfillments.flat_map(|part| part["tracking_id"].as_array().into_iter().flatten());
    let items = order["items"].as_array().into_iter().flatten().map(|item| &item["item_id"]);
    let facts: Vec<_> = tracking.chain(items).filter_map(Value::as_str).map(str::to_owned).collect();
    assert!(!facts.is_empty(), "{order}");
    facts
}
