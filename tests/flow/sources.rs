//! External data degrades an answer and fails no workflow but where it is required; each source has its own breaker.

use std::time::Duration;

use serde_json::json;
use throughline_actors::{
    policy::limits::HOLD_LIMIT,
    ports::{memory::script::Reply, source::FetchError},
};
use throughline_schemas::{
    Document, FailureCode, MAX_DEPTH, StageName, WorkflowId,
    event::external::{SourceResult, SourceStatus},
};

use crate::harness::{JOURNEY, PROVIDER, Rig};

const ORDERS: &str = "order_history";
const SECOND: Duration = Duration::from_secs(1);

async fn ask(rig: &Rig, workflow: &str) -> SourceResult {
    let workflow = rig.publish(workflow, "s1", "where is my order?");
    rig.saved(&workflow).await;
    let fetched = rig.fetched(&workflow);
    assert_eq!(fetched.external["user_profile"].status, SourceStatus::Ok, "the others are not affected");
    fetched.external[ORDERS].clone()
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_down_slow_or_lying_is_reported_and_the_workflow_goes_on() {
    let server = || FetchError::Server { status: 503, retry_after: None };
    let now = |error| Reply::Now(Err(error));
    // What the source does, what is reported, and how many calls that takes.
    let cases = [
        ("down", vec![now(server()), now(server())], "status", Some(503), 2),
        (
            "unreachable",
            vec![
                now(FetchError::Unreachable("refused".to_owned())),
                now(FetchError::Unreachable("refused".to_owned())),
            ],
            "unreachable",
            None,
            2,
        ),
        ("slow", vec![Reply::Never, Reply::Never], "timed_out", None, 2),
        ("html", vec![now(FetchError::NotJson("line 1".to_owned()))], "not_json", None, 1),
        ("huge", vec![Reply::Now(Ok(json!("x".repeat(20_000)).into()))], "too_large", None, 1),
        ("unknown user", vec![now(FetchError::NotFound(404))], "not_found", Some(404), 1),
        ("forbidden", vec![now(FetchError::Refused(403))], "status", Some(403), 1),
    ];
    for (name, replies, code, http_status, calls) in cases {
        let (rig, _worker) = Rig::running().await;
        for reply in replies {
            rig.sources.push(ORDERS, reply);
        }
        let result = ask(&rig, "w1").await;
        let error = result.error.unwrap_or_else(|| panic!("{name} should be reported"));
        assert_eq!((result.status, result.data), (SourceStatus::Failed, None), "{name}");
        assert_eq!((error.code.as_str(), error.http_status), (code, http_status), "{name}");
        assert_eq!((result.calls, rig.sources.calls(ORDERS)), (calls, calls as usize), "{name}");
        assert!(error.message.starts_with("order_history: "), "{name}: {}", error.message);
        let again = ask(&rig, "w2").await;
        assert_eq!(again.status, SourceStatus::Ok, "{name}: the next one is served");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_holds_the_answer_up_for_its_own_limits_only() {
    let (rig, _worker) = Rig::running().await;
    rig.sources.otherwise(ORDERS, |_| Reply::Never);
    let result = ask(&rig, "w1").await;
    assert!(rig.seconds() < 4.2, "two timeouts of 2 s and a wait between them: {} s", rig.seconds());
    let took = result.duration_ms.duration();
    assert!((4.0..4.2).contains(&took.as_secs_f64()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_is_retried() {
    let (rig, _worker) = Rig::running().await;
    rig.sources.push(ORDERS, Reply::Now(Err(FetchError::Server { status: 500, retry_after: None })));
    let result = ask(&rig, "w1").await;
    assert_eq!((result.status, result.calls, result.error), (SourceStatus::Ok, 2, None));
}

#[tokio::test(start_paused = true)]
async fn only_its_own_breaker_opens_and_recovery_needs_no_restart() {
    let (rig, _worker) = Rig::running().await;
    rig.sources.always(ORDERS, Err(FetchError::Unreachable("refused".to_owned())));
    for n in 0..3 {
        ask(&rig, &format!("a{n}")).await;
    }
    assert_eq!(rig.sources.calls(ORDERS), 5, "the fifth failure opened it");
    let refused = ask(&rig, "b").await;
    assert_eq!((refused.calls, refused.status), (0, SourceStatus::Failed));
    let error = refused.error.expect("a reason");
    assert_eq!(error.code, "breaker_open");
    assert!(error.message.contains("breaker is open (cannot be reached: refused)"), "{}", error.message);
    assert_eq!(rig.sources.calls(ORDERS), 5);
    assert!(rig.seconds() < 5.0, "an open breaker is not waited for: {} s", rig.seconds());
    let gauge =
        |name| rig.meters.gauge("throughline_breaker_state", &[("dependency", name), ("stage", "external")]);
    assert_eq!(["user_profile", ORDERS, "product_info"].map(gauge), [Some(0.0), Some(2.0), Some(0.0)]);
    assert_eq!(rig.models.calls(PROVIDER), 4, "all were answered");

    rig.sources.always(ORDERS, Ok(json!({"orders": []})));
    rig.pass(SECOND * 31).await;
    assert_eq!(ask(&rig, "c").await.status, SourceStatus::Ok);
    assert_eq!(gauge(ORDERS), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_asks_to_slow_down_is_reported_as_such_and_left_alone() {
    let (rig, _worker) = Rig::running().await;
    let retry_after = Some(SECOND * 20);
    rig.sources.push(ORDERS, Reply::Now(Err(FetchError::RateLimited { retry_after })));
    rig.sources.push(ORDERS, Reply::Now(Err(FetchError::RateLimited { retry_after })));
    for workflow in ["w1", "w2", "w3"] {
        let result = ask(&rig, workflow).await;
        if let Some(error) = result.error {
            assert_eq!(error.code, "rate_limited", "{workflow}: {error:?}");
        }
    }
    assert_eq!(rig.meters.count("throughline_breaker_transitions_total", &[]), 0, "429 does not trip");
}

#[tokio::test(start_paused = true)]
async fn several_values_of_one_text_are_fetched_side_by_side() {
    let mut rig = Rig::new();
    rig.settings.sources[2].max_matches = 3;
    rig.sources.otherwise("product_info", |call| {
        let known = !call.url.ends_with("PROD-2");
        Reply::After(
            SECOND,
            if known { Ok(json!({"url": call.url}).into()) } else { Err(FetchError::NotFound(404)) },
        )
    });
    let _worker = rig.worker().await;
    let workflow = rig.publish("w1", "s1", "compare product PROD-1, PROD-2, PROD-3 and PROD-4");
    rig.saved(&workflow).await;
    let result = &rig.fetched(&workflow).external["product_info"];
    assert_eq!(
        result.data,
        Some(json!([{"url": "http://inventory/PROD-1"}, {"url": "http://inventory/PROD-3"}]).into())
    );
    assert_eq!(result.error.as_ref().expect("one is missing").code, "not_found");
    assert_eq!((result.status, result.calls), (SourceStatus::Ok, 3));
    assert_eq!(result.duration_ms.duration().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_says_which_source_its_answer_lacks() {
    let (rig, _worker) = Rig::running().await;
    let whole = rig.publish("w1", "s1", "where is my order?");
    assert_eq!(rig.saved(&whole).await.degraded, [""; 0]);
    rig.sources.push(ORDERS, Reply::Now(Err(FetchError::NotFound(404))));
    let lacking = rig.publish("w2", "s1", "where is my order?");
    assert_eq!(rig.saved(&lacking).await.degraded, [ORDERS]);
    assert_eq!(rig.generated(&lacking).degraded, [ORDERS]);
}

/// A shop that answers nothing about orders without them, with the patience that production gives it.
fn requiring_orders() -> Rig {
    let mut rig = Rig::new();
    let orders = rig.settings.sources.iter_mut().find(|source| source.name == ORDERS).expect("it is there");
    orders.required = true;
    orders.policy.patience.longest_wait = HOLD_LIMIT;
    orders.policy.patience.total = (orders.timeout + HOLD_LIMIT) * orders.policy.retry.max_attempts;
    rig
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_without_a_source_that_is_required() {
    let rig = requiring_orders();
    let _worker = rig.worker().await;
    // What it does, whether that passes, and how often it was asked.
    let server = || Err(FetchError::Server { status: 503, retry_after: None });
    for (workflow, replies, retryable, attempts) in
        [("w1", vec![server(), server()], true, 2), ("w2", vec![Err(FetchError::NotFound(404))], false, 1)]
    {
        for reply in replies {
            rig.sources.push(ORDERS, Reply::Now(reply));
        }
        let workflow = rig.publish(workflow, "s1", "where is my order?");
        let failed = rig.failed(&workflow).await;
        assert_eq!((failed.code, failed.stage), (FailureCode::SourceUnavailable, StageName::External));
        assert!(failed.message.contains("order_history: "), "{}", failed.message);
        assert_eq!(
            (failed.retryable, failed.may_have_happened, failed.attempts),
            (retryable, false, attempts)
        );
        assert_eq!(failed.external[ORDERS].failed_calls.len(), attempts as usize);
        assert_eq!(
            failed.external["user_profile"].status,
            SourceStatus::Ok,
            "what the others said is on record"
        );
    }
    assert_eq!(rig.models.calls(PROVIDER), 0, "nobody is paid for an answer that is not given");
    let unasked = rig.publish("w3", "s1", "hello");
    assert_eq!(rig.saved(&unasked).await.degraded, [""; 0], "a text that does not ask for it needs it not");
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_breaker_of_a_required_source_is_waited_for_as_far_as_its_attempts_go() {
    let rig = requiring_orders();
    let _worker = rig.worker().await;
    rig.sources.always(ORDERS, Err(FetchError::Unreachable("refused".to_owned())));
    for n in 0..3 {
        let workflow = rig.publish(&format!("a{n}"), &format!("s{n}"), "where is my order?");
        rig.failed(&workflow).await;
    }
    assert_eq!(rig.sources.calls(ORDERS), 5, "the fifth failure opened it");
    let before = rig.seconds();
    let waiting = rig.publish("b", "s1", "where is my order?");
    let failed = rig.failed(&waiting).await;
    let waited = rig.seconds() - before;
    assert!((25.0..35.0).contains(&waited), "one cooldown, then its last attempt failed: {waited} s");
    let calls = &failed.external[ORDERS].failed_calls;
    assert_eq!(calls[0].error.code, "breaker_open");
    assert_eq!((calls.len(), failed.attempts), (2, 2));

    let waiting = rig.publish("c", "s1", "where is my order?");
    rig.pass(SECOND).await;
    rig.sources.always(ORDERS, Ok(json!({"orders": []})));
    assert_eq!(rig.saved(&waiting).await.degraded, [""; 0], "it came back in time");
}

/// What depends on whose document is asked for (too large, an error page) says nothing about the documents of others.
#[tokio::test(start_paused = true)]
async fn one_user_s_document_closes_the_source_for_nobody_else() {
    let (rig, _worker) = Rig::running().await;
    let large = || Reply::Now(Ok(json!("x".repeat(20_000)).into()));
    let page = || Reply::Now(Err(FetchError::NotJson("line 1".to_owned())));
    for n in 0..10 {
        rig.sources.push(ORDERS, if n % 2 == 0 { large() } else { page() });
        assert_eq!(ask(&rig, &format!("a{n}")).await.status, SourceStatus::Failed);
    }
    assert_eq!(ask(&rig, "b").await.status, SourceStatus::Ok);
    assert_eq!(rig.meters.count("throughline_breaker_transitions_total", &[]), 0);

    // Open for a reason of its own, it is closed by any answer.
    rig.sources.always(ORDERS, Err(FetchError::Unreachable("refused".to_owned())));
    for n in 0..3 {
        ask(&rig, &format!("c{n}")).await;
    }
    rig.sources.always(ORDERS, Ok(json!("x".repeat(20_000))));
    rig.pass(SECOND * 31).await;
    assert_eq!(ask(&rig, "d").await.error.expect("too large").code, "too_large");
    rig.sources.always(ORDERS, Ok(json!({"orders": []})));
    assert_eq!(ask(&rig, "e").await.status, SourceStatus::Ok, "the probe was not lost");
}

/// Whoever looks up why the wrong product was described sees what was looked up.
#[tokio::test(start_paused = true)]
async fn what_a_source_was_asked_is_on_record_and_comes_from_the_message() {
    let mut rig = Rig::new();
    rig.settings.sources[1].url = "http://eve:canary@orders/{metadata.shop}/{user_id}?on={date}".to_owned();
    rig.settings.sources[1].recorded_url =
        "http://eve:***@orders/{metadata.shop}/{user_id}?on={date}".to_owned();
    let _worker = rig.worker().await;
    let publish = |id: &str, metadata: serde_json::Value| {
        let input = json!({"user_id": "u1", "session_id": "s1", "workflow_id": id, "metadata": metadata,
            "user_input": "order of product PROD-7"});
        rig.publish_raw(&[], &input.to_string());
        WorkflowId::new(id).expect("an id")
    };
    let workflow = publish("w1", json!({"shop": "Oslo & co"}));
    rig.saved(&workflow).await;
    let external = rig.fetched(&workflow).external;
    let received_at = rig.fetched(&workflow).request.received_at.to_string();
    let orders = &external[ORDERS].requests[0];
    assert_eq!(orders.url, format!("http://eve:***@orders/Oslo%20%26%20co/u1?on={}", &received_at[..10]));
    assert_eq!(orders.values["metadata.shop"], "Oslo & co");
    let product = &external["product_info"].requests[0];
    assert_eq!(
        (product.url.as_str(), product.values["product_id"].as_str()),
        ("http://inventory/PROD-7", "PROD-7")
    );

    let without = publish("w2", json!({}));
    rig.saved(&without).await;
    assert_eq!(rig.fetched(&without).external[ORDERS].status, SourceStatus::Skipped, "it has no shop");
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

/// What a source writes is in the log and in the prompt as it was written, also in an array of several, and at the limit of
/// depth it can still be read by every stage.
#[tokio::test(start_paused = true)]
async fn an_answer_is_handed_on_as_it_was_written_however_deep_it_may_be() {
    let mut rig = Rig::new();
    rig.settings.sources[2].max_matches = 2;
    for levels in [MAX_DEPTH - 1, MAX_DEPTH] {
        let deep = format!("{}7{}", "[".repeat(levels), "]".repeat(levels));
        let numbers = r#"{"n":12345678901234567890123,"m":[1e400,0.1000000000000000055,-0,1.50],"n":2}"#;
        for answer in [deep.as_str(), numbers] {
            let document = Document::read(answer.as_bytes()).expect("it may be read");
            rig.sources.push("product_info", Reply::Now(Ok(document)));
        }
        let worker = rig.worker().await;
        let workflow = rig.publish(&format!("w{levels}"), "s1", "compare product PROD-1 and PROD-2");
        rig.saved(&workflow).await;
        let written = format!("[{deep},{numbers}]");
        let data = rig.fetched(&workflow).external["product_info"].data.clone();
        assert_eq!(data.expect("it answered").as_str(), written);
        let stored = rig.bus.stored();
        let event = stored.iter().rfind(|stored| stored.subject.contains(".external_data_fetched.")).unwrap();
        assert!(String::from_utf8_lossy(&event.body).contains(&written));
        let prompt = rig.generated(&workflow).prompt.messages;
        assert!(prompt.iter().any(|message| message.content.contains(&written)), "{prompt:#?}");
        assert_eq!(rig.types(&workflow), JOURNEY);
        worker.crash();
    }
    assert!(Document::read("[".repeat(MAX_DEPTH + 1).as_bytes()).is_err());
}
