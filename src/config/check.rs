//! Checks across sections: names that must differ, and names that must exist.

use super::reader::Section;
use super::report::Report;
use super::suggest::did_you_mean;
use super::{Config, Model, Origin, Provider, ProviderKind};

impl Config {
    /// Every model has a provider, and every model that `generation` names exists.
    pub(super) fn check_models(&mut self, report: &mut Report) {
        let providers: Vec<&str> = self.providers.iter().map(|provider| provider.name.as_str()).collect();
        for (index, model) in self.models.iter().enumerate() {
            let known = providers.contains(&model.provider.as_str());
            // A provider whose own name was refused may be the one that is meant.
            if !known && !model.provider.is_empty() && !providers.contains(&"") {
                let message = unknown_name(&model.provider, "providers", &providers);
                report.problem(&format!("models[{index}].provider"), &Origin::Default, message);
            }
        }
        let generation = &self.generation;
        let named: Vec<(&str, &String)> = std::iter::once(("generation.model", &generation.model))
            .chain(generation.fallback.iter().map(|name| ("generation.fallback", name)))
            .chain(generation.summary_model.iter().map(|name| ("generation.summary_model", name)))
            .chain(
                self.routing
                    .lists()
                    .into_iter()
                    .flat_map(|(key, names)| names.iter().map(move |name| (key, name))),
            )
            .collect();
        if self.models.is_empty() {
            let mut implied: Vec<Model> = Vec::new();
            for (key, name) in named {
                if implied.iter().any(|model| model.name == *name) {
                    continue;
                }
                match self.provider_of(name) {
                    Some(provider) => implied.push(Model::implicit(name, &provider.name)),
                    // Nothing to generate with; that matters to those who generate, not to every command.
                    None if providers.is_empty() => {}
                    None => {
                        let known = providers.join(", ");
                        let message =
                            format!("which provider has {name:?}? Add it to [[models]] with one of: {known}");
                        report.problem(key, &Origin::Default, message);
                    }
                }
            }
            self.models = implied;
            return;
        }
        // The list is closed: a slip would otherwise be a model whose price nobody knows.
        let models: Vec<&str> = self.models.iter().map(|model| model.name.as_str()).collect();
        for (key, name) in named {
            if !models.contains(&name.as_str()) && !models.contains(&"") {
                report.problem(key, &Origin::Default, unknown_name(name, "models", &models));
            }
        }
    }

    /// Where a model that is not configured must be: at the only provider, or at the only one of the vendor that its
    /// name tells.
    fn provider_of(&self, model: &str) -> Option<&Provider> {
        if let [only] = self.providers.as_slice() {
            return Some(only);
        }
        let vendor = ProviderKind::of_model(model)?;
        let mut of_vendor = self.providers.iter().filter(|provider| provider.kind == vendor);
        of_vendor.next().filter(|_| of_vendor.next().is_none())
    }
}

fn unknown_name(name: &str, list: &str, known: &[&str]) -> String {
    let hint = did_you_mean(name, known.iter().copied());
    let known = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
    format!("{name:?} is none of [[{list}]] (configured: {known}){hint}")
}

/// The elements of an array of tables, whose names must differ.
pub(super) struct Named<T> {
    pub(super) items: Vec<T>,
    pub(super) names: Names,
}

pub(super) struct Names {
    list: &'static str,
    names: Vec<(Origin, String)>,
}

impl<T> Named<T> {
    pub(super) fn read(
        root: &mut Section<'_>,
        list: &'static str,
        read: impl FnMut(&mut Section<'_>) -> T,
        name: impl Fn(&T) -> &String,
    ) -> Self {
        let (names, items): (Vec<_>, Vec<T>) = root
            .list(list, read)
            .into_iter()
            .map(|(origin, item)| ((origin, name(&item).clone()), item))
            .unzip();
        Self { items, names: Names { list, names } }
    }
}

impl Names {
    pub(super) fn check_unique(&self, report: &mut Report) {
        for (index, (origin, name)) in self.names.iter().enumerate() {
            let first = self.names[..index].iter().position(|(_, other)| other == name && !name.is_empty());
            if let Some(first) = first {
                let message = format!("{name:?} is the name of {}[{first}] already", self.list);
                report.problem(&format!("{}[{index}].name", self.list), origin, message);
            }
        }
    }
}
