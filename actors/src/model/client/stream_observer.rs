//! Observing how an answer comes into being.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use throughline_schemas::{
    WaitReason,
    event::generation::{Attempt, AttemptError, ErrorClass},
};

use super::ModelTarget;
use crate::ports::model::{Delta, DeltaSink};

/// What there is to observe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEvent<'a> {
    /// A model is asked.
    Started {
        /// Which call of this request it is, from 1.
        attempt: u32,
        /// The provider's name of the model.
        model: &'a str,
        /// Name of its provider in the configuration.
        provider: &'a str,
    },
    /// The next piece of the answer; a whole answer is one piece.
    Text(&'a str),
    /// The next piece of the model's reasoning.
    Reasoning(&'a str),
    /// The call broke off after pieces had been passed on, and another one will be made: those pieces are void.
    Restarted {
        /// Which call broke off.
        attempt: u32,
        /// Why, for a person.
        reason: &'a str,
        /// The provider's name of the model that is asked next.
        model: &'a str,
        /// Name of its provider in the configuration.
        provider: &'a str,
        /// After which wait.
        again_in: Duration,
    },
    /// An attempt failed before any piece had been passed on, or an open breaker prevented it, and another one will be
    /// made.
    AttemptFailed {
        /// What it failed of.
        failure: Failure<'a>,
        /// The provider's name of the model that is asked next.
        model: &'a str,
        /// Name of its provider in the configuration.
        provider: &'a str,
        /// After which wait.
        again_in: Duration,
    },
    /// From here on another model is asked.
    FellBack {
        /// The provider's name of the model.
        model: &'a str,
        /// Name of its provider in the configuration.
        provider: &'a str,
    },
    /// The next attempt has to wait. Reported only for waits that a reader would notice.
    Waiting {
        /// What for.
        why: WaitReason,
        /// What the attempt before failed of.
        failure: Failure<'a>,
        /// The provider's name of the model that is asked next.
        model: &'a str,
        /// Name of its provider in the configuration.
        provider: &'a str,
        /// For how long.
        wait: Duration,
    },
    /// A rate limit holds the next call back. Reported once a call, and only for waits that a reader would notice.
    HeldBack {
        /// A rate limit, or what the provider asked for.
        why: WaitReason,
        /// The provider's name of the model.
        model: &'a str,
        /// Name of its provider in the configuration.
        provider: &'a str,
        /// For about how long.
        expected: Duration,
    },
}

/// What an attempt failed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure<'a> {
    /// For a person.
    pub reason: &'a str,
    /// For a machine.
    pub code: Option<AttemptError>,
    /// Whether another attempt could help.
    pub class: Option<ErrorClass>,
    /// The provider's HTTP status, where there was one.
    pub http_status: Option<u16>,
}

impl<'a> Failure<'a> {
    /// Of an attempt on record.
    pub(super) fn of(attempt: &'a Attempt) -> Self {
        Self {
            reason: attempt.error.as_deref().unwrap_or_default(),
            code: attempt.error_code,
            class: attempt.error_class,
            http_status: attempt.http_status,
        }
    }
}

/// Observes how an answer comes into being. Never waits: an observer that cannot keep up drops what it must.
pub trait StreamObserver: Send + Sync {
    /// The next event, in order.
    fn observe(&self, event: StreamEvent<'_>);
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl StreamObserver for NoObserver {
    fn observe(&self, _: StreamEvent<'_>) {}
}

/// Passes the pieces of one call on to the observer.
pub(super) struct Forwarder<'a> {
    observer: &'a dyn StreamObserver,
    attempt: u32,
    target: &'a ModelTarget,
    heard: AtomicBool,
}

impl<'a> Forwarder<'a> {
    pub(super) fn new(observer: &'a dyn StreamObserver, attempt: u32, target: &'a ModelTarget) -> Self {
        Self { observer, attempt, target, heard: AtomicBool::new(false) }
    }

    /// Whether any piece has been passed on.
    pub(super) fn heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }
}

impl DeltaSink for Forwarder<'_> {
    fn delta(&self, delta: Delta<'_>) {
        self.heard.store(true, Ordering::Relaxed);
        self.observer.observe(match delta {
            Delta::Text(text) => StreamEvent::Text(text),
            Delta::Reasoning(text) => StreamEvent::Reasoning(text),
            Delta::Void => StreamEvent::Restarted {
                attempt: self.attempt,
                reason: "the text so far was the model's reasoning",
                model: &self.target.model,
                provider: &self.target.provider,
                again_in: Duration::ZERO,
            },
        });
    }
}
