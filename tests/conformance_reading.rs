//! Goal: directories are listed and files fetched as the contract says.
//! Method: tables of requests; listings are compared with what the disk says itself.
//!
//! Source: manager contract 5.2, 5.5. Where ours differs from upstream:
//! `docs/semantics.md#listing`, `docs/semantics.md#staging`, `docs/semantics.md#fetch`.

use std::time::Duration;

use proxy_testkit::server::VOLUME;
use proxy_testkit::table::{Report, Row, Want, check, matches, row};
use proxy_testkit::{Folder, Server};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

const LIST: &str = "POST /folder/file/list";
const FETCH: &str = "POST /folder/file/fetch";

const ESCAPES: Want = Want::Problem("InvalidSubpathError");
const FOLDER_GONE: Want = Want::Problem("VFolderNotFoundError");
/// Refused one way or the other: an escape, a reserved or impossible name.
const NO: Want = Want::Any(&[ESCAPES, Want::Refused(400), Want::Refused(404)]);

const LIST_ROWS: &[Row] = &[
    row(
        "manager 5.2",
        LIST,
        r#"{$here,"relpath":"empty"}"#,
        Want::Json(200, r#"{"items":[]}"#),
    ),
    row(
        "manager 5.2",
        LIST,
        r#"{$here,"relpath":"d1/sub"}"#,
        Want::Json(
            200,
            r#"{"items":[{"name":"y.txt","type":"FILE",
                "stat":{"mode":33188,"size":3,"created":"<time>","modified":"<time>"},
                "symlink_target":""}]}"#,
        ),
    ),
    row(
        "manager 5.2",
        LIST,
        r#"{$here,"relpath":"in_dir/sub"}"#,
        Want::Json(
            200,
            r#"{"items":[{"name":"y.txt","type":"FILE","stat":"<any>","symlink_target":""}]}"#,
        ),
    ),
    row(
        "manager 5.2",
        LIST,
        r#"{$here,"relpath":"한글"}"#,
        Want::Json(
            200,
            r#"{"items":[{"name":"파일.txt","type":"FILE","stat":"<any>","symlink_target":""}]}"#,
        ),
    ),
    row(
        "manager 5.2",
        LIST,
        r#"{$here,"relpath":"not there"}"#,
        Want::Os(2),
    ),
    row(
        "manager 5.2",
        LIST,
        r#"{$here,"relpath":"a.txt"}"#,
        Want::Os(20),
    ),
    row(
        "manager 5.2",
        LIST,
        r#"{$here,"relpath":"dangling"}"#,
        Want::Os(2),
    ),
    row(
        "manager 5.2",
        LIST,
        r#"{$here,"relpath":"fifo"}"#,
        Want::Os(20),
    ),
    row("manager 5", LIST, r#"{$here,"relpath":".."}"#, ESCAPES),
    row(
        "manager 5",
        LIST,
        r#"{$here,"relpath":"d1/../.."}"#,
        ESCAPES,
    ),
    row("manager 5", LIST, r#"{$here,"relpath":"out_dir"}"#, ESCAPES),
    row("manager 5", LIST, r#"{$here,"relpath":"loop"}"#, NO),
    row("manager 5", LIST, r#"{$here,"relpath":"a\u0000b"}"#, NO),
    row(
        "manager 5",
        LIST,
        r#"{"volume":"volume1","vfid":"$new","relpath":""}"#,
        FOLDER_GONE,
    ),
    row("ours, staging", LIST, r#"{$here,"relpath":".upload"}"#, NO),
];

const FETCH_ROWS: &[Row] = &[
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"a.txt"}"#,
        Want::Stream(b"hello"),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"./d1//x.txt"}"#,
        Want::Stream(b"x marks the spot"),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"d1/../a.txt"}"#,
        Want::Stream(b"hello"),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"in"}"#,
        Want::Stream(b"hello"),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"in_abs"}"#,
        Want::Stream(b"hello"),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"d1/up"}"#,
        Want::Stream(b"hello"),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"in_dir/x.txt"}"#,
        Want::Stream(b"x marks the spot"),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"none"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"not there"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"d1"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":""}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"fifo"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"dangling"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"loop"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"out"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"out_rel"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"out_dir/secret"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"../x"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{$here,"relpath":"a\u0000b"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{"volume":"nowhere","vfid":"$vfid","relpath":"a.txt"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{"volume":"gone","vfid":"$vfid","relpath":"a.txt"}"#,
        Want::Stream(b""),
    ),
    row(
        "manager 5.5",
        FETCH,
        r#"{"volume":"volume1","vfid":"$new","relpath":"a.txt"}"#,
        Want::Stream(b""),
    ),
];

#[test]
fn directories_are_listed() {
    let server = Server::start(PROGRAM);
    check(&server, "list", LIST_ROWS);
    server.finish();
}

