//! Goal: a clone and a deletion that are killed at any moment, again and again, are finished by
//! the server that comes after: the copy is exact, nothing hidden stays, and the Manager hears it.
//! Method: kill -9 at random moments of the measured time, from a printed seed, also while the
//! next server starts; then everything on the volume is compared with what belongs there.
//! `STORAGE_TEST_CRASH_ROUNDS` sets the number of rounds (5).
//!
//! Source: docs/semantics.md#clone, docs/semantics.md#delete, docs/semantics.md#state.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proxy_testkit::data::Random;
use proxy_testkit::folder::names;
use proxy_testkit::grove;
use proxy_testkit::redis::{RedisServer, Reply};
use proxy_testkit::server::VOLUME;
use proxy_testkit::testbed::Testbed;
use proxy_testkit::{Folder, Server, Settings, env_number, skip, wait};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
/// From the last start to the end of the tasks; a task that was interrupted often waits a minute.
const END_BOUND: Duration = Duration::from_secs(120);
/// Files of the tree.
const FILES: usize = 3000;

/// The server, and the tree that is cloned in each round.
struct Stage {
    server: Server,
    redis: Option<RedisServer>,
    source: Folder,
    random: Random,
    /// How long the two tasks take when nobody dies.
    usual: Duration,
}

impl Stage {
    fn new(root: Option<&Path>) -> Self {
        let redis = RedisServer::start();
        if redis.is_none() {
            skip("events of killed tasks: no redis-server");
        }
        let tables = redis.as_ref().map_or_else(String::new, |redis| {
            format!("[redis]\naddr = \"{}\"\n", redis.addr())
        });
        let settings = Settings {
            root: root.map(Path::to_path_buf),
            tables,
            ..Settings::default()
        };
        let server = Server::start_with(PROGRAM, settings);
        let source = Folder::empty(&server);
        let mut random = Random::printed("killed trees");
        grove::plant(&source.path, FILES, &mut random);
        Self {
            server,
            redis,
            source,
            random,
            usual: Duration::ZERO,
        }
    }

    fn clone_to(&self, copy: &Folder) -> String {
        let body = json!({
            "src_volume": VOLUME, "src_vfid": self.source.vfid, "dst_volume": null,
            "dst_vfid": copy.vfid,
        });
        self.task("/folder/clone", &body)
    }

    fn delete(&self, doomed: &Folder) -> String {
        let body = json!({"volume": VOLUME, "vfid": doomed.vfid});
        self.task("/folder/delete", &body)
    }

    fn task(&self, path: &str, body: &Value) -> String {
        let answer = self.server.ask("POST", path, body);
        assert!(matches!(answer.status, 200 | 202), "{answer}");
        answer.json()["bgtask_id"]
            .as_str()
            .expect("a task")
            .to_owned()
    }

    fn is_done(&self, task: &str) -> bool {
        let look = self
            .server
            .ask("GET", "/task", &json!({"bgtask_id": task}))
            .expect(200)
            .json();
        match look["state"].as_str() {
            Some("registered" | "running") => false,
            // A copy leaves special files out, and says so.
            Some("done" | "partly_done") => true,
            _ => panic!("{look}"),
        }
    }

    fn await_tasks(&self, tasks: &[String]) {
        wait::until("the tasks are done", END_BOUND, || {
            tasks.iter().all(|task| self.is_done(task)).then_some(())
        });
    }

    /// One clone and one deletion, side by side, killed up to `kills` times.
    fn round(&mut self, copy: &Folder, doomed: &Folder, kills: u64) {
        let tasks = [self.clone_to(copy), self.delete(doomed)];
        let begun = Instant::now();
        for kill in 0..kills {
            let span = (self.usual * 5 / 4).as_micros() as u64;
            let moment = Duration::from_micros(self.random.below(span));
            if kill == 0 {
                let _ = wait::within(moment, || None::<()>);
                self.server.kill();
            } else {
                // Ready or not.
                self.server.restart_and_kill(moment);
            }
            self.check_copy(copy);
        }
        if !self.server.is_running() {
            self.server.restart();
        }
        self.await_tasks(&tasks);
        if kills == 0 {
            self.usual = begun.elapsed();
        }
        self.check(copy, doomed);
    }

    /// A copy that can be seen is whole.
    fn check_copy(&self, copy: &Folder) {
        if copy.path.exists() {
            let differences = grove::differences(&self.source.path, &copy.path);
            assert_eq!(differences, [""; 0], "seen before it is whole");
        }
    }

