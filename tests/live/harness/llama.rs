//! llama.cpp's server: real inference, with a model so small that it answers at once and makes no sense.

use std::{path::Path, process::Command, time::Duration};

use super::{LOOK_AGAIN, Program, SOON, corpora, left_out, python};

/// What it takes for a key.
pub const KEY: &str = "a-key-for-llama";
/// The model's name there.
pub const MODEL: &str = "tiny";
/// How many tokens prompt and answer may have together, each of [`SLOTS`] times.
pub const WINDOW: u32 = 4096;
const SLOTS: u32 = 2;
/// What it writes when it is ready, before the address.
const READY: &str = "listening on ";

pub struct Llama {
    _program: Program,
    base: String,
}

impl Llama {
    /// Starts it, or says why this machine cannot.
    pub async fn start(dir: &Path) -> Option<Self> {
        let model = corpora::folder("models")?.join("tiny-random.gguf");
        let mut command = Command::new(python::llama_server()?);
        command
            .arg("-m")
            .arg(model.canonicalize().expect("the model"))
            .args(["--host", "127.0.0.1", "--port", "0", "--offline", "--no-ui", "-t", "1"])
            .args(["-c", &(WINDOW * SLOTS).to_string(), "-np", &SLOTS.to_string()])
            .args(["--api-key", KEY, "--alias", MODEL]);
        let mut program = Program::start("llama", dir, &mut command);
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let log = program.stderr();
            if let Some((_, address)) = log.split_once(READY)
                && let Some((address, _)) = address.split_once('\n')
            {
                return Some(Self { base: address.trim_end().to_owned(), _program: program });
            }
            if !program.is_running() {
                // It is compiled for newer processors than some machines have.
                let ended = program.ended(Duration::ZERO).await;
                left_out::must_run(&format!("llama-server does not run here ({ended}):\n{log}"));
                return None;
            }
            assert!(tokio::time::Instant::now() < deadline, "llama-server does not listen:\n{log}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Where it speaks that dialect.
    pub fn base_url(&self, kind: &str) -> String {
        let path = if kind == "openai" { "/v1" } else { "" };
        format!("{}{path}", self.base)
    }
}
