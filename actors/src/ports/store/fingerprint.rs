//! What a message says, as a short value that can be compared.

use std::fmt;

use sha2::{Digest, Sha256};
use throughline_schemas::{SessionId, UserId};

/// A hash of what makes a message the message that it is: who says what, where. Two messages with the same workflow id
/// and another fingerprint are two messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; Self::BYTES]);

impl Fingerprint {
    /// Its length.
    pub const BYTES: usize = 32;

    /// Of a message of this user in this session, with this normalised text. `source` is that of a CloudEvent, whose id
    /// is unique within its source only.
    pub fn of(user: &UserId, session: &SessionId, text: &str, source: Option<&str>) -> Self {
        let mut hash = Sha256::new();
        for part in [user.as_str(), session.as_str(), text].into_iter().chain(source) {
            // With its length, so that no two lists of parts are one text.
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// As a store keeps it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The first 16 hex digits: enough to tell apart what is published under one workflow id.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl TryFrom<&[u8]> for Fingerprint {
    type Error = std::array::TryFromSliceError;

    fn try_from(stored: &[u8]) -> Result<Self, Self::Error> {
        stored.try_into().map(Self)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(")?;
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_part_and_its_place_count() {
        let of = |user: &str, session: &str, text: &str, source: Option<&str>| {
            Fingerprint::of(&UserId::new(user).unwrap(), &SessionId::new(session).unwrap(), text, source)
        };
        let all = [
            of("ann", "s", "hello", None),
            of("ben", "s", "hello", None),
            of("ann", "t", "hello", None),
            of("ann", "s", "hello!", None),
            of("ann", "s", "hello", Some("")),
            of("ann", "s", "hello", Some("/shop")),
            of("ann", "sh", "ello", None),
            of("an", "ns", "hello", None),
        ];
        for (n, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(n));
            assert_eq!(Fingerprint::try_from(one.as_bytes()).unwrap(), *one);
        }
        assert!(Fingerprint::try_from(&[0_u8; 31][..]).is_err());
    }
}
