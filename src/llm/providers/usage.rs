//! What an answer says of tokens and of money, in whatever names and places.

use rust_decimal::Decimal;
use rust_decimal::prelude::FromPrimitive;
use serde_json::{Map, Value};
use throughline_schemas::{Usage, Usd};

use super::size_limit::SizeLimit;
use super::sse::TooLarge;

/// Tokens, both sides as [`Usage`] has them. The parts of a side are never more than the side: code that subtracts them
/// must not get below zero.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub cache_write: u64,
    pub output: u64,
    pub reasoning: u64,
}

impl From<Tokens> for Usage {
    fn from(Tokens { input, cached, cache_write, output, reasoning }: Tokens) -> Self {
        let cached = cached.min(input);
        Self {
            input_tokens: input,
            output_tokens: output,
            cached_input_tokens: cached,
            cache_write_input_tokens: cache_write.min(input - cached),
            reasoning_tokens: reasoning.min(output),
        }
    }
}

/// A count: a whole number that is not negative, also as a float without a fraction.
pub(super) fn count(value: &Value) -> Option<u64> {
    /// Beyond it a float is not exact.
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    value.as_u64().or_else(|| {
        let number =
            value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=LARGEST).contains(number))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked: whole, in range"
        )]
        let count = number as u64;
        Some(count)
    })
}

/// The first count among fields of these names.
pub(super) fn first_count(fields: &Value, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| count(fields.pointer(name).unwrap_or(&Value::Null)))
}

/// Takes what a later event says into what earlier ones said. Counts only grow: a zero, a null or nothing at all does not
/// take away what was counted.
pub(super) fn merge(kept: &mut Value, later: Value, limit: &mut SizeLimit) -> Result<(), TooLarge> {
    let Value::Object(later) = later else { return Ok(()) };
    if !kept.is_object() {
        *kept = Value::Object(Map::new());
    }
    let Value::Object(fields) = kept else { return Ok(()) };
    for (name, value) in later {
        match fields.get_mut(&name) {
            Some(known) if known.is_object() && value.is_object() => merge(known, value, limit)?,
            Some(known) if !is_nothing(known) && is_nothing(&value) => {}
            Some(_) | None if value.is_null() => {}
            Some(_) | None => limit.set(fields, &name, value)?,
        }
    }
    Ok(())
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::String(_) | Value::Array(_) => false,
    }
}

/// Usage that counts nothing at all, of an answer that is one: they were not counted.
pub(super) fn is_credible(usage: &Usage) -> bool {
    usage.input_tokens > 0 || usage.output_tokens > 0
}

/// Ticks of xAI's `cost_in_usd_ticks` in a dollar.
const TICKS: Decimal = Decimal::from_parts(1_410_065_408, 2, 0, false, 0);

/// What the provider itself says that the call cost: `cost` (`OpenRouter` and its kin; what was paid to the upstream with
/// a key of one's own is added), `total_cost`, `estimated_cost` (`DeepInfra`) or `cost_in_usd_ticks` (xAI), in the usage or
/// beside it.
pub(super) fn stated_cost(raw: &Value) -> Option<Usd> {
    [&raw["usage"], &raw["x_groq"]["usage"], raw].into_iter().find_map(|holder| {
        let ticks = dollars(&holder["cost_in_usd_ticks"]).and_then(|ticks| ticks.checked_div(TICKS));
        let named = || {
            ["cost", "total_cost", "estimated_cost"].iter().find_map(|name| {
                let cost = &holder[*name];
                dollars(cost).or_else(|| dollars(&cost["total_cost"])).or_else(|| dollars(&cost["total"]))
            })
        };
        let cost = ticks.or_else(named)?;
        let upstream = if holder["is_byok"] == true {
            dollars(&holder["cost_details"]["upstream_inference_cost"]).unwrap_or_default()
        } else {
            Decimal::ZERO
        };
        cost.checked_add(upstream).map(Usd::new)
    })
}

/// An amount that is not negative, as a number or as its text.
fn dollars(value: &Value) -> Option<Decimal> {
    /// More than this for one call is no cost.
    const LARGEST: u64 = 1_000_000_000_000_000;
    let amount = match value {
        // By its digits, as far as they are those of a decimal: a float is only near it.
        Value::Number(number) => {
            let text = number.to_string();
            text.parse()
                .or_else(|_| Decimal::from_scientific(&text))
                .ok()
                .or_else(|| Decimal::from_f64(number.as_f64()?))
        }
        Value::String(text) => text.trim().trim_start_matches('$').parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }?;
    (!amount.is_sign_negative() && amount <= Decimal::from(LARGEST)).then_some(amount)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_counted_is_not_lost_to_what_follows() {
        let later = [
            json!({"input": 0, "output": 5, "details": {"cached": 0}}),
            json!({"input": null, "details": {}}),
            json!({}),
            json!(null),
            json!({"output": 7.0, "details": null, "new": 0}),
        ];
        let mut kept = json!({"input": 100, "output": 1, "details": {"cached": 90}});
        let mut limit = SizeLimit::new(1_000);
        for value in later {
            merge(&mut kept, value, &mut limit).unwrap();
        }
        assert_eq!(kept, json!({"input": 100, "output": 7.0, "details": {"cached": 90}, "new": 0}));
        let mut first = Value::Null;
        merge(&mut first, json!({"input": 3}), &mut limit).unwrap();
        assert_eq!(first, json!({"input": 3}));
    }

    #[test]
    fn a_count_is_a_whole_number() {
        for (value, expected) in [
            (json!(7), Some(7)),
            (json!(7.0), Some(7)),
            (json!(7.5), None),
            (json!(-1), None),
            (json!(1e30), None),
            (json!("7"), None),
            (json!(null), None),
        ] {
            assert_eq!(count(&value), expected, "{value}");
        }
    }

    #[test]
    fn a_stated_cost_is_read_to_the_last_digit() {
        let cost = |raw: Value| stated_cost(&raw).map(|cost| cost.to_string());
        let usage = |usage: Value| cost(json!({"usage": usage}));
        assert_eq!(usage(json!({"cost": 0.000_070_2})).as_deref(), Some("0.0000702"));
        assert_eq!(usage(json!({"cost": 7.02e-5})).as_deref(), Some("0.0000702"));
        assert_eq!(usage(json!({"cost": 0})).as_deref(), Some("0"));
        assert_eq!(usage(json!({"cost_in_usd_ticks": 37_756_000})).as_deref(), Some("0.0037756"));
        assert_eq!(usage(json!({"cost": {"total_cost": "0.5"}})).as_deref(), Some("0.5"));
        assert_eq!(usage(json!({"estimated_cost": 0.25})).as_deref(), Some("0.25"));
        let own_key =
            json!({"cost": 0.01, "is_byok": true, "cost_details": {"upstream_inference_cost": 0.2}});
        assert_eq!(usage(own_key).as_deref(), Some("0.21"));
        assert_eq!(cost(json!({"cost": 0.5})).as_deref(), Some("0.5"));
        for none in
            [json!(null), json!({"cost": -1}), json!({"cost": "much"}), json!({"cost": 1e40}), json!({})]
        {
            assert_eq!(usage(none.clone()), None, "{none}");
        }
    }
}
