//! A cluster that is set up before its nodes have found each other, as happens where everything is started at once.

use std::time::Duration;

use super::rig::Rig;
use crate::harness::{Nodes, SOON, eventually};

/// Long enough for a set-up that does not wait to have failed.
const ALONE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_up_waits_until_the_nodes_have_found_each_other() {
    let Some(mut nodes) = Nodes::on_loopback() else { return };
    nodes.run(0);
    eventually("the first node listens", async || nodes.listens(0).then_some(())).await;
    let mut rig = Rig::beside(nodes).await;
    let mut setup = rig.run("setup", "admin", &["setup"]);
    tokio::time::sleep(ALONE).await;
    assert!(setup.is_running(), "one node of three makes no streams: {}", setup.stderr());
    rig.nodes.run(1);
    rig.nodes.run(2);
    let status = setup.ended(SOON).await;
    assert!(status.success(), "setup: {}", setup.stderr());
    assert!(setup.stdout().contains("created throughline_EVENTS"), "{}", setup.stdout());
}
