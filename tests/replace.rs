//! Goal: a new process takes over from a running one without a refused connection, a failed
//! request or a lost byte.
//! Method: real requests without a pause, a slow download and chunked uploads, while
//! `serve --replace` is started three times in a row; then bytes are compared. Uploads may be
//! told to resume, which is what their clients do.
//!
//! Source: `docs/operations.md`, replace.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proxy_testkit::client::{self, Script};
use proxy_testkit::data::Pattern;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Connection, Folder, Request, Server, skip, wait};
use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const BOUND: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const ROUNDS: usize = 3;

/// A process that takes over; killed when dropped.
struct Successor(Child);

impl Successor {
    #[track_caller]
    fn start(dir: &Path) -> Self {
        let log = std::fs::OpenOptions::new();
        let log = { log }
            .append(true)
            .create(true)
            .open(dir.join("log"))
            .unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg("--replace");
        command.arg("--config").arg(dir.join("storage-proxy.toml"));
        command.arg("--data-dir").arg(dir.join("state"));
        for port in ["--client-addr", "--manager-addr", "--internal-addr"] {
            command.arg(port).arg("127.0.0.1:0");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(log).spawn().unwrap();
        let pid = child.id();
        let mut new = Self(child);
        wait::until("the successor serves", BOUND, || {
            assert_eq!(new.0.try_wait().unwrap(), None, "{}", log_of(dir));
            (runtime_pid(dir) == Some(u64::from(pid))).then_some(())
        });
        new
    }

    #[track_caller]
    fn end(&mut self) -> Option<i32> {
        wait::until("the end", BOUND, || self.0.try_wait().unwrap()).code()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn log_of(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

fn runtime_pid(dir: &Path) -> Option<u64> {
    let text = std::fs::read(dir.join("state/runtime.json")).ok()?;
    let word: serde_json::Value = serde_json::from_slice(&text).ok()?;
    word["pid"].as_u64()
}

/// Downloads a small file again and again, on new connections or on one that is kept until the
/// server says that it closes it.
fn small_downloads(server: &Server, folder: &Folder, keep: bool, over: &AtomicBool) -> u64 {
    let token = folder.download_token("small");
    let request = Request::new("GET", &format!("/download?token={token}"));
    let mut kept: Option<Connection> = None;
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let mut connection = kept
            .take()
            .unwrap_or_else(|| Connection::open(server.client()).expect("nobody is refused"));
        let answer = connection.ask(&request);
        let answer = answer.unwrap_or_else(|error| panic!("request {count}, keep {keep}: {error}"));
        assert_eq!(answer.status, 200, "{answer}");
        assert_eq!(answer.body, b"small content");
        count += 1;
        if keep && answer.header("connection") != Some("close") {
            kept = Some(connection);
        }
    }
    count
}

/// Sends a file in chunks, as the clients do: what is refused is asked for and sent again.
fn chunked_upload(server: &Server, folder: &Folder, name: &str, over: &AtomicBool) -> u64 {
    let size = 512 * MIB;
    let pattern = Pattern(7);
    let upload = Upload::begin(server, folder, name, size);
    let (mut at, mut resumed) = (0, 0);
    while at < size {
        // Once everybody has taken over, the rest may be small.
        let end = if over.load(Ordering::Relaxed) {
            size
        } else {
            (at + 2 * MIB).min(size)
        };
        let answer = upload
            .begin_patch(at, end - at, b"")
            .and_then(|mut connection| {
                for from in (at..end).step_by(MIB as usize / 4) {
                    let length = (MIB / 4).min(end - from);
                    connection.write(&pattern.bytes(from, length))?;
                }
                connection.answer(false)
            });
        match answer {
            Ok(answer) if answer.status == 204 => {
                assert_eq!(offset(&answer), end);
                at = end;
            }
            told => {
                resumed += 1;
                if let Ok(answer) = told {
                    assert!([409, 503].contains(&answer.status), "{answer}");
                }
                let known = wait::until("an offset", BOUND, || {
                    let head = upload.head();
                    assert!([200, 503].contains(&head.status), "{head}");
                    (head.status == 200).then(|| offset(&head))
                });
                assert!(at <= known && known <= end, "{at} <= {known} <= {end}");
                at = known;
            }
        }
    }
    let stored = std::fs::read(folder.at(name)).expect("the file is in its place");
    assert_eq!(stored.len() as u64, size);
    assert_eq!(pattern.mismatch(0, &stored), None);
    resumed
}

#[test]
fn nobody_notices_a_replacement() {
    let mut server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    folder.write("small", b"small content");
    let big = Pattern(3).bytes(0, 64 * MIB);
    folder.write("big", &big);
    let dir = server.dir().to_owned();

    // Begun before all replacements, read after them.
    let token = folder.download_token("big");
    let mut slow = Connection::open(server.client()).unwrap();
    let request = Request::new("GET", &format!("/download?token={token}"));
    slow.write(&request.to_bytes()).unwrap();
    assert_eq!(slow.head().unwrap().status, 200);

    let over = AtomicBool::new(false);
    let small = AtomicU64::new(0);
    let mut last = None;
    std::thread::scope(|scope| {
        for keep in [false, true, false, true] {
            let (server, folder, over, small) = (&server, &folder, &over, &small);
            scope.spawn(move || {
                small.fetch_add(
                    small_downloads(server, folder, keep, over),
                    Ordering::Relaxed,
                )
            });
        }
        let uploads: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|name| {
                let (server, folder, over) = (&server, &folder, &over);
                scope.spawn(move || chunked_upload(server, folder, name, over))
            })
            .collect();
        for round in 0..ROUNDS {
            let new = Successor::start(&dir);
            if let Some(mut old) = last.replace(new) {
                let old: &mut Successor = &mut old;
                assert_eq!(old.end(), Some(0), "round {round}\n{}", log_of(&dir));
            }
        }
        over.store(true, Ordering::Relaxed);
        let resumed: u64 = uploads.into_iter().map(|one| one.join().unwrap()).sum();
        println!("{resumed} requests of uploads were told to resume");
    });
    println!("{} small downloads", small.load(Ordering::Relaxed));

    let mut got = Vec::new();
    while got.len() < big.len() {
        let some = slow.some(big.len() - got.len()).unwrap();
        assert!(!some.is_empty(), "cut at {}", got.len());
        got.extend(some);
    }
    assert!(got == big, "the slow download has other bytes");
    drop(slow);
    assert_eq!(server.await_end().code(), Some(0), "{}", server.log());
    let mut last = last.unwrap();
    last.signal(Signal::TERM);
    assert_eq!(last.end(), Some(0));
    let log = log_of(&dir);
    assert!(
        !log.contains(" ERROR ") && !log.contains("panicked"),
        "{log}"
    );
    assert!(!dir.join("state/runtime.json").exists());
}

/// What the clients of users do, in loops, while the server is replaced: no operation fails, since
/// the SDK tries no upload again.
#[test]
fn real_clients_notice_nothing() {
    for (environment, script) in [
        ("backend-26.9.6", "use_sdk_replaced.py"),
        ("backend-26.2.0", "use_sdk_replaced.py"),
        ("tus", "use_tuspy_replaced.py"),
        ("tus", "use_aiotusclient_replaced.py"),
    ] {
        let python = match client::environment(env!("CARGO_TARGET_TMPDIR"), environment) {
            Ok(python) => python,
            Err(reason) => {
                skip(format_args!("{environment}: {reason}"));
                continue;
            }
        };
        let mut server = Server::start(PROGRAM);
        let dir = server.dir().to_owned();
        let go_on = dir.join("go-on");
        std::fs::write(&go_on, "").unwrap();
        let more = [("STORAGE_GO_ON", go_on.as_path())];
        let mut script = Script::start(&server, &python, script, &more);
        let begun = script.scratch().join("begun");
        wait::until("the client has begun", BOUND, || {
            assert!(script.is_at_work(), "{}", script.said());
            begun.exists().then_some(())
        });
        let mut last = None;
        for round in 0..ROUNDS {
            let new = Successor::start(&dir);
            if let Some(mut old) = last.replace(new) {
                let old: &mut Successor = &mut old;
                assert_eq!(old.end(), Some(0), "round {round}\n{}", log_of(&dir));
            }
            assert!(script.is_at_work(), "round {round}\n{}", script.said());
        }
        std::fs::remove_file(&go_on).unwrap();
        script.end();
        assert_eq!(server.await_end().code(), Some(0), "{}", server.log());
        let mut last = last.unwrap();
        last.signal(Signal::TERM);
        assert_eq!(last.end(), Some(0));
    }
}

#[test]
fn without_a_server_it_is_a_start() {
    let mut server = Server::start(PROGRAM);
    assert!(server.stop().success());
    let mut new = Successor::start(server.dir());
    new.signal(Signal::TERM);
    assert_eq!(new.end(), Some(0), "{}", server.log());
}

#[test]
fn essential_work_is_done_soon_after_the_order_to_stop() {
    let mut server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "file", 64 * MIB);
    let bytes = Pattern(5).bytes(0, 3 * MIB);
    let mut stalled = upload.begin_patch(0, 64 * MIB, &bytes).unwrap();
    // One that speaks tus can be told how far it came.
    let other = Upload::begin(&server, &folder, "other", 64 * MIB);
    let mut told = Connection::open(server.client()).unwrap();
    let head = other
        .patch_request(0)
        .header("Content-Length", &(64 * MIB).to_string());
    told.write(&head.to_bytes()).unwrap();
    told.write(&bytes).unwrap();
    server.signal(Signal::TERM);
    // The unit of the original kills after five seconds; the drain would take thirty.
    let begun = std::time::Instant::now();
    let answer = stalled.answer(false).unwrap();
    assert_eq!(answer.status, 409, "{answer}");
    let answer = told.answer(false).unwrap();
    assert_eq!((answer.status, offset(&answer)), (204, 3 * MIB), "{answer}");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    drop((stalled, told));
    assert!(server.await_end().success());
    server.restart();
    let head = Request::new("HEAD", &upload.target()).header("Tus-Resumable", "1.0.0");
    let head = head.send(server.client()).expect(200);
    assert_eq!(offset(&head), 3 * MIB);
    server.finish();
}
