//! How a workflow ended, in words and as a record.

use std::{fmt, time::Duration};

use serde::Serialize;
use serde_json::Value;
use throughline_schemas::{WorkflowId, token};

use crate::{
    cli::timeline::{clean, clean_lines},
    client::{End, Failed, Saved},
};

/// Longest id printed, in characters.
const ID_CHARS: usize = 256;

impl Saved {
    /// Says that the answer lacks the data of sources, if it does.
    pub(super) fn lacks(&self) -> Option<String> {
        if self.degraded.is_empty() {
            return None;
        }
        let names: Vec<String> = self.degraded.iter().map(|name| clean(name, ID_CHARS)).collect();
        Some(format!("answered without the data of {}, which failed", names.join(", ")))
    }

    /// Who gave the answer, and for how much. What broke off may have cost more than is known.
    pub(super) fn signature(&self, broke_off: bool, took: Duration) -> String {
        let text = |key| self.response.get(key).and_then(Value::as_str).unwrap_or("unknown");
        let tokens = |key| self.usage.get(key).and_then(Value::as_u64);
        let usage = match (tokens("input_tokens"), tokens("output_tokens")) {
            (Some(input), Some(output)) => format!("{input} tokens in, {output} out"),
            _ => "tokens unknown".to_owned(),
        };
        let cost = match (self.cost_usd.as_str(), broke_off) {
            (Some(cost), false) => format!("${cost}"),
            (Some(cost), true) => format!("at least ${cost}"),
            (None, _) => "cost unknown".to_owned(),
        };
        let (tenths, provider, model) = (took.as_millis() / 100, text("provider"), text("model"));
        format!("answered by {provider} ({model}): {usage}, {cost}, {}.{} s", tenths / 10, tenths % 10)
    }
}

impl Failed {
    /// For a person: what happened, and what to do.
    pub(super) fn explain(&self, workflow: &WorkflowId) -> Explanation<'_> {
        Explanation { failed: self, workflow: workflow.clone() }
    }

    fn advice(&self) -> &'static str {
        match self.code.as_str() {
            "conflict" | "gone" => "publish it again under a new workflow id",
            "invalid_input" => "correct the input and publish it under a new workflow id",
            "model_rejected" => {
                "look at the model, its key and the prompt; `throughline doctor` checks the first two"
            }
            "source_unavailable" => {
                "see to the data source (`throughline explain` shows its calls), then publish it again under a new \
                 workflow id"
            }
            "prompt_failed" => {
                "correct the prompt template (the message says where), restart the workers, then `throughline replay redo` \
                 it"
            }
            "internal" | "poison" => "the worker's log says more; please report it",
            _ if self.retryable => "publish it again later, under a new workflow id",
            _ => "the worker's log says more",
        }
    }
}

/// A failure in words, on several lines.
pub(super) struct Explanation<'a> {
    failed: &'a Failed,
    workflow: WorkflowId,
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.failed;
        let id = shown(&self.workflow);
        let times = if failed.attempts == 1 { "attempt" } else { "attempts" };
        writeln!(
            f,
            "workflow {id} failed: {} in {}, after {} {times}",
            clean(&failed.code, ID_CHARS),
            clean(&failed.stage, ID_CHARS),
            failed.attempts
        )?;
        writeln!(f, "  {}", clean_lines(&failed.message).replace('\n', "\n  "))?;
        if failed.may_have_happened {
            writeln!(f, "  The call may have been made, and may have been billed.")?;
        }
        writeln!(f, "  What to do: {}.", failed.advice())?;
        write!(f, "  What happened: {}", look_at(&self.workflow))
    }
}

/// An id, fit for a terminal.
pub(super) fn shown(workflow: &WorkflowId) -> String {
    clean(workflow.as_str(), ID_CHARS)
}

/// The command that shows a workflow.
pub(super) fn look_at(workflow: &WorkflowId) -> String {
    // What stands for itself in a subject needs no quotes in a shell either.
    if token(workflow.as_str()) == workflow.as_str() {
        format!("throughline events --workflow {workflow}")
    } else {
        "throughline events --workflow <its id>".to_owned()
    }
}

/// A workflow that ended, or has not ended in time, as one JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Record<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u64>,
    workflow_id: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<&'a Value>,
    /// Names of the sources whose data the answer lacks, because they failed.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    degraded: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a Failed>,
    elapsed_ms: u64,
}

