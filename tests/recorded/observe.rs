//! Asks one side all steps, and says what it answered and what that left on the disk.
//!
//! Laws
//! - What is random (identifiers, times) or belongs to the bed (its directory, its address) is
//!   replaced by a word, nothing else is.
//! - Of errors the texts are not compared, but that they are texts is.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proxy_testkit::etcd::Etcd;
use proxy_testkit::original::{Original, Setup};
use proxy_testkit::redis::RedisServer;
use proxy_testkit::server::{MANAGER_SECRET, VOLUME};
use proxy_testkit::{Request, Response, Server, Settings, wait};
use serde_json::{Map, Value, json};

use crate::PROGRAM;
use crate::beds::Bed;
use crate::steps::{self, Item};

/// A task; what the original fails at is waited for in vain.
const TASK_BOUND: Duration = Duration::from_secs(8);
/// A number that a file system counts late.
const COUNT_BOUND: Duration = Duration::from_secs(30);
/// For so long nothing happens after what has no effect.
const QUIET: Duration = Duration::from_millis(700);

/// Who is asked.
pub enum Side {
    /// The program under test.
    Ours,
    /// An original, by its interpreter.
    Original(PathBuf),
}

impl Side {
    /// For the environment of a guest.
    pub fn word(&self) -> String {
        match self {
            Self::Ours => "ours".to_owned(),
            Self::Original(python) => python.display().to_string(),
        }
    }
}

/// A running side.
enum Running {
    Ours(Box<Server>),
    /// With what it cannot do without.
    Original {
        original: Box<Original>,
        _needed: Box<(RedisServer, Etcd)>,
    },
}

impl Running {
    fn start(side: &Side, bed: &Bed) -> Self {
        match side {
            Side::Ours => Self::Ours(Box::new(ours(bed))),
            Side::Original(python) => {
                let redis = RedisServer::start().expect("redis is installed");
                let etcd = Etcd::start().expect("etcd is installed");
                etcd.put("/sorna/local/config/redis/addr", &redis.addr().to_string());
                let setup = Setup {
                    backend: bed.backend,
                    options: toml(&bed.options),
                    programs: bed.programs.clone(),
                };
                let original =
                    Original::start_on(python, etcd.address(), (VOLUME, &bed.mount), setup);
                Self::Original {
                    original: Box::new(original),
                    _needed: Box::new((redis, etcd)),
                }
            }
        }
    }

    fn ask(&self, call: &str, body: &str) -> Response {
        let (method, path) = call.split_once(' ').expect("method and path");
        let mut request =
            Request::new(method, path).header("X-BackendAI-Storage-Auth-Token", MANAGER_SECRET);
        if !body.is_empty() {
            request = request.header("Content-Type", "application/json");
            request = request.body(body.as_bytes());
        }
        match self {
            Self::Ours(server) => request.send(server.manager()),
            Self::Original { original, .. } => request.send(original.manager()),
        }
    }
}

fn ours(bed: &Bed) -> Server {
    let tables = match bed.options.is_empty() {
        true => String::new(),
        false => format!("[volume.{VOLUME}.options]\n{}", toml(&bed.options)),
    };
    let settings = Settings {
        volume: Some((bed.backend, bed.mount.clone())),
        tables,
        ..Settings::default()
    };
    Server::start_with(PROGRAM, settings)
}

/// Lines of TOML: our options are texts, numbers, booleans and lists of them, which look alike.
fn toml(options: &Map<String, Value>) -> String {
    let line = |(key, value): (&String, &Value)| format!("{key} = {value}\n");
    options.iter().map(line).collect()
}

/// All steps and what was seen of each.
pub fn all(side: &Side, bed: &Bed) -> Vec<(String, Value)> {
    let running = Running::start(side, bed);
    let mut seen = Vec::new();
    let mut before = picture(&bed.mount);
    for item in steps::all() {
        let asked = match &item {
            Item::Ask(name, call, body) | Item::Task(name, call, body, _) => {
                Some((*name, answer(&running.ask(call, body), bed)))
            }
            Item::Put(..) | Item::Counted(..) => None,
        };
        match &item {
            Item::Ask(..) => {}
            Item::Task(.., effect) => {
                let _ = wait::within(TASK_BOUND, || effect.is_so(&bed.mount).then_some(()));
                let _ = wait::within(QUIET, || None::<()>);
            }
            Item::Put(path, bytes) => put(&bed.mount.join(path), *bytes),
            Item::Counted(scope, bytes) => counted(&running, bed, scope, *bytes),
        }
        let after = picture(&bed.mount);
        if let Some((name, answer)) = asked {
            seen.push((name.to_owned(), told(answer, changes(&before, &after))));
        }
        before = after;
    }
    seen
}

