//! One acceptable line of a file.

use throughline_schemas::{Ingress, IngressLimits};

use crate::{
    cli::publish::SOURCE,
    client::{Input, Message, new_workflow_id},
};

/// A line, checked and ready to be sent.
#[derive(Debug)]
pub(super) struct Job {
    /// Its number in the file, from 1.
    pub(super) line: u64,
    /// What stands for its session; lines of one session are sent in order.
    pub(super) session: String,
    /// Whether the line names its workflow, so that it may have been published before.
    pub(super) chosen_id: bool,
    pub(super) message: Message,
}

impl Job {
    /// Reads a line as the input stage would; the error says everything that is wrong with it.
    pub(super) fn read(line: u64, content: &[u8], limits: &IngressLimits) -> Result<Self, String> {
        let fresh = new_workflow_id();
        let read =
            Ingress::read("", content, |_| None, fresh.clone(), limits).map_err(|error| error.to_string())?;
        let ingress = read.map_err(|refused| refused.message)?;
        let chosen_id = ingress.workflow_id != fresh;
        let input = Input {
            workflow: ingress.workflow_id,
            user: ingress.user_id,
            session: ingress.session_id,
            text: ingress.user_input,
            metadata: ingress.metadata,
            when_busy: ingress.when_busy,
            redo: None,
        };
        let session = input.session.token();
        let message = input.encode(SOURCE).map_err(|error| error.to_string())?;
        Ok(Self { line, session, chosen_id, message })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIMITS: IngressLimits = IngressLimits { max_input_bytes: 100, max_metadata_bytes: 100 };

    fn read(line: &str) -> Result<Job, String> {
        Job::read(3, line.as_bytes(), &LIMITS)
    }

    #[test]
    fn a_line_names_its_workflow_or_gets_a_new_one() {
        let named = read(r#"{"user_id":"u","session_id":"s","user_input":"x","workflow_id":"w"}"#).unwrap();
        assert!(named.chosen_id);
        assert_eq!((named.line, named.session.as_str(), named.message.workflow.as_str()), (3, "s", "w"));
        let line = r#"{"user_id":"u","session_id":"s","user_input":"x"}"#;
        let (one, other) = (read(line).unwrap(), read(line).unwrap());
        assert!(!one.chosen_id);
        assert_ne!(one.message.workflow, other.message.workflow);
    }

    #[test]
    fn a_bad_line_says_everything_that_is_wrong() {
        assert_eq!(
            read("{}").unwrap_err(),
            "user_id is missing; session_id is missing; user_input is missing"
        );
        assert!(read("nope").unwrap_err().contains("not JSON"));
        assert!(Job::read(1, b"\xff\xfe", &LIMITS).is_err());
    }
}
