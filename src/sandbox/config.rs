/// The model that every sandbox serves unless told otherwise.
pub(super) const DEFAULT_MODEL: &str = "sandbox-small";
/// A second model, which costs more and says more: something to fall back to, and to compare with.
pub(super) const LARGE_MODEL: &str = "sandbox-large";

/// The configuration that points Throughline at a sandbox.
#[derive(Debug, Clone, Copy)]
pub struct SandboxConfig;

impl SandboxConfig {
    /// `[[sources]]`, `[[providers]]`, `[[models]]` and `[generation]` with `{base}` where the sandbox's base URL
    /// belongs.
    pub const TEMPLATE: &'static str = include_str!("sandbox.toml");

    /// The model that [`Self::TEMPLATE`] generates with.
    pub const MODEL: &'static str = DEFAULT_MODEL;

    /// The template filled in as TOML text, `base_url` being what
    /// [`Sandbox::base_url`](super::Sandbox::base_url) answers.
    pub fn toml(base_url: &str) -> String {
        Self::TEMPLATE.replace("{base}", base_url.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_filled_in_template_is_toml_that_points_every_url_at_the_sandbox() {
        let text = SandboxConfig::toml("http://127.0.0.1:4000/");
        let config: toml::Table = text.parse().expect("valid TOML");
        let names: Vec<_> =
            config["sources"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["user_profile", "order_history", "order_details", "product_info"]);
        for source in config["sources"].as_array().unwrap() {
            assert!(source["url"].as_str().unwrap().starts_with("http://127.0.0.1:4000/"), "{source}");
        }
        assert_eq!(config["providers"][0]["base_url"].as_str(), Some("http://127.0.0.1:4000/v1"));
        assert_eq!(config["models"][0]["name"], config["generation"]["model"]);
        assert_eq!(config["generation"]["model"].as_str(), Some(SandboxConfig::MODEL));
        for price in ["input_usd_per_million", "output_usd_per_million"] {
            assert!(config["models"][0][price].as_str().unwrap().parse::<rust_decimal::Decimal>().is_ok());
        }
    }

    #[test]
    fn the_patterns_find_what_people_write() {
        let config: toml::Table = SandboxConfig::TEMPLATE.parse().unwrap();
        let pattern = |source: usize, name: &str| {
            regex::Regex::new(config["sources"][source]["extract"][name].as_str().unwrap()).unwrap()
        };
        assert_eq!(&pattern(2, "order_id").captures("where is #W2611340?").unwrap()[1], "#W2611340");
        assert_eq!(&pattern(2, "order_id").captures("where is W2611340").unwrap()[1], "W2611340");
        assert_eq!(&pattern(3, "product_id").captures("tell me about prod-004.").unwrap()[1], "prod-004");
    }
}
