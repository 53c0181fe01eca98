#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;

fn fixed(key: &str) -> KeySource {
    KeySource::Fixed(Credential::new(key))
}

fn ring(keys: &[&str]) -> KeyRing {
    KeyRing::new("p", keys.iter().map(|key| fixed(key)).collect(), "Bearer ", Vec::new()).unwrap()
}

/// The key of the next call, as it is sent.
fn pick(ring: &KeyRing) -> (Picked, String) {
    let picked = ring.pick();
    let header = picked.header.as_ref().map_or("none", |header| header.to_str().unwrap()).to_owned();
    (picked, header)
}

fn picks(ring: &KeyRing, times: usize) -> Vec<String> {
    (0..times).map(|_| pick(ring).1).collect()
}

#[tokio::test(start_paused = true)]
async fn keys_take_turns() {
    assert_eq!(
        picks(&ring(&["a", "b", "c"]), 5),
        ["Bearer a", "Bearer b", "Bearer c", "Bearer a", "Bearer b"]
    );
    assert_eq!(picks(&ring(&[]), 2), ["none", "none"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_refused_rests_while_there_are_others() {
    let ring = ring(&["a", "b"]);
    let (a, _) = pick(&ring);
    assert!(ring.rest(&a, Rest::Refused, 1), "there is another");
    assert_eq!(picks(&ring, 3), ["Bearer b"; 3]);
    tokio::time::advance(QUOTA_COOLDOWN).await;
    let (b, _) = pick(&ring);
    assert!(!ring.rest(&b, Rest::Quota, 1), "there is none left");
    // With all at rest, the one whose rest ends first.
    assert_eq!(picks(&ring, 2), ["Bearer b"; 2]);
    tokio::time::advance(REFUSED_COOLDOWN).await;
    assert_eq!(picks(&ring, 4), ["Bearer a", "Bearer b", "Bearer a", "Bearer b"]);
}

#[tokio::test(start_paused = true)]
async fn a_single_key_is_always_used_and_none_cannot_rest() {
    let one = ring(&["a"]);
    let (a, _) = pick(&one);
    assert!(!one.rest(&a, Rest::Refused, 1));
    assert_eq!(picks(&one, 2), ["Bearer a"; 2]);
    let none = ring(&[]);
    let (picked, _) = pick(&none);
    assert!(!none.rest(&picked, Rest::Refused, 1));
}

/// Also where the clock of the file system is coarse: the length differs.
fn write(path: &Path, key: &str) {
    std::fs::write(path, format!("{key}\n")).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    write(&path, "first-canary");
    let ring = KeyRing::new("p", vec![KeySource::File(path.clone())], "", Vec::new()).unwrap();
    assert_eq!(picks(&ring, 1), ["first-canary"]);
    write(&path, "second-canary-");
    assert_eq!(picks(&ring, 1), ["first-canary"], "looked at a moment ago");
    tokio::time::advance(FILE_INTERVAL).await;
    let (picked, header) = pick(&ring);
    assert_eq!(header, "second-canary-");
    // Calls under way may still hear of the first.
    let mut echo = "first-canary second-canary-".to_owned();
    picked.redactor.text(&mut echo);
    assert_eq!(echo, "*** ***");
    // Gone or empty for a moment: the last one stays.
    for broken in [None, Some("")] {
        match broken {
            None => std::fs::remove_file(&path).unwrap(),
            Some(text) => std::fs::write(&path, text).unwrap(),
        }
        tokio::time::advance(FILE_INTERVAL).await;
        assert_eq!(picks(&ring, 1), ["second-canary-"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_looked_up_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    write(&path, "old");
    let ring = KeyRing::new("p", vec![KeySource::File(path.clone())], "", Vec::new()).unwrap();
    let (first, _) = pick(&ring);
    let (late, _) = pick(&ring);
    assert!(!ring.rest(&first, Rest::Refused, 1), "nothing has changed");
    write(&path, "newer");
    assert!(ring.rest(&first, Rest::Refused, 1), "a new value is worth a call");
    assert_eq!(picks(&ring, 1), ["newer"]);
    // A call that began with the old one says nothing about the new one.
    assert!(ring.rest(&late, Rest::Refused, 1));
    assert!(!ring.rest(&late, Rest::Refused, 2), "not for ever");
}

#[test]
fn a_key_that_is_not_there_is_an_error_at_once_and_no_value_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let error = |source: KeySource| {
        let error = KeyRing::new("p", vec![fixed("other-canary"), source], "", Vec::new()).unwrap_err();
        format!("{error} {error:?}")
    };
    assert!(error(KeySource::File(path.clone())).contains("cannot be read"));
    std::fs::write(&path, "\n").unwrap();
    assert!(error(KeySource::File(path.clone())).contains("no key"));
    std::fs::write(&path, "canary\nof two lines").unwrap();
    let two = error(KeySource::File(path));
    assert!(two.contains("characters that no header can have") && !two.contains("canary"), "{two}");
    assert!(!format!("{:?}", ring(&["some-canary"])).contains("canary"));
}
