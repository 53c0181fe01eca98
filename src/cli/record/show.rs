//! `throughline record show`.

use serde_json::json;

use super::{ShowArgs, broken};
use crate::{
    cli::{Failure, output, timeline::clean},
    replay::recording::Reader,
};

/// Longest text of a header that is printed, in characters.
const MAX_SHOWN: usize = 400;

pub(super) fn run(args: &ShowArgs) -> Result<(), Failure> {
    let failed = |error| broken(&args.file, &error);
    let mut reader = Reader::open(&args.file).map_err(failed)?;
    let broken = loop {
        match reader.next_message() {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let header = reader.header();
    if args.json {
        let error = broken.as_ref().map(|error| crate::cli::exit::with_causes(error));
        let whole = json!({ "header": header, "trailer": reader.trailer(), "error": error });
        output::line(&whole.to_string())?;
    } else {
        let redacted =
            if header.redacted.is_empty() { "nothing".to_owned() } else { header.redacted.join(", ") };
        for (name, value) in [
            ("version", &header.version.to_string()),
            ("written", &header.created_at.to_string()),
            ("namespace", &header.namespace),
            ("selection", &header.selection),
            ("configuration", &header.configuration_id),
            ("prompt", &format!("{} ({})", header.prompt.id, header.prompt.hash)),
            ("redacted", &redacted),
        ] {
            output::line(&format!("{name:<14}{}", clean(value, MAX_SHOWN)))?;
        }
        if let Some(trailer) = reader.trailer() {
            output::line(&format!("{:<14}{}", "workflows", trailer.workflows))?;
            output::line(&format!("{:<14}{}", "messages", trailer.messages))?;
            output::line(&format!("{:<14}{}, as it should be", "sha256", trailer.sha256))?;
        }
    }
    broken.map_or(Ok(()), |error| Err(failed(error)))
}
