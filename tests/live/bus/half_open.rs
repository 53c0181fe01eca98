//! A connection whose other end has vanished without a word: open, and silent.

use std::net::SocketAddr;

use throughline::bus::nats::Url;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};

use super::*;

/// The shortest time between pings is two seconds, and the third that is due ends the connection; the rest is for a busy
/// machine.
const BACK_WITHIN: Duration = Duration::from_secs(6 + 4);

/// Passes bytes on, as a firewall does, and can forget the connections that it knows.
struct Relay {
    address: SocketAddr,
    forgotten: watch::Sender<()>,
}

impl Relay {
    async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let forgotten = watch::Sender::new(());
        let forget = forgotten.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (server, mut forgotten) = (server.clone(), forget.subscribe());
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        // Either end may close it.
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        Ok(()) = forgotten.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, forgotten }
    }
}

#[tokio::test]
async fn a_connection_that_hangs_is_replaced_before_long() {
    let Some(server) = NatsServer::start() else { return };
    let publisher = set_up(&server).await;
    let relay = Relay::start(server.url().replace("nats://", "")).await;
    let settings = NatsSettings { url: Url(format!("nats://{}", relay.address)), ..settings(&server) };
    let bus = NatsBus::connect(settings).await.unwrap();
    let mut open = inbox(&bus, StageName::Context, 1).await;

    relay.forgotten.send_replace(());
    let began = Instant::now();
    // Nobody decodes it here.
    publisher.client().publish("t.v1.input_validated.s.w", "{}".into()).await.unwrap();
    let delivery = next(open.as_mut()).await;
    delivery.receipt.settle(Settlement::Acknowledged).await.unwrap();
    assert!(began.elapsed() < BACK_WITHIN, "{:?}", began.elapsed());
    eprintln!("noticed, connected and delivered within {:?}", began.elapsed());
}
