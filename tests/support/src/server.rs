//! The program under test: started with its own directory, ports and secrets; ended with its value.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::etcd::Etcd;
use crate::http::{Request, Response};
use crate::redis::RedisServer;
use crate::wait;

/// Signs download, upload and archive tokens.
pub const TOKEN_SECRET: &str = "token-signing-secret";
/// What the Manager shows in `X-BackendAI-Storage-Auth-Token`.
pub const MANAGER_SECRET: &str = "manager-shared-secret";
/// The volume that every test server has.
pub const VOLUME: &str = "volume1";
/// A second one, for whatever crosses volumes.
pub const OTHER_VOLUME: &str = "volume2";
/// A volume whose path does not exist, where [`Settings::gone_volume`] asks for it.
pub const GONE_VOLUME: &str = "gone";

/// From start to the first answer.
const START_BOUND: Duration = Duration::from_secs(30);
/// From SIGTERM to the end of the process.
const STOP_BOUND: Duration = Duration::from_secs(60);

/// What can differ from test to test.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `node-id`: servers of one fleet differ in it.
    pub node_id: String,
    /// Lines added to `[storage-proxy]`.
    pub proxy_lines: String,
    /// Lines added to `[api.manager]`.
    pub manager_lines: String,
    /// Where the volumes of another server are, to be shared with it.
    pub volumes: Option<PathBuf>,
    /// Whole tables added to the configuration.
    pub tables: String,
    /// `session-expire`: how long tokens live.
    pub session_expire: String,
    /// Where the volumes and the state go; a temporary directory when `None`.
    pub root: Option<PathBuf>,
    /// Backend and directory of [`VOLUME`]; `vfs` on a directory of its own when `None`.
    pub volume: Option<(&'static str, PathBuf)>,
    /// Also configure [`GONE_VOLUME`]: one sick volume must not stop the others.
    pub gone_volume: bool,
    /// Certificate chain and key, both PEM files: TLS on the client port.
    pub client_tls: Option<(PathBuf, PathBuf)>,
    /// Environment variables for the program.
    pub environment: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_id: "i-test".to_owned(),
            proxy_lines: String::new(),
            manager_lines: String::new(),
            volumes: None,
            tables: String::new(),
            session_expire: "1d".to_owned(),
            root: None,
            volume: None,
            gone_volume: false,
            client_tls: None,
            environment: Vec::new(),
        }
    }
}

impl Settings {
    /// A member of a fleet: `tables` say where etcd and Redis are.
    #[must_use]
    pub fn fleet(node_id: &str, tables: impl Into<String>) -> Self {
        Self {
            node_id: node_id.to_owned(),
            tables: tables.into(),
            ..Self::default()
        }
    }
}

/// The program to test: `built`, unless `STORAGE_TEST_PROGRAM` names another.
#[must_use]
pub fn program_under_test(built: &str) -> PathBuf {
    std::env::var_os("STORAGE_TEST_PROGRAM").map_or_else(|| built.into(), PathBuf::from)
}

/// Where a started server listens, as it wrote into its runtime file.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The client-facing port.
    pub client: SocketAddr,
    /// The manager-facing port.
    pub manager: SocketAddr,
    /// Metrics and health.
    pub internal: SocketAddr,
}

/// A running server and its directory. Dropping it kills the process it started.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    settings: Settings,
    dir: TempDir,
    child: Option<Child>,
    addresses: Addresses,
    /// What it has for neighbours, where `STORAGE_TEST_FLEET` asks for them.
    fleet: Option<(RedisServer, Etcd)>,
}

/// Any test's server is a member of a fleet of its own then.
const FLEET: &str = "STORAGE_TEST_FLEET";

/// Redis and etcd for a server whose test says nothing of them.
fn fleet(settings: &Settings) -> Option<(RedisServer, Etcd)> {
    let says_something = ["[redis", "[etcd"]
        .iter()
        .any(|table| settings.tables.contains(table));
    if says_something || std::env::var_os(FLEET).is_none() {
        return None;
    }
    let (redis, etcd) = (RedisServer::start()?, Etcd::start()?);
    etcd.put("/sorna/local/config/redis/addr", &redis.addr().to_string());
    Some((redis, etcd))
}

impl Server {
    /// Starts `program` with default settings; tests pass `env!("CARGO_BIN_EXE_storage-proxy")`.
    ///
    /// # Panics
    /// When it does not answer within the bound; the message holds its log.
    #[must_use]
    #[track_caller]
    pub fn start(program: &str) -> Self {
        Self::start_with(program, Settings::default())
    }

