//! What streams, consumers and the bucket of a namespace are called.

use throughline_schemas::{Namespace, StageName};

/// Names of a namespace's objects on the server; no two namespaces share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    events: String,
    dead: String,
    bodies: String,
    claims: String,
    advisories: String,
    meta: String,
}

impl Names {
    /// The names of a namespace. The namespace stands in them as it is written: upper-casing it would let `a` and
    /// `A` share a stream.
    pub fn new(ns: &Namespace) -> Self {
        Self {
            events: format!("{ns}_EVENTS"),
            dead: format!("{ns}_DEAD"),
            bodies: format!("{ns}_BODIES"),
            claims: format!("{ns}_CLAIMS"),
            advisories: format!("{ns}_ADVISORIES"),
            meta: format!("{ns}_META"),
        }
    }

    /// The stream of events.
    pub fn events(&self) -> &str {
        &self.events
    }

    /// The stream of dead letters.
    pub fn dead(&self) -> &str {
        &self.dead
    }

    /// The object store bucket for large bodies.
    pub fn bodies(&self) -> &str {
        &self.bodies
    }

    /// The stream behind the bucket.
    pub fn bodies_stream(&self) -> String {
        format!("OBJ_{}", self.bodies)
    }

    /// The key-value bucket for claims on messages that came more than once.
    pub fn claims(&self) -> &str {
        &self.claims
    }

    /// The stream behind that bucket.
    pub fn claims_stream(&self) -> String {
        format!("KV_{}", self.claims)
    }

    /// The stream of the server's advisories about messages that it has given up on.
    pub fn advisories(&self) -> &str {
        &self.advisories
    }

    /// The key-value bucket for what the namespace is: which database it has.
    pub fn meta(&self) -> &str {
        &self.meta
    }

    /// The stream behind that bucket.
    pub fn meta_stream(&self) -> String {
        format!("KV_{}", self.meta)
    }

    /// The durable consumer of advisories about a stage's messages.
    pub fn dead_lettering(stage: StageName) -> &'static str {
        match stage {
            StageName::Input => "burials_input",
            StageName::Context => "burials_context",
            StageName::External => "burials_external",
            StageName::Generation => "burials_generation",
            StageName::Persistence => "burials_persistence",
        }
    }

    /// A stage's durable consumer.
    pub fn consumer(stage: StageName) -> &'static str {
        match stage {
            StageName::Input => "stage_input",
            StageName::Context => "stage_context",
            StageName::External => "stage_external",
            StageName::Generation => "stage_generation",
            StageName::Persistence => "stage_persistence",
        }
    }
}
