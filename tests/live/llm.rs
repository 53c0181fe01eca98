//! `throughline llm`: models from the shell, against the sandbox as a process of its own.

use std::{fmt::Write as _, path::Path, process::Command};

use serde_json::{Value, json};

use crate::harness::{Program, SOON, StandIns, eventually, process::throughline};

/// A folder with a sandbox and a configuration that uses it.
struct Shell {
    dir: tempfile::TempDir,
    stand_ins: StandIns,
}

impl Shell {
    async fn start(arguments: &[&str], more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stand_ins = StandIns::start(dir.path(), arguments).await;
        std::fs::write(dir.path().join("throughline.toml"), format!("{}\n{more}", stand_ins.config)).unwrap();
        Self { dir, stand_ins }
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Program {
        Program::start(name, self.dir.path(), throughline().arg("llm").args(arguments))
    }

    async fn done(&self, name: &str, arguments: &[&str], code: i32) -> (String, String) {
        ended(self.run(name, arguments), code).await
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default()
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.dir.path().join(file), text).unwrap();
    }
}

async fn ended(mut program: Program, code: i32) -> (String, String) {
    assert_eq!(program.ended(SOON).await.code(), Some(code), "{}\n{}", program.stdout(), program.stderr());
    (program.stdout(), program.stderr())
}

/// `throughline` in an empty folder, with these variables.
async fn bare(dir: &Path, env: &[(&str, &str)], arguments: &[&str], code: i32) -> (String, String) {
    let mut command: Command = throughline();
    command.envs(env.iter().copied()).args(arguments);
    ended(Program::start("bare", dir, &mut command), code).await
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[tokio::test]
async fn ask_prints_the_answer_and_says_what_to_do_when_there_is_none() {
    let shell = Shell::start(&[], "").await;
    let (answer, _) = shell.done("ask", &["ask", "Hello!"], 0).await;
    assert_eq!(answer.lines().count(), 1, "{answer}");
    let (streamed, notes) = shell.done("stream", &["ask", "--stream", "Hello!"], 0).await;
    assert_eq!((streamed.as_str(), notes.as_str()), (answer.as_str(), ""), "the same, and nothing else");

    let (out, _) = shell.done("json", &["ask", "--json", "--system", "Be brief.", "Hello!"], 0).await;
    let record = &lines(&out)[0];
    assert_eq!(record["text"], answer.trim_end());
    assert_eq!((&record["model"], &record["provider"]), (&json!("sandbox-small"), &json!("sandbox")));
    assert!(record["cost_usd"].as_str().unwrap().starts_with("0.0"), "{record}");
    assert_eq!(record["attempts"].as_array().unwrap().len(), 1);

    let (out, _) = shell.done("events", &["ask", "--json", "--stream", "Hello!"], 0).await;
    let events = lines(&out);
    assert_eq!(events.first().unwrap()["kind"], "started");
    let last = events.last().unwrap();
    assert_eq!((&last["kind"], &last["answer"]["text"]), (&json!("completed"), &record["text"]));
    let pieces: String = events.iter().filter_map(|event| event["text"].as_str()).collect();
    assert_eq!(pieces, answer.trim_end(), "the pieces are the answer");

    let (_, err) = shell.done("unknown", &["ask", "--model", "gpt-9", "Hello!"], 2).await;
    assert!(err.contains("gpt-9") && err.contains("sandbox-small"), "{err}");
    shell.stand_ins.fault(json!({"target": "model", "status": 401, "remaining": 1})).await;
    let (out, err) = shell.done("refused", &["ask", "Hello!"], 64).await;
    assert!(out.is_empty() && err.contains("credentials") && err.contains("attempt 1"), "{err}");
}

#[tokio::test]
async fn without_a_model_it_says_what_to_set_and_the_sandbox_needs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for command in [["llm", "ask", "Hello!"].as_slice(), &["llm", "models"], &["llm", "route", "Hello!"]] {
        let (_, err) = bare(dir.path(), &[], command, 64).await;
        assert!(err.contains("OPENAI_API_KEY") && err.contains("ANTHROPIC_API_KEY"), "{err}");
    }
    let (answer, _) = bare(dir.path(), &[], &["llm", "--sandbox", "ask", "Hello!"], 0).await;
    assert!(!answer.trim().is_empty());
    let local =
        [("OPENAI_BASE_URL", "http://127.0.0.1:1/v1"), ("THROUGHLINE_STAGES__GENERATION__MAX_ATTEMPTS", "1")];
    let (_, err) = bare(dir.path(), &local, &["llm", "ask", "Hello!"], 69).await;
    assert!(err.contains("cannot be reached"), "{err}");
    let keyless = dir.path().join("keyless.toml");
    std::fs::write(&keyless, "[[providers]]\nname = 'claude'\nkind = 'anthropic'\n").unwrap();
    let (_, err) = bare(dir.path(), &[], &["--config", "keyless.toml", "llm", "ask", "Hello!"], 64).await;
    assert!(err.contains("set ANTHROPIC_API_KEY"), "{err}");
}

