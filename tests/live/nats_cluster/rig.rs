//! The cluster with what else a deployment has: stand-ins, a database file, workers.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Nodes, Program, SOON, Settings, StandIns, process::throughline, python};

pub(super) struct Rig {
    // Workers go first, so that they do not complain about what they miss.
    pub(super) workers: Vec<Program>,
    pub(super) stand_ins: StandIns,
    pub(super) nodes: Nodes,
    dir: tempfile::TempDir,
}

impl Rig {
    /// Streams exist, workers run.
    pub(super) async fn start(nodes: Nodes, workers: usize) -> Self {
        let mut rig = Self::beside(nodes).await;
        let mut setup = rig.run("setup", "admin", &["setup"]);
        let status = setup.ended(SOON).await;
        assert!(status.success(), "setup: {}", setup.stderr());
        for at in 0..workers {
            let worker = rig.run(&format!("worker{at}"), "worker", &["worker"]);
            rig.workers.push(worker);
        }
        rig
    }

    /// Stand-ins and a configuration file for each role; nothing is set up.
    pub(super) async fn beside(nodes: Nodes) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let stand_ins = StandIns::start(dir.path(), &[]).await;
        let rig = Self { workers: Vec::new(), stand_ins, nodes, dir };
        for role in ["admin", "worker", "publisher", "reader"] {
            rig.write_config(role, role, "");
        }
        rig
    }

    /// A configuration file called `name` for a user of `role`.
    pub(super) fn write_config(&self, name: &str, role: &str, more: &str) {
        let database = format!("database.url = \"sqlite://{}\"", self.database().display());
        let settings = Settings::new(&self.nodes.settings(role)).with(&database).with(more);
        std::fs::write(self.config(name), settings.over(&self.stand_ins.config)).expect("a file");
    }

    pub(super) fn config(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.toml"))
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn database(&self) -> PathBuf {
        self.dir.path().join("throughline.db")
    }

    /// Starts `throughline` with one of the configuration files.
    pub(super) fn run(&self, name: &str, config: &str, arguments: &[&str]) -> Program {
        let mut command = throughline();
        command.arg("--config").arg(self.config(config)).args(arguments);
        Program::start(name, self.dir.path(), &mut command)
    }

    /// Runs `throughline` to its end: exit code, stdout, stderr.
    pub(super) async fn ran(&self, config: &str, arguments: &[&str]) -> (i32, String, String) {
        let mut program = self.run(&format!("{config}-{}", arguments[0]), config, arguments);
        let status = program.ended(SOON).await;
        (status.code().expect("it ended by itself"), program.stdout(), program.stderr())
    }

    pub(super) fn rows(&self) -> Vec<Value> {
        python::rows(&self.database())
    }
}
