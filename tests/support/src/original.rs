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

/// How often a start is tried.
const STARTS: usize = 3;

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

/// What its volume stands on.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The backend.
    pub backend: &'static str,
    /// Lines of the table of its options.
    pub options: String,
    /// A directory whose programs are found first.
    pub programs: Option<PathBuf>,
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
        let setup = Setup {
            backend: "vfs",
            options: String::new(),
            programs: None,
        };
        Self::start_on(python, etcd, (name, path), setup)
    }

    /// As [`Self::start`], on another backend.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    #[track_caller]
    pub fn start_on(python: &Path, etcd: SocketAddr, volume: (&str, &Path), setup: Setup) -> Self {
        let mut log = String::new();
        // Its ports are chosen by us, and another process may have taken one meanwhile.
        for _ in 0..STARTS {
            match Self::try_start(python, etcd, volume, &setup) {
                Ok(original) => return original,
                Err(said) => log = said,
            }
        }
        panic!("no start\n{log}");
    }

    /// One try; what it printed when it did not serve in time.
    fn try_start(
        python: &Path,
        etcd: SocketAddr,
        volume: (&str, &Path),
        setup: &Setup,
    ) -> Result<Self, String> {
        let dir = TempDir::with_prefix("storage-original-").expect("a temporary directory");
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (client, manager) = (at(free_port()), at(free_port()));
        let config = config(dir.path(), etcd, (client, manager), volume, setup);
        let file = dir.path().join("storage-proxy.toml");
        std::fs::write(&file, config).expect("the configuration is written");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let mut command = Command::new(python);
        command
            .args(["-m", "ai.backend.storage.server", "-f"])
            .arg(&file);
        command.env("TMPDIR", dir.path()).current_dir(dir.path());
        if let Some(programs) = &setup.programs {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", programs.display()));
        }
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
        match up {
            Some(true) => Ok(original),
            _ => Err(original.log()),
        }
    }

    /// The client-facing address.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// The manager-facing address.
    #[must_use]
    pub fn manager(&self) -> SocketAddr {
        self.manager
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

/// Its configuration, with ports and a scratch directory of its own.
fn config(
    scratch: &Path,
    etcd: SocketAddr,
    (client, manager): (SocketAddr, SocketAddr),
    (name, path): (&str, &Path),
    setup: &Setup,
) -> String {
    let table = |at: SocketAddr| format!("{{ host = \"{}\", port = {} }}", at.ip(), at.port());
    let internal = SocketAddr::from(([127, 0, 0, 1], free_port()));
    format!(
        "[etcd]\nnamespace = \"local\"\naddr = {}\n\
         [storage-proxy]\nnode-id = \"i-original\"\nnum-proc = 1\n\
         ipc-base-path = \"{}/ipc\"\nsecret = \"{TOKEN_SECRET}\"\n\
         session-expire = \"1d\"\nuser = -1\ngroup = -1\n\
         aiomonitor-termui-port = {}\naiomonitor-webui-port = {}\n\
         [api.client]\nservice-addr = {}\nssl-enabled = false\n\
         [api.manager]\nservice-addr = {}\ninternal-addr = {}\nssl-enabled = false\n\
         secret = \"{MANAGER_SECRET}\"\n\
         [volume.{name}]\nbackend = \"{}\"\npath = \"{}\"\n\
         [volume.{name}.options]\n{}\n\
         [logging]\nlevel = \"WARNING\"\ndrivers = [\"console\"]\n\
         [logging.pkg-ns]\n\"\" = \"WARNING\"\n\"ai.backend\" = \"WARNING\"\n",
        table(etcd),
        scratch.display(),
        free_port(),
        free_port(),
        table(client),
        table(manager),
        table(internal),
        setup.backend,
        path.display(),
        setup.options,
    )
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
