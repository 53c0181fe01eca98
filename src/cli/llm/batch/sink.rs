//! Where the answers go.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::earlier::{Earlier, put_in_order};
use crate::cli::{Failure, output};

/// Stdout, or a file that is only ever appended to.
pub(super) struct Sink {
    file: Option<(File, PathBuf)>,
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

    /// What earlier runs left. What a kill left of a line is removed.
    pub(super) fn earlier(&mut self) -> Result<Option<(Earlier, PathBuf)>, Failure> {
        let Some((file, path)) = &mut self.file else { return Ok(None) };
        let earlier = Earlier::read(file, path)?;
        let whole = earlier.whole();
        file.set_len(whole)
            .and_then(|()| file.seek(SeekFrom::Start(whole)))
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
        Ok(Some((earlier, path.clone())))
    }

    /// Every line that is asked has been: each gets its place.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        match &self.file {
            None => Ok(()),
            Some((file, path)) => put_in_order(file, path),
        }
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
