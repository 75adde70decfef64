//! Servers, asked through the manager port as the Manager asks: ours, and the original.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Took, plant};
use crate::command::Problem;
use crate::peer::{Peer as _, Running as _, Start};
use crate::peers::original::{self, Original};
use crate::process;

const SECRET: &str = "bench-manager-secret";
const VOLUME: &str = "bench";
const SCOPE: &str = "user:11111111-2222-3333-4444-555555555555";
const SCOPE_DIR: &str = "11111111222233334444555555555555";
/// How volumes are laid out, as they say it themselves.
const LAYOUT_VERSION: &str = "3";
/// From the start to the first answer.
const START_BOUND: Duration = Duration::from_secs(30);
/// For one answer, and for one task.
const ANSWER_BOUND: Duration = Duration::from_secs(900);
/// Between two looks at a task.
const LOOK: Duration = Duration::from_millis(5);
/// Where the original notes its background tasks.
const TASKS_DATABASE: u8 = 7;

/// The volume that all of them serve.
#[derive(Debug)]
pub(super) struct Volume {
    root: PathBuf,
    made: u64,
}

/// A vfolder: what the API calls it, and where it lies.
#[derive(Debug)]
pub(super) struct Folder {
    id: String,
    pub(super) path: PathBuf,
}

impl Volume {
    /// An empty one below `home`.
    pub(super) fn new(home: &Path) -> Result<Self, Problem> {
        let root = home.join("volume");
        std::fs::create_dir_all(root.join(SCOPE_DIR))?;
        std::fs::write(root.join("version.txt"), LAYOUT_VERSION)?;
        Ok(Self { root, made: 0 })
    }

    /// A vfolder that nobody has used; its parents are there, itself not.
    pub(super) fn fresh(&mut self) -> Result<Folder, Problem> {
        self.made += 1;
        let digits = format!("{:032x}", self.made);
        let above = self.root.join(SCOPE_DIR).join(&digits[..2]);
        let above = above.join(&digits[2..4]);
        std::fs::create_dir_all(&above)?;
        Ok(Folder {
            id: format!("{SCOPE}/{digits}"),
            path: above.join(&digits[4..]),
        })
    }
}

