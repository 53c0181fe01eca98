//! The name of the elements in which a prompt has data: new for each prompt, so that no text that gets into it can
//! contain one.

use std::fmt;

/// Digits of a random name. Tokenizers count digits by threes, so that all names have the same number of tokens.
const DIGITS: usize = 18;
/// How many such names there are: 10 to the power of [`DIGITS`].
const NAMES: u64 = 1_000_000_000_000_000_000;
/// What every name begins with.
const PREFIX: &str = "data";

/// See the module's documentation. `Display` writes the name: `data-123456789012345678`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tag(Option<u64>);

impl Tag {
    /// `data`: for templates that write the name themselves, and for records of the time when all did.
    pub const PLAIN: Self = Self(None);

    /// A name made of random bits. The same bits make the same name.
    pub fn random(bits: u64) -> Self {
        Self(Some(bits % NAMES))
    }

    /// The name that is on record.
    pub fn of_record(name: Option<&str>) -> Self {
        let digits = name.and_then(|name| name.strip_prefix(PREFIX)?.strip_prefix('-'));
        Self(digits.filter(|digits| digits.len() == DIGITS).and_then(|digits| digits.parse().ok()))
    }

    /// Bits that make this name; none, if it is not random.
    pub fn bits(self) -> Option<u64> {
        self.0
    }

    /// An element of this name with a text of others in it, which cannot close it.
    pub(crate) fn enclose(self, source: &str, json: &str) -> String {
        format!("<{self} source=\"{source}\">\n{json}\n</{self}>")
    }

    /// What stands in an element that [`Tag::enclose`] made for this source.
    pub(crate) fn enclosed(self, source: &str, text: &str) -> Option<String> {
        let inner = text.strip_prefix(&format!("<{self} source=\"{source}\">\n"))?;
        Some(inner.strip_suffix(&format!("\n</{self}>"))?.to_owned())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{PREFIX}-{number:0DIGITS$}"),
            None => f.write_str(PREFIX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_from_the_record_with_its_bits() {
        for bits in [0, 7, NAMES - 1, NAMES, u64::MAX] {
            let tag = Tag::random(bits);
            let name = tag.to_string();
            assert_eq!((name.len(), Tag::of_record(Some(&name))), (PREFIX.len() + 1 + DIGITS, tag));
            assert_eq!(tag.bits().map(Tag::random), Some(tag));
        }
        for plain in [None, Some("data"), Some("data-1"), Some("other-000000000000000000")] {
            assert_eq!(Tag::of_record(plain), Tag::PLAIN);
        }
    }

    #[test]
    fn what_is_enclosed_comes_out_again() {
        let tag = Tag::random(42);
        let text = tag.enclose("orders", "{}");
        assert_eq!(tag.enclosed("orders", &text).as_deref(), Some("{}"));
        assert_eq!((tag.enclosed("other", &text), Tag::PLAIN.enclosed("orders", &text)), (None, None));
    }
}
