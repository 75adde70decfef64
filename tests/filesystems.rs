//! Goal: on file systems with quotas of their own, quotas hold and are told the same way, whatever
//! the file system says; folders live and go as on any other.
//! Method: the real program on real file systems. Those that this machine's kernel lacks are
//! mounted in a guest, in which the same test runs again: it sees the same files.
//!
//! Source: `docs/semantics.md#quotas`; xfs(5), nfs(5), CephFS quotas.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proxy_testkit::data::Pattern;
use proxy_testkit::folder::names;
use proxy_testkit::server::{OTHER_VOLUME, VOLUME};
use proxy_testkit::testbed::Testbed;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Folder, Response, Server, Settings, skip, wait};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const MIB: u64 = 1 << 20;
const TASK_BOUND: Duration = Duration::from_secs(60);
/// Names the mount point to the test that runs again inside the guest.
const INSIDE: &str = "STORAGE_TEST_INSIDE";

/// Runs `test` on the file system of `<bed>.sh`: here, or in its guest under the same name.
fn on(bed: &str, settings: &[(&str, &str)], name: &str, test: fn(&Path)) {
    if let Some(mount) = std::env::var_os(INSIDE) {
        return test(&PathBuf::from(mount));
    }
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let bed = match Testbed::up(&tests, bed, settings) {
        Ok(bed) => bed,
        Err(reason) => return skip(reason),
    };
    if bed.mount().exists() {
        return test(bed.mount());
    }
    let program = std::env::current_exe().expect("this test");
    let mount = bed.mount().to_str().expect("a plain path");
    let args = [name, "--exact", "--nocapture"];
    let ended = bed.exec(&program, &args, &[(INSIDE, mount)]);
    ended.unwrap_or_else(|why| panic!("in the guest: {why}"));
}

/// A server whose first volume is a directory on the file system.
fn server_on(backend: &'static str, mount: &Path, tables: &str) -> Server {
    let volume = mount.join("volume");
    fs::create_dir(&volume).expect("a directory for the volume");
    Server::start_with(
        PROGRAM,
        Settings {
            volume: Some((backend, volume)),
            tables: tables.to_owned(),
            ..Settings::default()
        },
    )
}

fn limit(server: &Server, volume: &str, folder: &Folder, bytes: u64) {
    let options = json!({"limit_bytes": bytes});
    let body = json!({"volume": volume, "qsid": folder.qsid, "options": options});
    let _ = server.ask("PATCH", "/quota-scope", &body).expect(204);
}

fn describe(server: &Server, volume: &str, folder: &Folder) -> (Option<u64>, Option<u64>) {
    let body = json!({"volume": volume, "qsid": folder.qsid});
    let told = server.ask("GET", "/quota-scope", &body).expect(200).json();
    (told["used_bytes"].as_u64(), told["limit_bytes"].as_u64())
}

fn create(server: &Server, folder: &Folder) {
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    let _ = server.ask("POST", "/folder/create", &body).expect(204);
}

/// A folder in a new scope with a limit.
fn limited(server: &Server, quota_volume: &str, bytes: u64) -> Folder {
    let folder = Folder::unmade(server);
    limit(server, quota_volume, &folder, bytes);
    create(server, &folder);
    folder
}

fn ask_upload(server: &Server, folder: &Folder, size: u64) -> Response {
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "f", "size": size});
    server.ask("POST", "/folder/file/upload", &body)
}

fn put(server: &Server, folder: &Folder, name: &str, size: u64, pattern: Pattern) {
    let upload = Upload::begin(server, folder, name, size);
    let answer = upload.patch(0, &pattern.bytes(0, size));
    assert_eq!(answer.status, 204, "{answer}");
}

#[track_caller]
fn over_quota(answer: &Response) -> Value {
    let body = answer.json();
    let told = (answer.status, body["type"].as_str().unwrap_or_default());
    let want = "https://api.backend.ai/probs/storage/quota-exceeded";
    assert_eq!(told, (507, want), "{answer}");
    body["data"].clone()
}

/// CephFS counts some seconds late, NFS when the server was told; the others at once.
fn counted(server: &Server, volume: &str, folder: &Folder, bytes: u64) {
    wait::until("usage is counted", TASK_BOUND, || {
        (bytes <= describe(server, volume, folder).0?).then_some(())
    });
}

