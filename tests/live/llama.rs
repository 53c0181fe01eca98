//! A real inference server, asked through the whole engine: `OpenAI` and Anthropic dialect, streamed and whole.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::harness::{
    Cluster, Frames, Log, Settings,
    llama::{KEY, Llama, MODEL, WINDOW},
};

const KINDS: [&str; 2] = ["openai", "anthropic"];
/// With temperature zero the model answers this with fewer tokens than it may, and then stops.
const QUESTION: &str = "What is the status of my order?";
/// Tokens that it may answer with: enough for that answer, and too few.
const ENOUGH: u32 = 1000;
const TOO_FEW: u32 = 4;

/// The server, and a cluster whose workers can ask it in both dialects.
struct Asked {
    cluster: Cluster,
    log: Log,
    frames: Frames,
    _llama: Llama,
    _dir: tempfile::TempDir,
}

impl Asked {
    /// Starts it, or says why this machine cannot.
    async fn with_key(key: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let llama = Llama::start(dir.path()).await?;
        let key_file = dir.path().join("key");
        std::fs::write(&key_file, key).expect("a file");
        // Templates without the tag, which is another one in each prompt: the same question is to be the same prompt.
        let prompts = dir.path().join("prompts/assistant");
        std::fs::create_dir_all(&prompts).expect("a folder");
        let system = include_str!("../../deploy/prompts/assistant/system.j2").replace("{{ tag }}", "data");
        std::fs::write(prompts.join("system.j2"), system).expect("a file");
        let data = include_str!("../../deploy/prompts/assistant/data.j2").replace("{{ tag }}", "data");
        std::fs::write(prompts.join("data.j2"), data).expect("a file");
        let mut settings = format!(
            "[stages.generation]\nmax_attempts = 2\n[generation]\ntemperature = 0.0\n[prompt]\ndir = {:?}\n",
            dir.path().join("prompts").display().to_string()
        );
        for kind in KINDS {
            write!(
                settings,
                "[[providers]]\nname = \"{kind}\"\nkind = \"{kind}\"\nbase_url = \"{}\"\napi_key = \"file:{}\"\n\
                 [[models]]\nname = \"{kind}-model\"\nprovider = \"{kind}\"\nmodel = \"{MODEL}\"\n",
                llama.base_url(kind),
                key_file.display()
            )
            .expect("a string");
        }
        let cluster = Cluster::start(0, &Settings::new(&settings)).await?;
        let log = cluster.log().await;
        let frames = Frames::listen(&cluster.client).await;
        Some(Self { cluster, log, frames, _llama: llama, _dir: dir })
    }

    /// Puts a worker with these settings in the place of the one before, and has it answer.
    async fn ask(&mut self, workflow: &str, (kind, stream, max_tokens): (&str, bool, u32), text: &str) {
        self.cluster.workers.clear();
        self.cluster.add_worker_with(&[
            ("THROUGHLINE_GENERATION__MODEL", &format!("{kind}-model")),
            ("THROUGHLINE_GENERATION__STREAM", &stream.to_string()),
            ("THROUGHLINE_GENERATION__MAX_TOKENS", &max_tokens.to_string()),
        ]);
        self.cluster.say(workflow, "demo", workflow, text).await;
        self.log.until_ended(&[workflow]).await;
        self.cluster.assert_workers_run();
    }
}

#[tokio::test]
async fn it_says_the_same_whichever_way_it_is_asked() {
    let Some(mut asked) = Asked::with_key(KEY).await else { return };
    for kind in KINDS {
        // What it says and what it counts. Not the same for both dialects: they cut the prompt into other messages.
        let mut said: Option<(String, Value)> = None;
        for stream in [false, true] {
            for max_tokens in [ENOUGH, TOO_FEW] {
                let workflow = format!("{kind}-{stream}-{max_tokens}");
                asked.ask(&workflow, (kind, stream, max_tokens), QUESTION).await;
                let text = asked.log.answer(&workflow);
                assert_eq!(asked.frames.read(&workflow).await, text, "{workflow}");
                let generated = asked.log.event(&workflow, "response_generated").expect("generated").data();
                assert_eq!(generated["attempts"].as_array().map(Vec::len), Some(1), "{workflow}");
                assert_eq!(generated["response"]["model"], MODEL);
                let (usage, finish) = (&generated["usage"], &generated["response"]["finish_reason"]);
                let (whole, input) =
                    said.get_or_insert_with(|| (text.to_owned(), usage["input_tokens"].clone()));
                // All but the first find the prompt in the server's cache, which Anthropic's dialect counts apart.
                assert_eq!(&usage["input_tokens"], input, "{workflow}");
                let output = usage["output_tokens"].as_u64().expect("a count");
                if max_tokens == ENOUGH {
                    assert_eq!((text, finish), (whole.as_str(), &json!("stop")), "{workflow}");
                    assert!((1..u64::from(ENOUGH)).contains(&output), "{workflow}: {usage}");
                } else {
                    assert_eq!((output, finish), (u64::from(TOO_FEW), &json!("length")), "{workflow}");
                    assert!(whole.starts_with(text) && !text.is_empty(), "{workflow}: {text}");
                }
            }
        }
        let (_, input) = said.expect("answers");
        assert!((100..u64::from(WINDOW)).contains(&input.as_u64().expect("a count")), "{kind}: {input}");
    }
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_refused_once_and_called_so() {
    let Some(mut asked) = Asked::with_key(KEY).await else { return };
    let long = "Where is my order? ".repeat(WINDOW as usize / 4);
    for kind in KINDS {
        for stream in [false, true] {
            let workflow = format!("{kind}-{stream}");
            asked.ask(&workflow, (kind, stream, ENOUGH), &long).await;
            refused(&asked.log, &workflow, "too long");
        }
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_once_and_called_so() {
    let Some(mut asked) = Asked::with_key("not-the-key").await else { return };
    for kind in KINDS {
        asked.ask(kind, (kind, true, ENOUGH), QUESTION).await;
        refused(&asked.log, kind, "credentials");
    }
}

/// The workflow failed after one call, for a reason that says `word`.
fn refused(log: &Log, workflow: &str, word: &str) {
    let failure = log.failure(workflow);
    assert_eq!((&failure["code"], &failure["attempts"]), (&json!("model_rejected"), &json!(1)), "{failure}");
    assert!(failure["message"].as_str().is_some_and(|message| message.contains(word)), "{failure}");
}
