//! Messages whose handling ends the whole process, again and again: they are dead-lettered once, and nobody else is.

use std::time::Duration;

use crate::harness::{Cluster, Settings, eventually};

/// Kills the worker as soon as the model is asked by it, and starts another; until nobody asks any more.
async fn kill_whoever_asks(cluster: &mut Cluster, kills: u64) {
    for asked in 1..=kills {
        cluster.add_worker();
        eventually("the model is asked", async || {
            (cluster.stand_ins.count("model").await >= asked).then_some(())
        })
        .await;
        cluster.workers.pop().expect("a worker").kill();
    }
}

/// The poison is answered by nobody, the message behind it in its session is, and there is one dead letter.
async fn assert_dead_lettered(cluster: &mut Cluster, deaths: u64) {
    let mut log = cluster.log().await;
    log.until_ended(&["poison"]).await;
    let failed = log.failure("poison");
    assert_eq!((&failed["code"], &failed["stage"]), (&"poison".into(), &"generation".into()), "{failed}");
    assert_eq!(cluster.stand_ins.count("model").await, deaths, "nobody touches it any more");
    cluster.say("behind", "demo", "s", "Hello").await;
    log.until_ended(&["behind"]).await;
    log.answer("behind");
    let sent = ["poison", "behind"].map(str::to_owned);
    let fault = "a message that kills whoever handles it";
    cluster.figures(24, fault, usize::try_from(deaths).expect("few"), &log, &sent).await.show();
    let dead: Vec<_> = log.dead().collect();
    assert_eq!(dead.len(), 1);
    for (name, value) in [
        ("Throughline-Stage", "generation"),
        ("Throughline-Code", "poison"),
        ("Throughline-Stream", "throughline_EVENTS"),
        ("Throughline-Consumer", "stage_generation"),
    ] {
        assert_eq!(dead[0].header(name), value, "{name}");
    }
    assert!(dead[0].header("Throughline-Worker").starts_with("throughline-worker-"));
    assert_eq!(dead[0].attribute("type"), "external_data_fetched", "the original bytes");
    cluster.assert_workers_run();
}

#[tokio::test]
async fn what_kills_every_process_that_handles_it_is_dead_lettered_before_the_next() {
    // One death before anything is on record, and the five that are allowed.
    const DEATHS: u64 = 6;
    let settings = Settings::new("[worker]\nack_wait_ms = 1000");
    let Some(mut cluster) = Cluster::start_with(0, &settings, &["--model-latency-ms", "5000"]).await else {
        return;
    };
    cluster.say("poison", "demo", "s", "Hello").await;
    kill_whoever_asks(&mut cluster, DEATHS).await;
    cluster.add_worker();
    cluster.add_worker();
    assert_dead_lettered(&mut cluster, DEATHS).await;
}

#[tokio::test]
async fn what_the_server_gives_up_on_is_dead_lettered_once_by_several_workers() {
    const DELIVERIES: u64 = 2;
    let settings = Settings::new("[worker]\nack_wait_ms = 1000\nmax_deliver = 2");
    let Some(mut cluster) = Cluster::start_with(0, &settings, &["--model-latency-ms", "5000"]).await else {
        return;
    };
    cluster.say("poison", "demo", "s", "Hello").await;
    kill_whoever_asks(&mut cluster, DELIVERIES).await;
    // Nobody is there when the server gives up; its advisory waits.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..3 {
        cluster.add_worker();
    }
    assert_dead_lettered(&mut cluster, DELIVERIES).await;
}
