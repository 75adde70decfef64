//! Goal: the data plane serves real sockets by itself, and gives everything back.
//! Method: threads on port 0, a volume in a temporary directory, a keeper in memory; requests are
//! written byte by byte where the bytes matter.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use proxy_anchor::{VolumeRoot, staging};
use proxy_core::extent::{Extents, Recorded};
use proxy_core::id::{SessionId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_core::token::{ArchiveClaims, DownloadClaims, Secret, UploadClaims};
use proxy_core::units::ByteLen;
use proxy_server::bridge::{self, Call, Claimed, Grant, Known, Report};
use proxy_server::metrics::Metrics;
use proxy_server::snapshot::{Limits, Snapshot, VolumeEntry};
use proxy_server::{EngineLimits, Server, ServerConfig, start};
use tokio::sync::{Semaphore, mpsc, oneshot};

const FOLDER: &str = "user:11111111-2222-3333-4444-555555555555/0123456789abcdef0123456789abcdef";
const FAR: u64 = 4_000_000_000;

struct Plane {
    addr: SocketAddr,
    server: Option<Server>,
    metrics: Metrics,
    dir: PathBuf,
    root: VolumeRoot,
    _home: tempfile::TempDir,
}

/// Sessions in memory, a thread per granted one.
fn keep(mut calls: mpsc::Receiver<Call>) {
    let known: Arc<Mutex<HashMap<SessionId, Known>>> = Arc::default();
    while let Some(call) = calls.blocking_recv() {
        match call {
            Call::Look { session, reply } => {
                let _ = reply.send(Ok(known.lock().unwrap().get(&session).cloned()));
            }
            Call::Claim {
                upload,
                staged,
                reply,
                ..
            } => {
                let size = upload.size as u64;
                let fresh = Known {
                    durable: Extents::default(),
                    size,
                    staged,
                    finished: None,
                    partials: Vec::new(),
                    metadata: None,
                };
                let mut all = known.lock().unwrap();
                let entry = all.entry(upload.session).or_insert(fresh);
                if entry.finished.is_some() {
                    let _ = reply.send(Ok(Claimed::Finished(entry.clone())));
                    continue;
                }
                let (reports, incoming) = mpsc::channel(1);
                let (revoke, revoked) = oneshot::channel();
                let grant = Grant {
                    known: entry.clone(),
                    revoked,
                    reports,
                };
                let _ = reply.send(Ok(Claimed::Granted(grant)));
                let (known, session) = (Arc::clone(&known), upload.session);
                std::thread::spawn(move || {
                    note(incoming, &known, session);
                    drop(revoke);
                });
            }
        }
    }
}

fn note(
    mut incoming: mpsc::Receiver<Report>,
    known: &Mutex<HashMap<SessionId, Known>>,
    session: SessionId,
) {
    while let Some(report) = incoming.blocking_recv() {
        let mut all = known.lock().unwrap();
        let entry = all.get_mut(&session).unwrap();
        let reply = match report {
            Report::Record { extent, reply } => {
                let mut durable = entry.durable.clone();
                durable.insert(extent);
                let whole = durable.is_whole(entry.size);
                if !whole {
                    entry.durable.clone_from(&durable);
                }
                let _ = reply.send(Ok(Recorded { durable, whole }));
                continue;
            }
            Report::Change { change, reply } => {
                if let bridge::Change::Describe { metadata } = change {
                    entry.metadata = Some(metadata);
                }
                let _ = reply.send(Ok(entry.clone()));
                continue;
            }
            Report::Finish {
                last_from,
                target,
                reply,
            } => {
                entry.durable = Extents::prefix_of(entry.size);
                entry.finished = Some((target, last_from));
                reply
            }
            Report::Secure { reply } | Report::Abort { reply } => reply,
        };
        let _ = reply.send(Ok(()));
    }
}

fn secret() -> Secret {
    Secret::new("a secret")
}

fn plane() -> Plane {
    plane_with(EngineLimits::default(), Duration::from_secs(2))
}

fn plane_with(engine: EngineLimits, progress_timeout: Duration) -> Plane {
    let home = tempfile::tempdir().unwrap();
    let vfid = VFolderId::parse(FOLDER).unwrap();
    let dir = vfid
        .components()
        .iter()
        .fold(home.path().to_owned(), |dir, part| dir.join(part));
    std::fs::create_dir_all(&dir).unwrap();
    let root = VolumeRoot::open(home.path()).unwrap();
    let volume = VolumeEntry {
        name: "v".to_owned(),
        backend: "vfs".to_owned(),
        root: Some(root.clone()),
        reserves: true,
        late_quota: false,
        direct: true,
        names: Arc::new(Semaphore::new(8)),
    };
    let limits = Limits {
        head_timeout: Duration::from_secs(2),
        progress_timeout,
        ..Limits::default()
    };
    let snapshot = Snapshot {
        volumes: HashMap::from([("v".to_owned(), Arc::new(volume))]),
        secret: secret(),
        upload_size_max: ByteLen::new(1 << 40),
        archives: Arc::new(Semaphore::new(8)),
        limits,
    };
    let (bridge, calls) = bridge::channel(16);
    std::thread::spawn(move || keep(calls));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = start(ServerConfig {
        listeners: vec![listener],
        pin: false,
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        bridge,
        tls: None,
        engine,
    })
    .unwrap();
    let metrics = server.metrics();
    Plane {
        addr,
        server: Some(server),
        metrics,
        dir,
        root,
        _home: home,
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let server = self.server.take().unwrap();
        server.drain(Duration::from_secs(5));
        monoio::RuntimeBuilder::<monoio::FusionDriver>::new()
            .build()
            .unwrap()
            .block_on(server.join())
            .unwrap();
        assert_eq!(self.metrics.sum(|thread| &thread.connections), 0);
        assert_eq!(self.metrics.sum(|thread| &thread.engine.buffers_in_use), 0);
        assert_eq!(
            self.metrics
                .sum(|thread| &thread.engine.inflight_operations),
            0
        );
        assert_eq!(self.metrics.sum(|thread| &thread.engine.pipes_in_use), 0);
        assert_eq!(self.metrics.sum(|thread| &thread.panics), 0);
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (have, value) = line.split_once(": ")?;
            have.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Reads one answer; `bodyless` for HEAD.
fn read(stream: &mut TcpStream, bodyless: bool) -> Answer {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read_exact(&mut byte);
        assert!(read.is_ok(), "{read:?} {}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head[9..12].parse().unwrap();
    let mut answer = Answer {
        status,
        head,
        body: Vec::new(),
    };
    let length: usize = answer
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    if !bodyless && !matches!(status, 204 | 304) {
        answer.body = vec![0; length];
        stream.read_exact(&mut answer.body).unwrap();
    }
    answer
}

impl Plane {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).unwrap()
    }

    fn ask(&self, method: &str, target: &str, more: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let length = if body.is_empty() && method != "PATCH" {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: x\r\n{length}{more}\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        read(&mut stream, method == "HEAD")
    }

    fn download(&self, path: &str) -> String {
        let claims = DownloadClaims {
            volume: "v".to_owned(),
            vfid: VFolderId::parse(FOLDER).unwrap(),
            relpath: RelPath::parse(path).unwrap(),
            exp: FAR,
            unmanaged_path: None,
        };
        format!("/download?token={}", claims.mint(&secret()))
    }

    fn upload(&self, path: &str, size: u64) -> String {
        let session = SessionId::random();
        let folder = self
            .root
            .vfolder(&VFolderId::parse(FOLDER).unwrap())
            .unwrap();
        staging::create(&folder, &session).unwrap();
        let claims = UploadClaims {
            volume: "v".to_owned(),
            vfid: VFolderId::parse(FOLDER).unwrap(),
            relpath: RelPath::parse(path).unwrap(),
            size: size as i64,
            session,
            exp: FAR,
        };
        format!("/upload?token={}", claims.mint(&secret()))
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 253) as u8).collect()
}

#[test]
fn files_of_every_size_arrive_whole() {
    let plane = plane();
    for len in [0, 1, 4096, 65_536, 65_537, 1 << 20, 5_000_001] {
        std::fs::write(plane.dir.join("f"), pattern(len)).unwrap();
        let answer = plane.ask("GET", &plane.download("f"), "", b"");
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert_eq!(answer.body, pattern(len), "{len} bytes");
        let head = plane.ask("HEAD", &plane.download("f"), "", b"");
        assert_eq!(
            head.header("content-length"),
            Some(len.to_string().as_str())
        );
    }
}

/// What one change to `d/f` has to do to the next download of it.
type Change = (&'static str, fn(&std::path::Path), Option<&'static [u8]>);

const CHANGES: [Change; 10] = [
    ("nothing", |_| {}, Some(b"first")),
    (
        "same size and mtime, in place",
        |dir| {
            let file = std::fs::File::options()
                .write(true)
                .open(dir.join("d/f"))
                .unwrap();
            let mtime = file.metadata().unwrap().modified().unwrap();
            (&file).write_all(b"other").unwrap();
            file.set_modified(mtime).unwrap();
        },
        Some(b"other"),
    ),
    (
        "shorter",
        |dir| std::fs::write(dir.join("d/f"), "abc").unwrap(),
        Some(b"abc"),
    ),
    (
        "longer",
        |dir| std::fs::write(dir.join("d/f"), "a longer one").unwrap(),
        Some(b"a longer one"),
    ),
    (
        "replaced",
        |dir| {
            std::fs::write(dir.join("new"), "third").unwrap();
            std::fs::rename(dir.join("new"), dir.join("d/f")).unwrap();
        },
        Some(b"third"),
    ),
    (
        "removed",
        |dir| std::fs::remove_file(dir.join("d/f")).unwrap(),
        None,
    ),
    (
        "its directory replaced",
        |dir| {
            std::fs::rename(dir.join("d"), dir.join("e")).unwrap();
            std::fs::create_dir(dir.join("d")).unwrap();
            std::fs::write(dir.join("d/f"), "fourth").unwrap();
        },
        Some(b"fourth"),
    ),
    (
        "a link to another file of the folder",
        |dir| {
            std::fs::write(dir.join("g"), "fifth").unwrap();
            std::fs::remove_file(dir.join("d/f")).unwrap();
            symlink("../g", dir.join("d/f")).unwrap();
        },
        Some(b"fifth"),
    ),
    (
        "a link out of the folder",
        |dir| {
            std::fs::write(dir.join("../out"), "secret").unwrap();
            std::fs::remove_file(dir.join("d/f")).unwrap();
            symlink("../../out", dir.join("d/f")).unwrap();
        },
        None,
    ),
    (
        "the folder moved away",
        |dir| std::fs::rename(dir, dir.with_extension("gone")).unwrap(),
        None,
    ),
];

#[test]
fn a_remembered_download_is_never_stale() {
    for (what, change, want) in CHANGES {
        let plane = plane();
        std::fs::create_dir(plane.dir.join("d")).unwrap();
        std::fs::write(plane.dir.join("d/f"), "first").unwrap();
        let target = plane.download("d/f");
        for _ in 0..3 {
            assert_eq!(plane.ask("GET", &target, "", b"").body, b"first", "{what}");
        }
        assert_eq!(plane.metrics.sum(|thread| &thread.hot_hits), 2, "{what}");
        assert_eq!(plane.metrics.sum(|thread| &thread.hot_files), 1, "{what}");
        change(&plane.dir);
        for _ in 0..2 {
            let answer = plane.ask("GET", &target, "", b"");
            match want {
                Some(content) => assert_eq!(answer.body, content, "{what}: {}", answer.head),
                None => assert_eq!(answer.status, 404, "{what}: {}", answer.head),
            }
        }
    }
}

#[test]
fn ranges_are_parts_of_the_file() {
    let plane = plane();
    let content = pattern(3_000_000);
    std::fs::write(plane.dir.join("f"), &content).unwrap();
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=4095-1048577", 4095, 1_048_578),
        ("bytes=-5", 2_999_995, 3_000_000),
        ("bytes=2999999-", 2_999_999, 3_000_000),
    ] {
        let answer = plane.ask(
            "GET",
            &plane.download("f"),
            &format!("Range: {range}\r\n"),
            b"",
        );
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.body, content[from..to], "{range}");
    }
    let answer = plane.ask(
        "GET",
        &plane.download("f"),
        "Range: bytes=0-9,100000-299999\r\n",
        b"",
    );
    assert_eq!(answer.status, 206);
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.contains("Content-Range: bytes 0-9/3000000"));
    assert!(text.contains("Content-Range: bytes 100000-299999/3000000"));
    let answer = plane.ask(
        "GET",
        &plane.download("f"),
        "Range: bytes=3000000-\r\n",
        b"",
    );
    assert_eq!(
        (answer.status, answer.header("content-range")),
        (416, Some("bytes */3000000"))
    );
}

