//! The connection: opening it within a time limit, and knowing how it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, connection::State, jetstream};
use throughline_actors::metrics::NATS_CONNECTION_EVENTS;
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use super::{
    complaints::Complaints,
    error::{ConnectError, START_ONE},
    settings::{NatsAuth, NatsSettings},
};
use crate::certificate;

/// The oldest server that will do: pinned consumers and per-message limits came with 2.11, and older servers
/// ignore both silently.
pub const MIN_SERVER: (i64, i64, i64) = (2, 11, 0);
const MIN_SERVER_TEXT: &str = "2.11";
/// A connection that is open but dead ends when the third ping would be due and none of two was answered.
const INTERVALS_UNTIL_DEAD: u32 = 3;
/// Longest time between pings: two small packets every five seconds cost nothing.
const MAX_PING_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time between pings, so that a server that is only busy is not taken for a dead one.
const MIN_PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long one attempt to connect may take, handshake included.
const CONNECT_ATTEMPT: Duration = Duration::from_secs(5);
/// Between attempts to connect at start.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);
/// First delay of a reconnect; it doubles with each failed attempt.
const RECONNECT_BASE: Duration = Duration::from_millis(50);
/// Longest delay of a reconnect.
const RECONNECT_CAP: Duration = Duration::from_secs(4);
/// Complaints of the server that wait for the request they are about; there is one for each forbidden request.
const COMPLAINTS: usize = 64;

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version, for example `2.15.1`.
    pub version: String,
    /// Its name.
    pub name: String,
    /// Largest message it accepts, headers included, in bytes.
    pub max_payload: usize,
}

/// An open connection.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    seen: Arc<Seen>,
}

/// What the connection's events said so far.
struct Seen {
    /// Whether the first connection has reported itself.
    was_made: AtomicBool,
    /// How often it was re-established; changes mean that subscriptions and requests of before may be lost.
    generation: watch::Sender<u64>,
    closed: watch::Sender<bool>,
    /// The server reports a forbidden publish or subscription only in an event, long before a request times out.
    complaints: broadcast::Sender<Arc<str>>,
}

