//! What every kind of database knows of the namespaces that use it.

use throughline::storage::{Beat, Database, Peeked, namespaces::peek};

/// Identities are claimed once, also by two at the same time; workers of another log are told until they leave.
pub(super) async fn story(url: &str, before: Peeked) {
    assert_eq!(peek(url, "shop").await.unwrap(), before, "a look makes nothing");
    assert_eq!(peek(url, "shop").await.unwrap(), before);
    let (one, other) =
        (Database::open(url, 2, "a").await.unwrap(), Database::open(url, 2, "a").await.unwrap());
    assert_eq!(peek(url, "shop").await.unwrap(), Peeked::Nothing);
    assert_eq!(one.identity("shop").await.unwrap(), None);
    let (a, b) = tokio::join!(one.claim_identity("shop", "x"), other.claim_identity("shop", "y"));
    let held = a.unwrap();
    assert_eq!(b.unwrap(), held);
    assert!(held == "x" || held == "y");
    assert_eq!(one.claim_identity("shop", "z").await.unwrap(), held);
    assert_eq!(other.identity("shop").await.unwrap().as_deref(), Some(&*held));
    assert_eq!(peek(url, "shop").await.unwrap(), Peeked::Identity(held));
    assert_eq!(one.identity("other").await.unwrap(), None, "another namespace is another matter");

    let beat = |worker: &str, log: &str| Beat { worker: worker.to_owned(), log: log.to_owned() };
    assert_eq!(one.beat("shop", &beat("h:1:0", "log-a")).await.unwrap(), []);
    assert_eq!(one.beat("shop", &beat("h:2:0", "log-a")).await.unwrap(), [], "several workers of one log");
    assert_eq!(one.beat("other", &beat("h:3:0", "log-b")).await.unwrap(), [], "and of another namespace");
    let strangers = other.beat("shop", &beat("h:4:0", "log-b")).await.unwrap();
    let names: Vec<&str> = strangers.iter().map(|stranger| stranger.worker.as_str()).collect();
    assert_eq!(names, ["h:1:0", "h:2:0"]);
    assert!(strangers.iter().all(|stranger| stranger.seen_ago.as_secs() < 30), "{strangers:?}");
    for worker in ["h:1:0", "h:2:0", "never-there"] {
        one.leave("shop", worker).await.unwrap();
    }
    assert_eq!(other.beat("shop", &beat("h:4:0", "log-b")).await.unwrap(), []);
    one.close().await;
    other.close().await;
}
