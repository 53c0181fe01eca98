//! Trying a template before it serves: made-up messages are rendered, one with everything and others that lack what real
//! ones may lack, so that a mistake is found when a worker starts and not by its users.

use std::{fmt, sync::Arc};

use minijinja::{
    ErrorKind,
    value::{Enumerator, Object, ObjectRepr, Value},
};
use serde_json::{Map, json};

use super::{DATA, PromptTemplate, SYSTEM, TAG, Tag, object, with_tag};
use crate::message_values::{ALWAYS, LANGUAGE, METADATA};

/// What a made-up text says.
const SAMPLE: &str = "sample";
/// What the data template sees besides the message.
pub(super) const OF_DATA: [&str; 2] = ["preferences", "sources"];
/// What a source has in it.
const OF_SOURCE: [&str; 4] = ["name", "status", "json", "error"];
/// The filters that prompts use, for suggestions.
const FILTERS: [&str; 14] = [
    "default",
    "tojson",
    "upper",
    "lower",
    "title",
    "capitalize",
    "trim",
    "replace",
    "length",
    "join",
    "first",
    "last",
    "sort",
    "indent",
];

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file: `system.j2` or `data.j2`.
    pub file: &'static str,
    /// Counted from 1, where it is known.
    pub line: Option<usize>,
    /// In words.
    pub what: String,
    /// The name that nothing has.
    pub unknown: Option<String>,
    /// Whether it would stop every message that comes that way; else the made-up values may be at fault.
    pub is_certain: bool,
}

impl Mistake {
    /// The names that could have been meant.
    pub fn known(&self) -> impl Iterator<Item = &'static str> {
        let is_filter = self.what.starts_with("unknown filter");
        let of_message = ALWAYS.into_iter().chain([METADATA, LANGUAGE, TAG]);
        let names = of_message.chain(OF_DATA).chain(OF_SOURCE).filter(move |_| !is_filter);
        names.chain(FILTERS.into_iter().filter(move |_| is_filter))
    }
}

/// `system.j2:3: undefined value: ...`
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

/// Metadata that has everything that is asked of it.
#[derive(Debug)]
struct Anything;

impl Object for Anything {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(Value::from_dyn_object(Arc::clone(self)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Empty
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SAMPLE)
    }
}

/// A made-up message.
struct Sample {
    message: Value,
    preferences: Option<String>,
    sources: Vec<Value>,
}

impl PromptTemplate {
    /// Renders made-up messages with the data of sources of these names, and says what is wrong.
    pub fn mistakes<'n>(&self, sources: impl IntoIterator<Item = &'n str>) -> Vec<Mistake> {
        let sources: Vec<&str> = sources.into_iter().collect();
        let mut mistakes: Vec<Mistake> =
            [SYSTEM, DATA].into_iter().flat_map(|file| self.unknown_names(file)).collect();
        for sample in samples(&sources) {
            let Sample { message, preferences, sources } = sample;
            let nothing = preferences.is_none() && sources.is_empty();
            let system = self.render_system(message.clone()).err();
            // Without any data it is not rendered, unless it speaks of the message.
            let tried = !nothing || self.data_needs_no_data;
            let data = tried.then(|| self.render_data(message, preferences, sources, 0).err()).flatten();
            for (file, error) in [(SYSTEM, system), (DATA, data)] {
                let found = error.map(|error| mistake(file, &error.error));
                // What one sample meets another one meets, too.
                let is_new = |found: &Mistake| {
                    !mistakes.iter().any(|known| (known.file, known.line) == (found.file, found.line))
                };
                if let Some(found) = found.filter(is_new) {
                    mistakes.push(found);
                }
            }
        }
        mistakes
    }

    /// Names that no message has. They are found also where no sample comes by.
    fn unknown_names(&self, file: &'static str) -> Vec<Mistake> {
        let Ok(template) = self.environment.get_template(file) else { return Vec::new() };
        let is_known = |name: &str| {
            ALWAYS.contains(&name)
                || [METADATA, LANGUAGE, TAG].contains(&name)
                || (file == DATA && OF_DATA.contains(&name))
                || self.environment.globals().any(|(global, _)| global == name)
        };
        let mut unknown: Vec<String> =
            template.undeclared_variables(false).into_iter().filter(|name| !is_known(name)).collect();
        unknown.sort_unstable();
        let found = unknown.into_iter().filter_map(|name| {
            let line = line_of(template.source(), &name)?;
            // One that is known elsewhere is not misspelt.
            let (what, unknown) = if OF_DATA.contains(&name.as_str()) {
                (format!("`{name}` is what was retrieved, which only data.j2 sees"), None)
            } else {
                (format!("undefined value: `{name}` is undefined"), Some(name))
            };
            Some(Mistake { file, line: Some(line), what, unknown, is_certain: true })
        });
        found.collect()
    }
}

