//! A real etcd: its own ports and directory, killed, frozen and started again by its test.
//!
//! Speaks the JSON form of etcd's v3 API, so that nothing of the product's client is used.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Connection, Request};
use crate::wait;

/// From start to the first answer.
const START_BOUND: Duration = Duration::from_secs(30);
/// Password of `root` after [`Etcd::enable_auth`].
pub const ROOT_PASSWORD: &str = "root-password";

/// Files of a server that speaks TLS only, in PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authority of client certificates; clients without one are refused then.
    pub client_ca: Option<PathBuf>,
}

/// A running etcd, or one between two runs. Dropping it kills the process it started.
#[derive(Debug)]
pub struct Etcd {
    dir: TempDir,
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
    tls: Option<Tls>,
    root: bool,
}

impl Etcd {
    /// Starts a server; `None`, and says so, where etcd is not installed.
    ///
    /// # Panics
    /// When it is installed and does not answer within the bound.
    #[must_use]
    #[track_caller]
    pub fn start() -> Option<Self> {
        let mut etcd = Self::stopped()?;
        etcd.run();
        Some(etcd)
    }

    /// As [`Self::start`], speaking TLS only. Such a server is not asked whether it is ready, and
    /// the calls of this type do not reach it.
    #[must_use]
    #[track_caller]
    pub fn start_tls(tls: Tls) -> Option<Self> {
        let mut etcd = Self::stopped()?;
        etcd.tls = Some(tls);
        etcd.run();
        Some(etcd)
    }

