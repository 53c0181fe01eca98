//! nats-server in a container.

use std::{
    io::Read,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use testcontainers::{ImageExt, core::Mount};

use super::{Files, until_it_listens};
use crate::{containers::Contained, harness::free_port};

/// Where it listens inside.
const PORT: u16 = 4222;
/// A port that was free may be taken before the engine has bound it.
const ATTEMPTS: usize = 3;
/// How long one look at whether it listens may take.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

pub struct InContainer {
    container: Contained,
    port: u16,
    running: bool,
}

impl InContainer {
    /// Says why if it cannot.
    pub fn start(image: &str, files: &Files) -> Result<Self, String> {
        // The engine would make a folder that does not exist, as root's.
        std::fs::create_dir_all(&files.store).expect("a folder");
        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = free_port();
            match Self::container(image, port, files) {
                Ok(container) => {
                    // Owned before anything can fail, so that it is removed whatever happens.
                    let server = Self { container, port, running: true };
                    server.until_it_listens(files);
                    return Ok(server);
                }
                Err(_) if attempts < ATTEMPTS => {}
                Err(why) => return Err(why),
            }
        }
    }

    fn container(image: &str, port: u16, files: &Files) -> Result<Contained, String> {
        let dir = files.dir.path();
        let owner = dir.metadata().expect("its owner");
        let mut told = vec!["--addr".to_owned(), "0.0.0.0".to_owned(), "--port".to_owned(), PORT.to_string()];
        told.extend(files.arguments());
        Contained::start(image, (port, PORT), |request| {
            // Tests read, copy and replace what it stores: the folders are theirs, and the files belong to their user.
            let request = request.with_user(format!("{}:{}", owner.uid(), owner.gid())).with_cmd(told);
            let request = request.with_mount(under_its_own_path(dir));
            if files.store.starts_with(dir) {
                return request;
            }
            request.with_mount(under_its_own_path(&files.store))
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn kill(&mut self) {
        if self.running {
            self.container.kill();
            self.running = false;
        }
    }

    pub fn start_again(&mut self, files: &Files) {
        self.container.start_again();
        self.running = true;
        self.until_it_listens(files);
    }

    /// The engine listens at once and for the server: only a greeting tells that the server does.
    fn until_it_listens(&self, files: &Files) {
        until_it_listens(files, || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
            stream.set_read_timeout(Some(LOOK_LIMIT)).ok()?;
            let mut greeting = [0; 4];
            stream.read_exact(&mut greeting).ok()?;
            (&greeting == b"INFO").then_some(())
        });
    }
}

fn under_its_own_path(folder: &Path) -> Mount {
    let path = folder.to_str().expect("a path in UTF-8");
    Mount::bind_mount(path, path)
}
