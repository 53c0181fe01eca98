//! `throughline schema export`: the `AsyncAPI` document and JSON Schemas of the events.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use throughline_schemas::export;

/// The documents could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SchemaError {
    /// A file or its directory.
    #[error("cannot write {}; give a directory that can be written with --out", .path.display())]
    File {
        /// What could not be written.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The standard output.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

/// Writes every document into the directory `out`, which is made if it is missing, and returns the files in the order
/// in which they were written. Without `out` the `AsyncAPI` document, which contains every schema, goes to standard
/// output.
pub(super) fn run(out: Option<&Path>) -> Result<Vec<PathBuf>, SchemaError> {
    let Some(directory) = out else {
        return print(&export::asyncapi().text).map(|()| Vec::new());
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SchemaError::File { path, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let mut written = Vec::new();
    for document in export::documents() {
        let path = directory.join(document.name);
        fs::write(&path, document.text).map_err(failed(&path))?;
        written.push(path);
    }
    Ok(written)
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), SchemaError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(SchemaError::Stdout(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use throughline_actors::{dependency::announcer::BreakerMoved, policy::breaker::BreakerState};
    use throughline_schemas::{StageName, Timestamp};

    use super::*;

    fn asyncapi() -> Value {
        serde_json::from_str(&export::asyncapi().text).unwrap()
    }

    #[test]
    fn a_directory_gets_every_document_and_may_be_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("made/on/the/way");
        let written = run(Some(&out)).unwrap();
        assert_eq!(run(Some(&out)).unwrap(), written);
        for (path, document) in written.iter().zip(export::documents()) {
            assert_eq!(fs::read_to_string(path).unwrap(), document.text, "{}", path.display());
        }
        assert_eq!(fs::read_dir(&out).unwrap().count(), written.len());

        let in_the_way = &written[0];
        let error = run(Some(in_the_way)).unwrap_err().to_string();
        assert!(error.contains(&in_the_way.display().to_string()), "{error}");
    }

    #[test]
    fn the_document_tells_the_journey_that_the_actors_make() {
        let operations = asyncapi()["operations"].clone();
        for stage in StageName::ALL {
            let receives = &operations[format!("{stage}_receives_{}", stage.consumes())];
            assert_eq!(receives["action"], "receive", "{stage}");
            assert_eq!(receives["channel"]["$ref"], format!("#/channels/{}", stage.consumes()));
            let sends = &operations[format!("{stage}_sends_{}", stage.publishes())];
            assert_eq!(sends["action"], "send", "{stage}");
            assert_eq!(sends["channel"]["$ref"], format!("#/channels/{}", stage.publishes()));
        }
    }

    #[test]
    fn the_document_tells_what_the_announcer_says() {
        let schemas = asyncapi()["components"]["schemas"].clone();
        let said = json!(BreakerMoved {
            stage: StageName::Generation,
            dependency: "openai".to_owned(),
            from: BreakerState::Closed,
            to: BreakerState::Open,
            at: Timestamp::from_unix_ms(0),
            class: Some("server"),
            cause: Some("the provider failed".to_owned()),
        });
        let said: BTreeSet<_> = said.as_object().unwrap().keys().collect();
        let described: BTreeSet<_> =
            schemas["BreakerMoved"]["properties"].as_object().unwrap().keys().collect();
        assert_eq!(said, described);
        let states: Vec<_> =
            schemas["BreakerState"]["oneOf"].as_array().unwrap().iter().map(|s| s["const"].clone()).collect();
        assert_eq!(json!(states), json!([BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen]));
    }
}
