//! Goal: directories are made, and things are renamed and moved, as the contract says.
//! Method: tables of requests with effects; every row has a folder of its own.
//!
//! Source: manager contract 5.1, 5.3, 5.4. Where ours differs from upstream:
//! `docs/semantics.md#links`, `docs/semantics.md#rename`, `docs/semantics.md#staging`.

use proxy_testkit::folder::picture;
use proxy_testkit::server::VOLUME;
use proxy_testkit::table::Effect::{Dir, File, Link, Missing, Unchanged};
use proxy_testkit::table::{Row, Want, check, row};
use proxy_testkit::{Folder, Server};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

const MKDIR: &str = "POST /folder/file/mkdir";
const RENAME: &str = "POST /folder/file/rename";
const MOVE: &str = "POST /folder/file/move";

const ESCAPES: Want = Want::Problem("InvalidSubpathError");
const FOLDER_GONE: Want = Want::Problem("VFolderNotFoundError");
const NONE_MADE: Want = Want::Made(422, &[], &["<text>"]);
/// Refused one way or the other: an escape, a reserved or impossible name.
const NO: Want = Want::Any(&[ESCAPES, Want::Refused(400), Want::Refused(404)]);

const MKDIR_ROWS: &[Row] = &[
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"new"}"#,
        Want::Made(200, &["new"], &[]),
    )
    .leaves(&[Dir("new")]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":["n1","n2"]}"#,
        Want::Made(200, &["n1", "n2"], &[]),
    )
    .leaves(&[Dir("n1"), Dir("n2")]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":["n1","d1"]}"#,
        Want::Made(207, &["n1"], &["d1"]),
    )
    .leaves(&[Dir("n1")]),
    row("manager 5.1", MKDIR, r#"{$here,"relpath":"d1"}"#, NONE_MADE).leaves(&[Unchanged]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":[]}"#,
        Want::Made(422, &[], &[]),
    ),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"d1","exist_ok":true}"#,
        Want::Made(200, &["d1"], &[]),
    ),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"a.txt","exist_ok":true}"#,
        NONE_MADE,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"x/y/z"}"#,
        Want::Made(200, &["x/y/z"], &[]),
    )
    .leaves(&[Dir("x/y/z")]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"x/y/z","parents":false}"#,
        NONE_MADE,
    )
    .leaves(&[Missing("x")]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"d1/n","parents":false}"#,
        Want::Made(200, &["d1/n"], &[]),
    )
    .leaves(&[Dir("d1/n")]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"./n//m/"}"#,
        Want::Made(200, &["n/m"], &[]),
    )
    .leaves(&[Dir("n/m")]),
    row("manager 5.1", MKDIR, r#"{$here,"relpath":""}"#, NONE_MADE).leaves(&[Unchanged]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"","exist_ok":true}"#,
        Want::Made(200, &["."], &[]),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"새 폴더"}"#,
        Want::Made(200, &["새 폴더"], &[]),
    )
    .leaves(&[Dir("새 폴더")]),
    row(
        "api 4",
        MKDIR,
        r#"{$here,"relpath":"in_dir/n"}"#,
        Want::Made(200, &["in_dir/n"], &[]),
    )
    .leaves(&[Dir("d1/n"), Link("in_dir", "d1")]),
    row(
        "api 4",
        MKDIR,
        r#"{$here,"relpath":"out_dir/n"}"#,
        NONE_MADE,
    )
    .leaves(&[Unchanged]),
    row("api 4", MKDIR, r#"{$here,"relpath":"../n"}"#, NONE_MADE).leaves(&[Unchanged]),
    row(
        "api 4",
        MKDIR,
        r#"{$here,"relpath":"d1/../../n"}"#,
        NONE_MADE,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"a.txt/n"}"#,
        NONE_MADE,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"loop/n"}"#,
        NONE_MADE,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{$here,"relpath":"n\u0000m"}"#,
        NONE_MADE,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.1",
        MKDIR,
        r#"{"volume":"volume1","vfid":"$new","relpath":"n"}"#,
        NONE_MADE,
    ),
    row(
        "ours, staging",
        MKDIR,
        r#"{$here,"relpath":".upload/n"}"#,
        NONE_MADE,
    )
    .leaves(&[Unchanged]),
    row(
        "ours, staging",
        MKDIR,
        r#"{$here,"relpath":".upload"}"#,
        NONE_MADE,
    )
    .leaves(&[Unchanged]),
];

