//! What a call cost: decimal arithmetic over reported tokens and configured prices.

use rust_decimal::Decimal;
use throughline_schemas::{
    Usage, Usd,
    event::generation::{Attempt, CostUnknown},
};

const MILLION: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// Prices of a model, in US dollars per million tokens where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Input tokens.
    pub input: Decimal,
    /// Input tokens that the provider served from its cache; `None`: they cost as much as others.
    pub cached_input: Option<Decimal>,
    /// Input tokens that the provider put into its cache; `None`: they cost as much as others.
    pub cache_write: Option<Decimal>,
    /// Output tokens, reasoning included.
    pub output: Decimal,
    /// US dollars for each request, whatever its tokens; `None`: there is no such fee.
    pub request: Option<Decimal>,
    /// What long prompts cost, where that is something else.
    pub long_prompt: Option<LongPrompt>,
}

/// Prices of a request whose prompt is long: they apply to all of its tokens, not only to those beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongPrompt {
    /// A prompt with more tokens than this is long, cached ones included.
    pub above: u64,
    /// As [`Price::input`].
    pub input: Decimal,
    /// As [`Price::cached_input`].
    pub cached_input: Option<Decimal>,
    /// As [`Price::cache_write`].
    pub cache_write: Option<Decimal>,
    /// As [`Price::output`].
    pub output: Decimal,
}

impl Price {
    /// The price of a request whose prompt has this many tokens.
    fn of_prompt(&self, tokens: u64) -> Self {
        let Some(long) = self.long_prompt.filter(|long| tokens > long.above) else { return *self };
        let LongPrompt { above: _, input, cached_input, cache_write, output } = long;
        Self { input, cached_input, cache_write, output, request: self.request, long_prompt: None }
    }
}

/// `(input − cached − written) × input price + cached × cached price + written × write price + output × output
/// price`, per million, and the fee for the request. Unknown is never zero.
pub fn cost(usage: Option<&Usage>, price: Option<&Price>) -> Result<Usd, CostUnknown> {
    let usage = usage.ok_or(CostUnknown::NoUsage)?;
    let price = price.ok_or(CostUnknown::NoPrice)?;
    sum(usage, price).map(Usd::new).ok_or(CostUnknown::TooLarge)
}

fn sum(usage: &Usage, price: &Price) -> Option<Decimal> {
    let price = price.of_prompt(usage.input_tokens);
    let cached = usage.cached_input_tokens.min(usage.input_tokens);
    let written = usage.cache_write_input_tokens.min(usage.input_tokens - cached);
    [
        (usage.input_tokens - cached - written, price.input),
        (cached, price.cached_input.unwrap_or(price.input)),
        (written, price.cache_write.unwrap_or(price.input)),
        (usage.output_tokens, price.output),
    ]
    .into_iter()
    .try_fold(Decimal::ZERO, |sum, (tokens, price)| {
        sum.checked_add(Decimal::from(tokens).checked_mul(price)?)
    })
    .and_then(|sum| (sum / MILLION).checked_add(price.request.unwrap_or_default()))
}

/// Whether what a provider states and what our prices make of its tokens differ by more than a hundredth, which rounding does
/// not explain.
pub fn differs(stated: Usd, priced: Usd) -> bool {
    let (stated, priced) = (stated.dollars(), priced.dollars());
    let difference = (stated - priced).abs();
    difference > stated.max(priced) / Decimal::ONE_HUNDRED
}

/// What several attempts cost together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// The known costs, added; `None` if none is known.
    pub known: Option<Usd>,
    /// Whether there may be more than that.
    pub is_partial: bool,
}

/// Adds up what is known of attempts, and says whether that may not be all.
pub fn total(attempts: &[Attempt]) -> Total {
    let known = attempts.iter().filter_map(|attempt| attempt.cost_usd).map(Usd::dollars);
    Total {
        known: known.reduce(Decimal::saturating_add).map(Usd::new),
        is_partial: attempts.iter().any(|attempt| attempt.cost_unknown.is_some()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn dollars(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn price() -> Price {
        Price {
            input: dollars("3"),
            cached_input: Some(dollars("0.3")),
            cache_write: Some(dollars("3.75")),
            output: dollars("15"),
            request: None,
            long_prompt: None,
        }
    }

    #[test]
    fn a_long_prompt_has_its_own_price_for_every_token() {
        let long = LongPrompt {
            above: 1000,
            input: dollars("6"),
            cached_input: Some(dollars("0.6")),
            cache_write: None,
            output: dollars("22.5"),
        };
        let price = Price { long_prompt: Some(long), ..price() };
        let usage = |input_tokens| Usage { input_tokens, output_tokens: 100, ..Usage::default() };
        assert_eq!(cost(Some(&usage(1000)), Some(&price)), Ok(Usd::new(dollars("0.0045"))));
        // 1001 × 6 + 100 × 22.5 = 8256
        assert_eq!(cost(Some(&usage(1001)), Some(&price)), Ok(Usd::new(dollars("0.008256"))));
    }

    #[test]
    fn rounding_is_no_difference() {
        let of = |stated, priced| differs(Usd::new(dollars(stated)), Usd::new(dollars(priced)));
        assert!(!of("0.0100", "0.0101") && !of("0", "0"));
        assert!(of("0.0100", "0.0102") && of("0", "0.01") && of("0.5", "0"));
    }

    #[test]
    fn a_fee_for_each_request_is_added_once() {
        let price = Price { request: Some(dollars("0.005")), ..price() };
        let usage = Usage { input_tokens: 1000, output_tokens: 100, ..Usage::default() };
        // (1000 × 3 + 100 × 15) / 1,000,000 + 0.005
        assert_eq!(cost(Some(&usage), Some(&price)), Ok(Usd::new(dollars("0.0095"))));
    }

    #[test]
    fn cached_and_written_tokens_cost_their_own_price_and_nothing_is_rounded() {
        let usage = Usage {
            input_tokens: 1000,
            output_tokens: 201,
            cached_input_tokens: 400,
            cache_write_input_tokens: 100,
            reasoning_tokens: 50,
        };
        // 500 × 3 + 400 × 0.3 + 100 × 3.75 + 201 × 15 = 5010
        assert_eq!(cost(Some(&usage), Some(&price())), Ok(Usd::new(dollars("0.00501"))));
        let plain = Price { cached_input: None, cache_write: None, ..price() };
        assert_eq!(cost(Some(&usage), Some(&plain)), Ok(Usd::new(dollars("0.006015"))));
    }

    #[test]
    fn what_is_unknown_is_not_zero_and_says_why() {
        assert_eq!(cost(Some(&Usage::default()), None), Err(CostUnknown::NoPrice));
        assert_eq!(cost(None, Some(&price())), Err(CostUnknown::NoUsage));
        let huge = Usage { input_tokens: u64::MAX, ..Usage::default() };
        let absurd = Price { input: Decimal::MAX, ..price() };
        assert_eq!(cost(Some(&huge), Some(&absurd)), Err(CostUnknown::TooLarge));
    }

    #[test]
    fn a_provider_that_reports_more_cached_than_input_tokens_does_not_make_it_negative() {
        let usage = Usage {
            input_tokens: 10,
            cached_input_tokens: 1000,
            cache_write_input_tokens: 1000,
            ..Usage::default()
        };
        let price = Price { cached_input: Some(Decimal::ZERO), ..price() };
        assert_eq!(cost(Some(&usage), Some(&price)), Ok(Usd::new(Decimal::ZERO)));
    }
}
