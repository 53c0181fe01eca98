//! llmock: a server that plays model providers and their faults, keeps its own ledger, and judges its client.

use std::{path::Path, process::Command};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Program, eventually, python};

/// What uvicorn writes when it is ready, before the address.
const READY: &str = "Uvicorn running on ";

/// One call as llmock saw it. Times are seconds of its monotonic clock.
#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    pub seq: u64,
    pub started_at: f64,
    pub ended_at: f64,
    pub status: u16,
    /// Equal for equal requests.
    pub fingerprint: String,
    pub stream: bool,
    pub fault: Option<String>,
    /// Seconds that it asked to wait.
    pub retry_after: Option<f64>,
    pub body: Value,
}

/// Its word on the client.
#[derive(Debug, Deserialize)]
pub struct Verdict {
    pub errors: usize,
    pub warnings: usize,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "what a failed test shows")]
pub struct Finding {
    pub code: String,
    pub title: String,
    /// Positions in the ledger.
    pub requests: Vec<u64>,
}

pub struct LlMock {
    _program: Program,
    http: reqwest::Client,
    pub base: String,
}

impl LlMock {
    /// Starts it, or says why this machine cannot. `environment` is its configuration, as in `LLMOCK_RPM`.
    pub async fn start(dir: &Path, environment: &[(&str, &str)]) -> Option<Self> {
        let mut command = Command::new(python::with_llmock()?);
        command
            .args(["-m", "uvicorn", "--factory", "llmock.main:create_app", "--host", "127.0.0.1"])
            .args(["--port", "0", "--no-access-log"])
            .env("LLMOCK_RESPONSE_STYLE", "static")
            .envs(environment.iter().copied());
        std::fs::create_dir_all(dir).expect("a directory");
        let mut program = Program::start("llmock", dir, &mut command);
        let base = eventually("llmock listens", async || {
            let log = program.stderr();
            assert!(program.is_running(), "llmock ended: {log}");
            let (_, address) = log.split_once(READY)?;
            Some(address.split_once(' ')?.0.to_owned())
        })
        .await;
        Some(Self { _program: program, http: super::http_client(), base })
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Value {
        let response = request.send().await.expect("llmock answers");
        let status = response.status();
        let body = response.bytes().await.expect("a body");
        assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(self.http.get(format!("{}/_llmock/{path}", self.base))).await
    }

    /// What the next requests meet, in order.
    pub async fn behave(&self, behaviors: &[Value]) {
        let request = self.http.post(format!("{}/_llmock/scenario", self.base));
        self.ask(request.body(json!({"behaviors": behaviors}).to_string())).await;
    }

    /// Permanent behaviour ends.
    pub async fn heal(&self) {
        self.ask(self.http.delete(format!("{}/_llmock/scenario", self.base))).await;
    }

    /// Every call since the start or the last [`LlMock::forget`]; waits two seconds for those under way.
    pub async fn calls(&self) -> Vec<Call> {
        serde_json::from_value(self.get("requests").await["requests"].take()).expect("calls")
    }

    /// Calls whose request contains `text`.
    pub async fn calls_about(&self, text: &str) -> Vec<Call> {
        let mut calls = self.calls().await;
        calls.retain(|call| call.body.to_string().contains(text));
        calls
    }

    pub async fn verdict(&self) -> Verdict {
        serde_json::from_value(self.get("verdict").await).expect("a verdict")
    }

    /// Empties the ledger and drops what no request has met.
    pub async fn forget(&self) {
        self.ask(self.http.post(format!("{}/_llmock/reset", self.base))).await;
    }
}
