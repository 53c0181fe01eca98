//! `throughline dev`: one command, everything included, nothing left behind.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use async_nats::jetstream;
use futures_util::TryStreamExt;

use crate::{
    harness::{
        Cluster, Log, Program, SOON, Settings, eventually, free_port,
        process::{exists, throughline},
        reaper,
    },
    nats_server::{self, NatsServer},
};

const QUESTION: &str = "What is the status of my recent order?";
/// The status of the demo user's newest order.
const STATUS: &str = "shipped";
/// Longest time from a signal to the end.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const KEY: &str = "sk-canary-5f0c1e7d";

/// `throughline dev` with its data in `data`, the nats-server of the tests, and these arguments.
fn dev(name: &str, dir: &Path, data: &str, arguments: &[&str]) -> Program {
    Program::start(name, dir, throughline().args(["dev", "--data-dir", data]).args(arguments))
}

fn machine_has_nats() -> Option<tempfile::TempDir> {
    // `throughline dev` has a server for a child: a local program, wherever the other tests' servers run.
    nats_server::find().map(|_| tempfile::tempdir().unwrap())
}

/// Answers one question; the program must end well.
async fn once(dir: &Path, data: &str) -> String {
    let mut program = dev("once", dir, data, &["--once", QUESTION]);
    let status = program.ended(SOON).await;
    assert_eq!(status.code(), Some(0), "{}", program.stderr());
    program.stdout()
}

/// Waits for the line that says so.
async fn ready(program: &mut Program) {
    eventually("a line that starts with ready", async || {
        assert!(program.is_running(), "dev ended: {}", program.stderr());
        program.stdout().lines().any(|line| line.starts_with("ready")).then_some(())
    })
    .await;
}

/// The process and address of the private nats-server that was started last, from its log.
fn private_nats(data: &Path) -> (u32, String) {
    let log = std::fs::read_to_string(data.join("nats/nats-server.log")).unwrap();
    let pattern = regex::Regex::new(r"\[(\d+)\] .* Listening for client connections on (\S+)").unwrap();
    let found = pattern.captures_iter(&log).last().expect("it says where it listens");
    (found[1].parse().unwrap(), format!("nats://{}", &found[2]))
}

/// Every loopback address that the configuration of a running dev names.
fn addresses(data: &Path) -> Vec<String> {
    let config = std::fs::read_to_string(data.join("throughline.toml")).unwrap();
    let pattern = regex::Regex::new(r"127\.0\.0\.1:([1-9]\d*)").unwrap();
    let mut found: Vec<_> = pattern.find_iter(&config).map(|found| found.as_str().to_owned()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// No process and no socket of it is left.
async fn assert_nothing_left(nats: u32, addresses: &[String]) {
    eventually("the private nats-server ends", async || (!exists(nats)).then_some(())).await;
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "somebody still listens on {address}");
    }
}

/// Every byte of every file in a folder.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files.extend(contents(&entry.path()));
        } else {
            files.push((entry.path(), std::fs::read(entry.path()).unwrap_or_default()));
        }
    }
    files
}

#[tokio::test]
async fn it_answers_one_question_and_leaves_nothing_running() {
    let Some(dir) = machine_has_nats() else { return };
    let data = dir.path().join("data");
    for run in ["first", "second"] {
        let answer = once(dir.path(), "data").await;
        assert!(answer.contains(STATUS) && answer.contains("#W10007"), "{run}: {answer}");
        assert_eq!(answer.lines().count(), 1, "the answer is all there is on stdout: {answer}");
        assert_nothing_left(private_nats(&data).0, &addresses(&data)).await;
    }
    let rows = crate::harness::python::rows(&data.join("throughline.db"));
    assert_eq!(rows.len(), 2, "the second run went on where the first one ended");
}

#[tokio::test]
async fn any_folder_name_will_do() {
    let Some(dir) = machine_has_nats() else { return };
    for name in [
        "with blank",
        "it's \"quoted\"",
        "50% #1 ?x=y&z",
        "me@home:1 %2F",
        "gr\u{fc}\u{df}e \u{1f4e6}",
        "$(touch owned) `touch owned`",
        "back\\slash",
    ] {
        let answer = once(dir.path(), name).await;
        assert!(answer.contains(STATUS), "{name}: {answer}");
        assert!(
            dir.path().join(name).join("throughline.db").is_file(),
            "{name}: the database is in the folder"
        );
    }
    assert!(!dir.path().join("owned").exists());
}

#[tokio::test]
async fn it_stays_until_a_signal_and_ends_well() {
    let Some(dir) = machine_has_nats() else { return };
    let data = dir.path().join("data");
    for signal in ["TERM", "INT"] {
        let mut program = dev("dev", dir.path(), "data", &[]);
        ready(&mut program).await;
        let shown = program.stdout();
        assert!(shown.contains(STATUS), "the first message is answered: {shown}");
        let (nats, url) = private_nats(&data);
        assert!(program.stderr().contains(&url) || shown.contains(&url), "it says where everything is");
        assert!(exists(nats));
        let addresses = addresses(&data);
        assert!(addresses.len() >= 2, "{addresses:?}");

        let mut second = dev("rival", dir.path(), "data", &["--once", QUESTION]);
        assert_eq!(second.ended(SOON).await.code(), Some(1));
        let complaint = second.stderr();
        assert!(complaint.contains("another") && complaint.contains("--data-dir"), "{complaint}");

        program.signal(signal);
        assert_eq!(program.ended(STOP_LIMIT).await.code(), Some(0), "{signal}: {}", program.stderr());
        assert_nothing_left(nats, &addresses).await;
    }
}

