//! Our server as a peer: `storage-proxy serve` with its defaults, on a home of its own.
//!
//! Tokens for reading are minted here, with the secret that the configuration names: a client
//! gets them from the Manager, never from the server that is measured. Upload sessions are
//! created through the manager port, as the Manager does.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_core::id::VFolderId;
use proxy_core::relpath::RelPath;
use proxy_core::token::{DownloadClaims, Secret};
use serde_json::{Value, json};

use crate::call::{Answer, Body, Call, Content, Exchange, Expect, Step};
use crate::fixture::{FOLDER, FileId, Fixture, SCOPE};
use crate::peer::{Peer, Reason, Running, Start, Upload, Way, tail};
use crate::process;
use crate::workload::{ArchiveKind, Workload};

const VOLUME: &str = "bench";
const TOKEN_SECRET: &str = "bench-token-secret";
const MANAGER_SECRET: &str = "bench-manager-secret";
/// From start to the first answer.
const START_BOUND: Duration = Duration::from_secs(30);
/// From the last byte of a run until all gauges are back.
const REST_BOUND: Duration = Duration::from_secs(20);
/// What reads zero when nothing is under way.
const REST_GAUGES: [&str; 4] = [
    "connections",
    "buffers_in_use",
    "inflight_operations",
    "pipes_in_use",
];
/// Descriptors of pipes that threads keep for the next downloads.
const PIPES_KEPT_MAX: u64 = 256;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// The peer.
#[derive(Clone, Debug)]
pub struct Ours {
    /// The program `storage-proxy`.
    pub program: PathBuf,
}

impl Ours {
    /// With the given program, or the one that lies beside the running one.
    #[must_use]
    pub fn new(program: Option<&Path>) -> Self {
        let beside = || {
            let exe = std::env::current_exe().unwrap_or_default();
            exe.with_file_name("storage-proxy")
        };
        Self {
            program: program.map_or_else(beside, Path::to_owned),
        }
    }
}

impl Peer for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn available(&self) -> Result<String, Reason> {
        let output = Command::new(&self.program).arg("--version").output();
        let output = output.map_err(|error| {
            Reason(format!(
                "{}: {error}; build it first",
                self.program.display()
            ))
        })?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn install(&self, _: &mut dyn std::io::Write) -> Result<(), Reason> {
        self.available().map(drop)
    }

    fn supports(&self, _: &Workload) -> Result<(), Reason> {
        Ok(())
    }

