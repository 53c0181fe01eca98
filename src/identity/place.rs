//! Where a database is, in words that hold for every process and have no secret in them.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use sqlx::{postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use crate::system::host_name;

/// `sqlite HOST:/PATH` or `postgres HOST:PORT/NAME`.
pub fn place(url: &str) -> String {
    if url.starts_with("sqlite:") {
        let file = SqliteConnectOptions::from_str(url).map(|options| options.get_filename().to_owned());
        let file = file.unwrap_or_else(|_| PathBuf::from(url));
        return format!("sqlite {}:{}", host_name(), canonical(&file).display());
    }
    let Ok(options) = PgConnectOptions::from_str(url) else { return "an unreadable database.url".to_owned() };
    let host = options.get_socket().map_or_else(
        || options.get_host().to_owned(),
        |socket| format!("{}:{}", host_name(), socket.display()),
    );
    let name = options.get_database().unwrap_or_else(|| options.get_username());
    format!("postgres {host}:{}/{name}", options.get_port())
}

/// The one name of a file, also of one that does not exist yet in a folder that does.
fn canonical(file: &Path) -> PathBuf {
    if let Ok(file) = file.canonicalize() {
        return file;
    }
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let folder = absolute.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, absolute.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        (Some(_) | None, _) => absolute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_no_password_and_does_not_depend_on_how_it_was_written() {
        let postgres = place("postgres://ada:secret@db.internal/shop?sslmode=disable");
        assert_eq!(postgres, "postgres db.internal:5432/shop");
        let (here, there) = (place("sqlite://a.db"), place("sqlite://./b/../a.db"));
        assert!(here.starts_with(&format!("sqlite {}:/", host_name())), "{here}");
        assert!(here.ends_with("/a.db") && !there.is_empty(), "{there}");
    }
}
