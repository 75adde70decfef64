//! `@tus/server` with `@tus/file-store` from npm: the reference server of the tus protocol for
//! Node.js.
//!
//! Set up as its README does, by a script of ours (`bench/peers/tus-server`): one process, which
//! is how its locks in memory are meant; its file system calls run on libuv's four threads. It
//! keeps a JSON file beside each upload, and syncs nothing.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::call::{Answer, Body, Call, Content, Exchange, Expect};
use crate::fixture::{FileId, Fixture, UPLOADS};
use crate::peer::{Peer, Reason, Running, Start, Upload};
use crate::peers::ability::Abilities;
use crate::peers::daemon::{Daemon, free_address};
use crate::peers::setup;
use crate::peers::tus;
use crate::workload::{ArchiveKind, Workload};

const SCRIPT: &str = include_str!("../../peers/tus-server/server.mjs");
const PACKAGE: &str = include_str!("../../peers/tus-server/package.json");
/// Of `@tus/server`, as `package.json` has it.
const VERSION: &str = "2.4.5";

/// The peer.
#[derive(Clone, Debug)]
pub struct TusServer {
    dir: PathBuf,
}

const NO_GET: &str = "it gives only what was uploaded to it";
const NO_ARCHIVES: &str = "it makes no archives";
const NO_TLS: &str = "it leaves encryption to a proxy before it";
const NO_H2: &str = "it speaks HTTP/1.1 alone";
const ABLE: Abilities = Abilities {
    get: Err(NO_GET),
    put_whole: Ok(()),
    put_chunks: Ok(()),
    put_parts: Err("its file store has no concatenation"),
    zip: Err(NO_ARCHIVES),
    tar: Err(NO_ARCHIVES),
    tls: Err(NO_TLS),
    h2_plain: Err(NO_H2),
    h2_tls: Err(NO_H2),
};

impl TusServer {
    /// In the peers' directory.
    #[must_use]
    pub fn new(home: &Path) -> Self {
        Self {
            dir: home.join("tus-server"),
        }
    }
}

impl Peer for TusServer {
    fn name(&self) -> &'static str {
        "tus-server"
    }

    fn available(&self) -> Result<String, Reason> {
        setup::marked(&self.dir, self.name(), VERSION)?;
        let node = setup::need("node", "Node.js 20.19 or newer")?;
        let node = setup::ask(node, &["--version"]).unwrap_or_default();
        Ok(format!("@tus/server {VERSION}, node {}", node.trim()))
    }

    fn install(&self, log: &mut dyn Write) -> Result<(), Reason> {
        if self.available().is_err() {
            let npm = setup::need("npm", "Node.js 20.19 or newer")?;
            setup::emptied(&self.dir)?;
            std::fs::write(self.dir.join("server.mjs"), SCRIPT)?;
            std::fs::write(self.dir.join("package.json"), PACKAGE)?;
            let mut install = Command::new(npm);
            install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]);
            setup::step(log, install.current_dir(&self.dir))?;
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
        let mut command = Command::new(setup::need("node", "Node.js")?);
        command.arg(self.dir.join("server.mjs"));
        command.arg(fixture.folder().join(UPLOADS));
        command.arg(address.port().to_string());
        command.env("NODE_ENV", "production");
        let log = start.scratch.join("tus-server.log");
        let mut daemon = Daemon::start(&mut command, &start.cores, &log)?;
        daemon.until_answering(address)?;
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

    fn get(&self, _: &Fixture, _: FileId) -> Result<Call, Reason> {
        Err(Reason::new(NO_GET))
    }

    fn put(&self, upload: &Upload) -> Result<Box<dyn Exchange>, Reason> {
        let name = upload.target.rsplit('/').next().unwrap_or_default();
        let length = format!("Upload-Length: {}", upload.bytes);
        let metadata = format!("Upload-Metadata: filename {}", STANDARD.encode(name));
        let headers = ["Tus-Resumable: 1.0.0", length.as_str(), metadata.as_str()];
        let expect = Expect {
            status: 201,
            content: Content::Kept,
        };
        let none = Body::Bytes(Vec::new().into());
        let create = Call::new("POST", "/files", &headers, none, expect);
        Ok(Box::new(tus::Sending::new(create, place, upload)?))
    }

    fn archive(&self, _: &str, _: u64, _: ArchiveKind) -> Result<Call, Reason> {
        Err(Reason::new(NO_ARCHIVES))
    }

    fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }
}

fn place(answer: &Answer) -> Result<String, String> {
    let place = answer.header("location");
    Ok(place.ok_or("no Location in the answer")?.to_owned())
}
