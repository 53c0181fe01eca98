//! A workflow id that the database has forgotten is used again for another message: its publisher is told, or gets an
//! answer of its own; never that of somebody else, and never nothing.

use std::time::Duration;

use throughline_actors::ports::{
    memory::{
        model::answer,
        script::Reply,
        store::{MemoryStore, TurnState},
    },
    store::Store,
};
use throughline_schemas::{Event, EventData, EventType, FailureCode, SessionId, Subject, Timestamp};

use crate::harness::{Act, JOURNEY, Op, PROVIDER, Rig, Worker, id, reply_to};

const SECOND: Duration = Duration::from_secs(1);
/// Within this somebody who waits is told.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// Sweeps, and whatever is put back into the database, are over by then.
const LATER: Duration = Duration::from_mins(3);

fn say(rig: &Rig, user: &str, session: &str, text: &str) -> u64 {
    rig.bus.publish_input(user, session, "order-77", text)
}

/// Every row of a turn that has ended is gone, as retention leaves it.
async fn forget(rig: &Rig) {
    let any_time = Timestamp::from_unix_ms(253_402_300_799_000);
    assert!(rig.store.forget_ended(any_time, usize::MAX).await.unwrap() > 0);
}

/// Ada's message was answered, and her database does not know it any more.
async fn forgotten() -> (Rig, Worker) {
    let (rig, worker) = Rig::running().await;
    say(&rig, "ada", "a", "hello");
    rig.saved(&id("order-77")).await;
    // The mark of the database follows the log meanwhile, so that nothing is put back by itself.
    rig.pass(LATER).await;
    forget(&rig).await;
    (rig, worker)
}

/// What ended a workflow in a session, by the log.
fn ends(rig: &Rig, session: &str, workflow: &str) -> Vec<Event> {
    let of = |event: &Event| event.meta.session_id.as_str() == session && event.event_type().is_end();
    let all = rig.bus.events().into_iter().filter(of);
    all.filter(|event| event.meta.workflow_id.as_str() == workflow).collect()
}

fn answers(rig: &Rig, session: &str) -> Vec<String> {
    let of_order = ends(rig, session, "order-77").into_iter();
    of_order
        .filter_map(|end| match end.data {
            EventData::InteractionSaved(saved) => Some(saved.response.text),
            _ => None,
        })
        .collect()
}

