//! Goal: files are deleted as the contract says, links themselves and never what they lead to.
//! Method: a table of requests with effects; background deletions are waited for.
//!
//! Source: manager contract 5.9, 5.10. Where ours differs from upstream:
//! `docs/semantics.md#links`, `docs/semantics.md#delete`, `docs/semantics.md#staging`.

use std::time::Duration;

use proxy_testkit::server::VOLUME;
use proxy_testkit::table::Effect::{File, Link, Missing, Unchanged};
use proxy_testkit::table::{Row, Want, check, matches, row};
use proxy_testkit::{Folder, Server, wait};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

const DELETE: &str = "POST /folder/file/delete";

const ESCAPES: Want = Want::Problem("InvalidSubpathError");
const FOLDER_GONE: Want = Want::Problem("VFolderNotFoundError");
const DONE: Want = Want::Json(200, r#"{"status":"ok"}"#);
/// Refused one way or the other: an escape, a reserved or impossible name.
const NO: Want = Want::Any(&[ESCAPES, Want::Refused(400), Want::Refused(404)]);

const DELETE_ROWS: &[Row] = &[
    row(
        "manager 5.9",
        DELETE,
        r#"{$here,"relpaths":["a.txt"]}"#,
        DONE,
    )
    .leaves(&[Missing("a.txt")]),
    row(
        "manager 5.9",
        DELETE,
        r#"{$here,"relpaths":["a.txt","d1/x.txt","none"]}"#,
        DONE,
    )
    .leaves(&[Missing("a.txt"), Missing("d1/x.txt"), Missing("none")]),
    row("manager 5.9", DELETE, r#"{$here,"relpaths":[]}"#, DONE).leaves(&[Unchanged]),
    row(
        "manager 5.9",
        DELETE,
        r#"{$here,"relpaths":["not there"]}"#,
        DONE,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.9, ours",
        DELETE,
        r#"{$here,"relpaths":["empty"]}"#,
        DONE,
    )
    .leaves(&[Missing("empty")]),
    row(
        "manager 5.9",
        DELETE,
        r#"{$here,"relpaths":["d1"]}"#,
        Want::Any(&[DONE, Want::Os(39)]),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.9",
        DELETE,
        r#"{$here,"relpaths":["d1"],"recursive":true}"#,
        DONE,
    )
    .leaves(&[Missing("d1"), File("a.txt", b"hello")]),
    row("ours, links", DELETE, r#"{$here,"relpaths":["in"]}"#, DONE)
        .leaves(&[Missing("in"), File("a.txt", b"hello")]),
    row(
        "ours, links",
        DELETE,
        r#"{$here,"relpaths":["in_dir"],"recursive":true}"#,
        DONE,
    )
    .leaves(&[Missing("in_dir"), File("d1/x.txt", b"x marks the spot")]),
    row(
        "ours, links",
        DELETE,
        r#"{$here,"relpaths":["in_dir/x.txt"]}"#,
        DONE,
    )
    .leaves(&[Missing("d1/x.txt"), Link("in_dir", "d1")]),
    row(
        "ours, links",
        DELETE,
        r#"{$here,"relpaths":["out","out_rel"]}"#,
        DONE,
    )
    .leaves(&[Missing("out"), Missing("out_rel")]),
    row(
        "ours, links",
        DELETE,
        r#"{$here,"relpaths":["out_dir"],"recursive":true}"#,
        DONE,
    )
    .leaves(&[Missing("out_dir")]),
    row(
        "ours, links",
        DELETE,
        r#"{$here,"relpaths":["dangling","loop"]}"#,
        DONE,
    )
    .leaves(&[Missing("dangling"), Missing("loop")]),
    row(
        "manager 5.9",
        DELETE,
        r#"{$here,"relpaths":["fifo"]}"#,
        DONE,
    ),
    row(
        "manager 5.9, ours",
        DELETE,
        r#"{$here,"relpaths":["."],"recursive":true}"#,
        Want::Refused(400),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.9, ours",
        DELETE,
        r#"{$here,"relpaths":[""],"recursive":true}"#,
        Want::Refused(400),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.9, ours",
        DELETE,
        r#"{$here,"relpaths":["d1/.."],"recursive":true}"#,
        Want::Refused(400),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.9",
        DELETE,
        r#"{$here,"relpaths":["a.txt","../x"]}"#,
        ESCAPES,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.9",
        DELETE,
        r#"{$here,"relpaths":["a.txt","out_dir/secret"]}"#,
        ESCAPES,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.9",
        DELETE,
        r#"{$here,"relpaths":["/a.txt"]}"#,
        Want::Fields(&["relpaths"]),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.9",
        DELETE,
        r#"{"volume":"volume1","vfid":"$new","relpaths":["a"]}"#,
        FOLDER_GONE,
    ),
    row(
        "ours, staging",
        DELETE,
        r#"{$here,"relpaths":[".upload"],"recursive":true}"#,
        Want::Any(&[NO, DONE]),
    )
    .leaves(&[Unchanged]),
];

#[test]
fn things_are_deleted() {
    let server = Server::start(PROGRAM);
    check(&server, "delete", DELETE_ROWS);
    server.finish();
}

#[test]
fn things_are_deleted_in_the_background_too() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let ask = |paths: Value, recursive: bool| {
        let body = json!({
            "volume": VOLUME, "vfid": folder.vfid, "relpaths": paths, "recursive": recursive,
        });
        let answer = server
            .ask("POST", "/folder/file/delete-async", &body)
            .expect(202)
            .json();
        matches(&answer, &json!({"bgtask_id": "<uuid>"}), "answer").expect("a task id");
    };
    // What must fail comes first, so that the good one bounds the wait for it.
    ask(json!(["../x"]), true);
    ask(json!(["/etc/hostname"]), true);
    ask(json!(["."]), true);
    ask(json!(["in_dir", "out_dir", "out"]), true);
    ask(json!(["d1", "none"]), true);
    wait::until("the good tasks ran", Duration::from_secs(20), || {
        let gone = ["d1", "none", "out", "in_dir"];
        gone.iter()
            .all(|n| folder.at(n).symlink_metadata().is_err())
            .then_some(())
    });
    assert_eq!(std::fs::read(folder.at("a.txt")).expect("a.txt"), b"hello");
    assert!(server.outside().join("dir/secret").is_file());
    server.finish();
}