const RENAME_ROWS: &[Row] = &[
    row(
        "manager 5.3",
        RENAME,
        r#"{$here,"relpath":"a.txt","new_name":"b c.txt"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("a.txt"), File("b c.txt", b"hello")]),
    row(
        "manager 5.3",
        RENAME,
        r#"{$here,"relpath":"d1/x.txt","new_name":"z"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("d1/x.txt"), File("d1/z", b"x marks the spot")]),
    row(
        "manager 5.3",
        RENAME,
        r#"{$here,"relpath":"d1","new_name":"d9","is_dir":true}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("d1"), File("d9/x.txt", b"x marks the spot")]),
    row(
        "manager 5.3",
        RENAME,
        r#"{$here,"relpath":"a.txt","new_name":"none"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("a.txt"), File("none", b"hello")]),
    row(
        "manager 5.3",
        RENAME,
        r#"{$here,"relpath":"a.txt","new_name":"d1"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("a.txt"), File("d1/a.txt", b"hello")]),
    row(
        "manager 5.3",
        RENAME,
        r#"{$here,"relpath":"not there","new_name":"b"}"#,
        Want::Os(2),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.3, ours",
        RENAME,
        r#"{$here,"relpath":"a.txt","new_name":"x/y"}"#,
        Want::Refused(400),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.3, ours",
        RENAME,
        r#"{$here,"relpath":"a.txt","new_name":"/etc/x"}"#,
        Want::Refused(400),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.3, ours",
        RENAME,
        r#"{$here,"relpath":"d1/x.txt","new_name":".."}"#,
        Want::Refused(400),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.3, ours",
        RENAME,
        r#"{$here,"relpath":"a.txt","new_name":"."}"#,
        Want::Refused(400),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.3, ours",
        RENAME,
        r#"{$here,"relpath":".","new_name":"b"}"#,
        Want::Refused(400),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.3, ours",
        RENAME,
        r#"{$here,"relpath":"a.txt","new_name":"b\u0000c"}"#,
        Want::Refused(400),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.3",
        RENAME,
        r#"{$here,"relpath":"../x","new_name":"b"}"#,
        ESCAPES,
    ),
    row(
        "manager 5.3",
        RENAME,
        r#"{$here,"relpath":"out_dir/secret","new_name":"b"}"#,
        ESCAPES,
    ),
    row(
        "ours, links",
        RENAME,
        r#"{$here,"relpath":"in","new_name":"in2"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("in"), Link("in2", "a.txt"), File("a.txt", b"hello")]),
    row(
        "ours, links",
        RENAME,
        r#"{$here,"relpath":"dangling","new_name":"d2"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("dangling"), Link("d2", "nowhere")]),
    row(
        "ours, links",
        RENAME,
        r#"{$here,"relpath":"out","new_name":"out2"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("out")]),
    row(
        "ours, staging",
        RENAME,
        r#"{$here,"relpath":"d1","new_name":".upload"}"#,
        NO,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5",
        RENAME,
        r#"{"volume":"volume1","vfid":"$new","relpath":"a","new_name":"b"}"#,
        FOLDER_GONE,
    ),
];

const MOVE_ROWS: &[Row] = &[
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"a.txt","dst_relpath":"d1/b.txt"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("a.txt"), File("d1/b.txt", b"hello")]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"a.txt","dst_relpath":"d1"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("a.txt"), File("d1/a.txt", b"hello")]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"a.txt","dst_relpath":"d1/"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("a.txt"), File("d1/a.txt", b"hello")]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"d1/sub/y.txt","dst_relpath":""}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("d1/sub/y.txt"), File("y.txt", b"why")]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"d1","dst_relpath":"empty"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("d1"), File("empty/d1/x.txt", b"x marks the spot")]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"d1","dst_relpath":"d7"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("d1"), File("d7/sub/y.txt", b"why")]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"hundred","dst_relpath":"d1/x.txt"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("hundred")]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"d1","dst_relpath":"a.txt"}"#,
        Want::Any(&[Want::Os(17), Want::Os(20)]),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"a.txt","dst_relpath":"no/where/b"}"#,
        Want::Os(2),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"not there","dst_relpath":"b"}"#,
        Want::Os(2),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"d1","dst_relpath":"d1/sub"}"#,
        Want::Any(&[Want::OsOther, Want::Os(22)]),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"d1","dst_relpath":"d1/sub/new"}"#,
        Want::Any(&[Want::OsOther, Want::Os(22)]),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.4",
        MOVE,
        r#"{$here,"src_relpath":"a.txt","dst_relpath":"a.txt/b"}"#,
        Want::Any(&[Want::Os(2), Want::Os(20)]),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5.4, ours",
        MOVE,
        r#"{$here,"src_relpath":".","dst_relpath":"d1/all"}"#,
        Want::Refused(400),
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5",
        MOVE,
        r#"{$here,"src_relpath":"../x","dst_relpath":"b"}"#,
        ESCAPES,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5",
        MOVE,
        r#"{$here,"src_relpath":"a.txt","dst_relpath":"../x"}"#,
        ESCAPES,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5",
        MOVE,
        r#"{$here,"src_relpath":"a.txt","dst_relpath":"out_dir/x"}"#,
        ESCAPES,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5",
        MOVE,
        r#"{$here,"src_relpath":"out_dir/secret","dst_relpath":"x"}"#,
        ESCAPES,
    )
    .leaves(&[Unchanged]),
    row(
        "manager 5",
        MOVE,
        r#"{"volume":"volume1","vfid":"$new","src_relpath":"a","dst_relpath":"b"}"#,
        FOLDER_GONE,
    ),
    row(
        "ours, links",
        MOVE,
        r#"{$here,"src_relpath":"in","dst_relpath":"in9"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("in"), Link("in9", "a.txt"), File("a.txt", b"hello")]),
    row(
        "ours, links",
        MOVE,
        r#"{$here,"src_relpath":"out","dst_relpath":"d1/out"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("out")]),
    row(
        "ours, links",
        MOVE,
        r#"{$here,"src_relpath":"in_dir","dst_relpath":"in_dir9"}"#,
        Want::Bare(204),
    )
    .leaves(&[Missing("in_dir"), Link("in_dir9", "d1")]),
    row(
        "ours, staging",
        MOVE,
        r#"{$here,"src_relpath":"a.txt","dst_relpath":".upload/x"}"#,
        NO,
    )
    .leaves(&[Unchanged]),
    row(
        "ours, staging",
        MOVE,
        r#"{$here,"src_relpath":".upload","dst_relpath":"x"}"#,
        NO,
    )
    .leaves(&[Unchanged]),
];

#[test]
fn directories_are_made() {
    let server = Server::start(PROGRAM);
    check(&server, "mkdir", MKDIR_ROWS);
    server.finish();
}

#[test]
fn fifty_directories_are_the_limit_of_one_call() {
    let server = Server::start(PROGRAM);
    for (count, status) in [(50, 200), (51, 400)] {
        let folder = Folder::empty(&server);
        let names: Vec<String> = (0..count).map(|n| format!("n{n}")).collect();
        let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": names});
        let _ = server
            .ask("POST", "/folder/file/mkdir", &body)
            .expect(status);
        let made = proxy_testkit::folder::names(&folder.path).len();
        assert_eq!(made, if status == 200 { count } else { 0 });
    }
    server.finish();
}

#[test]
fn things_are_renamed() {
    let server = Server::start(PROGRAM);
    check(&server, "rename", RENAME_ROWS);
    server.finish();
}

#[test]
fn things_are_moved() {
    let server = Server::start(PROGRAM);
    check(&server, "move", MOVE_ROWS);
    server.finish();
}

#[test]
fn a_move_into_a_directory_that_has_the_name_already_is_refused() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    folder.write("d1/a.txt", b"the other");
    let before = picture(&folder.path);
    let body = json!({
        "volume": VOLUME, "vfid": folder.vfid, "src_relpath": "a.txt", "dst_relpath": "d1",
    });
    let answer = server.ask("POST", "/folder/file/move", &body);
    proxy_testkit::problem::refused(&answer, 400).expect("refused");
    assert!(
        !answer.text().contains(&*server.dir().to_string_lossy()),
        "a path leaks: {answer}"
    );
    assert_eq!(picture(&folder.path), before);
    server.finish();
}
