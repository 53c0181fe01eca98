//! What is said about orders.

use std::fmt::Write as _;

use super::prompt::{Prompt, Source};
use super::question::Question;
use super::records::{self, Item, Order};

/// Items that one sentence names before it says how many more there are.
const MAX_ITEMS_NAMED: usize = 5;
/// Orders that a list names before it says how many more there are.
const MAX_ORDERS_LISTED: usize = 10;

/// The orders that the question names.
pub(super) fn named(question: &Question<'_>, prompt: &Prompt<'_>) -> String {
    let (details, history) = (prompt.source("order_details"), prompt.source("order_history"));
    let known: Vec<_> = [details, history].into_iter().filter_map(read).flatten().collect();
    let sentences: Vec<_> = question
        .order_ids
        .iter()
        .map(|id| match known.iter().find(|order| order.is(id)) {
            Some(order) => describe("Your order", order, question.about_refund),
            None if unavailable(details) => format!(
                "I am sorry, I could not look up order #{id}: the order details are unavailable right now. Please try again in a few minutes."
            ),
            None => format!("I could not find an order #{id}. Please check the number."),
        })
        .collect();
    sentences.join(" ")
}

/// The most recent order, or all of them when the question asks for that.
pub(super) fn recent(question: &Question<'_>, prompt: &Prompt<'_>) -> String {
    let source = prompt.source("order_history");
    let Some(orders) = read(source) else {
        return if source == Source::Absent {
            "I do not have your order history at hand. Which order is it about? An order number looks like #W10001."
        } else {
            "I am sorry, I cannot see your orders: the order history is unavailable right now. Please try again in a few minutes."
        }
        .to_owned();
    };
    match orders.as_slice() {
        [] => "I do not see any orders on your account.".to_owned(),
        [_, _, ..] if question.about_all_orders => list(&orders),
        [newest, ..] => describe("Your most recent order", newest, question.about_refund),
    }
}

fn read(source: Source<'_>) -> Option<Vec<Order<'_>>> {
    let Source::Json(json) = source else { return None };
    let orders = records::orders(json)?;
    // What is no order, an error body say, is no news about orders either.
    let count = orders.len();
    let orders: Vec<_> = orders.into_iter().filter(|order| order.id.is_some()).collect();
    (count == 0 || !orders.is_empty()).then_some(orders)
}

/// Failed, or something that cannot be read as orders at all. An error body with no order in it is an answer.
fn unavailable(source: Source<'_>) -> bool {
    match source {
        Source::Failed => true,
        Source::Absent => false,
        Source::Json(json) => records::orders(json).is_none(),
    }
}

fn list(orders: &[Order<'_>]) -> String {
    let mut named: Vec<_> = orders
        .iter()
        .take(MAX_ORDERS_LISTED)
        .map(|order| format!("{} ({})", id(order), status(order)))
        .collect();
    if orders.len() > MAX_ORDERS_LISTED {
        named.push(format!("{} older ones", orders.len() - MAX_ORDERS_LISTED));
    }
    format!("You have {} orders, newest first: {}.", orders.len(), named.join(", "))
}

fn describe(subject: &str, order: &Order<'_>, about_refund: bool) -> String {
    let status = status(order);
    let mut text = format!("{subject} {}", id(order));
    if let Some(items) = order.items.as_deref().filter(|items| !items.is_empty()) {
        // Writing to a string cannot fail.
        let _ = write!(text, " ({})", item_names(items));
    }
    let _ = write!(text, " is {status}");
    if let Some(carrier) = &order.carrier {
        let _ = write!(text, " with {}", carrier.0);
    }
    let tracking = order.fulfillments.iter().flatten().flat_map(|f| f.tracking_id.iter().flatten());
    let tracking: Vec<_> = tracking.map(|id| &*id.0).collect();
    if !tracking.is_empty() {
        let _ = write!(text, ", tracking number {}", tracking.join(" and "));
    }
    text.push('.');
    match (&order.delivered_on, &order.estimated_delivery) {
        (Some(day), _) => {
            let _ = write!(text, " It arrived on {}.", day.0);
        }
        (None, Some(day)) if status != "cancelled" && &*day.0 == "today" => {
            text.push_str(" It should arrive today.");
        }
        (None, Some(day)) if status != "cancelled" => {
            let _ = write!(text, " It should arrive on {}.", day.0);
        }
        (None, _) => {}
    }
    if about_refund {
        text.push_str(&refund(order));
    }
    text
}

fn refund(order: &Order<'_>) -> String {
    let refunds = order
        .payment_history
        .iter()
        .flatten()
        .filter(|payment| payment.transaction_type.as_ref().is_some_and(|kind| kind.0 == "refund"));
    let amounts: Vec<_> = refunds.filter_map(|payment| payment.amount.as_ref()).map(money).collect();
    if amounts.is_empty() {
        " No refund has been recorded for it.".to_owned()
    } else {
        format!(" A refund of {} has been recorded for it.", amounts.join(" and "))
    }
}

/// Always two decimals, as prices are written.
pub(super) fn money(amount: &serde_json::Number) -> String {
    match amount.as_f64() {
        Some(amount) => format!("${amount:.2}"),
        None => format!("${amount}"),
    }
}

fn id<'o>(order: &'o Order<'_>) -> &'o str {
    order.id.as_ref().map_or("without a number", |id| &id.0)
}

fn status<'o>(order: &'o Order<'_>) -> &'o str {
    order.status.as_ref().map_or("in a state that I do not know", |status| &status.0)
}

fn item_names(items: &[Item<'_>]) -> String {
    let mut names: Vec<_> = items
        .iter()
        .take(MAX_ITEMS_NAMED)
        .map(|item| {
            let name = item.name.as_ref().map_or("one item", |name| &name.0);
            match item.quantity.as_ref().and_then(serde_json::Number::as_u64) {
                Some(count) if count > 1 => format!("{count} x {name}"),
                _ => name.to_owned(),
            }
        })
        .collect();
    if items.len() > MAX_ITEMS_NAMED {
        names.push(format!("{} more", items.len() - MAX_ITEMS_NAMED));
    }
    names.join(", ")
}