    fn start(&self, fixture: &Fixture, start: &Start) -> Result<Box<dyn Running>, Reason> {
        let config = start.scratch.join("storage-proxy.toml");
        std::fs::write(&config, configuration(fixture, start))?;
        let data = start.scratch.join("home");
        let log_path = start.scratch.join("log");
        let log = std::fs::File::create(&log_path)?;
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(&config);
        command.arg("--data-dir").arg(&data);
        for port in ["--client-addr", "--manager-addr", "--internal-addr"] {
            command.arg(port).arg("127.0.0.1:0");
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = process::spawn_on(&mut command, &start.cores)?;
        let mut server = Server {
            child,
            log: log_path,
            client: SocketAddr::from(([127, 0, 0, 1], 0)),
            manager: SocketAddr::from(([127, 0, 0, 1], 0)),
            internal: SocketAddr::from(([127, 0, 0, 1], 0)),
            descriptors: 0,
        };
        server.await_ready(&data.join("runtime.json"))?;
        server.descriptors = process::usage(&server.pids()).descriptors;
        Ok(Box::new(server))
    }
}

fn configuration(fixture: &Fixture, start: &Start) -> String {
    let mut text = format!(
        "[storage-proxy]\nnode-id = \"i-bench\"\nnum-proc = {}\nsecret = \"{TOKEN_SECRET}\"\n\
         session-expire = \"1d\"\n\
         [api.client]\nservice-addr = {{ host = \"127.0.0.1\", port = 6021 }}\n",
        start.cores.len().max(1)
    );
    // Writing into a String cannot fail.
    let _ = match &start.tls {
        Some(files) => writeln!(
            text,
            "ssl-enabled = true\nssl-cert = \"{}\"\nssl-privkey = \"{}\"",
            files.chain.display(),
            files.key.display()
        ),
        None => writeln!(text, "ssl-enabled = false"),
    };
    let _ = write!(
        text,
        "[api.manager]\nservice-addr = {{ host = \"127.0.0.1\", port = 6022 }}\n\
         internal-addr = {{ host = \"127.0.0.1\", port = 16023 }}\n\
         ssl-enabled = false\nsecret = \"{MANAGER_SECRET}\"\n\
         [volume.{VOLUME}]\nbackend = \"vfs\"\npath = \"{}\"\n\
         [logging]\nlevel = \"WARNING\"\n",
        fixture.root.display()
    );
    text
}

/// A server of ours that runs.
#[derive(Debug)]
struct Server {
    child: Child,
    log: PathBuf,
    client: SocketAddr,
    manager: SocketAddr,
    internal: SocketAddr,
    /// Open before the first client came.
    descriptors: u64,
}

impl Server {
    fn await_ready(&mut self, runtime: &Path) -> Result<(), Reason> {
        let end = Instant::now() + START_BOUND;
        loop {
            if let Some([client, manager, internal]) = addresses(runtime) {
                (self.client, self.manager, self.internal) = (client, manager, internal);
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(Reason(format!("ended with {status}\n{}", tail(&self.log))));
            }
            if end < Instant::now() {
                return Err(Reason(format!("not ready in time\n{}", tail(&self.log))));
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn addresses(runtime: &Path) -> Option<[SocketAddr; 3]> {
    let value: Value = serde_json::from_slice(&std::fs::read(runtime).ok()?).ok()?;
    let address = |name: &str| {
        let text = value.get(name)?.as_str()?;
        text.rsplit('/').next()?.parse().ok()
    };
    Some([
        address("client")?,
        address("manager")?,
        address("internal")?,
    ])
}

impl Drop for Server {
    fn drop(&mut self) {
        // Our own child; whether it ended before does not matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
        vec![self.child.id()]
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
        Ok(Box::new(Sending {
            manager: self.manager,
            upload: upload.clone(),
            state: State::Begin,
        }))
    }

    fn archive(&self, dir: &str, bytes: u64, kind: ArchiveKind) -> Result<Call, Reason> {
        let format = match kind {
            ArchiveKind::Zip => "",
            ArchiveKind::Tar => "&format=tar",
        };
        let target = format!("/download?token={}&archive=true{format}", token(dir)?);
        let content = Content::Archive { bytes_min: bytes };
        let expect = Expect {
            status: 200,
            content,
        };
        Ok(Call::new("GET", &target, &[], Body::None, expect))
    }

    fn at_rest(&self) -> Result<(), Reason> {
        let end = Instant::now() + REST_BOUND;
        loop {
            let page = metrics(self.internal)?;
            let mut busy: Vec<String> = REST_GAUGES
                .iter()
                .map(|name| (name, gauge(&page, name)))
                .filter(|(_, value)| *value != Some(0.0))
                .map(|(name, value)| format!("{name}={value:?}"))
                .collect();
            // Hot files stay open, and pipes for the next downloads.
            let kept = gauge(&page, "hot_files").unwrap_or(0.0) as u64;
            let open = process::usage(&self.pids()).descriptors;
            if self.descriptors + kept + PIPES_KEPT_MAX < open {
                busy.push(format!(
                    "{open} descriptors, {} at the start",
                    self.descriptors
                ));
            }
            if busy.is_empty() {
                return Ok(());
            }
            if end < Instant::now() {
                return Err(Reason(format!("not at rest: {}", busy.join(" "))));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

/// An upload: a session from the manager port, then its bytes.
#[derive(Debug)]
struct Sending {
    manager: SocketAddr,
    upload: Upload,
    state: State,
}

#[derive(Debug)]
enum State {
    Begin,
    Minted,
    Sent { token: String, to: u64 },
    Last,
}

impl Sending {
    fn create(&self) -> Call {
        let body = json!({
            "volume": VOLUME,
            "vfid": format!("{SCOPE}/{FOLDER}"),
            "relpath": self.upload.target,
            "size": self.upload.bytes,
        });
        let auth = format!("X-BackendAI-Storage-Auth-Token: {MANAGER_SECRET}");
        let headers = [auth.as_str(), "Content-Type: application/json"];
        let body = Body::Bytes(Arc::from(body.to_string().as_bytes()));
        let expect = Expect {
            status: 200,
            content: Content::Kept,
        };
        let mut call = Call::new("POST", "/folder/file/upload", &headers, body, expect);
        call.to = Some(self.manager);
        call
    }

    fn patch(&self, token: &str, from: u64, len: u64, fresh: bool) -> Call {
        let offset = format!("Upload-Offset: {from}");
        let headers = [
            "Tus-Resumable: 1.0.0",
            offset.as_str(),
            "Content-Type: application/offset+octet-stream",
        ];
        let mut call = self.send("PATCH", token, &headers, from, len);
        call.fresh = fresh;
        call
    }

    fn part(&self, token: &str, from: u64, len: u64) -> Call {
        let total = self.upload.bytes;
        let range = format!("Content-Range: bytes {from}-{}/{total}", from + len - 1);
        self.send("PUT", token, &[range.as_str()], from, len)
    }

    fn send(&self, method: &str, token: &str, headers: &[&str], from: u64, len: u64) -> Call {
        let target = format!("/upload?token={token}");
        let file = self.upload.source;
        let expect = Expect {
            status: 204,
            content: Content::Kept,
        };
        Call::new(
            method,
            &target,
            headers,
            Body::File { file, from, len },
            expect,
        )
    }

    /// The calls that begin at `from`, and the position after them.
    fn calls(&self, token: &str, from: u64) -> (Vec<Call>, u64) {
        let total = self.upload.bytes;
        match self.upload.way {
            Way::Whole => (vec![self.patch(token, 0, total, false)], total),
            Way::Chunks { bytes, fresh } => {
                let len = bytes.min(total - from);
                (vec![self.patch(token, from, len, fresh)], from + len)
            }
            Way::Parts(count) => {
                let size = total.div_ceil(u64::from(count)).max(1);
                let starts = (0..total).step_by(usize::try_from(size).unwrap_or(usize::MAX));
                let part = |at: u64| self.part(token, at, size.min(total - at));
                (starts.map(part).collect(), total)
            }
        }
    }
}

impl Exchange for Sending {
    fn next(&mut self, answers: &[Answer]) -> Result<Step, String> {
        let (token, from) = match std::mem::replace(&mut self.state, State::Last) {
            State::Begin => {
                self.state = State::Minted;
                return Ok(Step::Calls(vec![self.create()]));
            }
            State::Minted => {
                let body = answers.first().map_or(&[][..], |answer| &answer.body);
                let value: Value = serde_json::from_slice(body).unwrap_or_default();
                let token = value.get("token").and_then(Value::as_str);
                (token.ok_or("no token in the answer")?.to_owned(), 0)
            }
            State::Sent { token, to } => (token, to),
            State::Last => return Ok(Step::Done),
        };
        let (calls, to) = self.calls(&token, from);
        if to < self.upload.bytes {
            self.state = State::Sent { token, to };
        }
        Ok(Step::Calls(calls))
    }
}

/// The text of the metrics page.
fn metrics(internal: SocketAddr) -> Result<String, Reason> {
    let mut stream = TcpStream::connect(internal)?;
    stream.set_read_timeout(Some(REST_BOUND))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The sum of all series of a gauge; `None` when the page has none.
fn gauge(page: &str, name: &str) -> Option<f64> {
    let full = format!("storage_proxy_{name}");
    let values: Vec<f64> = page
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(&full)?;
            let rest = match rest.strip_prefix('{') {
                Some(labels) => labels.split_once('}')?.1,
                None => rest,
            };
            rest.strip_prefix(' ')?.trim().parse().ok()
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
