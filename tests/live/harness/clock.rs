//! A wrong clock for one process: libfaketime, which Debian and others have as a package.

use std::path::PathBuf;

use super::left_out;

/// The environment of a process whose clock is so many seconds ahead, or behind; says so if that is not possible here.
pub fn ahead_by(seconds: i64) -> Option<[(&'static str, String); 2]> {
    let Some(library) = find() else {
        left_out::say("no libfaketime (Debian: faketime)");
        return None;
    };
    Some([("LD_PRELOAD", library.display().to_string()), ("FAKETIME", format!("{seconds:+}"))])
}

/// The one for programs with several threads.
fn find() -> Option<PathBuf> {
    const NAME: &str = "faketime/libfaketimeMT.so.1";
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    // Debian has one folder for each architecture.
    let within = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    folders.into_iter().chain(within).map(|folder| folder.join(NAME)).find(|file| file.is_file())
}
