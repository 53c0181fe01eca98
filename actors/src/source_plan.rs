//! Which sources a text asks for, and with which URLs. Pure: the text decides, nothing is called.

use std::{collections::BTreeMap, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use regex::Regex;
use throughline_schemas::{SessionId, UserId, WorkflowId};

use crate::dependency::DependencyPolicy;

/// What stays unescaped in a value that is put into a URL: RFC 3986's unreserved characters.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One external data source.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// Its name in events, prompts and metrics.
    pub name: String,
    /// URL with `{placeholders}`: `user_id`, `session_id`, `workflow_id`, and what `extract` or `defaults` name.
    pub url: String,
    /// If not empty, the source is asked only when the text mentions one of these; see [`mentions`].
    pub keywords: Vec<String>,
    /// Values taken from the text: the first capture group, or the whole match.
    pub extract: BTreeMap<String, Regex>,
    /// Values for placeholders that the text does not provide.
    pub defaults: BTreeMap<String, String>,
    /// How many distinct values of a placeholder are fetched, one call each.
    pub max_matches: usize,
    /// Whether nothing is answered without its data: when it fails, the workflow fails.
    pub required: bool,
    /// Limit on one call.
    pub timeout: Duration,
    /// Limit on one body, in bytes.
    pub max_bytes: usize,
    /// Retry and breaker.
    pub policy: DependencyPolicy,
}

/// Who is asking; values for the built-in placeholders.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// For `{user_id}`.
    pub user: &'a UserId,
    /// For `{session_id}`.
    pub session: &'a SessionId,
    /// For `{workflow_id}`.
    pub workflow: &'a WorkflowId,
}

/// What to do about one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The text does not ask for it.
    Skip,
    /// Fetch these; one URL, or several when `max_matches` is over one.
    Fetch(Vec<String>),
}

/// Whether `text` mentions `keyword`: anywhere, whatever the case, but not in the middle of a word, so that
/// "orders" mentions "order" and "border" does not.
pub fn mentions(text: &str, keyword: &str) -> bool {
    let text = text.to_lowercase();
    let keyword = keyword.to_lowercase();
    if keyword.is_empty() {
        return false;
    }
    text.match_indices(&keyword).any(|(at, _)| {
        let before = text.get(..at).and_then(|head| head.chars().next_back());
        // Scripts without upper and lower case (Chinese, Thai …) put no space between words.
        let inside_word = |c: char| c.is_lowercase() || c.is_numeric();
        let starts_word = keyword.starts_with(|c: char| !inside_word(c));
        starts_word || !before.is_some_and(inside_word)
    })
}

impl SourceSpec {
    /// Names of the placeholders in `url`, in order.
    pub fn placeholders(url: &str) -> Vec<&str> {
        url.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).collect()
    }

    /// Decides for one text.
    pub fn plan(&self, text: &str, asker: Asker<'_>) -> Plan {
        if !self.keywords.is_empty() && !self.keywords.iter().any(|keyword| mentions(text, keyword)) {
            return Plan::Skip;
        }
        let mut urls = vec![self.url.clone()];
        for name in Self::placeholders(&self.url) {
            let mut values = self.values(name, text, asker);
            values.retain(|value| !is_dot_segment(value));
            if values.is_empty() {
                return Plan::Skip;
            }
            let placeholder = format!("{{{name}}}");
            urls = urls
                .iter()
                .flat_map(|url| {
                    values.iter().map(|value| {
                        url.replace(&placeholder, &utf8_percent_encode(value, VALUE).to_string())
                    })
                })
                .take(self.max_matches.max(1))
                .collect();
        }
        Plan::Fetch(urls)
    }

    fn values(&self, name: &str, text: &str, asker: Asker<'_>) -> Vec<String> {
        match name {
            "user_id" => return vec![asker.user.as_str().to_owned()],
            "session_id" => return vec![asker.session.as_str().to_owned()],
            "workflow_id" => return vec![asker.workflow.as_str().to_owned()],
            _ => {}
        }
        let mut values = Vec::new();
        if let Some(regex) = self.extract.get(name) {
            for captures in regex.captures_iter(text) {
                let value = captures.get(1).or_else(|| captures.get(0)).map_or("", |m| m.as_str()).to_owned();
                if !value.is_empty() && !values.contains(&value) {
                    values.push(value);
                }
                if values.len() >= self.max_matches.max(1) {
                    break;
                }
            }
        }
        if values.is_empty() {
            values.extend(self.defaults.get(name).cloned());
        }
        values
    }
}