/// The first line that needs a name to have a value; none if the template only asks whether it has one.
fn line_of(source: &str, name: &str) -> Option<usize> {
    let needs_it = |at: usize| {
        let (before, after) = (source.get(..at)?, source.get(at + name.len()..)?);
        (is_code(before) && !continues(before, after) && !asks(after))
            .then(|| before.matches('\n').count() + 1)
    };
    source.match_indices(name).find_map(|(at, _)| needs_it(at))
}

/// Whether a template's text ends within `{{ }}` or `{% %}`.
fn is_code(before: &str) -> bool {
    let last = |marks: [&str; 2]| marks.into_iter().filter_map(|mark| before.rfind(mark)).max();
    last(["{{", "{%"]) > last(["}}", "%}"])
}

/// Whether a name that stands between these is part of a longer one, or a field of something else.
fn continues(before: &str, after: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    before.ends_with(|c: char| word(c) || c == '.') || after.starts_with(word)
}

/// Whether what follows a name copes with its having no value.
fn asks(after: &str) -> bool {
    let after = after.trim_start();
    let filter = after.strip_prefix('|').map(str::trim_start);
    filter.is_some_and(|filter| filter.starts_with("default") || filter.starts_with("d("))
        || ["is defined", "is not defined", "is undefined"].iter().any(|asks| after.starts_with(asks))
}

