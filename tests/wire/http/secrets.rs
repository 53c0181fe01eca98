//! Keys that a peer repeats, in every way in which a peer may write them.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::Value;
use throughline::fetch::{Credential, HeaderText, HttpSource, HttpSources};
use throughline::llm::{ModelProviders, ProviderKind, ProviderSettings, ProviderSpec};
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::{Models, NoSink};
use throughline_actors::ports::source::{FetchError, Sources};

use super::clock;
use super::dialects::{Answer, KINDS, events, send_stream, whole};
use super::models::limits;
use super::server::{Server, Step, answer, json};
use super::sources::call;
use super::streams::{Collector, provider, streaming};

const CANARIES: [&str; 4] = ["abc+DEF/ghi123==", "can\"ary\\key/1", "schlüssel-canary", "50%25-off%2Bkey"];

/// How a JSON writer may write a text: as little escaped as it may, `/` too, all but letters and digits, everything.
fn writers() -> [fn(&str) -> String; 4] {
    fn plain(text: &str) -> String {
        Value::from(text).to_string()
    }
    fn units(text: &str, keep: fn(char) -> bool) -> String {
        let mut out = String::from("\"");
        for c in text.chars() {
            if keep(c) {
                out.push(c);
            } else {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| write!(out, "\\u{unit:04X}").unwrap());
            }
        }
        out + "\""
    }
    [
        plain,
        |text| plain(text).replace('/', "\\/"),
        |text| units(text, |c| c.is_ascii_alphanumeric()),
        |text| units(text, |_| false),
    ]
}

/// Whoever decodes the text, as JSON or in percent and however often, finds no key in it.
fn assert_no_key(text: &str, key: &str, depth: u32) {
    assert!(!text.contains(key), "{key} is in {text}");
    if depth == 0 {
        return;
    }
    let percent = percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let unescaped = unescape(text);
    for next in [percent, unescaped] {
        if next != text {
            assert_no_key(&next, key, depth - 1);
        }
    }
}

/// Undoes what stands escaped, in a text that need not be JSON.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = [2, 6, 12].into_iter().find_map(|length| {
            let escape = rest.get(at..at + length)?;
            Some((serde_json::from_str::<String>(&format!("\"{escape}\"")).ok()?, length))
        });
        let (undone, length) = escape.unwrap_or(("\\".to_owned(), 1));
        out.push_str(&undone);
        rest = &rest[at + length..];
    }
    out + rest
}

