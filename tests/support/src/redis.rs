//! A Redis of the test's own, and Sentinels: on a free port of the loopback interface, to be
//! killed, frozen, emptied and started again there.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait;

const START_BOUND: Duration = Duration::from_secs(20);
const REPLY_BOUND: Duration = Duration::from_secs(5);
const FAILOVER_BOUND: Duration = Duration::from_secs(60);
/// The name the Sentinels of a test know their master by.
pub const SERVICE: &str = "testmaster";

/// What can differ from test to test.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// What clients have to say.
    pub password: Option<String>,
    /// Another user with this password, who may do everything.
    pub user: Option<(String, String)>,
    /// Certificate and key, both PEM files: TLS instead of plain TCP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The port of the master of this replica.
    pub replica_of: Option<u16>,
    /// Keep the data over restarts: every write is on disk before its answer.
    pub durable: bool,
    /// Listen on the IPv6 loopback address instead.
    pub ipv6: bool,
}

/// A running server. Dropping it kills the process it started.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    dir: TempDir,
    port: u16,
    options: RedisOptions,
    child: Option<Child>,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Number(i64),
    /// A string.
    Text(String),
    /// A refusal.
    Refused(String),
    /// A list.
    List(Vec<Reply>),
}

impl Reply {
    /// The text or number of a plain answer.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Number(number) => Some(number.to_string()),
            Self::Nil | Self::Refused(_) | Self::List(_) => None,
        }
    }

    /// The texts of a list.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::List(all) => all.iter().filter_map(Self::text).collect(),
            other => other.text().into_iter().collect(),
        }
    }
}

/// The first program of these that is installed.
fn installed(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let at = |name: &&str| dirs.iter().map(|dir| dir.join(name)).find(|p| p.is_file());
    names.iter().find_map(at)
}

/// A port nobody listens on now.
///
/// # Panics
/// When the system has none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its number").port()
}

impl RedisServer {
    /// Starts a server with default settings; `None`, and a line in the output, where none is
    /// installed.
    #[must_use]
    #[track_caller]
    pub fn start() -> Option<Self> {
        Self::start_with(RedisOptions::default())
    }

    /// Starts a server with these settings.
    ///
    /// # Panics
    /// When it does not answer within the bound.
    #[must_use]
    #[track_caller]
    pub fn start_with(options: RedisOptions) -> Option<Self> {
        let Some(program) = installed(&["redis-server", "valkey-server"]) else {
            crate::skip("no redis-server is installed");
            return None;
        };
        let mut server = Self {
            program,
            dir: TempDir::with_prefix("storage-redis-").expect("a temporary directory"),
            port: free_port(),
            options,
            child: None,
        };
        server.restart();
        Some(server)
    }

