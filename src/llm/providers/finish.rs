//! Why a model stopped, in the words of all providers: gateways pass the words of one on in the form of another.

use serde_json::Value;
use throughline_schemas::FinishReason;

/// Why the model stopped.
#[derive(Debug)]
pub(super) struct Finish {
    pub reason: FinishReason,
    /// In the provider's word.
    pub raw: Option<String>,
    /// Whether the word says that the provider failed: what there is of an answer is none.
    pub failed: bool,
}

impl Default for Finish {
    fn default() -> Self {
        Self { reason: FinishReason::Other, raw: None, failed: false }
    }
}

impl Finish {
    /// The provider's word (an empty one is none) and what it means.
    pub(super) fn of(said: &Value) -> Self {
        let Some(word) = said.as_str().map(str::trim).filter(|word| !word.is_empty()) else {
            return Self::default();
        };
        let (reason, failed) = match meaning(word) {
            Meaning::Ends(reason) => (reason, false),
            Meaning::Failed => (FinishReason::Other, true),
        };
        Self { reason, raw: Some(word.to_owned()), failed }
    }
}

enum Meaning {
    Ends(FinishReason),
    Failed,
}

/// Words that are known whole, without case and punctuation.
const WHOLE: [(&[&str], FinishReason); 4] = [
    (
        &[
            "stop",
            "stopped",
            "endturn",
            "stopsequence",
            "eos",
            "eostoken",
            "end",
            "complete",
            "completed",
            "finished",
            "done",
            "normal",
            "success",
        ],
        FinishReason::Stop,
    ),
    (
        &[
            "length",
            "maxtokens",
            "modellength",
            "maxlength",
            "maxoutputtokens",
            "maxoutputtokensexceeded",
            "modelcontextwindowexceeded",
            "contextlength",
            "contextlengthexceeded",
            "errorlimit",
            "tokenlimit",
            "maxnewtokens",
            "incomplete",
            "truncated",
        ],
        FinishReason::Length,
    ),
    (&["toolcalls", "toolcall", "tooluse", "functioncall", "functioncalls"], FinishReason::ToolCalls),
    (
        &[
            "contentfilter",
            "contentfiltered",
            "refusal",
            "refused",
            "safety",
            "sensitive",
            "blocklist",
            "prohibitedcontent",
            "spii",
            "recitation",
            "modelarmor",
            "jailbreak",
            "imagesafety",
            "imageprohibitedcontent",
            "imagerecitation",
            "guardrailintervened",
            "errortoxic",
            "moderation",
            "flagged",
            "blocked",
        ],
        FinishReason::ContentFilter,
    ),
];

/// What a word that nobody listed has in it if it says that the answer was cut, withheld, or that the provider failed;
/// the first that is found decides.
const PARTS: [(&[&str], Meaning); 3] = [
    (
        &["filter", "safety", "sensitiv", "moderat", "prohibit", "guardrail", "policy", "toxic", "risk"],
        Meaning::Ends(FinishReason::ContentFilter),
    ),
    (
        &[
            "error",
            "fail",
            "abort",
            "cancel",
            "timeout",
            "timedout",
            "interrupt",
            "insufficient",
            "resource",
            "unavailable",
            "overload",
            "disconnect",
            "crash",
            "exception",
            "evict",
            "preempt",
            "malformed",
            "network",
            "ratelimit",
        ],
        Meaning::Failed,
    ),
    (
        &["maxtoken", "length", "tokenlimit", "outputtoken", "contextwindow", "truncat"],
        Meaning::Ends(FinishReason::Length),
    ),
];

fn meaning(word: &str) -> Meaning {
    let plain: String =
        word.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    // Gemini's old form, and what some gateways make of it.
    let plain = plain.strip_prefix("finishreason").unwrap_or(&plain);
    if let Some((_, reason)) = WHOLE.iter().find(|(words, _)| words.contains(&plain)) {
        return Meaning::Ends(*reason);
    }
    let found = PARTS.iter().find(|(parts, _)| parts.iter().any(|part| plain.contains(part)));
    match found {
        Some((_, Meaning::Ends(reason))) => Meaning::Ends(*reason),
        Some((_, Meaning::Failed)) => Meaning::Failed,
        None => Meaning::Ends(FinishReason::Other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_vendor_s_word_has_its_meaning() {
        let cases = [
            (FinishReason::Stop, &["stop", "STOP", "end_turn", "stop_sequence", "eos_token", "COMPLETE"][..]),
            (
                FinishReason::Length,
                &[
                    "length",
                    "max_tokens",
                    "MAX_TOKENS",
                    "model_length",
                    "model_context_window_exceeded",
                    "max_output_tokens",
                    "FINISH_REASON_MAX_TOKENS",
                    "output_token_limit",
                ],
            ),
            (FinishReason::ToolCalls, &["tool_calls", "function_call", "tool_use", "TOOL_CALL"]),
            (
                FinishReason::ContentFilter,
                &[
                    "content_filter",
                    "refusal",
                    "sensitive",
                    "SAFETY",
                    "guardrail_intervened",
                    "content_filtered",
                    "safety_error",
                    "IMAGE_SAFETY",
                ],
            ),
            (FinishReason::Other, &["pause_turn", "OTHER", "LANGUAGE", "a_new_one", "unknown"]),
        ];
        for (reason, words) in cases {
            for word in words {
                let finish = Finish::of(&json!(word));
                assert_eq!((finish.reason, finish.failed), (reason, false), "{word}");
                assert_eq!(finish.raw.as_deref(), Some(*word));
            }
        }
        for word in [
            "error",
            "network_error",
            "insufficient_system_resource",
            "abort",
            "cancelled",
            "upstream_timeout",
            "MALFORMED_FUNCTION_CALL",
            "engine_overloaded",
            "Server-Error",
        ] {
            assert!(Finish::of(&json!(word)).failed, "{word}");
        }
        for none in [json!(null), json!(""), json!(" "), json!(7)] {
            let finish = Finish::of(&none);
            assert_eq!((finish.reason, finish.failed, finish.raw), (FinishReason::Other, false, None));
        }
    }
}
