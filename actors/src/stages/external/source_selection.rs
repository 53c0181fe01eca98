//! Which sources a message asks for, and with which requests. Pure: the message decides, nothing is called.

use std::{collections::BTreeMap, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use regex::Regex;
use serde_json::Value;
use throughline_schemas::event::external::SourceRequest;

use crate::{
    dependency::DependencyPolicy,
    message_values::{METADATA, MessageValues},
    policy::keywords::mentions,
    ports::source::Method,
};

/// What stays unescaped in a value that is put into a URL: RFC 3986's unreserved characters.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Longest URL on record, in characters.
const MAX_RECORDED_URL: usize = 2_000;
/// Largest body on record, in bytes.
const MAX_RECORDED_BODY: usize = 4_096;
/// What stands on every event, and is not repeated beside a request.
const ON_THE_EVENT: [&str; 4] = ["user_id", "session_id", "workflow_id", "user_input"];

/// One external data source.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// Its name in events, prompts and metrics.
    pub name: String,
    /// URL with `{placeholders}`: what the message has, see [`MessageValues`], and what `extract` or `defaults` name.
    pub url: String,
    /// The same without passwords, for the record.
    pub recorded_url: String,
    /// How it is asked.
    pub method: Method,
    /// Headers whose values have placeholders; the adapter knows the others.
    pub headers: BTreeMap<String, String>,
    /// A JSON body whose texts have placeholders. A text that is nothing but `{metadata.NAME}` becomes what stands there,
    /// whatever it is.
    pub body: Option<Value>,
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

/// What to do about one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The text does not ask for it.
    Skip,
    /// Fetch these; one, or several when `max_matches` is over one.
    Fetch(Vec<Planned>),
}

/// One request to a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The complete URL, values percent-encoded.
    pub url: String,
    /// Headers of this request.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Option<String>,
    /// What is written down of it.
    pub recorded: SourceRequest,
}

/// Whether a placeholder comes from the message and nothing else: from what a text says, it would let the text choose
/// whose data is fetched.
pub fn is_of_message(name: &str) -> bool {
    ON_THE_EVENT.contains(&name) || name.strip_prefix(METADATA).is_some_and(|path| path.starts_with('.'))
}

impl SourceSpec {
    /// All placeholders: those of the URL, of headers and of the body, each once.
    fn placeholders(&self) -> Vec<&str> {
        let mut found = placeholders(&self.url);
        found.extend(self.headers.values().flat_map(|value| placeholders(value)));
        if let Some(body) = &self.body {
            found.extend(body_placeholders(body));
        }
        let mut once: Vec<&str> = Vec::new();
        for name in found {
            if !once.contains(&name) {
                once.push(name);
            }
        }
        once
    }

    /// Decides for one message.
    pub fn plan(&self, message: &MessageValues) -> Plan {
        let text = message.text("user_input").unwrap_or_default();
        if !self.keywords.is_empty() && !self.keywords.iter().any(|keyword| mentions(&text, keyword)) {
            return Plan::Skip;
        }
        let mut filled: Vec<BTreeMap<&str, String>> = vec![BTreeMap::new()];
        let in_url = placeholders(&self.url);
        for name in self.placeholders() {
            let mut values = self.values(name, &text, message);
            values.retain(|value| !in_url.contains(&name) || !is_dot_segment(value));
            if values.is_empty() {
                return Plan::Skip;
            }
            filled = filled
                .iter()
                .flat_map(|filled| {
                    values.iter().map(|value| {
                        let mut filled = filled.clone();
                        filled.insert(name, value.clone());
                        filled
                    })
                })
                .take(self.max_matches.max(1))
                .collect();
        }
        Plan::Fetch(filled.iter().map(|filled| self.planned(filled, message)).collect())
    }

