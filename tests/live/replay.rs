//! What was recorded under faults, again: verified, simulated, run again and taken up.

mod compare;
mod storm;

use serde_json::Value;

use crate::harness::{Cluster, SOON};

/// `throughline replay ...`: exit code, lines of JSON, stderr.
async fn replay(cluster: &Cluster, arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let all = [&["replay"], arguments, &["--json"]].concat();
    let mut program = cluster.run("replay", &all);
    let status = program.ended(4 * SOON).await;
    let out = program.stdout();
    let lines = out.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    (status.code().expect("an exit code"), lines, program.stderr())
}

/// The last line, which sums up.
fn summary(lines: &[Value]) -> &Value {
    &lines.last().expect("a summary")["summary"]
}
