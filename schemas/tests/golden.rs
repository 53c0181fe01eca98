//! The format of events as it is promised to others: golden files that every version must read, and the documents
//! generated from the types. Golden files are added to and never edited: an event of this version may lie in a stream
//! for as long as the version is read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "golden/agreement.rs"]
mod agreement;
#[path = "golden/drift.rs"]
mod drift;
#[path = "golden/files.rs"]
mod files;
#[path = "golden/hostile.rs"]
mod hostile;
#[path = "golden/refused.rs"]
mod refused;

use std::{fs, path::PathBuf, sync::LazyLock};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;
use throughline_schemas::{
    EventType, Ingress, IngressLimits, WorkflowId,
    export::{self, Document},
};

/// Ends of the names of golden files that only the input stage reads: what publishers may send.
const PUBLISHED: [&str; 2] = [BARE, ".cloudevent"];
/// The form without an envelope.
const BARE: &str = ".bare";
/// End of the name of a golden file whose data is stored elsewhere.
const BY_REFERENCE: &str = ".by_reference";

/// A golden file.
struct Golden {
    /// File name without `.json`: the event type, and what is particular about this one.
    name: String,
    event_type: EventType,
    bytes: Vec<u8>,
}

impl Golden {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    /// Whether a publisher, not a stage, would write it like this.
    fn is_published(&self) -> bool {
        PUBLISHED.iter().any(|end| self.name.ends_with(end))
    }

    fn is_reference(&self) -> bool {
        self.name.ends_with(BY_REFERENCE)
    }

    /// Name of the schema that it keeps to.
    fn schema(&self) -> String {
        let form = if self.name.ends_with(BARE) { BARE } else { "" };
        format!("{}{form}.schema.json", self.event_type)
    }
}

/// All golden files, by name.
fn goldens() -> Vec<Golden> {
    let mut goldens: Vec<Golden> = fs::read_dir(here("golden/v1"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let name = name.strip_suffix(".json").unwrap_or_else(|| panic!("{name} is not a golden file"));
            let event_type = name.split('.').next().unwrap();
            let event_type = event_type.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
            Golden { name: name.to_owned(), event_type, bytes: fs::read(&path).unwrap() }
        })
        .collect();
    goldens.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!goldens.is_empty());
    goldens
}

/// A path inside this package.
fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compiled once: that takes longer than all the validating.
static VALIDATOR: LazyLock<Validator> = LazyLock::new(Validator::new);

/// The generated JSON Schemas, ready to validate.
struct Validator {
    schemas: Schemas,
    by_name: Vec<(String, SchemaIndex)>,
}

impl Validator {
    fn new() -> Self {
        let mut schemas = Schemas::new();
        let mut by_name = Vec::new();
        for Document { name, text } in export::documents() {
            if name == export::ASYNCAPI_FILE {
                continue;
            }
            let schema: Value = serde_json::from_str(&text).unwrap();
            let id = schema["$id"].as_str().unwrap().to_owned();
            let mut compiler = Compiler::new();
            compiler.enable_format_assertions();
            compiler.add_resource(&id, schema).unwrap();
            let index =
                compiler.compile(&id, &mut schemas).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            by_name.push((name, index));
        }
        Self { schemas, by_name }
    }

    fn check(&self, schema: &str, json: &Value) -> Result<(), String> {
        self.schemas.validate(json, self.index(schema)).map_err(|error| format!("{error:#}"))
    }

    fn accepts(&self, schema: &str, json: &Value) -> bool {
        self.schemas.validate(json, self.index(schema)).is_ok()
    }

    fn index(&self, schema: &str) -> SchemaIndex {
        let (_, index) = self.by_name.iter().find(|(name, _)| name == schema).expect("a generated schema");
        *index
    }
}

/// Reads a message as the input stage does, without headers.
fn read_input(json: &Value) -> Result<Ingress, String> {
    let limits = IngressLimits { max_input_bytes: 32 * 1024, max_metadata_bytes: 8 * 1024 };
    let fallback = WorkflowId::new("fallback").unwrap();
    match Ingress::read("", json.to_string().as_bytes(), |_| None, fallback, &limits) {
        Ok(Ok(ingress)) => Ok(ingress),
        Ok(Err(refused)) => Err(refused.message),
        Err(error) => Err(error.to_string()),
    }
}
