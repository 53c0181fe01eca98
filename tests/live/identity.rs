//! A namespace has one database, and a database one log: everything else is refused, with what to do.

use std::path::Path;

use serde_json::Value;

use crate::{
    harness::{
        Cluster, Deployment, Program, SOON, Settings, cluster::Parts, eventually, http_client,
        process::throughline,
    },
    nats_server::NatsServer,
    postgres_server::PostgresServer,
};

/// A deployment with several databases: files in folders of their own, or on one PostgreSQL.
struct Homes {
    deployment: Deployment,
    cluster: Cluster,
}

impl Homes {
    async fn start(deployment: Deployment) -> Option<Self> {
        let cluster = Cluster::start_on(&deployment.parts(), 0, &Settings::new(""), &[]).await?;
        Some(Self { deployment, cluster })
    }

    /// What PostgreSQL calls the database of a home.
    fn name(&self, home: &str) -> String {
        match &self.deployment {
            Deployment::Small => format!("{home}/throughline.db"),
            Deployment::Large { database, .. } => format!("{database}_{home}"),
        }
    }

    /// How what the program says of a database names it: a file by its absolute path.
    fn place(&self, home: &str) -> String {
        match &self.deployment {
            Deployment::Small => {
                let file = self.cluster.dir().join(self.name(home));
                file.canonicalize().unwrap_or(file).display().to_string()
            }
            Deployment::Large { .. } => self.name(home),
        }
    }

    /// A place for a database, without one in the case of files.
    async fn make(&self, home: &str) {
        match &self.deployment {
            Deployment::Small => std::fs::create_dir_all(self.cluster.dir().join(home)).unwrap(),
            Deployment::Large { server, .. } => server.create(&self.name(home)).await,
        }
    }

    async fn rename(&self, home: &str, to: &str) {
        match &self.deployment {
            Deployment::Small => {
                std::fs::rename(self.cluster.dir().join(home), self.cluster.dir().join(to)).unwrap();
            }
            Deployment::Large { server, .. } => server.rename(&self.name(home), &self.name(to)).await,
        }
    }

    async fn lose(&self, home: &str) {
        match &self.deployment {
            Deployment::Small => std::fs::remove_file(self.cluster.dir().join(self.name(home))).unwrap(),
            Deployment::Large { server, .. } => server.replace(&self.name(home), None).await,
        }
    }

    /// Starts `throughline` with the database of a home; a file is named by a relative path.
    fn run(&self, home: &str, name: &str, arguments: &[&str]) -> Program {
        let (dir, url) = match &self.deployment {
            Deployment::Small => (self.cluster.dir().join(home), "sqlite://throughline.db".to_owned()),
            Deployment::Large { server, .. } => (self.cluster.dir().to_owned(), server.url(&self.name(home))),
        };
        let mut command = throughline();
        command.env("DATABASE_URL", url).arg("--config").arg(self.cluster.config());
        Program::start(name, &dir, command.args(arguments))
    }
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

async fn a_second_one_is_refused(deployment: Deployment) {
    let Some(homes) = Homes::start(deployment).await else { return };
    homes.make("a").await;
    homes.make("b").await;
    let (a, b) = (homes.name("a"), homes.name("b"));
    let first = homes.run("a", "first", &["worker"]);
    first.until_ready().await;
    assert_eq!(readiness(&first).await["checks"]["namespace"], "ok");

    for command in [&["worker"][..], &["setup"]] {
        // Setting up leaves a database that is not there yet to the worker; that of the refused worker is there.
        let told = refused(homes.run("b", command[0], command), 64).await;
        for part in [&*a, &*b, "database.url", "setup --adopt-database"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
    let mut doctor = homes.run("b", "doctor", &["doctor", "--json"]);
    assert_eq!(doctor.ended(SOON).await.code(), Some(1), "{}", doctor.stdout());
    let findings: Vec<Value> = serde_json::from_str(&doctor.stdout()).unwrap();
    let namespace = findings.iter().find(|finding| finding["name"] == "namespace").unwrap();
    assert_eq!(namespace["status"], "fail");
    assert!(namespace["detail"].as_str().unwrap().contains(&homes.place("a")), "{namespace}");
    // A worker beside the first one, with the same database, is welcome.
    let beside = homes.run("a", "beside", &["worker"]);
    beside.until_ready().await;
    stop(beside).await;

    let mut adopt = homes.run("b", "adopt", &["setup", "--adopt-database"]);
    assert_eq!(adopt.ended(SOON).await.code(), Some(0), "{}", adopt.stderr());
    assert!(adopt.stderr().contains(&homes.place("a")), "{}", adopt.stderr());
    let second = homes.run("b", "second", &["worker"]);
    second.until_ready().await;
    // The first one notices within its next comparison.
    let told = refused(first, 1).await;
    assert!(told.contains(&b), "{told}");
    stop(second).await;
}

#[tokio::test]
async fn a_second_database_is_refused_until_it_is_adopted() {
    a_second_one_is_refused(Deployment::Small).await;
}

#[tokio::test]
async fn a_second_database_of_postgresql_is_refused_until_it_is_adopted() {
    let Some(deployment) = Deployment::large().await else { return };
    a_second_one_is_refused(deployment).await;
}

async fn a_lost_one_is_told(deployment: Deployment) {
    let Some(homes) = Homes::start(deployment).await else { return };
    homes.make("a").await;
    let worker = homes.run("a", "worker", &["worker"]);
    worker.until_ready().await;
    stop(worker).await;

    // Moved: another place, the same identity.
    homes.rename("a", "moved").await;
    let worker = homes.run("moved", "worker", &["worker"]);
    worker.until_ready().await;
    stop(worker).await;

    homes.lose("moved").await;
    let mut doctor = homes.run("moved", "doctor", &["doctor"]);
    doctor.ended(SOON).await;
    let told = doctor.stdout();
    assert!(told.contains("was lost or replaced"), "{told}");
    let worker = homes.run("moved", "worker", &["worker"]);
    worker.until_ready().await;
    assert!(worker.stderr().contains("was lost or replaced"), "{}", worker.stderr());
    stop(worker).await;
    let worker = homes.run("moved", "worker", &["worker"]);
    worker.until_ready().await;
    assert!(!worker.stderr().contains("was lost or replaced"), "{}", worker.stderr());
    stop(worker).await;
}

#[tokio::test]
async fn a_database_file_that_was_lost_is_told_and_its_copy_elsewhere_is_the_same() {
    a_lost_one_is_told(Deployment::Small).await;
}

#[tokio::test]
async fn a_database_of_postgresql_that_was_lost_is_told_and_under_another_name_it_is_the_same() {
    let Some(deployment) = Deployment::large().await else { return };
    a_lost_one_is_told(deployment).await;
}

async fn serves_one_log(parts: &Parts<'_>) {
    let Some(cluster) = Cluster::start_on(parts, 0, &Settings::new(""), &[]).await else { return };
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

#[tokio::test]
async fn a_database_serves_one_log_at_a_time() {
    serves_one_log(&Parts::default()).await;
}

#[tokio::test]
async fn a_database_of_postgresql_serves_one_log_at_a_time() {
    let Some(server) = PostgresServer::shared().await else { return };
    let url = server.database().await;
    serves_one_log(&Parts { database_url: Some(&url), ..Parts::default() }).await;
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
