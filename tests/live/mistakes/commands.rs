//! Mistakes in what is typed or written down: the command itself tells.

use std::process::Command;

use tokio::time::Instant;

use super::TOLD_WITHIN;
use crate::harness::{Cluster, Program, SOON, Settings, process::throughline};

/// What is done wrong, and what is told of it.
pub(super) struct Mistake {
    what: &'static str,
    arguments: Vec<String>,
    /// Variables of the environment.
    variables: Vec<(&'static str, String)>,
    /// What is written wrongly in the configuration file: this, in place of that.
    edit: Option<(&'static str, &'static str)>,
    exit: i32,
    /// All of this is told.
    told: Vec<&'static str>,
    /// And none of this.
    not_told: Option<&'static str>,
}

pub(super) fn mistake(what: &'static str, arguments: &[&str], exit: i32, told: &[&'static str]) -> Mistake {
    Mistake {
        what,
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        variables: Vec::new(),
        edit: None,
        exit,
        told: told.to_vec(),
        not_told: None,
    }
}

impl Mistake {
    pub(super) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    fn writing(mut self, wrong: &'static str, instead_of: &'static str) -> Self {
        self.edit = Some((instead_of, wrong));
        self
    }

    pub(super) fn without(mut self, words: &'static str) -> Self {
        self.not_told = Some(words);
        self
    }