#[tokio::test]
async fn models_tells_prices_with_their_source_and_unknown_ones_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let env = [("OPENAI_API_KEY", "sk-canary"), ("GEMINI_API_KEY", "sk-canary")];
    let fallback = ("THROUGHLINE_GENERATION__FALLBACK", "gemini-2.5-pro,gpt-of-tomorrow");
    let (out, _) = bare(dir.path(), &[env[0], env[1], fallback], &["llm", "models", "--json"], 0).await;
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    let of = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    assert_eq!(of("gpt-4o-mini")["input_usd_per_million"], "0.15");
    assert_eq!(of("gpt-4o-mini")["price"], "listed");
    assert!(of("gemini-2.5-pro")["price_source"].as_str().unwrap().contains("ai.google.dev"));
    assert_eq!(of("gemini-2.5-pro")["long_prompt_above"], 200_000);
    let unknown = of("gpt-of-tomorrow");
    assert_eq!((&unknown["price"], &unknown["input_usd_per_million"]), (&json!("unknown"), &Value::Null));
    assert!(rows.iter().all(|row| row["key"] == "present"), "{out}");
    assert!(!out.contains("sk-canary"));

    let (table, _) = bare(dir.path(), &[env[0]], &["llm", "models"], 0).await;
    assert!(table.contains("gpt-4o-mini") && table.contains("listed prices: https://"), "{table}");
    let local = [("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")];
    let (table, err) = bare(dir.path(), &local, &["llm", "models", "--check"], 69).await;
    assert!(
        table.contains("unknown") && table.contains("not needed"),
        "another host, another price: {table}"
    );
    assert!(err.contains("127.0.0.1:1"), "{err}");
}

#[tokio::test]
async fn route_tells_which_models_and_why_without_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"
[[providers]]
name = "openai"
kind = "openai"
[[models]]
name = "small"
provider = "openai"
[[models]]
name = "large"
provider = "openai"
[routing]
complex = ["large", "small"]
otherwise = "simple"
[[routing.rules]]
name = "analysis"
complexity = "complex"
keywords = ["compare"]
"#;
    std::fs::write(dir.path().join("throughline.toml"), config).unwrap();
    let (out, _) = bare(dir.path(), &[], &["llm", "route", "Please compare the two."], 0).await;
    assert_eq!(
        out,
        "complex: the rule \"analysis\" matches\n1. large  large at openai\n2. small  small at openai\n"
    );
    let (out, _) = bare(dir.path(), &[], &["llm", "route", "--json", "Hello!"], 0).await;
    let route = &lines(&out)[0];
    assert_eq!((&route["models"], &route["complexity"]), (&json!(["small"]), &json!("simple")));
}

fn questions(count: usize) -> String {
    (1..=count).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "{}", json!({"text": format!("Question {number}?"), "id": number}));
        text
    })
}

