//! Goal: a tree that changes while it is counted, listed, cloned or deleted harms nobody: nothing
//! crashes, nothing outside is read or touched, and what stays is treated as if nothing changed.
//! Method: writers create, remove, move in and out, grow, and put links to a tree outside in the
//! place of directories, from a printed seed, while the real program works on the folder.
//!
//! Source: docs/semantics.md#changing.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proxy_testkit::data::Random;
use proxy_testkit::folder::{SECRET, names};
use proxy_testkit::grove;
use proxy_testkit::server::VOLUME;
use proxy_testkit::{Folder, Server, Settings, env_number, wait};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, mkdirat, mknodat, openat, renameat,
    renameat_with, unlinkat,
};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const BOUND: Duration = Duration::from_secs(120);
const WRITERS: u64 = 3;
/// Names that writers play with in each directory.
const PLACES: u64 = 40;
/// Files that are made in a folder after its deletion began.
const LATE_MAX: u64 = 20_000;

struct Stage {
    server: Server,
    folder: Folder,
    /// Where writers take directories to.
    away: PathBuf,
    /// Never to be read or changed.
    canary: PathBuf,
}

impl Stage {
    fn new(random: &mut Random) -> Self {
        let tables = "[server.uploads]\ncollect-interval = \"1s\"\n".to_owned();
        let server = Server::start_with(
            PROGRAM,
            Settings {
                tables,
                ..Settings::default()
            },
        );
        let folder = Folder::empty(&server);
        fs::create_dir(folder.at("stable")).expect("a directory");
        grove::plant(&folder.at("stable"), 400, random);
        for place in 0..8 {
            for number in 0..PLACES {
                folder.write(&format!("wild{place}/d{number}/f"), b"wild");
            }
        }
        let away = server.dir().join("away");
        fs::create_dir(&away).expect("a directory");
        let canary = server.outside().join("canary");
        for number in 0..30 {
            let dir = canary.join(format!("canary-dir{}", number % 5));
            fs::create_dir_all(&dir).expect("a directory");
            fs::write(dir.join(format!("canary{number}")), SECRET).expect("a file");
        }
        Self {
            server,
            folder,
            away,
            canary,
        }
    }

