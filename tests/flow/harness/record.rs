//! What a world in memory has on record, made again.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use throughline_actors::{
    model::prompt::PromptTemplate,
    ports::{memory::bus::MemoryBus, tokenizer::FourBytes},
    replay::{Message, RecordedWorkflow, Replayed, Replayer, Verdict},
    supervision::settings::EngineSettings,
};
use throughline_schemas::{Ingress, IngressLimits, WorkflowId, decode};

use super::{Rig, defaults};

impl Rig {
    /// Every workflow of the log.
    pub fn recorded_workflows(&self) -> Vec<RecordedWorkflow> {
        self.recorded(|body| body)
    }

    /// The same, where each event had been written otherwise.
    pub fn recorded_as(&self, change: impl Fn(&mut Value)) -> Vec<RecordedWorkflow> {
        self.recorded(|body| {
            // An input may have any form.
            if decode(&body).is_err() {
                return body;
            }
            let mut event = serde_json::from_slice(&body).expect("an event is JSON");
            change(&mut event);
            event.to_string().into()
        })
    }

    fn recorded(&self, written: impl Fn(Bytes) -> Bytes) -> Vec<RecordedWorkflow> {
        let mut workflows: Vec<(WorkflowId, Vec<Message>)> = Vec::new();
        for (workflow, mut message) in messages(&self.bus) {
            message.body = written(message.body);
            match workflows.iter_mut().find(|(known, _)| *known == workflow) {
                Some((_, messages)) => messages.push(message),
                None => workflows.push((workflow, vec![message])),
            }
        }
        let read = |(workflow, messages)| {
            RecordedWorkflow::read(workflow, messages).expect("what stages publish can be read")
        };
        workflows.into_iter().map(read).collect()
    }

    /// Makes everything again with the same settings; what does not come out as it was.
    pub async fn verify(&self) -> Vec<String> {
        self.verify_with(&self.settings, defaults::template()).await
    }

    /// Makes everything again with other settings; what does not come out as it was.
    pub async fn verify_with(&self, settings: &EngineSettings, template: PromptTemplate) -> Vec<String> {
        Self::verify_these(self.recorded_workflows(), settings, template).await
    }

    /// Makes everything again where each event had been written otherwise; what does not come out as it was.
    pub async fn verify_as(&self, change: impl Fn(&mut Value)) -> Vec<String> {
        Self::verify_these(self.recorded_as(change), &self.settings, defaults::template()).await
    }

    async fn verify_these(
        workflows: Vec<RecordedWorkflow>,
        settings: &EngineSettings,
        template: PromptTemplate,
    ) -> Vec<String> {
        let replayer =
            Replayer::new(settings, Arc::new(template), Arc::new(FourBytes)).expect("stages can be made");
        let mut different = Vec::new();
        for recorded in workflows {
            for Replayed { event_type, verdict, .. } in replayer.verify(&recorded).await.expect("JSON") {
                let workflow = &recorded.workflow;
                match verdict {
                    Verdict::Identical | Verdict::NotReplayed(_) => {}
                    Verdict::Differs(found) => different.push(format!("{workflow} {event_type} {found}")),
                    Verdict::Instead(now) => different.push(format!("{workflow} {event_type}: now {now}")),
                }
            }
        }
        different
    }
}

fn messages(bus: &MemoryBus) -> Vec<(WorkflowId, Message)> {
    let stored = bus.stored().into_iter().map(|stored| Message {
        subject: stored.subject,
        headers: stored.headers,
        body: stored.body,
        sequence: stored.sequence,
        stored_at: stored.stored_at,
    });
    stored.filter_map(|message| Some((workflow(&message)?, message))).collect()
}

/// Inputs say whose they are in their own way.
fn workflow(message: &Message) -> Option<WorkflowId> {
    if let Ok(event) = decode(&message.body) {
        return Some(event.meta.workflow_id);
    }
    let header = |name: &str| {
        let mut found = message.headers.iter().filter(|(of, _)| of.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    };
    match Ingress::read(
        &message.subject,
        &message.body,
        header,
        WorkflowId::unknown(),
        &IngressLimits::UNLIMITED,
    )
    .ok()?
    {
        Ok(input) => Some(input.workflow_id),
        Err(refused) => Some(refused.workflow_id),
    }
}
