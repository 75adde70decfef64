//! Goal: memory is bounded by what is in flight, not by sizes and numbers of clients.
//! Method: many large transfers at once and many idle connections, with the process's own
//! figures from the kernel. `STORAGE_TEST_TRANSFER_MIB` sets the size of a transfer (256).
//!
//! Source: `docs/semantics.md#limits`.

use proxy_testkit::data::Pattern;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Connection, Folder, Request, Server, env_number, skip};
use rustix::process::{Resource, getrlimit, setrlimit};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const CLIENTS: u64 = 16;
const PEAK_BYTES_MAX: u64 = 200 << 20;
const IDLE_CONNECTIONS: usize = 2000;
const IDLE_BYTES_MAX: u64 = 60 << 20;
const PART_BYTES: u64 = 1 << 20;

fn upload(server: &Server, folder: &Folder, number: u64, size: u64) {
    let pattern = Pattern(number);
    let upload = Upload::begin(server, folder, &format!("f{number}"), size);
    let mut connection = upload.begin_patch(0, size, b"").expect("a connection");
    let mut at = 0;
    while at < size {
        let n = PART_BYTES.min(size - at);
        connection.write(&pattern.bytes(at, n)).expect("sent");
        at += n;
    }
    let answer = connection.answer(false).expect("an answer").expect(204);
    assert_eq!(offset(&answer), size);
}

fn download(server: &Server, folder: &Folder, number: u64, size: u64) {
    let pattern = Pattern(number);
    let token = folder.download_token(&format!("f{number}"));
    let mut connection = Connection::open(server.client()).expect("a connection");
    let request = Request::new("GET", &format!("/download?token={token}"));
    connection.write(&request.to_bytes()).expect("sent");
    assert_eq!(connection.head().expect("a head").status, 200);
    let mut at = 0;
    while at < size {
        let part = connection.some(PART_BYTES as usize).expect("more");
        assert!(!part.is_empty(), "cut at {at} of {size}");
        assert_eq!(pattern.mismatch(at, &part), None);
        at += part.len() as u64;
    }
}

/// The wanted size of a transfer, or a small one where the disk has no room for them all.
fn affordable(server: &Server, wanted: u64) -> u64 {
    let stat = rustix::fs::statvfs(server.dir()).expect("statvfs");
    let free = stat.f_frsize * stat.f_bavail;
    if free / 3 < CLIENTS * wanted {
        skip(format!(
            "transfers of {} MiB: only {} MiB are free",
            wanted >> 20,
            free >> 20
        ));
        return wanted.min(8 << 20);
    }
    wanted
}

/// Resident memory that belongs to the process alone. A debug build maps a program of tens of
/// MiB, which says nothing about its use of memory: there only anonymous pages count.
fn resident(server: &Server) -> u64 {
    if cfg!(debug_assertions) {
        server.memory("RssAnon")
    } else {
        server.memory("VmRSS")
    }
}

#[test]
fn sixteen_large_transfers_each_way_stay_within_their_memory() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let size = affordable(&server, env_number("STORAGE_TEST_TRANSFER_MIB", 256) << 20);
    for number in CLIENTS..2 * CLIENTS {
        let mut file = std::fs::File::create(folder.at(&format!("f{number}"))).expect("a file");
        for part in 0..size / PART_BYTES {
            use std::io::Write;
            let bytes = Pattern(number).bytes(part * PART_BYTES, PART_BYTES);
            file.write_all(&bytes).expect("written");
        }
    }
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, folder) = (&server, &folder);
            scope.spawn(move || upload(server, folder, number, size));
            scope.spawn(move || download(server, folder, CLIENTS + number, size));
        }
    });
    let peak = server.memory("VmHWM");
    assert!(peak <= PEAK_BYTES_MAX, "peak {} MiB", peak >> 20);
    for number in 0..CLIENTS {
        download(&server, &folder, number, size);
    }
    server.finish();
}

#[test]
fn two_thousand_idle_connections_cost_little() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit");
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if allowed < IDLE_CONNECTIONS as u64 + 100 {
        return skip(format!("only {allowed} descriptors are allowed"));
    }
    let server = Server::start(PROGRAM);
    let mut connections = Vec::new();
    for _ in 0..IDLE_CONNECTIONS {
        let mut connection = Connection::open(server.client()).expect("a connection");
        let answer = connection
            .ask(&Request::new("GET", "/"))
            .expect("an answer");
        assert_eq!(answer.status, 200);
        connections.push(connection);
    }
    let open = proxy_testkit::server::gauge(&server.metrics(), "connections");
    assert_eq!(open, Some(IDLE_CONNECTIONS as f64));
    let bytes = resident(&server);
    assert!(bytes <= IDLE_BYTES_MAX, "{} MiB", bytes >> 20);
    for connection in &mut connections {
        let answer = connection
            .ask(&Request::new("GET", "/"))
            .expect("still served");
        assert_eq!(answer.status, 200);
    }
    drop(connections);
    server.finish();
}

#[test]
fn a_gigabyte_goes_up_and_comes_down_equal() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let size = env_number("STORAGE_TEST_BIG_MIB", 1024) << 20;
    upload(&server, &folder, 77, size);
    assert_eq!(
        std::fs::metadata(folder.at("f77")).expect("f77").len(),
        size
    );
    download(&server, &folder, 77, size);
    server.finish();
}