    /// Runs `work` while writers change the tree.
    fn while_it_changes<T>(&self, random: &mut Random, work: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        let steps = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..WRITERS {
                let mut random = Random::seeded(random.draw());
                let (stop, steps) = (&stop, &steps);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        self.meddle(&mut random);
                        steps.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let _stop = Stop(&stop);
            wait::until("the tree changes", BOUND, || {
                (10 < steps.load(Ordering::Relaxed)).then_some(())
            });
            work()
        })
    }

    /// One change; whatever others did to the same place meanwhile, it may fail.
    fn meddle(&self, random: &mut Random) {
        let wild = self.folder.at(&format!("wild{}", random.below(8)));
        let at = |random: &mut Random| wild.join(format!("d{}", random.below(PLACES)));
        let one = at(random);
        let aside = self.away.join(format!("{:x}", random.draw()));
        match random.below(9) {
            0 => drop(fs::create_dir(&one)),
            1 => drop(write(&one, &format!("g{}", random.below(5)), 4)),
            2 => drop(fs::remove_dir_all(&one)),
            3 => {
                if let Ok(into) = itself(&at(random)) {
                    let _ = renameat(CWD, &one, into, "moved");
                }
            }
            4 => {
                let _ = fs::rename(&one, &aside);
                let _ = fs::rename(&aside, at(random));
            }
            5 => {
                // A link to the canary in the place of a directory, for a moment.
                let _ = fs::rename(&one, &aside);
                let _ = symlink(&self.canary, &one);
                let _ = fs::remove_file(&one);
                let _ = fs::rename(&aside, &one);
            }
            6 => {
                let link = wild.join(format!("link{}", random.below(4)));
                let _ = symlink(&self.canary, &link);
                for _ in 0..2 {
                    let exchange = RenameFlags::EXCHANGE;
                    let _ = renameat_with(CWD, &one, CWD, &link, exchange);
                }
            }
            7 => drop(write(&one, "f", 10_000)),
            _ => {
                if let Ok(dir) = itself(&one) {
                    let _ = unlinkat(&dir, "f", AtFlags::empty());
                    if random.below(2) == 0 {
                        let mode = Mode::from_raw_mode(0o644);
                        let _ = mknodat(&dir, "f", FileType::Fifo, mode, 0);
                    }
                }
                let _ = write(&one, "f", 5);
            }
        }
    }

    fn ask(&self, method: &str, path: &str, more: Value) -> Value {
        let mut body = json!({"volume": VOLUME, "vfid": self.folder.vfid});
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let answer = self.server.ask(method, path, &body);
        assert!(matches!(answer.status, 200 | 202), "{path}: {answer}");
        answer.json()
    }

    /// How a task ended.
    fn end_of(&self, task: &Value) -> Value {
        let body = json!({"bgtask_id": task["bgtask_id"]});
        wait::until("the task ends", BOUND, || {
            let look = self.server.ask("GET", "/task", &body).expect(200).json();
            let open = matches!(look["state"].as_str(), Some("registered" | "running"));
            (!open).then_some(look)
        })
    }

    /// Clones the folder and looks at the copy.
    fn check_clone(&self) {
        let copy = Folder::unmade(&self.server);
        let task = self.ask(
            "POST",
            "/folder/clone",
            json!({
                "src_volume": VOLUME, "src_vfid": self.folder.vfid, "dst_volume": null,
                "dst_vfid": copy.vfid,
            }),
        );
        let end = self.end_of(&task);
        let ended = end["state"].as_str();
        assert!(matches!(ended, Some("done" | "partly_done")), "{end}");
        let differences = grove::differences(&self.folder.at("stable"), &copy.at("stable"));
        assert_eq!(differences, [""; 0]);
        assert_clean(&copy.path);
        let task = self.server.ask(
            "POST",
            "/folder/delete",
            &json!({"volume": VOLUME, "vfid": copy.vfid}),
        );
        let end = self.end_of(&task.json());
        assert_eq!(end["state"], "done", "{end}");
        assert!(!copy.path.exists());
    }

    /// Lists the whole tree, page by page.
    fn check_pages(&self, stable: &BTreeSet<String>) {
        let mut seen = BTreeSet::new();
        let mut cursor = Value::Null;
        loop {
            let wish = json!({"relpath": ".", "order": "tree", "limit": 333, "cursor": cursor});
            let page = self.ask("POST", "/folder/file/page", wish);
            for item in page["items"].as_array().expect("items") {
                let path = item["path"].as_str().expect("a path").to_owned();
                assert!(!path.contains("canary"), "{path}");
                let first = seen.insert(path.clone());
                assert!(first || !path.starts_with("stable"), "twice: {path}");
            }
            cursor = page["next"].clone();
            if cursor.is_null() {
                break;
            }
        }
        let missing: Vec<_> = stable.difference(&seen).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

/// Ends the writers also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A directory, not what a link in its place leads to: a writer must not touch the canary either.
fn itself(dir: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    openat(CWD, dir, flags, Mode::empty())
}

/// Writes more into a file, or makes it; does not wait for readers of a FIFO.
fn write(dir: &Path, name: &str, bytes: usize) -> std::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND;
    let flags = flags | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = openat(itself(dir)?, name, flags, Mode::from_raw_mode(0o644))?;
    fs::File::from(file).write_all(&vec![b'x'; bytes])
}

/// Nothing of the canary is in the tree, but links to it.
fn assert_clean(root: &Path) {
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").flatten() {
            let path = entry.path();
            let kind = entry.file_type().expect("a kind");
            let name = entry.file_name();
            assert!(!name.to_string_lossy().contains("canary"), "{path:?}");
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() {
                let content = fs::read(&path).expect("a file");
                let secret = SECRET.as_bytes();
                let escaped = content.windows(secret.len()).any(|part| part == secret);
                assert!(!escaped, "{path:?}");
            }
        }
    }
}