    fn planned(&self, filled: &BTreeMap<&str, String>, message: &MessageValues) -> Planned {
        let encoded =
            |name: &str| filled.get(name).map(|value| utf8_percent_encode(value, VALUE).to_string());
        let mut url = fill(&self.recorded_url, encoded);
        if let Some((end, _)) = url.char_indices().nth(MAX_RECORDED_URL) {
            url.truncate(end);
            url.push('…');
        }
        let values = filled.iter().filter(|(name, _)| !ON_THE_EVENT.contains(*name));
        let values = values.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let plain = |name: &str| filled.get(name).cloned();
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), fill(value, plain))).collect();
        let json = self.body.as_ref().map(|body| fill_body(body, &plain, message));
        let body = json.as_ref().map(Value::to_string);
        let is_small = body.as_ref().is_some_and(|body| body.len() <= MAX_RECORDED_BODY);
        let method = match self.method {
            Method::Get => None,
            Method::Post => Some(self.method.as_str().to_owned()),
        };
        let recorded = SourceRequest { method, url, values, body: json.filter(|_| is_small) };
        Planned { url: fill(&self.url, encoded), headers, body, recorded }
    }

    fn values(&self, name: &str, text: &str, message: &MessageValues) -> Vec<String> {
        let mut values = Vec::new();
        if let Some(regex) = self.extract.get(name).filter(|_| !is_of_message(name)) {
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
            values.extend(message.text(name).or_else(|| self.defaults.get(name).cloned()));
        }
        values
    }
}

/// A text with its `{placeholders}` replaced by what `value` has for them. What it has nothing for stays as it is, and
/// what was put in is not looked at again.
fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let found = after.split_once('}').and_then(|(name, behind)| Some((value(name)?, behind)));
        if let Some((value, behind)) = found {
            filled.push_str(&value);
            rest = behind;
        } else {
            filled.push('{');
            rest = after;
        }
    }
    filled.push_str(rest);
    filled
}

/// Names of the placeholders in a text, in order. What is in braces and can be no name is no placeholder: texts of headers
/// and bodies may have braces of their own.
pub fn placeholders(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        rest = after;
        if let Some((name, behind)) = after.split_once('}')
            && is_name(name)
        {
            names.push(name);
            rest = behind;
        }
    }
    names
}

/// Whether a placeholder can have this name.
pub fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let part = |part: &str| !part.is_empty() && part.chars().all(|c| word(c) || c == '-');
    let of_metadata = is_of_message(name) && name.split('.').all(part);
    (1..=64).contains(&name.len()) && (name.chars().all(word) || of_metadata)
}

