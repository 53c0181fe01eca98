//! Sources without whose data nothing is answered.

use std::collections::BTreeMap;

use throughline_schemas::{
    FailureCode, StageName, WorkflowFailed,
    event::external::{SourceResult, SourceStatus},
};

use crate::stages::external::source_selection::SourceSpec;

/// The failure of a workflow whose required sources did not all give data. Each source comes with whether asking it again
/// later is hopeless.
pub(super) fn missing<'a>(
    specs: impl Iterator<Item = (&'a SourceSpec, bool)>,
    external: &BTreeMap<String, SourceResult>,
) -> Option<WorkflowFailed> {
    let failed = |spec: &SourceSpec| {
        let result = external.get(&spec.name)?;
        (result.status == SourceStatus::Failed).then_some(result)
    };
    let missing: Vec<(&SourceSpec, &SourceResult, bool)> = specs
        .filter(|(spec, _)| spec.required)
        .filter_map(|(spec, hopeless)| Some((spec, failed(spec)?, hopeless)))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let words = |(spec, result, _): &(&SourceSpec, &SourceResult, bool)| match &result.error {
        // Its message begins with the name of the source.
        Some(error) => error.message.clone(),
        None => format!("{}: no data", spec.name),
    };
    let words: Vec<String> = missing.iter().map(words).collect();
    let attempts = missing.iter().map(|(_, result, _)| result.failed_calls.len()).max().unwrap_or_default();
    Some(WorkflowFailed {
        code: FailureCode::SourceUnavailable,
        stage: StageName::External,
        message: format!("nothing is answered without this data: {}", words.join("; ")),
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX).max(1),
        retryable: missing.iter().all(|(_, _, hopeless)| !hopeless),
        may_have_happened: false,
        superseded_by: None,
        earlier_deliveries: 0,
        attempt_log: Vec::new(),
        external: external.clone(),
    })
}
