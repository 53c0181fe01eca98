//! Money is decimal. A price nobody configured is `None` where it is used, never zero.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::string_schema::string_schema;

/// An amount of US dollars, written as a decimal string such as `"0.000195"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usd(#[serde(with = "rust_decimal::serde::str")] Decimal);

impl Usd {
    /// An amount in dollars; trailing zeros are dropped so that equal amounts are written alike.
    pub fn new(dollars: Decimal) -> Self {
        Self(dollars.normalize())
    }

    /// The amount in dollars.
    pub fn dollars(self) -> Decimal {
        self.0
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

string_schema!(Usd, "An amount of US dollars, exact.", {"examples": ["0.000195"], "pattern": r"^-?\d+(\.\d+)?$"});