/// Uploads stop at the limit with one answer, lose nothing, and go on when it is raised.
/// `quota_volume` is the volume that knows the quota.
fn uploads_heed_the_quota(server: &Server, quota_volume: &str) {
    let folder = limited(server, quota_volume, 10 * MIB);
    put(server, &folder, "first", 3 * MIB, Pattern(1));
    counted(server, quota_volume, &folder, 3 * MIB);
    let told = over_quota(&ask_upload(server, &folder, 9 * MIB));
    assert_eq!(told["limit_bytes"], 10 * MIB, "{told}");
    assert_eq!(told["needed_bytes"], 9 * MIB, "{told}");
    let used = told["used_bytes"].as_u64().expect("known");
    assert!((3 * MIB..4 * MIB).contains(&used), "{told}");
    // Each of them fits, both do not.
    let (one, pattern) = (Upload::begin(server, &folder, "one", 5 * MIB), Pattern(2));
    let two = Upload::begin(server, &folder, "two", 5 * MIB);
    let answer = one.patch(0, &pattern.bytes(0, 5 * MIB));
    assert_eq!(answer.status, 204, "{answer}");
    counted(server, quota_volume, &folder, 8 * MIB);
    let answer = two.patch(0, &pattern.bytes(0, 5 * MIB));
    let told = over_quota(&answer);
    let at = two.offset();
    assert_eq!(offset(&answer), at, "{answer}");
    assert_eq!(told["upload_offset"], at, "{told}");
    assert!(at <= 2 * MIB, "acknowledged beyond the limit: {at}");
    assert!(!folder.at("two").exists(), "no partial target");
    limit(server, quota_volume, &folder, 40 * MIB);
    let answer = wait::until("the upload goes on", TASK_BOUND, || {
        let at = two.offset();
        let answer = two.patch(at, &pattern.bytes(at, 5 * MIB - at));
        (answer.status == 204).then_some(answer)
    });
    assert_eq!(offset(&answer), 5 * MIB);
    for name in ["one", "two"] {
        let bytes = fs::read(folder.at(name)).expect("uploaded");
        assert_eq!(
            (bytes.len() as u64, pattern.mismatch(0, &bytes)),
            (5 * MIB, None)
        );
    }
}

/// What the server does for itself: ext4 lets this right write past quotas.
fn heed_quotas() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).expect("own capabilities");
    sets.effective.remove(CapabilitySet::SYS_RESOURCE);
    set_capabilities(None, sets).expect("fewer capabilities");
}

/// The answer to a directory that the quota may not have room for.
fn directories_are_refused_in_words(server: &Server, quota_volume: &str) {
    let folder = limited(server, quota_volume, MIB);
    let mut failed = None;
    let filler = fs::File::create(folder.at("filler")).expect("a filler");
    heed_quotas();
    let filled = (0..2 * MIB).step_by(4096).find(|at| {
        let written = rustix::io::pwrite(&filler, &[1; 4096], *at);
        written.is_err() || filler.sync_all().is_err()
    });
    assert!(filled.is_some(), "the scope takes more than its limit");
    for n in 0..400 {
        let name = format!("{n:0200}");
        let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": name});
        let made = server.ask("POST", "/folder/file/mkdir", &body);
        if made.status != 200 {
            failed = Some(made);
            break;
        }
    }
    let failed = failed.expect("a full scope").expect(422).json();
    let text = failed["results"]["failed"][0]["msg"]
        .as_str()
        .expect("text");
    assert!(text.starts_with("quota exceeded: "), "{text}");
}

fn clone(server: &Server, from: &Folder, to: &Folder) {
    let body = json!({
        "src_volume": VOLUME, "src_vfid": from.vfid, "dst_volume": VOLUME, "dst_vfid": to.vfid,
    });
    let _ = server.ask("POST", "/folder/clone", &body).expect(200);
}

