//! Goal: four servers behind one Redis on one volume, one of which is killed again and again: no
//! error that a client that tries again does not get over, no byte lost, every task ends and is
//! told.
//! Method: uploads in chunks that hop, downloads, listings, clones and deletions for
//! `STORAGE_TEST_SOAK_SECONDS` (20), with a kill -9 each `STORAGE_TEST_SOAK_KILL_SECONDS` (5) and a
//! restart on the same data directory and node identifier. Real Redis.
//!
//! Source: docs/semantics.md#fleet-uploads, docs/semantics.md#fleet-tasks.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proxy_testkit::data::{Pattern, Random};
use proxy_testkit::http::Connection;
use proxy_testkit::redis::{RedisServer, Reply};
use proxy_testkit::server::{Addresses, VOLUME};
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Folder, Request, Response, Server, Settings, env_number, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const SERVERS: usize = 4;
/// A client tries again for so long.
const PATIENCE: Duration = Duration::from_secs(60);
const FILES: usize = 60;

/// What all clients share.
struct Soak {
    redis: RedisServer,
    addresses: Vec<Mutex<Addresses>>,
    folders: Mutex<Vec<Folder>>,
    /// `(name, folder)` of all events that were on the stream.
    told: Mutex<HashSet<(String, String)>>,
    stop: AtomicBool,
    done: [AtomicU64; 4],
    again: AtomicU64,
}

/// One client: where it is, and its dice.
struct Client<'a> {
    soak: &'a Soak,
    node: usize,
    random: Random,
}

