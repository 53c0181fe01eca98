//! Which versions of the event format this build reads and writes; the rule is in the crate's documentation.

use crate::event::EventType;

/// The one major version that this build reads and writes.
pub const MAJOR: u32 = 1;

const PREFIX: &str = "urn:throughline:event:";

/// The version is not one that this build reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// `dataschema` names another version.
    #[error("dataschema {0:?} names a version this build does not read; it reads v{MAJOR}")]
    DataSchema(String),
    /// `specversion` is not CloudEvents 1.0.
    #[error("specversion {0:?} is not supported; CloudEvents 1.0 is")]
    SpecVersion(String),
}

/// The `dataschema` written for an event type, for example `urn:throughline:event:input_validated:v1`.
pub fn data_schema(event_type: EventType) -> String {
    format!("{PREFIX}{event_type}:v{MAJOR}")
}

/// Accepts CloudEvents 1.0 only.
pub(crate) fn check_spec(specversion: &str) -> Result<(), VersionError> {
    if specversion == "1.0" { Ok(()) } else { Err(VersionError::SpecVersion(specversion.to_owned())) }
}

/// Accepts an absent schema, our own at [`MAJOR`], and a publisher's own schema that names no version.
/// A schema whose last segment is a version other than ours is refused: its data may mean something else.
pub(crate) fn check_schema(data_schema: Option<&str>) -> Result<(), VersionError> {
    let Some(schema) = data_schema else { return Ok(()) };
    let last = schema.rsplit([':', '/', '#']).next().unwrap_or(schema);
    let number = last.strip_prefix(['v', 'V']).unwrap_or(last);
    let major = number.split('.').next().unwrap_or(number).parse::<u32>();
    let readable = match major {
        Ok(major) => major == MAJOR,
        Err(_) => !schema.starts_with(PREFIX),
    };
    if readable { Ok(()) } else { Err(VersionError::DataSchema(schema.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_version_and_foreign_schemas_pass_other_versions_do_not() {
        for fine in
            [None, Some("urn:throughline:event:input_validated:v1"), Some("https://example.com/chat.json")]
        {
            assert_eq!(check_schema(fine), Ok(()), "{fine:?}");
        }
        for bad in [
            "urn:throughline:event:input_validated:v2",
            "https://example.com/chat/v99",
            "urn:throughline:event:x",
        ] {
            assert_eq!(check_schema(Some(bad)), Err(VersionError::DataSchema(bad.to_owned())));
        }
        assert!(check_spec("0.3").is_err());
    }
}
