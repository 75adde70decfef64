//! The original: `backend.ai-storage-proxy` from PyPI, in a virtual environment of its own, with an
//! etcd and a Redis of its own.
//!
//! Set up as its documentation recommends: one worker process per core, log level WARNING. Its
//! event loop is `uvloop`: measured, downloads are as fast as with the default `asyncio`, uploads
//! some percent faster. Only its own processes are counted, not those of etcd and Redis, which no
//! transfer asks.
//!
//! Tokens for reading are minted here, as for ours; upload sessions are created through its
//! manager port.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proxy_core::id::VFolderId;
use proxy_core::relpath::RelPath;
use proxy_core::token::{DownloadClaims, Secret};
use serde_json::{Value, json};

use crate::call::{Answer, Body, Call, Content, Exchange, Expect};
use crate::fixture::{FOLDER, FileId, Fixture, SCOPE};
use crate::peer::{Peer, Reason, Running, Start, Upload};
use crate::peers::ability::Abilities;
use crate::peers::daemon::{Daemon, free_address};
use crate::peers::python;
use crate::peers::setup;
use crate::peers::tus;
use crate::workload::{ArchiveKind, Kind, Workload};

/// The release that our contract was read from, and that is measured.
const VERSION: &str = "26.2.0";
/// Later ones that stand beside ours in a fleet: tests start them, nothing measures them.
pub const LATER: [(&str, &str); 2] = [("original-26.8.1", "26.8.1"), ("original-26.9.6", "26.9.6")];
/// What all of them run on: `Requires-Python: >=3.13,<3.14`.
const PYTHON: &str = "3.13";
const VOLUME: &str = "bench";
const TOKEN_SECRET: &str = "bench-token-secret";
pub(crate) const MANAGER_SECRET: &str = "bench-manager-secret";
/// What it cannot start without, and the Debian packages that hold it.
const HELPERS: [(&str, &[&str]); 2] = [
    ("etcd", &["etcd-server"]),
    ("redis-server", &["redis-server", "redis-tools"]),
];
/// Its zip has no ZIP64: past an offset of 2 GiB its answer hangs.
const ZIP_BYTES_MAX: u64 = (2 << 30) - 1;
/// And no more members than this.
const ZIP_MEMBERS_MAX: u32 = 65_535;

/// The peer.
#[derive(Clone, Debug)]
pub struct Original {
    name: &'static str,
    version: &'static str,
    dir: PathBuf,
}

const NO_TAR: &str = "it makes no tar archives";
const NO_H2: &str = "it speaks HTTP/1.1 alone";
const ABLE: Abilities = Abilities {
    get: Ok(()),
    put_whole: Ok(()),
    put_chunks: Ok(()),
    put_parts: Err("its uploads only append"),
    zip: Ok(()),
    tar: Err(NO_TAR),
    tls: Ok(()),
    h2_plain: Err(NO_H2),
    h2_tls: Err(NO_H2),
};

impl Original {
    /// In the peers' directory.
    #[must_use]
    pub fn new(home: &Path) -> Self {
        Self::release(home, "original", VERSION)
    }

    /// A release under a name of its own, in the peers' directory.
    #[must_use]
    pub fn release(home: &Path, name: &'static str, version: &'static str) -> Self {
        let dir = home.join(name);
        Self { name, version, dir }
    }

    fn python(&self) -> PathBuf {
        self.dir.join("venv/bin/python")
    }

    /// A program of the system, or the one unpacked beside.
    fn helper(&self, name: &str) -> Command {
        let own = self.dir.join("debian/usr/bin").join(name);
        if own.is_file() {
            let mut command = Command::new(own);
            let libraries = setup::library_path(&self.dir.join("debian"));
            command.env("LD_LIBRARY_PATH", libraries);
            return command;
        }
        Command::new(setup::find(name).unwrap_or_else(|| name.into()))
    }
}

