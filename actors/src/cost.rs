//! What a call cost: decimal arithmetic over reported tokens and configured prices.

use rust_decimal::Decimal;
use throughline_schemas::{Usage, Usd};

const MILLION: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// Prices of a model, in US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Input tokens.
    pub input: Decimal,
    /// Input tokens that the provider served from its cache; `None`: they cost as much as others.
    pub cached_input: Option<Decimal>,
    /// Output tokens, reasoning included.
    pub output: Decimal,
}

/// `(input − cached) × input price + cached × cached price + output × output price`, per million.
/// `None` if the price is not configured or the sum exceeds what a decimal can hold: unknown is never zero.
pub fn cost(usage: &Usage, price: Option<&Price>) -> Option<Usd> {
    let price = price?;
    let cached = usage.cached_input_tokens.min(usage.input_tokens);
    let fresh = Decimal::from(usage.input_tokens - cached).checked_mul(price.input)?;
    let cached = Decimal::from(cached).checked_mul(price.cached_input.unwrap_or(price.input))?;
    let output = Decimal::from(usage.output_tokens).checked_mul(price.output)?;
    let total = fresh.checked_add(cached)?.checked_add(output)?;
    Some(Usd::new(total / MILLION))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn dollars(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn cached_tokens_cost_their_own_price_and_nothing_is_rounded() {
        let usage =
            Usage { input_tokens: 1000, output_tokens: 200, cached_input_tokens: 400, reasoning_tokens: 50 };
        let price =
            Price { input: dollars("0.15"), cached_input: Some(dollars("0.075")), output: dollars("0.60") };
        assert_eq!(cost(&usage, Some(&price)), Some(Usd::new(dollars("0.00024"))));
        let plain = Price { cached_input: None, ..price };
        assert_eq!(cost(&usage, Some(&plain)), Some(Usd::new(dollars("0.00027"))));
    }

    #[test]
    fn an_unknown_price_is_not_zero() {
        assert_eq!(cost(&Usage::default(), None), None);
    }

    #[test]
    fn a_provider_that_reports_more_cached_than_input_tokens_does_not_make_it_negative() {
        let usage = Usage { input_tokens: 10, cached_input_tokens: 1000, ..Usage::default() };
        let price = Price { input: Decimal::ONE, cached_input: Some(Decimal::ZERO), output: Decimal::ONE };
        assert_eq!(cost(&usage, Some(&price)), Some(Usd::new(Decimal::ZERO)));
    }
}