    /// Starts [`program_under_test`] with these settings.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    #[track_caller]
    pub fn start_with(program: &str, settings: Settings) -> Self {
        let dir = match &settings.root {
            Some(root) => TempDir::with_prefix_in("storage-test-", root),
            None => TempDir::with_prefix("storage-test-"),
        };
        let dir = dir.expect("a temporary directory");
        // For servers that become another user.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("our own");
        for part in ["state", VOLUME, OTHER_VOLUME, "outside"] {
            std::fs::create_dir(dir.path().join(part)).expect("a directory for the test");
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let addresses = Addresses {
            client: nowhere,
            manager: nowhere,
            internal: nowhere,
        };
        let mut server = Self {
            program: program_under_test(program),
            fleet: fleet(&settings),
            settings,
            dir,
            child: None,
            addresses,
        };
        server.restart();
        server
    }

    /// Starts the program again on the same data, after [`Self::kill`] or [`Self::stop`].
    ///
    /// # Panics
    /// When it still runs, or does not answer within the bound.
    #[track_caller]
    pub fn restart(&mut self) {
        let runtime = self.spawn();
        self.addresses = self.await_ready(&runtime);
    }

    /// Starts the program again and kills it after `delay`, ready or not.
    ///
    /// # Panics
    /// When it still runs, or does not start at all.
    #[track_caller]
    pub fn restart_and_kill(&mut self, delay: Duration) {
        self.spawn();
        let _ = wait::within(delay, || None::<()>);
        self.kill();
    }

    /// Starts the program; yields the file that will say where it listens.
    #[track_caller]
    fn spawn(&mut self) -> PathBuf {
        assert!(self.child.is_none(), "still running");
        let config = self.dir.path().join("storage-proxy.toml");
        std::fs::write(&config, self.config()).expect("the configuration is written");
        let runtime = self.runtime_file();
        let _ = std::fs::remove_file(&runtime);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the log file opens");
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(&config);
        command.arg("--data-dir").arg(self.dir.path().join("state"));
        for port in ["--client-addr", "--manager-addr", "--internal-addr"] {
            command.arg(port).arg("127.0.0.1:0");
        }
        command.envs(self.settings.environment.iter().cloned());
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"));
        let child = command.stderr(log).spawn().expect("the program starts");
        self.child = Some(child);
        runtime
    }

    /// Changes the settings for the next [`Self::restart`].
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// The client-facing address.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.addresses.client
    }

    /// The manager-facing address.
    #[must_use]
    pub fn manager(&self) -> SocketAddr {
        self.addresses.manager
    }

    /// The internal address.
    #[must_use]
    pub fn internal(&self) -> SocketAddr {
        self.addresses.internal
    }

    /// The test's directory: volumes, `outside`, state, log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The mount path of a volume.
    #[must_use]
    pub fn volume(&self, name: &str) -> PathBuf {
        match (&self.settings.volume, &self.settings.volumes) {
            (Some((_, path)), _) if name == VOLUME => path.clone(),
            (_, Some(shared)) => shared.join(name),
            (_, None) => self.dir.path().join(name),
        }
    }

    /// A directory beside the volumes, that no request may ever read or change.
    #[must_use]
    pub fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// Asks the manager-facing port as the Manager does: secret in the header, JSON in the body.
    #[must_use]
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Response {
        self.manager_request(method, path)
            .json(body)
            .send(self.manager())
    }

    /// A request with the Manager's secret, not sent yet.
    #[must_use]
    pub fn manager_request(&self, method: &str, path: &str) -> Request {
        Request::new(method, path).header("X-BackendAI-Storage-Auth-Token", MANAGER_SECRET)
    }