    /// A server with an address of its own that does not run yet.
    ///
    /// # Panics
    /// When this machine has no free port.
    #[must_use]
    #[track_caller]
    pub fn stopped() -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            crate::skip("etcd is not installed");
            return None;
        }
        // Two at the same time, so that they differ.
        let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (one, two) = (free(), free());
        let at = |held: &TcpListener| held.local_addr().expect("it is bound");
        Some(Self {
            dir: TempDir::with_prefix("etcd-test-").expect("a temporary directory"),
            client: at(&one),
            peer: at(&two),
            child: None,
            tls: None,
            root: false,
        })
    }

    /// Starts it, again on the same data and ports after [`Self::kill`].
    ///
    /// # Panics
    /// When it still runs, or does not answer within the bound.
    #[track_caller]
    pub fn run(&mut self) {
        assert!(self.child.is_none(), "still running");
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let client = format!("{scheme}://{}", self.client);
        let peer = format!("http://{}", self.peer);
        let log = std::fs::File::create(self.dir.path().join("log")).expect("a log file");
        let mut command = Command::new("etcd");
        command
            .args(["--name", "test", "--data-dir"])
            .arg(self.dir.path().join("data"));
        command.args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ]);
        command.args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        command.args(["--initial-cluster", &format!("test={peer}")]);
        // Several sync to one disk while tests run side by side.
        command.args(["--heartbeat-interval", "200", "--election-timeout", "2000"]);
        if let Some(tls) = &self.tls {
            command
                .arg("--cert-file")
                .arg(&tls.cert)
                .arg("--key-file")
                .arg(&tls.key);
            if let Some(ca) = &tls.client_ca {
                command
                    .arg("--client-cert-auth")
                    .arg("--trusted-ca-file")
                    .arg(ca);
            }
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"));
        self.child = Some(command.stderr(log).spawn().expect("etcd starts"));
        if self.tls.is_none() {
            let ready = || self.healthy().then_some(());
            assert!(
                wait::within(START_BOUND, ready).is_some(),
                "no etcd\n{}",
                self.log()
            );
        }
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.client
    }

    /// A table `[etcd]` for the configuration of a server.
    #[must_use]
    pub fn table(&self) -> String {
        format!("[etcd]\naddr = \"{}\"\n", self.client)
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

    /// SIGSTOP: connections stay open, and nothing answers.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    #[track_caller]
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("it runs").id();
        let pid = Pid::from_raw(pid as i32).expect("a process id is not zero");
        kill_process(pid, signal).expect("our own child");
    }

    /// Sets one key, named in full.
    ///
    /// # Panics
    /// When etcd refuses.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        self.call("/v3/kv/put", &json!({"key": b64(key), "value": b64(value)}));
    }

    /// The value of one key, named in full.
    #[must_use]
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<String> {
        let found = self.call("/v3/kv/range", &json!({"key": b64(key)}));
        pairs(&found).into_iter().map(|(_, value)| value).next()
    }

    /// All keys that begin with `prefix`, with their values, in the order of the keys.
    #[must_use]
    #[track_caller]
    pub fn range(&self, prefix: &str) -> Vec<(String, String)> {
        let body = json!({"key": b64(prefix), "range_end": STANDARD.encode(after(prefix))});
        pairs(&self.call("/v3/kv/range", &body))
    }

    /// Removes all keys that begin with `prefix`.
    #[track_caller]
    pub fn delete(&self, prefix: &str) {
        let body = json!({"key": b64(prefix), "range_end": STANDARD.encode(after(prefix))});
        self.call("/v3/kv/deleterange", &body);
    }

    /// Adds `user` with all rights below `prefix`, and `root`, and asks for passwords from now on.
    #[track_caller]
    pub fn enable_auth(&mut self, user: &str, password: &str, prefix: &str) {
        for (name, password) in [("root", ROOT_PASSWORD), (user, password)] {
            self.call(
                "/v3/auth/user/add",
                &json!({"name": name, "password": password}),
            );
        }
        for role in ["root", "part"] {
            self.call("/v3/auth/role/add", &json!({"name": role}));
        }
        let range = json!({
            "permType": "READWRITE",
            "key": b64(prefix),
            "range_end": STANDARD.encode(after(prefix)),
        });
        self.call(
            "/v3/auth/role/grant",
            &json!({"name": "part", "perm": range}),
        );
        for (name, role) in [("root", "root"), (user, "part")] {
            self.call("/v3/auth/user/grant", &json!({"user": name, "role": role}));
        }
        self.call("/v3/auth/enable", &json!({}));
        self.root = true;
    }

    /// Gives a user another password; tokens that it has are void.
    #[track_caller]
    pub fn change_password(&self, user: &str, password: &str) {
        let body = json!({"name": user, "password": password});
        self.call("/v3/auth/user/changepw", &body);
    }

    fn healthy(&self) -> bool {
        let asked = Connection::open(self.client);
        let answer = asked.and_then(|mut to| to.ask(&Request::new("GET", "/health")));
        answer.is_ok_and(|answer| answer.status == 200)
    }

    #[track_caller]
    fn call(&self, path: &str, body: &Value) -> Value {
        let mut request = Request::new("POST", path).json(body);
        if self.root {
            let login = json!({"name": "root", "password": ROOT_PASSWORD});
            let login = Request::new("POST", "/v3/auth/authenticate").json(&login);
            let token = login.send(self.client).expect(200).json()["token"].clone();
            request = request.header("Authorization", token.as_str().expect("a token"));
        }
        let answer = request.send(self.client);
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
        answer.json()
    }

    fn log(&self) -> String {
        let log = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn b64(text: &str) -> String {
    STANDARD.encode(text)
}

/// The first key behind all that begin with `prefix`.
fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    let last = end.last_mut().expect("a prefix is not empty");
    assert!(*last < u8::MAX, "{prefix} is text");
    *last += 1;
    end
}

fn pairs(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| {
        let bytes = STANDARD
            .decode(value.as_str().unwrap_or_default())
            .expect("base64");
        String::from_utf8(bytes).expect("keys and values of the tests are text")
    };
    let found = answer["kvs"].as_array().into_iter().flatten();
    found
        .map(|pair| (text(&pair["key"]), text(&pair["value"])))
        .collect()
}
