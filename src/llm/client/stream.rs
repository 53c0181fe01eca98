//! An answer as a stream. The call is driven by its reader, so what it says waits in a queue that holds no more
//! than one poll brings: no task, no channel, and backpressure up to the provider.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::Stream;
use throughline_actors::model::client::{
    Generated, GenerationFailed, GenerationRequest, ModelClient, StreamEvent, StreamObserver,
};

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

impl StreamObserver for Queue {
    fn observe(&self, event: StreamEvent<'_>) {
        let event = match event {
            StreamEvent::Started { attempt: _, model, provider } => {
                Event::Started { model: model.to_owned(), provider: provider.to_owned() }
            }
            StreamEvent::Text(text) => Event::Text(text.to_owned()),
            StreamEvent::Reasoning(text) => Event::Reasoning(text.to_owned()),
            StreamEvent::Restarted { reason, .. } => Event::Restarted { reason: reason.to_owned() },
            // They are on record in the end, as attempts.
            StreamEvent::HeldBack { .. }
            | StreamEvent::AttemptFailed { .. }
            | StreamEvent::FellBack { .. }
            | StreamEvent::Waiting { .. } => return,
        };
        self.push(event);
    }
}

type Generation = Pin<Box<dyn Future<Output = Result<Generated, GenerationFailed>> + Send>>;

struct Events {
    queue: Queue,
    /// Gone once it has ended.
    generation: Option<Generation>,
    /// How it ended; told after what is in the queue.
    end: Option<Result<Event, GenerateError>>,
}

impl Stream for Events {
    type Item = Result<Event, GenerateError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(event) = self.queue.pop() {
            return Poll::Ready(Some(Ok(event)));
        }
        let Some(generation) = &mut self.generation else { return Poll::Ready(self.end.take()) };
        if let Poll::Ready(result) = generation.as_mut().poll(cx) {
            self.generation = None;
            self.end = Some(match result {
                Ok(generated) => Ok(Event::Completed(Box::new(Answer::of(generated)))),
                Err(failed) => Err(Box::new(failed).into()),
            });
        }
        match (self.queue.pop(), &self.generation) {
            (Some(event), _) => Poll::Ready(Some(Ok(event))),
            (None, Some(_)) => Poll::Pending,
            (None, None) => Poll::Ready(self.end.take()),
        }
    }
}

pub(super) fn of(
    client: Arc<ModelClient>,
    request: GenerationRequest,
) -> impl Stream<Item = Result<Event, GenerateError>> + Send + Unpin + 'static {
    let queue = Queue::default();
    let observer = queue.clone();
    let generation: Generation = Box::pin(async move { client.generate(&request, &observer).await });
    Events { queue, generation: Some(generation), end: None }
}
