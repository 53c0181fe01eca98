//! How fast the store is:
//! `THROUGHLINE_MEASURE=1 cargo test --release --test wire -- --nocapture measure`. Says nothing about right or
//! wrong, so it does nothing unless it is asked to.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "figures for a person")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use throughline::storage::sqlite::SqliteStore;
use throughline_actors::ports::store::{Admission, Interaction, SessionOwner, Store, Verdict};
use throughline_schemas::{SessionId, UserId, event::input::WhenBusy};
use tokio::time::Instant;

use super::{READERS, admission, interaction, open};

const WORKFLOWS: u64 = 20_000;
const SESSIONS: u64 = 1_000;
const CALLERS: u64 = 64;
const INPUTS: u64 = 32;
const TURNS: usize = 5;
const EVENT_BYTES: usize = 900;
/// Linux counts the CPU time of a process in hundredths of a second.
const TICKS: f64 = 100.0;

fn cpu() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?);
    Some((user + system) / TICKS)
}

fn input(n: u64, session: &str) -> Admission {
    let verdict = Verdict::Accepted {
        event: vec![b'e'; EVENT_BYTES],
        when_busy: WhenBusy::Enqueue,
        owner: SessionOwner::Any,
    };
    Admission { verdict, ..admission(&format!("workflow-{n:012}"), session, n) }
}

fn output(n: u64, session: &str) -> Interaction {
    let mut saved = interaction(&format!("workflow-{n:012}"), session, n);
    saved.request.user_input = "What is the status of my recent order? ".repeat(3);
    saved.response.text = "Your order ORD-1234 was shipped on Monday and arrives tomorrow. ".repeat(6);
    saved
}

/// Calls `call` with every number below `total`, `callers` at a time.
async fn measure<F>(
    what: &str,
    store: &Arc<SqliteStore>,
    (total, callers, each): (u64, u64, u64),
    call: impl Fn(Arc<SqliteStore>, u64) -> F,
) where
    F: Future<Output = ()>,
{
    let (next, took) = (AtomicU64::new(0), std::cell::RefCell::new(Vec::new()));
    let (began, busy) = (Instant::now(), cpu());
    let caller = async |_| {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= total {
                break;
            }
            let began = Instant::now();
            call(Arc::clone(store), n).await;
            took.borrow_mut().push(began.elapsed());
        }
    };
    futures_util::future::join_all((0..callers).map(caller)).await;
    let (elapsed, operations) = (began.elapsed().as_secs_f64(), (total * each) as f64);
    let cpu = cpu().zip(busy).map_or(f64::NAN, |(after, before)| (after - before) / operations * 1e6);
    let mut took = took.into_inner();
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or(Duration::ZERO);
    let rate = operations / elapsed;
    println!("{what:26} {rate:8.0}/s  {cpu:5.0} CPU us each  p50 {:?}  p99 {:?}", at(50), at(99));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measure_the_store() {
    if std::env::var_os("THROUGHLINE_MEASURE").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()).await);
    let session = |n: u64| format!("session-{}", n % SESSIONS);
    println!("{CALLERS} callers, {READERS} readers, {SESSIONS} sessions");
    measure("save", &store, (WORKFLOWS, CALLERS, 1), async |store, n| {
        store.save(output(n, &session(n))).await.unwrap();
    })
    .await;
    measure("context", &store, (WORKFLOWS, CALLERS, 1), async |store, n| {
        let (user, session) = (UserId::new("ann").unwrap(), SessionId::new(session(n)).unwrap());
        assert_eq!(store.context(&user, &session, TURNS).await.unwrap().recent_turns.len(), TURNS);
    })
    .await;
    measure("admit, batches of 32", &store, (WORKFLOWS / INPUTS, 1, INPUTS), async |store, n| {
        let inputs = (n * INPUTS..(n + 1) * INPUTS).map(|n| input(1_000_000 + n, &format!("once-{n}")));
        store.admit(inputs.collect()).await.unwrap();
    })
    .await;
    for callers in [CALLERS, 1] {
        let what = format!("admit+context+save, {callers}");
        measure(&what, &store, (WORKFLOWS * callers / CALLERS, callers, 1), async |store, n| {
            let n = n + 2_000_000 * callers;
            let session = format!("session-{callers}-{n}");
            store.admit(vec![input(n, &session)]).await.unwrap();
            let (user, of) = (UserId::new("ann").unwrap(), SessionId::new(session.as_str()).unwrap());
            store.context(&user, &of, TURNS).await.unwrap();
            store.save(output(n, &session)).await.unwrap();
        })
        .await;
    }
    store.close().await;
}