/// The process behind a server; it ends when this is dropped.
enum Process {
    Ours(Child),
    /// The directory goes after the server that works in it.
    Original(Box<(original::Server, tempfile::TempDir)>),
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Self::Ours(child) = self {
            // Our own child; whether it ended before does not matter.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A running server.
pub(super) struct Server {
    pub(super) name: &'static str,
    process: Process,
    manager: SocketAddr,
    secret: &'static str,
    /// Resident memory before the first request, bytes.
    idle: u64,
}

impl Server {
    /// Starts ours on the volume, with its defaults.
    pub(super) fn ours(
        program: Option<&Path>,
        home: &Path,
        volume: &Volume,
    ) -> Result<Self, Problem> {
        let beside = std::env::current_exe()?.with_file_name("storage-proxy");
        let program = program.map_or(beside, Path::to_owned);
        let config = home.join("storage-proxy.toml");
        let text = format!(
            "[storage-proxy]\nscandir-limit = 0\nsecret = \"bench\"\n[api.manager]\n\
             secret = \"{SECRET}\"\n[volume.{VOLUME}]\nbackend = \"vfs\"\npath = \"{}\"\n\
             [logging]\nlevel = \"WARNING\"\n",
            volume.root.display()
        );
        std::fs::write(&config, text)?;
        let data = home.join("data");
        let log = std::fs::File::create(home.join("log"))?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(&config);
        command.arg("--data-dir").arg(&data);
        for port in ["--client-addr", "--manager-addr", "--internal-addr"] {
            command.arg(port).arg("127.0.0.1:0");
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::Ours(command.spawn()?);
        let end = Instant::now() + START_BOUND;
        while Instant::now() < end {
            if let Some(manager) = manager(&data.join("runtime.json")) {
                return Ok(Self::settled("ours", process, manager, SECRET));
            }
            std::thread::sleep(LOOK);
        }
        Err("storage-proxy did not start in time".into())
    }

    /// Starts the original on the volume, one worker per core; `None` when it is not installed.
    pub(super) fn original(peers: &Path, volume: &Volume) -> Result<Option<Self>, Problem> {
        let original = Original::new(peers);
        if let Err(reason) = original.available() {
            eprintln!("skipped: {reason} (storage-bench peers install original)");
            return Ok(None);
        }
        // Short: sockets lie in it.
        let scratch = tempfile::Builder::new()
            .prefix("storage-trees-")
            .tempdir()?;
        let start = Start {
            cores: process::cores(),
            tls: None,
            h2: false,
            scratch: scratch.path().to_owned(),
        };
        let server = original.serve(&volume.root, &start);
        let server = server.map_err(|reason| reason.to_string())?;
        let manager = server.manager;
        let process = Process::Original(Box::new((server, scratch)));
        Ok(Some(Self::settled(
            "original",
            process,
            manager,
            original::MANAGER_SECRET,
        )))
    }

    fn settled(
        name: &'static str,
        process: Process,
        manager: SocketAddr,
        secret: &'static str,
    ) -> Self {
        let mut server = Self {
            name,
            process,
            manager,
            secret,
            idle: 0,
        };
        server.idle = process::usage(&server.pids()).rss;
        server
    }

    fn pids(&self) -> Vec<u32> {
        match &self.process {
            Process::Ours(child) => vec![child.id()],
            Process::Original(original) => original.0.pids(),
        }
    }

    pub(super) fn usage(&self, folder: &Folder, entries: u64) -> Result<Took, Problem> {
        let body = json!({"volume": VOLUME, "vfid": folder.id});
        let (took, answer) = self.timed(|| self.call("GET", "/folder/usage", &body))?;
        match answer.json()?["file_count"].as_i64() {
            Some(count) if u64::try_from(count) == Ok(entries) => Ok(took),
            // The original's way of saying that it took too long.
            Some(-1) => Ok(Took {
                gave_up: true,
                ..took
            }),
            count => Err(format!("{entries} entries counted as {count:?}").into()),
        }
    }

    pub(super) fn list(&self, folder: &Folder, entries: u64) -> Result<Took, Problem> {
        let body = json!({"volume": VOLUME, "vfid": folder.id, "relpath": "."});
        let (mut took, answer) = self.timed(|| self.call("POST", "/folder/file/list", &body))?;
        took.first = Some(answer.first);
        let marks = answer.body.windows(8);
        let names = marks.filter(|at| at == b"{\"name\":").count() as u64;
        if names == entries {
            Ok(took)
        } else {
            Err(format!("{entries} entries listed as {names}").into())
        }
    }

    pub(super) fn clone_folder(&self, from: &Folder, to: &Folder) -> Result<Took, Problem> {
        plant::remove(&to.path)?;
        let body = json!({
            "src_volume": VOLUME, "src_vfid": from.id, "dst_volume": VOLUME, "dst_vfid": to.id,
        });
        self.task("/folder/clone", &body)
    }

    pub(super) fn delete(&self, folder: &Folder) -> Result<Took, Problem> {
        let body = json!({"volume": VOLUME, "vfid": folder.id});
        self.task("/folder/delete", &body)
    }

    /// Starts a background task and waits for its end.
    fn task(&self, path: &str, body: &Value) -> Result<Took, Problem> {
        let (took, ()) = self.timed(|| {
            let begun = self.call("POST", path, body)?.json()?;
            let task = begun["bgtask_id"].as_str().ok_or("no task in the answer")?;
            let end = Instant::now() + ANSWER_BOUND;
            while Instant::now() < end {
                if self.is_done(task)? {
                    return Ok(());
                }
                std::thread::sleep(LOOK);
            }
            Err("the task did not end in time".into())
        })?;
        Ok(took)
    }

    fn is_done(&self, task: &str) -> Result<bool, Problem> {
        let Process::Original(original) = &self.process else {
            let asked = json!({"bgtask_id": task});
            let task = self.call("GET", "/task", &asked)?.json()?;
            return match task["state"].as_str() {
                Some("registered" | "running") => Ok(false),
                Some("done") => Ok(true),
                _ => Err(format!("the task ended so: {task}").into()),
            };
        };
        let mut stream = TcpStream::connect(original.0.redis)?;
        write!(
            stream,
            "SELECT {TASKS_DATABASE}\r\n\
             HMGET bgtask:meta:{task} success_count failure_count\r\nQUIT\r\n"
        )?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        // Two bulk strings, or two nulls before the task is noted.
        let counts: Vec<&str> = said
            .split("\r\n")
            .filter(|line| line.bytes().all(|byte| byte.is_ascii_digit()) && !line.is_empty())
            .collect();
        match counts[..] {
            ["1", "0"] => Ok(true),
            [_, "1"] => Err("the task failed".into()),
            _ => Ok(false),
        }
    }

    fn timed<T>(&self, work: impl FnOnce() -> Result<T, Problem>) -> Result<(Took, T), Problem> {
        process::forget_peak(&self.pids());
        let before = process::usage(&self.pids()).cpu;
        let started = Instant::now();
        let done = work()?;
        let wall = started.elapsed();
        let after = process::usage(&self.pids());
        let took = Took {
            wall,
            cpu: after.cpu.saturating_sub(before),
            above_idle: Some(after.rss_peak.saturating_sub(self.idle)),
            ..Took::default()
        };
        Ok((took, done))
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Answer, Problem> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.manager)?;
        stream.set_read_timeout(Some(ANSWER_BOUND))?;
        let started = Instant::now();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\
             X-BackendAI-Storage-Auth-Token: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.secret,
            body.len()
        )?;
        let mut piece = vec![0; 1 << 18];
        let mut got = stream.read(&mut piece)?;
        let first = started.elapsed();
        let mut answer = Vec::new();
        while got != 0 {
            answer.extend_from_slice(&piece[..got]);
            got = stream.read(&mut piece)?;
        }
        let head_end = answer.windows(4).position(|at| at == b"\r\n\r\n");
        let head_end = head_end.ok_or("an answer without a head")?;
        let body = answer.split_off(head_end + 4);
        let head = String::from_utf8_lossy(&answer);
        if !head.starts_with("HTTP/1.1 2") {
            let said = String::from_utf8_lossy(&body);
            return Err(format!("{}: {said}", head.lines().next().unwrap_or_default()).into());
        }
        Ok(Answer { body, first })
    }
}

/// The body as it came, chunk marks included, and when it began.
struct Answer {
    body: Vec<u8>,
    first: Duration,
}

impl Answer {
    fn json(&self) -> Result<Value, Problem> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

fn manager(runtime: &Path) -> Option<SocketAddr> {
    let value: Value = serde_json::from_slice(&std::fs::read(runtime).ok()?).ok()?;
    value
        .get("manager")?
        .as_str()?
        .rsplit('/')
        .next()?
        .parse()
        .ok()
}
