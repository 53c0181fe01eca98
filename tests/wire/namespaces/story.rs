//! What every kind of database knows of the namespaces that use it.

use throughline::storage::{Beat, CopiedTo, Database, Identity, Peeked, namespaces::peek};

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
    let identity = Identity { id: held, copied: None };
    assert_eq!(other.identity("shop").await.unwrap().as_ref(), Some(&identity));
    assert_eq!(peek(url, "shop").await.unwrap(), Peeked::Identity(identity));
    assert_eq!(one.identity("other").await.unwrap(), None, "another namespace is another matter");

    let beat = |worker: &str, log: &str| Beat { worker: worker.to_owned(), log: log.to_owned(), calls: 64 };
    assert_eq!(one.beat("shop", &beat("h:1:0", "log-a")).await.unwrap(), []);
    assert_eq!(one.beat("shop", &beat("h:2:0", "log-a")).await.unwrap(), [], "several workers of one log");
    assert_eq!(one.beat("other", &beat("h:3:0", "log-b")).await.unwrap(), [], "and of another namespace");
    let strangers = other.beat("shop", &beat("h:4:0", "log-b")).await.unwrap();
    let names: Vec<&str> = strangers.iter().map(|stranger| stranger.worker.as_str()).collect();
    assert_eq!(names, ["h:1:0", "h:2:0"]);
    assert!(strangers.iter().all(|stranger| stranger.seen_ago.as_secs() < 30), "{strangers:?}");
    assert_eq!(one.calls("shop", "log-a", 1).await.unwrap(), 128, "all workers of one log together");
    assert_eq!(one.calls("shop", "log-z", 1).await.unwrap(), 0);
    let all = async |namespace: &str| {
        let workers = one.workers(namespace).await.unwrap();
        workers.into_iter().map(|worker| worker.worker).collect::<Vec<_>>()
    };
    assert_eq!(all("shop").await, ["h:1:0", "h:2:0", "h:4:0"], "whichever their log");
    assert_eq!(all("other").await, ["h:3:0"]);
    for worker in ["h:1:0", "h:2:0", "never-there"] {
        one.leave("shop", worker).await.unwrap();
    }
    assert_eq!(other.beat("shop", &beat("h:4:0", "log-b")).await.unwrap(), []);
    // Where the rows went is noted once, and seen by everybody, until what is left is something of its own.
    let held = one.identity("shop").await.unwrap().unwrap().id;
    let noted = |is_complete| CopiedTo { place: "there".to_owned(), is_complete };
    let seen = |id: &str, copied| Peeked::Identity(Identity { id: id.to_owned(), copied });
    assert_eq!(one.begin_copy("shop", "there").await.unwrap(), noted(false));
    assert_eq!(other.begin_copy("shop", "elsewhere").await.unwrap(), noted(false));
    assert_eq!(peek(url, "shop").await.unwrap(), seen(&held, Some(noted(false))));
    one.complete_copy("shop").await.unwrap();
    other.complete_copy("shop").await.unwrap();
    assert_eq!(other.identity("shop").await.unwrap().unwrap().copied, Some(noted(true)));
    assert_eq!(peek(url, "other").await.unwrap(), Peeked::Nothing);
    one.renew_identity("shop", "new").await.unwrap();
    assert_eq!(peek(url, "shop").await.unwrap(), seen("new", None));
    one.close().await;
    other.close().await;
}