/// URL parsers resolve `.` and `..` even when they are percent-encoded, so as a path segment they would address
/// another document than the source's URL says.
fn is_dot_segment(value: &str) -> bool {
    matches!(value, "." | "..")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::StageSettings;

    fn spec(url: &str, keywords: &[&str], extract: &[(&str, &str)], defaults: &[(&str, &str)]) -> SourceSpec {
        let own = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        SourceSpec {
            name: "s".to_owned(),
            url: url.to_owned(),
            keywords: keywords.iter().map(|k| (*k).to_owned()).collect(),
            extract: own(extract).into_iter().map(|(k, v)| (k, Regex::new(&v).unwrap())).collect(),
            defaults: own(defaults),
            max_matches: 1,
            required: false,
            timeout: Duration::from_secs(2),
            max_bytes: 1000,
            policy: StageSettings::default().for_calls(),
        }
    }

    fn plan(spec: &SourceSpec, text: &str) -> Plan {
        let user = UserId::new("a/b?c=ü").unwrap();
        let session = SessionId::new("s").unwrap();
        let workflow = WorkflowId::new("w").unwrap();
        spec.plan(text, Asker { user: &user, session: &session, workflow: &workflow })
    }

    #[test]
    fn a_keyword_is_mentioned_at_the_start_of_a_word_in_any_case_and_script() {
        for text in ["my ORDER", "Orders?", "pre-order", "#order", "(ordered)"] {
            assert!(mentions(text, "order"), "{text}");
        }
        for text in ["the border", "recorder", "", "disorder"] {
            assert!(!mentions(text, "order"), "{text}");
        }
        assert!(mentions("我的订单在哪里", "订单"));
    }

    #[test]
    fn a_source_with_keywords_is_skipped_unless_one_is_mentioned() {
        let orders = spec("http://x/orders/{user_id}", &["order", "purchase"], &[], &[]);
        assert_eq!(plan(&orders, "hello"), Plan::Skip);
        assert_eq!(
            plan(&orders, "my purchases"),
            Plan::Fetch(vec!["http://x/orders/a%2Fb%3Fc%3D%C3%BC".to_owned()]),
            "the id is one path segment"
        );
    }

    #[test]
    fn values_come_from_the_text_else_from_the_defaults_else_the_source_is_skipped() {
        let extract = [("product_id", r"(?i)\b(PROD-\d+)\b")];
        let product = spec("http://x/products/{product_id}", &[], &extract, &[("product_id", "PROD-001")]);
        let url = |id: &str| Plan::Fetch(vec![format!("http://x/products/{id}")]);
        assert_eq!(plan(&product, "is prod-77 in stock, or PROD-78?"), url("prod-77"));
        assert_eq!(plan(&product, "headphones"), url("PROD-001"));
        let strict = spec("http://x/products/{product_id}", &[], &extract, &[]);
        assert_eq!(plan(&strict, "headphones"), Plan::Skip);
        let any = spec("http://x/products/{id}/private", &[], &[("id", r"id=(\S+)")], &[]);
        assert_eq!(plan(&any, "id=.."), Plan::Skip, "a dot segment would leave the source's path");
    }

    #[test]
    fn several_distinct_values_are_fetched_up_to_the_limit() {
        let mut orders = spec("http://x/{order_id}", &[], &[("order_id", r"#W\d+")], &[]);
        orders.max_matches = 2;
        assert_eq!(
            plan(&orders, "#W1 and #W1 and #W2 and #W3"),
            Plan::Fetch(vec!["http://x/%23W1".to_owned(), "http://x/%23W2".to_owned()])
        );
    }
}
