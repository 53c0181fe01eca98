//! Servers in containers, by testcontainers, where a Docker engine answers and has the image or can get it
//! (`images.sh`). `THROUGHLINE_TEST_SERVERS=local` has the tests use local programs all the same; with `containers` nothing
//! else will do.
#![allow(unreachable_pub, dead_code)]

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, LazyLock, OnceLock, mpsc},
    time::Duration,
};

use testcontainers::{
    ContainerAsync, ContainerRequest, GenericImage, ImageExt, core::IntoContainerPort, runners::AsyncRunner,
};
use tokio::runtime::{Builder, Runtime};

use crate::harness::{LOOK_AGAIN, deadline, reaper};

/// How long the engine may take to start a container of an image that it has.
const START_LIMIT: Duration = Duration::from_mins(1);
/// Within this the engine has done anything that it is asked for, a start included.
const ENGINE_LIMIT: Duration = Duration::from_mins(3);

/// What tells containers of these tests from others; the value is the test process.
const LABEL: &str = "throughline.tests";

/// The engine is asked so often to pause a container before it counts as not able to.
const PAUSE_ATTEMPTS: u32 = 10;
/// Between these attempts.
const BETWEEN_PAUSES: Duration = Duration::from_millis(300);

/// The client of the engine belongs to one runtime; tests have one each.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime"));

/// A kind of server that may run in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nats,
    Postgres,
}

impl Kind {
    /// The image to start, asked for once; none if local programs are to be used.
    pub fn image(self) -> Option<&'static str> {
        static IMAGES: [OnceLock<Option<String>>; 2] = [const { OnceLock::new() }; 2];
        let name = match self {
            Self::Nats => "nats",
            Self::Postgres => "postgres",
        };
        IMAGES[self as usize].get_or_init(|| find(name)).as_deref()
    }
}

/// `THROUGHLINE_TEST_SERVERS`, if it is this word.
fn servers(word: &str) -> bool {
    std::env::var_os("THROUGHLINE_TEST_SERVERS").is_some_and(|servers| servers == word)
}

fn find(name: &str) -> Option<String> {
    if servers("local") {
        return None;
    }
    // Set and empty: there is none, it was looked for already.
    let variable = format!("THROUGHLINE_{}_IMAGE", name.to_uppercase());
    let none = std::env::var_os(variable).is_some_and(|image| image.is_empty());
    let found = if none { None } else { ask(name) };
    assert!(found.is_some() || !servers("containers"), "no image of {name} (tests/live/images.sh {name})");
    found
}

/// A container cannot be had after all; fails where nothing else will do.
pub fn fall_back(why: &str) {
    assert!(!servers("containers"), "{why}");
    eprintln!("{why}; using local programs");
}

fn ask(name: &str) -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/images.sh");
    let found = Command::new(script).arg(name).stderr(Stdio::inherit()).output().ok()?;
    found.status.success().then(|| String::from_utf8_lossy(&found.stdout).trim_end().to_owned())
}

/// Does it on the runtime that the client of the engine belongs to.
fn on_runtime<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    RUNTIME.spawn(async move {
        // Somebody waits for it.
        let _ = sender.send(work.await);
    });
    receiver.recv_timeout(ENGINE_LIMIT).expect("the Docker engine answers in time")
}

/// A container, running or stopped; removed, at once, when dropped, and when the tests end however they do.
pub struct Contained {
    /// None while it is dropped.
    container: Option<Arc<ContainerAsync<GenericImage>>>,
}

impl Contained {
    /// Starts one whose `port` is reached at `host_port` of the loopback interface. What it needs further, `prepare`
    /// says.
    pub fn start(
        image: &str,
        (host_port, port): (u16, u16),
        prepare: impl FnOnce(ContainerRequest<GenericImage>) -> ContainerRequest<GenericImage>,
    ) -> Result<Self, String> {
        deadline::begin();
        let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        let request = GenericImage::new(name, tag)
            .with_mapped_port(host_port, port.tcp())
            .with_startup_timeout(START_LIMIT)
            .with_label(LABEL, std::process::id().to_string())
            .with_host_config_modifier(|host| {
                // testcontainers itself binds to every interface.
                let bindings = host.port_bindings.iter_mut().flat_map(|bindings| bindings.values_mut());
                for binding in bindings.flatten().flatten() {
                    binding.host_ip = Some("127.0.0.1".to_owned());
                }
            });
        let request = prepare(request);
        let started = on_runtime(async { request.start().await });
        let container = started.map_err(|error| format!("no container of {image}: {error}"))?;
        reaper::watch_container(container.id());
        Ok(Self { container: Some(Arc::new(container)) })
    }

    fn container(&self) -> Arc<ContainerAsync<GenericImage>> {
        Arc::clone(self.container.as_ref().expect("not dropped"))
    }

    /// Ends what runs in it as an operator would.
    pub fn stop(&self) {
        let container = self.container();
        on_runtime(async move { container.stop_with_timeout(Some(30)).await }).expect("it stops");
    }

    /// Ends what runs in it as a crash would.
    pub fn kill(&self) {
        // The engine's "stop", without patience too, begins with a polite signal that a server may act upon.
        let killed =
            Command::new("docker").args(["kill", "--signal", "KILL", self.container().id()]).output();
        let killed = killed.expect("docker runs");
        assert!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
        self.until_ended();
    }

    /// The engine may say that it has killed before it has noticed the end.
    fn until_ended(&self) {
        let container = self.container();
        on_runtime(async move {
            while container.is_running().await.expect("the engine answers") {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
    }

    /// Starts it again, with the same files at the same port.
    pub fn start_again(&self) {
        let container = self.container();
        on_runtime(async move { container.start().await }).expect("it starts again");
    }

    /// Nothing moves in it until [`Self::resume`].
    pub fn pause(&self) {
        let container = self.container();
        // A busy machine may need more time to freeze its processes than the engine gives it.
        let mut attempts = 0;
        let paused = on_runtime(async move {
            loop {
                attempts += 1;
                match container.pause().await {
                    Err(_) if attempts < PAUSE_ATTEMPTS => tokio::time::sleep(BETWEEN_PAUSES).await,
                    done => return done,
                }
            }
        });
        paused.expect("it pauses");
    }

    pub fn resume(&self) {
        let container = self.container();
        on_runtime(async move { container.unpause().await }).expect("it resumes");
    }

    /// What it wrote to its standard streams.
    pub fn log(&self) -> String {
        let container = self.container();
        let read = on_runtime(async move {
            Ok::<_, testcontainers::TestcontainersError>((
                container.stdout_to_vec().await?,
                container.stderr_to_vec().await?,
            ))
        });
        let (out, err) = read.unwrap_or_default();
        format!("{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err))
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        let Some(container) = self.container.take() else { return };
        let id = container.id().to_owned();
        // It is removed by being dropped, and its client lives on the runtime.
        on_runtime(async move { drop(container) });
        reaper::forget_container(&id);
    }
}
