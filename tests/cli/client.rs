//! `put` and `get` against a server that breaks off, stalls, refuses and changes its mind.

use std::fs;

use proxy_testkit::wait;
use rustix::process::Signal;
use serde_json::json;

use crate::fake::{Fake, Turn};
use crate::program::{BOUND, Home, Running};

const MIB: usize = 1 << 20;

/// A folder that needs no name: its identifier.
const FOLDER: &str = "user:11111111-2222-3333-4444-555555555555/aabbccddeeff00112233445566778899";

/// Bytes that differ from place to place.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 251 + at) as u8).collect()
}

fn target(path: &str) -> String {
    format!("{FOLDER}:{path}")
}

#[test]
fn put_goes_on_after_the_connection_breaks() {
    let home = Home::new();
    let fake = Fake::start(&home);
    let bytes = content(3 * MIB);
    home.file("f", &bytes);
    fake.script(&[
        Turn::Cut(MIB),
        Turn::Refuse(503, json!({"title": "not now"})),
        Turn::Cut(MIB),
    ]);
    let done = home.run(&["put", "f", &target("x"), "--json"]).json();
    assert_eq!(
        (done["bytes"].as_u64(), done["resumed_from"].as_u64()),
        (Some(3 << 20), Some(0))
    );
    let state = fake.state();
    assert!(state.received == bytes, "the bytes are the file's");
    let want = [
        "PATCH 0",
        "HEAD",
        "PATCH 1048576",
        "HEAD",
        "PATCH 1048576",
        "HEAD",
        "PATCH 2097152",
    ];
    assert_eq!(state.seen, want);
    assert_eq!(state.sessions, 1);
}

/// Starts `put`, kills it after `bytes`, and returns.
fn killed_put(home: &Home, fake: &Fake, bytes: usize) {
    fake.script(&[Turn::Stall(bytes)]);
    let mut put = Running::start(home, &["put", "f", &target("x")]);
    fake.until("the first bytes", |state| state.received.len() == bytes);
    put.signal(Signal::KILL);
    put.wait();
}

#[test]
fn a_killed_put_goes_on_when_it_is_run_again() {
    let home = Home::new();
    let fake = Fake::start(&home);
    let bytes = content(2 * MIB);
    home.file("f", &bytes);
    killed_put(&home, &fake, MIB);
    let done = home.run(&["put", "f", &target("x"), "--json"]).json();
    assert_eq!(done["resumed_from"], MIB);
    assert!(fake.state().received == bytes);
    assert_eq!(fake.state().sessions, 1);
    // It is done: once more is a new upload.
    let done = home.run(&["put", "f", &target("x"), "--json"]).json();
    assert_eq!(done["resumed_from"], 0);
    assert_eq!(fake.state().sessions, 2);
}

#[test]
fn a_put_begins_anew_when_file_or_session_are_others() {
    let home = Home::new();
    let fake = Fake::start(&home);
    home.file("f", &content(2 * MIB));
    killed_put(&home, &fake, MIB);
    let changed = content(3 * MIB);
    home.file("f", &changed);
    let done = home.run(&["put", "f", &target("x"), "--json"]).json();
    assert_eq!(
        (done["resumed_from"].as_u64(), fake.state().sessions),
        (Some(0), 2)
    );
    assert!(fake.state().received == changed);

    killed_put(&home, &fake, MIB);
    // The server forgot the session, as if its token had expired.
    fake.state().sessions += 1;
    let done = home.run(&["put", "f", &target("x"), "--json"]).json();
    assert_eq!(done["resumed_from"], 0);
    assert!(fake.state().received == changed);

    killed_put(&home, &fake, MIB);
    let done = home
        .run(&["put", "f", &target("x"), "--json", "--restart"])
        .json();
    assert_eq!(done["resumed_from"], 0);
    assert!(fake.state().received == changed);
}

#[test]
fn a_refused_put_says_why_and_can_go_on() {
    let home = Home::new();
    let fake = Fake::start(&home);
    let bytes = content(2 * MIB);
    home.file("f", &bytes);
    fake.script(&[
        Turn::Cut(MIB),
        Turn::Refuse(
            507,
            json!({"title": "No Space", "msg": "12 bytes are left"}),
        ),
    ]);
    home.run(&["put", "f", &target("x")])
        .failed(1, "507 Insufficient Storage: No Space: 12 bytes are left");
    let done = home.run(&["put", "f", &target("x"), "--json"]).json();
    assert_eq!(done["resumed_from"], MIB);
    assert!(fake.state().received == bytes);
}

#[test]
fn an_empty_file_is_put_by_one_empty_request() {
    let home = Home::new();
    let fake = Fake::start(&home);
    home.file("f", b"");
    let done = home.run(&["put", "f", &target(""), "--json"]).json();
    assert_eq!(done["bytes"], 0);
    assert_eq!(done["target"], target("f").as_str());
    assert_eq!(fake.state().seen, ["PATCH 0"]);
}

