//! How it is said: a greeting and a closing in the customer's language and tone.

use super::records::{Customer, Preferences};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Brief,
    Formal,
    Friendly,
}

#[derive(Debug)]
pub(super) struct Voice<'a> {
    tone: Tone,
    hello: &'static str,
    dear: &'static str,
    name: Option<&'a str>,
}

impl<'a> Voice<'a> {
    /// What the database remembers about the customer goes before what the profile says.
    pub(super) fn new(preferences: &'a Preferences<'a>, customer: &'a Customer<'a>) -> Self {
        let profile = customer.preferences.as_ref();
        let tone = preferences.tone.as_ref().or_else(|| profile?.tone.as_ref());
        let language = preferences.language.as_ref().or_else(|| profile?.language.as_ref());
        let tone = match tone.map(|tone| &*tone.0) {
            Some("brief" | "concise" | "short") => Tone::Brief,
            Some("formal") => Tone::Formal,
            _ => Tone::Friendly,
        };
        let (hello, dear) = match language.and_then(|language| language.0.get(..2)) {
            Some("de") => ("Hallo", "Guten Tag"),
            Some("es") => ("Hola", "Buenos días"),
            Some("fr") => ("Bonjour", "Bonjour"),
            _ => ("Hi", "Dear"),
        };
        let name = customer.name.as_ref().map(|name| name.0.trim()).filter(|name| !name.is_empty());
        Self { tone, hello, dear, name }
    }

    pub(super) fn speak(&self, answer: &str) -> String {
        let first_name = self.name.and_then(|name| name.split_whitespace().next());
        match (self.tone, self.name, first_name) {
            (Tone::Brief, _, _) | (Tone::Formal, None, _) => answer.to_owned(),
            (Tone::Formal, Some(name), _) => format!("{} {name}, {}", self.dear, lower_first(answer)),
            (Tone::Friendly, _, Some(first)) => {
                format!("{} {first}! {answer} Anything else I can do?", self.hello)
            }
            (Tone::Friendly, _, None) => format!("{}! {answer} Anything else I can do?", self.hello),
        }
    }
}

/// Only words that are not written with a capital anyway: `I` and names keep theirs.
fn lower_first(text: &str) -> String {
    match text.strip_prefix("Your") {
        Some(rest) => format!("your{rest}"),
        None => text.to_owned(),
    }
}
