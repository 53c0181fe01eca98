//! Whether costs can be known: what models are charged for, and since when nobody has looked.

use std::collections::BTreeMap;

use throughline_schemas::Timestamp;
use time::{Date, OffsetDateTime, macros::format_description};

use super::finding::Finding;
use crate::{
    config::Config,
    llm::{KnownModel, PriceSource, known_models},
};

const NAME: &str = "prices";
/// Vendors change prices a few times a year; after so many days a list is worth a comparison.
const OLD_DAYS: i64 = 180;
/// Models named at most.
const MAX_NAMES: usize = 5;

/// One finding, or one for each way in which prices are wanting. None, if the models themselves are configured wrong, which
/// is said elsewhere.
pub(super) fn check(config: &Config, now: Timestamp) -> Vec<Finding> {
    let Ok(known) = known_models(config) else { return Vec::new() };
    judge(&known, OffsetDateTime::from(now).date())
}

fn judge(known: &[KnownModel<'_>], today: Date) -> Vec<Finding> {
    let mut unknown = Vec::new();
    let mut listed: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for KnownModel { target, price_source, .. } in known {
        match *price_source {
            PriceSource::Configured => {}
            PriceSource::Listed { source, read } => {
                listed.entry((read, source)).or_default().push(&target.name);
            }
            PriceSource::Unknown => unknown.push(target.name.as_str()),
        }
    }
    let mut findings = Vec::new();
    if !unknown.is_empty() {
        let detail =
            format!("no price is known of {}, so what their answers cost is not counted", some(&unknown));
        let advice = "set input_usd_per_million and output_usd_per_million of their [[models]] (0 where nothing is \
                      charged)";
        findings.push(Finding::warn(NAME, detail, advice));
    }
    for ((read, source), models) in &listed {
        let days = days_since(read, today);
        if days > OLD_DAYS {
            let detail = format!("those listed of {} are as of {read}, {days} days ago", some(models));
            let advice = format!(
                "compare them with {source}; what differs, set as input_usd_per_million and output_usd_per_million of \
                 its [[models]], or upgrade Throughline"
            );
            findings.push(Finding::warn(NAME, detail, advice));
        }
    }
    if findings.is_empty() && !known.is_empty() {
        let oldest = listed.keys().next().map(|(read, _)| format!("; the list is as of {read}"));
        let detail = format!("known of every model ({}){}", known.len(), oldest.unwrap_or_default());
        findings.push(Finding::ok(NAME, detail));
    }
    findings
}

/// The list is tested to have days in it.
fn days_since(day: &str, today: Date) -> i64 {
    Date::parse(day, format_description!("[year]-[month]-[day]")).map_or(0, |day| (today - day).whole_days())
}

fn some(names: &[&str]) -> String {
    let first = names.iter().take(MAX_NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use time::macros::date;

    use super::*;
    use crate::{cli::doctor::finding::Status, config::Layers};

    const VENDOR: &str = "[[providers]]\nname = 'p'\nkind = 'openai'\n";

    fn findings(models: &str, today: Date) -> Vec<Finding> {
        let config = Layers::default().load_text("t.toml", &format!("{VENDOR}{models}")).unwrap();
        judge(&known_models(&config).unwrap(), today)
    }

    #[test]
    fn a_model_without_a_price_is_named_with_what_to_set() {
        let home_made = "[[models]]\nname = 'home-made'\nprovider = 'p'\n";
        let found = findings(home_made, date!(2026 - 11 - 01));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].status, Status::Warn);
        assert!(found[0].detail.contains("home-made") && found[0].advice.contains("input_usd_per_million"));
        let priced = format!("{home_made}input_usd_per_million = 0\noutput_usd_per_million = 0\n");
        assert_eq!(findings(&priced, date!(2026 - 11 - 01))[0].status, Status::Ok);
    }

    #[test]
    fn a_list_that_nobody_has_compared_for_half_a_year_is_said_to_be_old() {
        let listed = "[[models]]\nname = 'gpt-4o-mini'\nprovider = 'p'\n";
        let read = crate::prices::listed(
            Layers::default().load_text("t.toml", VENDOR).unwrap().providers.first().unwrap(),
            "gpt-4o-mini",
        );
        let read = Date::parse(read.unwrap().read, format_description!("[year]-[month]-[day]")).unwrap();
        let fresh = findings(listed, read + time::Duration::days(OLD_DAYS));
        assert_eq!((fresh.len(), fresh[0].status), (1, Status::Ok), "{fresh:?}");
        let old = findings(listed, read + time::Duration::days(OLD_DAYS + 1));
        assert_eq!((old.len(), old[0].status), (1, Status::Warn), "{old:?}");
        assert!(old[0].detail.contains("gpt-4o-mini") && old[0].detail.contains("181 days"), "{old:?}");
        assert!(old[0].advice.contains("https://"), "{old:?}");
    }
}
