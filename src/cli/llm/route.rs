//! `throughline llm route`: the rules of `[routing]`, tried on a text.

use throughline_schemas::event::generation::{ChosenBy, Route};

use super::RouteArgs;
use crate::{
    cli::{Failure, output, publish::read_text},
    config::Config,
    llm::{Client, Request},
};

pub(super) fn run(args: &RouteArgs, config: &Config) -> Result<(), Failure> {
    let route = Client::for_routes(config)?.route(Request::new(read_text(&args.text)?))?;
    if args.json {
        return output::line(&serde_json::to_string(&route).map_err(Failure::failed)?);
    }
    output::line(&why(&route))?;
    for (number, name) in (1..).zip(&route.models) {
        let at = config
            .model(name)
            .map(|model| format!("  {} at {}", model.model, model.provider))
            .unwrap_or_default();
        output::line(&format!("{number}. {name}{at}"))?;
    }
    Ok(())
}

fn why(route: &Route) -> String {
    let complexity = route.complexity.map_or("", |complexity| complexity.as_str());
    match &route.chosen {
        ChosenBy::Rule { rule } => format!("{complexity}: the rule {rule:?} matches"),
        ChosenBy::NoRule if complexity.is_empty() => "no rule matches: generation.model".to_owned(),
        ChosenBy::NoRule => format!("{complexity}: no rule matches, and routing.otherwise says so"),
        ChosenBy::Default => "there are no rules: generation.model".to_owned(),
        ChosenBy::RequestedModel => "the request names the model".to_owned(),
        ChosenBy::RequestedComplexity => format!("{complexity}: the request says so"),
        ChosenBy::Unrecognised => "for a reason of a later version".to_owned(),
    }
}
