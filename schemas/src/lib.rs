//! What a Throughline event *is*: envelope, the closed set of event types, ids and subjects, failures,
//! usage and money. This crate only says; it knows nothing of runtimes, sockets, files or clocks.
//!
//! # Version rule
//!
//! Every event carries its major version twice: in the NATS subject (`{ns}.v1.…`) and in `dataschema`.
//! - **Unknown fields** in an envelope or in `data` are ignored by readers. An addition that a later stage
//!   must be able to rely on although an older worker handled the event in between needs a new major version,
//!   because an older worker does not pass on what it does not know.
//! - **Unknown versions** are refused with [`DecodeError::Version`], never guessed at.
//! - Golden files in `golden/v1` are added to and never edited.
#![forbid(unsafe_code)]

mod address;
pub mod dead_letter;
mod document;
mod duration;
mod envelope;
pub mod event;
pub mod export;
mod failure;
mod ids;
mod ingress;
pub mod json;
mod live;
mod metadata;
mod money;
pub mod recording;
mod stage;
mod step;
mod string_schema;
mod subject;
mod timestamp;
mod traceparent;
mod usage;
mod version;

pub use address::Address;
pub use document::Document;
pub use duration::Millis;
pub use envelope::{DecodeError, EncodeError, Event, Meta, decode, encode, encode_reference};
pub use event::{EventData, EventType};
pub use failure::{EndedBy, FailureCode, WorkflowFailed};
pub use ids::{IdError, MAX_ID_BYTES, SessionId, UserId, WorkflowId, token};
pub use ingress::{Ingress, IngressError, IngressLimits, Refused, normalise};
pub use json::{JsonProblem, MAX_DEPTH, Place};
pub use live::{LiveFrame, LiveKind, WaitReason};
pub use metadata::Metadata;
pub use money::Usd;
pub use stage::{STAGES, StageDefinition, StageName, UnknownStage};
pub use step::{EventKey, MAX_STEP_NAME, StepPath, StepPathError};
pub use subject::{Namespace, NamespaceError, Subject, Tokens};
pub use timestamp::Timestamp;
pub use traceparent::{TraceParent, TraceParentError};
pub use usage::{FinishReason, Usage};
pub use version::{MAJOR, VersionError, data_schema};
