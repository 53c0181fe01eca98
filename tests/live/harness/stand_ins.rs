//! `throughline sandbox --record`: the data sources and the model, with what was asked of them.

use std::path::Path;

use serde_json::{Value, json};

use super::{Program, eventually, process::throughline};

/// The last line of the configuration that the sandbox prints.
const LAST_LINE: &str = "model = \"sandbox-small\"\n";
const STAND_INS: [&str; 5] = ["model", "customers", "customer_orders", "orders", "products"];

pub struct StandIns {
    _program: Program,
    http: reqwest::Client,
    /// Where they listen.
    pub base: String,
    /// The configuration that uses them.
    pub config: String,
}

impl StandIns {
    pub async fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut program =
            Program::start("sandbox", dir, throughline().args(["sandbox", "--record"]).args(arguments));
        let config = eventually("the sandbox prints a configuration", async || {
            let out = program.stdout();
            assert!(program.is_running(), "the sandbox ended: {}", program.stderr());
            out.split_once("[generation]").is_some_and(|(_, end)| end.ends_with(LAST_LINE)).then_some(out)
        })
        .await;
        let table: toml::Table = config.parse().expect("TOML");
        let url = table["providers"][0]["base_url"].as_str().expect("a URL").to_owned();
        let base = url.strip_suffix("/v1").expect("an OpenAI URL").to_owned();
        Self { _program: program, http: super::http_client(), base, config }
    }

    async fn get(&self, path: &str) -> Value {
        let response =
            self.http.get(format!("{}{path}", self.base)).send().await.expect("the sandbox answers");
        serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
    }

    /// How many requests arrived at one stand-in, answered or not.
    pub async fn count(&self, stand_in: &str) -> u64 {
        self.get("/_sandbox/counts").await[stand_in].as_u64().expect("a count")
    }

    /// Every request that was answered, by stand-in.
    pub async fn ledger(&self) -> Value {
        self.get("/_sandbox/ledger").await
    }

    /// Paths asked of the data sources, sorted, and the number of model calls.
    pub async fn asked(&self) -> (Vec<String>, usize) {
        let ledger = self.ledger().await;
        let entries = |stand_in: &str| ledger[stand_in].as_array().cloned().expect("a list");
        let mut paths: Vec<_> = STAND_INS[1..]
            .iter()
            .flat_map(|stand_in| entries(stand_in))
            .map(|entry| entry["path"].as_str().expect("a path").to_owned())
            .collect();
        paths.sort_unstable();
        (paths, entries("model").len())
    }

    /// Makes a stand-in fail, as in `{"target": "model", "status": 503}`.
    pub async fn fault(&self, fault: Value) {
        let taken = self.try_fault(&fault).await;
        assert!(taken.is_ok(), "{fault}: {taken:?}");
    }

    /// The same; an error if too many wait already.
    pub async fn try_fault(&self, fault: &Value) -> Result<(), String> {
        let request = self.http.post(format!("{}/_sandbox/faults", self.base)).body(fault.to_string());
        let response = request.send().await.expect("the sandbox answers");
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(response.text().await.unwrap_or_default()) }
    }

    /// Makes all well again.
    pub async fn heal(&self) {
        let request = self.http.delete(format!("{}/_sandbox/faults", self.base));
        assert!(request.send().await.expect("the sandbox answers").status().is_success());
    }
}

/// A fault of the model.
pub fn model(fault: Value) -> Value {
    of("model", fault)
}

/// A fault of a stand-in.
pub fn of(target: &str, mut fault: Value) -> Value {
    fault["target"] = json!(target);
    fault
}
