//! A small disk that can be full: a tmpfs that the test mounts.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::left_out;

pub struct Disk(tempfile::TempDir);

impl Disk {
    /// Mounts one, or says why this machine cannot.
    pub fn mount(mib: usize) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                left_out::say(&format!("no tmpfs can be mounted here: {why}"));
                None
            }
            Err(error) => {
                left_out::say(&format!("no tmpfs can be mounted here: {error}"));
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no room.
    pub fn fill(&self) {
        let mut file = File::create(self.ballast()).expect("a file");
        let mut block = vec![0; 1 << 20];
        while !block.is_empty() {
            if file.write_all(&block).is_err() {
                block.truncate(block.len() / 2);
            }
        }
    }

    /// Makes room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("it was filled");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open is about to end.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// A folder that is to be seen a second time, where nothing can be written: a mount of the same files.
pub struct ReadOnly(tempfile::TempDir);

impl ReadOnly {
    /// Mounts it, or says why this machine cannot.
    pub fn mount(folder: &Path) -> Option<Self> {
        let there = Self(tempfile::tempdir().expect("a temporary directory"));
        let (from, to) = (folder.display().to_string(), there.path().display().to_string());
        // One call does not do both.
        for arguments in [vec!["--bind", &from, &to], vec!["-o", "remount,bind,ro", &to]] {
            let mounted = Command::new("mount").args(arguments).output();
            if !mounted.is_ok_and(|output| output.status.success()) {
                left_out::say("nothing can be mounted read-only here");
                return None;
            }
        }
        Some(there)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        // Before the folder is removed: what is mounted in it belongs to somebody.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).stderr(Stdio::null()).status();
    }
}