#[tokio::test]
async fn killed_it_takes_its_nats_server_along_and_starts_again() {
    let Some(dir) = machine_has_nats() else { return };
    let data = dir.path().join("data");
    let mut program = dev("dev", dir.path(), "data", &[]);
    ready(&mut program).await;
    let (nats, _) = private_nats(&data);
    let addresses = addresses(&data);
    reaper::watch(nats);
    program.kill();
    assert_nothing_left(nats, &addresses).await;
    reaper::forget(nats);
    assert!(once(dir.path(), "data").await.contains(STATUS));
}

#[tokio::test]
async fn a_dead_nats_server_ends_it_with_a_reason() {
    let Some(dir) = machine_has_nats() else { return };
    let mut program = dev("dev", dir.path(), "data", &[]);
    ready(&mut program).await;
    crate::harness::process::send("KILL", private_nats(&dir.path().join("data")).0);
    assert_eq!(program.ended(SOON).await.code(), Some(1));
    assert!(program.stderr().contains("nats-server ended"), "{}", program.stderr());
}

#[tokio::test]
async fn another_terminal_can_work_with_it() {
    let Some(dir) = machine_has_nats() else { return };
    let data = dir.path().join("data");
    let mut program = dev("dev", dir.path(), "data", &[]);
    ready(&mut program).await;
    let mut worker = Program::start(
        "worker",
        dir.path(),
        throughline()
            .args(["worker", "--listen", "127.0.0.1:0"])
            .env("THROUGHLINE_CONFIG", data.join("throughline.toml")),
    );
    let client = async_nats::connect(private_nats(&data).1).await.unwrap();
    let mut log = Log::follow(&client, "throughline").await;
    let input =
        r#"{"user_id":"alice","session_id":"s","workflow_id":"mine","user_input":"Where is my order?"}"#;
    client.publish("throughline.v1.user_input_received", input.into()).await.unwrap();
    log.until_ended(&["mine"]).await;
    assert!(log.answer("mine").contains("Alice"), "{}", log.answer("mine"));
    assert!(worker.is_running(), "{}", worker.stderr());
    worker.signal("TERM");
    assert_eq!(worker.ended(STOP_LIMIT).await.code(), Some(0));
}

#[tokio::test]
async fn a_nats_server_that_is_there_is_used_and_left_alone() {
    let Some(server) = NatsServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = server.url();
    let mut program = dev("dev", dir.path(), "data", &["--nats-url", &url, "--once", QUESTION]);
    assert_eq!(program.ended(SOON).await.code(), Some(0), "{}", program.stderr());
    assert!(program.stdout().contains(STATUS));
    assert!(!dir.path().join("data/nats").exists(), "no private server");
    let client = async_nats::connect(&url).await.unwrap();
    let mut log = Log::follow(&client, "throughline").await;
    log.until("the end of the question", |log| log.all.iter().any(|seen| seen.kind() == "interaction_saved"))
        .await;

    let mut program =
        dev("lost", dir.path(), "data", &["--nats-url", "nats://127.0.0.1:1", "--once", QUESTION]);
    assert_eq!(program.ended(SOON).await.code(), Some(69), "{}", program.stderr());
    assert!(program.stderr().contains("127.0.0.1:1"), "{}", program.stderr());
}

/// Streams of a server, with what they may hold.
async fn streams(url: &str) -> Vec<(String, i64)> {
    let client = async_nats::connect(url).await.unwrap();
    let infos = jetstream::new(client).streams();
    let limits = infos.map_ok(|info| (info.config.name, info.config.max_bytes));
    let mut limits: Vec<_> = limits.try_collect().await.unwrap();
    limits.sort();
    limits
}

/// A server that a file, a variable or an earlier run of its own names is somebody's: it is neither asked nor changed.
#[tokio::test]
async fn a_server_that_is_configured_is_refused_unless_the_command_line_names_it() {
    let Some(server) = NatsServer::start() else { return };
    let Some(dir) = machine_has_nats() else { return };
    let url = server.url();
    let run = |name: &str, set: &dyn Fn(&mut Command)| {
        let mut command = throughline();
        command.args(["dev", "--data-dir", "data", "--once", QUESTION]);
        set(&mut command);
        Program::start(name, dir.path(), &mut command)
    };
    let file = dir.path().join("shop.toml");
    std::fs::write(&file, format!("[nats]\nurl = {url:?}\n")).unwrap();
    let refused = async |mut program: Program, words: &str| {
        assert_eq!(program.ended(SOON).await.code(), Some(64), "{}", program.stderr());
        let told = program.stderr();
        assert!(told.contains(words) && told.contains("say --nats-url"), "{told}");
        assert_eq!(program.stdout(), "");
    };
    let variable = run("env", &|command| {
        command.env("NATS_URL", &url);
    });
    refused(variable, "unset NATS_URL").await;
    let written = run("file", &|command| {
        command.arg("--config").arg(&file);
    });
    refused(written, "shop.toml").await;
    assert!(!dir.path().join("data").exists(), "nothing was begun");
    assert!(streams(&url).await.is_empty());

    // What it wrote for other terminals is not for itself.
    once(dir.path(), "data").await;
    let own = dir.path().join("data/throughline.toml");
    let again = run("own", &|command| {
        command.env("THROUGHLINE_CONFIG", &own);
    });
    refused(again, "unset THROUGHLINE_CONFIG").await;
}