/// Every line of input has one line of output, in order.
fn assert_complete(output: &str, count: usize) {
    assert!(output.ends_with('\n'));
    let ids: Vec<_> = lines(output).iter().map(|line| line["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (1..=count as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn batch_keeps_the_order_and_one_bad_line_does_not_stop_it() {
    let shell = Shell::start(&[], "").await;
    let input = format!("{}\n{{\"id\": 4, \"txt\": 1}}\n{{\"id\": 5, \"text\": \"five\"}}", questions(3));
    shell.write("in.jsonl", &input);
    let (out, err) = shell.done("stdout", &["batch", "in.jsonl"], 1).await;
    assert_complete(&out, 5);
    let answers = lines(&out);
    assert!(answers.iter().all(|line| line["input"].as_str().unwrap().len() == 16));
    assert_eq!(
        answers.iter().map(|line| line["line"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 3, 5, 6]
    );
    let bad = &answers[3];
    assert_eq!((&bad["error"]["code"], &bad["text"]), (&json!("invalid_request"), &Value::Null));
    assert!(
        err.contains("4 answered, 1 failed, $0.0") && err.contains("line 5: unknown field `txt`"),
        "{err}"
    );
}

#[tokio::test]
async fn batch_goes_on_where_it_was_killed_in_the_middle_of_a_line() {
    const COUNT: usize = 60;
    let shell = Shell::start(&["--model-latency-ms", "30"], "").await;
    shell.write("in.jsonl", &questions(COUNT));
    let arguments = ["batch", "in.jsonl", "--out", "out.jsonl", "--max-concurrency", "4"];
    let mut program = shell.run("first", &arguments);
    eventually("some are answered", async || (shell.read("out.jsonl").lines().count() > 8).then_some(()))
        .await;
    let rival = shell.done("rival", &arguments, 1).await.1;
    assert!(rival.contains("another command is writing"), "{rival}");
    program.kill();
    let mut written = shell.read("out.jsonl");
    let before = written.lines().count();
    assert!(before < COUNT, "it was not killed in time");
    written.push_str("{\"line\":99,\"inp");
    shell.write("out.jsonl", &written);

    let asked = shell.stand_ins.count("model").await;
    let (_, err) = shell.done("second", &arguments, 0).await;
    assert_complete(&shell.read("out.jsonl"), COUNT);
    assert!(err.contains(&format!("{before} were done before")), "{err}");
    let again = shell.stand_ins.count("model").await - asked;
    assert_eq!(usize::try_from(again).unwrap(), COUNT - before, "only what had no answer was asked");

    let (_, err) = shell.done("third", &arguments, 0).await;
    assert!(err.contains("0 answered"), "{err}");
    shell.write("in.jsonl", &questions(COUNT).replace("Question 7?", "Another?"));
    let (_, err) = shell.done("other", &arguments, 2).await;
    assert!(err.contains("out.jsonl:7") && err.contains("another input"), "{err}");
    assert_complete(&shell.read("out.jsonl"), COUNT);
}

/// A provider was down, or a key was wrong: the same command asks what has no answer, and nothing else.
#[tokio::test]
async fn batch_asks_lines_without_an_answer_again_until_each_has_one() {
    const COUNT: usize = 6;
    let shell = Shell::start(&[], "[stages.generation]\nmax_attempts = 1").await;
    shell.write("in.jsonl", &questions(COUNT));
    let arguments = ["batch", "in.jsonl", "--out", "out.jsonl", "--max-concurrency", "1"];
    shell.stand_ins.fault(json!({"target": "model", "status": 400, "remaining": 2})).await;
    let (_, err) = shell.done("first", &arguments, 1).await;
    assert!(err.contains("4 answered, 2 failed") && err.contains("2 lines have no answer"), "{err}");
    let first = shell.read("out.jsonl");
    assert_complete(&first, COUNT);

    let asked = shell.stand_ins.count("model").await;
    let (_, err) = shell.done("kept", &[&arguments[..], &["--keep-failed"]].concat(), 1).await;
    assert!(err.contains("6 were done before, 2 of them without an answer"), "{err}");
    assert_eq!((shell.stand_ins.count("model").await, shell.read("out.jsonl")), (asked, first.clone()));

    // Half of it, as after a kill: the answer stands at the end, and keeps its place in the next run.
    shell.stand_ins.fault(json!({"target": "model", "status": 400, "remaining": 1})).await;
    let (_, err) = shell.done("half", &arguments, 1).await;
    assert!(
        err.contains("1 answered, 1 failed") && err.contains("2 without an answer are asked again"),
        "{err}"
    );
    assert_complete(&shell.read("out.jsonl"), COUNT);
    let (_, err) = shell.done("last", &arguments, 0).await;
    assert!(err.contains("1 answered, 0 failed") && err.contains("5 were done before"), "{err}");
    let all = shell.read("out.jsonl");
    assert_complete(&all, COUNT);
    assert!(lines(&all).iter().all(|line| line["error"].is_null()), "{all}");
    assert_eq!(lines(&all)[COUNT - 1], lines(&first)[COUNT - 1], "what was paid for is kept");
    assert_eq!(shell.stand_ins.count("model").await - asked, 3);
}

#[tokio::test]
async fn batch_stopped_by_a_signal_finishes_what_is_under_way() {
    const COUNT: usize = 200;
    let shell = Shell::start(&["--model-latency-ms", "50"], "").await;
    shell.write("in.jsonl", &questions(COUNT));
    let arguments = ["batch", "in.jsonl", "--out", "out.jsonl", "--max-concurrency", "4"];
    let program = shell.run("first", &arguments);
    eventually("some are answered", async || (shell.read("out.jsonl").lines().count() > 4).then_some(()))
        .await;
    program.signal("INT");
    let (_, err) = ended(program, 1).await;
    assert!(err.contains("stopped by SIGINT; the same command goes on from there"), "{err}");
    let answered = shell.read("out.jsonl").lines().count();
    assert!(answered < COUNT, "it went on to the end");
    assert_eq!(
        usize::try_from(shell.stand_ins.count("model").await).unwrap(),
        answered,
        "nothing was paid in vain"
    );
    shell.done("second", &arguments, 0).await;
    assert_complete(&shell.read("out.jsonl"), COUNT);
}

/// The sandbox speaks all three protocols; each provider asks it in its own, whole and streamed.
#[tokio::test]
async fn every_provider_answers_the_same_from_the_same_model() {
    let shell = Shell::start(&[], "").await;
    let config: toml::Table = shell.stand_ins.config.parse().unwrap();
    let v1 = config["providers"][0]["base_url"].as_str().unwrap().to_owned();
    let root = v1.strip_suffix("/v1").unwrap();
    let mut toml = String::new();
    for (kind, url) in [("openai", v1.as_str()), ("anthropic", root), ("gemini", root)] {
        let _ = write!(
            toml,
            "[[providers]]\nname = {kind:?}\nkind = {kind:?}\nbase_url = {url:?}\n\
             [[models]]\nname = \"by-{kind}\"\nprovider = {kind:?}\nmodel = \"sandbox-small\"\n"
        );
    }
    shell.write("throughline.toml", &toml);
    let question = "What is your return policy?";
    let mut answers = Vec::new();
    for kind in ["openai", "anthropic", "gemini"] {
        let model = format!("by-{kind}");
        for how in ["--stream", "--no-stream"] {
            let arguments = ["ask", "--json", how, "--model", &model, "--system", "Be brief.", question];
            let (out, _) = shell.done(&format!("{kind}{how}"), &arguments, 0).await;
            let last = lines(&out).pop().unwrap();
            let answer = if how == "--stream" { &last["answer"] } else { &last };
            assert_eq!(
                (&answer["provider"], &answer["finish_reason"]),
                (&json!(kind), &json!("stop")),
                "{answer}"
            );
            assert!(answer["usage"]["output_tokens"].as_u64().unwrap() > 0, "{answer}");
            assert_eq!(answer["cost_usd"], Value::Null, "an unknown price is not zero");
            answers.push(answer["text"].clone());
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let (out, err) =
        shell.done("cut", &["ask", "--model", "by-anthropic", "--max-tokens", "1", question], 0).await;
    assert!(out.trim_end().len() <= 4 && err.contains("cut"), "{out}{err}");
}
