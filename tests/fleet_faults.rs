//! Goal: Redis killed, frozen, emptied or failed over, or etcd killed or frozen, during uploads,
//! downloads, clones and deletions costs no byte, moves no offset back, keeps no request past its
//! bound, is told by health, and is over without a restart.
//! Method: two servers, eight uploads that hop between them, two downloads, clones that are deleted
//! again; the fault lasts `STORAGE_TEST_FAULT_SECONDS` (3) in the middle. Real Redis, Sentinel and
//! etcd.
//!
//! Source: docs/semantics.md#fleet-uploads, docs/semantics.md#fleet-tasks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proxy_testkit::data::{Pattern, Random};
use proxy_testkit::etcd::Etcd;
use proxy_testkit::redis::{RedisServer, SERVICE, Watched};
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Folder, Request, Response, Server, Settings, env_number, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const VOLUME: &str = "shared";
const UPLOADS: u64 = 8;
/// A claim waits ten seconds for a writer elsewhere; a busy machine takes its time.
const REQUEST_BOUND: Duration = Duration::from_secs(15);
/// What a change of health may take.
const TOLD: Duration = Duration::from_secs(10);
/// Files of a folder that is cloned.
const FILES: usize = 300;
/// From the end of the fault to the end of every upload.
const RECOVERY_BOUND: Duration = Duration::from_secs(60);

/// Two servers on one volume, and what is done to them.
struct Bed {
    nodes: [Server; 2],
    folder: Folder,
    stop: AtomicBool,
    done: AtomicU64,
    tasks: AtomicU64,
    longest_ms: AtomicU64,
    volume: TempDir,
}

impl Bed {
    /// `neighbours` are tables that say where Redis and etcd are.
    fn new(neighbours: &str) -> Self {
        let volume = TempDir::with_prefix("storage-volume-").expect("a directory");
        let node = |number: &str| {
            let tables = format!(
                "[volume.{VOLUME}]\nbackend = \"vfs\"\npath = \"{}\"\n{neighbours}\n",
                volume.path().display()
            );
            Server::start_with(PROGRAM, Settings::fleet(number, tables))
        };
        let nodes = ["i-one", "i-two"].map(node);
        let folder = folder(&nodes[0], volume.path());
        Self {
            nodes,
            folder,
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
            tasks: AtomicU64::new(0),
            longest_ms: AtomicU64::new(0),
            volume,
        }
    }

    fn clients(&self) -> [SocketAddr; 2] {
        [self.nodes[0].client(), self.nodes[1].client()]
    }

    /// The answer of a request, which has to come within the bound.
    fn timed(&self, ask: impl FnOnce() -> Response) -> Response {
        let begun = Instant::now();
        let answer = ask();
        let took = begun.elapsed();
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.longest_ms.fetch_max(ms, Ordering::Relaxed);
        assert!(took < REQUEST_BOUND, "{took:?}: {answer}");
        answer
    }

