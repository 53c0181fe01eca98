//! What a message says, as a short value that can be compared.

use std::fmt;

use sha2::{Digest, Sha256};
use throughline_schemas::{SessionId, UserId};

/// A hash of what makes a message the message that it is: who says what, where. Two messages with the same workflow id
/// that do not say the same ([`Fingerprint::says_the_same`]) are two messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; Self::BYTES]);

impl Fingerprint {
    /// Its length.
    pub const BYTES: usize = 32;
    /// How much of it is about the source; nothing but zeros if there is none.
    const SOURCE_BYTES: usize = 8;

    /// Of a message of this user in this session, with this normalised text. `source` is that of a CloudEvent, whose id
    /// is unique within its source only.
    pub fn of(user: &UserId, session: &SessionId, text: &str, source: Option<&str>) -> Self {
        let mut hash = Sha256::new();
        for part in [user.as_str(), session.as_str(), text] {
            // With its length, so that no two lists of parts are one text.
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let mut all: [u8; Self::BYTES] = hash.finalize().into();
        let (_, of_source) = all.split_at_mut(Self::BYTES - Self::SOURCE_BYTES);
        of_source.fill(0);
        if let Some(source) = source {
            for (byte, hashed) in of_source.iter_mut().zip(Sha256::digest(source)) {
                *byte = hashed;
            }
        }
        Self(all)
    }

    /// Whether two messages are one, published twice. Of two that name a source it has to be the same; a message that
    /// is no CloudEvent names none and may be either's.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let (said, source) = self.0.split_at(Self::BYTES - Self::SOURCE_BYTES);
        let (others, others_source) = other.0.split_at(Self::BYTES - Self::SOURCE_BYTES);
        let is_unknown = |source: &[u8]| source.iter().all(|byte| *byte == 0);
        said == others && (source == others_source || is_unknown(source) || is_unknown(others_source))
    }

    /// As a store keeps it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The first 16 hex digits: enough to distinguish what is published under one workflow id.
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
        let sources = [None, Some("/shop"), Some("/other")].map(|source| of("ann", "s", "hello", source));
        let alike = sources.map(|one| sources.map(|other| one.says_the_same(&other)));
        assert_eq!(alike, [[true, true, true], [true, true, false], [true, false, true]]);
        assert!(!of("ann", "s", "hello", None).says_the_same(&of("ben", "s", "hello", None)));
    }
}
