//! What the server says instead of a message.

use async_nats::{Message, StatusCode};

/// Says how many of the messages asked for will not come.
const PENDING_MESSAGES: &str = "Nats-Pending-Messages";

/// What a status means for the inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The request is known and waits.
    Alive,
    /// The request ended; so many of its messages will not come.
    Returned(usize),
    /// Another client is pinned now.
    PinLost,
    /// Not now; ask again in a moment.
    Refused(String),
    /// There is nothing to ask any more.
    Gone(String),
}

pub(super) fn meaning(status: StatusCode, message: &Message) -> Meaning {
    let description = message.description.as_deref().unwrap_or_default();
    match status {
        StatusCode::IDLE_HEARTBEAT => Meaning::Alive,
        StatusCode::TIMEOUT | StatusCode::NOT_FOUND => {
            let pending = message.headers.as_ref().and_then(|headers| headers.get(PENDING_MESSAGES));
            match pending.and_then(|value| value.as_str().parse().ok()) {
                Some(unused) => Meaning::Returned(unused),
                // Without the count all that is certain is that nothing more comes.
                None => Meaning::Refused(description.to_owned()),
            }
        }
        StatusCode::PIN_ID_MISMATCH => Meaning::PinLost,
        StatusCode::REQUEST_TERMINATED if is_final(description) => Meaning::Gone(format!(
            "the server ended the stage's consumer ({})",
            description.to_ascii_lowercase()
        )),
        // 409 for leadership changes, shutdowns and too many waiting requests, 503 while JetStream starts.
        // Status codes are an open set of numbers; asking again later is right for any other.
        other => Meaning::Refused(format!("{other} {description}")),
    }
}

/// The texts of status 409 behind which no asking again helps.
fn is_final(description: &str) -> bool {
    let description = description.to_ascii_lowercase();
    ["consumer deleted", "push based", "exceeded maxrequest"].iter().any(|text| description.contains(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use async_nats::HeaderMap;

    use super::*;

    fn said(code: u16, description: &str, pending: Option<&str>) -> Meaning {
        let status = StatusCode::from_u16(code).unwrap();
        let mut headers = HeaderMap::new();
        if let Some(pending) = pending {
            headers.insert(PENDING_MESSAGES, pending);
        }
        let message = Message {
            subject: "_INBOX.x".into(),
            reply: None,
            payload: bytes::Bytes::new(),
            headers: Some(headers),
            status: Some(status),
            description: Some(description.to_owned()),
            length: 0,
        };
        meaning(status, &message)
    }

    #[test]
    fn statuses_of_a_real_server_are_understood() {
        assert_eq!(said(100, "Idle Heartbeat", None), Meaning::Alive);
        assert_eq!(said(408, "Request Timeout", Some("5")), Meaning::Returned(5));
        assert_eq!(said(423, "Nats-Pin-Id mismatch", None), Meaning::PinLost);
        assert!(matches!(said(409, "Consumer Deleted", None), Meaning::Gone(_)));
        assert!(matches!(said(409, "Leadership Change", None), Meaning::Refused(_)));
        assert!(matches!(said(409, "Exceeded MaxWaiting", None), Meaning::Refused(_)));
        assert!(matches!(said(408, "Request Timeout", Some("many")), Meaning::Refused(_)));
        assert!(matches!(said(503, "", None), Meaning::Refused(_)));
        assert!(matches!(said(599, "", None), Meaning::Refused(_)));
    }
}
