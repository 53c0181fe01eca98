//! Ids that people choose, and the subject tokens that stand for them.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{EventKey, Timestamp};

/// Longest id accepted, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 256;

/// Longest id that stands in a subject as it is. Hash tokens are longer, so the two can never meet.
const MAX_LITERAL_TOKEN: usize = 64;

/// Why a text cannot be an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("is empty; give it at least one character")]
    Empty,
    /// The text is longer than [`MAX_ID_BYTES`].
    #[error("is {0} bytes long; at most {MAX_ID_BYTES} are allowed")]
    TooLong(usize),
    /// The text contains U+0000, which PostgreSQL cannot store.
    #[error("contains a NUL character; remove it")]
    Nul,
    /// The text has the form of an id that stands for an unusable one.
    #[error("ends as only ids do that stand for unusable ones; choose another")]
    Reserved,
}

/// Most of an unusable id that is kept in the one that stands for it, in bytes.
const KEPT_OF_UNUSABLE: usize = 128;
/// What stands between the two parts of such an id.
const STANDS_FOR: char = '…';

/// The subject token for `id`: the id itself if it matches `[A-Za-z0-9_-]{1,64}`, else `h` followed by the
/// lower-case hex SHA-256 of its bytes (65 characters). An id that stands for an unusable one has the token of that one.
pub fn token(id: &str) -> String {
    if let Some(token) = stands_for(id) {
        return token.to_owned();
    }
    let literal = (1..=MAX_LITERAL_TOKEN).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if literal {
        return id.to_owned();
    }
    hash_token(id)
}

fn hash_token(id: &str) -> String {
    let digest = Sha256::digest(id.as_bytes());
    let mut token = String::with_capacity(1 + 2 * digest.len());
    token.push('h');
    for byte in digest {
        token.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        token.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    token
}

/// The id under which a refusal is told if `id` cannot be one: its beginning, and its token, so that whoever listens for
/// the token of what it sent hears it.
fn stand_in(id: &str) -> String {
    let kept = id.get(..id.floor_char_boundary(KEPT_OF_UNUSABLE)).unwrap_or_default();
    format!("{}{STANDS_FOR}{}", kept.replace('\0', "\u{fffd}"), hash_token(id))
}

/// The token of what an id of that form stands for. Publishers may not use the form.
pub(crate) fn stands_for(id: &str) -> Option<&str> {
    let (_, token) = id.rsplit_once(STANDS_FOR)?;
    let digits = token.strip_prefix('h')?;
    let is_hash = digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_hash.then_some(token)
}

fn check(id: &str) -> Result<(), IdError> {
    match id.len() {
        0 => Err(IdError::Empty),
        long if long > MAX_ID_BYTES => Err(IdError::TooLong(long)),
        _ if id.contains('\0') => Err(IdError::Nul),
        _ => Ok(()),
    }
}

macro_rules! id {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and takes an id.
            pub fn new(id: impl Into<String>) -> Result<Self, IdError> {
                let id = id.into();
                check(&id)?;
                Ok(Self(id))
            }

            /// The id of a refused input that named this one, which may be unusable.
            pub(crate) fn of_refused(id: &str) -> Self {
                match Self::new(id) {
                    Ok(usable) if stands_for(id).is_none() => usable,
                    Ok(_) | Err(_) => Self(stand_in(id)),
                }
            }

            /// The id that stands where a refused input named none.
            pub fn unknown() -> Self {
                Self("unknown".to_owned())
            }

            /// The id as the user wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// What stands for this id in subjects and message ids; see [`token`].
            pub fn token(&self) -> String {
                token(&self.0)
            }
        }

        crate::string_schema::string_schema!(
            $name,
            concat!($($doc,)+ " 1 to 256 bytes of UTF-8 without U+0000."),
            // Keywords count characters, of which there are never more than bytes.
            {"minLength": 1, "maxLength": MAX_ID_BYTES}
        );

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(id: String) -> Result<Self, IdError> {
                Self::new(id)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// One run of the workflow, from `user_input_received` to its end.
    WorkflowId
);
id!(
    /// A conversation. Workflows of one session run one at a time, in stream order.
    SessionId
);
id!(
    /// Whose conversation it is.
    UserId
);

impl WorkflowId {
    /// The `CloudEvents` id of an event of this workflow: `{workflow token}.{event type}`, or
    /// `{workflow token}.{event type}.{step path}`.
    pub fn event_id(&self, key: impl Into<EventKey>) -> String {
        format!("{}.{}", self.token(), key.into())
    }

    /// A time-ordered id that is a function of an instant and a digest: the same each time it is asked for.
    pub fn derive(at: Timestamp, digest: &[u8]) -> Self {
        let mut random = [0; 10];
        for (to, from) in random.iter_mut().zip(digest) {
            *to = *from;
        }
        Self::generate(u64::try_from(at.unix_ms()).unwrap_or(0), random)
    }

    /// A new time-ordered id (UUID version 7) for an instant in Unix milliseconds.
    pub fn generate(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid().to_string())
    }
}

