//! A server on a raw socket that does exactly what a test scripts, good HTTP or not.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// One thing that the server does after it has read a request.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// One byte at a time.
    Drip(Vec<u8>, Duration),
    /// The same bytes until the client goes away.
    Endless(Vec<u8>),
    /// Nothing for so long.
    Wait(Duration),
    /// Nothing until somebody gives a permit, which is taken.
    Await(Arc<Semaphore>),
    /// Nothing until the client goes away.
    Hang,
    /// Close in good order.
    Close,
    /// Close with a reset.
    Reset,
}

#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The request line and the headers, names in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub(super) struct Server {
    pub addr: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    script: Mutex<VecDeque<Vec<Step>>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    /// One permit for every client that went away during `Hang` or `Endless`.
    abandoned: Semaphore,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            script: Mutex::default(),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            abandoned: Semaphore::new(0),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { addr, state, task }
    }

    /// What to do with the next request that is not scripted yet.
    pub(super) fn script(&self, steps: impl Into<Vec<Step>>) {
        self.state.script.lock().unwrap().push_back(steps.into());
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Waits until a client has gone away in the middle of an answer.
    pub(super) async fn abandoned(&self) {
        let waiting = self.state.abandoned.acquire();
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("nobody left").unwrap().forget();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    stream.set_nodelay(true).unwrap();
    while let Some(seen) = read_request(&mut stream).await {
        state.seen.lock().unwrap().push(seen);
        let steps = state.script.lock().unwrap().pop_front().unwrap_or_else(|| vec![Step::Hang]);
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        state.abandoned.add_permits(1);
                        return;
                    }
                }
                Step::Drip(bytes, pause) => {
                    for byte in bytes {
                        if stream.write_all(&[byte]).await.is_err() {
                            return;
                        }
                        tokio::time::sleep(pause).await;
                    }
                }
                Step::Endless(bytes) => {
                    while stream.write_all(&bytes).await.is_ok() {}
                    state.abandoned.add_permits(1);
                    return;
                }
                Step::Wait(pause) => tokio::time::sleep(pause).await,
                Step::Await(permit) => permit.acquire().await.unwrap().forget(),
                Step::Hang => {
                    let _gone = stream.read(&mut [0; 1]).await;
                    state.abandoned.add_permits(1);
                    return;
                }
                Step::Close => return,
                Step::Reset => {
                    stream.set_zero_linger().unwrap();
                    return;
                }
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut seen = Seen { head, body: bytes[end..].to_vec() };
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    while seen.body.len() < length {
        if stream.read_buf(&mut seen.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(seen)
}

/// A well-formed answer.
pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Step {
    let body = body.as_ref();
    let mut head = format!("HTTP/1.1 {status} X\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if status != 204 {
        write!(head, "content-length: {}\r\n", body.len()).unwrap();
    }
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    Step::Send(bytes)
}

/// A 200 with JSON.
pub(super) fn json(body: impl AsRef<[u8]>) -> Step {
    answer(200, &[("content-type", "application/json")], body)
}

/// A head that announces a body of `length` bytes, then what there is of it.
pub(super) fn partial(length: u64, body: &str) -> Step {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    Step::Send(head.into_bytes())
}

/// A head that announces a chunked body.
pub(super) fn chunked() -> Step {
    head(200, &[])
}

/// The same, with these headers.
pub(super) fn head(status: u16, headers: &[(&str, &str)]) -> Step {
    let mut head = format!("HTTP/1.1 {status} X\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head.push_str("transfer-encoding: chunked\r\n\r\n");
    Step::Send(head.into_bytes())
}

/// An address that refuses connections as long as the socket lives: bound, so nobody else gets it, not listening.
pub(super) fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}
