//! Goal: what a server of ours does is heard by a Manager of every release, in order, at least
//! once, whatever dies meanwhile.
//! Method: the program with a real Redis; on the other side the original's own event library,
//! release by release, prints what it dispatched (`tests/clients/hear_events.py`). Processes are
//! killed in the middle of their work and started again.
//!
//! Source: docs/semantics.md#fleet-events, docs/semantics.md#fleet-tasks.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use proxy_testkit::http::Response;
use proxy_testkit::original::python;
use proxy_testkit::redis::{RedisServer, Reply};
use proxy_testkit::server::VOLUME;
use proxy_testkit::{Folder, Server, Settings, wait};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const RELEASES: [&str; 3] = ["26.2.0", "26.8.1", "26.9.6"];
const NODE: &str = "i-test";
/// A task, on a busy machine.
const TASK_BOUND: Duration = Duration::from_secs(60);
const REQUEST: &str = "req-7d3f";

fn start(redis: &RedisServer) -> Server {
    let tables = format!(
        "[redis]\naddr = \"{}\"\n[server.limits]\ntask-concurrency = 1\n\
         [debug]\nlog-events = true\n",
        redis.addr()
    );
    Server::start_with(
        PROGRAM,
        Settings {
            tables,
            ..Settings::default()
        },
    )
}

/// Asks as a Manager that names its request.
fn ask(server: &Server, path: &str, body: &Value) -> Response {
    let request = server.manager_request("POST", path).json(body);
    request
        .header("X-BackendAI-RequestID", REQUEST)
        .send(server.manager())
}

fn task_of(answer: &Response) -> String {
    answer.json()["bgtask_id"]
        .as_str()
        .expect("a task")
        .to_owned()
}

fn delete(server: &Server, folder: &Folder) -> String {
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    task_of(&ask(server, "/folder/delete", &body).expect(202))
}

fn clone(server: &Server, from: &Folder, to: &Folder) -> String {
    let body = json!({
        "src_volume": VOLUME, "src_vfid": from.vfid, "dst_volume": VOLUME, "dst_vfid": to.vfid,
    });
    task_of(&ask(server, "/folder/clone", &body).expect(200))
}

/// A folder with so many files of so many bytes.
fn filled(server: &Server, files: usize, bytes: usize) -> Folder {
    let folder = Folder::empty(server);
    let content = vec![b'x'; bytes];
    for number in 0..files {
        let dir = folder.path.join(format!("d{:03}", number / 100));
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(format!("f{number}")), &content).expect("a file");
    }
    folder
}

fn files_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path()),
            _ => 1,
        })
        .sum()
}

/// The last broadcast about a task, as late-comers get it: its name, and its body.
fn cached(redis: &RedisServer, task: &str) -> Option<(String, Value)> {
    let text = redis
        .command(4, &["GET", &format!("bgtask.{task}")])
        .text()?;
    let message: Value = serde_json::from_str(&text).expect("JSON");
    let body = serde_json::from_str(message["payload"].as_str()?).expect("JSON");
    Some((message["name"].as_str()?.to_owned(), body))
}

fn until_cached(redis: &RedisServer, task: &str, name: &str) -> Value {
    wait::until(name, TASK_BOUND, || {
        cached(redis, task)
            .filter(|(said, _)| said == name)
            .map(|(_, body)| body)
    })
}

/// `(name, body)` of all entries of the stream.
fn stream(redis: &RedisServer) -> Vec<(String, Value)> {
    let Reply::List(entries) = redis.command(4, &["XRANGE", "events", "-", "+"]) else {
        return Vec::new();
    };
    let entry = |entry: &Reply| {
        let Reply::List(parts) = entry else {
            panic!("{entry:?}")
        };
        let fields = parts[1].texts();
        let value = |name: &str| {
            let at = fields.iter().position(|field| field == name);
            fields[at.expect("a field") + 1].clone()
        };
        let body = serde_json::from_str(&value("payload")).expect("JSON");
        (value("name"), body)
    };
    entries.iter().map(entry).collect()
}

/// How often the stream tells of `name` about `vfid`.
fn told(redis: &RedisServer, name: &str, vfid: &str) -> usize {
    let all = stream(redis);
    all.iter()
        .filter(|(said, body)| said == name && body["vfid"] == vfid)
        .count()
}

/// The original's event library, listening. Dropping it kills the process.
struct Ears {
    child: Child,
    lines: Receiver<Value>,
    heard: RefCell<Vec<Value>>,
}

