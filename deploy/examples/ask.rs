//! Publishes a question, prints the answer as it comes, and says what it cost:
//! `ask nats://127.0.0.1:4222 USER SESSION QUESTION`

#![allow(clippy::print_stdout)]

use std::{error::Error, io::Write};

use throughline::client::{Client, End, Input, Notice, SessionId, Update, UserId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: ask NATS_URL USER SESSION QUESTION");
    let client = Client::connect(&next()?, "throughline").await?;
    let input = Input::new(UserId::new(next()?)?, SessionId::new(next()?)?, next()?);
    let mut turn = client.ask(input).await?;
    while let Some(update) = turn.next().await? {
        match update {
            Update::Notice(Notice::Text(text)) => print!("{text}"),
            Update::Notice(Notice::BrokeOff { reason, .. }) => println!("\n--- begins again: {reason}"),
            Update::Notice(_) => {}
            Update::End(End::Saved(saved)) => println!("\n--- {} dollars", saved.cost_usd),
            Update::End(End::Failed(failed)) => {
                return Err(format!("{}: {}", failed.code, failed.message).into());
            }
        }
        std::io::stdout().flush()?;
    }
    client.close().await;
    Ok(())
}
