//! The data folder, held by one process at a time.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use crate::cli::Failure;

/// A data folder that no other `dev` uses while this lives.
pub(super) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |doing: &str, error: &dyn std::fmt::Display| {
            Failure::failed(format!("cannot {doing} {}: {error}", path.display()))
        };
        fs::create_dir_all(path).map_err(|error| failed("create the data folder", &error))?;
        let path = path.canonicalize().map_err(|error| failed("find the data folder", &error))?;
        let lock =
            File::create(path.join("lock")).map_err(|error| failed("write to the data folder", &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Failure::failed(format!(
                "another `throughline dev` uses {}; stop it, or choose another folder with --data-dir",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(failed("lock the data folder", &error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The effective configuration, for other terminals.
    pub(super) fn config_file(&self) -> PathBuf {
        Self::config_file_in(&self.path)
    }

    /// The same of a data folder that nobody has opened.
    pub(super) fn config_file_in(folder: &Path) -> PathBuf {
        folder.join("throughline.toml")
    }
}