#[test]
fn uploads_in_chunks_end_in_the_file() {
    let plane = plane();
    for (size, chunk) in [(1, 1), (10, 3), (1 << 20, 1 << 20), (9_000_000, 4_000_000)] {
        let content = pattern(size);
        let target = plane.upload("dir/a file", size as u64);
        let mut at = 0;
        while at < size {
            let end = (at + chunk).min(size);
            let more = format!("Upload-Offset: {at}\r\n");
            let answer = plane.ask("PATCH", &target, &more, &content[at..end]);
            assert_eq!(
                answer.status,
                204,
                "{}",
                String::from_utf8_lossy(&answer.body)
            );
            assert_eq!(
                answer.header("upload-offset"),
                Some(end.to_string().as_str())
            );
            at = end;
            let head = plane.ask("HEAD", &target, "", b"");
            assert_eq!(head.header("upload-offset"), Some(at.to_string().as_str()));
        }
        assert_eq!(
            std::fs::read(plane.dir.join("dir/a file")).unwrap(),
            content
        );
        assert!(!plane.dir.join(".upload").exists());
    }
}

#[test]
fn a_broken_body_keeps_what_arrived() {
    let plane = plane();
    let content = pattern(3_000_000);
    let target = plane.upload("f", content.len() as u64);
    let mut stream = plane.connect();
    let head = "PATCH {target} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\nContent-Length: 3000000";
    write!(stream, "{}\r\n\r\n", head.replace("{target}", &target)).unwrap();
    stream.write_all(&content[..2_000_000]).unwrap();
    drop(stream);
    let until = Instant::now() + Duration::from_secs(5);
    let offset = loop {
        let head = plane.ask("HEAD", &target, "", b"");
        let offset: usize = head.header("upload-offset").unwrap().parse().unwrap();
        if offset > 0 {
            break offset;
        }
        assert!(Instant::now() < until, "nothing was kept");
        std::thread::yield_now();
    };
    assert!(offset <= 2_000_000);
    let more = format!("Upload-Offset: {offset}\r\n");
    assert_eq!(
        plane
            .ask("PATCH", &target, &more, &content[offset..])
            .status,
        204
    );
    assert_eq!(std::fs::read(plane.dir.join("f")).unwrap(), content);
}

