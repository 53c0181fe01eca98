//! A template that makes no prompts is named before it serves: by `config check`, by `doctor`, and by a worker, which
//! does not start.

use crate::harness::{Program, SOON, process::throughline};

const CONFIG: &str = r#"
[[providers]]
name = "nobody"
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[[models]]
name = "none"
provider = "nobody"
[generation]
model = "none"
[prompt]
dir = "prompts"
"#;

#[tokio::test]
async fn a_broken_template_is_named_with_file_and_line_wherever_it_would_be_used() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("throughline.toml"), CONFIG).unwrap();
    let folder = dir.path().join("prompts/assistant");
    // What they say; everybody who would use the template. Nothing of it needs a server.
    let said = async |name: &str| {
        let mut all = Vec::new();
        for (command, arguments, code) in
            [("check", &["config", "check"][..], 64), ("worker", &["worker"], 64), ("doctor", &["doctor"], 1)]
        {
            let mut program = Program::start(
                &format!("{name}-{command}"),
                dir.path(),
                throughline()
                    .env("NATS_URL", "nats://127.0.0.1:1")
                    .env("DATABASE_URL", "sqlite://never-made.db")
                    .args(arguments),
            );
            let ended = program.ended(SOON).await.code();
            let said = format!("{}{}", program.stdout(), program.stderr());
            // Doctor has more to say, of the server that is not there.
            assert!(ended == Some(code) || command == "doctor", "{command}: {ended:?} {said}");
            all.push((command, said));
        }
        all
    };
    for (command, said) in said("missing").await {
        assert!(said.contains("cannot read the prompt template"), "{command}: {said}");
    }
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("system.j2"), "Hello\n{{ usr_id }}").unwrap();
    std::fs::write(folder.join("data.j2"), "\n\n{% for s in sources %}{{ s.json | nofilter }}{% endfor %}")
        .unwrap();
    for (command, said) in said("broken").await {
        assert!(
            said.contains("system.j2:2: undefined value: `usr_id` is undefined; did you mean \"user_id\"?"),
            "{command}: {said}"
        );
        assert!(said.contains("data.j2:3: unknown filter: filter nofilter is unknown"), "{command}: {said}");
        assert!(said.contains("prompts/assistant"), "{command}: {said}");
    }
    assert!(!dir.path().join("never-made.db").exists(), "nothing was opened");

    std::fs::write(folder.join("system.j2"), "Hello\n{{ user_id }}").unwrap();
    std::fs::write(folder.join("data.j2"), "{% for s in sources %}{{ s.json }}{% endfor %}").unwrap();
    let mut check = Program::start("good", dir.path(), throughline().args(["config", "check"]));
    assert_eq!(check.ended(SOON).await.code(), Some(0), "{}", check.stderr());
}
