//! Messages that the client library cannot read.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use tokio::time::Instant;

use super::*;

/// Publishes bytes as headers, as a careless or hostile client can: the server does not look at them.
fn publish_bytes(server: &NatsServer, subject: &str, headers: &[u8], body: &[u8]) {
    let mut stream = TcpStream::connect(server.url().trim_start_matches("nats://")).unwrap();
    let mut message = Vec::new();
    write!(message, "CONNECT {{\"verbose\":false,\"headers\":true}}\r\n").unwrap();
    write!(message, "HPUB {subject} {} {}\r\n", headers.len(), headers.len() + body.len()).unwrap();
    message.extend_from_slice(headers);
    message.extend_from_slice(body);
    message.extend_from_slice(b"\r\nPING\r\n");
    stream.write_all(&message).unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.windows(4).any(|window| window == b"PONG") {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..read]);
    }
}

#[tokio::test]
async fn unreadable_headers_become_a_dead_letter_and_the_next_message_is_served() {
    let Some(server) = NatsServer::start() else { return };
    let bus = set_up(&server).await;
    let bare = bus.namespace().bare_input();
    let mut open = inbox(&bus, StageName::Input, 3).await;
    let poisons: [&[u8]; 3] = [
        b"NATS/1.0\r\nMy Header: x\r\n\r\n",
        b"NATS/1.0\r\nA: \xff\r\n\r\n",
        b"NATS/1.0\r\nno colon\r\n\r\n",
    ];
    let began = Instant::now();
    let mut last = 0;
    for (n, poison) in poisons.into_iter().enumerate() {
        let text = format!("good {n}");
        publish_bytes(&server, &bare, poison, b"poison");
        publish_bytes(&server, &bare, b"NATS/1.0\r\nA: b\r\n\r\n", text.as_bytes());
        // What was out when the connection was cut may come twice.
        let delivery = loop {
            let delivery = next(open.as_mut()).await;
            ack(&delivery).await;
            open.grant(1).await.unwrap();
            if delivery.sequence > last {
                break delivery;
            }
        };
        last = delivery.sequence;
        assert_eq!(delivery.body, text);
    }
    assert!(began.elapsed() < SOON / 2, "{:?}", began.elapsed());
    let dead = read(&bus, ReadRequest::all_dead(bus.namespace())).await;
    assert_eq!(dead.len(), poisons.len());
    for letter in &dead {
        assert_eq!(&letter.body[..], b"poison");
        assert!(letter.headers.iter().any(|(name, _)| name == "Original-Headers-Base64"), "{letter:?}");
    }
    // They are gone from the log, where they would stop every reader.
    let stored = read(&bus, ReadRequest::events(bare)).await;
    assert_eq!(stored.len(), poisons.len());
}

#[tokio::test]
async fn a_status_in_a_publishers_headers_is_not_the_servers() {
    let Some(server) = NatsServer::start() else { return };
    let bus = set_up(&server).await;
    let bare = bus.namespace().bare_input();
    let mut open = inbox(&bus, StageName::Input, 8).await;
    for status in ["409 Consumer Deleted", "503", "423 x", "408 Request Timeout", "100 Idle Heartbeat"] {
        publish_bytes(&server, &bare, format!("NATS/1.0 {status}\r\n\r\n").as_bytes(), status.as_bytes());
        let delivery = next(open.as_mut()).await;
        assert_eq!(delivery.body, status);
        ack(&delivery).await;
    }
}