#[test]
fn get_goes_on_after_the_connection_breaks() {
    let home = Home::new();
    let fake = Fake::start(&home);
    let bytes = content(3 * MIB);
    fake.state().content = bytes.clone();
    fake.script(&[Turn::Cut(MIB), Turn::Refuse(500, json!({})), Turn::Cut(MIB)]);
    home.run(&["get", &target("a/x"), "--json"]).json();
    assert!(fs::read(home.path().join("x")).unwrap() == bytes);
    assert!(!home.path().join("x.part").exists());
    let want = [
        "GET all",
        "GET bytes=1048576-",
        "GET bytes=1048576-",
        "GET bytes=2097152-",
    ];
    assert_eq!(fake.state().seen, want);
}

/// Starts `get`, kills it after `bytes`, and returns.
fn killed_get(home: &Home, fake: &Fake, bytes: usize) {
    fake.script(&[Turn::Stall(bytes)]);
    let mut get = Running::start(home, &["get", &target("x")]);
    let part = home.path().join("x.part");
    wait::until("the first bytes", BOUND, || {
        let length = fs::metadata(&part).map_or(0, |found| found.len());
        (length == bytes as u64).then_some(())
    });
    get.signal(Signal::KILL);
    get.wait();
    assert!(
        !home.path().join("x").exists(),
        "the target appears whole or not at all"
    );
}

#[test]
fn a_killed_get_goes_on_when_it_is_run_again() {
    let home = Home::new();
    let fake = Fake::start(&home);
    let bytes = content(2 * MIB);
    fake.state().content = bytes.clone();
    killed_get(&home, &fake, MIB);
    let done = home.run(&["get", &target("x"), "--json"]).json();
    assert_eq!(done["resumed_from"], MIB);
    assert!(fs::read(home.path().join("x")).unwrap() == bytes);

    // All bytes are there but the name: the last one is asked for again, to prove the version.
    fs::remove_file(home.path().join("x")).unwrap();
    killed_get(&home, &fake, MIB);
    fs::write(home.path().join("x.part"), &bytes).unwrap();
    home.run(&["get", &target("x"), "--json"]).json();
    assert_eq!(fake.state().seen.last().unwrap(), "GET bytes=2097151-");
    assert!(fs::read(home.path().join("x")).unwrap() == bytes);
}

#[test]
fn two_versions_never_mix() {
    let home = Home::new();
    let fake = Fake::start(&home);
    fake.state().content = content(2 * MIB);
    killed_get(&home, &fake, MIB);
    let newer: Vec<u8> = content(MIB).iter().map(|byte| !byte).collect();
    fake.state().content = newer.clone();
    fake.state().etag = "\"v2\"".into();
    let done = home.run(&["get", &target("x"), "--json"]).json();
    assert_eq!(
        (done["bytes"].as_u64(), done["resumed_from"].as_u64()),
        (Some(1 << 20), Some(0))
    );
    assert!(fs::read(home.path().join("x")).unwrap() == newer);

    fs::remove_file(home.path().join("x")).unwrap();
    killed_get(&home, &fake, MIB / 2);
    home.run(&["get", &target("x"), "--restart"]).good();
    assert_eq!(fake.state().seen.last().unwrap(), "GET all");
    assert!(fs::read(home.path().join("x")).unwrap() == newer);
}

#[test]
fn a_get_to_standard_output_is_only_the_file() {
    let home = Home::new();
    let fake = Fake::start(&home);
    fake.state().content = b"hello\n".to_vec();
    assert_eq!(home.run(&["get", &target("x"), "-"]).good(), "hello\n");
    home.run(&["get", &target("x"), "-", "--json"])
        .failed(2, "--json");
    fs::create_dir(home.path().join("d")).unwrap();
    home.run(&["get", &target("x"), "d"]).good();
    assert_eq!(fs::read(home.path().join("d/x")).unwrap(), b"hello\n");
}

#[test]
fn progress_is_shown_when_asked_for() {
    let home = Home::new();
    let fake = Fake::start(&home);
    fake.state().content = content(MIB);
    let quiet = home.run(&["get", &target("x")]);
    assert_eq!(quiet.err, "", "standard error is no terminal here");
    let shown = home.run(&["get", &target("x"), "--progress", "always", "--json"]);
    assert!(shown.err.contains("MiB"), "{}", shown.err);
    shown.json();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let home = Home::new();
    home.file("f", b"x");
    home.run(&["put", "f", &target("x")])
        .failed(1, "start one with: storage-proxy serve");
    let _fake = Fake::start(&home);
    home.file(
        "storage-proxy.toml",
        b"[api.manager]\nservice-addr = \"127.0.0.1:1\"\n",
    );
    fs::remove_file(home.path().join(".local/share/storage-proxy/runtime.json")).unwrap();
    home.run(&["put", "f", &target("x")]).failed(
        1,
        "cannot reach the manager port 127.0.0.1:1: connection refused",
    );
    home.run(&["put", "f", "nowhere"])
        .failed(2, "say where in the folder: nowhere:PATH");
    home.run(&["put", "f", "nowhere:x"]).failed(
        1,
        "there is no folder nowhere; create it with: storage-proxy mkdir nowhere",
    );
}