/// A clone is charged to its scope in full, and refused where that has no room.
fn clones_heed_the_quota(server: &Server) {
    let (source, small, large) = (
        limited(server, VOLUME, 40 * MIB),
        Folder::unmade(server),
        Folder::unmade(server),
    );
    put(server, &source, "f", 8 * MIB, Pattern(3));
    counted(server, VOLUME, &source, 8 * MIB);
    limit(server, VOLUME, &small, 4 * MIB);
    limit(server, VOLUME, &large, 20 * MIB);
    clone(server, &source, &small);
    let told = || server.log().contains("quota exceeded").then_some(());
    wait::until("the refusal of a clone", TASK_BOUND, told);
    assert!(!small.path.exists());
    clone(server, &source, &large);
    let cloned = || large.at("f").exists().then_some(());
    wait::until("a clone into another scope", TASK_BOUND, cloned);
    let bytes = fs::read(large.at("f")).expect("cloned");
    assert_eq!(Pattern(3).mismatch(0, &bytes), None);
    counted(server, VOLUME, &large, 8 * MIB);
}

fn delete(server: &Server, folder: &Folder) {
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    let _ = server.ask("POST", "/folder/delete", &body).expect(202);
}

/// A deleted folder gives back what it held, and its scope stays.
fn deletions_give_back(server: &Server) {
    let folder = limited(server, VOLUME, 20 * MIB);
    put(server, &folder, "d/e/f", 6 * MIB, Pattern(4));
    counted(server, VOLUME, &folder, 6 * MIB);
    delete(server, &folder);
    wait::until("it is given back", TASK_BOUND, || {
        let gone = !folder.path.exists();
        (gone && describe(server, VOLUME, &folder).0? < MIB).then_some(())
    });
    assert_eq!(describe(server, VOLUME, &folder).1, Some(20 * MIB));
}

/// What the Manager asks of a scope. `default_limit` is that of a scope without options.
fn scopes_follow_the_contract(server: &Server, default_limit: Option<u64>) {
    let folder = Folder::unmade(server);
    let scope = json!({"volume": VOLUME, "qsid": folder.qsid});
    let _ = server.ask("GET", "/quota-scope", &scope).expect(404);
    let _ = server.ask("POST", "/quota-scope", &scope).expect(204);
    let _ = server.ask("POST", "/quota-scope", &scope).expect(409);
    let (used, limit_bytes) = describe(server, VOLUME, &folder);
    assert!(used.is_some_and(|used| used < MIB), "{used:?}");
    assert_eq!(limit_bytes, default_limit);
    for bytes in [5 * MIB, 1 << 50, MIB] {
        limit(server, VOLUME, &folder, bytes);
        assert_eq!(describe(server, VOLUME, &folder).1, Some(bytes));
    }
    let lifted = server.ask("DELETE", "/quota-scope/quota", &scope);
    let _ = lifted.expect(204);
    assert_eq!(describe(server, VOLUME, &folder).1, None);
    create(server, &folder);
    put(server, &folder, "f", 2 * MIB, Pattern(5));
}

fn size_of(mount: &Path) -> u64 {
    let fs = rustix::fs::statvfs(mount).expect("statvfs");
    fs.f_frsize * fs.f_blocks
}

fn project_quotas(mount: &Path) {
    let files = mount.join("files");
    fs::create_dir(&files).expect("a directory");
    let lock = mount.join("lock");
    let options = format!(
        "[volume.{VOLUME}.options]\nlock_file_path = \"{}\"\nproject-files-dir = \"{}\"\n",
        lock.display(),
        files.display()
    );
    let mut server = server_on("xfs", mount, &options);
    scopes_follow_the_contract(&server, Some(size_of(mount)));
    uploads_heed_the_quota(&server, VOLUME);
    directories_are_refused_in_words(&server, VOLUME);
    clones_heed_the_quota(&server);
    deletions_give_back(&server);
    // Made by another backend, before quotas: taken over with everything in it.
    let folder = Folder::empty(&server);
    folder.write("a/b", &[7; 3 * MIB as usize]);
    std::os::unix::fs::symlink("a/b", folder.at("link")).expect("a link");
    proxy_testkit::folder::make_fifo(&folder.at("a/fifo"));
    assert_eq!(describe(&server, VOLUME, &folder), (None, None));
    limit(&server, VOLUME, &folder, 8 * MIB);
    let (used, limit_bytes) = describe(&server, VOLUME, &folder);
    assert!(used.is_some_and(|used| 3 * MIB <= used), "{used:?}");
    assert_eq!(limit_bytes, Some(8 * MIB));
    let _ = over_quota(&ask_upload(&server, &folder, 6 * MIB));
    // Everything is in the file system: nothing is lost with the process.
    server.kill();
    server.restart();
    assert_eq!(describe(&server, VOLUME, &folder), (used, limit_bytes));
    let scopes = names(&server.volume(VOLUME));
    let scopes: Vec<_> = scopes.iter().filter(|name| name.len() == 32).collect();
    let text = fs::read_to_string(files.join("projid")).expect("projid");
    let mut ids: Vec<&str> = text
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.1))
        .collect();
    assert_eq!(ids.len(), scopes.len(), "{text}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(
        ids.len(),
        scopes.len(),
        "each scope has its own project: {text}"
    );
    for scope in scopes {
        assert!(text.contains(&format!("{scope}:")), "{scope} in {text}");
    }
    server.finish();
}

