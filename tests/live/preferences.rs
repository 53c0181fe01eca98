//! What is known about a user, from the command line to the prompt; and what a source was asked, to `explain`.

use serde_json::{Value, json};

use crate::harness::{Cluster, SOON, Settings};

/// Runs a command; its exit code and what it said.
async fn run(cluster: &Cluster, arguments: &[&str]) -> (i32, String, String) {
    let mut program = cluster.run("command", arguments);
    let status = program.ended(SOON).await;
    (status.code().expect("an exit code"), program.stdout(), program.stderr())
}

#[tokio::test]
async fn preferences_are_set_read_and_deleted_and_the_next_prompt_has_them() {
    let Some(cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    // The first worker makes the database.
    cluster.workers[0].until_ready().await;
    let good = async |arguments: &[&str]| {
        let (code, out, err) = run(&cluster, arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out.trim_end().to_owned()
    };
    let set = good(&["preferences", "set", "demo", "language=nb", "floor=3", "mood=good"]).await;
    assert!(set.starts_with("set 3 preferences"), "{set}");
    good(&["preferences", "set", "demo", "--json", r#"{"floor": {"of": ["a", 4]}}"#]).await;
    assert_eq!(good(&["preferences", "delete", "demo", "mood", "nothing"]).await, "deleted 1 preference");
    let known: Value = serde_json::from_str(&good(&["preferences", "get", "demo"]).await).unwrap();
    assert_eq!(known, json!({"language": "nb", "floor": {"of": ["a", 4]}}));
    assert_eq!(good(&["preferences", "get", "demo", "language"]).await, "\"nb\"");
    let (code, _, said) = run(&cluster, &["preferences", "get", "demo", "mood"]).await;
    assert!(code == 1 && said.contains("has no preference \"mood\""), "{code} {said}");
    let (code, _, said) = run(&cluster, &["preferences", "set", "demo", "mood"]).await;
    assert!(code == 2 && said.contains("NAME=VALUE"), "{code} {said}");

    cluster.say("w1", "demo", "s", "Is product PROD-001 in stock?").await;
    let mut log = cluster.log().await;
    log.until_ended(&["w1"]).await;
    let told: Value = serde_json::from_str(&good(&["explain", "w1", "--json"]).await).unwrap();
    assert_eq!(told["context"]["preferences"]["floor"], json!({"of": ["a", 4]}));
    let messages = told["prompt"]["messages"].to_string();
    assert!(messages.contains(r#"\"language\":\"nb\""#), "{messages}");
    let request = &told["sources"]["product_info"]["requests"][0];
    assert_eq!(request["values"], json!({"product_id": "PROD-001"}));
    let text = good(&["explain", "w1"]).await;
    let asked = text.lines().find(|line| line.contains("asked /") && line.contains("PROD-001"));
    assert!(asked.is_some_and(|line| line.ends_with("with product_id = PROD-001")), "{text}");

    assert_eq!(good(&["preferences", "delete", "demo", "--all"]).await, "deleted 2 preferences");
    assert_eq!(good(&["preferences", "get", "demo"]).await, "{}");
}