/// The same of all texts of a body.
pub fn body_placeholders(body: &Value) -> Vec<&str> {
    match body {
        Value::String(text) => placeholders(text),
        Value::Array(items) => items.iter().flat_map(body_placeholders).collect(),
        Value::Object(fields) => fields.values().flat_map(body_placeholders).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

/// A body with its placeholders replaced. Values stand in JSON texts, so that none of them can end one.
fn fill_body(body: &Value, value: &impl Fn(&str) -> Option<String>, message: &MessageValues) -> Value {
    match body {
        Value::String(text) => {
            let only = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
            let whole = only.filter(|name| is_of_message(name)).and_then(|name| message.get(name));
            whole.cloned().unwrap_or_else(|| Value::String(fill(text, value)))
        }
        Value::Array(items) => items.iter().map(|item| fill_body(item, value, message)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), fill_body(field, value, message))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => body.clone(),
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
    use serde_json::{Value, json};
    use throughline_schemas::{
        Meta, SessionId, StepPath, Timestamp, TraceParent, UserId, WorkflowId, event::input::Request,
    };

    use super::*;
    use crate::supervision::settings::StageSettings;

    fn spec(url: &str, keywords: &[&str], extract: &[(&str, &str)], defaults: &[(&str, &str)]) -> SourceSpec {
        let own = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        SourceSpec {
            name: "s".to_owned(),
            url: url.to_owned(),
            recorded_url: url.replace("canary", "***"),
            method: Method::Get,
            headers: BTreeMap::new(),
            body: None,
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

    fn message(text: &str, metadata: &Value) -> MessageValues {
        let meta = Meta {
            id: "w.context_retrieved".to_owned(),
            source: "throughline/context".to_owned(),
            time: Timestamp::from_unix_ms(0),
            workflow_id: WorkflowId::new("w").unwrap(),
            session_id: SessionId::new("s").unwrap(),
            user_id: UserId::new("a/b?c=ü").unwrap(),
            step: StepPath::NONE,
            causation_id: None,
            traceparent: TraceParent::root(1, 1),
            attempt: 1,
        };
        let request = Request {
            user_input: text.to_owned(),
            metadata: metadata.as_object().unwrap().clone().into(),
            input_sequence: 1,
            received_at: Timestamp::from_unix_ms(1_999),
            merged: Vec::new(),
            redo: None,
        };
        MessageValues::of(&meta, &request, json!({"language": "nb"}).as_object().unwrap())
    }

    fn requests(spec: &SourceSpec, text: &str, metadata: &Value) -> Vec<Planned> {
        match spec.plan(&message(text, metadata)) {
            Plan::Skip => Vec::new(),
            Plan::Fetch(requests) => requests,
        }
    }

    /// The URLs; none if it is skipped.
    fn plan(spec: &SourceSpec, text: &str) -> Vec<String> {
        requests(spec, text, &json!({})).into_iter().map(|planned| planned.url).collect()
    }

    #[test]
    fn a_source_with_keywords_is_skipped_unless_one_is_mentioned() {
        let orders = spec("http://x/orders/{user_id}", &["order", "purchase"], &[], &[]);
        assert!(plan(&orders, "hello").is_empty());
        assert_eq!(
            plan(&orders, "my purchases"),
            ["http://x/orders/a%2Fb%3Fc%3D%C3%BC"],
            "the id is one path segment"
        );
    }

    #[test]
    fn values_come_from_the_text_else_from_the_defaults_else_the_source_is_skipped() {
        let extract = [("product_id", r"(?i)\b(PROD-\d+)\b")];
        let product = spec("http://x/products/{product_id}", &[], &extract, &[("product_id", "PROD-001")]);
        let url = |id: &str| [format!("http://x/products/{id}")];
        assert_eq!(plan(&product, "is prod-77 in stock, or PROD-78?"), url("prod-77"));
        assert_eq!(plan(&product, "headphones"), url("PROD-001"));
        let strict = spec("http://x/products/{product_id}", &[], &extract, &[]);
        assert!(plan(&strict, "headphones").is_empty());
        let any = spec("http://x/products/{id}/private", &[], &[("id", r"id=(\S+)")], &[]);
        assert!(plan(&any, "id=..").is_empty(), "a dot segment would leave the source's path");
    }

    #[test]
    fn several_distinct_values_are_fetched_up_to_the_limit() {
        let mut orders = spec("http://x/{order_id}", &[], &[("order_id", r"#W\d+")], &[]);
        orders.max_matches = 2;
        assert_eq!(plan(&orders, "#W1 and #W1 and #W2 and #W3"), ["http://x/%23W1", "http://x/%23W2"]);
    }

    #[test]
    fn a_url_sees_the_message_and_every_value_is_encoded() {
        let metadata = json!({"shop": "a&b=c", "cart": {"id": 7, "note": null}, "date": "x"});
        let one = |url: &str, defaults: &[(&str, &str)]| {
            let spec = spec(url, &[], &[], defaults);
            requests(&spec, "red {user_id} & blue", &metadata).into_iter().map(|planned| planned.url).next()
        };
        assert_eq!(
            one("http://x/?q={user_input}", &[]).unwrap(),
            "http://x/?q=red%20%7Buser_id%7D%20%26%20blue"
        );
        assert_eq!(
            one("http://x/{metadata.shop}/{metadata.cart.id}/{session_id}/{workflow_id}", &[]).unwrap(),
            "http://x/a%26b%3Dc/7/s/w"
        );
        assert_eq!(
            one("http://x/{date}/{time}", &[]).unwrap(),
            "http://x/1970-01-01/1970-01-01T00%3A00%3A01Z"
        );
        assert_eq!(one("http://x/{language}", &[("language", "en")]).unwrap(), "http://x/nb");
        for missing in ["metadata.channel", "metadata.cart.note", "metadata.shop.name"] {
            let url = format!("http://x/{{{missing}}}");
            assert_eq!(one(&url, &[]), None, "{missing}: skipped, like what a text does not say");
            assert_eq!(one(&url, &[(missing, "web")]).unwrap(), "http://x/web");
        }
    }

    #[test]
    fn the_text_chooses_nothing_that_the_message_says() {
        let who = spec(
            "http://x/{user_id}/{metadata.shop}",
            &[],
            &[("user_id", "user (\\w+)"), ("metadata.shop", "shop (\\w+)")],
            &[],
        );
        let found = requests(&who, "user mallory shop theirs", &json!({"shop": "ours"}));
        assert_eq!(found[0].url, "http://x/a%2Fb%3Fc%3D%C3%BC/ours");
        assert!(requests(&who, "user mallory shop theirs", &json!({})).is_empty());
    }

    #[test]
    fn headers_and_the_body_see_the_same_and_no_value_leaves_its_place() {
        let mut search = spec("http://x/search", &[], &[("id", r"PROD-\d+")], &[("id", "none")]);
        search.method = Method::Post;
        search.headers.insert("x-user".to_owned(), "id={user_id}; {\"a\": 1}".to_owned());
        search.body =
            Some(json!({"query": "{user_input}", "k": 3, "filter": [{"id": "no {id}"}, "{metadata.cart}"]}));
        let text = r#"" , "k": 9, {user_id} PROD-7"#;
        let metadata = json!({"cart": {"items": [1, "{user_id}"]}});
        let planned = &requests(&search, text, &metadata)[0];
        assert_eq!(planned.headers, [("x-user".to_owned(), "id=a/b?c=ü; {\"a\": 1}".to_owned())]);
        let body: Value = serde_json::from_str(planned.body.as_deref().unwrap()).unwrap();
        let expected =
            json!({"query": text, "k": 3, "filter": [{"id": "no PROD-7"}, {"items": [1, "{user_id}"]}]});
        assert_eq!(body, expected);
        assert_eq!(
            (planned.recorded.method.as_deref(), &planned.recorded.body),
            (Some("POST"), &Some(expected))
        );
        let long = requests(&search, &"x".repeat(5_000), &metadata);
        assert_eq!(long[0].recorded.body, None);
        assert!(requests(&search, text, &json!({})).is_empty(), "it has no cart");
    }

    #[test]
    fn what_was_asked_is_written_down_without_secrets() {
        let extract = [("product_id", r"PROD-\d+")];
        let product =
            spec("http://u:canary@x/{user_id}/{product_id}?key=canary&q={user_input}", &[], &extract, &[]);
        let planned = &requests(&product, "PROD-7?", &json!({}))[0];
        assert_eq!(planned.url, "http://u:canary@x/a%2Fb%3Fc%3D%C3%BC/PROD-7?key=canary&q=PROD-7%3F");
        assert_eq!(planned.recorded.url, "http://u:***@x/a%2Fb%3Fc%3D%C3%BC/PROD-7?key=***&q=PROD-7%3F");
        assert_eq!(planned.recorded.values, BTreeMap::from([("product_id".to_owned(), "PROD-7".to_owned())]));
        let long = requests(&product, &format!("PROD-7 {}", "x".repeat(5_000)), &json!({}));
        assert_eq!(long[0].recorded.url.chars().count(), MAX_RECORDED_URL + 1);
    }
}
