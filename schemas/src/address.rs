//! Whose event it is that cannot be read.

use serde::Deserialize;

use crate::{Tokens, TraceParent, WorkflowId, json::salvage, token};

/// What can be made out of an event that this build cannot read: one of a later version, or one that is broken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// Its workflow; `None` if the subject has a hash of it and the body does not tell it.
    pub workflow: Option<WorkflowId>,
    /// The workflow's trace.
    pub traceparent: Option<TraceParent>,
}

impl Address {
    /// The subject has the last word: a body is believed where its workflow is the subject's.
    pub fn of(subject: &str, body: &[u8]) -> Self {
        let Some(of_subject) = Tokens::of(subject).and_then(|tokens| tokens.workflow) else {
            return Self::default();
        };
        let Envelope { workflowid, traceparent } = Envelope::of(body);
        let named = workflowid.and_then(|id| WorkflowId::new(id).ok()).filter(|id| id.token() == of_subject);
        let plain = || WorkflowId::new(of_subject).ok().filter(|_| token(of_subject) == of_subject);
        Self { workflow: named.or_else(plain), traceparent: traceparent.and_then(|text| text.parse().ok()) }
    }
}

/// What every version's envelope has.
#[derive(Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    workflowid: Option<String>,
    #[serde(default)]
    traceparent: Option<String>,
}

impl Envelope {
    /// However deep its data are nested: they are passed over. Of what is no JSON, what can be made out.
    fn of(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_else(|_| {
            let mut found = salvage(body);
            Self { workflowid: found.remove("workflowid"), traceparent: found.remove("traceparent") }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn workflow(subject: &str, body: &str) -> Option<String> {
        Address::of(subject, body.as_bytes()).workflow.map(|id| id.as_str().to_owned())
    }

    #[test]
    fn a_workflow_is_told_by_the_subject_and_where_that_has_a_hash_by_the_body() {
        let of = |id: &str| format!("ns.v1.context_retrieved.s.{}", token(id));
        let deep = format!(r#"{{"workflowid":"wörk","data":{}{}}}"#, "[".repeat(500), "]".repeat(500));
        let later = r#"{"workflowid":"wörk","type":"tool_called","data":{"workflowid":7}}"#;
        for body in [deep.as_str(), later, r#"{"workflowid":"wörk","data":{"#] {
            assert_eq!(workflow(&of("wörk"), body).as_deref(), Some("wörk"));
            assert_eq!(workflow(&of("w-1"), body).as_deref(), Some("w-1"), "a body names no other one");
        }
        for body in ["", "rubbish", r#"{"workflowid":"other ö"}"#, r#"{"workflowid":""}"#] {
            assert_eq!(workflow(&of("w-1"), body).as_deref(), Some("w-1"));
            assert_eq!(workflow(&of("wörk"), body), None);
        }
        assert_eq!(workflow("ns.v1.user_input_received", later), None);
    }

    #[test]
    fn its_trace_goes_on() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let body = format!(r#"{{"workflowid":"w","traceparent":"{trace}"}}"#);
        let address = Address::of("ns.v1.context_retrieved.s.w", body.as_bytes());
        assert_eq!(address.traceparent.unwrap().to_string(), trace);
    }
}
