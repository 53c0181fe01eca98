//! What is accepted can be read by everyone who comes after: each field of a message, of a source's answer and of a model's
//! answer, at its limit, one below and one beyond, filled with every kind of character that grows when it is wrapped in JSON.

mod cases;
mod upstreams;

use serde_json::{Value, json};

use crate::{
    harness::{
        Cluster, Log, SOON, Settings,
        cluster::{BARE, Parts, message},
    },
    postgres_server::PostgresServer,
};
use cases::{Case, End, MAX_INPUT, MAX_METADATA};
use upstreams::{MAX_MODEL, MAX_SOURCE, Upstreams};

fn settings(upstreams: &Upstreams) -> Settings {
    let base = &upstreams.base;
    Settings::new(&format!(
        "[limits]\nmax_input_bytes = {MAX_INPUT}\nmax_metadata_bytes = {MAX_METADATA}\n\
         [stages.generation]\nmax_attempts = 2\n\
         [[sources]]\nname = \"edge\"\nurl = \"{base}/source/{{metadata.source}}\"\nmax_bytes = {MAX_SOURCE}\n\
         [[providers]]\nname = \"edge\"\nkind = \"openai\"\nbase_url = \"{base}/v1\"\n\
         [[models]]\nname = \"edge\"\nprovider = \"edge\"\ncontext_tokens = 10000000\n\
         [generation]\nmodel = \"edge\"\nmax_response_bytes = {MAX_MODEL}\n"
    ))
}

/// The right end, with what went in unchanged.
fn judge(log: &Log, case: &Case) {
    let id = &case.workflow;
    let kinds: Vec<_> = log.events(id).map(crate::harness::Seen::kind).collect();
    let ends = kinds.iter().filter(|kind| matches!(kind.as_str(), "interaction_saved" | "workflow_failed"));
    assert_eq!(ends.count(), 1, "{}: {kinds:?}", case.name);
    let end = log.end(id).unwrap();
    match &case.end {
        End::Saved { degraded } => {
            assert_eq!(end.kind(), "interaction_saved", "{}: {}", case.name, end.json());
            let missing = end.data()["degraded"].as_array().map_or(0, Vec::len);
            assert_eq!(missing, usize::from(*degraded), "{}: {}", case.name, end.data()["degraded"]);
            if let Some(text) = &case.answer {
                assert!(log.answer(id) == text, "{}: the answer is another", case.name);
            }
        }
        End::Failed { code, says } => {
            let failed = log.failure(id);
            assert_eq!(failed["code"], json!(code), "{}: {failed}", case.name);
            assert!(failed["message"].as_str().unwrap().contains(says), "{}: {failed}", case.name);
        }
    }
}

async fn shown(cluster: &Cluster, arguments: &[&str]) -> String {
    let mut program = cluster.run(arguments[0], arguments);
    let status = program.ended(4 * SOON).await;
    assert!(status.success(), "{arguments:?}: {}", program.stderr());
    program.stdout()
}

/// Everything that reads what was stored: commands, a recording, and the replay of it.
async fn readers(cluster: &Cluster, cases: &[Case]) {
    let listed = shown(cluster, &["list", "--json", "--limit", "1000"]).await;
    for case in cases {
        let quoted = Value::from(case.workflow.as_str()).to_string();
        assert!(listed.contains(&quoted), "{} is not listed", case.name);
    }
    let recording = cluster.dir().join("edges.jsonl");
    let path = recording.to_str().unwrap();
    shown(cluster, &["record", "export", path]).await;
    shown(cluster, &["replay", "verify", "--file", path]).await;
    for case in cases.iter().filter(|case| case.is_shown) {
        shown(cluster, &["explain", &case.workflow, "--json"]).await;
        shown(cluster, &["events", "--workflow", &case.workflow, "--json"]).await;
    }
}

async fn story(parts: Parts<'_>) {
    let upstreams = Upstreams::start().await;
    let Some(mut cluster) = Cluster::start_on(&parts, 1, &settings(&upstreams), &[]).await else { return };
    let cases = cases::all();
    cluster.publish_all(cases.iter().map(Case::message).collect()).await;
    let after = json!({"user_id": "u", "session_id": "after", "workflow_id": "after", "user_input": "Hello"});
    cluster.publish_all(vec![message(BARE, &[], after.to_string())]).await;
    let mut log = cluster.log().await;
    let ids: Vec<_> = cases.iter().map(|case| case.workflow.as_str()).chain(["after"]).collect();
    log.until_ended_within(4 * SOON, &ids).await;
    log.answer("after");
    for case in &cases {
        judge(&log, case);
    }
    assert_eq!(log.dead().count(), 0, "{:?}", log.dead().next());
    readers(&cluster, &cases).await;
    cluster.assert_workers_run();
}

#[tokio::test]
async fn what_is_accepted_is_read_after_every_wrapping() {
    story(Parts::default()).await;
}

#[tokio::test]
async fn what_is_accepted_is_read_after_every_wrapping_on_postgresql() {
    let Some(server) = PostgresServer::shared().await else { return };
    let url = server.database().await;
    story(Parts { database_url: Some(&url), ..Parts::default() }).await;
}
