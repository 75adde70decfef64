//! Goal: servers behind one Redis are one for a client, an original of release 26.8.1 among them:
//! an upload begun on one goes on on any other, bytes are equal at the end, offsets never go back.
//! Method: random hops between the servers, with PATCHes that are cut, from a printed seed;
//! `STORAGE_TEST_HOPS` sets how many (60). Real Redis, real etcd, a real original.
//!
//! Source: docs/semantics.md#fleet-uploads.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proxy_testkit::data::{Pattern, Random};
use proxy_testkit::etcd::Etcd;
use proxy_testkit::original::{Original, python};
use proxy_testkit::redis::RedisServer;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Folder, Server, Settings, env_number, wait};
use serde_json::json;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const VOLUME: &str = "shared";
/// A client that is told to try again does so, for so long.
const PATIENCE: Duration = Duration::from_secs(45);

fn ours(redis: &RedisServer, volume: &Path) -> Server {
    let tables = format!(
        "[volume.{VOLUME}]\nbackend = \"vfs\"\npath = \"{}\"\n[redis]\naddr = \"{}\"\n",
        volume.display(),
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

/// A folder of the shared volume.
fn folder(server: &Server, volume: &Path) -> Folder {
    let mut folder = Folder::unmade(server);
    let inner = folder.path.strip_prefix(server.volume("volume1"));
    folder.path = volume.join(inner.expect("below the volume"));
    std::fs::create_dir_all(&folder.path).expect("a folder on the test's disk");
    folder
}

fn begin(server: &Server, folder: &Folder, name: &str, size: u64) -> String {
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": name, "size": size});
    let answer = server
        .ask("POST", "/folder/file/upload", &body)
        .expect(200)
        .json();
    answer["token"].as_str().expect("a token").to_owned()
}

/// One upload, and what its client has been told.
struct Client {
    token: String,
    size: u64,
    pattern: Pattern,
    acknowledged: u64,
    path: PathBuf,
}

impl Client {
    fn at(&self, to: SocketAddr) -> Upload {
        Upload {
            to,
            token: self.token.clone(),
            size: self.size,
        }
    }

    /// What HEAD says; a server that asks for patience gets it.
    fn offset(&mut self, to: SocketAddr) -> u64 {
        let upload = self.at(to);
        let found = wait::until("HEAD is answered", PATIENCE, || {
            let answer = upload.head();
            (answer.status != 503).then_some(answer)
        });
        let at = offset(&found.expect(200));
        assert!(
            self.acknowledged <= at,
            "back from {} to {at}",
            self.acknowledged
        );
        at
    }

    /// Whether it is all there: the original forgets what is finished.
    fn is_done(&self) -> bool {
        self.acknowledged == self.size
    }

    /// One PATCH of up to `want` bytes, cut in its middle or whole.
    fn patch(&mut self, to: SocketAddr, want: u64, is_cut: bool) {
        let at = self.offset(to);
        let length = want.min(self.size - at);
        let bytes = self.pattern.bytes(at, length);
        let upload = self.at(to);
        if is_cut {
            let half = &bytes[..bytes.len() / 2];
            drop(upload.begin_patch(at, length, half));
            return;
        }
        let answer = wait::within(PATIENCE, || {
            let answer = upload.patch(at, &bytes);
            match answer.status {
                // A cut PATCH before this one is still being ended, or moved the offset.
                409 | 503 => (offset_of(&upload) != Some(at)).then_some(None),
                _ => Some(Some(answer)),
            }
        });
        match answer.expect("an answer within patience") {
            Some(answer) => {
                let next = offset(&answer.expect(204));
                assert_eq!(next, at + length);
                self.acknowledged = next;
            }
            None => self.acknowledged = self.acknowledged.max(at),
        }
    }

    fn check(&self) {
        let got = std::fs::read(&self.path).expect("the file is in its place");
        assert_eq!(got.len() as u64, self.size);
        assert_eq!(
            self.pattern.mismatch(0, &got),
            None,
            "{}",
            self.path.display()
        );
    }
}

fn offset_of(upload: &Upload) -> Option<u64> {
    let answer = upload.head();
    (answer.status == 200).then(|| offset(&answer))
}

/// Hops between `servers` until so many are made; uploads are begun by `begin`.
fn hop(
    servers: &[SocketAddr],
    random: &mut Random,
    folder: &Folder,
    mut begin: impl FnMut(&mut Random, &str, u64) -> String,
) {
    let hops = env_number("STORAGE_TEST_HOPS", 60);
    let (mut made, mut files) = (0, 0_u64);
    while made < hops {
        let name = format!("file-{files}");
        files += 1;
        let size = 1 + random.below(3 << 20);
        let mut client = Client {
            token: begin(random, &name, size),
            size,
            pattern: Pattern(random.draw()),
            acknowledged: 0,
            path: folder.path.join(&name),
        };
        while !client.is_done() {
            let to = *random.pick(servers);
            let want = 1 + random.below(size / 3 + 1);
            client.patch(to, want, random.below(5) == 0);
            made += 1;
        }
        client.check();
    }
    eprintln!("{made} hops, {files} files");
}

#[test]
fn an_original_and_ours_serve_one_upload_in_turn() {
    for release in ["26.8.1", "26.9.6"] {
        let Some(python) = python(release) else {
            continue;
        };
        let (Some(redis), Some(etcd)) = (RedisServer::start(), Etcd::start()) else {
            return;
        };
        etcd.put("/sorna/local/config/redis/addr", &redis.addr().to_string());
        let volume = TempDir::with_prefix("storage-volume-").expect("a directory");
        let server = ours(&redis, volume.path());
        let original = Original::start(&python, etcd.address(), VOLUME, volume.path());
        let folder = folder(&server, volume.path());
        let mut random = Random::printed("an original and ours");
        let servers = [server.client(), original.client()];
        hop(
            &servers,
            &mut random,
            &folder,
            |random, name, size| match random.below(2) {
                0 => begin(&server, &folder, name, size),
                _ => original.begin(VOLUME, &folder.vfid, name, size),
            },
        );
        server.finish();
    }
}

#[test]
fn two_of_ours_serve_one_upload_in_turn() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let volume = TempDir::with_prefix("storage-volume-").expect("a directory");
    let nodes = [(); 2].map(|()| ours(&redis, volume.path()));
    let folder = folder(&nodes[0], volume.path());
    let mut random = Random::printed("two of ours");
    let servers = [nodes[0].client(), nodes[1].client()];
    hop(&servers, &mut random, &folder, |random, name, size| {
        begin(random.pick(&nodes), &folder, name, size)
    });
    for node in nodes {
        node.finish();
    }
}

#[test]
fn parts_of_one_file_go_to_two_servers_at_a_time() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let volume = TempDir::with_prefix("storage-volume-").expect("a directory");
    let nodes = [(); 2].map(|()| ours(&redis, volume.path()));
    let folder = folder(&nodes[0], volume.path());
    let (part, parts) = (256 << 10, 24_u64);
    let size = part * parts;
    let client = Client {
        token: begin(&nodes[0], &folder, "file", size),
        size,
        pattern: Pattern(7),
        acknowledged: 0,
        path: folder.path.join("file"),
    };
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (client, nodes) = (&client, &nodes);
            scope.spawn(move || {
                for n in (thread..parts).step_by(4) {
                    let upload = client.at(nodes[(n / 2 % 2) as usize].client());
                    let bytes = client.pattern.bytes(n * part, part);
                    let answer = upload.part(n * part, &bytes);
                    assert!((200..300).contains(&answer.status), "part {n}: {answer}");
                }
            });
        }
    });
    client.check();
    for node in nodes {
        node.finish();
    }
}