/// Kind and link target of everything in the root of a full folder.
const LISTED: &[(&str, &str, &str)] = &[
    ("a.txt", "FILE", ""),
    ("d1", "DIRECTORY", ""),
    ("dangling", "SYMLINK", "nowhere"),
    ("empty", "DIRECTORY", ""),
    ("fifo", "FILE", ""),
    ("hundred", "FILE", ""),
    ("in", "SYMLINK", "a.txt"),
    ("in_abs", "SYMLINK", "a.txt"),
    ("in_dir", "SYMLINK", "d1"),
    ("none", "FILE", ""),
    ("out", "SYMLINK", ""),
    ("out_dir", "SYMLINK", ""),
    ("out_rel", "SYMLINK", ""),
    ("한글", "DIRECTORY", ""),
];

fn list(server: &Server, folder: &Folder) -> Vec<Value> {
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "."});
    let answer = server
        .ask("POST", "/folder/file/list", &body)
        .expect(200)
        .json();
    answer["items"].as_array().expect("items").clone()
}

#[test]
fn a_listing_tells_kinds_sizes_times_and_inner_link_targets() {
    use std::os::unix::fs::MetadataExt;
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let items = list(&server, &folder);
    let mut report = Report::default();
    for (name, kind, target) in LISTED {
        let found = items.iter().find(|i| i["name"] == *name);
        let meta = folder.at(name).symlink_metadata().expect("it was made");
        let want = json!({
            "name": name, "type": kind, "symlink_target": target,
            "stat": {
                "mode": meta.mode(), "size": meta.size(), "created": "<time>",
                "modified": "<time>",
            },
        });
        let got = found.cloned().unwrap_or_default();
        report.note(name, matches(&got, &want, name));
    }
    report.end("items");
    // `loop` has no target that could be named; it is listed all the same.
    assert_eq!(items.len(), LISTED.len() + 1, "{items:?}");
    server.finish();
}

#[test]
fn times_in_a_listing_are_iso_8601_without_an_empty_fraction() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let cases = [
        (1_700_000_000, 0, "2023-11-14T22:13:20+00:00"),
        (
            1_700_000_000,
            500_000_000,
            "2023-11-14T22:13:20.500000+00:00",
        ),
        (0, 0, "1970-01-01T00:00:00+00:00"),
    ];
    for (seconds, nanos, want) in cases {
        folder.write("f", b"");
        let time = std::time::UNIX_EPOCH + Duration::new(seconds, nanos);
        let file = std::fs::File::options()
            .write(true)
            .open(folder.at("f"))
            .expect("f");
        file.set_times(std::fs::FileTimes::new().set_modified(time))
            .expect("a time");
        assert_eq!(list(&server, &folder)[0]["stat"]["modified"], want);
    }
    server.finish();
}

#[test]
fn a_listing_is_cut_at_the_limit_and_hides_staging_files() {
    // docs/semantics.md#listing, docs/semantics.md#staging
    let settings = proxy_testkit::Settings {
        proxy_lines: "scandir-limit = 20\n".to_owned(),
        ..Default::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let folder = Folder::empty(&server);
    for n in 0..25 {
        folder.write(&format!("f{n}"), b"");
    }
    assert_eq!(list(&server, &folder).len(), 20);
    let folder = Folder::empty(&server);
    folder.write(".upload/0123456789abcdef0123456789abcdef", b"part");
    folder.write("deep/.upload/kept", b"a user's own directory of that name");
    let names: Vec<Value> = list(&server, &folder)
        .iter()
        .map(|i| i["name"].clone())
        .collect();
    assert_eq!(names, ["deep"]);
    server.finish();
}

#[test]
fn a_name_that_is_not_utf8_does_not_break_a_listing() {
    use std::os::unix::ffi::OsStrExt;
    // docs/semantics.md#listing: upstream sends lone surrogates, which the Manager refuses.
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let name = std::ffi::OsStr::from_bytes(b"bad\xff.bin");
    std::fs::write(folder.path.join(name), b"x").expect("a file");
    let items = list(&server, &folder);
    assert_eq!(items[0]["name"], "bad\u{fffd}.bin");
    server.finish();
}

#[test]
fn files_are_fetched() {
    let settings = proxy_testkit::Settings {
        gone_volume: true,
        ..Default::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    check(&server, "fetch", FETCH_ROWS);
    server.finish();
}

#[test]
fn a_big_file_is_fetched_whole_and_in_bounded_memory() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let pattern = proxy_testkit::data::Pattern(7);
    let size = 96 << 20;
    folder.write("big", &pattern.bytes(0, size));
    let before = server.memory("VmHWM");
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "big"});
    let answer = server.ask("POST", "/folder/file/fetch", &body);
    assert_eq!(answer.body.len() as u64, size);
    assert_eq!(pattern.mismatch(0, &answer.body), None);
    let grown = server.memory("VmHWM") - before;
    assert!(grown < 48 << 20, "{grown} bytes more for a fetch of {size}");
    server.finish();
}
