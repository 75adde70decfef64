//! Goal: a directory of any size is listed, page by page in any order and in one answer, in memory
//! that does not follow the number of its entries; the first byte comes at once.
//! Method: one flat directory, and one deep tree, in the real program; its memory from the kernel.
//! `STORAGE_TEST_LISTING_ENTRIES` sets the number of entries (30,000).
//!
//! Source: docs/semantics.md#listing, docs/semantics.md#pages.

use std::time::{Duration, Instant};

use proxy_testkit::server::{MANAGER_SECRET, VOLUME};
use proxy_testkit::{Connection, Folder, Request, Server, Settings, env_number};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
/// Above what the program has when idle.
const GROWN_BYTES_MAX: u64 = 64 << 20;
/// The first byte, on a busy machine; without one it is a few milliseconds.
const FIRST_BYTE_MAX: Duration = Duration::from_millis(500);

fn start() -> Server {
    Server::start_with(
        PROGRAM,
        Settings {
            proxy_lines: "scandir-limit = 0".to_owned(),
            ..Settings::default()
        },
    )
}

/// Asks for all pages; yields how many entries there were. `each` sees their paths.
fn pages(server: &Server, folder: &Folder, order: &str, mut each: impl FnMut(&str)) -> u64 {
    let mut cursor = Value::Null;
    let mut count = 0;
    loop {
        let body = json!({
            "volume": VOLUME, "vfid": folder.vfid, "relpath": ".", "order": order,
            "limit": 10_000, "cursor": cursor,
        });
        let page = server
            .ask("POST", "/folder/file/page", &body)
            .expect(200)
            .json();
        for item in page["items"].as_array().expect("items") {
            each(item["path"].as_str().expect("a path"));
            count += 1;
        }
        cursor = page["next"].clone();
        if cursor.is_null() {
            return count;
        }
    }
}

/// Reads a whole listing; yields the time to its first byte, and its entries.
fn list(server: &Server, folder: &Folder) -> (Duration, u64) {
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "."});
    let request = Request::new("POST", "/folder/file/list")
        .header("X-BackendAI-Storage-Auth-Token", MANAGER_SECRET)
        .header("Connection", "close")
        .json(&body);
    let mut connection = Connection::open(server.manager()).expect("a connection");
    let begun = Instant::now();
    connection.write(&request.to_bytes()).expect("sent");
    assert_eq!(connection.head().expect("a head").status, 200);
    let (mut first, mut count, mut tail) = (None, 0, Vec::new());
    loop {
        let part = connection.some(1 << 20).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        first.get_or_insert_with(|| begun.elapsed());
        tail.extend_from_slice(&part);
        let name = b"\"name\"";
        count += tail.windows(name.len()).filter(|w| w == name).count() as u64;
        // Only what can not hold a whole word is kept.
        tail.drain(..tail.len().saturating_sub(name.len() - 1));
    }
    (first.expect("an answer"), count)
}

#[test]
fn a_large_directory_is_listed_in_little_memory() {
    let server = start();
    let folder = Folder::empty(&server);
    let entries = env_number("STORAGE_TEST_LISTING_ENTRIES", 30_000);
    for number in 0..entries {
        std::fs::File::create(folder.at(&format!("{number:07}.jpg"))).expect("a file");
    }
    std::fs::File::create(folder.path.join(odd_name())).expect("a file");
    // The first request starts threads and opens the volume.
    let _ = pages(&server, &Folder::empty(&server), "name", |_| {});
    let idle = server.memory("RssAnon");
    let (first, count) = list(&server, &folder);
    assert_eq!(count, entries + 1);
    let report = |what: &str, begun: Instant| {
        let grown = server.memory("RssAnon").saturating_sub(idle);
        println!(
            "{what}: {:?}, {} KiB above idle",
            begun.elapsed(),
            grown >> 10
        );
        assert!(grown <= GROWN_BYTES_MAX, "{what}: {} MiB", grown >> 20);
    };
    println!("first byte of {entries} entries after {first:?}");
    assert!(first <= FIRST_BYTE_MAX, "{first:?}");
    report("listed", Instant::now());
    for order in ["raw", "name", "tree"] {
        let begun = Instant::now();
        let mut last = String::new();
        let count = pages(&server, &folder, order, |path| {
            assert!(order == "raw" || last.as_str() < path, "{last} then {path}");
            path.clone_into(&mut last);
        });
        assert_eq!(count, entries + 1, "{order}");
        report(order, begun);
    }
    let begun = Instant::now();
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    let usage = server.ask("GET", "/folder/usage", &body).expect(200).json();
    assert_eq!(usage["file_count"], entries + 1);
    report("counted", begun);
    let peak = server.memory("VmHWM");
    println!("peak {} MiB", peak >> 20);
    server.finish();
}

fn odd_name() -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt as _;
    std::ffi::OsString::from_vec(b"z\xff\xfe.jpg".to_vec())
}

#[test]
fn a_deep_tree_is_listed_in_the_order_of_its_paths() {
    let server = start();
    let folder = Folder::empty(&server);
    let mut want = Vec::new();
    let mut dir = String::new();
    for level in 0..200 {
        let name = |name: &str| match dir.as_str() {
            "" => name.to_owned(),
            dir => format!("{dir}/{name}"),
        };
        folder.write(&name("a"), b"x");
        folder.write(&name("e"), b"x");
        want.push((0, level, name("a")));
        want.push((1, usize::MAX - level, name("e")));
        dir = name("d");
        std::fs::create_dir(folder.at(&dir)).expect("a directory");
        want.push((0, level, dir.clone()));
    }
    want.sort();
    let want: Vec<String> = want.into_iter().map(|(_, _, path)| path).collect();
    let mut got = Vec::new();
    pages(&server, &folder, "tree", |path| got.push(path.to_owned()));
    assert_eq!(got, want);
    server.finish();
}