fn samples(sources: &[&str]) -> Vec<Sample> {
    let mut values: Map<String, serde_json::Value> =
        ALWAYS.iter().map(|name| ((*name).to_owned(), json!(SAMPLE))).collect();
    values.insert("time".to_owned(), json!("2026-11-25T13:29:07Z"));
    values.insert("date".to_owned(), json!("2026-11-25"));
    values.insert(METADATA.to_owned(), json!({}));
    let bare = with_tag(object(&values), Tag::random(0));
    values.insert(LANGUAGE.to_owned(), json!("en"));
    values.remove(METADATA);
    let full = minijinja::context! { metadata => Value::from_object(Anything), ..object(&values) };
    let full = with_tag(full, Tag::random(0));
    let some = if sources.is_empty() { &[SAMPLE][..] } else { sources };
    let with = |status: &str, json: &str, error: Option<&str>| -> Vec<Value> {
        some.iter().copied().map(|name| minijinja::context! { name, status, json, error }).collect()
    };
    let answered = with("ok", r#"{"sample":true}"#, None);
    let failed = with("failed", "null", Some("timed_out"));
    let preferences = Some(r#"{"language":"en"}"#.to_owned());
    let sample = |message: &Value, preferences: &Option<String>, sources: Vec<Value>| Sample {
        message: message.clone(),
        preferences: preferences.clone(),
        sources,
    };
    vec![
        sample(&full, &preferences, answered.clone()),
        sample(&full, &preferences, failed),
        sample(&bare, &preferences, Vec::new()),
        sample(&bare, &None, answered),
        sample(&bare, &None, Vec::new()),
    ]
}

fn mistake(file: &'static str, error: &minijinja::Error) -> Mistake {
    let detail = error.detail().unwrap_or_default();
    let what =
        if detail.is_empty() { error.kind().to_string() } else { format!("{}: {detail}", error.kind()) };
    // The library writes `a.b` is undefined, filter a is unknown.
    let named = detail.split('`').nth(1).or_else(|| detail.split(' ').nth(1));
    let unknown = named.and_then(|path| path.rsplit('.').next()).map(str::to_owned);
    let of_metadata = detail.contains("`metadata.") || detail.contains("`language`");
    let what = if of_metadata && error.kind() == ErrorKind::UndefinedError {
        format!("{what} in some messages; give it a value for them, as in {{{{ name | default(\"\") }}}}")
    } else {
        what
    };
    let is_certain = matches!(
        error.kind(),
        ErrorKind::SyntaxError
            | ErrorKind::TemplateNotFound
            | ErrorKind::TooManyArguments
            | ErrorKind::MissingArgument
            | ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownFunction
            | ErrorKind::UnknownMethod
            | ErrorKind::BadEscape
            | ErrorKind::UndefinedError
    );
    Mistake { file, line: error.line(), what, unknown, is_certain }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mistakes(system: &str, data: &str) -> Vec<(String, bool)> {
        let template = PromptTemplate::new("p", system, data).unwrap();
        template.mistakes(["orders"]).into_iter().map(|found| (found.to_string(), found.is_certain)).collect()
    }

    #[test]
    fn a_good_template_has_no_mistakes() {
        let shipped = (
            include_str!("../../../../deploy/prompts/assistant/system.j2"),
            include_str!("../../../../deploy/prompts/assistant/data.j2"),
        );
        for (system, data) in [
            shipped,
            ("", ""),
            ("{{ date }} {{ language | default('en') }} {% if language %}x{% endif %}", "{{ preferences }}"),
            ("{% if metadata.shop is defined %}{{ metadata.shop | upper }}{% endif %}", ""),
            (
                "nobody {% if metadata.cart %}{{ metadata.cart.id | default('none') }}{% endif %}{% set x = 1 %}{{ x }}",
                "{% for s in sources %}{{ s.json }}{% endfor %}",
            ),
            (
                "{% for n in range(3) %}{{ loop.index }}{% endfor %}{% if nobody is defined %}{{ 1 }}{% endif %}",
                "",
            ),
            (
                "{{ metadata | tojson }}",
                "{{ (sources | selectattr('name', 'equalto', 'x') | list) | length }}",
            ),
        ] {
            let found = mistakes(system, data);
            assert!(found.is_empty(), "{system} / {data}: {found:?}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_file_and_line_wherever_it_stands() {
        for (system, data, expected) in [
            (
                "customer_name:\n{{ customer_name }}",
                "",
                "system.j2:2: undefined value: `customer_name` is undefined",
            ),
            (
                "{% if date == 'x' %}\n{{ nobody }}{% endif %}",
                "",
                "system.j2:2: undefined value: `nobody` is undefined",
            ),
            ("{{ sources }}", "", "system.j2:1: `sources` is what was retrieved, which only data.j2 sees"),
            ("", "\n{% for s in sources %}{{ s.json | nofilter }}{% endfor %}", "data.j2:2: unknown filter"),
            ("", "{% for s in sources %}{{ s.jsno }}{% endfor %}", "data.j2:1: undefined value: `s.jsno`"),
            (
                "{{ metadata.shop }}",
                "",
                "system.j2:1: undefined value: `metadata.shop` is undefined in some messages",
            ),
            ("", "{{ sources[0].json }}", "data.j2:1: undefined value"),
            ("{{ nofunction() }}", "", "system.j2:1: "),
        ] {
            let found = mistakes(system, data);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].0.starts_with(expected) && found[0].1, "{found:?} is not {expected:?}");
        }
    }

    #[test]
    fn what_may_be_the_sample_s_fault_is_no_certain_mistake() {
        let found = mistakes("{{ metadata.count | default(1) + 1 }}", "");
        assert!(found.iter().all(|(_, is_certain)| !is_certain), "{found:?}");
        assert!(!mistakes("{{ 1 // 0 }}", "").is_empty());
    }
}