#[test]
fn xfs_with_project_quotas() {
    on(
        "xfs-prjquota",
        &[],
        "xfs_with_project_quotas",
        project_quotas,
    );
}

#[test]
fn ext4_with_project_quotas() {
    on(
        "ext4-prjquota",
        &[],
        "ext4_with_project_quotas",
        project_quotas,
    );
}

/// The server of NFS in the guest has this below the mount point: quotas are set there.
const UNDER: &str = "/mnt/under";

/// A file that is open while its folder is deleted keeps another name until it is closed.
fn open_files_hold_a_deletion_up(server: &Server) {
    let folder = Folder::unmade(server);
    create(server, &folder);
    put(server, &folder, "open", MIB, Pattern(6));
    let file = fs::File::open(folder.at("open")).expect("open");
    let scope = folder.path.ancestors().nth(3).expect("a scope").to_owned();
    delete(server, &folder);
    let detached = || (!folder.path.exists()).then_some(());
    wait::until("the name is gone at once", TASK_BOUND, detached);
    let trash = || {
        names(&scope)
            .into_iter()
            .any(|name| name.starts_with(".trash-"))
    };
    assert!(trash(), "the open file keeps its tree");
    drop(file);
    wait::until("the tree goes when the file is closed", TASK_BOUND, || {
        if trash() {
            delete(server, &folder);
        }
        (!trash()).then_some(())
    });
}

/// A folder that is removed on the server, under our descriptors, is missing and no failure.
fn folders_removed_elsewhere_are_missing(server: &Server, under: &Path) {
    let folder = Folder::unmade(server);
    create(server, &folder);
    put(server, &folder, "f", MIB, Pattern(7));
    let upload = Upload::begin(server, &folder, "g", MIB);
    let scope = folder.path.ancestors().nth(3).expect("a scope");
    let there = under
        .join("volume")
        .join(scope.file_name().expect("its name"));
    fs::remove_dir_all(there).expect("removed on the server");
    let answer = wait::until("it is missing", TASK_BOUND, || {
        let answer = upload.head();
        assert!(matches!(answer.status, 200 | 404), "{answer}");
        (answer.status == 404).then_some(answer)
    });
    assert_eq!(answer.status, 404);
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "."});
    let listed = server.ask("POST", "/folder/file/list", &body);
    assert_eq!(listed.status, 404, "{listed}");
    let patched = upload.patch(0, &[1; 1000]);
    assert_eq!(patched.status, 404, "{patched}");
}

fn over_nfs(mount: &Path) {
    let under = Path::new(UNDER);
    // The second volume is the same directory, seen by the host that has the disk.
    let options = format!(
        "[volume.admin]\nbackend = \"xfs\"\npath = \"{UNDER}/volume\"\n\
         [volume.admin.options]\nmaintain-project-files = false\n\
         lock_file_path = \"/run/lock-xfs\"\n"
    );
    let server = server_on("vfs", mount, &options);
    uploads_heed_the_quota(&server, "admin");
    acknowledged_is_on_the_server(&server, under);
    open_files_hold_a_deletion_up(&server);
    folders_removed_elsewhere_are_missing(&server, under);
    server.finish();
}

