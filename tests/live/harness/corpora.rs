//! Material that nobody here wrote: `THROUGHLINE_CORPORA`, else `../shared/corpora`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::left_out;

/// The folder `name` of the corpora; where there is none, the test says so and ends.
pub fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("THROUGHLINE_CORPORA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora"), PathBuf::from);
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    left_out::say(&format!("there is no corpus {name} in {}; set THROUGHLINE_CORPORA", root.display()));
    None
}

/// The records of a JSON Lines file.
pub fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("a corpus");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
