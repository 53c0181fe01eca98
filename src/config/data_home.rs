//! Where the database is when nobody says: at a place that does not depend on the folder in which a program is started.

use std::path::{Path, PathBuf};

use super::{Config, Env, Origin, SecretUrl, field::Field, url::sqlite_url};

/// Where the database was by default in earlier versions, in the working directory.
const FORMER_DEFAULT: &str = "throughline.db";

/// `$XDG_DATA_HOME`, else `~/.local/share`; relative ones count as not set, as the specification says.
fn data_home(env: &Env) -> Option<PathBuf> {
    let absolute = |name: &str| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))
}

/// The file of a namespace's database.
pub(super) fn default_file(env: &Env, namespace: &str) -> Option<PathBuf> {
    Some(data_home(env)?.join("throughline").join(format!("{namespace}.db")))
}

impl Config {
    /// Gives the database its default place, unless it has been told one. There is none without a home.
    pub(super) fn place_database(&mut self, env: &Env) {
        if !self.database.url.expose().is_empty() {
            return;
        }
        let Some(file) = default_file(env, &self.nats.namespace) else { return };
        let url = SecretUrl::new(sqlite_url(&file));
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.full_key() == "database.url") {
            entry.value = Some(url.shown());
            entry.origin = Origin::Default;
        }
        self.database.url = url;
        self.database.default_file = Some(file);
    }

    /// A database in the working directory that is not used because `database.url` is not set any more; what to write
    /// to use it.
    pub fn unused_database(&self) -> Option<String> {
        self.unused_database_in(Path::new(""))
    }

    fn unused_database_in(&self, directory: &Path) -> Option<String> {
        let used = self.database.default_file.as_ref()?;
        let found = std::path::absolute(directory.join(FORMER_DEFAULT)).ok()?;
        if !found.is_file() || found == *used {
            return None;
        }
        Some(format!(
            "{} is there and is not used: database.url is not set, and its default is {}; to use it, set database.url = \
             \"{}\"",
            found.display(),
            used.display(),
            sqlite_url(&found)
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Layers;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn url(pairs: &[(&str, &str)], text: &str) -> String {
        let layers = Layers { env: env(pairs), ..Layers::default() };
        layers.load_text("t.toml", text).unwrap().database.url.expose().to_owned()
    }

    #[test]
    fn the_default_is_an_absolute_place_of_the_namespace() {
        let home = ("HOME", "/home/ada");
        assert_eq!(url(&[home], ""), "sqlite:///home/ada/.local/share/throughline/throughline.db");
        let data = ("XDG_DATA_HOME", "/data/a b#c");
        let other = "[nats]\nnamespace = \"shop\"";
        assert_eq!(url(&[home, data], other), "sqlite:///data/a b%23c/throughline/shop.db");
        assert_eq!(
            url(&[home, ("XDG_DATA_HOME", "rel")], other),
            "sqlite:///home/ada/.local/share/throughline/shop.db"
        );
        assert_eq!(url(&[("HOME", "")], ""), "", "there is none");
        assert_eq!(url(&[home], "[database]\nurl = \"sqlite://x.db\""), "sqlite://x.db");
    }

    #[test]
    fn a_database_that_is_left_behind_is_named_with_what_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers { env: env(&[("HOME", "/home/ada")]), ..Layers::default() };
        let config = layers.load_text("t.toml", "").unwrap();
        assert_eq!(config.unused_database_in(dir.path()), None);
        std::fs::write(dir.path().join("throughline.db"), "").unwrap();
        let told = config.unused_database_in(dir.path()).unwrap();
        let write = format!("set database.url = \"sqlite://{}/throughline.db\"", dir.path().display());
        assert!(told.contains(&write), "{told}");
        let set = layers.load_text("t.toml", "[database]\nurl = \"sqlite://x.db\"").unwrap();
        assert_eq!(set.unused_database_in(dir.path()), None);
    }
}