/// Workers of a deployment never share their work with it, nor their tables.
#[tokio::test]
async fn a_namespace_and_a_database_of_others_are_left_alone() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    cluster.say("w", "demo", "s", "Hello").await;
    log.until_ended(&["w"]).await;
    let url = cluster.nats.url();
    let before = streams(&url).await;
    let dev = |name: &str, arguments: &[&str]| {
        let arguments = [&["dev", "--nats-url", &url, "--once", QUESTION], arguments].concat();
        cluster.run(name, &arguments)
    };
    let mut joining = dev("joining", &[]);
    assert_eq!(joining.ended(SOON).await.code(), Some(64), "{}", joining.stderr());
    let told = joining.stderr();
    assert!(told.contains("throughline is in use") && told.contains("--namespace"), "{told}");
    assert_eq!(streams(&url).await, before, "nothing was made, and no limit was changed");

    for run in ["first", "second"] {
        let mut beside = dev(run, &["--namespace", "mine"]);
        assert_eq!(beside.ended(SOON).await.code(), Some(0), "{run}: {}", beside.stderr());
        assert!(
            beside.stderr().contains("is left alone; to use it, say --database-url"),
            "{}",
            beside.stderr()
        );
        assert!(beside.stdout().contains(STATUS), "{run}: {}", beside.stdout());
    }
    let theirs = |streams: &[(String, i64)]| {
        streams.iter().filter(|(name, _)| name.contains("throughline")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(theirs(&streams(&url).await), theirs(&before));
    assert_eq!(cluster.rows().len(), 1, "only the answer of the worker");
    let own = cluster.dir().join(".throughline/throughline.db");
    assert_eq!(crate::harness::python::rows(&own).len(), 2);
    cluster.assert_workers_run();
}

/// The port is where other programs expect it, and the model and its price are told before it is asked.
#[tokio::test]
async fn a_port_can_be_chosen_and_the_model_is_told() {
    let Some(dir) = machine_has_nats() else { return };
    let port = free_port().to_string();
    let arguments = ["--nats-port", &port, "--once", QUESTION];
    let mut program = dev("chosen", dir.path(), "data", &arguments);
    assert_eq!(program.ended(SOON).await.code(), Some(0), "{}", program.stderr());
    assert!(program.stderr().contains("sandbox-small, a stand-in on this machine: it costs nothing"));
    assert_eq!(private_nats(&dir.path().join("data")).1, format!("nats://127.0.0.1:{port}"));

    let _taken = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    let mut program = dev("taken", dir.path(), "data", &arguments);
    assert_eq!(program.ended(SOON).await.code(), Some(69), "{}", program.stderr());
    assert!(program.stderr().contains("choose another --nats-port"), "{}", program.stderr());
}

#[tokio::test]
async fn a_model_of_one_s_own_is_used_and_its_key_is_kept() {
    let Some(dir) = machine_has_nats() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/client/other_model.py");
    let mut python = Command::new("python3");
    let mut model = Program::start("model", dir.path(), python.arg(script).env("EXPECTED_KEY", KEY));
    let url = eventually("the other model listens", async || {
        assert!(model.is_running(), "{}", model.stderr());
        model.stdout().lines().next().map(str::to_owned)
    })
    .await;
    let ask = |name: &str, question: &str| {
        let mut command = throughline();
        command.args(["dev", "--data-dir", "data", "--once", question]);
        command.env("OPENAI_BASE_URL", &url).env("OPENAI_API_KEY", KEY);
        Program::start(name, dir.path(), &mut command)
    };
    let mut program = ask("answered", QUESTION);
    assert_eq!(program.ended(SOON).await.code(), Some(0), "{}", program.stderr());
    let answer = program.stdout();
    assert!(answer.contains("other model gpt-4o-mini, key right, order seen"), "{answer}");
    let told = program.stderr();
    assert!(
        told.contains("gpt-4o-mini of openai at http://127.0.0.1") && told.contains("not known here"),
        "{told}"
    );

    let mut program = ask("refused", "Please refuse");
    assert_eq!(program.ended(SOON).await.code(), Some(1), "a failed workflow");
    assert!(program.stderr().contains("model_rejected"), "{}", program.stderr());
    for (path, bytes) in contents(dir.path()) {
        let shown = bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
        assert!(!shown, "the key is in {}", path.display());
    }
}