impl Ears {
    fn start(release: &str, redis: &RedisServer) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/hear_events.py");
        let mut child = Command::new(python(release)?)
            .arg(script)
            .arg(redis.port().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the interpreter starts");
        let out = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("JSON");
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let heard = RefCell::default();
        let ears = Self {
            child,
            lines,
            heard,
        };
        let ready = ears.lines.recv_timeout(TASK_BOUND).expect("it listens");
        assert_eq!(ready["ready"], release);
        Some(ears)
    }

    /// Waits until this was dispatched about the task or folder `about`; yields its fields.
    #[track_caller]
    fn until(&self, name: &str, about: &str) -> Value {
        wait::until(name, TASK_BOUND, || {
            self.heard.borrow_mut().extend(self.lines.try_iter());
            let heard = self.heard.borrow();
            let is_it = |event: &&Value| event["event"] == name && is_about(event, about);
            heard.iter().find(is_it).cloned()
        })
    }

    /// Names of everything dispatched about a task or folder, in order.
    fn names(&self, about: &str) -> Vec<String> {
        let heard = self.heard.borrow();
        let about = heard.iter().filter(|event| is_about(event, about));
        about
            .filter_map(|event| Some(event["event"].as_str()?.to_owned()))
            .collect()
    }

    /// Ends it; yields what the group has not acknowledged.
    fn finish(mut self) -> Value {
        drop(self.child.stdin.take());
        let last = loop {
            let line = self.lines.recv_timeout(TASK_BOUND).expect("a last line");
            if line.get("pending").is_some() {
                break line;
            }
        };
        // Its own end takes as long as its last look at the stream: it is not waited for.
        last["pending"].clone()
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_about(event: &Value, about: &str) -> bool {
    let fields = &event["fields"];
    let id = |name: &str| fields[name].as_str().map(|id| id.replace('-', ""));
    let about = Some(about.replace('-', ""));
    id("task_id") == about || id("vfid") == about
}

fn check_release(release: &str) {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let Some(ears) = Ears::start(release, &redis) else {
        return;
    };
    let server = start(&redis);
    let done = "Task completed successfully";

    let folder = filled(&server, 3, 10);
    let copy = Folder::unmade(&server);
    let task = clone(&server, &folder, &copy);
    assert_eq!(ears.until("bgtask_done", &task)["fields"]["message"], done);
    let cloned = ears.until("vfolder_clone_success", &folder.vfid);
    assert_eq!(cloned["fields"]["dst_vfid"], copy.vfid.as_str());
    assert_eq!(cloned["request_id"], REQUEST);
    let names = ears.names(&task);
    assert_eq!(names.first().map(String::as_str), Some("bgtask_updated"));
    assert_eq!(names.last().map(String::as_str), Some("bgtask_done"));

    let nowhere = Folder::unmade(&server);
    let task = clone(&server, &nowhere, &Folder::unmade(&server));
    let failed = ears.until("bgtask_failed", &task);
    let message = failed["fields"]["message"].as_str().expect("a text");
    let told = ears.until("vfolder_clone_failure", &nowhere.vfid);
    assert_eq!(told["fields"]["message"], message);

    let task = delete(&server, &folder);
    ears.until("bgtask_done", &task);
    ears.until("vfolder_deletion_success", &folder.vfid);
    // What is not there is deleted.
    let task = delete(&server, &nowhere);
    ears.until("bgtask_done", &task);
    ears.until("vfolder_deletion_success", &nowhere.vfid);

    let body =
        json!({"volume": VOLUME, "vfid": copy.vfid, "relpaths": ["d000"], "recursive": true});
    let task = task_of(&ask(&server, "/folder/file/delete-async", &body).expect(202));
    ears.until("bgtask_done", &task);
    assert_eq!(ears.names(&copy.vfid), Vec::<String>::new());

    let big = filled(&server, 3000, 4096);
    let running = clone(&server, &big, &Folder::unmade(&server));
    let waiting = delete(&server, &copy);
    let body = json!({"bgtask_id": waiting});
    let _ = ask(&server, "/task/cancel", &body).expect(202);
    let cancelled = ears.until("bgtask_cancelled", &waiting);
    assert_eq!(cancelled["fields"]["message"], "Task cancelled");
    ears.until("bgtask_done", &running);
    assert!(copy.path.is_dir(), "a cancelled deletion has not begun");
    assert_eq!(ears.finish(), 0, "everything is acknowledged");
    server.finish();
}

#[test]
fn release_26_2_0_hears_everything() {
    check_release(RELEASES[0]);
}

#[test]
fn release_26_8_1_hears_everything() {
    check_release(RELEASES[1]);
}

#[test]
fn release_26_9_6_hears_everything() {
    check_release(RELEASES[2]);
}

/// Kills the server in the middle of a task, and wants it finished after the next start.
fn check_crash(
    redis: &RedisServer,
    server: &mut Server,
    task: &str,
    is_in_the_middle: impl FnMut() -> Option<()>,
) {
    wait::until("the middle of the task", TASK_BOUND, is_in_the_middle);
    server.kill();
    let name = cached(redis, task).map(|(name, _)| name);
    assert_eq!(name.as_deref(), Some("bgtask_updated"), "it was not over");
    server.restart();
    until_cached(redis, task, "bgtask_done");
    let body = json!({"bgtask_id": task});
    let record = server.ask("GET", "/task", &body).expect(200).json();
    assert_eq!(record["state"], "done");
}

#[test]
fn a_crash_in_the_middle_of_a_clone_or_a_deletion_costs_no_event() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let mut server = start(&redis);
    const FILES: usize = 6000;
    let source = filled(&server, FILES, 4096);
    let copy = Folder::unmade(&server);
    let scope = |folder: &Folder| folder.path.ancestors().nth(3).expect("a scope").to_owned();
    let task = clone(&server, &source, &copy);
    check_crash(&redis, &mut server, &task, || {
        let copied = files_below(&scope(&copy));
        (50 < copied && copied < FILES).then_some(())
    });
    assert_eq!(files_below(&copy.path), FILES);
    assert!(1 <= told(&redis, "vfolder_clone_success", &source.vfid));
    assert_eq!(told(&redis, "vfolder_clone_failure", &source.vfid), 0);
    // The mark of the clone goes once its end is on record.
    wait::until("nothing is left over", TASK_BOUND, || {
        (files_below(&scope(&copy)) == FILES).then_some(())
    });

    let scope = scope(&source);
    let task = delete(&server, &source);
    check_crash(&redis, &mut server, &task, || {
        let left = files_below(&scope);
        (left < FILES - 50 && 50 < left).then_some(())
    });
    assert!(1 <= told(&redis, "vfolder_deletion_success", &source.vfid));
    assert_eq!(files_below(&scope), 0, "nothing is left over");
    assert!(
        redis
            .command(7, &["SMEMBERS", &format!("bgtask:server:{NODE}")])
            .texts()
            .is_empty()
    );
    server.finish();
}

#[test]
fn deletions_without_redis_are_told_when_it_is_back() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    let server = start(&redis);
    let folders: Vec<Folder> = (0..20).map(|_| Folder::full(&server)).collect();
    redis.kill();
    let tasks: Vec<String> = folders
        .iter()
        .map(|folder| delete(&server, folder))
        .collect();
    wait::until("all folders are gone", TASK_BOUND, || {
        folders
            .iter()
            .all(|folder| !folder.path.exists())
            .then_some(())
    });
    redis.restart();
    for (folder, task) in folders.iter().zip(&tasks) {
        until_cached(&redis, task, "bgtask_done");
        assert_eq!(told(&redis, "vfolder_deletion_success", &folder.vfid), 1);
    }
    server.finish();
}

