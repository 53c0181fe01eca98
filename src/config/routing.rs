//! `[routing]`: which models answer requests that are simple, moderate or complex, and which requests are that.

use throughline_actors::policy::routing::Rule;
use throughline_schemas::event::generation::Complexity;

use super::connections::check_token;
use super::field::Field;
use super::models::check_model;
use super::reader::Section;
use super::tree::Value;

impl Field for Complexity {
    fn read(value: &Value) -> Result<Self, String> {
        let name = String::read(value)?;
        [Self::Simple, Self::Moderate, Self::Complex]
            .into_iter()
            .find(|complexity| complexity.as_str() == name)
            .ok_or_else(|| format!("{name:?} is no complexity; use \"simple\", \"moderate\" or \"complex\""))
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.as_str().to_owned())
    }
}

/// `[routing]`.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// Models for simple requests, tried in this order. Default: none, which means `generation.model` and its fallbacks.
    pub simple: Vec<String>,
    /// The same for moderate requests.
    pub moderate: Vec<String>,
    /// The same for complex requests.
    pub complex: Vec<String>,
    /// How demanding a request is that no rule matches. Default: not said, so `generation.model` answers.
    pub otherwise: Option<Complexity>,
    /// Whether a request's `metadata.model` chooses the model. Default false: publishers could choose what is paid.
    pub requested_model: bool,
    /// Whether a request's `metadata.complexity` counts. Default false.
    pub requested_complexity: bool,
    /// `[[routing.rules]]`: the first one that matches decides.
    pub rules: Vec<Rule>,
}

impl Routing {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let mut models = |key| {
            s.or_where(key, Vec::new(), |names: &Vec<String>| {
                names.iter().try_for_each(|name| check_model(name))
            })
        };
        let (simple, moderate, complex) = (models("simple"), models("moderate"), models("complex"));
        let (otherwise, requested_model, requested_complexity) =
            (s.optional("otherwise"), s.or("requested_model", false), s.or("requested_complexity", false));
        let rules: Vec<Rule> = s.list("rules", rule).into_iter().map(|(_, rule)| rule).collect();
        for (index, rule) in rules.iter().enumerate() {
            if !rule.name.is_empty() && rules[..index].iter().any(|other| other.name == rule.name) {
                let message = format!("{:?} is the name of another rule", rule.name);
                s.conflict(&format!("rules[{index}].name"), message);
            }
        }
        Self { simple, moderate, complex, otherwise, requested_model, requested_complexity, rules }
    }

    /// Every list of models with its key.
    pub(super) fn lists(&self) -> [(&'static str, &[String]); 3] {
        [
            ("routing.simple", &self.simple),
            ("routing.moderate", &self.moderate),
            ("routing.complex", &self.complex),
        ]
    }
}

fn rule(s: &mut Section<'_>) -> Rule {
    let name = s.required("name", |name: &String| check_token(name, 64)).unwrap_or_default();
    let complexity = s.required("complexity", |_| Ok(())).unwrap_or(Complexity::Moderate);
    let (min_chars, max_chars) = bounds(s, "min_chars", "max_chars");
    let (min_tokens, max_tokens) = bounds(s, "min_tokens", "max_tokens");
    let (min_sources, max_sources) = bounds(s, "min_sources", "max_sources");
    let (min_turns, max_turns) = bounds(s, "min_turns", "max_turns");
    Rule {
        min_chars,
        max_chars,
        min_tokens,
        max_tokens,
        min_sources,
        max_sources,
        min_turns,
        max_turns,
        keywords: s.or_where("keywords", Vec::new(), |words: &Vec<String>| {
            let empty = words.iter().any(|word| word.trim().is_empty());
            if empty { Err("a keyword must not be empty".to_owned()) } else { Ok(()) }
        }),
        patterns: s.or("patterns", Vec::new()),
        ..Rule::new(name, complexity)
    }
}

/// From and to, both included.
fn bounds(s: &mut Section<'_>, min: &'static str, max: &'static str) -> (Option<u64>, Option<u64>) {
    let (from, to) = (s.optional(min), s.optional(max));
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        s.conflict(max, format!("{min} ({from}) must not exceed {max} ({to})"));
    }
    (from, to)
}
