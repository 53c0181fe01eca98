//! Says several things in one session, each when the one before has ended, and looks up at the end what is stored:
//! `session nats://127.0.0.1:4222 USER SESSION TEXT...`

#![allow(clippy::print_stdout)]

use std::error::Error;

use throughline::client::{Client, End, Input, SessionId, StoredEvent, UserId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: session NATS_URL USER SESSION TEXT...");
    let client = Client::connect(&next()?, "throughline").await?;
    let (user, session) = (UserId::new(next()?)?, SessionId::new(next()?)?);
    for text in arguments {
        let turn = client.ask(Input::new(user.clone(), session.clone(), text.as_str())).await?;
        let workflow = turn.workflow().clone();
        match turn.end().await? {
            End::Saved(saved) => println!("{text}\n  {}", saved.text()),
            End::Failed(failed) => println!("{text}\n  failed: {}: {}", failed.code, failed.message),
        }
        let types: Vec<_> =
            client.events_of(&workflow).await?.iter().filter_map(StoredEvent::event_type).collect();
        println!("  {} events, the last is {}", types.len(), types.last().ok_or("nothing is stored")?);
    }
    client.close().await;
    Ok(())
}