/// Writes past the quota go into the client's memory, and fail when they are synced: no offset is
/// told that the server does not have.
fn acknowledged_is_on_the_server(server: &Server, under: &Path) {
    let folder = limited(server, "admin", 6 * MIB);
    let (upload, pattern) = (Upload::begin(server, &folder, "late", 5 * MIB), Pattern(8));
    limit(server, "admin", &folder, 3 * MIB);
    let mut at = 0;
    let answer = loop {
        let answer = upload.patch(at, &pattern.bytes(at, MIB));
        if answer.status != 204 {
            break answer;
        }
        at = offset(&answer);
        assert!(at <= 3 * MIB, "acknowledged beyond the limit");
    };
    let _ = over_quota(&answer);
    assert_eq!(upload.offset(), offset(&answer));
    let scope = folder
        .path
        .strip_prefix(server.volume(VOLUME))
        .expect("below");
    let staged = under.join("volume").join(scope).join(".upload");
    let name = &names(&staged)[0];
    let bytes = fs::read(staged.join(name)).expect("staged on the server");
    let durable = upload.offset() as usize;
    assert!(durable <= bytes.len(), "{durable} of {}", bytes.len());
    assert_eq!(pattern.mismatch(0, &bytes[..durable]), None);
}

#[test]
fn nfs_4_2_with_quotas_on_the_server() {
    on("nfs", &[], "nfs_4_2_with_quotas_on_the_server", over_nfs);
}

#[test]
fn nfs_3_with_quotas_on_the_server() {
    let version = [("NFS_VERS", "3")];
    on("nfs", &version, "nfs_3_with_quotas_on_the_server", over_nfs);
}

/// Folders with snapshots in any of their directories, whoever made them, can be deleted.
fn snapshots_do_not_keep_a_folder(server: &Server) {
    let folder = limited(server, VOLUME, 20 * MIB);
    put(server, &folder, "a/b/f", MIB, Pattern(9));
    for dir in ["", "a", "a/b"] {
        for name in ["mine", "theirs"] {
            let snapshot = folder.at(dir).join(".snap").join(name);
            fs::create_dir(snapshot).expect("a snapshot");
        }
    }
    let listed = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "."});
    let listed = server.ask("POST", "/folder/file/list", &listed).expect(200);
    assert!(!listed.text().contains(".snap"), "{listed}");
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": ".snap/stolen"});
    let _ = server.ask("POST", "/folder/file/mkdir", &body).expect(422);
    let scope = folder.path.ancestors().nth(3).expect("a scope").to_owned();
    delete(server, &folder);
    wait::until("folder and snapshots are gone", TASK_BOUND, || {
        names(&scope).is_empty().then_some(())
    });
}

fn ceph(mount: &Path) {
    let server = server_on("cephfs", mount, "");
    scopes_follow_the_contract(&server, None);
    uploads_heed_the_quota(&server, VOLUME);
    clones_heed_the_quota(&server);
    deletions_give_back(&server);
    snapshots_do_not_keep_a_folder(&server);
    let folder = limited(&server, VOLUME, 20 * MIB);
    put(&server, &folder, "d/f", 2 * MIB, Pattern(10));
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    wait::until("usage is told at once, exactly", TASK_BOUND, || {
        let usage = server.ask("GET", "/folder/usage", &body).expect(200).json();
        (usage == json!({"file_count": 2, "used_bytes": 2 * MIB})).then_some(())
    });
    let used = server
        .ask("GET", "/folder/used-bytes", &body)
        .expect(200)
        .json();
    assert_eq!(used, json!({"used_bytes": 2 * MIB}));
    server.finish();
}

#[test]
fn cephfs_by_fuse() {
    on("cephfs", &[], "cephfs_by_fuse", ceph);
}

/// A volume without what its backend needs is told, and the others work.
#[test]
fn a_file_system_without_quotas_is_named() {
    let place = tempfile::tempdir().expect("a directory");
    for (backend, words) in [("xfs", "project quotas"), ("cephfs", "no CephFS")] {
        let dir = place.path().join(backend);
        fs::create_dir(&dir).expect("a directory");
        let server = server_on(backend, &dir, "");
        let body = json!({"volume": VOLUME, "qsid": "user:11111111-2222-3333-4444-555555555555"});
        let answer = server.ask("POST", "/quota-scope", &body).expect(503);
        assert!(answer.text().contains(words), "{answer}");
        assert!(server.log().contains(words), "in the log at the start");
        let other = json!({"volume": OTHER_VOLUME, "qsid": body["qsid"]});
        let _ = server.ask("POST", "/quota-scope", &other).expect(204);
    }
}