    /// Starts it again on the same port, after [`Self::kill`].
    ///
    /// # Panics
    /// When it still runs, or does not answer within the bound.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "still running");
        let config = self.dir.path().join("redis.conf");
        std::fs::write(&config, self.config()).expect("the configuration is written");
        let child = spawn(&self.program, &config, &[], self.dir.path());
        self.child = Some(child);
        self.await_answer();
    }

    #[track_caller]
    fn await_answer(&mut self) {
        let up = wait::within(START_BOUND, || {
            if self.options.tls.is_some() {
                return TcpStream::connect(self.addr()).ok().map(drop);
            }
            let pong = self.try_command(0, &["PING"]).ok()?;
            (pong == Reply::Text("PONG".into())).then_some(())
        });
        if up.is_none() {
            let log = std::fs::read_to_string(self.dir.path().join("log"));
            panic!("redis does not answer\n{}", log.unwrap_or_default());
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        let ip = if self.options.ipv6 {
            "::1"
        } else {
            "127.0.0.1"
        };
        SocketAddr::new(ip.parse().expect("an address"), self.port)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
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

    /// Stops it with SIGSTOP: connections stay, answers do not come.
    #[track_caller]
    pub fn freeze(&self) {
        signal(self.child.as_ref(), Signal::STOP);
    }

    /// Lets it go on after [`Self::freeze`].
    #[track_caller]
    pub fn thaw(&self) {
        signal(self.child.as_ref(), Signal::CONT);
    }

    /// Forgets everything.
    #[track_caller]
    pub fn flush(&self) {
        self.command(0, &["FLUSHALL"]);
    }

    /// Has a command executed in the database `db`.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn command(&self, db: u8, words: &[&str]) -> Reply {
        match self.try_command(db, words) {
            Ok(reply) => reply,
            Err(error) => panic!("{words:?}: {error}"),
        }
    }

    /// As [`Self::command`], for a server that may be away.
    ///
    /// # Errors
    /// There is no answer.
    pub fn try_command(&self, db: u8, words: &[&str]) -> std::io::Result<Reply> {
        let db = db.to_string();
        let mut all = Vec::new();
        if let Some(password) = &self.options.password {
            all.push(vec!["AUTH", password]);
        }
        all.push(vec!["SELECT", &db]);
        all.push(words.to_vec());
        exchange(self.addr(), &all)
    }

    /// The keys of the database `db` that match, in order.
    #[must_use]
    #[track_caller]
    pub fn keys(&self, db: u8, pattern: &str) -> Vec<String> {
        let mut keys = self.command(db, &["KEYS", pattern]).texts();
        keys.sort();
        keys
    }

    fn config(&self) -> String {
        let options = &self.options;
        let ip = if options.ipv6 { "::1" } else { "127.0.0.1" };
        let mut text = format!("bind {ip}\nprotected-mode no\nsave \"\"\nlogfile log\n");
        match &options.tls {
            None => text.push_str(&format!("port {}\n", self.port)),
            Some((cert, key)) => text.push_str(&format!(
                "port 0\ntls-port {}\ntls-cert-file {}\ntls-key-file {}\ntls-auth-clients no\n\
                 tls-ca-cert-file {}\n",
                self.port,
                cert.display(),
                key.display(),
                cert.display()
            )),
        }
        if let Some(password) = &options.password {
            text.push_str(&format!("requirepass {password}\nmasterauth {password}\n"));
        }
        if let Some((name, password)) = &options.user {
            text.push_str(&format!("user {name} on >{password} ~* &* +@all\n"));
        }
        if let Some(port) = options.replica_of {
            text.push_str(&format!("replicaof 127.0.0.1 {port}\n"));
        }
        if options.durable {
            text.push_str("appendonly yes\nappendfsync always\n");
        }
        text.push_str("repl-diskless-sync-delay 0\n");
        text
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        end(self.child.take());
    }
}

/// A master, a replica, and a Sentinel that watches over them.
#[derive(Debug)]
pub struct Watched {
    /// The two servers, the first master first.
    pub servers: [RedisServer; 2],
    port: u16,
    child: Option<Child>,
    _dir: TempDir,
}

impl Watched {
    /// Starts all three; both servers and the Sentinel want these passwords. `None`, and a line in
    /// the output, where a program is missing.
    ///
    /// # Panics
    /// When they do not find each other within the bound.
    #[must_use]
    #[track_caller]
    pub fn start(password: Option<&str>, sentinel_password: Option<&str>) -> Option<Self> {
        let Some(program) = installed(&["redis-sentinel", "valkey-sentinel"]) else {
            crate::skip("no redis-sentinel is installed");
            return None;
        };
        let master = RedisServer::start_with(RedisOptions {
            password: password.map(str::to_owned),
            ..RedisOptions::default()
        })?;
        let replica = RedisServer::start_with(RedisOptions {
            password: password.map(str::to_owned),
            replica_of: Some(master.port()),
            ..RedisOptions::default()
        })?;
        let (dir, port) = (TempDir::with_prefix("storage-sentinel-"), free_port());
        let dir = dir.expect("a temporary directory");
        let mut text = format!(
            "bind 127.0.0.1\nport {port}\nprotected-mode no\nlogfile log\n\
             sentinel monitor {SERVICE} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {SERVICE} 1000\n\
             sentinel failover-timeout {SERVICE} 3000\n",
            master.port()
        );
        if let Some(password) = password {
            text.push_str(&format!("sentinel auth-pass {SERVICE} {password}\n"));
        }
        if let Some(password) = sentinel_password {
            text.push_str(&format!("requirepass {password}\n"));
        }
        let config = dir.path().join("sentinel.conf");
        std::fs::write(&config, text).expect("the configuration is written");
        let child = Some(spawn(&program, &config, &["--sentinel"], dir.path()));
        let watched = Self {
            servers: [master, replica],
            port,
            child,
            _dir: dir,
        };
        watched.await_replica(sentinel_password);
        Some(watched)
    }

