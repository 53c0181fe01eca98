//! Where the answers go.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::IgnoredAny};

use super::input;
use crate::cli::{Failure, lines::Lines, output};

/// Stdout, or a file that is only ever appended to.
pub(super) struct Sink {
    file: Option<(File, PathBuf)>,
}

/// What earlier runs left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Before {
    /// Lines that were done.
    pub(super) done: u64,
    /// How many of them had no answer.
    pub(super) failed: u64,
}

/// A line of an earlier run, as far as it matters.
#[derive(Deserialize)]
struct Earlier {
    line: u64,
    input: String,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

impl Sink {
    /// Opens the file, which may exist, for nobody else to write to.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self { file: None }) };
        let cannot = |error: io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file: Some((file, path.to_owned())) }),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::failed(format!("another command is writing to {}", path.display())))
            }
            Err(TryLockError::Error(error)) => Err(cannot(error)),
        }
    }

    /// Takes the lines that earlier runs answered off `lines`. What a kill left of a line is removed.
    pub(super) async fn skip_answered(&mut self, lines: &mut Lines) -> Result<Before, Failure> {
        let mut before = Before::default();
        let Some((file, path)) = &mut self.file else { return Ok(before) };
        let name = path.display();
        let cannot = |error: io::Error| Failure::failed(format!("cannot read {name}: {error}"));
        let mut reader = BufReader::new(&*file);
        let mut whole = 0;
        loop {
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line).map_err(cannot)?;
            if !line.ends_with(b"\n") {
                break;
            }
            let row = before.done + 1;
            let earlier: Earlier = serde_json::from_slice(&line).map_err(|_| {
                Failure::usage(format!("{name}:{row} was not written by this command; choose another --out"))
            })?;
            let asked = lines.recv().await;
            let same = asked.is_some_and(|asked| {
                asked.number == earlier.line && input::hash(&asked.content) == earlier.input
            });
            if !same {
                return Err(Failure::usage(format!(
                    "{name}:{row} is an answer to line {} of another input; choose another --out",
                    earlier.line
                )));
            }
            before.done = row;
            before.failed += u64::from(earlier.error.is_some());
            whole += read as u64;
        }
        drop(reader);
        file.set_len(whole).and_then(|()| file.seek(SeekFrom::Start(whole))).map_err(cannot)?;
        Ok(before)
    }

    /// One line, in one write: a kill can cut it, never mix it with another.
    pub(super) fn write(&mut self, line: &str) -> Result<(), Failure> {
        match &mut self.file {
            None => output::line(line),
            Some((file, path)) => file.write_all(format!("{line}\n").as_bytes()).map_err(|error| {
                Failure::failed(format!("cannot write {}: {error}; nothing before is lost", path.display()))
            }),
        }
    }
}
