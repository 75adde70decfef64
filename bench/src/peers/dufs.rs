//! dufs: a file server in Rust, on hyper and tokio, with uploads and zip archives.
//!
//! Set up with everything allowed, no access log, and stored zip members, which is what ours
//! sends: deflate would be another workload. tokio takes as many threads as it is given cores.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::call::{Body, Call, Content, Exchange, Expect};
use crate::fixture::{FileId, Fixture};
use crate::peer::{Peer, Reason, Running, Start, Upload};
use crate::peers::ability::Abilities;
use crate::peers::daemon::{Daemon, free_address};
use crate::peers::{setup, webdav};
use crate::workload::{ArchiveKind, Workload};

const VERSION: &str = "0.47.0";

/// The peer.
#[derive(Clone, Debug)]
pub struct Dufs {
    dir: PathBuf,
}

const NO_TAR: &str = "it makes no tar archives";
const NO_H2: &str = "it speaks HTTP/1.1 alone";
const ABLE: Abilities = Abilities {
    get: Ok(()),
    put_whole: Ok(()),
    put_chunks: Err("it has no resumable uploads that create a file"),
    put_parts: Err("it has no parts"),
    zip: Ok(()),
    tar: Err(NO_TAR),
    tls: Ok(()),
    h2_plain: Err(NO_H2),
    h2_tls: Err(NO_H2),
};

impl Dufs {
    /// In the peers' directory.
    #[must_use]
    pub fn new(home: &Path) -> Self {
        Self {
            dir: home.join("dufs"),
        }
    }
}

impl Peer for Dufs {
    fn name(&self) -> &'static str {
        "dufs"
    }

    fn available(&self) -> Result<String, Reason> {
        setup::marked(&self.dir, self.name(), VERSION)?;
        Ok(format!("dufs {VERSION}"))
    }

    fn install(&self, log: &mut dyn Write) -> Result<(), Reason> {
        if self.available().is_err() {
            let cargo = setup::need("cargo", "a Rust toolchain")?;
            setup::emptied(&self.dir)?;
            writeln!(
                log,
                "   no registry has it built: this compiles for some minutes"
            )?;
            let build = tempfile::tempdir()?;
            let mut install = Command::new(cargo);
            install.args(["install", "dufs", "--locked", "--version", VERSION]);
            install.arg("--root").arg(&self.dir);
            install.arg("--target-dir").arg(build.path());
            setup::step(log, &mut install)?;
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
        let mut command = Command::new(self.dir.join("bin/dufs"));
        command.arg(fixture.folder()).args(["--bind", "127.0.0.1"]);
        command.arg("--port").arg(address.port().to_string());
        command.args(["--allow-all", "--compress", "none", "--log-format", ""]);
        if let Some(files) = &start.tls {
            command.arg("--tls-cert").arg(&files.chain);
            command.arg("--tls-key").arg(&files.key);
        }
        let log = start.scratch.join("dufs.log");
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

    fn archive(&self, dir: &str, bytes: u64, kind: ArchiveKind) -> Result<Call, Reason> {
        if kind == ArchiveKind::Tar {
            return Err(Reason::new(NO_TAR));
        }
        let content = Content::Archive { bytes_min: bytes };
        let expect = Expect {
            status: 200,
            content,
        };
        let target = format!("/{dir}?zip");
        Ok(Call::new("GET", &target, &[], Body::None, expect))
    }

    fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }
}