impl Connection {
    pub(super) async fn open(settings: &NatsSettings) -> Result<Self, ConnectError> {
        let seen = Arc::new(Seen {
            was_made: AtomicBool::new(false),
            generation: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            complaints: broadcast::Sender::new(COMPLAINTS),
        });
        let url = settings.url.to_string();
        let servers = servers(settings)?;
        let auth = auth(settings, &servers);
        let deadline = Instant::now() + settings.connect_within;
        let mut last = None;
        let mut has_told = false;
        let client = loop {
            let options = options(settings, &auth, Arc::clone(&seen)).await?;
            match tokio::time::timeout_at(deadline, options.connect(servers.clone())).await {
                Ok(Ok(client)) => break client,
                Ok(Err(source)) if refused(source.kind()) => {
                    return Err(ConnectError::Refused { url, advice: settings.auth.if_refused(), source });
                }
                Ok(Err(source)) => {
                    if let Some(words) = certificate::refused(&source) {
                        return Err(ConnectError::Certificate { url, words, source });
                    }
                    last = Some(source);
                }
                Err(_) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left <= BETWEEN_ATTEMPTS {
                return Err(ConnectError::Unreachable { url, within: settings.connect_within, source: last });
            }
            if !std::mem::replace(&mut has_told, true) {
                // A start should not seem to hang for that long.
                let why = last.as_ref().map(ToString::to_string);
                let seconds = left.as_secs_f32().ceil();
                tracing::warn!(%url, why, "no NATS server answers; trying for {seconds} s more; {START_ONE}");
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        };
        let (major, minor, patch) = MIN_SERVER;
        let info = client.server_info();
        if !client.is_server_compatible(major, minor, patch) {
            return Err(ConnectError::TooOld { url, found: info.version, needed: MIN_SERVER_TEXT });
        }
        if !info.jetstream {
            return Err(ConnectError::NoJetStream { url });
        }
        let jetstream =
            jetstream::ContextBuilder::new().timeout(settings.request_timeout).build(client.clone());
        Ok(Self { client, jetstream, seen })
    }

    pub(super) fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Changes whenever the connection was re-established.
    pub(super) fn generation(&self) -> watch::Receiver<u64> {
        self.seen.generation.subscribe()
    }

    pub(super) async fn closed(&self) {
        // The error would mean that the sender is gone, but `self` holds it.
        let _ = self.seen.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(super) fn facts(&self) -> ServerFacts {
        let info = self.client.server_info();
        ServerFacts { version: info.version, name: info.server_name, max_payload: info.max_payload }
    }

    /// What the server will complain about from now on.
    pub(super) fn complaints(&self) -> Complaints {
        Complaints::new(self.seen.complaints.subscribe())
    }
}

fn refused(kind: ConnectErrorKind) -> bool {
    match kind {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => true,
        ConnectErrorKind::ServerParse
        | ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::Tls
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => false,
    }
}

fn servers(settings: &NatsSettings) -> Result<Vec<ServerAddr>, ConnectError> {
    let parsed = settings.url.0.split(',').map(|url| url.trim().parse()).collect::<Result<Vec<_>, _>>();
    parsed.map_err(|source| ConnectError::Settings {
        what: format!("nats.url = \"{}\" is not a server URL such as nats://127.0.0.1:4222", settings.url),
        source: Some(Box::new(source)),
    })
}

/// Credentials in the URL count where no others are given; the client itself would ignore them.
fn auth(settings: &NatsSettings, servers: &[ServerAddr]) -> NatsAuth {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let Some(server) = servers.iter().find(|server| server.has_user_pass()) else {
        return settings.auth.clone();
    };
    match (&settings.auth, server.username(), server.password()) {
        (NatsAuth::None, Some(user), Some(password)) => {
            NatsAuth::Password { user: decode(user), password: decode(password) }
        }
        (NatsAuth::None, Some(token), None) => NatsAuth::Token(decode(token)),
        (given, _, _) => given.clone(),
    }
}

async fn options(
    settings: &NatsSettings,
    auth: &NatsAuth,
    seen: Arc<Seen>,
) -> Result<ConnectOptions, ConnectError> {
    let options = match auth {
        NatsAuth::None => ConnectOptions::new(),
        NatsAuth::Password { user, password } => {
            ConnectOptions::with_user_and_password(user.clone(), password.clone())
        }
        NatsAuth::Token(token) => ConnectOptions::with_token(token.clone()),
        NatsAuth::NKey(secret) => ConnectOptions::with_nkey(secret.clone()),
        NatsAuth::CredentialsFile(path) => {
            ConnectOptions::with_credentials_file(path).await.map_err(|source| ConnectError::Settings {
                what: format!("cannot read the credentials file {}", path.display()),
                source: Some(Box::new(source)),
            })?
        }
    };
    let options = match &settings.root_certificates {
        Some(path) => options.add_root_certificates(path.clone()),
        None => options,
    };
    let options = match &settings.client_certificate {
        Some((certificate, key)) => options.add_client_certificate(certificate.clone(), key.clone()),
        None => options,
    };
    // TCP_NODELAY needs no asking: async-nats sets it on every socket.
    Ok(options
        .name(&settings.name)
        .require_tls(settings.require_tls)
        .custom_inbox_prefix(&settings.inbox_prefix)
        .ping_interval(ping_interval(settings.ack_wait))
        .connection_timeout(CONNECT_ATTEMPT)
        .request_timeout(Some(settings.request_timeout))
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            let seen = Arc::clone(&seen);
            async move { seen.note(event) }
        }))
}

/// Half the ack wait until a dead connection is noticed. Work on a delivery reports every third of it and loses its lease
/// after nine tenths, so who reported last just before can still report on a new connection, and keeps its message.
fn ping_interval(ack_wait: Duration) -> Duration {
    (ack_wait / 2 / INTERVALS_UNTIL_DEAD).clamp(MIN_PING_INTERVAL, MAX_PING_INTERVAL)
}

/// Exponential with full jitter, so that the workers of a restarted server do not come back all at once.
fn reconnect_delay(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    let ceiling = RECONNECT_BASE.saturating_mul(1 << doublings).min(RECONNECT_CAP);
    if attempt == 0 { Duration::ZERO } else { ceiling.mul_f64(rand::random::<f64>()) }
}

impl Seen {
    fn note(&self, event: Event) {
        let name = match event {
            Event::Connected => {
                // The news of the first connection may come late, when requests are under way that it does not concern.
                if self.was_made.swap(true, Ordering::Relaxed) {
                    self.generation.send_modify(|generation| *generation += 1);
                    tracing::info!("the connection to NATS is up again");
                }
                "connected"
            }
            Event::Disconnected => {
                tracing::warn!("the connection to NATS is down; reconnecting");
                "disconnected"
            }
            Event::LameDuckMode => "lame_duck_mode",
            Event::Draining => "draining",
            Event::Closed => {
                self.closed.send_replace(true);
                "closed"
            }
            Event::SlowConsumer(subscription) => {
                tracing::warn!(
                    subscription,
                    "a subscription's buffer is full; messages were dropped and come again"
                );
                "slow_consumer"
            }
            Event::ServerError(error) => {
                let text = error.to_string();
                tracing::warn!(error = %text, "the NATS server complains");
                // The error would mean that no reconnection is awaited.
                let _ = self.complaints.send(text.into());
                "server_error"
            }
            Event::ClientError(error) => {
                tracing::warn!(%error, "the NATS client complains");
                "client_error"
            }
        };
        metrics::counter!(NATS_CONNECTION_EVENTS, "event" => name).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_connection_is_noticed_while_leases_are_held_and_within_fifteen_seconds() {
        for seconds in [12, 30, 90, 3600] {
            let ack_wait = Duration::from_secs(seconds);
            let noticed = ping_interval(ack_wait) * INTERVALS_UNTIL_DEAD;
            let (lease, last_report) = (ack_wait * 9 / 10, ack_wait / 3);
            assert!(
                last_report + noticed < lease && noticed <= Duration::from_secs(15),
                "{ack_wait:?}: {noticed:?}"
            );
        }
    }

    #[test]
    fn reconnects_are_immediate_once_then_spread_and_bounded() {
        assert_eq!(reconnect_delay(0), Duration::ZERO);
        for attempt in [1, 2, 5, 20, 1_000_000, usize::MAX] {
            assert!(reconnect_delay(attempt) <= RECONNECT_CAP);
        }
        assert!(reconnect_delay(1) <= RECONNECT_BASE);
    }
}