#[test]
fn a_server_that_is_killed_leaves_its_uploads_to_the_other() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let volume = TempDir::with_prefix("storage-volume-").expect("a directory");
    let mut nodes = [(); 2].map(|()| ours(&redis, volume.path()));
    let folder = folder(&nodes[0], volume.path());
    let mut random = Random::printed("killed");
    let size = 4 << 20;
    let mut client = Client {
        token: begin(&nodes[0], &folder, "file", size),
        size,
        pattern: Pattern(random.draw()),
        acknowledged: 0,
        path: folder.path.join("file"),
    };
    client.patch(nodes[0].client(), 1 << 20, false);
    let upload = client.at(nodes[0].client());
    let at = client.acknowledged;
    let bytes = client.pattern.bytes(at, 1 << 20);
    let writing = upload.begin_patch(at, 2 << 20, &bytes).expect("sent");
    let waited = Instant::now();
    nodes[0].kill();
    drop(writing);
    client.patch(nodes[1].client(), 1 << 20, false);
    assert!(
        waited.elapsed() < Duration::from_secs(20),
        "{:?}",
        waited.elapsed()
    );
    nodes[0].restart();
    let servers = [nodes[0].client(), nodes[1].client()];
    while !client.is_done() {
        client.patch(*random.pick(&servers), 1 << 18, false);
    }
    client.check();
}
