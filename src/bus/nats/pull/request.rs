//! What is asked of the server.

use std::{fmt::Write, time::Duration};

use async_nats::{HeaderName, Message, Subject};
use bytes::Bytes;
use throughline_schemas::StageName;

use crate::bus::nats::{Names, topology};

/// The header in which the server says to a client that it is the pinned one.
const PIN_ID: HeaderName = HeaderName::from_static("Nats-Pin-Id");
/// How long a request waits at the server. Short, because the server goes on delivering to a process that hangs.
const EXPIRES: Duration = Duration::from_secs(5);
/// How often the server says that a waiting request is known to it.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A pinned client that has not asked within the pin's time to live loses its pin, so it must ask more often.
const PINNED_EXPIRES: Duration = Duration::from_secs(2);
/// A pinned client that has no slot free asks for one message all the same when it has not asked for so long, if it must
/// not lose its pin.
pub(super) const PIN_RENEWAL: Duration = Duration::from_secs(2);
/// At most half of the expiry, or the server refuses.
const PINNED_HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence of this many heartbeats means that the request is lost.
const MISSED_HEARTBEATS: u32 = 2;

/// The parts of a pull request that do not change.
pub(super) struct Request {
    subject: Subject,
    unpin: Subject,
    expires: Duration,
    heartbeat: Duration,
    pinned: bool,
    pin: Option<String>,
}

impl Request {
    pub(super) fn new(stream: &str, stage: StageName) -> Self {
        let consumer = Names::consumer(stage);
        let pinned = topology::is_pinned(stage);
        Self {
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}").into(),
            unpin: format!("$JS.API.CONSUMER.UNPIN.{stream}.{consumer}").into(),
            expires: if pinned { PINNED_EXPIRES } else { EXPIRES },
            heartbeat: if pinned { PINNED_HEARTBEAT } else { HEARTBEAT },
            pinned,
            pin: None,
        }
    }

    pub(super) fn subject(&self) -> Subject {
        self.subject.clone()
    }

    pub(super) fn silence(&self) -> Duration {
        self.heartbeat * MISSED_HEARTBEATS
    }

    pub(super) fn body(&self, batch: usize) -> Bytes {
        let (expires, heartbeat) = (self.expires.as_nanos(), self.heartbeat.as_nanos());
        let mut body = format!(r#"{{"batch":{batch},"expires":{expires},"idle_heartbeat":{heartbeat}"#);
        if self.pinned {
            // Writing to a String cannot fail.
            let _ = write!(body, r#","group":"{}""#, topology::PIN_GROUP);
            if let Some(pin) = &self.pin {
                let _ = write!(body, r#","id":"{pin}""#);
            }
        }
        body.push('}');
        body.into()
    }

    /// Remembers that this client is the pinned one, if the server says so. Whether it was not known before.
    pub(super) fn note_pin(&mut self, message: &Message) -> bool {
        if !self.pinned {
            return false;
        }
        let Some(pin) = message.headers.as_ref().and_then(|headers| headers.get(PIN_ID)) else {
            return false;
        };
        // It goes into JSON as it stands, so it must be what the server makes: letters and digits.
        let plain = pin.as_str().bytes().all(|b| b.is_ascii_alphanumeric());
        let new = plain && self.pin.as_deref() != Some(pin.as_str());
        if new {
            self.pin = Some(pin.as_str().to_owned());
        }
        new
    }

    /// What tells the server that this client gives up its pin: a subject and a body. `None` if it has none.
    pub(super) fn unpin(&self) -> Option<(Subject, Bytes)> {
        self.pin.as_ref()?;
        let body = format!(r#"{{"group":"{}"}}"#, topology::PIN_GROUP);
        Some((self.unpin.clone(), body.into()))
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pin.is_some()
    }

    pub(super) fn forget_pin(&mut self) {
        self.pin = None;
    }
}
