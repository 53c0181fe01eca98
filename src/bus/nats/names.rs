//! What streams, consumers and the bucket of a namespace are called.

use throughline_schemas::{Namespace, StageName};

/// Names of a namespace's objects on the server; no two namespaces share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    events: String,
    dead: String,
    bodies: String,
}

impl Names {
    /// The names of a namespace. The namespace stands in them as it is written: upper-casing it would let `a` and
    /// `A` share a stream.
    pub fn new(ns: &Namespace) -> Self {
        Self { events: format!("{ns}_EVENTS"), dead: format!("{ns}_DEAD"), bodies: format!("{ns}_BODIES") }
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