    fn check(&self, copy: &Folder, doomed: &Folder) {
        let differences = grove::differences(&self.source.path, &copy.path);
        assert_eq!(differences, [""; 0]);
        assert!(!doomed.path.exists(), "deleted");
        let wanted = [&self.source.path, &copy.path];
        wait::until("nothing else is left", END_BOUND, || {
            let left = strangers(&self.server.volume(VOLUME), &wanted);
            left.is_empty().then_some(())
        });
        let Some(redis) = &self.redis else { return };
        for (name, vfid) in [
            ("vfolder_clone_success", &copy.vfid),
            ("vfolder_deletion_success", &doomed.vfid),
        ] {
            wait::until(name, END_BOUND, || {
                (0 < told(redis, name, vfid)).then_some(())
            });
        }
        for name in ["vfolder_clone_failure", "vfolder_deletion_failure"] {
            for vfid in [&copy.vfid, &doomed.vfid] {
                assert_eq!(told(redis, name, vfid), 0, "{name}");
            }
        }
        redis.command(4, &["XTRIM", "events", "MAXLEN", "0"]);
    }
}

/// What lies on a volume and neither is one of the folders nor leads to one.
fn strangers(volume: &Path, folders: &[&PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![volume.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for name in names(&dir) {
            let path = dir.join(name);
            match () {
                () if folders.contains(&&path) => {}
                () if folders.iter().any(|folder| folder.starts_with(&path)) => todo.push(path),
                // Scopes stay, empty.
                () if dir == volume && names(&path).is_empty() => {}
                () => found.push(path),
            }
        }
    }
    found
}

/// How often the stream tells of `name` about `vfid`.
fn told(redis: &RedisServer, name: &str, vfid: &str) -> usize {
    let Reply::List(entries) = redis.command(4, &["XRANGE", "events", "-", "+"]) else {
        return 0;
    };
    let is_it = |entry: &&Reply| {
        let Reply::List(parts) = entry else {
            return false;
        };
        let fields = parts[1].texts();
        fields.iter().any(|field| field == name) && fields.iter().any(|f| f.contains(vfid))
    };
    entries.iter().filter(is_it).count()
}

fn rounds_on(root: Option<&Path>, rounds: u64) {
    let mut stage = Stage::new(root);
    let mut doomed = Folder::unmade(&stage.server);
    let first = Folder::unmade(&stage.server);
    // Twice: the second time there is something to delete.
    for copy in [first, Folder::unmade(&stage.server)] {
        stage.round(&copy, &doomed, 0);
        doomed = copy;
    }
    for number in 0..rounds {
        let copy = Folder::unmade(&stage.server);
        let kills = 1 + stage.random.below(4);
        eprintln!("round {number}: {kills} kills within {:?}", stage.usual);
        stage.round(&copy, &doomed, kills);
        doomed = copy;
    }
    stage.server.finish();
}

/// One clone and one deletion, killed whenever they have gone on a little.
#[test]
fn a_clone_that_is_killed_again_and_again_is_finished() {
    let mut stage = Stage::new(None);
    let doomed = Folder::empty(&stage.server);
    grove::plant(&doomed.path, FILES, &mut stage.random);
    let copy = Folder::unmade(&stage.server);
    let tasks = [stage.clone_to(&copy), stage.delete(&doomed)];
    for _ in 0..env_number("STORAGE_TEST_CRASH_ROUNDS", 7) {
        let moment = Duration::from_millis(stage.random.below(300));
        let _ = wait::within(moment, || None::<()>);
        stage.server.kill();
        stage.check_copy(&copy);
        stage.server.restart();
    }
    stage.await_tasks(&tasks);
    stage.check(&copy, &doomed);
    stage.server.finish();
}

#[test]
fn clones_and_deletions_that_are_killed_are_finished() {
    rounds_on(None, env_number("STORAGE_TEST_CRASH_ROUNDS", 5));
}

#[test]
fn clones_and_deletions_that_are_killed_are_finished_on_xfs() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    match Testbed::up(&tests, "xfs", &[]) {
        Ok(bed) => rounds_on(
            Some(bed.mount()),
            env_number("STORAGE_TEST_CRASH_ROUNDS", 5),
        ),
        Err(reason) => skip(reason),
    }
}
