//! JSON and strings that other people collected because they break things.

use std::collections::{BTreeSet, HashMap};

use futures_util::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{
    Cluster, Figures, SOON, Settings,
    cluster::{BARE, message},
    corpora,
};

/// Longest id, in bytes; longer ones are refused.
const MAX_ID_BYTES: usize = 256;

/// Standard base64, decoded here because nothing else needs it.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let bytes: Vec<u8> = text.bytes().filter(|&byte| byte != b'=').collect();
    let mut out = Vec::new();
    for group in bytes.chunks(4) {
        let bits = group.iter().fold(0u32, |bits, &byte| bits << 6 | u32::from(digit(byte)));
        let bits = bits << (6 * (4 - group.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    out
}

/// Every file of the suite is sent as a message of its own, and as the metadata of a good one.
#[tokio::test]
async fn no_json_upsets_a_worker() {
    let Some(folder) = corpora::folder("json_test_suite") else { return };
    let Some(mut cluster) = Cluster::start(2, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    let cases = corpora::lines(&folder.join("cases.jsonl"));
    let mut messages = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        let body = base64(case["b64"].as_str().unwrap());
        // A session for each, so that they need not wait for each other.
        let mut inside =
            format!(r#"{{"user_id":"demo","session_id":"s{n}","user_input":"Hello","metadata":{{"x":"#)
                .into_bytes();
        inside.extend_from_slice(&body);
        inside.extend_from_slice(b"}}");
        messages.push(message(BARE, &[("Nats-Msg-Id", &format!("alone-{n}"))], body));
        messages.push(message(BARE, &[("Nats-Msg-Id", &format!("inside-{n}"))], inside));
    }
    messages.push(message(
        BARE,
        &[("Nats-Msg-Id", "good")],
        r#"{"user_id":"demo","session_id":"g","user_input":"Hi"}"#,
    ));
    let sent = messages.len();
    cluster.publish_all(messages).await;

    let is_end = |kind: &str| matches!(kind, "interaction_saved" | "workflow_failed");
    log.until("an end of each message", |log| {
        log.all.iter().filter(|seen| is_end(&seen.kind())).count() >= sent
    })
    .await;
    let mut ends: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for seen in log.all.iter().filter(|seen| is_end(&seen.kind())) {
        let reason = seen.data()["message"].as_str().unwrap_or_default().to_owned();
        ends.entry(seen.attribute("workflowid").to_owned()).or_default().push((seen.kind(), reason));
    }
    log.answer("good");
    let places = (0..cases.len()).flat_map(|n| [format!("alone-{n}"), format!("inside-{n}")]);
    let ends_of = places.map(|name| ends.get(&name).map_or(0, Vec::len));
    Figures::of_ends(25, "the JSON test suite, as message and inside one", cases.len(), ends_of).show();
    for (n, case) in cases.iter().enumerate() {
        let name = case["name"].as_str().unwrap();
        for place in ["alone", "inside"] {
            let [(kind, reason)] = ends[&format!("{place}-{n}")].as_slice() else {
                panic!("{name}, {place}: not exactly one end")
            };
            let (legitimate, refused) = (kind == "interaction_saved", !reason.is_empty());
            assert!(legitimate || refused, "{name}, {place}: {kind} without a reason");
            match case["expect"].as_str().unwrap() {
                // Well-formed, but no request: none of the files is one.
                "accept" if place == "alone" => assert!(!legitimate, "{name}: {kind}"),
                "accept" => assert!(legitimate, "{name} as metadata: {kind}: {reason}"),
                "reject" if place == "alone" => {
                    assert_eq!(kind, "workflow_failed", "{name}: its publisher hears it");
                }
                // Some are rejected alone only because they end the object that they now stand in.
                _ => {}
            }
        }
    }
    cluster.assert_workers_run();
}

/// What an id stands as in a subject. That of a refusal may stand for one that cannot be used, and ends with its token.
fn token(id: &str) -> String {
    if let Some((_, token)) = id.rsplit_once('…').filter(|(_, token)| token.len() == 65) {
        return token.to_owned();
    }
    if (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    {
        return id.to_owned();
    }
    let digest = Sha256::digest(id.as_bytes());
    digest.iter().fold("h".to_owned(), |token, byte| format!("{token}{byte:02x}"))
}

/// What is stored of a text: without blanks around it, with one kind of line end, and without NUL.
fn normal(text: &str) -> String {
    text.trim().replace("\r\n", "\n").replace('\0', "\u{fffd}")
}

#[tokio::test]
async fn naughty_strings_are_only_strings() {
    let Some(folder) = corpora::folder("naughty_strings") else { return };
    let Some(mut cluster) = Cluster::start(2, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    // Somebody else's session: nothing that strings do reaches it.
    let mut bystander = cluster.client.subscribe("throughline.v1.*.bystander.>").await.unwrap();
    let mut live = cluster.client.subscribe("throughline.live.>").await.unwrap();
    cluster.client.flush().await.unwrap();

    let cases = corpora::lines(&folder.join("cases.jsonl"));
    let mut texts: Vec<String> = cases.iter().map(|case| case["text"].as_str().unwrap().to_owned()).collect();
    texts.extend(
        [".", "*", ">", "bystander.>", "a b", "a\tb", "a\r\nPUB throughline.v1.x 0\r\n\r\n", "\0", "", "x"]
            .map(str::to_owned),
    );
    texts.push("long ".repeat(2_000));
    texts.sort();
    texts.dedup();
    let mut messages = Vec::new();
    let mut wanted: HashMap<String, (String, Value)> = HashMap::new();
    let usable_id = |text: &str| !text.is_empty() && text.len() <= MAX_ID_BYTES && !text.contains('\0');
    for (n, text) in texts.iter().enumerate() {
        const FIELDS: [&str; 4] = ["user_id", "session_id", "workflow_id", "user_input"];
        let usable =
            |field: &str| if field == "user_input" { !normal(text).is_empty() } else { usable_id(text) };
        // Everywhere at once; where one place makes the message invalid, each place on its own.
        let together: [&[&str]; 1] = [&FIELDS];
        let alone: [&[&str]; 4] = [&FIELDS[..1], &FIELDS[1..2], &FIELDS[2..3], &FIELDS[3..]];
        let places = if FIELDS.into_iter().all(usable) { &together[..] } else { &alone[..] };
        for fields in places {
            let id = format!("{}-{n}", fields[0]);
            let mut data =
                json!({"user_id": "demo", "session_id": id, "workflow_id": id, "user_input": "Hi"});
            for field in *fields {
                data[field] = json!(text);
            }
            if fields.iter().copied().all(usable) {
                let workflow = data["workflow_id"].as_str().unwrap().to_owned();
                wanted.insert(workflow, (fields.join("+"), data.clone()));
            }
            messages.push(message(BARE, &[], data.to_string()));
        }
    }
    let sent = messages.len();
    cluster.publish_all(messages).await;
    let mut ended = 0;
    let mut next = 0;
    log.until_within(2 * SOON, "an end of each workflow", |log| {
        for seen in &log.all[next..] {
            ended += usize::from(matches!(seen.kind().as_str(), "interaction_saved" | "workflow_failed"));
        }
        next = log.all.len();
        ended >= sent
    })
    .await;

    assert_eq!(log.dead().count(), 0);
    for (workflow, (field, _)) in &wanted {
        let end = log.end(workflow).unwrap_or_else(|| panic!("{field}: no end of {workflow:?}"));
        assert_eq!(end.kind(), "interaction_saved", "{field} of {workflow:?}: {}", end.json());
    }
    let failed: Vec<_> = log.all.iter().filter(|seen| seen.kind() == "workflow_failed").collect();
    assert_eq!(failed.len(), sent - wanted.len());
    for seen in failed {
        assert_eq!(seen.data()["code"], "invalid_input", "{}", seen.json());
    }
    for seen in &log.all {
        if seen.subject == BARE {
            continue;
        }
        let tokens: Vec<_> = seen.subject.split('.').collect();
        assert_eq!(tokens.len(), 5, "{}", seen.subject);
        assert_eq!(tokens[3], token(seen.attribute("sessionid")), "{}", seen.json());
        assert_eq!(tokens[4], token(seen.attribute("workflowid")), "{}", seen.json());
    }
    let ids: Vec<_> = wanted.keys().cloned().collect();
    cluster.figures(27, "hostile strings as ids and texts", sent, &log, &ids).await.show();
    let rows = cluster.rows();
    let mut stored = BTreeSet::new();
    for row in &rows {
        let (field, sent) = &wanted[row["workflow_id"].as_str().unwrap()];
        assert_eq!((&row["user_id"], &row["session_id"]), (&sent["user_id"], &sent["session_id"]), "{field}");
        assert_eq!(row["input"], normal(sent["user_input"].as_str().unwrap()), "{field}");
        assert!(stored.insert(row["workflow_id"].to_string()), "two rows of one workflow");
    }
    assert_eq!(stored.len(), wanted.len());

    // The bystander hears of its own workflow and of nothing else.
    cluster.say("mine", "alice", "bystander", "Hello").await;
    log.until_ended(&["mine"]).await;
    for _ in 0..5 {
        let heard = tokio::time::timeout(SOON, bystander.next()).await.unwrap().unwrap();
        assert!(heard.subject.ends_with(".bystander.mine"), "{}", heard.subject);
    }
    drop(live.unsubscribe().await);
    while let Some(live) = live.next().await {
        assert_eq!(live.subject.split('.').count(), 3, "{}", live.subject);
    }
    cluster.assert_workers_run();
}