impl Peer for Original {
    fn name(&self) -> &'static str {
        self.name
    }

    fn available(&self) -> Result<String, Reason> {
        setup::marked(&self.dir, self.name, self.version)?;
        Ok(format!("backend.ai-storage-proxy {}", self.version))
    }

    fn install(&self, log: &mut dyn Write) -> Result<(), Reason> {
        if self.available().is_err() {
            let python = python::find(PYTHON, log)?;
            setup::emptied(&self.dir)?;
            let wanted = format!("backend.ai-storage-proxy=={}", self.version);
            python::environment(log, &python, &self.dir.join("venv"), &[&wanted])?;
            let missing = HELPERS
                .iter()
                .filter(|(name, _)| setup::find(name).is_none());
            let missing: Vec<&str> = missing
                .flat_map(|(_, packages)| *packages)
                .copied()
                .collect();
            let debian = self.dir.join("debian");
            if !missing.is_empty() {
                std::fs::create_dir_all(&debian)?;
                setup::unpack_debian(log, &debian, &missing)?;
            }
            setup::mark(&self.dir, self.version)?;
        }
        writeln!(log, "   {}", self.available()?)?;
        Ok(())
    }

    fn supports(&self, workload: &Workload) -> Result<(), Reason> {
        ABLE.check(workload)?;
        let zips = workload.load.iter().filter(|load| load.kind == Kind::Zip);
        for files in zips.filter_map(|load| load.files) {
            let bytes = u64::from(files.count).saturating_mul(files.bytes.0);
            if ZIP_BYTES_MAX < bytes || ZIP_MEMBERS_MAX < files.count {
                return Err(Reason::new(
                    "its zip archives hang past 2 GiB or 65,535 files",
                ));
            }
        }
        Ok(())
    }

    fn start(&self, fixture: &Fixture, start: &Start) -> Result<Box<dyn Running>, Reason> {
        Ok(Box::new(self.serve(&fixture.root, start)?))
    }
}

impl Original {
    /// Starts it on the volume `root`; comes back when it answers.
    pub(crate) fn serve(&self, root: &Path, start: &Start) -> Result<Server, Reason> {
        let redis = self.start_redis(start)?;
        let etcd = self.start_etcd(start)?;
        etcd.put("/sorna/local/config/redis/addr", &redis.1.to_string())?;
        let addresses = Addresses {
            etcd: etcd.address,
            client: free_address()?,
            manager: free_address()?,
            internal: free_address()?,
            monitors: [free_address()?.port(), free_address()?.port()],
        };
        let config = start.scratch.join("storage-proxy.toml");
        std::fs::write(&config, configuration(root, start, &addresses))?;
        let mut command = Command::new(self.python());
        command.args(["-m", "ai.backend.storage.server", "-f"]);
        command.arg(&config).env("TMPDIR", &start.scratch);
        command.current_dir(&start.scratch);
        let log = start.scratch.join("original.log");
        let mut daemon = Daemon::start(&mut command, &start.cores, &log)?;
        daemon.until_listening(addresses.manager)?;
        if start.tls.is_some() {
            daemon.until_listening(addresses.client)?;
        } else {
            daemon.until_answering(addresses.client)?;
        }
        Ok(Server {
            daemon,
            client: addresses.client,
            manager: addresses.manager,
            redis: redis.1,
            _helpers: [redis.0, etcd.daemon],
        })
    }

    fn start_redis(&self, start: &Start) -> Result<(Daemon, SocketAddr), Reason> {
        let address = free_address()?;
        let mut command = self.helper("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--port").arg(address.port().to_string());
        command.arg("--dir").arg(&start.scratch);
        let log = start.scratch.join("redis.log");
        let mut daemon = Daemon::start(&mut command, &[], &log)?;
        daemon.until_listening(address)?;
        Ok((daemon, address))
    }

    fn start_etcd(&self, start: &Start) -> Result<Etcd, Reason> {
        let (address, peer) = (free_address()?, free_address()?);
        let mut command = self.helper("etcd");
        command.arg("--data-dir").arg(start.scratch.join("etcd"));
        for name in ["listen-client-urls", "advertise-client-urls"] {
            command.arg(format!("--{name}=http://{address}"));
        }
        for name in ["listen-peer-urls", "initial-advertise-peer-urls"] {
            command.arg(format!("--{name}=http://{peer}"));
        }
        command.arg(format!("--initial-cluster=default=http://{peer}"));
        let log = start.scratch.join("etcd.log");
        let mut daemon = Daemon::start(&mut command, &[], &log)?;
        daemon.until_listening(address)?;
        Ok(Etcd { daemon, address })
    }
}

#[derive(Debug)]
struct Etcd {
    daemon: Daemon,
    address: SocketAddr,
}

impl Etcd {
    /// Through its JSON gateway.
    fn put(&self, key: &str, value: &str) -> Result<(), Reason> {
        let body = json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value)});
        let body = body.to_string();
        let len = body.len();
        let request = format!(
            "POST /v3/kv/put HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\
             Content-Length: {len}\r\n\r\n{body}"
        );
        let answer = setup::http(self.address, &request)?;
        if answer.starts_with("HTTP/1.1 200") {
            return Ok(());
        }
        Err(Reason(format!(
            "etcd: {answer}\n{}",
            self.daemon.log_tail()
        )))
    }
}

