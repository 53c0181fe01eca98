//! `[users]`: what one user may take of what all share.

use std::num::NonZeroU32;

use throughline_actors::workflow::users::RunningLimit;

use super::field::Field;
use super::reader::Section;
use super::tree::Value;

/// The name of [`RunningLimit::Shared`].
const AUTO: &str = "auto";

impl Field for RunningLimit {
    fn read(value: &Value) -> Result<Self, String> {
        if let Ok(number) = u32::read(value) {
            return Ok(NonZeroU32::new(number).map_or(Self::Unlimited, Self::Fixed));
        }
        match String::read(value) {
            Ok(name) if name == AUTO => Ok(Self::Shared),
            Ok(_) | Err(_) => {
                Err(format!("expected {AUTO:?}, or how many turns of a user may run (0: any number)"))
            }
        }
    }

    fn shown(&self) -> toml::Value {
        match self {
            Self::Shared => toml::Value::String(AUTO.to_owned()),
            Self::Fixed(number) => toml::Value::Integer(i64::from(number.get())),
            Self::Unlimited => toml::Value::Integer(0),
        }
    }
}

/// `[users]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Users {
    /// How many turns of one user run at once: `auto` (the default) shares what there is, a number is a limit, 0 is none.
    pub running: RunningLimit,
    /// How many turns of one user may be open, waiting or running; more fail as `too_many_open`. 0, the default, is any
    /// number.
    pub open: Option<NonZeroU32>,
}

impl Users {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self {
            running: s.or("running", d.running),
            open: NonZeroU32::new(s.within("open", d.open.map_or(0, NonZeroU32::get), 0..=1_000_000)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_limit_is_a_number_a_word_or_none() {
        let read = |raw: &str| RunningLimit::read(&Value::Raw(raw.to_owned()));
        assert_eq!(read("auto"), Ok(RunningLimit::Shared));
        assert_eq!(read("0"), Ok(RunningLimit::Unlimited));
        assert_eq!(read("3"), Ok(RunningLimit::Fixed(NonZeroU32::new(3).unwrap())));
        for wrong in ["many", "-1", "1.5"] {
            assert!(read(wrong).unwrap_err().contains("auto"), "{wrong}");
        }
    }
}
