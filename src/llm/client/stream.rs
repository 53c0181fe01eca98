//! An answer as a stream. The call is driven by whoever polls, so what it says waits in a queue that holds no more
//! than one poll brings: no task, no channel, and backpressure up to the provider.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::Stream;
use throughline_actors::model::client::{Answered, Ask, Heard, Hearing, ModelClient, Unanswered};

use super::{Answer, GenerateError};

/// What happens while an answer comes into being.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A model is asked.
    Started {
        /// The provider's name of the model.
        model: String,
        /// Name of its provider in the configuration.
        provider: String,
    },
    /// The next piece of the answer.
    Text(String),
    /// The next piece of the model's reasoning.
    Reasoning(String),
    /// The call broke off after pieces had come, and another one will be made: the pieces so far are void.
    Restarted {
        /// Why, for a person.
        reason: String,
    },
    /// The whole answer; the last event.
    Completed(Box<Answer>),
}

#[derive(Clone, Default)]
struct Queue(Arc<Mutex<VecDeque<Event>>>);

impl Queue {
    fn push(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
    }

    fn pop(&self) -> Option<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Hearing for Queue {
    fn hear(&self, heard: Heard<'_>) {
        let event = match heard {
            Heard::Started { attempt: _, model, provider } => {
                Event::Started { model: model.to_owned(), provider: provider.to_owned() }
            }
            Heard::Text(text) => Event::Text(text.to_owned()),
            Heard::Reasoning(text) => Event::Reasoning(text.to_owned()),
            Heard::Restarted { reason, .. } => Event::Restarted { reason: reason.to_owned() },
            // They are on record in the end, as attempts.
            Heard::HeldBack { .. }
            | Heard::AttemptFailed { .. }
            | Heard::FellBack { .. }
            | Heard::Waiting { .. } => return,
        };
        self.push(event);
    }
}

type Asking = Pin<Box<dyn Future<Output = Result<Answered, Unanswered>> + Send>>;

struct Events {
    queue: Queue,
    /// Gone once it has ended.
    asking: Option<Asking>,
    /// How it ended; told after what is in the queue.
    end: Option<Result<Event, GenerateError>>,
}

impl Stream for Events {
    type Item = Result<Event, GenerateError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(event) = self.queue.pop() {
            return Poll::Ready(Some(Ok(event)));
        }
        let Some(asking) = &mut self.asking else { return Poll::Ready(self.end.take()) };
        if let Poll::Ready(result) = asking.as_mut().poll(cx) {
            self.asking = None;
            self.end = Some(match result {
                Ok(answered) => Ok(Event::Completed(Box::new(Answer::of(answered)))),
                Err(unanswered) => Err(Box::new(unanswered).into()),
            });
        }
        match (self.queue.pop(), &self.asking) {
            (Some(event), _) => Poll::Ready(Some(Ok(event))),
            (None, Some(_)) => Poll::Pending,
            (None, None) => Poll::Ready(self.end.take()),
        }
    }
}

pub(super) fn of(
    client: Arc<ModelClient>,
    ask: Ask,
) -> impl Stream<Item = Result<Event, GenerateError>> + Send + Unpin + 'static {
    let queue = Queue::default();
    let hearing = queue.clone();
    let asking: Asking = Box::pin(async move { client.ask(&ask, &hearing).await });
    Events { queue, asking: Some(asking), end: None }
}