    fn command(&self, cluster: &Cluster) -> Command {
        let mut config = cluster.config();
        if let Some((instead_of, wrong)) = self.edit {
            let right = std::fs::read_to_string(&config).unwrap();
            assert!(right.contains(instead_of), "{}: {instead_of} is not in\n{right}", self.what);
            config = cluster.dir().join("wrong.toml");
            std::fs::write(&config, right.replacen(instead_of, wrong, 1)).unwrap();
        }
        let mut command = throughline();
        if !self.arguments.iter().any(|argument| argument == "--config") {
            command.arg("--config").arg(config);
        }
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(super) async fn is_told(&self, cluster: &Cluster) {
        let began = Instant::now();
        let mut program = Program::start("mistake", cluster.dir(), &mut self.command(cluster));
        loop {
            let said = program.stdout() + &program.stderr();
            let missing: Vec<_> = self.told.iter().filter(|words| !said.contains(**words)).collect();
            if missing.is_empty() {
                break;
            }
            assert!(
                began.elapsed() < TOLD_WITHIN,
                "{}: {missing:?} is not told within {TOLD_WITHIN:?} by\n{said}",
                self.what
            );
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let exit = program.ended(SOON).await.code();
        let said = program.stdout() + &program.stderr();
        assert_eq!(exit, Some(self.exit), "{}: {said}", self.what);
        assert!(!said.contains("panicked"), "{}: {said}", self.what);
        if let Some(words) = self.not_told {
            assert!(!said.contains(words), "{}: {said}", self.what);
        }
    }
}

fn configuration() -> Vec<Mistake> {
    let check = &["config", "check"][..];
    vec![
        mistake(
            "a file that is not there",
            &["--config", "missing.toml", "worker"],
            64,
            &["missing.toml", "cannot be read"],
        ),
        mistake("a key that is misspelt", check, 64, &["unknown key", "did you mean \"base_url\"?"])
            .writing("base_urk", "base_url"),
        mistake(
            "a value of another type",
            check,
            64,
            &["http.listen", "expected a string", "found an integer"],
        )
        .writing("listen = 7", "listen = \"127.0.0.1:0\""),
        mistake("a bracket that is missing", check, 64, &["not valid TOML"]).writing("[http", "[http]"),
        mistake("a limit below the least one", check, 64, &["max_bytes_mib"])
            .writing("max_bytes_mib = 0", "max_bytes_mib = 256"),
        mistake(
            "a variable that is misspelt",
            check,
            64,
            &["did you mean \"THROUGHLINE_GENERATION__MODEL\"?"],
        )
        .variable("THROUGHLINE_GENERATION__MODLE", "x"),
        mistake("a name that is no namespace", check, 64, &["is not a name of 1 to 32 characters"])
            .variable("THROUGHLINE_NATS__NAMESPACE", "a b"),
        mistake("another scheme for NATS", check, 64, &["nats.url", "http://", "it must be nats://"])
            .variable("NATS_URL", "http://127.0.0.1:4222"),
        mistake("a database of another kind", check, 64, &["mysql://", "use sqlite:// or postgres://"])
            .variable("DATABASE_URL", "mysql://127.0.0.1/x"),
        mistake(
            "an address that is none",
            &["worker", "--listen", "nonsense"],
            2,
            &["invalid socket address"],
        ),
        mistake(
            "a stage that is misspelt",
            &["worker", "--stages", "generaton"],
            2,
            &["the stages are input, context"],
        ),
        mistake("a command that is misspelt", &["pubish"], 2, &["unrecognized subcommand", "publish"]),
    ]
}

fn places(cluster: &Cluster) -> Vec<Mistake> {
    let stand_ins = cluster.stand_ins.base.trim_start_matches("http://").to_owned();
    let dir = cluster.dir().display();
    let folder = format!("sqlite://{dir}");
    let text = cluster.dir().join("text.db");
    std::fs::write(&text, "This is not a database, but a text that is as long as the head of one would be.")
        .unwrap();
    let publish = &["publish", "--user", "u", "--session", "s", "--wait", "Hello"][..];
    vec![
        // What it says to start must start something: deploy/nats-server.sh only says where a server is.
        mistake(
            "nothing listens there",
            publish,
            69,
            &["no NATS server answers", "nats://127.0.0.1:1", "start one (`nats-server --jetstream`"],
        )
        .variable("NATS_URL", "nats://127.0.0.1:1")
        .without("nats-server.sh"),
        mistake(
            "nobody is asked for his health",
            &["health", "--listen", "127.0.0.1:1"],
            69,
            &["no worker answers at 127.0.0.1:1"],
        ),
        mistake("something else listens there", publish, 69, &["no NATS server answers"])
            .variable("NATS_URL", format!("nats://{stand_ins}")),
        mistake(
            "nobody has set it up, and a message is published",
            publish,
            69,
            &["run `throughline setup`"],
        )
        .variable("THROUGHLINE_NATS__NAMESPACE", "another"),
        mistake("nobody has set it up, and a worker starts", &["worker"], 69, &["run `throughline setup`"])
            .variable("THROUGHLINE_NATS__NAMESPACE", "another"),
        mistake(
            "the folder of the database is not there",
            &["worker"],
            69,
            &["cannot be opened", "database.url", "folder"],
        )
        .variable("DATABASE_URL", "sqlite:///nowhere/deep/throughline.db"),
        mistake("the database is a folder", &["worker"], 69, &["cannot be opened"])
            .variable("DATABASE_URL", folder),
        mistake("the database is a text", &["worker"], 69, &["the database is damaged", "not a database"])
            .variable("DATABASE_URL", format!("sqlite://{}", text.display())),
        mistake("no PostgreSQL listens there", &["worker"], 69, &["cannot be reached", "database.url"])
            .variable("DATABASE_URL", "postgres://127.0.0.1:1/throughline"),
        mistake(
            "the database is another one",
            &["worker"],
            64,
            &["belongs to the database", "--adopt-database"],
        )
        .variable("DATABASE_URL", format!("sqlite://{dir}/second.db")),
        mistake(
            "somebody has the address",
            &["worker", "--listen", &stand_ins],
            69,
            &["is in use by another process"],
        ),
        mistake(
            "a model that nobody configured",
            &["llm", "ask", "--model", "nope", "hi"],
            2,
            &["no model is named \"nope\""],
        ),
    ]
}

fn messages(cluster: &Cluster) -> Vec<Mistake> {
    let say = |user, session, id, text: &str, exit, told: &[&'static str]| {
        mistake(
            "",
            &["publish", "--user", user, "--session", session, "--workflow-id", id, "--wait", text],
            exit,
            told,
        )
    };
    let named = |what, mistake: Mistake| Mistake { what, ..mistake };
    let lines = cluster.dir().join("lines.jsonl");
    let right = r#"{"user_id":"u","session_id":"file","user_input":"Hello"}"#;
    std::fs::write(&lines, format!("{right}\n{{\"user_id\":\n")).unwrap();
    let lines = lines.display().to_string();
    let answer = "I can help";
    let conflict = &["conflict", "belongs to another message", "a new workflow id"][..];
    vec![
        named("no mistake yet", say("ann", "s", "order", "Hello", 0, &[answer])),
        named("another user's id", say("bob", "t", "order", "Hello", 1, conflict).without(answer)),
        named(
            "an id that is used again in the same session",
            say("ann", "s", "order", "Hi there", 1, conflict).without(answer),
        ),
        named(
            "an id that is used again in another session",
            say("ann", "t", "order", "Hello", 1, conflict).without(answer),
        ),
        named("the same message twice", say("ann", "s", "order", "Hello", 0, &[answer])),
        mistake("no session", &["publish", "--user", "u", "Hello"], 2, &["--session"]),
        mistake(
            "a text that is empty",
            &["publish", "--user", "u", "--session", "s", ""],
            2,
            &["the text is empty"],
        ),
        mistake(
            "an id that is too long",
            &["publish", "--user", &"u".repeat(300), "--session", "s", "Hello"],
            2,
            &["--user", "256"],
        ),
        mistake(
            "a text that is too long",
            &["publish", "--user", "u", "--session", "long", "--wait", &"x".repeat(33_000)],
            1,
            &["invalid_input", "user_input is 33000 bytes long"],
        ),
        mistake(
            "metadata without a value",
            &["publish", "--user", "u", "--session", "s", "--metadata", "web", "Hello"],
            2,
            &["neither KEY=VALUE nor a JSON object"],
        ),
        mistake(
            "a file that is not there",
            &["publish", "--file", "missing.jsonl"],
            2,
            &["cannot read missing.jsonl"],
        ),
        mistake(
            "a line that is cut",
            &["publish", "--file", &lines, "--wait"],
            1,
            &["line 2:", "1 saved", "1 bad"],
        ),
    ]
}

fn questions() -> Vec<Mistake> {
    vec![
        mistake(
            "a workflow that is not",
            &["events", "--workflow", "nope"],
            1,
            &["no event of workflow nope", "the id is wrong"],
        ),
        mistake("a session that is not", &["events", "--session", "nope"], 1, &["no event of session nope"]),
        mistake("a time that is none", &["events", "--since", "yesterdaay"], 2, &["neither a span", "30s"]),
        mistake("an answer that is not", &["explain", "nope"], 1, &["no event of workflow nope"]),
        mistake("a replay of nothing", &["replay", "verify", "nope"], 1, &["no event of workflow nope"]),
        mistake("a new run of nothing", &["replay", "run", "nope"], 1, &["no event of workflow nope"]),
        mistake(
            "a dead letter that is not",
            &["dead", "retry", "99"],
            1,
            &["no dead letter 99", "throughline dead list"],
        ),
    ]
}

#[tokio::test]
async fn what_is_typed_wrongly_is_told_by_the_command() {
    let Some(cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    cluster.workers[0].until_ready().await;
    let mut made = 0;
    for mistakes in [configuration(), places(&cluster), messages(&cluster), questions()] {
        for mistake in &mistakes {
            mistake.is_told(&cluster).await;
            made += 1;
        }
    }
    assert!(made >= 43, "{made}");
    // None of them did any harm.
    let mut doctor = cluster.run("doctor", &["doctor"]);
    let exit = doctor.ended(SOON).await.code();
    let said = doctor.stdout();
    assert!(exit == Some(0) && !said.contains("fail "), "{said}");
}