impl WorkflowId {
    /// The id under which it is told that a message asked for this id, which is another message's: `sequence` is that of
    /// the message that was refused. `{base}-conflict-{sequence}`, with [`WorkflowId::conflict_base`].
    #[must_use]
    pub fn of_conflict(&self, sequence: u64) -> Self {
        Self(format!("{}-conflict-{sequence}", self.conflict_base()))
    }

    /// What stands for this id in the ids of its conflicts, which are plain tokens whatever the id is: its token, or
    /// `h` and the first 32 hex digits of its SHA-256 where that would be too long.
    pub fn conflict_base(&self) -> String {
        // More messages than 16 digits count are in no stream.
        const SUFFIX: usize = "-conflict-".len() + 16;
        let token = self.token();
        if token.len() + SUFFIX <= MAX_LITERAL_TOKEN {
            return token;
        }
        let hash = if token == self.0 { hash_token(&self.0) } else { token };
        hash.chars().take(33).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_conflict_has_an_id_of_its_own_that_stands_in_a_subject_as_it_is() {
        let of = |id: &str, sequence| WorkflowId::new(id).unwrap().of_conflict(sequence);
        assert_eq!(of("order-77", 12).as_str(), "order-77-conflict-12");
        let uuid = "0199d3c8-7d6b-7b1e-9a43-5a3f0c1d2e4f";
        assert_eq!(of(uuid, 9_999_999_999_999_999).as_str(), format!("{uuid}-conflict-9999999999999999"));
        for odd in ["a b", "*", &"x".repeat(64), &"y".repeat(256)] {
            let conflict = of(odd, u64::from(u32::MAX));
            assert_eq!(conflict.token(), conflict.as_str(), "{odd}");
            assert_ne!(conflict, of(odd, 1));
        }
        assert_ne!(of(&"x".repeat(64), 1), of(&"x".repeat(63), 1));
    }

    #[test]
    fn plain_ids_stand_as_they_are_and_all_others_become_fixed_length_hashes() {
        let longest = "a".repeat(64);
        for plain in ["a", "user-1", "A_b-9", longest.as_str()] {
            assert_eq!(token(plain), plain);
        }
        let too_long = "a".repeat(65);
        for other in ["", ".", "*", ">", "a b", "a\tb", "a\r\nPUB x 0\r\n", "näive", too_long.as_str()] {
            let token = token(other);
            assert_eq!(token.len(), 65, "{other:?}");
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric()), "{token}");
        }
    }

    #[test]
    fn ids_that_no_store_could_hold_are_refused() {
        assert_eq!(UserId::new(""), Err(IdError::Empty));
        assert_eq!(UserId::new("x".repeat(257)), Err(IdError::TooLong(257)));
        assert_eq!(UserId::new("a\0b"), Err(IdError::Nul));
        assert_eq!(UserId::new(" ").unwrap().as_str(), " ");
    }

    #[test]
    fn what_stands_for_an_unusable_id_has_its_token_and_can_be_stored() {
        for unusable in ["", "a\0b", "\0", &"x".repeat(257), &"é".repeat(32_768)] {
            let stands = WorkflowId::of_refused(unusable);
            assert_eq!(stands.token(), token(unusable), "{unusable:.9}");
            assert_eq!(WorkflowId::new(stands.as_str()), Ok(stands.clone()), "it can be read");
            assert!(!stands.as_str().is_empty() && !stands.as_str().contains('\0'));
        }
        assert_eq!(UserId::of_refused("ann").as_str(), "ann");
        let long = "x".repeat(300);
        let posing = WorkflowId::of_refused(&long);
        assert_ne!(
            WorkflowId::of_refused(posing.as_str()).token(),
            posing.token(),
            "nobody poses as another"
        );
        for plain in ["a…b", "…", "a…h12"] {
            assert_eq!(WorkflowId::of_refused(plain).as_str(), plain);
        }
    }

    #[test]
    fn generated_workflow_ids_sort_by_time() {
        let earlier = WorkflowId::generate(1_000, [255; 10]);
        let later = WorkflowId::generate(1_001, [0; 10]);
        assert!(earlier < later);
    }
}