fn put(path: &Path, bytes: usize) {
    // Where the side refused to make the folder, there is nothing to put into it.
    if path.parent().is_some_and(Path::is_dir) {
        std::fs::write(path, vec![b'x'; bytes]).expect("a file");
    }
}

/// CephFS counts some seconds late.
fn counted(running: &Running, bed: &Bed, scope: &str, bytes: u64) {
    if bed.backend != "cephfs" {
        return;
    }
    let body = json!({"volume": VOLUME, "qsid": scope}).to_string();
    wait::until("usage is counted", COUNT_BOUND, || {
        let told = running.ask("GET /quota-scope", &body).json();
        (bytes <= told["used_bytes"].as_u64()?).then_some(())
    });
}

fn told(answer: Value, disk: Vec<String>) -> Value {
    match disk.is_empty() {
        true => answer,
        false => {
            let mut answer = answer;
            answer["disk"] = json!(disk);
            answer
        }
    }
}

fn answer(response: &Response, bed: &Bed) -> Value {
    let kind = response.header("Content-Type").unwrap_or_default();
    // Without a body the type says nothing.
    let kind = kind.split(';').next().unwrap_or_default();
    let body = match serde_json::from_slice::<Value>(&response.body) {
        Ok(mut body) => {
            if let (true, Some(members)) = (kind.contains("problem"), body.as_object_mut()) {
                // Free text, which not every class of the original has.
                members.remove("msg");
            }
            plain("", body, response.status >= 400, bed)
        }
        Err(_) if response.body.is_empty() => return json!({"status": response.status}),
        Err(_) => Value::from("<text>"),
    };
    json!({"status": response.status, "type": kind, "body": body})
}

/// A body with words for what is not the same in two runs.
fn plain(key: &str, value: Value, is_error: bool, bed: &Bed) -> Value {
    let within = |inner: Value, key: &str| plain(key, inner, is_error, bed);
    match value {
        Value::Object(members) => {
            let is_size = members.contains_key("capacity_bytes");
            let member = |(key, value): (String, Value)| {
                let value = match &value {
                    Value::Number(_) if is_size && bed.is_real => Value::from("<int>"),
                    _ => within(value, &key),
                };
                (key, value)
            };
            let sorted: BTreeMap<String, Value> = members.into_iter().map(member).collect();
            sorted.into_iter().collect::<Map<_, _>>().into()
        }
        Value::Array(mut all) => {
            match key {
                "capabilities" => all.sort_by_key(ToString::to_string),
                // Our test servers have others as well.
                "volumes" => all.retain(|one| one["name"] == VOLUME),
                _ => {}
            }
            all.into_iter().map(|one| within(one, "")).collect()
        }
        Value::String(text) => match key {
            "bgtask_id" => Value::from("<uuid>"),
            "observed_at" => Value::from("<time>"),
            "storage-proxy" | "token" => Value::from("<text>"),
            "msg" | "data" | "traceback" if is_error => Value::from("<text>"),
            _ => bed.plain(&text).into(),
        },
        other => other,
    }
}

/// Notes of ours, which docs/backends.md and docs/semantics.md#clone tell of: about clones, by the
/// names of their tasks, and about numbers of projects.
const OURS: &[&str] = &["/.cloned-", ".project-ids"];

/// Every entry below a directory with its kind, mode and size of content.
fn picture(mount: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![mount.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = path.symlink_metadata() else {
                continue;
            };
            let name = path.strip_prefix(mount).expect("below the mount");
            let name = name.display().to_string();
            if OURS.iter().any(|note| name.contains(note)) {
                continue;
            }
            let mode = meta.permissions().mode() & 0o7777;
            let kind = match meta.is_dir() {
                true => "dir",
                false => "file",
            };
            let what = format!("{kind} {mode:04o}");
            found.insert(name, what);
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    found
}

fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let mut lines: Vec<String> = gone.map(|name| format!("- {name}")).collect();
    for (name, what) in after {
        if before.get(name) != Some(what) {
            lines.push(format!("+ {name} {what}"));
        }
    }
    lines
}
