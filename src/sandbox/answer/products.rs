//! What is said about products.

use super::orders::money;
use super::prompt::{Prompt, Source};
use super::question::Question;
use super::records::{self, Product};

pub(super) fn describe(question: &Question<'_>, prompt: &Prompt<'_>) -> String {
    let source = prompt.source("product_info");
    let Source::Json(json) = source else {
        return if source == Source::Failed { unavailable() } else { which_product() };
    };
    let Some(products) = records::products(json) else { return unavailable() };
    let is_named = |product: &&Product<'_>| match (question.product_id, &product.id) {
        (Some(wanted), Some(id)) => id.0.eq_ignore_ascii_case(wanted),
        (Some(_), None) => false,
        (None, _) => product.name.is_some(),
    };
    match (products.iter().find(is_named), question.product_id) {
        (Some(product), _) => sentence(product),
        (None, Some(id)) => format!("I could not find a product {}.", id.to_uppercase()),
        (None, None) => unavailable(),
    }
}

fn unavailable() -> String {
    "I am sorry, the product information is unavailable right now. Please try again in a few minutes."
        .to_owned()
}

fn which_product() -> String {
    "Which product is it about? A product number looks like PROD-001.".to_owned()
}

fn sentence(product: &Product<'_>) -> String {
    let name = product.name.as_ref().map_or("This product", |name| &name.0);
    let id = product.id.as_ref().map_or(String::new(), |id| format!(" ({})", id.0));
    let price = match (&product.price, price_range(product)) {
        (Some(price), _) => format!(" costs {}", money(price)),
        (None, Some((low, high))) if low == high => format!(" costs {low}"),
        (None, Some((low, high))) => format!(" costs between {low} and {high}"),
        (None, None) => " has no price that I can see".to_owned(),
    };
    format!("{name}{id}{price}{}", stock(product))
}

fn stock(product: &Product<'_>) -> String {
    if let Some(stock) = product.stock.as_ref().and_then(serde_json::Number::as_u64) {
        return if stock == 0 {
            " and is out of stock.".to_owned()
        } else {
            format!(" and {stock} are in stock.")
        };
    }
    let Some(variants) = &product.variants else { return ".".to_owned() };
    let available = variants.values().filter(|variant| variant.available == Some(true)).count();
    format!("; {available} of its {} variants are available.", variants.len())
}

fn price_range(product: &Product<'_>) -> Option<(String, String)> {
    let prices =
        || product.variants.iter().flat_map(|v| v.values()).filter_map(|v| v.price.as_ref()?.as_f64());
    let low = prices().min_by(f64::total_cmp)?;
    let high = prices().max_by(f64::total_cmp)?;
    Some((format!("${low:.2}"), format!("${high:.2}")))
}
