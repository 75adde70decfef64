//! Goal: on file systems with quotas of their own, quotas hold and are told the same way, whatever
//! the file system says; folders live and go as on any other.
//! Method: the real program on real file systems. Those that this machine's kernel lacks are
//! mounted in a guest, in which the same test runs again: it sees the same files.
//!
//! Source: `docs/semantics.md#quotas`; xfs(5), nfs(5), btrfs-quota(5), CephFS quotas.

#![forbid(unsafe_code)]

mod doors;
mod folders;
mod outage;
mod reserved;
mod scene;
mod uploads;

use std::fs;
use std::path::Path;

use proxy_testkit::data::Pattern;
use proxy_testkit::folder::{SECRET, names};
use proxy_testkit::server::{OTHER_VOLUME, VOLUME};
use proxy_testkit::{Folder, Server, Settings, skip, testbed, wait};
use serde_json::json;

use scene::{MIB, Quotas, Realms, Scene, TASK_BOUND, over_quota, server_on};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

/// Runs `test` on the file system of `<bed>.sh`: here, or in its guest under the same name.
fn on(bed: &str, settings: &[(&str, &str)], name: &str, test: impl Fn(&Path)) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    testbed::on(&tests, bed, settings, name, test);
}

fn size_of(mount: &Path) -> u64 {
    let fs = rustix::fs::statvfs(mount).expect("statvfs");
    fs.f_frsize * fs.f_blocks
}

/// What holds for every file system that has quotas.
fn quotas_hold(scene: &Scene) {
    uploads::heed_the_quota(scene);
    doors::all_say_the_same(scene);
    doors::clones_heed_the_quota(scene);
    doors::realms_within_a_folder(scene);
    folders::deletions_give_back(scene);
}

fn project_quotas(mount: &Path, realms: Realms) {
    let files = mount.join("files");
    fs::create_dir(&files).expect("a directory");
    let lock = mount.join("lock");
    let options = format!(
        "[volume.{VOLUME}.options]\nlock_file_path = \"{}\"\nproject-files-dir = \"{}\"\n",
        lock.display(),
        files.display()
    );
    let server = server_on("xfs", mount, &options);
    let mut scene = Scene::new(server, Quotas::Volume(VOLUME), realms, mount);
    folders::scopes_follow_the_contract(&scene, Some(size_of(mount)));
    quotas_hold(&scene);
    folders::scopes_survive_crashes(&mut scene);
    if realms != Realms::Ext4 {
        folders::states_come_back(&scene);
    }
    // Made by another backend, before quotas: taken over with everything in it.
    let folder = Folder::empty(&scene.server);
    folder.write("a/b", &[7; 3 * MIB as usize]);
    std::os::unix::fs::symlink("a/b", folder.at("link")).expect("a link");
    proxy_testkit::folder::make_fifo(&folder.at("a/fifo"));
    assert_eq!(scene.describe(&folder), (None, None));
    scene.limit(&folder, 8 * MIB);
    let (used, limit_bytes) = scene.describe(&folder);
    assert!(used.is_some_and(|used| 3 * MIB <= used), "{used:?}");
    assert_eq!(limit_bytes, Some(8 * MIB));
    let _ = over_quota(&scene.ask_upload(&folder, "f", 6 * MIB));
    // Everything is in the file system: nothing is lost with the process.
    scene.server.kill();
    scene.server.restart();
    assert_eq!(scene.describe(&folder), (used, limit_bytes));
    each_scope_has_its_project(&scene.server, &files);
    scene.server.finish();
}

fn each_scope_has_its_project(server: &Server, files: &Path) {
    let scopes = names(&server.volume(VOLUME));
    let scopes: Vec<_> = scopes.iter().filter(|name| name.len() == 32).collect();
    let text = fs::read_to_string(files.join("projid")).expect("projid");
    let id = |line: &'_ str| line.split_once(':').map(|(_, id)| id.to_owned());
    let mut ids: Vec<String> = text.lines().filter_map(id).collect();
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
}

#[test]
fn xfs_with_project_quotas() {
    on("xfs-prjquota", &[], "xfs_with_project_quotas", |mount| {
        project_quotas(mount, Realms::Xfs("/mnt/xfs-prjquota"));
    });
}

#[test]
fn ext4_with_project_quotas() {
    on("ext4-prjquota", &[], "ext4_with_project_quotas", |mount| {
        project_quotas(mount, Realms::Ext4);
    });
}

/// A server that has given up root's rights has the keeper limit its scopes, and nothing else.
fn limits_by_the_keeper(mount: &Path) {
    const USER: u32 = 54321;
    let volume = mount.join("volume");
    fs::create_dir(&volume).expect("a directory for the volume");
    std::os::unix::fs::chown(&volume, Some(USER), Some(USER)).expect("given to the user");
    let options = format!(
        "[volume.{VOLUME}.options]\nlock_file_path = \"{}\"\nmaintain-project-files = false\n",
        mount.join("lock").display()
    );
    let settings = Settings {
        volume: Some(("xfs", volume)),
        tables: options,
        proxy_lines: format!("user = {USER}\ngroup = {USER}\n"),
        ..Settings::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.expect("a line")
            .split_whitespace()
            .nth(1)
            .expect("a value")
            .to_owned()
    };
    assert_eq!(line("Uid:"), USER.to_string());
    assert_eq!(line("CapEff:"), "0000000000000000");
    let realms = Realms::Xfs("/mnt/xfs-prjquota");
    let scene = Scene::new(server, Quotas::Volume(VOLUME), realms, mount);
    folders::scopes_follow_the_contract(&scene, Some(size_of(mount)));
    uploads::heed_the_quota(&scene);
    doors::clones_heed_the_quota(&scene);
    folders::deletions_give_back(&scene);
    scene.server.finish();
}