/// The message at this place of the log was refused because its id is another one's, and nothing else was told of it.
fn assert_refused(rig: &Rig, session: &str, sequence: u64) {
    let told = ends(rig, session, &format!("order-77-conflict-{sequence}"));
    let codes: Vec<_> = told
        .iter()
        .map(|end| match &end.data {
            EventData::WorkflowFailed(failed) => failed.code,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(codes, [FailureCode::Conflict], "the message at {sequence}");
}

#[tokio::test(start_paused = true)]
async fn another_message_of_its_session_is_refused_and_the_first_one_keeps_its_end() {
    for (user, text) in [("ada", "something else"), ("eve", "hello"), ("eve", "what is her address?")] {
        let (rig, worker) = forgotten().await;
        let other = say(&rig, user, "a", text);
        let next = rig.publish("next", "a", "and then?");
        rig.pass(TOLD_WITHIN).await;
        assert_refused(&rig, "a", other);
        rig.saved(&next).await;
        assert_eq!(answers(&rig, "a"), ["re: hello"]);
        assert_eq!(rig.store.turn(&id("order-77")), Some(TurnState::Saved), "it is on record again");
        // Whoever was first finds what it had, and whoever comes later is refused as before.
        let again = say(&rig, "ada", "a", "hello");
        let third = say(&rig, "ada", "a", "or this?");
        rig.pass(TOLD_WITHIN).await;
        assert_eq!(ends(&rig, "a", &format!("order-77-conflict-{again}")).len(), 0);
        assert_refused(&rig, "a", third);
        // Nor does it help to look at everything again.
        worker.crash();
        rig.bus.rewind(throughline_schemas::StageName::Input, 0);
        let _other = rig.worker().await;
        rig.pass(LATER).await;
        assert_refused(&rig, "a", other);
        assert_eq!(answers(&rig, "a"), ["re: hello"]);
        assert_eq!(rig.models.calls(PROVIDER), 2, "{user} {text}");
        rig.assert_idle();
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_its_turn_is_refused_when_that_comes() {
    let (rig, _worker) = forgotten().await;
    rig.models.otherwise(PROVIDER, |request| Reply::After(SECOND * 20, Ok(answer(&reply_to(request)))));
    let before = rig.publish("before", "a", "a long story");
    rig.pass(SECOND).await;
    let other = say(&rig, "eve", "a", "what is her address?");
    let behind = rig.publish("behind", "a", "and then?");
    rig.saved(&before).await;
    rig.pass(SECOND).await;
    assert_refused(&rig, "a", other);
    rig.saved(&behind).await;
    assert_eq!(answers(&rig, "a"), ["re: hello"]);
    assert_eq!(rig.models.calls(PROVIDER), 3);
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn in_another_session_it_is_a_workflow_of_its_own() {
    let (rig, _worker) = forgotten().await;
    say(&rig, "eve", "e", "what is her address?");
    rig.pass(TOLD_WITHIN).await;
    assert_eq!(answers(&rig, "e"), ["re: what is her address?"]);
    // The first one has its end, and is told no other.
    let again = say(&rig, "ada", "a", "hello");
    rig.pass(TOLD_WITHIN).await;
    assert_eq!((ends(&rig, "a", "order-77").len(), answers(&rig, "a")), (1, vec!["re: hello".to_owned()]));
    assert_eq!(ends(&rig, "a", &format!("order-77-conflict-{again}")).len(), 0);
    let other = say(&rig, "ada", "a", "something else");
    rig.pass(TOLD_WITHIN).await;
    assert_refused(&rig, "a", other);
    // When the log has forgotten it, too, the id is the other one's alone.
    rig.bus.roll_back(0);
    say(&rig, "ada", "a", "hello");
    say(&rig, "eve", "e", "what is her address?");
    rig.pass(TOLD_WITHIN).await;
    assert_eq!(answers(&rig, "e"), ["re: what is her address?"]);
    let told = ends(&rig, "a", "order-77");
    assert!(
        matches!(&told[..], [Event { data: EventData::WorkflowFailed(failed), .. }] if failed.code == FailureCode::Conflict),
        "{told:?}"
    );
    assert_eq!(rig.models.calls(PROVIDER), 2);
    rig.assert_idle();
}

/// The whole database was lost. What the log has is put back while a message waits that uses one of its ids, and sweepers
/// find turns that the log says have ended: nobody else closes the turn before its publisher is told.
#[tokio::test(start_paused = true)]
async fn one_that_waits_while_the_database_is_put_right_is_refused_too() {
    for dies in [false, true] {
        let rig = Rig::new();
        let worker = rig.worker().await;
        say(&rig, "ada", "a", "hello");
        rig.saved(&id("order-77")).await;
        rig.pass(LATER).await;
        worker.drain(SECOND).await;
        rig.store.put_back(&MemoryStore::new().backup());
        rig.models.otherwise(PROVIDER, |request| Reply::After(SECOND * 90, Ok(answer(&reply_to(request)))));
        let before = rig.publish("before", "a", "a long story");
        let others = ["eve", "ada"].map(|user| say(&rig, user, "a", "what is her address?"));
        let worker = rig.worker().await;
        if dies {
            // Whoever ends the turn before it dies before it looks at what comes next.
            worker.gate.once(Op::Publish, "interaction_saved", Act::Die);
            worker.gate.died().await;
        }
        let _another = rig.worker().await;
        let behind = rig.publish("behind", "a", "and then?");
        rig.saved(&before).await;
        rig.saved(&behind).await;
        rig.pass(LATER).await;
        for other in others {
            assert_refused(&rig, "a", other);
        }
        assert_eq!(answers(&rig, "a"), ["re: hello"]);
        assert_eq!(rig.store.turn(&id("order-77")), Some(TurnState::Saved), "{dies}");
        rig.assert_idle();
    }
}

/// The whole database was lost, and what the log has is put back into it while another session has the id.
#[tokio::test(start_paused = true)]
async fn what_is_put_back_does_not_end_the_turn_of_another_session() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    for n in 0..600 {
        rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
    }
    say(&rig, "ada", "a", "hello");
    rig.saved(&id("order-77")).await;
    rig.pass(LATER).await;
    worker.drain(SECOND).await;
    rig.store.put_back(&MemoryStore::new().backup());
    let calls = rig.models.calls(PROVIDER);
    rig.models.otherwise(PROVIDER, |request| Reply::After(SECOND * 20, Ok(answer(&reply_to(request)))));
    say(&rig, "eve", "e", "what is her address?");
    let _other = rig.worker().await;
    rig.pass(LATER).await;
    assert_eq!(answers(&rig, "e"), ["re: what is her address?"]);
    assert_eq!(answers(&rig, "a"), ["re: hello"]);
    assert!(rig.meters.count("throughline_turns_restored_total", &[]) >= 600);
    // Nor is her end told where it is asked for again.
    rig.bus.roll_back(0);
    say(&rig, "eve", "e", "what is her address?");
    rig.pass(TOLD_WITHIN).await;
    assert_eq!(answers(&rig, "e"), ["re: what is her address?"]);
    assert_eq!(rig.models.calls(PROVIDER), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn where_neither_log_nor_database_knows_it_any_more_it_is_free() {
    let (rig, _worker) = forgotten().await;
    rig.bus.roll_back(0);
    say(&rig, "eve", "a", "what is her address?");
    let saved = rig.saved(&id("order-77")).await;
    assert_eq!(saved.response.text, "re: what is her address?");
    assert_eq!(rig.types(&id("order-77")), JOURNEY);
    let session = SessionId::new("a").unwrap();
    let beginning = Subject::new(EventType::InputValidated, &session, &id("order-77"));
    assert_eq!(rig.events(&id("order-77"))[0].subject(), beginning);
    let late = say(&rig, "ada", "a", "hello");
    rig.pass(TOLD_WITHIN).await;
    assert_refused(&rig, "a", late);
    rig.assert_idle();
}