    /// Uploads one file after the other until it is told to stop; the last one to its end.
    fn upload(&self, number: u64, mut random: Random) {
        let mut files = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let name = format!("file-{number}-{files}");
            files += 1;
            self.upload_one(&name, &mut random);
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn upload_one(&self, name: &str, random: &mut Random) {
        let size = (1 << 20) + random.below(1 << 20);
        let pattern = Pattern(random.draw());
        let mut node = random.below(2) as usize;
        let body = json!({
            "volume": VOLUME, "vfid": self.folder.vfid, "relpath": name, "size": size,
        });
        let minted = self.nodes[node].ask("POST", "/folder/file/upload", &body);
        let token = minted.expect(200).json()["token"]
            .as_str()
            .map(str::to_owned);
        let token = token.expect("a token");
        let (mut at, mut last_progress) = (0, Instant::now());
        while at < size {
            if random.below(4) == 0 {
                node = 1 - node;
            }
            let upload = Upload {
                to: self.clients()[node],
                token: token.clone(),
                size,
            };
            let stuck = RECOVERY_BOUND + fault_time();
            assert!(last_progress.elapsed() < stuck, "{name} is stuck at {at}");
            let head = self.timed(|| upload.head());
            if head.status == 503 {
                // The other one knows more.
                node = 1 - node;
                std::thread::yield_now();
                continue;
            }
            let found = offset(&head.expect(200));
            assert!(at <= found, "{name}: back from {at} to {found}");
            at = found;
            let length = (size - at).min(1 + random.below(200_000));
            let answer = self.timed(|| upload.patch(at, &pattern.bytes(at, length)));
            match answer.status {
                204 => {
                    assert_eq!(offset(&answer), at + length, "{name}");
                    (at, last_progress) = (at + length, Instant::now());
                }
                409 | 503 => node = 1 - node,
                _ => panic!("{name} at {at}: {answer}"),
            }
        }
        let got = std::fs::read(self.folder.path.join(name)).expect("the file is there");
        assert_eq!(got.len() as u64, size, "{name}");
        assert_eq!(pattern.mismatch(0, &got), None, "{name}");
    }

    fn download(&self, token: &str, content: &[u8]) {
        while !self.stop.load(Ordering::Relaxed) {
            for to in self.clients() {
                let target = format!("/download?token={token}");
                let answer = self.timed(|| Request::new("GET", &target).send(to));
                assert!(answer.expect(200).body == content, "other bytes");
            }
        }
    }

    /// Clones a folder and deletes both, again and again.
    fn tasks(&self, volume: &Path, random: &mut Random) {
        while !self.stop.load(Ordering::Relaxed) {
            let node = &self.nodes[random.below(2) as usize];
            let [source, copy] = [(), ()].map(|()| folder(node, volume));
            std::fs::remove_dir(&copy.path).expect("an empty folder");
            let content = vec![b'x'; 4096];
            for number in 0..FILES {
                let path = source.path.join(format!("f{number}"));
                std::fs::write(path, &content).expect("a file");
            }
            let body = json!({
                "src_volume": VOLUME, "src_vfid": source.vfid,
                "dst_volume": VOLUME, "dst_vfid": copy.vfid,
            });
            self.task(node, "/folder/clone", &body);
            for number in 0..FILES {
                let copied = std::fs::read(copy.path.join(format!("f{number}")));
                assert!(copied.expect("a copy") == content, "other bytes");
            }
            for folder in [source, copy] {
                let body = json!({"volume": VOLUME, "vfid": folder.vfid});
                self.task(node, "/folder/delete", &body);
                assert!(!folder.path.exists(), "{} is there", folder.vfid);
            }
            self.tasks.fetch_add(3, Ordering::Relaxed);
        }
    }

    /// Begins a task, and waits for its end.
    fn task(&self, node: &Server, path: &str, body: &Value) {
        let begun = self.timed(|| node.ask("POST", path, body));
        assert!(matches!(begun.status, 200 | 202), "{path}: {begun}");
        let body = json!({"bgtask_id": begun.json()["bgtask_id"]});
        wait::until("the task ends", RECOVERY_BOUND, || {
            let task = self.timed(|| node.ask("GET", "/task", &body));
            let task = task.expect(200).json();
            assert!(task["state"] != "failed", "{task}");
            (task["state"] == "done").then_some(())
        });
    }

    /// Waits until health of both says so.
    fn await_health(&self, well: bool) {
        for node in &self.nodes {
            wait::until(&format!("health says {well}"), TOLD, || {
                let health = Request::new("GET", "/health").send(node.internal());
                let health = health.expect(200).json();
                (health["connectivity"]["overall_healthy"] == well).then_some(())
            });
        }
    }

    /// Runs the load around `fault`.
    fn run(&self, topic: &str, fault: impl FnOnce()) {
        let mut random = Random::printed(topic);
        let content = Pattern(3).bytes(0, 1 << 20);
        std::fs::write(self.folder.path.join("there"), &content).expect("written");
        let body = json!({"volume": VOLUME, "vfid": self.folder.vfid, "relpath": "there"});
        let minted = self.nodes[0].ask("POST", "/folder/file/download", &body);
        let token = minted.expect(200).json()["token"]
            .as_str()
            .map(str::to_owned);
        let token = token.expect("a token");
        std::thread::scope(|scope| {
            for number in 0..UPLOADS {
                let random = Random::seeded(random.draw());
                scope.spawn(move || self.upload(number, random));
            }
            for _ in 0..2 {
                scope.spawn(|| self.download(&token, &content));
            }
            let mut dice = Random::seeded(random.draw());
            scope.spawn(move || self.tasks(self.volume.path(), &mut dice));
            self.await_uploads(UPLOADS);
            fault();
            self.await_health(true);
            let before = self.done.load(Ordering::Relaxed);
            self.await_uploads(before + 2 * UPLOADS);
            self.stop.store(true, Ordering::Relaxed);
        });
        let longest = self.longest_ms.load(Ordering::Relaxed);
        let done = self.done.load(Ordering::Relaxed);
        let tasks = self.tasks.load(Ordering::Relaxed);
        eprintln!("{topic}: {done} uploads, {tasks} tasks, longest request {longest} ms");
        assert!(0 < tasks, "no task has ended");
        for node in &self.nodes {
            wait::until("health is back", RECOVERY_BOUND, || {
                let metrics = node.metrics();
                metrics
                    .contains("storage_proxy_sessions_dirty 0")
                    .then_some(())
            });
        }
    }

    fn await_uploads(&self, many: u64) {
        wait::until("uploads end", RECOVERY_BOUND * 2, || {
            (many <= self.done.load(Ordering::Relaxed)).then_some(())
        });
    }
}

fn fault_time() -> Duration {
    Duration::from_secs(env_number("STORAGE_TEST_FAULT_SECONDS", 3))
}

/// Lets the fault last.
fn last() {
    let end = Instant::now() + fault_time();
    wait::within(fault_time() * 2, || (end <= Instant::now()).then_some(()));
}

/// A folder of the shared volume.
fn folder(server: &Server, volume: &Path) -> Folder {
    let mut folder = Folder::unmade(server);
    let inner: PathBuf = folder
        .path
        .strip_prefix(server.volume("volume1"))
        .expect("below the volume")
        .to_owned();
    folder.path = volume.join(inner);
    std::fs::create_dir_all(&folder.path).expect("a folder on the test's disk");
    folder
}

fn plain(redis: &RedisServer) -> Bed {
    Bed::new(&format!("[redis]\naddr = \"{}\"", redis.addr()))
}

/// With the settings of Redis in etcd.
fn with_etcd(etcd: &Etcd, redis: &RedisServer) -> Bed {
    etcd.put("/sorna/local/config/redis/addr", &redis.addr().to_string());
    let bed = Bed::new(&etcd.table());
    bed.await_health(true);
    bed
}

#[test]
fn etcd_is_killed() {
    let (Some(mut etcd), Some(redis)) = (Etcd::start(), RedisServer::start()) else {
        return;
    };
    let bed = with_etcd(&etcd, &redis);
    bed.run("etcd killed", || {
        etcd.kill();
        bed.await_health(false);
        last();
        etcd.run();
    });
}

#[test]
fn etcd_is_frozen() {
    let (Some(etcd), Some(redis)) = (Etcd::start(), RedisServer::start()) else {
        return;
    };
    let bed = with_etcd(&etcd, &redis);
    bed.run("etcd frozen", || {
        etcd.freeze();
        bed.await_health(false);
        last();
        etcd.thaw();
    });
}

#[test]
fn redis_is_killed() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    let bed = plain(&redis);
    bed.run("killed", || {
        redis.kill();
        bed.await_health(false);
        last();
        redis.restart();
    });
}

#[test]
fn redis_is_frozen() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let bed = plain(&redis);
    bed.run("frozen", || {
        redis.freeze();
        bed.await_health(false);
        last();
        redis.thaw();
    });
}

#[test]
fn redis_is_emptied() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    plain(&redis).run("emptied", || {
        redis.flush();
        last();
        redis.flush();
    });
}

#[test]
fn redis_is_failed_over() {
    let Some(mut watched) = Watched::start(None, None) else {
        return;
    };
    let redis = format!(
        "[redis]\nsentinel = \"{}\"\nservice-name = \"{SERVICE}\"",
        watched.addr()
    );
    Bed::new(&redis).run("failed over", || {
        watched.servers[0].kill();
        watched.await_master(1);
    });
}
