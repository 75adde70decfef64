//! The program that ours replaces, started beside it: one volume, one Redis, one etcd.
//!
//! Where its releases are installed is in `STORAGE_TEST_ORIGINALS`, as `<there>/sp-<release>`;
//! without that, where `storage-bench peers install original-<release>` (or the peer of the
//! benchmarks, `original`) puts them.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Request, Response};
use crate::redis::free_port;
use crate::server::{MANAGER_SECRET, TOKEN_SECRET};
use crate::wait;

/// Python imports for seconds on a busy machine.
const START_BOUND: Duration = Duration::from_secs(120);

/// The release that `storage-bench peers install original` installs.
const PEER: &str = "26.2.0";

/// A running original. Dropping it kills the processes it started.
#[derive(Debug)]
pub struct Original {
    child: Child,
    client: SocketAddr,
    manager: SocketAddr,
    dir: TempDir,
}

/// The interpreter of an installed release; `None`, and a line in the output, where there is none.
#[must_use]
pub fn python(release: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = cache.or_else(home);
    let places = [
        std::env::var_os("STORAGE_TEST_ORIGINALS")
            .map(|dir| PathBuf::from(dir).join(format!("sp-{release}"))),
        cache
            .as_ref()
            .map(|dir| dir.join(format!("storage-bench/original-{release}/venv"))),
        // Where the peer of the benchmarks is.
        cache
            .filter(|_| release == PEER)
            .map(|dir| dir.join("storage-bench/original/venv")),
    ];
    let found = places
        .into_iter()
        .flatten()
        .map(|dir| dir.join("bin/python"));
    let found = found.into_iter().find(|python| python.is_file());
    if found.is_none() {
        crate::skip(format_args!(
            "release {release} of the original is not installed: \
             storage-bench peers install original-{release}"
        ));
    }
    found
}

impl Original {
    /// Starts a release on the volume `name` at `path`. Redis is named in etcd, below the namespace
    /// `local`.
    ///
    /// # Panics
    /// When it does not answer within the bound.
    #[must_use]
    #[track_caller]
    pub fn start(python: &Path, etcd: SocketAddr, name: &str, path: &Path) -> Self {
        let dir = TempDir::with_prefix("storage-original-").expect("a temporary directory");
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (client, manager) = (at(free_port()), at(free_port()));
        let table = |at: SocketAddr| format!("{{ host = \"{}\", port = {} }}", at.ip(), at.port());
        let scratch = dir.path().display();
        let config = format!(
            "[etcd]\nnamespace = \"local\"\naddr = {}\n\
             [storage-proxy]\nnode-id = \"i-original\"\nnum-proc = 1\n\
             ipc-base-path = \"{scratch}/ipc\"\nsecret = \"{TOKEN_SECRET}\"\n\
             session-expire = \"1d\"\nuser = -1\ngroup = -1\n\
             aiomonitor-termui-port = {}\naiomonitor-webui-port = {}\n\
             [api.client]\nservice-addr = {}\nssl-enabled = false\n\
             [api.manager]\nservice-addr = {}\ninternal-addr = {}\nssl-enabled = false\n\
             secret = \"{MANAGER_SECRET}\"\n\
             [volume.{name}]\nbackend = \"vfs\"\npath = \"{}\"\n\
             [logging]\nlevel = \"WARNING\"\ndrivers = [\"console\"]\n\
             [logging.pkg-ns]\n\"\" = \"WARNING\"\n\"ai.backend\" = \"WARNING\"\n",
            table(etcd),
            free_port(),
            free_port(),
            table(client),
            table(manager),
            table(at(free_port())),
            path.display(),
        );
        let file = dir.path().join("storage-proxy.toml");
        std::fs::write(&file, config).expect("the configuration is written");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let mut command = Command::new(python);
        command
            .args(["-m", "ai.backend.storage.server", "-f"])
            .arg(&file);
        command.env("TMPDIR", dir.path()).current_dir(dir.path());
        command.stdin(Stdio::null()).process_group(0);
        command
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        let child = command.spawn().expect("the interpreter starts");
        let mut original = Self {
            child,
            client,
            manager,
            dir,
        };
        let is_up = |at: SocketAddr| std::net::TcpStream::connect(at).is_ok();
        let up = wait::within(START_BOUND, || {
            let ended = original.child.try_wait().expect("our own child");
            let up = is_up(client) && is_up(manager);
            (up || ended.is_some()).then_some(up)
        });
        assert!(up == Some(true), "no start\n{}", original.log());
        original
    }

    /// The client-facing address.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// Asks the manager-facing port as the Manager does.
    #[must_use]
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Response {
        Request::new(method, path)
            .header("X-BackendAI-Storage-Auth-Token", MANAGER_SECRET)
            .json(body)
            .send(self.manager)
    }

    /// A token for an upload.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    #[track_caller]
    pub fn begin(&self, volume: &str, vfid: &str, relpath: &str, size: u64) -> String {
        let body = json!({"volume": volume, "vfid": vfid, "relpath": relpath, "size": size});
        let answer = self
            .ask("POST", "/folder/file/upload", &body)
            .expect(200)
            .json();
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// What it printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id() as i32) {
            // Its workers are in its group.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the original ---\n{}", self.log());
        }
    }
}
