//! How long something took.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A measured time, exact to the microsecond, written as a number of milliseconds such as `12.345`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis {
    micros: u64,
}

impl Millis {
    /// The measured time.
    pub fn duration(self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self { micros: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX) }
    }
}

impl Serialize for Millis {
    #[expect(clippy::cast_precision_loss, reason = "2^52 microseconds are 142 years")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.micros.is_multiple_of(1000) {
            serializer.serialize_u64(self.micros / 1000)
        } else {
            serializer.serialize_f64(self.micros as f64 / 1000.0)
        }
    }
}

impl<'de> Deserialize<'de> for Millis {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, as wanted"
    )]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let millis = f64::deserialize(deserializer)?;
        Ok(Self { micros: (millis * 1000.0).round() as u64 })
    }
}

impl JsonSchema for Millis {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Millis".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": 0, "description": "milliseconds, exact to the microsecond"})
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn microseconds_survive_the_way_through_json() {
        for micros in [0, 1, 999, 1_000, 12_345, 86_400_000_000] {
            let millis = Millis::from(Duration::from_micros(micros));
            let json = serde_json::to_string(&millis).unwrap();
            assert_eq!(serde_json::from_str::<Millis>(&json).unwrap(), millis, "{json}");
        }
        assert_eq!(serde_json::from_str::<Millis>("7").unwrap().duration(), Duration::from_millis(7));
        assert_eq!(serde_json::from_str::<Millis>("-7").unwrap(), Millis::default());
    }
}
