//! What earlier runs left in the file of answers.
//!
//! Lines of output stand in the order of the input. Where a line without an answer was asked again, its new line stands
//! behind the others until the run is over and puts each in its place: so a kill at any time loses nothing that was paid.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::Path,
};

use serde::{Deserialize, de::IgnoredAny};

use crate::cli::Failure;

/// One line of input that has been asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// Content hash of the line of input.
    input: u64,
    pub(super) has_answer: bool,
    /// Where its latest line of output stands: from which byte, how many.
    place: (u64, u64),
    /// Which line of the file that is, from 1.
    row: u64,
}

/// Lines of input that have been asked, by their number.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    asked: BTreeMap<u64, Asked>,
    /// Some stand behind others that come later in the input.
    is_out_of_order: bool,
    /// Bytes of whole lines; what a kill left of another one stands behind them.
    whole: u64,
}

#[derive(Deserialize)]
struct Row {
    line: u64,
    input: String,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

impl Earlier {
    /// Reads what is there.
    pub(super) fn read(file: &File, path: &Path) -> Result<Self, Failure> {
        let mut earlier = Self::default();
        let mut reader = BufReader::new(file);
        for row in 1.. {
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line).map_err(|error| cannot_read(path, &error))?;
            if !line.ends_with(b"\n") {
                break;
            }
            let written: Option<Row> = serde_json::from_slice(&line).ok();
            let Some((written, input)) = written.and_then(|row| {
                let input = input_of(&row.input)?;
                Some((row, input))
            }) else {
                let name = path.display();
                return Err(Failure::usage(format!(
                    "{name}:{row} was not written by this command; choose another --out"
                )));
            };
            let last = earlier.asked.last_key_value().map_or(0, |(last, _)| *last);
            earlier.is_out_of_order |= written.line <= last;
            let place = (earlier.whole, read as u64);
            let asked = Asked { input, has_answer: written.error.is_none(), place, row };
            earlier.asked.insert(written.line, asked);
            earlier.whole += read as u64;
        }
        Ok(earlier)
    }

    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    /// How many lines of input were asked, and how many of them have no answer.
    pub(super) fn count(&self) -> (u64, u64) {
        let failed = self.asked.values().filter(|asked| !asked.has_answer).count();
        (self.asked.len() as u64, failed as u64)
    }

    /// What became of a line of input, if it was asked; refused if that was another one.
    pub(super) fn of(&mut self, line: u64, input: &str, path: &Path) -> Result<Option<Asked>, Failure> {
        // Lines come in their order, so that one which is not among them any more belongs to another input.
        let other = |number: u64, row: u64| {
            let name = path.display();
            Failure::usage(format!(
                "{name}:{row} is an answer to line {number} of another input; choose another --out"
            ))
        };
        match self.asked.pop_first() {
            None => Ok(None),
            Some((number, asked)) if number == line && Some(asked.input) == input_of(input) => {
                Ok(Some(asked))
            }
            Some((number, asked)) => Err(other(number, asked.row)),
        }
    }

    /// Refuses what has more lines than the input, which has been read to its end.
    pub(super) fn finish(&mut self, path: &Path) -> Result<(), Failure> {
        match self.asked.first_key_value().map(|(number, _)| *number) {
            None => Ok(()),
            // No line of input has the number 0.
            Some(_) => self.of(0, "", path).map(drop),
        }
    }
}

/// Puts every line of output in its place, the latest of each, whole or not at all.
pub(super) fn put_in_order(file: &File, path: &Path) -> Result<(), Failure> {
    let failed = |error: &io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    let mut file = file.try_clone().map_err(|error| failed(&error))?;
    file.seek(SeekFrom::Start(0)).map_err(|error| cannot_read(path, &error))?;
    let earlier = Earlier::read(&file, path)?;
    if !earlier.is_out_of_order {
        return Ok(());
    }
    // A link stays one.
    let path = path.canonicalize().map_err(|error| failed(&error))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut write = || {
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        for asked in earlier.asked.values() {
            let (from, bytes) = asked.place;
            file.seek(SeekFrom::Start(from))?;
            io::copy(&mut Read::by_ref(&mut file).take(bytes), &mut new)?;
        }
        new.as_file().set_permissions(file.metadata()?.permissions())?;
        new.flush()?;
        new.as_file().sync_all()?;
        new.persist(&path).map_err(|error| error.error).map(drop)
    };
    write().map_err(|error| failed(&error))
}

/// A hash as a number.
fn input_of(hash: &str) -> Option<u64> {
    u64::from_str_radix(hash, 16).ok()
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FAILED: &str = r#"{"line":1,"input":"a","error":{}}"#;
    const SECOND: &str = r#"{"line":2,"input":"b","text":"two"}"#;
    const FIRST: &str = r#"{"line":1,"input":"a","text":"one"}"#;

    #[test]
    fn the_latest_line_of_each_counts_and_gets_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        std::fs::write(&path, format!("{FAILED}\n{SECOND}\n{FIRST}\n{{\"line\":3,\"inp")).unwrap();
        let file = File::open(&path).unwrap();
        let mut earlier = Earlier::read(&file, &path).unwrap();
        assert_eq!(earlier.count(), (2, 0));
        assert_eq!(earlier.whole(), (FAILED.len() + SECOND.len() + FIRST.len() + 3) as u64);
        assert!(earlier.of(1, "a", &path).unwrap().unwrap().has_answer);
        let other = earlier.of(2, "c", &path).unwrap_err();
        assert!(other.message.contains("out.jsonl:2 is an answer to line 2 of another input"), "{other:?}");

        put_in_order(&file, &path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{FIRST}\n{SECOND}\n"));
        put_in_order(&File::open(&path).unwrap(), &path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{FIRST}\n{SECOND}\n"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_input_that_is_shorter_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        std::fs::write(&path, format!("{FAILED}\n")).unwrap();
        let mut earlier = Earlier::read(&File::open(&path).unwrap(), &path).unwrap();
        assert!(earlier.finish(&path).is_err());
        assert!(earlier.finish(&path).is_ok());
        assert_eq!(earlier.of(1, "a", &path).unwrap(), None);
    }
}