/// Bodies of errors that repeat the key, alone and in an error within an error.
fn error_bodies(key: &str) -> Vec<String> {
    let said = format!("Incorrect API key provided: {key}. Find yours at https://example.com/keys?k={key}");
    let mut bodies = Vec::new();
    for outer in writers() {
        bodies.push(format!(r#"{{"error":{{"message":{},"code":{}}}}}"#, outer(&said), outer(key)));
        for inner in writers() {
            let upstream = format!(r#"{{"error":{{"message":{}}}}}"#, inner(&said));
            bodies.push(format!(r#"{{"error":{{"message":{}}}}}"#, outer(&upstream)));
            let gateway = format!(r#"{{"error":{{"message":{}}}}}"#, outer(&upstream));
            bodies.push(format!(r#"{{"error":{}}}"#, outer(&gateway)));
        }
    }
    bodies
}

#[tokio::test]
async fn no_error_of_a_provider_has_its_key() {
    for kind in KINDS {
        for key in CANARIES {
            let server = Server::start().await;
            let models = provider(kind, &server, &[key], limits());
            for body in error_bodies(key) {
                let event = format!("data: {body}\n\n");
                let begun = [("content-type", "text/event-stream")];
                let stories = [
                    answer(400, &[], &body),
                    answer(503, &[], &body),
                    json(&body),
                    answer(200, &begun, &event),
                ];
                for step in stories {
                    server.script([step]);
                    let heard = Collector::default();
                    let failure = models.generate(&streaming(), &heard).await.unwrap_err();
                    assert_no_key(&format!("{} {:?} {}", failure, failure.facts, heard.text()), key, 3);
                }
            }
        }
    }
}

#[tokio::test]
async fn no_answer_of_a_model_has_its_key() {
    for kind in KINDS {
        for key in CANARIES {
            let server = Server::start().await;
            let models = provider(kind, &server, &[key], limits());
            for write in writers() {
                let text =
                    format!("Your key is {key}, and as JSON {} or {}.", write(key), write(&write(key)));
                server.script([json(whole(kind, &Answer::text(&text)).to_string())]);
                let answer = models.generate(&request("provider"), &NoSink).await.unwrap();
                assert!(answer.text.starts_with("Your key is ***, and"), "{}", answer.text);
                assert_no_key(&format!("{} {} {:?}", answer.text, answer.raw, answer.reasoning), key, 3);

                server.script(send_stream(&events(kind, &Answer::text(&text))));
                let heard = Collector::default();
                let streamed = models.generate(&streaming(), &heard).await.unwrap();
                assert_eq!((heard.text(), &streamed.text), (answer.text.clone(), &answer.text), "{kind:?}");
            }
        }
    }
}

fn source(key: &str) -> HttpSources {
    let header = |name: &str, text| (name.parse().unwrap(), text);
    let plain = |text: &str| HeaderText::Plain(text.to_owned());
    let headers = vec![
        header(
            "authorization",
            HeaderText::Secret { prefix: "Bearer ".to_owned(), secret: Credential::new("other-canary") },
        ),
        header("x-auth", plain(key)),
        header("accept-language", plain("de-DE, en;q=0.5")),
    ];
    HttpSources::new(
        vec![HttpSource {
            name: "source".to_owned(),
            headers,
            url_secrets: vec![("{env:IN_QUERY}".to_owned(), Credential::new(key))],
            in_url: vec![Credential::new("path-canary")],
            ..HttpSource::default()
        }],
        clock(),
    )
    .unwrap()
}

#[tokio::test]
async fn no_answer_of_a_source_has_what_was_sent_to_it() {
    for key in CANARIES {
        let server = Server::start().await;
        let sources = source(key);
        for write in writers() {
            let echo = format!(
                r#"{{"headers":{{"x-auth":{key},"Authorization":"Bearer other-canary"}},"text":{twice},
                   "url":"/path-canary?k={percent}",{key}:1,"language":"de-DE, en;q=0.5"}}"#,
                key = write(key),
                twice = write(&write(key)),
                percent = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC),
            );
            server.script([json(&echo)]);
            let url = server.url("/path-canary?k={env:IN_QUERY}");
            let told = format!("{:?}", sources.fetch(&call(url)).await.unwrap());
            for secret in [key, "other-canary", "path-canary"] {
                assert_no_key(&told, secret, 3);
            }
            assert!(told.contains("de-DE, en;q=0.5"), "{told}");
        }
        let head = server.seen().remove(0).head;
        let line = head.lines().next().unwrap();
        let sent = line.trim_start_matches("GET /path-canary?k=").trim_end_matches(" HTTP/1.1");
        assert_eq!(percent_encoding::percent_decode_str(sent).decode_utf8().unwrap(), key, "{line}");
    }
}

#[tokio::test]
async fn no_error_of_a_source_has_what_was_sent_to_it() {
    let server = Server::start().await;
    let sources = source("abc+DEF/ghi123==");
    let echoes: [Step; 2] = [
        answer(200, &[("content-type", "text/abc+DEF/ghi123==")], "no json"),
        answer(200, &[("content-encoding", "x-other-canary")], "{}"),
    ];
    for step in echoes {
        server.script([step]);
        let error = sources.fetch(&call(server.url("/"))).await.unwrap_err();
        assert!(matches!(&error, FetchError::NotJson(said) if said.contains("***")), "{error:?}");
    }
}

#[tokio::test]
async fn a_password_in_the_address_of_a_provider_is_removed_from_its_answers() {
    let server = Server::start().await;
    let url = server.url("/v1").replace("http://", "http://ann:canary%2Bpassword@");
    let spec = ProviderSpec {
        name: "provider".to_owned(),
        kind: ProviderKind::OpenAi,
        base_url: url,
        keys: Vec::new(),
        options: HashMap::new(),
        limits: limits(),
        settings: ProviderSettings::default(),
    };
    let models = ModelProviders::new(vec![spec], &clock()).unwrap();
    let basic = "YW5uOmNhbmFyeStwYXNzd29yZA==";
    let text = format!("canary+password is {basic}");
    server.script([json(whole(ProviderKind::OpenAi, &Answer::text(&text)).to_string())]);
    let answer = models.generate(&request("provider"), &NoSink).await.unwrap();
    assert_eq!(answer.text, "*** is ***");
    assert_eq!(server.seen()[0].header("authorization"), Some(format!("Basic {basic}").as_str()));
}