/// All paths below `dir` as pages show them, `dir` before them.
fn paths(root: &Path, dir: &str) -> BTreeSet<String> {
    let described = grove::describe(&root.join(dir));
    let shown = |path: &Vec<u8>| format!("{dir}/{}", String::from_utf8_lossy(path));
    described.keys().map(shown).collect()
}

#[test]
fn a_tree_that_changes_is_counted_listed_and_cloned() {
    let mut random = Random::printed("changing trees");
    let stage = Stage::new(&mut random);
    let canary = grove::describe(&stage.canary);
    let stable = paths(&stage.folder.path, "stable");
    let least = stable.len() as u64;
    for round in 0..env_number("STORAGE_TEST_CHANGING_ROUNDS", 4) {
        stage.while_it_changes(&mut random, || {
            for _ in 0..3 {
                for more in [json!({}), json!({"max_age": 0})] {
                    let usage = stage.ask("GET", "/folder/usage", more);
                    let count = usage["file_count"].as_u64().expect("a number");
                    assert!(least <= count && usage.get("complete").is_none(), "{usage}");
                }
                stage.ask("GET", "/folder/used-bytes", json!({}));
                stage.check_pages(&stable);
                let path = format!("wild{}", round % 8);
                stage.ask("POST", "/folder/file/list", json!({"relpath": path}));
                stage.check_clone();
            }
        });
    }
    assert_eq!(grove::describe(&stage.canary), canary);
    // What is counted when all is still is what is there.
    let usage = stage.ask("GET", "/folder/usage", json!({}));
    let lately = stage.ask("GET", "/folder/usage", json!({"max_age": 0}));
    assert_eq!(usage["file_count"], lately["file_count"]);
    stage.server.finish();
}

#[test]
fn a_tree_that_changes_is_deleted() {
    let mut random = Random::printed("changing deletions");
    let stage = Stage::new(&mut random);
    let canary = grove::describe(&stage.canary);
    stage.while_it_changes(&mut random, || {
        for place in 0..4 {
            let wish = json!({"relpaths": [format!("wild{place}")], "recursive": true});
            let task = stage.ask("POST", "/folder/file/delete-async", wish);
            let end = stage.end_of(&task);
            // Writers may have put something into it to the very end.
            let ended = end["state"].as_str();
            let text = end["message"].as_str().unwrap_or_default().to_owned();
            let busy = text.contains("not empty");
            assert!(ended == Some("done") || busy, "{end}");
        }
    });
    // Whoever has a directory open goes on writing into it, whatever its name is.
    let held = fs::File::open(stage.folder.at("wild7")).expect("a directory");
    let top = fs::File::open(&stage.folder.path).expect("a directory");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for dir in [&held, &top] {
            let done = &done;
            scope.spawn(move || write_into(dir, done));
        }
        let _stop = Stop(&done);
        let task = stage.ask("POST", "/folder/delete", json!({}));
        let end = stage.end_of(&task);
        let text = end["message"].as_str().unwrap_or_default().to_owned();
        let busy = text.contains("not empty");
        assert!(end["state"] == "done" || busy, "{end}");
        assert!(!stage.folder.path.exists(), "the name goes at once");
    });
    let scope = stage.folder.path.ancestors().nth(3).expect("a scope");
    wait::until("the sweep removes the rest", BOUND, || {
        names(scope).is_empty().then_some(())
    });
    assert_eq!(grove::describe(&stage.canary), canary);
    stage.server.finish();
}

/// Makes many files and directories in an open directory, until it is gone or all is done.
fn write_into(dir: &fs::File, done: &AtomicBool) {
    // Bounded: some file systems show what is made behind the place that a reader is at, so that
    // a directory that is filled faster than it is read has no end.
    for number in 0..LATE_MAX {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let mode = Mode::from_raw_mode(0o644);
        let made = openat(dir, format!("late{number}"), flags, mode).is_ok();
        let _ = mkdirat(dir, format!("late-dir{number}"), Mode::from_raw_mode(0o755));
        if !made {
            return;
        }
    }
}