#[derive(Debug)]
struct Addresses {
    etcd: SocketAddr,
    client: SocketAddr,
    manager: SocketAddr,
    internal: SocketAddr,
    monitors: [u16; 2],
}

fn configuration(root: &Path, start: &Start, at: &Addresses) -> String {
    let address = |at: SocketAddr| format!("{{ host = \"{}\", port = {} }}", at.ip(), at.port());
    let tls = match &start.tls {
        Some(files) => format!(
            "ssl-enabled = true\nssl-cert = \"{}\"\nssl-privkey = \"{}\"",
            files.chain.display(),
            files.key.display()
        ),
        None => "ssl-enabled = false".to_owned(),
    };
    let scratch = start.scratch.display();
    let [termui, webui] = at.monitors;
    format!(
        "[etcd]\nnamespace = \"local\"\naddr = {}\n\
         [storage-proxy]\nnode-id = \"i-bench\"\nnum-proc = {}\nevent-loop = \"uvloop\"\n\
         ipc-base-path = \"{scratch}/ipc\"\nsecret = \"{TOKEN_SECRET}\"\n\
         session-expire = \"1d\"\nscandir-limit = 0\nuser = -1\ngroup = -1\n\
         aiomonitor-termui-port = {termui}\naiomonitor-webui-port = {webui}\n\
         [api.client]\nservice-addr = {}\n{tls}\n\
         [api.manager]\nservice-addr = {}\ninternal-addr = {}\nssl-enabled = false\n\
         secret = \"{MANAGER_SECRET}\"\n\
         [volume.{VOLUME}]\nbackend = \"vfs\"\npath = \"{}\"\n\
         [logging]\nlevel = \"WARNING\"\ndrivers = [\"console\"]\n\
         [logging.pkg-ns]\n\"\" = \"WARNING\"\n\"ai.backend\" = \"WARNING\"\n",
        address(at.etcd),
        start.cores.len().max(1),
        address(at.client),
        address(at.manager),
        address(at.internal),
        root.display(),
    )
}

/// It runs.
#[derive(Debug)]
pub(crate) struct Server {
    daemon: Daemon,
    client: SocketAddr,
    pub(crate) manager: SocketAddr,
    /// Where it notes how far its background tasks are.
    pub(crate) redis: SocketAddr,
    _helpers: [Daemon; 2],
}

fn vfid() -> Result<VFolderId, Reason> {
    let text = format!("{SCOPE}/{FOLDER}");
    text.parse()
        .map_err(|error| Reason(format!("{text}: {error}")))
}

fn token(relpath: &str) -> Result<String, Reason> {
    let claims = DownloadClaims {
        volume: VOLUME.to_owned(),
        vfid: vfid()?,
        relpath: RelPath::parse(relpath).map_err(|error| Reason(error.to_string()))?,
        exp: u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0) + 24 * 3600,
        unmanaged_path: None,
    };
    Ok(claims.mint(&Secret::new(TOKEN_SECRET)))
}

impl Running for Server {
    fn pids(&self) -> Vec<u32> {
        vec![self.daemon.pid()]
    }

    fn address(&self) -> SocketAddr {
        self.client
    }

    fn get(&self, fixture: &Fixture, file: FileId) -> Result<Call, Reason> {
        let found = fixture.file(file);
        let target = format!("/download?token={}", token(&found.name)?);
        Ok(Call::get(&target, file, found.bytes))
    }

    fn put(&self, upload: &Upload) -> Result<Box<dyn Exchange>, Reason> {
        let body = json!({
            "volume": VOLUME,
            "vfid": format!("{SCOPE}/{FOLDER}"),
            "relpath": upload.target,
            "size": upload.bytes,
        });
        let create = tus::manager_create(self.manager, MANAGER_SECRET, &body);
        Ok(Box::new(tus::Sending::new(create, place, upload)?))
    }

    fn archive(&self, dir: &str, bytes: u64, kind: ArchiveKind) -> Result<Call, Reason> {
        if kind == ArchiveKind::Tar {
            return Err(Reason::new(NO_TAR));
        }
        let target = format!("/download?token={}&archive=true", token(dir)?);
        let content = Content::Archive { bytes_min: bytes };
        let expect = Expect {
            status: 200,
            content,
        };
        Ok(Call::new("GET", &target, &[], Body::None, expect))
    }

    fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }
}

fn place(answer: &Answer) -> Result<String, String> {
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let token = value.get("token").and_then(Value::as_str);
    Ok(format!(
        "/upload?token={}",
        token.ok_or("no token in the answer")?
    ))
}