#[test]
fn chunked_bodies_and_continue_work() {
    let plane = plane();
    let target = plane.upload("f", 11);
    let mut stream = plane.connect();
    write!(
        stream,
        "PATCH {target} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\nTransfer-Encoding: chunked\r\n\
         Expect: 100-continue\r\n\r\n"
    )
    .unwrap();
    let go = read(&mut stream, true);
    assert_eq!(go.status, 100);
    stream
        .write_all(b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: 1\r\n\r\n")
        .unwrap();
    assert_eq!(read(&mut stream, false).status, 204);
    assert_eq!(std::fs::read(plane.dir.join("f")).unwrap(), b"hello world");
    // The connection lives on, and the body was not taken for a request.
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert_eq!(read(&mut stream, false).status, 200);
}

#[test]
fn refused_bodies_do_not_spoil_the_connection() {
    let plane = plane();
    let mut stream = plane.connect();
    stream
        .write_all(b"PATCH /upload?token=x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        .unwrap();
    stream
        .write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert_eq!(read(&mut stream, false).status, 400);
    assert_eq!(read(&mut stream, false).status, 404);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n")
        .unwrap();
    assert_eq!(read(&mut stream, false).status, 400);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "nothing after a broken head");
}

#[test]
fn archives_hold_every_byte() {
    let plane = plane();
    std::fs::create_dir_all(plane.dir.join("d/empty")).unwrap();
    std::fs::write(plane.dir.join("d/big"), pattern(3_000_000)).unwrap();
    std::fs::write(plane.dir.join("d/small"), b"hi").unwrap();
    let answer = plane.ask("GET", &(plane.download("d") + "&archive=true"), "", b"");
    assert_eq!(answer.status, 200, "{}", answer.head);
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(answer.body)).unwrap();
    let mut names: Vec<String> = archive
        .file_names()
        .map(|name| name.unwrap().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["big", "empty/", "small"]);
    let mut big = Vec::new();
    archive
        .by_name("big")
        .unwrap()
        .read_to_end(&mut big)
        .unwrap();
    assert_eq!(big, pattern(3_000_000));
    let claims = ArchiveClaims {
        volume: "v".to_owned(),
        vfid: VFolderId::parse(FOLDER).unwrap(),
        files: vec!["d/small".to_owned(), "d/empty".to_owned()],
        filename: Some("x.zip".to_owned()),
        exp: FAR,
    };
    let target = format!("/download-archive?token={}", claims.mint(&secret()));
    let answer = plane.ask("GET", &target, "", b"");
    assert_eq!(answer.status, 200, "{}", answer.head);
    let archive = zip::ZipArchive::new(std::io::Cursor::new(answer.body)).unwrap();
    let mut names: Vec<String> = archive
        .file_names()
        .map(|name| name.unwrap().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["d/empty/", "d/small"]);
}

