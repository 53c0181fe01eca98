//! The leader of the streams is cut off from the other nodes and from everybody but the clients beside it.
//!
//! Each node has a network namespace of its own, joined by a bridge in one that the test process has for itself: nothing
//! of it can be seen or hit from outside, and all of it is gone with the processes.

use std::process::Command;

use super::{
    faults::{EVENTS, Publisher, STALL_LIMIT, STEADY, assert_nothing_lost, show_figures},
    rig::Rig,
};
use crate::harness::{
    Log, Nodes, Program, SOON,
    cluster::NAMESPACE,
    eventually, left_out,
    nodes::{NODES, Place},
    process::throughline,
};

/// Tells the test that it runs in a network namespace of its own.
const INSIDE: &str = "THROUGHLINE_TEST_INSIDE";
/// Waits for the node's end of a cable, then runs the node.
const NODE: &str = r#"address=$1; shift
until ip link show e0 >/dev/null 2>&1; do sleep 0.02; done
ip link set lo up && ip addr add "$address/24" dev e0 && ip link set e0 up && exec "$@""#;
/// Inputs that a client beside the leader tries to publish during the cut.
const BESIDE: usize = 3;

fn address(at: usize) -> String {
    format!("10.88.0.{}", at + 1)
}

/// Runs `ip` with these words.
fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).output().expect("ip runs");
    assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_nothing_is_lost() {
    if std::env::var_os(INSIDE).is_some() {
        Box::pin(inside()).await;
        return;
    }
    let may = Command::new("unshare").args(["-n", "ip", "link", "add", "b0", "type", "bridge"]).output();
    if !may.is_ok_and(|tried| tried.status.success()) {
        left_out::say(
            "network namespaces and bridges cannot be made here (root, iproute2 and util-linux are needed)",
        );
        return;
    }
    let test = std::env::current_exe().expect("this program");
    let name = "nats_cluster::partition::a_leader_that_is_cut_off_acknowledges_nothing_and_nothing_is_lost";
    let mut again = Command::new("unshare");
    again.arg("-n").arg(test).args([name, "--exact", "--nocapture"]).env(INSIDE, "1");
    assert!(again.status().expect("it runs again").success(), "see above");
}

/// Joins a node that was started to the bridge.
async fn plug_in(nodes: &Nodes, at: usize) {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let pid = nodes.pid(at).to_string();
    eventually("the node has a network of its own", async || {
        let (its, ours) = (namespace(&pid)?, namespace("self")?);
        (its != ours).then_some(())
    })
    .await;
    ip(&format!("link add v{at} type veth peer name e0 netns {pid}"));
    ip(&format!("link set v{at} master b0"));
    ip(&format!("link set v{at} up"));
}

async fn inside() {
    ip("link set lo up");
    ip("link add b0 type bridge");
    ip("addr add 10.88.0.254/24 dev b0");
    ip("link set b0 up");
    let places = (0..NODES).map(|at| Place::at(&address(at))).collect();
    let launchers = (0..NODES)
        .map(|at| ["unshare", "-n", "sh", "-c", NODE, "node", &address(at)].map(str::to_owned).to_vec());
    let Some(mut nodes) = Nodes::prepare(places, launchers.collect()) else { return };
    for at in 0..NODES {
        nodes.run(at);
        plug_in(&nodes, at).await;
    }
    nodes.until_healthy().await;
    let mut rig = Rig::start(nodes, 2).await;
    let admin = rig.nodes.connect("admin", None).await;
    let mut log = Log::follow(&admin, NAMESPACE).await;
    rig.nodes.until_current(&admin, EVENTS).await;
    let leader = rig.nodes.leader(&admin, EVENTS).await;

    let publisher = Publisher::start(rig.nodes.connect("publisher", None).await, "cut".to_owned());
    publisher.acknowledges(STEADY).await;
    ip(&format!("link set v{leader} down"));
    let alone = format!("[nats]\nurl = {:?}\nrequest_timeout_ms = 1000\n", rig.nodes.url(leader));
    rig.write_config("beside", "publisher", &alone);
    let unknown: Vec<_> = (0..BESIDE).map(|number| format!("beside-{number}")).collect();
    let beside = unknown.iter().map(|id| publish_beside(&rig, leader, id));
    for mut attempt in beside.collect::<Vec<_>>() {
        let status = attempt.ended(SOON).await;
        assert!(!status.success(), "acknowledged by a minority: {}", attempt.stdout());
        assert_eq!(status.code(), Some(69), "{}", attempt.stderr());
    }
    publisher.acknowledges(STEADY).await;
    ip(&format!("link set v{leader} up"));
    rig.nodes.until_current(&admin, EVENTS).await;
    let done = publisher.stop().await;
    eprintln!(
        "the leader cut off: {} acknowledged, {} attempts unanswered, longest wait {:?}, 0 of {BESIDE} acknowledged beside it",
        done.acknowledged.len(),
        done.unanswered,
        done.stall,
    );
    assert!(done.stall < STALL_LIMIT, "{:?}", done.stall);
    assert_nothing_lost(&rig, &mut log, &done.acknowledged, &unknown).await;
    let row = (6, "the leader of three cut off (over: longest wait)");
    show_figures(&rig, row, 1, &log, &done.acknowledged, &mut 0, done.stall).await;
    for worker in &mut rig.workers {
        assert!(worker.is_running(), "{}", worker.stderr());
    }
}

/// Publishes from where only the cut-off node can be reached.
fn publish_beside(rig: &Rig, leader: usize, workflow: &str) -> Program {
    let plain = throughline();
    let mut command = Command::new("nsenter");
    command.args(["-t", &rig.nodes.pid(leader).to_string(), "-n"]).arg(plain.get_program());
    for (name, value) in plain.get_envs() {
        assert!(value.is_none(), "only removed");
        command.env_remove(name);
    }
    command.arg("--config").arg(rig.config("beside"));
    command.args(["publish", "--user", "demo", "--session", "beside", "--workflow-id", workflow, "Hello"]);
    Program::start(workflow, rig.dir(), &mut command)
}