impl<'a> Record<'a> {
    pub(super) fn new(workflow_id: &'a str, end: Option<&'a End>, elapsed: Duration) -> Self {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let base = Self {
            line: None,
            workflow_id,
            status: "unfinished",
            response: None,
            usage: None,
            cost_usd: None,
            degraded: &[],
            failure: None,
            elapsed_ms,
        };
        match end {
            None => base,
            Some(End::Saved(saved)) => Self {
                status: "saved",
                response: Some(&saved.response),
                usage: Some(&saved.usage),
                cost_usd: Some(&saved.cost_usd),
                degraded: &saved.degraded,
                ..base
            },
            Some(End::Failed(failed)) => Self { status: "failed", failure: Some(failed), ..base },
        }
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use bytes::Bytes;
    use serde_json::json;
    use throughline_schemas::Timestamp;

    use super::*;
    use crate::{bus::nats::StoredEvent, client::EndError};

    fn stored(kind: &str, data: &Value) -> StoredEvent {
        StoredEvent {
            sequence: 1,
            subject: format!("t.v1.{kind}.s.w"),
            stored_at: Timestamp::from_unix_ms(0),
            headers: Vec::new(),
            body: Bytes::from(json!({"specversion": "1.0", "data": data}).to_string()),
        }
    }

    fn failure(code: &str, retryable: bool) -> Value {
        json!({"code": code, "stage": "generation", "message": "first\nsecond \u{1b}[31m", "attempts": 1,
               "retryable": retryable, "may_have_happened": true, "attempt_log": []})
    }

    #[test]
    fn a_failure_says_what_happened_and_what_to_do_even_if_its_code_is_new() {
        let workflow = WorkflowId::new("w").unwrap();
        let End::Failed(failed) =
            End::read(&stored("workflow_failed", &failure("out_of_budget", true))).unwrap()
        else {
            panic!("it failed");
        };
        assert_eq!(
            failed.explain(&workflow).to_string(),
            "workflow w failed: out_of_budget in generation, after 1 attempt\n  first\n  second \\u{1b}[31m\n  \
             The call may have been made, and may have been billed.\n  \
             What to do: publish it again later, under a new workflow id.\n  \
             What happened: throughline events --workflow w"
        );
        let hostile = WorkflowId::new("$(rm -rf ~)").unwrap();
        assert!(!look_at(&hostile).contains("rm"), "never a command that does something else");
    }

    #[test]
    fn records_have_what_a_script_looks_for() {
        let data = json!({"interaction_id": "i", "response": {"text": "hi", "model": "m"},
                          "usage": {"input_tokens": 1}, "cost_usd": "0.1"});
        let end = End::read(&stored("interaction_saved", &data)).unwrap();
        let record: Value =
            serde_json::from_str(&Record::new("w", Some(&end), Duration::from_millis(12)).json()).unwrap();
        assert_eq!(
            record,
            json!({"workflow_id": "w", "status": "saved", "response": {"text": "hi", "model": "m"},
                   "usage": {"input_tokens": 1}, "cost_usd": "0.1", "elapsed_ms": 12})
        );
        let mut lacking = data.clone();
        lacking["degraded"] = json!(["crm", "or\u{1b}ders"]);
        let end = End::read(&stored("interaction_saved", &lacking)).unwrap();
        let record: Value =
            serde_json::from_str(&Record::new("w", Some(&end), Duration::ZERO).json()).unwrap();
        assert_eq!(record["degraded"], lacking["degraded"]);
        let End::Saved(saved) = &end else { panic!() };
        let told = saved.lacks().unwrap();
        assert_eq!(told, "answered without the data of crm, or\\u{1b}ders, which failed");
        let end = End::read(&stored("workflow_failed", &failure("poison", false))).unwrap();
        let record: Value =
            serde_json::from_str(&Record::new("w", Some(&end), Duration::ZERO).json()).unwrap();
        assert_eq!((&record["status"], &record["failure"]["code"]), (&json!("failed"), &json!("poison")));
        let record: Value = serde_json::from_str(&Record::new("w", None, Duration::ZERO).json()).unwrap();
        assert_eq!(record, json!({"workflow_id": "w", "status": "unfinished", "elapsed_ms": 0}));
    }

    #[test]
    fn a_signature_tells_who_answered_and_what_is_known_of_the_cost() {
        let data = json!({"response": {"text": "hi", "model": "m", "provider": "p"}, "cost_usd": "0.1",
                          "usage": {"input_tokens": 3, "output_tokens": 4}});
        let End::Saved(saved) = End::read(&stored("interaction_saved", &data)).unwrap() else { panic!() };
        let took = Duration::from_millis(2_340);
        assert_eq!(saved.signature(false, took), "answered by p (m): 3 tokens in, 4 out, $0.1, 2.3 s");
        assert_eq!(
            saved.signature(true, took),
            "answered by p (m): 3 tokens in, 4 out, at least $0.1, 2.3 s"
        );
    }

    #[test]
    fn what_is_no_end_is_not_taken_for_one() {
        assert!(matches!(End::read(&stored("context_retrieved", &json!({}))), Err(EndError::NotAnEnd(_))));
        assert!(matches!(
            End::read(&stored("workflow_failed", &json!({}))),
            Err(EndError::Unreadable { .. })
        ));
    }
}
