//! Archives: parts of the log that were written elsewhere before retention removed them. Each is a recording
//! (`throughline_schemas::recording`), so that `replay --file` and `record show` read it.
//!
//! An archive has its name only when it is whole: it is written beside it, synced, read back and compared, and renamed. A
//! process that dies in between leaves a file under another name, which is removed later; one that dies between archiving
//! and removing finds the archive again and takes it as it is.

mod bucket;
mod folder;
mod part;
mod rewrite;
mod rewrite_bucket;
mod verify;

use throughline_actors::ports::archive::ArchiveError;

pub use bucket::Bucket;
pub use folder::Folder;
pub use rewrite::Rewritten;
pub(crate) use rewrite::{archives, rewrite, theirs};
pub(crate) use rewrite_bucket::{rewrite_bucket, theirs_in_bucket};

/// Every archive ends like this.
const EXTENSION: &str = ".jsonl.gz";

fn failed(
    name: &str,
    what: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ArchiveError {
    ArchiveError::Failed { name: name.to_owned(), reason: what.to_owned(), source: Some(error.into()) }
}

/// `{namespace}-{first}-{last}.jsonl.gz`: the sequences that it covers, both included.
fn file_name(namespace: &str, first: u64, before: u64) -> String {
    format!("{namespace}-{first}-{}{EXTENSION}", before.saturating_sub(1))
}

/// The sequences in the name of an archive of this namespace: the first, and the one behind the last.
pub(crate) fn range_of(name: &str, namespace: &str) -> Option<(u64, u64)> {
    let rest = name.strip_prefix(namespace)?.strip_prefix('-')?.strip_suffix(EXTENSION)?;
    let (first, last) = rest.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use throughline_schemas::{
        Timestamp,
        recording::{FORMAT, Header, Prompt, VERSION},
    };

    use super::*;

    /// The header of an archive of the namespace `shop`.
    pub(super) fn header() -> Header {
        Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            created_at: Timestamp::from_unix_ms(0),
            namespace: "shop".to_owned(),
            selection: "messages".to_owned(),
            configuration_id: String::new(),
            configuration: serde_json::Value::Null,
            prompt: Prompt {
                id: String::new(),
                system: String::new(),
                data: String::new(),
                hash: String::new(),
            },
            redacted: Vec::new(),
        }
    }

    #[test]
    fn a_name_tells_what_it_covers_and_of_which_namespace() {
        assert_eq!(file_name("shop", 7, 100), "shop-7-99.jsonl.gz");
        assert_eq!(range_of("shop-7-99.jsonl.gz", "shop"), Some((7, 100)));
        assert_eq!(range_of("shop-eu-7-99.jsonl.gz", "shop-eu"), Some((7, 100)));
        for other in [
            "shop-eu-7-99.jsonl.gz",
            "shop-7.jsonl.gz",
            "shop-7-99.jsonl",
            "shop-7-99.jsonl.gz.part",
            "bug.jsonl.gz",
        ] {
            assert_eq!(range_of(other, "shop"), None, "{other}");
        }
    }
}
