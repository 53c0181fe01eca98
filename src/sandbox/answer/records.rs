//! The records of the data sources, as far as the answers need them. Everything is optional: a stand-in for a
//! model has to cope with whatever it is shown.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Number;

/// A string that is borrowed inside `Option` and `Vec` too, where serde would copy a plain `Cow`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(in crate::sandbox) struct Text<'a>(#[serde(borrow)] pub(in crate::sandbox) Cow<'a, str>);

#[derive(Debug, Default, Deserialize)]
pub(super) struct Preferences<'a> {
    #[serde(borrow)]
    pub(super) language: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) tone: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Customer<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) preferences: Option<Preferences<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Order<'a> {
    #[serde(borrow, rename = "order_id")]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) carrier: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) estimated_delivery: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) delivered_on: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) items: Option<Vec<Item<'a>>>,
    #[serde(borrow)]
    pub(super) fulfillments: Option<Vec<Fulfillment<'a>>>,
    #[serde(borrow)]
    pub(super) payment_history: Option<Vec<Payment<'a>>>,
}

impl Order<'_> {
    pub(super) fn is(&self, bare_id: &str) -> bool {
        self.id.as_ref().is_some_and(|id| crate::sandbox::dataset::bare_order_id(&id.0) == bare_id)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    pub(super) quantity: Option<Number>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Fulfillment<'a> {
    #[serde(borrow)]
    pub(super) tracking_id: Option<Vec<Text<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Payment<'a> {
    #[serde(borrow)]
    pub(super) transaction_type: Option<Text<'a>>,
    pub(super) amount: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Product<'a> {
    #[serde(borrow, rename = "product_id")]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    pub(super) price: Option<Number>,
    pub(super) stock: Option<Number>,
    /// By item id; only what is in them is of interest.
    pub(super) variants: Option<std::collections::BTreeMap<String, Variant>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Variant {
    pub(super) available: Option<bool>,
    pub(super) price: Option<Number>,
}

/// A list may come bare, under `orders`, or as one single order.
#[derive(Deserialize)]
struct OrderList<'a> {
    #[serde(borrow)]
    orders: Option<Vec<Order<'a>>>,
}

/// `None` when this is not JSON of any of the known shapes.
pub(super) fn orders(json: &str) -> Option<Vec<Order<'_>>> {
    if json.starts_with('[') {
        let orders: Vec<Option<Order<'_>>> = serde_json::from_str(json).ok()?;
        return Some(orders.into_iter().flatten().collect());
    }
    if let Some(orders) = serde_json::from_str::<OrderList<'_>>(json).ok()?.orders {
        return Some(orders);
    }
    Some(vec![serde_json::from_str(json).ok()?])
}

/// One product or several.
pub(super) fn products(json: &str) -> Option<Vec<Product<'_>>> {
    if json.starts_with('[') {
        let products: Vec<Option<Product<'_>>> = serde_json::from_str(json).ok()?;
        return Some(products.into_iter().flatten().collect());
    }
    Some(vec![serde_json::from_str(json).ok()?])
}
