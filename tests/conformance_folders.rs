//! Goal: quota scopes and folders are made, measured, cloned and deleted as the contract says.
//! Method: tables of requests, each with its effects on the disk; tasks are waited for.
//!
//! Source: manager contract 3, 4. Where ours differs from upstream:
//! `docs/semantics.md#folders`, `docs/semantics.md#clone`, `docs/semantics.md#delete`.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use proxy_testkit::folder::picture;
use proxy_testkit::server::{OTHER_VOLUME, VOLUME};
use proxy_testkit::table::{Row, Want, check, row};
use proxy_testkit::{Folder, Server, problem, wait};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
/// A task on a small tree.
const TASK_BOUND: Duration = Duration::from_secs(20);

const SCOPE_GONE: Want = Want::Problem("QuotaScopeNotFoundError");
const FOLDER_GONE: Want = Want::Problem("VFolderNotFoundError");
const NO_LIMITS: Want = Want::Json(200, r#"{"used_bytes":null,"limit_bytes":null}"#);

const SCOPES: &[Row] = &[
    row(
        "manager 3.1",
        "POST /quota-scope",
        r#"{"volume":"volume1","qsid":"$newscope"}"#,
        Want::Bare(204),
    ),
    row(
        "manager 3.1",
        "POST /quota-scope",
        r#"{"volume":"volume1","qsid":"$newscope",
            "options":{"limit_bytes":1073741824},"extra_args":{"a":"b"}}"#,
        Want::Bare(204),
    ),
    row(
        "manager 3.1",
        "POST /quota-scope",
        r#"{"volume":"volume1","qsid":"$newscope","options":null,"extra_args":null}"#,
        Want::Bare(204),
    ),
    row(
        "manager 3.1",
        "POST /quota-scope",
        r#"{"volume":"volume1","qsid":"$qsid"}"#,
        Want::Json(409, r#"{"msg":"<text>"}"#),
    ),
    row(
        "manager 3.1",
        "POST /quota-scope",
        r#"{"volume":"noop","qsid":"$qsid"}"#,
        Want::Bare(204),
    ),
    row(
        "manager 3.2",
        "GET /quota-scope",
        r#"{"volume":"volume1","qsid":"$qsid"}"#,
        NO_LIMITS,
    ),
    row(
        "manager 3.2",
        "GET /quota-scope",
        r#"{"volume":"volume1","qsid":"$newscope"}"#,
        SCOPE_GONE,
    ),
    row(
        "manager 3.3",
        "PATCH /quota-scope",
        r#"{"volume":"volume1","qsid":"$newscope","options":{"limit_bytes":5}}"#,
        Want::Bare(204),
    ),
    row(
        "manager 3.3",
        "PATCH /quota-scope",
        r#"{"volume":"volume1","qsid":"$qsid","options":{"limit_bytes":"5"}}"#,
        Want::Bare(204),
    ),
    row(
        "manager 3.3",
        "PATCH /quota-scope",
        r#"{"volume":"volume1","qsid":"$qsid","options":null}"#,
        Want::Fields(&["options"]),
    ),
    row(
        "manager 3",
        "PATCH /quota-scope",
        r#"{"volume":"volume1","qsid":"$qsid","options":{"limit_bytes":1,"other":2}}"#,
        Want::Fields(&["options"]),
    ),
    row(
        "manager 3",
        "PATCH /quota-scope",
        r#"{"volume":"volume1","qsid":"$qsid","options":{"limit_bytes":"many"}}"#,
        Want::Fields(&["options"]),
    ),
    row(
        "manager 3.4",
        "DELETE /quota-scope/quota",
        r#"{"volume":"volume1","qsid":"$qsid"}"#,
        Want::Bare(204),
    ),
    row(
        "manager 3.4",
        "DELETE /quota-scope/quota",
        r#"{"volume":"volume1","qsid":"$newscope"}"#,
        SCOPE_GONE,
    ),
];

const FOLDERS: &[Row] = &[
    row(
        "manager 4.1",
        "POST /folder/create",
        r#"{"volume":"volume1","vfid":"$new"}"#,
        Want::Bare(204),
    ),
    row(
        "manager 4.1",
        "POST /folder/create",
        r#"{"volume":"volume1","vfid":"$new","mode":null,"options":{"anything":[1]}}"#,
        Want::Bare(204),
    ),
    row(
        "manager 4.1",
        "POST /folder/create",
        r#"{"volume":"volume1","vfid":"$new","options":{"initial_max_size_for_quota_scope":10}}"#,
        Want::Bare(204),
    ),
    row(
        "manager 4.1, ours",
        "POST /folder/create",
        "{$here}",
        Want::Refused(409),
    ),
    row(
        "manager 4.1",
        "POST /folder/create",
        r#"{"volume":"volume1","vfid":"aabbccddeeff00112233445566778899"}"#,
        Want::Problem("InvalidAPIParameters"),
    ),
    row(
        "manager 4.1, ours",
        "POST /folder/create",
        r#"{"volume":"volume1","vfid":"$new","mode":true}"#,
        Want::Fields(&["mode"]),
    ),
    row(
        "manager 4.1",
        "POST /folder/create",
        r#"{"volume":"noop","vfid":"$new"}"#,
        Want::Bare(204),
    ),
    row(
        "manager 4.2",
        "POST /folder/delete",
        r#"{"volume":"volume1","vfid":"$new"}"#,
        Want::Json(202, r#"{"bgtask_id":"<uuid>"}"#),
    ),
    row(
        "manager 4.2",
        "POST /folder/delete",
        r#"{"volume":"nowhere","vfid":"$new"}"#,
        Want::Json(202, r#"{"bgtask_id":"<uuid>"}"#),
    ),
    row(
        "manager 4.3",
        "POST /folder/clone",
        r#"{"src_volume":"volume1","src_vfid":"$vfid","dst_volume":"volume2","dst_vfid":"$new"}"#,
        Want::Problem("StorageProxyError"),
    ),
    row(
        "manager 4.3",
        "POST /folder/clone",
        r#"{"src_volume":"volume1","src_vfid":"$new",
            "dst_volume":null,"dst_vfid":"$vfid","extra":1}"#,
        Want::Json(200, r#"{"bgtask_id":"<uuid>"}"#),
    ),
    row(
        "manager 4.4",
        "GET /folder/mount",
        "{$here}",
        Want::Json(200, r#"{"path":"$path"}"#),
    ),
    row(
        "manager 4.4",
        "GET /folder/mount",
        r#"{$here,"subpath":"."}"#,
        Want::Json(200, r#"{"path":"$path"}"#),
    ),
    row(
        "manager 4.4",
        "GET /folder/mount",
        r#"{$here,"subpath":"d1/sub"}"#,
        Want::Json(200, r#"{"path":"$path"}"#),
    ),
    row(
        "manager 4.4",
        "GET /folder/mount",
        r#"{$here,"subpath":"not/there"}"#,
        Want::Json(200, r#"{"path":"$path"}"#),
    ),
    row(
        "manager 4.4",
        "GET /folder/mount",
        r#"{$here,"subpath":"d1/../a.txt"}"#,
        Want::Json(200, r#"{"path":"$path"}"#),
    ),
    row(
        "manager 4.4",
        "GET /folder/mount",
        r#"{$here,"subpath":""}"#,
        Want::Fields(&["subpath"]),
    ),
    row(
        "manager 4.4",
        "GET /folder/mount",
        r#"{$here,"subpath":null}"#,
        Want::Fields(&["subpath"]),
    ),
    row(
        "manager 4.4",
        "GET /folder/mount",
        r#"{"volume":"volume1","vfid":"$new"}"#,
        Want::Json(400, r#"{"msg":"VFolder not found","vfid":"$new"}"#),
    ),
    row(
        "manager 4.4, ours",
        "GET /folder/mount",
        r#"{$here,"subpath":"../x"}"#,
        Want::Json(
            400,
            r#"{"msg":"Invalid vfolder subpath","vfid":"$vfid","subpath":"../x"}"#,
        ),
    ),
    row(
        "manager 4.4, ours",
        "GET /folder/mount",
        r#"{$here,"subpath":"/etc"}"#,
        Want::Json(
            400,
            r#"{"msg":"Invalid vfolder subpath","vfid":"$vfid","subpath":"/etc"}"#,
        ),
    ),
    row(
        "manager 4.4, ours",
        "GET /folder/mount",
        r#"{$here,"subpath":"out_dir"}"#,
        Want::Json(
            400,
            r#"{"msg":"Invalid vfolder subpath","vfid":"$vfid","subpath":"out_dir"}"#,
        ),
    ),
    row(
        "manager 4.5",
        "GET /folder/metadata",
        r#"{"volume":"nowhere","vfid":"$new"}"#,
        Want::Json(200, r#"{"status":"ok"}"#),
    ),
    row(
        "manager 4.5",
        "POST /folder/metadata",
        r#"{$here,"payload":"x"}"#,
        Want::Fields(&["payload"]),
    ),
    row(
        "manager 4.5",
        "POST /folder/metadata",
        "{$here}",
        Want::Fields(&["payload"]),
    ),
    row(
        "manager 4.6",
        "GET /folder/usage",
        r#"{"volume":"volume1","vfid":"$new"}"#,
        FOLDER_GONE,
    ),
    row(
        "manager 4.7, ours",
        "GET /folder/used-bytes",
        r#"{"volume":"volume1","vfid":"$new"}"#,
        FOLDER_GONE,
    ),
    row(
        "manager 4.7",
        "GET /folder/used-bytes",
        "{$here}",
        Want::Json(200, r#"{"used_bytes":"<int>"}"#),
    ),
    row(
        "manager 4.8",
        "GET /folder/fs-usage",
        "{$here}",
        Want::Fields(&["vfid"]),
    ),
    row(
        "manager 4.8",
        "GET /folder/fs-usage",
        r#"{"volume":"volume1"}"#,
        Want::Json(200, r#"{"capacity_bytes":"<int>","used_bytes":"<int>"}"#),
    ),
];

/// Calls of ours, with the grammar of the others.
const TASKS: &[Row] = &[
    row("ours", "GET /task", "{}", Want::Fields(&["bgtask_id"])),
    row(
        "ours",
        "GET /task",
        r#"{"bgtask_id":null}"#,
        Want::Fields(&["bgtask_id"]),
    ),
    row(
        "ours",
        "GET /task",
        r#"{"bgtask_id":5}"#,
        Want::Fields(&["bgtask_id"]),
    ),
    row(
        "ours",
        "GET /task",
        r#"{"bgtask_id":""}"#,
        Want::Fields(&["bgtask_id"]),
    ),
    row(
        "ours",
        "GET /task",
        r#"{"bgtask_id":"../x"}"#,
        Want::Fields(&["bgtask_id"]),
    ),
    row(
        "ours",
        "GET /task",
        r#"{"bgtask_id":"0af76519-16cd-43dd-8448-eb211c80319"}"#,
        Want::Fields(&["bgtask_id"]),
    ),
    row("ours", "GET /task", "[]", Want::NotDict),
    row(
        "ours",
        "GET /task",
        r#"{"bgtask_id":"0af76519-16cd-43dd-8448-eb211c80319c"}"#,
        Want::Refused(404),
    ),
    row(
        "ours",
        "POST /task/cancel",
        r#"{"bgtask_id":"nonsense"}"#,
        Want::Fields(&["bgtask_id"]),
    ),
    row(
        "ours",
        "POST /task/cancel",
        r#"{"bgtask_id":"0af76519-16cd-43dd-8448-eb211c80319c"}"#,
        Want::Refused(404),
    ),
];

/// docs/semantics.md#fleet-tasks
#[test]
fn tasks_are_asked_for_by_identifiers_only() {
    let server = Server::start(PROGRAM);
    check(&server, "tasks", TASKS);
    server.finish();
}

#[test]
fn quota_scopes_follow_the_contract() {
    let server = Server::start(PROGRAM);
    check(&server, "quota scopes", SCOPES);
    server.finish();
}

#[test]
fn folders_follow_the_contract() {
    let server = Server::start(PROGRAM);
    check(&server, "folders", FOLDERS);
    server.finish();
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o7777
}

#[test]
fn a_folder_gets_its_directories_and_its_mode() {
    let server = Server::start(PROGRAM);
    for (asked, want) in [
        (json!(null), 0o755),
        (json!(0o700), 0o700),
        (json!(0o777), 0o777),
    ] {
        let folder = Folder::unmade(&server);
        let body = json!({"volume": VOLUME, "vfid": folder.vfid, "mode": asked});
        let _ = server.ask("POST", "/folder/create", &body).expect(204);
        assert!(folder.path.is_dir(), "{}", folder.path.display());
        assert_eq!(mode(&folder.path), want, "mode {asked}");
    }
    let folder = Folder::unmade(&server);
    let body = json!({"volume": VOLUME, "qsid": folder.qsid});
    let _ = server.ask("POST", "/quota-scope", &body).expect(204);
    let scope = folder
        .path
        .ancestors()
        .nth(3)
        .expect("the scope's directory");
    assert!(
        scope.is_dir() && mode(scope) == 0o755,
        "{}",
        scope.display()
    );
    server.finish();
}

#[test]
fn making_a_folder_again_is_safe() {
    // docs/semantics.md#folders: upstream answers 500; the Manager repeats requests (9.1).
    let server = Server::start(PROGRAM);
    let folder = Folder::unmade(&server);
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    let _ = server.ask("POST", "/folder/create", &body).expect(204);
    let again = server.ask("POST", "/folder/create", &body);
    assert!(again.status == 204 || again.status == 409, "{again}");
    folder.write("kept", b"kept");
    problem::refused(&server.ask("POST", "/folder/create", &body), 409).expect("a conflict");
    assert!(folder.at("kept").is_file());
    server.finish();
}

#[test]
fn scopes_are_not_made_by_themselves_where_that_is_forbidden() {
    let settings = proxy_testkit::Settings {
        proxy_lines: "allow-auto-quota-scope-creation = false\n".to_owned(),
        ..Default::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let folder = Folder::unmade(&server);
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    let answer = server.ask("POST", "/folder/create", &body);
    problem::typed(&answer, "QuotaScopeNotFoundError").expect("no scope");
    assert!(!folder.path.exists());
    server.finish();
}

#[test]
fn usage_counts_every_entry_once_and_follows_no_link() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let (mut count, mut bytes) = (0, 0);
    let mut todo = vec![folder.path.clone()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let meta = entry.path().symlink_metadata().expect("an entry");
            count += 1;
            bytes += meta.size();
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    let answer = server.ask("GET", "/folder/usage", &body).expect(200).json();
    assert_eq!(answer, json!({"file_count": count, "used_bytes": bytes}));
    let empty = Folder::empty(&server);
    let body = json!({"volume": VOLUME, "vfid": empty.vfid});
    let answer = server.ask("GET", "/folder/usage", &body).expect(200).json();
    assert_eq!(answer, json!({"file_count": 0, "used_bytes": 0}));
    server.finish();
}

#[test]
fn file_system_usage_is_that_of_the_mount() {
    let server = Server::start(PROGRAM);
    let stat = rustix::fs::statvfs(server.volume(VOLUME)).expect("statvfs");
    let body = json!({"volume": VOLUME});
    let answer = server
        .ask("GET", "/folder/fs-usage", &body)
        .expect(200)
        .json();
    assert_eq!(
        answer["capacity_bytes"],
        json!(stat.f_frsize * stat.f_blocks)
    );
    let used = answer["used_bytes"].as_u64().expect("a number");
    let now = stat.f_frsize * (stat.f_blocks - stat.f_bavail);
    // Others write to this disk too: within a few GiB is the same place.
    assert!(used.abs_diff(now) < 8 << 30, "{used} and {now}");
    server.finish();
}

#[test]
fn a_deleted_folder_goes_with_the_directories_above_it() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let scope = folder.path.ancestors().nth(3).expect("scope").to_path_buf();
    let outside = picture(&server.outside());
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    let _ = server.ask("POST", "/folder/delete", &body).expect(202);
    wait::until("the folder is gone", TASK_BOUND, || {
        let rest = picture(&scope);
        (scope.is_dir() && rest.is_empty()).then_some(())
    });
    assert_eq!(picture(&server.outside()), outside, "a link was followed");
    let _ = server.ask("POST", "/folder/delete", &body).expect(202);
    server.finish();
}

#[test]
fn a_sibling_in_the_same_scope_survives_a_deletion() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let sibling = folder.path.with_file_name("ffeeff00112233445566aabbccdd");
    std::fs::create_dir(&sibling).expect("a sibling");
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    let _ = server.ask("POST", "/folder/delete", &body).expect(202);
    wait::until("the folder is gone", TASK_BOUND, || {
        (!folder.path.exists()).then_some(())
    });
    assert!(sibling.is_dir());
    server.finish();
}

#[test]
fn a_clone_has_the_same_tree_and_nothing_from_outside() {
    // docs/semantics.md#clone: upstream follows links, also outward (wire contract 10, item 2).
    let server = Server::start(PROGRAM);
    let source = Folder::full(&server);
    source.write(
        ".upload/0123456789abcdef0123456789abcdef",
        b"half an upload",
    );
    let fixed = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let file = std::fs::File::options()
        .write(true)
        .open(source.at("a.txt"))
        .expect("a file");
    file.set_times(std::fs::FileTimes::new().set_modified(fixed))
        .expect("a time");
    std::fs::set_permissions(source.at("d1/x.txt"), PermissionsExt::from_mode(0o640))
        .expect("mode");
    let target = Folder::unmade(&server);
    let body = json!({
        "src_volume": VOLUME, "src_vfid": source.vfid, "dst_volume": VOLUME,
        "dst_vfid": target.vfid,
    });
    let answer = server
        .ask("POST", "/folder/clone", &body)
        .expect(200)
        .json();
    assert!(answer["bgtask_id"].is_string(), "{answer}");
    wait::until("the clone is there", TASK_BOUND, || {
        target.path.is_dir().then_some(())
    });
    for (name, content) in [("a.txt", "hello"), ("d1/sub/y.txt", "why"), ("none", "")] {
        assert_eq!(
            std::fs::read_to_string(target.at(name)).expect(name),
            content,
            "{name}"
        );
    }
    for name in ["in", "in_dir", "d1/up", "out", "dangling", "loop"] {
        let link = |folder: &Folder| std::fs::read_link(folder.at(name)).ok();
        assert_eq!(link(&target), link(&source), "{name} stays a link");
    }
    assert!(target.at("empty").is_dir());
    assert!(
        !target.at(".upload").exists(),
        "staging files are not cloned"
    );
    assert_eq!(mode(&target.at("d1/x.txt")), 0o640);
    let copied = std::fs::metadata(target.at("a.txt")).expect("a.txt");
    assert_eq!(copied.modified().expect("a time"), fixed);
    assert!(!picture(&target.path).contains(proxy_testkit::folder::SECRET));
    server.finish();
}

#[test]
fn a_clone_onto_something_or_from_nothing_leaves_things_as_they_are() {
    let server = Server::start(PROGRAM);
    let source = Folder::full(&server);
    let taken = Folder::full(&server);
    taken.write("mine", b"mine");
    let before = picture(&taken.path);
    let clone = |from: &Folder, to: &Folder| {
        let body = json!({
            "src_volume": VOLUME, "src_vfid": from.vfid, "dst_volume": null, "dst_vfid": to.vfid,
        });
        let _ = server.ask("POST", "/folder/clone", &body).expect(200);
    };
    clone(&source, &taken);
    let (missing, fresh) = (Folder::unmade(&server), Folder::unmade(&server));
    clone(&missing, &fresh);
    // A third, good one ends after them when tasks run in order; it bounds the wait.
    let good = Folder::unmade(&server);
    clone(&source, &good);
    wait::until("the good clone", TASK_BOUND, || {
        good.at("a.txt").is_file().then_some(())
    });
    assert_eq!(picture(&taken.path), before);
    assert!(!fresh.path.exists());
    server.finish();
}

#[test]
fn the_same_folder_on_two_volumes_is_two_folders() {
    let server = Server::start(PROGRAM);
    let here = Folder::unmade(&server);
    for volume in [VOLUME, OTHER_VOLUME] {
        let body = json!({"volume": volume, "vfid": here.vfid});
        let _ = server.ask("POST", "/folder/create", &body).expect(204);
    }
    here.write("only-here", b"1");
    let body = json!({"volume": OTHER_VOLUME, "vfid": here.vfid, "relpath": ""});
    let listed = server
        .ask("POST", "/folder/file/list", &body)
        .expect(200)
        .json();
    assert_eq!(listed, json!({"items": []}));
    server.finish();
}

#[test]
fn a_legacy_folder_without_a_scope_still_works() {
    let server = Server::start(PROGRAM);
    let hex = "aabbccddeeff00112233445566778899";
    let dir = server
        .volume(VOLUME)
        .join("aa/bb/ccddeeff00112233445566778899");
    std::fs::create_dir_all(&dir).expect("a legacy folder");
    std::fs::write(dir.join("old.txt"), b"old").expect("a file");
    let body = json!({"volume": VOLUME, "vfid": hex, "relpath": "old.txt"});
    let answer = server.ask("POST", "/folder/file/fetch", &body);
    assert_eq!(answer.text(), "old");
    let body = json!({"volume": VOLUME, "vfid": hex});
    let answer = server.ask("GET", "/folder/mount", &body).expect(200).json();
    assert_eq!(answer, json!({"path": dir.display().to_string()}));
    server.finish();
}
