//! Goal: what vendors' volumes need of the fleet, they get: numbers of Lustre projects that come
//! once, however many servers draw, and shares that are mounted on every node.
//! Method: the program, twice, with a real etcd and a real Redis; a stand-in for `lfs` that keeps
//! a table, a simulator of Hammerspace, and a keeper of mounts that binds directories.
//!
//! Source: docs/backends.md (exascaler, hammerspace), docs/operations.md.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxy_mount::protocol::{Answer, Request as Job, Task, read_frame, write_frame};
use proxy_simulators::{Simulator, hammerspace};
use proxy_testkit::etcd::Etcd;
use proxy_testkit::redis::RedisServer;
use proxy_testkit::server::VOLUME;
use proxy_testkit::{Server, Settings, skip, wait};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
/// Where the original counts projects, and what the first number is.
const COUNTER: &str = "/sorna/local/ddn/main-project-id";
const FIRST: u32 = 101;
const MIB: u64 = 1 << 20;

fn scope(number: usize) -> String {
    format!("user:{number:08x}-2222-3333-4444-555555555555")
}

fn dir_of(scope: &str) -> String {
    scope.trim_start_matches("user:").replace('-', "")
}

fn create(server: &Server, scope: &str) -> (u16, Value) {
    let body = json!({"volume": VOLUME, "qsid": scope, "options": {"limit_bytes": MIB}});
    let answer = server.ask("POST", "/quota-scope", &body);
    let body = match answer.body.is_empty() {
        true => Value::Null,
        false => answer.json(),
    };
    (answer.status, body)
}

/// A file system without Lustre: a directory, and a table for the stand-in.
struct Lustre(TempDir);

impl Lustre {
    fn new() -> Self {
        let dir = TempDir::with_prefix("lustre-test-").unwrap();
        for part in ["mount", "table"] {
            std::fs::create_dir(dir.path().join(part)).unwrap();
        }
        Self(dir)
    }

    fn mount(&self) -> PathBuf {
        self.0.path().join("mount")
    }

    fn server(&self, node: &str, etcd: &Etcd) -> Server {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = manifest.join("controlplane/volume/tests/vendors/lfs.sh");
        let command = json!(["bash", program, self.0.path().join("table")]);
        let tables = format!(
            "{}\n[volume.{VOLUME}.options]\nlfs_command = {command}\n",
            etcd.table()
        );
        Server::start_with(
            PROGRAM,
            Settings {
                volume: Some(("exascaler", self.mount())),
                ..Settings::fleet(node, tables)
            },
        )
    }

    fn number(&self, scope: &str) -> u32 {
        let note = self.mount().join(dir_of(scope)).join("project_id");
        std::fs::read_to_string(note)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }
}

#[test]
fn two_servers_never_give_a_number_to_two_scopes() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let lustre = Lustre::new();
    let servers = [lustre.server("i-one", &etcd), lustre.server("i-two", &etcd)];
    let (next, all) = (AtomicUsize::new(1), 24);
    std::thread::scope(|threads| {
        for worker in 0..6 {
            let (server, next) = (&servers[worker % 2], &next);
            threads.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if all < number {
                        return;
                    }
                    let (status, body) = create(server, &scope(number));
                    assert_eq!(status, 204, "{body}");
                }
            });
        }
    });
    let numbers: BTreeSet<u32> = (1..=all).map(|n| lustre.number(&scope(n))).collect();
    let last = FIRST + all as u32 - 1;
    assert_eq!(
        numbers,
        (FIRST..=last).collect(),
        "each once, none left out"
    );
    assert_eq!(etcd.get(COUNTER), Some(last.to_string()), "the original's");
    // Both draw for the same scope: one of them makes it.
    let both = scope(100);
    let made = std::thread::scope(|threads| {
        let all = servers.each_ref().map(|server| {
            let both = &both;
            threads.spawn(move || create(server, both).0)
        });
        all.map(|one| one.join().unwrap())
    });
    assert!(made.contains(&204), "{made:?}");
    assert!(last < lustre.number(&both));
    etcd.kill();
    let (status, body) = create(&servers[0], &scope(200));
    assert_eq!(status, 500, "{body}");
    let text = body.to_string();
    assert!(
        text.contains("EXAScaler") && text.contains("etcd"),
        "{text}"
    );
    etcd.run();
    wait::until(
        "a number after etcd came back",
        Duration::from_secs(60),
        || (create(&servers[1], &scope(200)).0 == 204).then_some(()),
    );
    let number = lustre.number(&scope(200));
    assert!(!numbers.contains(&number) && number != lustre.number(&both));
    drop(servers);
}

/// A keeper of mounts that binds the directory of a share instead of mounting it by NFS.
struct Keeper {
    socket: PathBuf,
    mounted: Arc<Mutex<Vec<PathBuf>>>,
    refuses: Arc<AtomicBool>,
}

impl Keeper {
    fn start(dir: &Path, name: &str, shares: &Path) -> Self {
        let socket = dir.join(format!("{name}.sock"));
        let listener = UnixListener::bind(&socket).unwrap();
        let keeper = Self {
            socket,
            mounted: Arc::default(),
            refuses: Arc::default(),
        };
        let (mounted, refuses) = (Arc::clone(&keeper.mounted), Arc::clone(&keeper.refuses));
        let shares = shares.to_owned();
        // Ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mounted, refuses) = (Arc::clone(&mounted), Arc::clone(&refuses));
                let shares = shares.clone();
                std::thread::spawn(move || serve(stream, &shares, &mounted, &refuses));
            }
        });
        keeper
    }

    fn count(&self) -> usize {
        self.mounted.lock().unwrap().len()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        for path in self.mounted.lock().unwrap().drain(..) {
            let _ = unmount(path, UnmountFlags::DETACH);
        }
    }
}