    /// The process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Whether it was started and not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// kill -9, and wait for the end.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    /// SIGTERM, and wait for the drain.
    ///
    /// # Panics
    /// When it does not end within the bound.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.await_end()
    }

    /// Sends a signal to the process.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a process id is not zero");
        kill_process(pid, signal).expect("our own child");
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// When it does not end within the bound.
    #[track_caller]
    pub fn await_end(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let status = wait::within(STOP_BOUND, || child.try_wait().expect("our own child"));
        match status {
            Some(status) => {
                self.child = None;
                status
            }
            None => panic!("no end within {STOP_BOUND:?}\n{}", self.log_tail()),
        }
    }

    /// The end of a test that went well: gauges and descriptors are back, the log holds no
    /// panic and no error, and the program drains with exit code 0.
    ///
    /// # Panics
    /// When one of these is not so.
    #[track_caller]
    pub fn finish(mut self) {
        self.assert_at_rest();
        let status = self.stop();
        assert!(status.success(), "exit {status}\n{}", self.log_tail());
        let log = self.log();
        for line in log.lines() {
            let error = line.contains(" ERROR ") && !line.contains("volume=gone");
            let bad = error || line.contains("panicked at");
            assert!(!bad, "in the log: {line}");
        }
    }

    /// Waits until the data plane's gauges say that nothing is in flight.
    ///
    /// # Panics
    /// When they do not within the bound: something leaks.
    #[track_caller]
    pub fn assert_at_rest(&self) {
        let gauges = ["connections", "buffers_in_use", "inflight_operations"];
        let mut last = String::new();
        let rest = wait::within(Duration::from_secs(20), || {
            let metrics = self.metrics();
            last = gauges
                .map(|g| format!("storage_proxy_{g}={:?}", gauge(&metrics, g)))
                .join(" ");
            gauges
                .iter()
                .all(|g| gauge(&metrics, g) == Some(0.0))
                .then_some(())
        });
        assert!(rest.is_some(), "not at rest: {last}");
    }

    /// The text of the metrics page.
    #[must_use]
    #[track_caller]
    pub fn metrics(&self) -> String {
        Request::new("GET", "/metrics")
            .send(self.internal())
            .expect(200)
            .text()
    }

    /// How many descriptors the process has open.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// What the descriptors of the process are.
    #[must_use]
    pub fn open_files(&self) -> Vec<String> {
        let dir = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        let links = dir.into_iter().flatten().flatten();
        let mut names: Vec<String> = links
            .filter_map(|link| std::fs::read_link(link.path()).ok())
            .map(|target| target.display().to_string())
            .collect();
        names.sort();
        names
    }

    /// A line of `/proc/<pid>/status` in bytes, such as `VmHWM`.
    ///
    /// # Panics
    /// When the kernel does not show it.
    #[must_use]
    #[track_caller]
    pub fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the process runs");
        let found = status
            .lines()
            .find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
        let kib: Option<u64> = found
            .and_then(|v| v.trim().strip_suffix(" kB"))
            .and_then(|v| v.parse().ok());
        1024 * kib.unwrap_or_else(|| panic!("{line} in\n{status}"))
    }

    /// Everything it printed since the first start.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.log_file())
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn runtime_file(&self) -> PathBuf {
        self.dir.path().join("state").join("runtime.json")
    }

    fn config(&self) -> String {
        let s = &self.settings;
        let mut text = format!(
            "[storage-proxy]\nnode-id = \"{}\"\nnum-proc = 2\nsecret = \"{TOKEN_SECRET}\"\n\
             session-expire = \"{}\"\n{}\n\
             [api.client]\nservice-addr = {{ host = \"127.0.0.1\", port = 6021 }}\n\
             {}\n\
             [api.manager]\nservice-addr = {{ host = \"127.0.0.1\", port = 6022 }}\n\
             internal-addr = {{ host = \"127.0.0.1\", port = 16023 }}\n\
             ssl-enabled = false\nsecret = \"{MANAGER_SECRET}\"\n{}\n",
            s.node_id,
            s.session_expire,
            s.proxy_lines,
            tls_lines(s.client_tls.as_ref()),
            s.manager_lines
        );
        let gone = s.gone_volume.then_some(GONE_VOLUME);
        for name in [VOLUME, OTHER_VOLUME].into_iter().chain(gone) {
            let backend = match &s.volume {
                Some((backend, _)) if name == VOLUME => *backend,
                _ => "vfs",
            };
            let _ = writeln!(
                text,
                "[volume.{name}]\nbackend = \"{backend}\"\npath = \"{}\"",
                self.volume(name).display()
            );
        }
        text.push_str(&s.tables);
        if let Some((redis, etcd)) = &self.fleet {
            let _ = write!(
                text,
                "\n{}[redis]\naddr = \"{}\"\n",
                etcd.table(),
                redis.addr()
            );
        }
        text
    }

    /// Reads the runtime file once it is whole, then waits for the ports to answer.
    #[track_caller]
    fn await_ready(&mut self, runtime: &Path) -> Addresses {
        let child = self.child.as_mut().expect("just started");
        let mut ended = None;
        let addresses = wait::within(START_BOUND, || {
            ended = child.try_wait().expect("our own child");
            if ended.is_some() {
                return Some(None);
            }
            let found = addresses(&std::fs::read(runtime).ok()?)?;
            let up = [found.client, found.manager, found.internal]
                .iter()
                .all(|addr| std::net::TcpStream::connect(addr).is_ok());
            up.then_some(Some(found))
        });
        match addresses.flatten() {
            Some(addresses) => addresses,
            None => panic!("no start (end: {ended:?})\n{}", self.log_tail()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log_tail());
        }
    }
}

fn tls_lines(files: Option<&(PathBuf, PathBuf)>) -> String {
    match files {
        Some((cert, key)) => format!(
            "ssl-enabled = true\nssl-cert = \"{}\"\nssl-privkey = \"{}\"",
            cert.display(),
            key.display()
        ),
        None => "ssl-enabled = false".to_owned(),
    }
}

/// The sum of all series of a gauge; `None` when the page has none.
#[must_use]
pub fn gauge(metrics: &str, name: &str) -> Option<f64> {
    let full = format!("storage_proxy_{name}");
    let values: Vec<f64> = metrics
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(&full)?;
            let value = if rest.starts_with('{') {
                rest.split_once('}')?.1
            } else {
                rest
            };
            value.strip_prefix(' ')?.trim().parse().ok()
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

fn addresses(bytes: &[u8]) -> Option<Addresses> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let addr = |name: &str| -> Option<SocketAddr> {
        let text = value
            .get(name)
            .or_else(|| value.get("addresses")?.get(name))?;
        text.as_str()?.rsplit('/').next()?.parse().ok()
    };
    Some(Addresses {
        client: addr("client")?,
        manager: addr("manager")?,
        internal: addr("internal")?,
    })
}