#[test]
fn a_server_without_rights_limits_by_its_keeper() {
    let name = "a_server_without_rights_limits_by_its_keeper";
    on("xfs-prjquota", &[], name, limits_by_the_keeper);
}

/// Quota groups of subvolumes, which the server neither makes nor sets, and heeds.
#[test]
fn btrfs_with_quota_groups() {
    on("btrfs", &[], "btrfs_with_quota_groups", |mount| {
        let server = server_on("vfs", mount, "");
        let scene = Scene::new(server, Quotas::Subvolumes, Realms::Btrfs, mount);
        quotas_hold(&scene);
        folders::states_come_back(&scene);
        scene.server.finish();
    });
}

/// The server of NFS in the guest has this below the mount point: quotas are set there.
const UNDER: &str = "/mnt/under";

fn over_nfs(mount: &Path) {
    let under = Path::new(UNDER);
    // The second volume is the same directory, seen by the host that has the disk.
    let options = format!(
        "[volume.admin]\nbackend = \"xfs\"\npath = \"{UNDER}/volume\"\n\
         [volume.admin.options]\nmaintain-project-files = false\n\
         lock_file_path = \"/run/lock-xfs\"\n"
    );
    let server = server_on("vfs", mount, &options);
    let scene = Scene::new(server, Quotas::Volume("admin"), Realms::Xfs(UNDER), mount);
    quotas_hold(&scene);
    uploads::acknowledged_is_on_the_server(&scene, under);
    folders::open_files_hold_a_deletion_up(&scene);
    folders::folders_removed_elsewhere_are_missing(&scene, under);
    scene.server.assert_at_rest();
    folders::uploads_removed_elsewhere_are_told(&scene, under);
    scene.server.assert_at_rest();
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

fn ceph(mount: &Path) {
    let server = server_on("cephfs", mount, "");
    let mut scene = Scene::new(server, Quotas::Volume(VOLUME), Realms::Ceph, mount);
    folders::scopes_follow_the_contract(&scene, None);
    quotas_hold(&scene);
    folders::snapshots_do_not_keep_a_folder(&scene);
    let folder = scene.limited(20 * MIB);
    scene.put(&folder, "d/f", 2 * MIB, Pattern(10));
    let body = json!({"volume": VOLUME, "vfid": folder.vfid});
    wait::until("usage is told at once, exactly", TASK_BOUND, || {
        let usage = scene
            .server
            .ask("GET", "/folder/usage", &body)
            .expect(200)
            .json();
        (usage == json!({"file_count": 2, "used_bytes": 2 * MIB})).then_some(())
    });
    let used = scene.server.ask("GET", "/folder/used-bytes", &body);
    assert_eq!(used.expect(200).json(), json!({"used_bytes": 2 * MIB}));
    folder.write("f", SECRET.as_bytes());
    fs::create_dir(folder.at(".snap/s")).expect("a snapshot");
    fs::remove_file(folder.at("f")).expect("removed");
    reserved::is_closed(&scene.server, &folder, ".snap");
    folders::a_killed_restore_is_finished(&mut scene);
    scene.server.finish();
}

#[test]
fn cephfs_by_fuse() {
    on("cephfs", &[], "cephfs_by_fuse", ceph);
}

/// Tests that take minutes to set up run with `tests/deep/run`, and say so elsewhere.
fn is_deep(what: &str) -> bool {
    let deep = std::env::var_os("STORAGE_TEST_DEEP").is_some();
    if !deep {
        skip(format!(
            "{what}: by tests/deep/run, with STORAGE_TEST_DEEP set"
        ));
    }
    deep
}

#[test]
fn cephfs_by_the_kernel() {
    if is_deep("cephfs by the kernel's client") {
        on("cephfs-kernel", &[], "cephfs_by_the_kernel", ceph);
    }
}

/// The server of an NFS mount stops and comes back, under a transfer.
fn nfs_goes_away(mount: &Path, is_soft: bool) {
    let server = server_on("vfs", mount, "");
    let scene = Scene::new(server, Quotas::Volume(VOLUME), Realms::Xfs(UNDER), mount);
    outage::uploads_survive(&scene, is_soft);
    scene.server.assert_at_rest();
}

#[test]
fn nfs_that_waits_for_its_server() {
    if is_deep("an NFS server that stops, hard mount") {
        let name = "nfs_that_waits_for_its_server";
        on("nfs", &[], name, |mount| nfs_goes_away(mount, false));
    }
}

#[test]
fn nfs_that_gives_up() {
    if is_deep("an NFS server that stops, soft mount") {
        let soft = [("NFS_OPTS", "soft,timeo=10,retrans=1")];
        on("nfs", &soft, "nfs_that_gives_up", |mount| {
            nfs_goes_away(mount, true)
        });
    }
}

/// Backends whose storage systems show snapshots keep clients out; on others the name is a name.
#[test]
fn places_of_snapshots_are_closed() {
    let place = tempfile::tempdir().expect("a directory");
    let folder_of = |server: &Server| {
        let folder = Folder::empty(server);
        folder.write(".snapshot/s/f", SECRET.as_bytes());
        folder
    };
    let server = server_on("hammerspace-base", place.path(), "");
    reserved::is_closed(&server, &folder_of(&server), ".snapshot");
    let server = Server::start_with(PROGRAM, Settings::default());
    let folder = folder_of(&server);
    let target = format!("/download?token={}", folder.download_token(".snapshot/s/f"));
    let answer = proxy_testkit::Request::new("GET", &target).send(server.client());
    assert_eq!(answer.expect(200).text(), SECRET);
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