impl Client<'_> {
    /// Asks until there is an answer that is none of a server that asks for patience.
    fn ask(&mut self, what: &str, ask: impl Fn(Addresses) -> (bool, Request)) -> Response {
        if self.random.below(4) == 0 {
            self.node = self.random.below(SERVERS as u64) as usize;
        }
        wait::until(what, PATIENCE, || {
            let addresses = *self.soak.addresses[self.node].lock().expect("no panic");
            let (is_manager, request) = ask(addresses);
            let to = match is_manager {
                true => addresses.manager,
                false => addresses.client,
            };
            let answer = Connection::open(to).and_then(|mut way| way.ask(&request));
            let answer = answer.ok().filter(|answer| answer.status != 503);
            if answer.is_none() {
                self.soak.again.fetch_add(1, Ordering::Relaxed);
                self.node = (self.node + 1) % SERVERS;
            }
            answer
        })
    }

    fn manage(&mut self, path: &str, body: &Value) -> Response {
        let secret = proxy_testkit::server::MANAGER_SECRET;
        let header = "X-BackendAI-Storage-Auth-Token";
        self.ask(path, |_| {
            let request = Request::new("POST", path).header(header, secret);
            (true, request.json(body))
        })
    }

    fn token(&mut self, path: &str, body: &Value) -> String {
        let answer = self.manage(path, body).expect(200).json();
        answer["token"].as_str().expect("a token").to_owned()
    }

    fn upload(&mut self, folder: &Folder, name: &str) {
        let size = (1 << 20) + self.random.below(3 << 20);
        let pattern = Pattern(self.random.draw());
        let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": name, "size": size});
        let token = self.token("/folder/file/upload", &body);
        let upload = |to: Addresses| Upload {
            to: to.client,
            token: token.clone(),
            size,
        };
        let (mut at, begun) = (0, Instant::now());
        while at < size {
            assert!(begun.elapsed() < PATIENCE * 3, "{name} is stuck at {at}");
            let head = self.ask("HEAD", |to| {
                let target = upload(to).target();
                (false, Request::new("HEAD", &target))
            });
            let found = offset(&head.expect(200));
            assert!(at <= found, "{name}: back from {at} to {found}");
            at = found;
            let length = (size - at).min(1 + self.random.below(400_000));
            if length == 0 {
                break;
            }
            let bytes = pattern.bytes(at, length);
            let answer = self.ask("PATCH", |to| {
                (false, upload(to).patch_request(at).body(&bytes))
            });
            match answer.status {
                204 => at = offset(&answer),
                // What was sent before the answer was lost is there.
                409 => {}
                _ => panic!("{name} at {at}: {answer}"),
            }
        }
        let got = std::fs::read(folder.path.join(name)).expect("the file is there");
        assert_eq!(got.len() as u64, size, "{name}");
        assert_eq!(pattern.mismatch(0, &got), None, "{name}");
    }

    fn read(&mut self, folder: &Folder, content: &[u8]) {
        let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "there"});
        let token = self.token("/folder/file/download", &body);
        let target = format!("/download?token={token}");
        let answer = self.ask("download", |_| (false, Request::new("GET", &target)));
        assert!(answer.expect(200).body == content, "other bytes");
        self.count(1);
        let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "."});
        let listed = self.manage("/folder/file/list", &body).expect(200);
        assert!(listed.text().contains("there"), "{listed}");
        self.count(2);
    }

    /// A clone, and the deletion of both folders.
    fn tasks(&mut self) {
        let (source, copy) = (self.folder(), self.folder());
        std::fs::create_dir_all(&source.path).expect("a folder");
        for number in 0..FILES {
            let content = vec![b'x'; 16_384];
            std::fs::write(source.path.join(format!("f{number}")), content).expect("a file");
        }
        let body = json!({
            "src_volume": VOLUME, "src_vfid": source.vfid,
            "dst_volume": VOLUME, "dst_vfid": copy.vfid,
        });
        let copied = |copy: &Folder| std::fs::read_dir(&copy.path).map_or(0, Iterator::count);
        self.task("/folder/clone", &body);
        assert_eq!(copied(&copy), FILES);
        self.until_told("vfolder_clone_success", &source.vfid);
        for folder in [source, copy] {
            let body = json!({"volume": VOLUME, "vfid": folder.vfid});
            self.task("/folder/delete", &body);
            assert!(!folder.path.exists(), "{} is there", folder.vfid);
            self.until_told("vfolder_deletion_success", &folder.vfid);
        }
    }

    /// Begins a task and waits for its end, of which whoever comes late hears, too.
    fn task(&mut self, path: &str, body: &Value) {
        let answer = self.manage(path, body);
        assert!(matches!(answer.status, 200 | 202), "{path}: {answer}");
        let task = answer.json()["bgtask_id"].as_str().map(str::to_owned);
        let key = format!("bgtask.{}", task.expect("a task"));
        wait::until("the task ends", PATIENCE, || {
            let said = self.soak.redis.command(4, &["GET", &key]).text()?;
            assert!(!said.contains("bgtask_failed"), "{said}");
            said.contains("bgtask_done").then_some(())
        });
        self.count(3);
    }

    fn until_told(&self, name: &str, vfid: &str) {
        let event = (name.to_owned(), vfid.to_owned());
        wait::until(name, PATIENCE, || {
            let told = self.soak.told.lock().expect("no panic");
            told.contains(&event).then_some(())
        });
    }

    fn folder(&self) -> Folder {
        let mut folders = self.soak.folders.lock().expect("no panic");
        folders.pop().expect("enough folders")
    }

    fn count(&self, what: usize) {
        self.soak.done[what].fetch_add(1, Ordering::Relaxed);
    }
}

