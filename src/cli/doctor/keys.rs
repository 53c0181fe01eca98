//! Whether providers take their keys.

use super::finding::Finding;
use crate::llm::KeyVerdict;

/// `address` accepts connections; the verdicts are on its keys in their order, or on a request without one.
pub(super) fn judge(name: String, address: &str, keys: usize, verdicts: &[KeyVerdict]) -> Finding {
    let refused: Vec<(usize, &str)> = verdicts
        .iter()
        .enumerate()
        .filter_map(|(place, verdict)| match verdict {
            KeyVerdict::Refused(words) => Some((place + 1, words.as_str())),
            KeyVerdict::Taken | KeyVerdict::Unknown(_) => None,
        })
        .collect();
    let undecided = verdicts.iter().find_map(|verdict| match verdict {
        KeyVerdict::Unknown(words) => Some(words),
        KeyVerdict::Taken | KeyVerdict::Refused(_) => None,
    });
    match (&refused[..], undecided) {
        ([], None) if keys == 0 => Finding::ok(name, format!("{address} answers without a key")),
        ([], None) => Finding::ok(name, format!("{address} answers and refuses no key")),
        ([], Some(words)) => Finding::ok(
            name,
            format!(
                "{address} accepts connections; whether it takes its key only a paid call can tell: {words}"
            ),
        ),
        ([(_, words), ..], _) if keys == 0 => Finding::fail(
            name,
            format!("{address} wants a key: {words}"),
            "give it one: api_key = \"env:NAME\"",
        ),
        ([(_, words), ..], _) if refused.len() == keys => {
            let advice = "set a valid one where its api_key says";
            Finding::fail(name, format!("{address} refuses its key: {words}"), advice)
        }
        ([(_, words), ..], _) => {
            let places =
                refused.iter().map(|(place, _)| format!("no. {place}")).collect::<Vec<_>>().join(", ");
            let detail =
                format!("{address} refuses {} of its {keys} keys ({places}): {words}", refused.len());
            Finding::warn(name, detail, "replace or remove them in its api_keys")
        }
    }
}
