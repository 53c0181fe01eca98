//! A namespace has one database, and a database one log: everything else is refused, with what to do.

use std::path::Path;

use serde_json::Value;

use crate::{
    harness::{Cluster, Program, SOON, Settings, eventually, http_client, process::throughline},
    nats_server::NatsServer,
};

/// Starts `throughline` in a folder, with a configuration that names its database by a relative path.
fn run(cluster: &Cluster, folder: &str, name: &str, arguments: &[&str]) -> Program {
    let dir = cluster.dir().join(folder);
    std::fs::create_dir_all(&dir).unwrap();
    let mut command = throughline();
    command.env("DATABASE_URL", "sqlite://throughline.db").arg("--config").arg(cluster.config());
    Program::start(name, &dir, command.args(arguments))
}

/// The last line that a program said, once it has ended with this code.
async fn refused(mut program: Program, code: i32) -> String {
    let status = program.ended(SOON).await;
    assert_eq!(status.code(), Some(code), "{}{}", program.stdout(), program.stderr());
    program.stderr().lines().last().unwrap_or_default().to_owned()
}

async fn stop(mut worker: Program) {
    worker.signal("TERM");
    assert_eq!(worker.ended(SOON).await.code(), Some(0), "{}", worker.stderr());
}

/// Where a worker's endpoints are, as its log says.
async fn readiness(worker: &Program) -> Value {
    let log = worker.stderr();
    let ready = log.lines().find(|line| line.contains("worker ready")).expect("it is ready");
    let port = ready.split("127.0.0.1:").nth(1).unwrap();
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    let answer = http_client().get(format!("http://127.0.0.1:{port}/readyz")).send().await.unwrap();
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

fn file(cluster: &Cluster, folder: &str) -> String {
    let file = cluster.dir().join(folder).join("throughline.db");
    file.canonicalize().unwrap_or(file).display().to_string()
}

#[tokio::test]
async fn a_second_database_is_refused_until_it_is_adopted() {
    let Some(cluster) = Cluster::start(0, &Settings::new("")).await else { return };
    let first = run(&cluster, "a", "first", &["worker"]);
    first.until_ready().await;
    assert_eq!(readiness(&first).await["checks"]["namespace"], "ok");

    for command in [&["worker"][..], &["setup"]] {
        // Setting up leaves a database that is not there yet to the worker; that of the refused worker is there.
        let told = refused(run(&cluster, "b", command[0], command), 64).await;
        for part in ["a/throughline.db", "b/throughline.db", "database.url", "setup --adopt-database"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
    let mut doctor = run(&cluster, "b", "doctor", &["doctor", "--json"]);
    assert_eq!(doctor.ended(SOON).await.code(), Some(1), "{}", doctor.stdout());
    let findings: Vec<Value> = serde_json::from_str(&doctor.stdout()).unwrap();
    let namespace = findings.iter().find(|finding| finding["name"] == "namespace").unwrap();
    assert_eq!(namespace["status"], "fail");
    assert!(namespace["detail"].as_str().unwrap().contains(&file(&cluster, "a")), "{namespace}");
    // A worker beside the first one, with the same database, is welcome.
    let beside = run(&cluster, "a", "beside", &["worker"]);
    beside.until_ready().await;
    stop(beside).await;

    let mut adopt = run(&cluster, "b", "adopt", &["setup", "--adopt-database"]);
    assert_eq!(adopt.ended(SOON).await.code(), Some(0), "{}", adopt.stderr());
    assert!(adopt.stderr().contains(&file(&cluster, "a")), "{}", adopt.stderr());
    let second = run(&cluster, "b", "second", &["worker"]);
    second.until_ready().await;
    // The first one notices within its next comparison.
    let told = refused(first, 1).await;
    assert!(told.contains("b/throughline.db"), "{told}");
    stop(second).await;
}

#[tokio::test]
async fn a_database_file_that_was_lost_is_told_and_its_copy_elsewhere_is_the_same() {
    let Some(cluster) = Cluster::start(0, &Settings::new("")).await else { return };
    let worker = run(&cluster, "a", "worker", &["worker"]);
    worker.until_ready().await;
    stop(worker).await;

    // Moved: another place, the same identity.
    std::fs::rename(cluster.dir().join("a"), cluster.dir().join("moved")).unwrap();
    let worker = run(&cluster, "moved", "worker", &["worker"]);
    worker.until_ready().await;
    stop(worker).await;

    std::fs::remove_file(cluster.dir().join("moved/throughline.db")).unwrap();
    let mut doctor = run(&cluster, "moved", "doctor", &["doctor"]);
    doctor.ended(SOON).await;
    let told = doctor.stdout();
    assert!(told.contains("was lost or replaced"), "{told}");
    let worker = run(&cluster, "moved", "worker", &["worker"]);
    worker.until_ready().await;
    assert!(worker.stderr().contains("was lost or replaced"), "{}", worker.stderr());
    stop(worker).await;
    let worker = run(&cluster, "moved", "worker", &["worker"]);
    worker.until_ready().await;
    assert!(!worker.stderr().contains("was lost or replaced"), "{}", worker.stderr());
    stop(worker).await;
}

#[tokio::test]
async fn a_database_serves_one_log_at_a_time() {
    let Some(cluster) = Cluster::start(0, &Settings::new("")).await else { return };
    let Some(other) = NatsServer::start() else { return };
    let there = |name: &str, arguments: &[&str]| {
        let mut command = throughline();
        command.env("NATS_URL", other.url()).arg("--config").arg(cluster.config());
        Program::start(name, cluster.dir(), command.args(arguments))
    };
    let worker = cluster.run("worker", &["worker"]);
    worker.until_ready().await;
    // A second server gets the database's identity, and would be worked on with the same tables.
    let mut setup = there("setup", &["setup"]);
    assert_eq!(setup.ended(SOON).await.code(), Some(0), "{}", setup.stderr());
    let told = refused(there("stranger", &["worker"]), 64).await;
    assert!(told.contains("with another log") && told.contains("nats.namespace"), "{told}");
    stop(worker).await;
    let worker = there("later", &["worker"]);
    worker.until_ready().await;
    stop(worker).await;
}

/// Without a word of configuration two folders share one database, and one that earlier versions left is named.
#[tokio::test]
async fn the_default_database_does_not_depend_on_the_folder() {
    let Some(cluster) = Cluster::start(0, &Settings::new("")).await else { return };
    let config = std::fs::read_to_string(cluster.config()).unwrap();
    let mut table: toml::Table = config.parse().unwrap();
    table.remove("database");
    std::fs::write(cluster.config(), toml::to_string(&table).unwrap()).unwrap();
    let home = cluster.dir().join("home");
    let run = |folder: &str, name: &str, arguments: &[&str]| {
        let dir = cluster.dir().join(folder);
        std::fs::create_dir_all(&dir).unwrap();
        let mut command = throughline();
        command.env_remove("XDG_DATA_HOME").env("HOME", &home).arg("--config").arg(cluster.config());
        Program::start(name, &dir, command.args(arguments))
    };
    let workers = [run("a", "a", &["worker"]), run("b", "b", &["worker"])];
    for worker in &workers {
        worker.until_ready().await;
    }
    let file = home.join(".local/share/throughline/throughline.db");
    assert!(file.is_file() && private(&file) && private(file.parent().unwrap()));
    workers.into_iter().for_each(drop);
    std::fs::write(cluster.dir().join("a/throughline.db"), "").unwrap();
    let mut check = run("a", "check", &["config", "check"]);
    assert_eq!(check.ended(SOON).await.code(), Some(0));
    assert!(check.stderr().contains("is there and is not used"), "{}", check.stderr());
    let worker = run("a", "again", &["worker"]);
    eventually("it says so", async || worker.stderr().contains("is there and is not used").then_some(()))
        .await;
}

fn private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().unwrap().permissions().mode().trailing_zeros() >= 6
}
