//! `schemas/json` is what the types say today.

use std::fs;

use throughline_schemas::export;

use crate::here;

const RENEW: &str = "run `cargo run -- schema export --out schemas/json`";

#[test]
fn the_documents_in_schemas_json_are_current() {
    let generated = export::documents();
    for document in &generated {
        let found = fs::read_to_string(here("json").join(&document.name)).unwrap_or_default();
        assert!(found == document.text, "schemas/json/{} is not what the types say: {RENEW}", document.name);
    }
    for entry in fs::read_dir(here("json")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            generated.iter().any(|document| document.name == name),
            "schemas/json/{name} is not generated any more: remove it"
        );
    }
}

#[test]
fn every_reference_in_the_asyncapi_document_leads_somewhere_inside_it() {
    let document: serde_json::Value = serde_json::from_str(&export::asyncapi().text).unwrap();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 100, "only {} references were found", references.len());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads outside"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn collect<'a>(json: &'a serde_json::Value, references: &mut Vec<&'a str>) {
    if let Some(object) = json.as_object() {
        references.extend(object.get("$ref").and_then(serde_json::Value::as_str));
        for value in object.values() {
            collect(value, references);
        }
    } else if let Some(items) = json.as_array() {
        for value in items {
            collect(value, references);
        }
    }
}