#[test]
fn progress_has_a_total_and_never_goes_back() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let server = start(&redis);
    let source = filled(&server, 8000, 1000);
    let copy = Folder::unmade(&server);
    for (task, verb) in [
        (clone(&server, &source, &copy), "cloned"),
        (delete(&server, &source), "deleted"),
    ] {
        let mut seen = Vec::new();
        wait::until("the end", TASK_BOUND, || {
            let (name, body) = cached(&redis, &task)?;
            if name == "bgtask_updated" && seen.last() != Some(&body) {
                seen.push(body);
                return None;
            }
            (name == "bgtask_done").then_some(())
        });
        let number = |body: &Value, name: &str| body[name].as_f64().expect("a number");
        let known = |body: &&Value| 0.0 < number(body, "total_progress");
        let totals: Vec<f64> = seen
            .iter()
            .filter(known)
            .map(|body| number(body, "total_progress"))
            .collect();
        assert!(totals.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
        let done: Vec<f64> = seen
            .iter()
            .map(|body| number(body, "current_progress"))
            .collect();
        assert!(done.is_sorted(), "{seen:?}");
        for body in seen.iter().filter(known) {
            let text = body["message"].as_str().expect("a text");
            assert!(text.starts_with(verb) && text.contains(" of 8,0"), "{text}");
        }
    }
    server.finish();
}

