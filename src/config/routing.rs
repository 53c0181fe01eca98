//! `[routing]`: which models answer requests that are simple, moderate or complex, and which requests are that.

use regex::Regex;

use super::connections::check_token;
use super::field::Field;
use super::models::check_model;
use super::reader::Section;
use super::tree::Value;

/// How demanding a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Complexity {
    /// A small model will do.
    Simple,
    /// In between.
    #[default]
    Moderate,
    /// Worth the best model there is.
    Complex,
}

impl Complexity {
    const ALL: [Self; 3] = [Self::Simple, Self::Moderate, Self::Complex];

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Moderate => "moderate",
            Self::Complex => "complex",
        }
    }
}

impl Field for Complexity {
    fn read(value: &Value) -> Result<Self, String> {
        let name = String::read(value)?;
        Self::ALL
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

/// Says how demanding requests are that meet all of its conditions.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// For the record and the dry run; 1 to 64 of `A-Z a-z 0-9 _ -`, unique.
    pub name: String,
    /// What it says.
    pub complexity: Complexity,
    /// `min_chars`, `max_chars`: of the user's text.
    pub chars: Bounds,
    /// `min_tokens`, `max_tokens`: of the user's text.
    pub tokens: Bounds,
    /// `min_sources`, `max_sources`: data sources that answered with data.
    pub sources: Bounds,
    /// `min_turns`, `max_turns`: earlier turns in the prompt.
    pub turns: Bounds,
    /// The text mentions at least one of these, at the start of a word.
    pub keywords: Vec<String>,
    /// The text matches at least one of these.
    pub patterns: Vec<Regex>,
}

/// From and to, both included; none: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// At least.
    pub min: Option<u64>,
    /// At most.
    pub max: Option<u64>,
}

impl Routing {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let mut models = |key| {
            s.or_where(key, Vec::new(), |names: &Vec<String>| names.iter().try_for_each(|name| check_model(name)))
        };
        let (simple, moderate, complex) = (models("simple"), models("moderate"), models("complex"));
        let (otherwise, requested_model, requested_complexity) =
            (s.optional("otherwise"), s.or("requested_model", false), s.or("requested_complexity", false));
        let rules: Vec<Rule> = s.list("rules", Rule::read).into_iter().map(|(_, rule)| rule).collect();
        for (index, rule) in rules.iter().enumerate() {
            if !rule.name.is_empty() && rules[..index].iter().any(|other| other.name == rule.name) {
                s.conflict(&format!("rules[{index}].name"), format!("{:?} is the name of another rule", rule.name));
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

impl Rule {
    fn read(s: &mut Section<'_>) -> Self {
        Self {
            name: s.required("name", |name: &String| check_token(name, 64)).unwrap_or_default(),
            complexity: s.required("complexity", |_| Ok(())).unwrap_or_default(),
            chars: Bounds::read(s, "min_chars", "max_chars"),
            tokens: Bounds::read(s, "min_tokens", "max_tokens"),
            sources: Bounds::read(s, "min_sources", "max_sources"),
            turns: Bounds::read(s, "min_turns", "max_turns"),
            keywords: s.or_where("keywords", Vec::new(), |words: &Vec<String>| {
                let empty = words.iter().any(|word| word.trim().is_empty());
                if empty { Err("a keyword must not be empty".to_owned()) } else { Ok(()) }
            }),
            patterns: s.or("patterns", Vec::new()),
        }
    }
}

impl Bounds {
    fn read(s: &mut Section<'_>, min: &'static str, max: &'static str) -> Self {
        let bounds = Self { min: s.optional(min), max: s.optional(max) };
        if let Self { min: Some(from), max: Some(to) } = bounds
            && from > to
        {
            s.conflict(max, format!("{min} ({from}) must not exceed {max} ({to})"));
        }
        bounds
    }
}