impl Soak {
    fn client(&self, random: &mut Random) -> Client<'_> {
        Client {
            soak: self,
            node: 0,
            random: Random::seeded(random.draw()),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Reads the stream as it goes by.
    fn listen(&self) {
        let mut after = "-".to_owned();
        while self.goes_on() {
            let Reply::List(entries) = self.redis.command(4, &["XRANGE", "events", &after, "+"])
            else {
                continue;
            };
            for entry in entries {
                let Reply::List(parts) = entry else { continue };
                after = format!("({}", parts[0].text().expect("an id"));
                let fields = parts[1].texts();
                let value = |name: &str| {
                    let at = fields.iter().position(|field| field == name);
                    fields[at.expect("a field") + 1].clone()
                };
                let body: Value = serde_json::from_str(&value("payload")).expect("JSON");
                if let Some(vfid) = body["vfid"].as_str() {
                    let event = (value("name"), vfid.to_owned());
                    self.told.lock().expect("no panic").insert(event);
                }
            }
            wait::within(Duration::from_millis(50), || None::<()>);
        }
    }
}

fn start(number: usize, redis: &RedisServer, volume: &Path) -> Server {
    let tables = format!("[redis]\naddr = \"{}\"\n", redis.addr());
    Server::start_with(
        PROGRAM,
        Settings {
            volume: Some(("vfs", volume.to_owned())),
            ..Settings::fleet(&format!("i-soak-{number}"), tables)
        },
    )
}

/// Kills one server after the other, and starts it again.
fn kill(soak: &Soak, servers: &mut [Server], random: &mut Random) {
    let lasts = Duration::from_secs(env_number("STORAGE_TEST_SOAK_SECONDS", 20));
    let every = Duration::from_secs(env_number("STORAGE_TEST_SOAK_KILL_SECONDS", 5));
    let begun = Instant::now();
    while begun.elapsed() < lasts && soak.goes_on() {
        wait::within(every, || (!soak.goes_on()).then_some(()));
        let number = random.below(SERVERS as u64) as usize;
        servers[number].kill();
        servers[number].restart();
        *soak.addresses[number].lock().expect("no panic") = addresses(&servers[number]);
    }
}

/// Four servers, and what clients share.
fn begin(redis: RedisServer, volume: &Path) -> (Soak, Vec<Server>) {
    let starts = (0..SERVERS).map(|number| start(number, &redis, volume));
    let servers: Vec<Server> = starts.collect();
    let folders = (0..20_000).map(|_| Folder::unmade(&servers[0])).collect();
    let soak = Soak {
        redis,
        addresses: servers.iter().map(addresses).map(Mutex::new).collect(),
        folders: Mutex::new(folders),
        told: Mutex::default(),
        stop: AtomicBool::new(false),
        done: Default::default(),
        again: AtomicU64::new(0),
    };
    (soak, servers)
}

fn addresses(server: &Server) -> Addresses {
    Addresses {
        client: server.client(),
        manager: server.manager(),
        internal: server.internal(),
    }
}

/// All clients, until the last server was killed and started.
fn load(soak: &Soak, servers: &mut [Server], folder: &Folder, content: &[u8]) {
    let mut random = Random::printed("soak");
    let ends = AtomicBool::new(false);
    let goes_on = &|| !ends.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let mut client = soak.client(&mut random);
            scope.spawn(move || {
                let mut files = 0;
                while goes_on() {
                    client.upload(folder, &format!("file-{number}-{files}"));
                    client.count(0);
                    files += 1;
                }
            });
        }
        for _ in 0..2 {
            let [mut reader, mut manager] = [(), ()].map(|()| soak.client(&mut random));
            scope.spawn(move || {
                while goes_on() {
                    reader.read(folder, content);
                }
            });
            scope.spawn(move || {
                while goes_on() {
                    manager.tasks();
                }
            });
        }
        kill(soak, servers, &mut random);
        ends.store(true, Ordering::Relaxed);
    });
}

#[test]
fn clients_get_over_servers_that_are_killed() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let volume = TempDir::with_prefix("storage-volume-").expect("a directory");
    let (soak, mut servers) = begin(redis, volume.path());
    let folder = Folder::empty(&servers[0]);
    let content = Pattern(3).bytes(0, 1 << 20);
    folder.write("there", &content);
    std::thread::scope(|scope| {
        scope.spawn(|| soak.listen());
        load(&soak, &mut servers, &folder, &content);
        soak.stop.store(true, Ordering::Relaxed);
    });
    let done = soak
        .done
        .each_ref()
        .map(|done| done.load(Ordering::Relaxed));
    let again = soak.again.load(Ordering::Relaxed);
    eprintln!("soak: uploads, downloads, listings, tasks {done:?}, tried again {again}");
    assert!(done.iter().all(|done| 0 < *done), "{done:?}");
}
