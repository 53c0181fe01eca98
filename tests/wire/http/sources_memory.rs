//! A large answer is read where there is memory for it, and a source does not wait for that in the middle of one.

use std::sync::Arc;
use std::time::Duration;

use throughline_actors::memory_budget::{Budget, StageMemory};
use throughline_actors::ports::source::{AnswerRoom, FetchCall, Sources};
use throughline_schemas::StageName;

use super::server::{Server, Step, answer};
use super::sources::{call, sources};

const MIB: u64 = 1 << 20;
const LARGE: usize = 200_000;

#[tokio::test]
async fn a_source_whose_answer_has_no_room_is_asked_again_when_there_is_some() {
    let body = format!("[\"{}\"]", "x".repeat(LARGE));
    // One that announces how long it is, and one that does not.
    let announced = vec![answer(200, &[], &body)];
    let unannounced = vec![Step::Send(format!("HTTP/1.1 200 X\r\n\r\n{body}").into_bytes()), Step::Close];
    for steps in [announced, unannounced] {
        let server = Server::start().await;
        server.script(steps.clone());
        server.script(steps);
        let memory = StageMemory::new(StageName::External, Budget::new(16 * MIB), 8);
        let held = memory.room();
        held.take_all(12 * MIB).await;
        let room = memory.room();
        let call = FetchCall {
            max_bytes: 1 << 20,
            // While it waits for memory, its time does not run.
            timeout: Duration::from_millis(900),
            room: AnswerRoom::new(&room, 4 * MIB),
            ..call(server.url("/"))
        };
        let sources = Arc::new(sources());
        let fetched = tokio::spawn({
            let (sources, call) = (Arc::clone(&sources), call.clone());
            async move { sources.fetch(&call).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!fetched.is_finished());
        assert_eq!(server.seen().len(), 1, "it waits, and keeps nobody waiting");
        drop(held);
        assert_eq!(fetched.await.unwrap().unwrap().as_str(), body);
        assert_eq!(server.seen().len(), 2);

        // With what it has taken the delivery makes its other calls.
        server.script([answer(200, &[], &body)]);
        sources.fetch(&call).await.unwrap();
        assert_eq!(server.seen().len(), 3);
    }
}

#[tokio::test]
async fn small_answers_take_no_memory() {
    let server = Server::start().await;
    let memory = StageMemory::new(StageName::External, Budget::new(MIB), 8);
    let held = memory.room();
    held.take_all(MIB).await;
    let room = memory.room();
    let body = format!("[\"{}\"]", "x".repeat(60_000));
    let call =
        FetchCall { max_bytes: 1 << 20, room: AnswerRoom::new(&room, 4 * MIB), ..call(server.url("/")) };
    let unannounced = vec![Step::Send(format!("HTTP/1.1 200 X\r\n\r\n{body}").into_bytes()), Step::Close];
    for steps in [vec![answer(200, &[], &body)], unannounced] {
        server.script(steps);
        assert_eq!(sources().fetch(&call).await.unwrap().as_str(), body);
    }
    assert_eq!(server.seen().len(), 2);
}
