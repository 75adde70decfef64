//! Ours, asked through the manager port as the Manager asks.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Took, plant};
use crate::command::Problem;
use crate::process;

const SECRET: &str = "bench-manager-secret";
const VOLUME: &str = "bench";
const SCOPE: &str = "user:11111111-2222-3333-4444-555555555555";
const SCOPE_DIR: &str = "11111111222233334444555555555555";
/// From the start to the first answer.
const START_BOUND: Duration = Duration::from_secs(30);
/// For one answer, and for one task.
const ANSWER_BOUND: Duration = Duration::from_secs(600);
/// Between two looks at a task.
const LOOK: Duration = Duration::from_millis(5);

/// A running server of ours.
pub(super) struct Proxy {
    child: Child,
    manager: SocketAddr,
    volume: PathBuf,
    made: AtomicU64,
}

/// A vfolder: what the API calls it, and where it lies.
pub(super) struct Folder {
    id: String,
    pub(super) path: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Our own child; whether it ended before does not matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts it on a volume below `home`, with its defaults.
    pub(super) fn start(program: Option<&Path>, home: &Path) -> Result<Self, Problem> {
        let beside = std::env::current_exe()?.with_file_name("storage-proxy");
        let program = program.map_or(beside, Path::to_owned);
        let volume = home.join("volume");
        std::fs::create_dir_all(volume.join(SCOPE_DIR))?;
        let config = home.join("storage-proxy.toml");
        let text = format!(
            "[storage-proxy]\nscandir-limit = 0\nsecret = \"bench\"\n[api.manager]\n\
             secret = \"{SECRET}\"\n[volume.{VOLUME}]\nbackend = \"vfs\"\npath = \"{}\"\n\
             [logging]\nlevel = \"WARNING\"\n",
            volume.display()
        );
        std::fs::write(&config, text)?;
        let data = home.join("data");
        let log = std::fs::File::create(home.join("log"))?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(&data);
        for port in ["--client-addr", "--manager-addr", "--internal-addr"] {
            command.arg(port).arg("127.0.0.1:0");
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut proxy = Self {
            child: command.spawn()?,
            manager: SocketAddr::from(([127, 0, 0, 1], 0)),
            volume,
            made: AtomicU64::new(1),
        };
        let end = Instant::now() + START_BOUND;
        while Instant::now() < end {
            if let Some(at) = manager(&data.join("runtime.json")) {
                proxy.manager = at;
                return Ok(proxy);
            }
            std::thread::sleep(LOOK);
        }
        Err("storage-proxy did not start in time".into())
    }

    /// A vfolder by its 32 digits, made if it is not there.
    pub(super) fn folder(&self, digits: &str) -> Result<Folder, Problem> {
        let folder = self.named(digits);
        std::fs::create_dir_all(&folder.path)?;
        Ok(folder)
    }

    /// A vfolder that nobody has used; its parents are there, itself not.
    pub(super) fn fresh(&self) -> Result<Folder, Problem> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let folder = self.named(&format!("{number:032x}"));
        if let Some(parent) = folder.path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(folder)
    }

    fn named(&self, digits: &str) -> Folder {
        let scope = self.volume.join(SCOPE_DIR);
        Folder {
            id: format!("{SCOPE}/{digits}"),
            path: scope
                .join(&digits[..2])
                .join(&digits[2..4])
                .join(&digits[4..]),
        }
    }

    pub(super) fn usage(&self, folder: &Folder, entries: u64) -> Result<Took, Problem> {
        let body = json!({"volume": VOLUME, "vfid": folder.id});
        let (took, answer) = self.timed(|| self.call("GET", "/folder/usage", &body))?;
        match answer.json()?["file_count"].as_u64() {
            Some(count) if count == entries => Ok(took),
            count => Err(format!("{entries} entries counted as {count:?}").into()),
        }
    }

    pub(super) fn list(&self, folder: &Folder, entries: u64) -> Result<Took, Problem> {
        let body = json!({"volume": VOLUME, "vfid": folder.id, "relpath": "."});
        let (mut took, answer) = self.timed(|| self.call("POST", "/folder/file/list", &body))?;
        took.first = Some(answer.first);
        let names = answer
            .body
            .windows(8)
            .filter(|at| at == b"{\"name\":")
            .count() as u64;
        if names == entries {
            Ok(took)
        } else {
            Err(format!("{entries} entries listed as {names}").into())
        }
    }

    pub(super) fn clone(&self, from: &Folder, to: &Folder) -> Result<Took, Problem> {
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
            let asked = json!({"bgtask_id": begun["bgtask_id"]});
            let end = Instant::now() + ANSWER_BOUND;
            loop {
                let task = self.call("GET", "/task", &asked)?.json()?;
                match task["state"].as_str() {
                    Some("registered" | "running") if Instant::now() < end => {}
                    Some("done") => return Ok(()),
                    _ => return Err(format!("the task ended so: {task}").into()),
                }
                std::thread::sleep(LOOK);
            }
        })?;
        Ok(took)
    }

    fn timed<T>(&self, work: impl FnOnce() -> Result<T, Problem>) -> Result<(Took, T), Problem> {
        let before = process::usage(&[self.child.id()]).cpu;
        let started = Instant::now();
        let done = work()?;
        let wall = started.elapsed();
        let cpu = process::usage(&[self.child.id()])
            .cpu
            .saturating_sub(before);
        Ok((
            Took {
                wall,
                cpu,
                first: None,
            },
            done,
        ))
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Answer, Problem> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.manager)?;
        stream.set_read_timeout(Some(ANSWER_BOUND))?;
        let started = Instant::now();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\
             X-BackendAI-Storage-Auth-Token: {SECRET}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
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
