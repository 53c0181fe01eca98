//! Which models a request is sent to: a pure function of the request and the configured rules.

use regex::Regex;
use throughline_schemas::event::generation::{ChosenBy, Complexity, Route};

use crate::policy::keywords::mentions;

/// Which models are asked, in which order.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    /// Names of the models that are asked unless a rule says otherwise: the first, then its fallbacks.
    pub default: Vec<String>,
    /// The same for simple requests; empty: the default.
    pub simple: Vec<String>,
    /// The same for moderate requests; empty: the default.
    pub moderate: Vec<String>,
    /// The same for complex requests; empty: the default.
    pub complex: Vec<String>,
    /// How demanding a request is: the first rule that matches decides.
    pub rules: Vec<Rule>,
    /// How demanding a request is that no rule matches.
    pub otherwise: Option<Complexity>,
    /// Whether a request may name its model. The named model is asked first, then the others of the default route.
    pub requested_model: bool,
    /// Whether a request may name its complexity.
    pub requested_complexity: bool,
}

/// Says how demanding requests are that meet all of its conditions. One without conditions matches everything.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name, for the record.
    pub name: String,
    /// What it says.
    pub complexity: Complexity,
    /// Characters of the user's text: at least.
    pub min_chars: Option<u64>,
    /// Characters of the user's text: at most.
    pub max_chars: Option<u64>,
    /// Tokens of the user's text, by the tokenizer of the default model: at least.
    pub min_tokens: Option<u64>,
    /// Tokens of the user's text, by the tokenizer of the default model: at most.
    pub max_tokens: Option<u64>,
    /// Sources that answered with data: at least.
    pub min_sources: Option<u64>,
    /// Sources that answered with data: at most.
    pub max_sources: Option<u64>,
    /// Earlier turns: at least.
    pub min_turns: Option<u64>,
    /// Earlier turns: at most.
    pub max_turns: Option<u64>,
    /// The user's text mentions at least one of these; see [`mentions`].
    pub keywords: Vec<String>,
    /// The user's text matches at least one of these.
    pub patterns: Vec<Regex>,
}

/// What rules look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestFacts<'a> {
    /// The user's text.
    pub text: &'a str,
    /// Its tokens; zero will do where [`Routing::counts_tokens`] is false.
    pub tokens: u64,
    /// Sources that answered with data.
    pub sources: u64,
    /// Earlier turns.
    pub turns: u64,
}

/// What a request says about its route itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteRequest {
    /// Name of the model in the configuration.
    pub model: Option<String>,
    /// How demanding it is.
    pub complexity: Option<Complexity>,
}

impl Rule {
    /// A rule without conditions.
    pub fn new(name: impl Into<String>, complexity: Complexity) -> Self {
        Self {
            name: name.into(),
            complexity,
            min_chars: None,
            max_chars: None,
            min_tokens: None,
            max_tokens: None,
            min_sources: None,
            max_sources: None,
            min_turns: None,
            max_turns: None,
            keywords: Vec::new(),
            patterns: Vec::new(),
        }
    }

    /// Whether a request meets all conditions.
    pub fn matches(&self, facts: &RequestFacts<'_>) -> bool {
        let within = |value: u64, min: Option<u64>, max: Option<u64>| {
            min.is_none_or(|min| value >= min) && max.is_none_or(|max| value <= max)
        };
        let counts_chars = self.min_chars.is_some() || self.max_chars.is_some();
        let chars = if counts_chars { facts.text.chars().count() as u64 } else { 0 };
        within(chars, self.min_chars, self.max_chars)
            && within(facts.tokens, self.min_tokens, self.max_tokens)
            && within(facts.sources, self.min_sources, self.max_sources)
            && within(facts.turns, self.min_turns, self.max_turns)
            && (self.keywords.is_empty() || self.keywords.iter().any(|word| mentions(facts.text, word)))
            && (self.patterns.is_empty() || self.patterns.iter().any(|regex| regex.is_match(facts.text)))
    }
}

impl Routing {
    /// One route for everything.
    pub fn chain(models: Vec<String>) -> Self {
        Self { default: models, ..Self::default() }
    }

    /// Whether any rule looks at tokens.
    pub fn counts_tokens(&self) -> bool {
        self.rules.iter().any(|rule| rule.min_tokens.is_some() || rule.max_tokens.is_some())
    }

    /// Every model that a route names.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        [&self.default, &self.simple, &self.moderate, &self.complex].into_iter().flatten().map(String::as_str)
    }

    /// The route of a request. What a request says about itself counts only where the configuration allows it; a
    /// model that is not among `known` is not asked for.
    pub fn route(&self, facts: &RequestFacts<'_>, request: &RouteRequest, known: &[&str]) -> Route {
        let model = request.model.as_deref().filter(|model| self.requested_model && known.contains(model));
        if let Some(model) = model {
            let others = self.default.iter().filter(|name| *name != model).cloned();
            let models = std::iter::once(model.to_owned()).chain(others).collect();
            return Route { models, chosen: ChosenBy::RequestedModel, complexity: None };
        }
        let requested = request.complexity.filter(|_| self.requested_complexity);
        let (chosen, complexity) = match (requested, self.rules.iter().find(|rule| rule.matches(facts))) {
            (Some(complexity), _) => (ChosenBy::RequestedComplexity, Some(complexity)),
            (None, Some(rule)) => (ChosenBy::Rule { rule: rule.name.clone() }, Some(rule.complexity)),
            (None, None) if self.rules.is_empty() => (ChosenBy::Default, None),
            (None, None) => (ChosenBy::NoRule, self.otherwise),
        };
        let models = match complexity {
            Some(Complexity::Simple) => &self.simple,
            Some(Complexity::Moderate) => &self.moderate,
            Some(Complexity::Complex) => &self.complex,
            None => &self.default,
        };
        let models = if models.is_empty() { &self.default } else { models };
        Route { models: models.clone(), chosen, complexity }
    }
}
