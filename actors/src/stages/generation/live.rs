//! The live frames on `{ns}.live.{workflow}` while an answer comes into being.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use throughline_schemas::{FinishReason, LiveFrame, LiveKind, StageName, WorkflowId};

use crate::{
    dependency::whole_millis,
    model::client::{Failure, StreamEvent, StreamObserver},
    ports::bus::Broadcast,
    workflow::live,
};

/// Longest text of one frame, in bytes: escaped as JSON in the worst way it is still far below the server's limit on
/// messages. Only whole answers are ever this long.
const MAX_TEXT: usize = 64 * 1024;

/// Sends the frames of one delivery's calls. Frames are numbered as they are made: one that the bus drops leaves a gap.
pub(super) struct Live<'a> {
    bus: &'a dyn Broadcast,
    workflow: &'a WorkflowId,
    delivery: u32,
    seq: AtomicU64,
    attempt: AtomicU32,
}

impl<'a> Live<'a> {
    pub(super) fn new(bus: &'a dyn Broadcast, workflow: &'a WorkflowId, delivery: u32) -> Self {
        Self { bus, workflow, delivery, seq: AtomicU64::new(0), attempt: AtomicU32::new(1) }
    }

    pub(super) fn completed(&self, finish_reason: FinishReason) {
        self.send(LiveKind::Completed, |frame| frame.finish_reason = Some(finish_reason));
    }

    /// `again_in`: after which wait another delivery goes on.
    pub(super) fn failed(&self, reason: &str, again_in: Option<Duration>) {
        self.send(LiveKind::Failed, |frame| {
            frame.reason = Some(reason.to_owned());
            frame.again_in_ms = again_in.map(whole_millis);
        });
    }

    fn text(&self, kind: LiveKind, mut text: &str) {
        while !text.is_empty() {
            let (piece, rest) = text.split_at(text.floor_char_boundary(MAX_TEXT));
            self.send(kind, |frame| frame.text = Some(piece.to_owned()));
            text = rest;
        }
    }

    fn send(&self, kind: LiveKind, fill: impl FnOnce(&mut LiveFrame)) {
        let mut frame = LiveFrame {
            delivery: self.delivery,
            // One caller at a time: the order is that of the calls.
            seq: self.seq.fetch_add(1, Ordering::Relaxed),
            attempt: self.attempt.load(Ordering::Relaxed),
            ..LiveFrame::new(self.workflow.clone(), kind)
        };
        fill(&mut frame);
        live::send(self.bus, &frame);
    }
}

impl StreamObserver for Live<'_> {
    fn observe(&self, event: StreamEvent<'_>) {
        match event {
            StreamEvent::Started { attempt, model, provider } => {
                self.attempt.store(attempt, Ordering::Relaxed);
                self.send(LiveKind::Started, |frame| {
                    frame.model = Some(model.to_owned());
                    frame.provider = Some(provider.to_owned());
                });
            }
            StreamEvent::Text(text) => self.text(LiveKind::Text, text),
            StreamEvent::Reasoning(text) => self.text(LiveKind::Reasoning, text),
            StreamEvent::Restarted { attempt: _, reason, model, provider, again_in } => {
                self.send(LiveKind::Restarted, |frame| {
                    frame.reason = Some(reason.to_owned());
                    next(frame, model, provider, again_in);
                });
            }
            StreamEvent::HeldBack { why, model, provider, expected } => {
                self.send(LiveKind::HeldBack, |frame| {
                    frame.why = Some(why);
                    next(frame, model, provider, expected);
                });
            }
            StreamEvent::AttemptFailed { failure, model, provider, again_in } => {
                self.send(LiveKind::AttemptFailed, |frame| {
                    failed(frame, failure);
                    frame.error_class = failure.class;
                    next(frame, model, provider, again_in);
                });
            }
            StreamEvent::FellBack { model, provider } => self.send(LiveKind::FellBack, |frame| {
                frame.model = Some(model.to_owned());
                frame.provider = Some(provider.to_owned());
            }),
            StreamEvent::Waiting { why, failure, model, provider, wait } => {
                self.send(LiveKind::Waiting, |frame| {
                    (frame.stage, frame.why) = (Some(StageName::Generation), Some(why));
                    failed(frame, failure);
                    next(frame, model, provider, wait);
                });
            }
        }
    }
}

/// Who is asked next, and when.
fn next(frame: &mut LiveFrame, model: &str, provider: &str, wait: Duration) {
    frame.model = Some(model.to_owned());
    frame.provider = Some(provider.to_owned());
    frame.again_in_ms = Some(whole_millis(wait));
}

/// What the attempt before failed of.
fn failed(frame: &mut LiveFrame, failure: Failure<'_>) {
    frame.reason = Some(failure.reason.to_owned());
    (frame.error_code, frame.http_status) = (failure.code, failure.http_status);
}
