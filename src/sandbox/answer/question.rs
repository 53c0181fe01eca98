//! What a question is about, by its words.

/// Orders that one answer describes.
const MAX_ORDERS_NAMED: usize = 5;
/// An order id is `W` and at least this many digits.
const MIN_ORDER_DIGITS: usize = 5;

const ORDER_STEMS: [&str; 16] = [
    "order", "purchas", "deliver", "package", "parcel", "refund", "return", "ship", "track", "arriv",
    "bought", "buy", "exchang", "cancel", "status", "reimburs",
];
const PRODUCT_STEMS: [&str; 7] = ["product", "headphone", "price", "cost", "stock", "availab", "variant"];
const REFUND_STEMS: [&str; 3] = ["refund", "return", "reimburs"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// It names an order or a product by its id.
    Named,
    Orders,
    Products,
    Other,
}

#[derive(Debug)]
pub(super) struct Question<'a> {
    /// Without `#`, in the order of the question, each once.
    pub(super) order_ids: Vec<&'a str>,
    pub(super) product_id: Option<&'a str>,
    pub(super) about_refund: bool,
    /// Asks for more than the most recent order.
    pub(super) about_all_orders: bool,
    pub(super) topic: Topic,
}

impl<'a> Question<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let lower = text.to_lowercase();
        let mentions =
            |stems: &[&str]| words(&lower).any(|word| stems.iter().any(|stem| word.starts_with(stem)));
        let mut order_ids = Vec::new();
        for id in words(text).filter(|word| is_order_id(word)) {
            if order_ids.len() < MAX_ORDERS_NAMED && !order_ids.contains(&id) {
                order_ids.push(id);
            }
        }
        let mut phrase = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let product_id = phrase.find(|word| is_product_id(word));
        let topic = if !order_ids.is_empty() || product_id.is_some() {
            Topic::Named
        } else if mentions(&ORDER_STEMS) {
            Topic::Orders
        } else if mentions(&PRODUCT_STEMS) {
            Topic::Products
        } else {
            Topic::Other
        };
        Self {
            order_ids,
            product_id,
            about_refund: mentions(&REFUND_STEMS),
            about_all_orders: lower.contains("orders")
                && ["all ", "list", "how many", "every", "history"].iter().any(|sign| lower.contains(sign)),
            topic,
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn is_order_id(word: &str) -> bool {
    word.strip_prefix('W')
        .is_some_and(|digits| digits.len() >= MIN_ORDER_DIGITS && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn is_product_id(word: &str) -> bool {
    let Some((prefix, digits)) = word.split_once('-') else { return false };
    prefix.eq_ignore_ascii_case("prod") && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn topics_follow_the_words() {
        let cases = [
            ("What is the status of my recent order?", Topic::Orders),
            ("Has my package been SHIPPED yet", Topic::Orders),
            ("When will my headphones arrive?", Topic::Orders),
            ("Do you have the headphones in stock?", Topic::Products),
            ("How much does it cost", Topic::Products),
            ("Tell me about prod-003.", Topic::Named),
            ("Where is (#W2378156)?", Topic::Named),
            ("W123 is too short", Topic::Other),
            ("Hello!", Topic::Other),
            ("", Topic::Other),
        ];
        for (text, topic) in cases {
            assert_eq!(Question::new(text).topic, topic, "{text}");
        }
    }

    #[test]
    fn ids_are_found_once_each_and_not_too_many() {
        let question =
            Question::new("#W10001, W10002 and #W10001; also W10003 W10004 W10005 W10006 PROD-007?");
        assert_eq!(question.order_ids, ["W10001", "W10002", "W10003", "W10004", "W10005"]);
        assert_eq!(question.product_id, Some("PROD-007"));
    }
}
