//! `throughline llm ask`.

use std::io::{self, IsTerminal};

use futures_util::StreamExt;
use throughline_schemas::{FinishReason, event::generation::Attempt};

use super::{
    AskArgs,
    record::{Answered, event},
};
use crate::{
    cli::{
        Failure, output,
        publish::read_text,
        screen::Screen,
        signal::Signals,
        timeline::{Style, Tone, clean},
    },
    client::{Notice, Who, Words},
    config::{Config, Env},
    llm::{Answer, Client, Event, GenerateError, Request},
};

/// Longest reason that is printed, in characters.
const REASON_CHARS: usize = 300;

pub(super) async fn run(args: &AskArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let request = request(args)?;
    let client = Client::from_config(config, env)?;
    let mut signals = Signals::install()?;
    let asking = async {
        let stream = args.stream || (!args.no_stream && !args.json && io::stdout().is_terminal());
        if stream {
            streamed(&client, request, args.json).await
        } else {
            whole(&client, request, args.json).await
        }
    };
    tokio::select! {
        done = asking => done,
        name = signals.next() => {
            Err(Failure::failed(format!("stopped by {name}; the provider may charge for what it had begun")))
        }
    }
}

fn request(args: &AskArgs) -> Result<Request, Failure> {
    let mut request = Request::new(read_text(&args.text)?);
    if let Some(system) = &args.system {
        request = request.system(system);
    }
    if let Some(model) = &args.model {
        request = request.model(model);
    }
    if let Some(tokens) = args.max_tokens {
        request = request.max_tokens(tokens);
    }
    if let Some(temperature) = args.temperature {
        request = request.temperature(temperature);
    }
    Ok(request)
}

async fn whole(client: &Client, request: Request, json: bool) -> Result<(), Failure> {
    let answer = client.generate(request).await.map_err(failure_of)?;
    if json {
        return output::line(&serde_json::to_string(&Answered::of(&answer)).map_err(Failure::failed)?);
    }
    output::payload(&answer.text)?;
    remark(&answer);
    Ok(())
}

async fn streamed(client: &Client, request: Request, json: bool) -> Result<(), Failure> {
    let mut events = client.stream(request);
    let mut show = Show {
        screen: Screen::new(),
        broke_off: false,
        thinking: false,
        who: Who::default(),
        words: Words::default(),
    };
    while let Some(next) = events.next().await {
        let next = match next {
            Ok(next) => next,
            Err(error) => {
                show.screen.end_line()?;
                return Err(failure_of(error));
            }
        };
        if json {
            output::line(&event(&next).map_err(Failure::failed)?.to_string())?;
        } else {
            show.event(&next)?;
        }
    }
    Ok(())
}

/// What the terminal has seen of a streamed answer.
struct Show {
    screen: Screen,
    broke_off: bool,
    thinking: bool,
    who: Who,
    words: Words,
}

impl Show {
    fn event(&mut self, event: &Event) -> Result<(), Failure> {
        let notice = match event {
            Event::Started { model, provider } => {
                self.thinking = false;
                self.words = Words::default();
                self.who = Who { provider: Some(provider.clone()), model: Some(model.clone()) };
                if !std::mem::take(&mut self.broke_off) {
                    return Ok(());
                }
                Notice::Again { who: self.who.clone() }
            }
            Event::Text(text) => {
                self.words.add(text);
                Notice::Text(text.clone())
            }
            Event::Reasoning(_) if std::mem::replace(&mut self.thinking, true) => return Ok(()),
            Event::Reasoning(_) => Notice::Thinking,
            Event::Restarted { reason } => {
                self.broke_off = true;
                let (who, words) = (self.who.clone(), self.words.count);
                Notice::BrokeOff { who, words, reason: reason.clone(), next: None }
            }
            Event::Completed(answer) => {
                self.screen.end_line()?;
                remark(answer);
                return Ok(());
            }
        };
        self.screen.show(&notice)
    }
}

/// What is worth knowing about an answer: always if it is cut, on a terminal who gave it and for how much.
fn remark(answer: &Answer) {
    let style = Style::of_stderr();
    if answer.finish_reason == FinishReason::Length {
        output::note(
            &style.paint(Tone::Caution, "[the answer is cut at the limit of tokens; see --max-tokens]"),
        );
    }
    if !io::stderr().is_terminal() {
        return;
    }
    let usage = answer.usage.map_or_else(
        || "tokens unknown".to_owned(),
        |usage| format!("{} + {} tokens", usage.input_tokens, usage.output_tokens),
    );
    let cost = match (answer.cost_usd, answer.cost_is_partial) {
        (Some(cost), false) => format!("${cost}"),
        (Some(cost), true) => format!("at least ${cost}"),
        (None, _) => "cost unknown".to_owned(),
    };
    let attempts = match answer.attempts.len() {
        1 => "1 attempt".to_owned(),
        some => format!("{some} attempts"),
    };
    let line = format!("[{}, {usage}, {cost}, {attempts}]", clean(&answer.model, REASON_CHARS));
    output::note(&style.paint(Tone::Faint, &line));
}

/// A failure with every attempt that led to it.
fn failure_of(error: GenerateError) -> Failure {
    let mut lines = Vec::new();
    if let GenerateError::Unanswered(unanswered) = &error {
        for (number, attempt) in (1..).zip(&unanswered.record.attempts) {
            let Attempt { provider, model, error, .. } = attempt;
            let reason = clean(error.as_deref().unwrap_or("answered"), REASON_CHARS);
            lines.push(format!(
                "\n  attempt {number}: {} at {provider}: {reason}",
                clean(model, REASON_CHARS)
            ));
        }
        if let Some(wait) = unanswered.again_in {
            lines.push(format!("\n  it may be tried again in {} s", wait.as_secs().max(1)));
        }
        if unanswered.record.attempts.iter().any(|attempt| attempt.may_have_been_billed) {
            lines.push("\n  a call may have been billed".to_owned());
        }
    }
    let failure = Failure::from(error);
    Failure { message: format!("{}{}", failure.message, lines.concat()), ..failure }
}
