//! Goal: sizes are told in time, as complete only when they are, and brought up to date in the
//! background without reading what has not changed.
//! Method: the program with short intervals; its answers and its metrics.
//!
//! Source: docs/semantics.md#usage.

use std::time::Duration;

use proxy_testkit::folder::names;
use proxy_testkit::server::{VOLUME, gauge};
use proxy_testkit::{Folder, Server, Settings, wait};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const BOUND: Duration = Duration::from_secs(60);

fn start(lines: &str) -> Server {
    Server::start_with(
        PROGRAM,
        Settings {
            tables: format!("[server.usage]\n{lines}\n"),
            ..Settings::default()
        },
    )
}

fn usage(server: &Server, folder: &Folder, more: Value) -> Value {
    let mut body = json!({"volume": VOLUME, "vfid": folder.vfid});
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    server.ask("GET", "/folder/usage", &body).expect(200).json()
}

/// The sum of the series of a metric that have this label.
fn series(server: &Server, name: &str, label: &str) -> f64 {
    let metrics = server.metrics();
    let lines = metrics.lines().filter(|line| line.contains(label));
    gauge(&lines.collect::<Vec<_>>().join("\n"), name).unwrap_or(0.0)
}

#[test]
fn what_was_counted_when_time_is_over_is_told_as_such() {
    let server = start("answer-time = 0");
    let folder = Folder::empty(&server);
    folder.write("d/f", b"hello");
    let partial = json!({"file_count": 0, "used_bytes": 0, "complete": false});
    assert_eq!(usage(&server, &folder, json!({})), partial);
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    let used = server.ask("GET", "/folder/used-bytes", &body);
    assert_eq!(used.expect(200).json()["complete"], false);
    let lately = usage(&server, &folder, json!({"max_age": 0}));
    assert_eq!(
        (&lately["complete"], &lately["exact"]),
        (&json!(false), &json!(false))
    );
    server.finish();
}

#[test]
fn an_answer_of_the_wanted_age_says_since_when_and_how_it_knows() {
    let server = start("");
    let folder = Folder::empty(&server);
    folder.write("d/f", b"hello");
    let plain = usage(&server, &folder, json!({}));
    assert_eq!(
        plain.as_object().expect("an object").len(),
        2,
        "as ever: {plain}"
    );
    let first = usage(&server, &folder, json!({"max_age": 0}));
    assert_eq!(first["exact"], true);
    assert_eq!(first["file_count"], 2);
    folder.write("d/g", b"hello");
    let old = usage(&server, &folder, json!({"max_age": 3600}));
    assert_eq!(old, first, "of that age");
    let new = usage(&server, &folder, json!({"max_age": 0}));
    assert_eq!((&new["file_count"], new.get("complete")), (&json!(3), None));
    assert!(new["as_of"].as_str() > first["as_of"].as_str(), "{new}");
    for (bad, what) in [(json!(-1), "-1"), (json!("x"), "text"), (json!(1.5), "1.5")] {
        let body = json!({"volume": VOLUME, "vfid": folder.vfid, "max_age": bad});
        assert_eq!(
            server.ask("GET", "/folder/usage", &body).status,
            400,
            "{what}"
        );
    }
    server.finish();
}

#[test]
fn sizes_are_brought_up_to_date_in_the_background() {
    let mut server = start("scan-interval = \"1s\"");
    let folders = [Folder::empty(&server), Folder::empty(&server)];
    for folder in &folders {
        for number in 0..50 {
            folder.write(&format!("d{number}/f"), b"x");
        }
    }
    let seen = |server: &Server, entries: f64| {
        wait::until("the scan", BOUND, || {
            let name = "volume_vfolder_entries";
            (series(server, name, "\"volume1\"") == entries).then_some(())
        });
    };
    seen(&server, 200.0);
    assert_eq!(series(&server, "volume_vfolders", "\"volume1\""), 2.0);
    // Once they have been left alone for a while, they are not read any more.
    wait::until("directories are skipped", BOUND, || {
        let skipped = series(&server, "usage_scan_directories_total", "\"skipped\"");
        (100.0 <= skipped).then_some(())
    });
    folders[0].write("d7/more", b"x");
    seen(&server, 201.0);
    let memory = server.dir().join("state/usage").join(VOLUME);
    assert_eq!(names(&memory).len(), 2);
    // Memory outlives the process.
    server.stop();
    server.restart();
    wait::until("directories are skipped at once", BOUND, || {
        let skipped = series(&server, "usage_scan_directories_total", "\"skipped\"");
        (0.0 < skipped).then_some(())
    });
    let body = json!({"volume": VOLUME, "vfid": folders[1].vfid});
    let _ = server.ask("POST", "/folder/delete", &body).expect(202);
    seen(&server, 101.0);
    wait::until("it is forgotten with the folder", BOUND, || {
        (names(&memory).len() == 1).then_some(())
    });
    server.finish();
}