    /// Where the Sentinel listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Has the Sentinel make the replica of `now` the master, and waits for it: the old master, if
    /// it lives, is its replica then.
    ///
    /// # Panics
    /// When that does not happen within the bound.
    #[track_caller]
    pub fn await_master(&self, now: usize) {
        let server = &self.servers[now];
        wait::until("the other server is master", FAILOVER_BOUND, || {
            let role = server.try_command(0, &["ROLE"]).ok()?.texts();
            (role.first().map(String::as_str) == Some("master")).then_some(())
        });
    }

    /// Asks the Sentinel for a failover, without anybody dying.
    ///
    /// # Panics
    /// When it refuses.
    #[track_caller]
    pub fn fail_over(&self) {
        let words = vec!["SENTINEL", "FAILOVER", SERVICE];
        wait::until("a failover begins", FAILOVER_BOUND, || {
            match exchange(self.addr(), std::slice::from_ref(&words)) {
                Ok(Reply::Text(_)) => Some(()),
                _ => None,
            }
        });
    }

    /// Until the Sentinel knows the replica and the replica has the data.
    #[track_caller]
    fn await_replica(&self, password: Option<&str>) {
        wait::until("the sentinel knows the replica", START_BOUND, || {
            let mut all = Vec::new();
            if let Some(password) = password {
                all.push(vec!["AUTH", password]);
            }
            all.push(vec!["SENTINEL", "REPLICAS", SERVICE]);
            match exchange(self.addr(), &all).ok()? {
                Reply::List(replicas) if replicas.len() == 1 => {
                    let said = replicas[0].texts();
                    let is_ok = said
                        .chunks(2)
                        .any(|pair| pair == ["master-link-status", "ok"]);
                    is_ok.then_some(())
                }
                _ => None,
            }
        });
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        end(self.child.take());
    }
}

fn spawn(program: &Path, config: &Path, more: &[&str], dir: &Path) -> Child {
    let mut command = Command::new(program);
    command.arg(config).args(more).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.stderr(Stdio::null()).spawn();
    child.expect("the program starts")
}

fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[track_caller]
fn signal(child: Option<&Child>, signal: Signal) {
    let pid = child.expect("it runs").id();
    let pid = Pid::from_raw(pid as i32).expect("a process id is not zero");
    kill_process(pid, signal).expect("our own child");
}

/// Sends commands over a connection of their own; gives the answer of the last. A refusal of an
/// earlier one is the answer.
fn exchange(addr: SocketAddr, commands: &[Vec<&str>]) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&addr, REPLY_BOUND)?;
    stream.set_read_timeout(Some(REPLY_BOUND))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut last = Reply::Nil;
    for words in commands {
        let mut bytes = format!("*{}\r\n", words.len());
        for word in words {
            bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(bytes.as_bytes())?;
        last = reply(&mut reader)?;
        if matches!(last, Reply::Refused(_)) {
            // A Sentinel has no databases, a server may want no password.
            let is_about_login = words[0] == "AUTH" || words[0] == "SELECT";
            if !is_about_login {
                break;
            }
        }
    }
    Ok(last)
}

fn reply(reader: &mut BufReader<TcpStream>) -> std::io::Result<Reply> {
    let bad = |what: &str| std::io::Error::other(what.to_owned());
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(bad("closed"));
    }
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| bad("no reply"))?;
    let number = || rest.parse::<i64>().map_err(|_| bad("no number"));
    match kind {
        "+" => Ok(Reply::Text(rest.to_owned())),
        "-" => Ok(Reply::Refused(rest.to_owned())),
        ":" => number().map(Reply::Number),
        "$" => match usize::try_from(number()?) {
            Err(_) => Ok(Reply::Nil),
            Ok(len) => {
                let mut bytes = vec![0; len + 2];
                reader.read_exact(&mut bytes)?;
                bytes.truncate(len);
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
        },
        "*" => match usize::try_from(number()?) {
            Err(_) => Ok(Reply::Nil),
            Ok(len) => (0..len)
                .map(|_| reply(reader))
                .collect::<Result<_, _>>()
                .map(Reply::List),
        },
        _ => Err(bad("an unknown kind of reply")),
    }
}