#[test]
fn what_an_original_left_is_taken_up_by_the_program() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let mut server = start(&redis);
    let folder = Folder::full(&server);
    server.kill();
    let id = "6dd0c95a-907a-40f9-8216-775d238f5140";
    let body = json!({"volume": VOLUME, "vfolder_id": folder.vfid}).to_string();
    let meta = format!("bgtask:meta:{id}");
    let subtask = format!("bgtask:subtask:{id}:__whole__");
    for words in [
        vec![
            "HSET",
            &meta,
            "task_id",
            id,
            "task_name",
            "delete_vfolder",
            "task_type",
            "single",
            "body",
            &body,
            "ongoing_count",
            "1",
            "success_count",
            "0",
            "failure_count",
            "0",
        ],
        vec!["EXPIRE", &meta, "500"],
        vec!["SADD", &format!("bgtask:subkey:{id}"), "__whole__"],
        vec![
            "HSET",
            &subtask,
            "task_id",
            id,
            "key",
            "__whole__",
            "status",
            "ongoing",
            "last_message",
            "",
        ],
        vec![
            "SADD",
            &format!("bgtask:server:{NODE}"),
            &id.replace('-', ""),
        ],
    ] {
        redis.command(7, &words);
    }
    server.restart();
    until_cached(&redis, id, "bgtask_done");
    assert!(!folder.path.exists());
    assert_eq!(told(&redis, "vfolder_deletion_success", &folder.vfid), 1);
    server.finish();
}

/// The value of a series whose line starts so.
fn shown(server: &Server, series: &str) -> Option<f64> {
    let page = server.metrics();
    let line = page.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Waits until a series has a value that fits.
#[track_caller]
fn until_shown(server: &Server, series: &str, fits: fn(f64) -> bool) {
    wait::until(series, TASK_BOUND, || {
        shown(server, series).filter(|value| fits(*value)).map(drop)
    });
}

/// Not asked for by any scenario above: what operators see of it.
#[test]
fn the_page_of_metrics_shows_the_fleet() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    let server = start(&redis);
    let links = ["statistics", "live", "stream", "bgtask", "tus"]
        .map(|role| format!("storage_proxy_fleet_link_up{{role=\"{role}\"}}"));
    for link in &links {
        until_shown(&server, link, |up| up == 1.0);
    }
    let task = delete(&server, &filled(&server, 3, 10));
    until_cached(&redis, &task, "bgtask_done");
    for (series, fits) in [
        (
            "storage_proxy_fleet_events_total{result=\"sent\"}",
            (|n| 1.0 < n) as fn(f64) -> bool,
        ),
        (
            "storage_proxy_fleet_events_total{result=\"spooled\"}",
            |n| 0.0 < n,
        ),
        (
            "storage_proxy_fleet_events_total{result=\"replayed\"}",
            |n| n == 0.0,
        ),
        (
            "storage_proxy_fleet_events_total{result=\"dropped\"}",
            |n| n == 0.0,
        ),
        ("storage_proxy_fleet_outbox_events ", |n| n == 0.0),
        ("storage_proxy_fleet_tasks{state=\"live\"}", |n| n == 0.0),
        ("storage_proxy_fleet_tasks{state=\"unshared\"}", |n| {
            n == 0.0
        }),
        ("storage_proxy_bridge_queue ", |n| n == 0.0),
        ("storage_proxy_fleet_servers ", |n| 0.0 < n),
        (
            "backendai_event_count_total{event_type=\"bgtask_done\"}",
            |n| n == 1.0,
        ),
        ("backendai_event_processing_time_sec_count{", |n| n == 0.0),
        ("backendai_event_failure_count_total{", |n| n == 0.0),
    ] {
        until_shown(&server, series, fits);
    }
    let log = server.log();
    let said = |line: &&str| line.contains("event sent") && line.contains("bgtask_done");
    assert!(log.lines().any(|line| said(&line)), "{log}");
    redis.kill();
    for link in &links {
        until_shown(&server, link, |up| up == 0.0);
    }
    let _ = delete(&server, &filled(&server, 3, 10));
    until_shown(&server, "storage_proxy_fleet_outbox_events ", |n| 0.0 < n);
    redis.restart();
    until_shown(&server, "storage_proxy_fleet_outbox_events ", |n| n == 0.0);
    server.finish();
}