#[test]
fn slow_clients_are_cut() {
    let plane = plane();
    let mut dawdler = plane.connect();
    dawdler.write_all(b"GET / HT").unwrap();
    assert_eq!(read(&mut dawdler, false).status, 408);
    let target = plane.upload("f", 100);
    let mut stalled = plane.connect();
    write!(
        stalled,
        "PATCH {target} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\nContent-Length: 100\r\n\r\nabc"
    )
    .unwrap();
    assert_eq!(read(&mut stalled, false).status, 408);
    let head = plane.ask("HEAD", &target, "", b"");
    assert_eq!(
        head.header("upload-offset"),
        Some("3"),
        "what arrived was kept"
    );
}

#[test]
fn stalled_uploads_leave_the_buffers_to_the_others() {
    let mut engine = EngineLimits::default();
    engine.pool.budget_bytes = 2 * engine.pool.buffer_bytes;
    engine.pool.keep_bytes = engine.pool.buffer_bytes;
    // Longer than any answer is waited for: whoever waits for the stalled ones fails.
    let plane = plane_with(engine, Duration::from_secs(60));
    let stalled: Vec<TcpStream> = (0..8)
        .map(|number| {
            let target = plane.upload(&format!("stalled {number}"), 100);
            let mut stream = plane.connect();
            write!(
                stream,
                "PATCH {target} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\n\
                 Content-Length: 100\r\n\r\nabc"
            )
            .unwrap();
            stream
        })
        .collect();
    let content = pattern(3_000_000);
    let target = plane.upload("f", content.len() as u64);
    let answer = plane.ask("PATCH", &target, "Upload-Offset: 0\r\n", &content);
    assert_eq!(answer.status, 204, "{}", answer.head);
    assert_eq!(std::fs::read(plane.dir.join("f")).unwrap(), content);
    drop(stalled);
}