fn serve(
    mut stream: UnixStream,
    shares: &Path,
    mounted: &Mutex<Vec<PathBuf>>,
    refuses: &AtomicBool,
) {
    while let Ok(Some(frame)) = read_frame(&mut stream) {
        let job: Job = serde_json::from_slice(&frame).unwrap();
        let done = match job.task {
            Task::Mount {
                target,
                location,
                fs_type,
                ..
            } => {
                assert_eq!(fs_type, "nfs");
                let (_, share) = location.split_once(":/").unwrap();
                if refuses.load(Ordering::Relaxed) {
                    Err("no route to host".to_owned())
                } else {
                    std::fs::create_dir_all(&target).unwrap();
                    mount_bind(shares.join(share), &target).unwrap();
                    mounted.lock().unwrap().push(target);
                    Ok(())
                }
            }
            Task::Umount { target, .. } => {
                unmount(&target, UnmountFlags::empty()).map_err(|error| error.to_string())
            }
            _ => Ok(()),
        };
        let answer = Answer {
            id: job.id,
            done: done.is_ok(),
            text: done.err().unwrap_or_default(),
            busy: false,
        };
        if write_frame(&stream, &answer).is_err() {
            return;
        }
    }
}

/// Whether this process may mount at all.
fn may_mount(dir: &Path) -> bool {
    let at = dir.join("probe");
    std::fs::create_dir(&at).unwrap();
    let may = mount_bind(&at, &at).is_ok();
    let _ = unmount(&at, UnmountFlags::DETACH);
    may
}

fn node(name: &str, dir: &Path, tables: &str, keeper: &Keeper) -> Server {
    let path = dir.join(name);
    std::fs::create_dir(&path).unwrap();
    let socket = keeper.socket.display();
    Server::start_with(
        PROGRAM,
        Settings {
            volume: Some(("hammerspace", path)),
            proxy_lines: "use-watcher = true\n".to_owned(),
            ..Settings::fleet(
                name,
                format!("{tables}\n[server.helper]\nsocket = \"{socket}\"\n"),
            )
        },
    )
}

/// Waits until a server says that it hears the fleet and reaches its keeper.
fn await_fleet(server: &Server) {
    wait::until("redis and the keeper", Duration::from_secs(30), || {
        let health = proxy_testkit::Request::new("GET", "/health")
            .send(server.internal())
            .json();
        let checks = health["connectivity"]["connectivity_checks"].as_array()?;
        let good = |group: &str| {
            let mut of = checks
                .iter()
                .filter(|check| check["service_group"] == group)
                .peekable();
            of.peek().is_some() && of.all(|check| check["is_healthy"] == true)
        };
        (good("redis") && good("mounts")).then_some(())
    });
}

#[test]
fn a_new_share_is_mounted_on_every_node_before_it_is_used() {
    let dir = TempDir::with_prefix("shares-test-").unwrap();
    if !may_mount(dir.path()) {
        return skip("nothing can be mounted here");
    }
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let shares = dir.path().join("shares");
    std::fs::create_dir(&shares).unwrap();
    let sim = Simulator::start(hammerspace::Hammerspace::new(&shares), dir.path());
    let tables = format!(
        "[redis]\naddr = \"{}\"\n[volume.{VOLUME}.options]\naddress = \"{}{}\"\n\
         username = \"{}\"\npassword = \"{}\"\nmount_source = \"10.0.0.7\"\n\
         share_query_wait_sec = 0\nmount_wait = 3\nssl_ca_file = {:?}\n",
        redis.addr(),
        sim.url(),
        hammerspace::BASE,
        hammerspace::USER,
        hammerspace::PASSWORD,
        sim.ca_file()
    );
    let keepers = ["one", "two"].map(|name| Keeper::start(dir.path(), name, &shares));
    let one = node("i-one", dir.path(), &tables, &keepers[0]);
    let two = node("i-two", dir.path(), &tables, &keepers[1]);
    await_fleet(&one);
    await_fleet(&two);
    let first = scope(1);
    assert_eq!(create(&one, &first), (204, Value::Null));
    assert_eq!(sim.vendor().shares(), [(dir_of(&first), MIB)]);
    wait::until(
        "the mount on the other node",
        Duration::from_secs(30),
        || (keepers[1].count() == 1).then_some(()),
    );
    assert_eq!(keepers[0].count(), 1);
    let folder = format!("{first}/0123456789abcdef0123456789abcdef");
    let body = json!({"volume": VOLUME, "vfid": folder});
    let _ = two.ask("POST", "/folder/create", &body).expect(204);
    let below = format!("{}/01/23", dir_of(&first));
    assert!(shares.join(&below).is_dir(), "it lies in the share");
    let seen = dir.path().join("i-one").join(&below);
    assert!(seen.is_dir(), "the other node sees it");
    let body = json!({"volume": VOLUME, "qsid": first});
    let told = two.ask("GET", "/quota-scope", &body).expect(200).json();
    assert_eq!(told["limit_bytes"], MIB, "{told}");
    // A mount that fails is told, nothing is written below its place, and a second try mends it.
    keepers[0].refuses.store(true, Ordering::Relaxed);
    let second = scope(2);
    let (status, body) = create(&one, &second);
    assert_eq!(status, 500, "{body}");
    assert!(body.to_string().contains("is not mounted"), "{body}");
    keepers[0].refuses.store(false, Ordering::Relaxed);
    assert_eq!(create(&one, &second), (204, Value::Null));
    assert_eq!(sim.vendor().shares().len(), 2, "and none twice");
    drop((one, two));
}
