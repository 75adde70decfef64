//! Copying whole vfolders.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proxy_core::id::TaskId;
use proxy_testkit::data::Random;
use proxy_volume::{Cloned, Control, Limits, VolumeError, Volumes};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

use crate::moves::Unmount;
use crate::scene::{OTHER, Scene, describe, facts, fifo, make, os, reins, rel, spec, vfid};

const LEFTOVER: &str = ".clone-fedcba9876543210fedcba9876543210-00112233445566778899aabbccddeeff";

fn clone_as(scene: &Scene, task: TaskId) -> Result<Cloned, VolumeError> {
    scene.run(
        scene
            .volume
            .clone_folder(scene.vfid, vfid(OTHER), task, reins()),
    )
}

fn cloned(scene: &Scene) -> (Cloned, PathBuf) {
    let cloned = clone_as(scene, TaskId::random()).unwrap();
    (
        cloned,
        scene
            .run(scene.volume.mount_path(vfid(OTHER), rel("")))
            .unwrap(),
    )
}

/// What lies in the scope beside the two folders and the marks of finished clones.
fn hidden(scene: &Scene) -> Vec<String> {
    let names = std::fs::read_dir(scene.scope_dir()).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.') && !name.starts_with(".cloned-"))
        .collect()
}

#[test]
fn a_clone_is_the_same_tree() {
    let scene = Scene::new();
    scene.arrange(&[
        "f=hello",
        "empty=",
        "d/e/f=x",
        "d/in->e/f",
        "gone->nothing",
        "out->/etc/passwd",
        "abs->/etc",
        "up->../../..",
        "bare/",
        "self->.",
    ]);
    for name in [b"bad\xff".as_slice(), b"line\nbreak", b" "] {
        std::fs::write(scene.root.join(os(name)), "x").unwrap();
    }
    let modes = [
        ("f", 0o640),
        ("empty", 0o4755),
        ("d", 0o2775),
        ("d/e", 0o500),
        ("bare", 0o1777),
    ];
    for (name, mode) in modes {
        std::fs::set_permissions(scene.at(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    std::fs::set_permissions(&scene.root, PermissionsExt::from_mode(0o751)).unwrap();
    let (cloned, copy) = cloned(&scene);
    assert_eq!(facts(&copy), facts(&scene.root));
    assert_eq!(describe(&copy), scene.found());
    assert_eq!((cloned.entries, cloned.bytes, cloned.skipped), (15, 9, 0));
    let (from, to) = (scene.root.metadata().unwrap(), copy.metadata().unwrap());
    assert_eq!(
        (from.mode(), from.mtime_nsec()),
        (to.mode(), to.mtime_nsec())
    );
    assert_eq!(hidden(&scene), [""; 0]);
}

#[test]
fn unfinished_uploads_and_special_files_stay_behind() {
    let scene = Scene::new();
    scene.arrange(&[".upload/s=1", "d/.upload/kept=1", "p|", "d/q|", "f=x"]);
    std::os::unix::net::UnixListener::bind(scene.at("sock")).unwrap();
    let (cloned, copy) = cloned(&scene);
    assert_eq!(
        describe(&copy),
        ["d/", "d/.upload/", "d/.upload/kept=1", "f=x"]
    );
    assert_eq!(cloned.skipped, 3);
    let mut named = cloned.skipped_named;
    named.sort();
    assert_eq!(named, ["d/q", "p", "sock"]);
}

#[test]
fn hard_links_stay_hard_links() {
    let scene = Scene::new();
    scene.arrange(&["a=x", "d/e/"]);
    for name in ["b", "d/c", "d/e/d"] {
        std::fs::hard_link(scene.at("a"), scene.at(name)).unwrap();
    }
    let outside = scene.home.path().join("mount/beside");
    std::fs::hard_link(scene.at("a"), &outside).unwrap();
    let (_, copy) = cloned(&scene);
    let inodes: Vec<_> = ["a", "b", "d/c", "d/e/d"]
        .iter()
        .map(|name| copy.join(name).metadata().unwrap())
        .map(|meta| (meta.ino(), meta.nlink()))
        .collect();
    assert!(
        inodes.iter().all(|one| *one == inodes[0] && one.1 == 4),
        "{inodes:?}"
    );
    assert_ne!(
        inodes[0].0,
        outside.metadata().unwrap().ino(),
        "the original is another file"
    );
}

#[test]
fn holes_stay_holes() {
    let scene = Scene::new();
    let file = std::fs::File::create(scene.at("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"in the middle", 32 << 20).unwrap();
    let all = std::fs::File::create(scene.at("all hole")).unwrap();
    all.set_len(10 << 20).unwrap();
    drop((file, all));
    let (_, copy) = cloned(&scene);
    for name in ["sparse", "all hole"] {
        let (from, to) = (scene.at(name), copy.join(name));
        assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
        let (from, to) = (from.metadata().unwrap(), to.metadata().unwrap());
        assert_eq!(from.size(), to.size());
        assert!(
            to.blocks() <= from.blocks() + 1024,
            "{name}: {} blocks",
            to.blocks()
        );
    }
}

#[test]
fn attributes_travel() {
    let scene = Scene::new();
    scene.arrange(&["f=x", "d/g=x"]);
    let big = vec![b'v'; 3000];
    let set = |name: &str, key: &str, value: &[u8]| {
        lsetxattr(scene.at(name), key, value, XattrFlags::empty())
    };
    if let Err(error) = set("f", "user.one", b"1") {
        println!("skipped: no attributes on this file system: {error}");
        return;
    }
    set("f", "user.big", &big).unwrap();
    set("d", "user.dir", b"2").unwrap();
    let trusted = set("f", "trusted.host", b"3").is_ok();
    let (_, copy) = cloned(&scene);
    let value = |name: &str, key: &str| {
        let mut buffer = vec![0; 4096];
        let got = lgetxattr(copy.join(name), key, &mut buffer[..]).ok()?;
        buffer.truncate(got);
        Some(buffer)
    };
    assert_eq!(value("f", "user.one").unwrap(), b"1");
    assert_eq!(value("f", "user.big").unwrap(), big);
    assert_eq!(value("d", "user.dir").unwrap(), b"2");
    assert_eq!(value("d/g", "user.one"), None);
    if trusted {
        assert_eq!(
            value("f", "trusted.host"),
            None,
            "the host's attributes stay with the host"
        );
    }
}

#[test]
fn a_new_owner_does_not_inherit_the_right_to_act_as_the_owner() {
    let scene = Scene::new();
    scene.arrange(&["f=x"]);
    if let Err(error) = std::os::unix::fs::chown(scene.at("f"), Some(12_345), None) {
        println!("skipped: no right to change owners: {error}");
        return;
    }
    std::fs::set_permissions(scene.at("f"), PermissionsExt::from_mode(0o6755)).unwrap();
    let (_, copy) = cloned(&scene);
    assert_eq!(copy.join("f").metadata().unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn leftovers_of_a_crash_are_removed_and_the_clone_is_made_anew() {
    let scene = Scene::new();
    scene.arrange(&["f=x"]);
    make(&scene.scope_dir(), &format!("{LEFTOVER}/half/of=it"));
    let (_, copy) = cloned(&scene);
    assert_eq!(describe(&copy), ["f=x"]);
    assert_eq!(hidden(&scene), [""; 0]);
}

#[test]
fn a_task_that_had_finished_before_a_crash_knows_its_work() {
    let scene = Scene::new();
    scene.arrange(&["f=x"]);
    let task = TaskId::random();
    assert_eq!(clone_as(&scene, task).unwrap().entries, 1);
    scene.arrange(&["later=y"]);
    assert_eq!(
        clone_as(&scene, task),
        Ok(Cloned::default()),
        "done already"
    );
    let exists = Err(VolumeError::FolderExists(vfid(OTHER)));
    assert_eq!(
        clone_as(&scene, TaskId::random()),
        exists,
        "somebody else's work"
    );
    let copy = scene
        .run(scene.volume.mount_path(vfid(OTHER), rel("")))
        .unwrap();
    assert_eq!(describe(&copy), ["f=x"], "what is there stays as it is");
    scene.delete_folder(vfid(OTHER)).unwrap();
    scene
        .run(scene.volume.create_folder(vfid(OTHER), 0o755, None, false))
        .unwrap();
    assert_eq!(
        clone_as(&scene, task),
        exists,
        "another folder of that name is not our work"
    );
}

#[test]
fn failures_leave_nothing_and_show_no_server_path() {
    let scene = Scene::new();
    scene.arrange(&["f=x"]);
    scene
        .run(scene.volume.create_folder(vfid(OTHER), 0o755, None, false))
        .unwrap();
    let error = clone_as(&scene, TaskId::random()).unwrap_err();
    assert_eq!(
        error,
        VolumeError::FolderExists(vfid(OTHER)),
        "an empty one is in the way too"
    );
    assert!(!error.to_string().contains(scene.mount().to_str().unwrap()));
    let missing = scene.vfid;
    scene.delete_folder(missing).unwrap();
    scene.delete_folder(vfid(OTHER)).unwrap();
    let error = clone_as(&scene, TaskId::random()).unwrap_err();
    assert_eq!(error, VolumeError::VFolderNotFound(missing));
    assert_eq!(describe(&scene.scope_dir()), [""; 0]);
}

#[test]
fn a_full_volume_is_told_before_anything_is_copied() {
    let scene = Scene::new();
    let mount = scene.home.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let flags = rustix::mount::MountFlags::NOSUID;
    let size = c"size=8m";
    if let Err(error) = rustix::mount::mount("none", &mount, "tmpfs", flags, Some(size)) {
        println!("skipped: no right to mount: {error}");
        return;
    }
    let _unmount = Unmount(mount.clone());
    let volumes = Volumes::new(vec![spec("small", &mount)], &Limits::default()).unwrap();
    let volume = volumes.find("small").unwrap();
    scene
        .run(volume.create_folder(scene.vfid, 0o755, None, true))
        .unwrap();
    let root = scene.run(volume.mount_path(scene.vfid, rel(""))).unwrap();
    let clone = || {
        let clone = volume.clone_folder(scene.vfid, vfid(OTHER), TaskId::random(), reins());
        scene.run(clone)
    };
    std::fs::write(root.join("f"), vec![1; 5 << 20]).unwrap();
    let refused = clone();
    assert!(
        matches!(refused, Err(VolumeError::NoRoom { .. })),
        "{refused:?}"
    );
    let folder = "01/23/456789abcdef0123456789abcdef";
    let scope = mount.join("11111111222233334444555555555555");
    assert!(
        describe(&scope)
            .iter()
            .all(|line| folder.starts_with(line.trim_end_matches('/')) || line.starts_with(folder))
    );
    // A hole takes no room, neither here nor in the copy.
    std::fs::remove_file(root.join("f")).unwrap();
    std::fs::File::create(root.join("hole"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    assert_eq!(clone().unwrap().entries, 1);
}

#[test]
fn a_missing_scope_is_made_for_the_copy() {
    let scene = Scene::new();
    scene.arrange(&["f=x"]);
    let far = vfid("project:99999999-2222-3333-4444-555555555555/0123456789abcdef0123456789abcdef");
    let clone = scene
        .volume
        .clone_folder(scene.vfid, far, TaskId::random(), reins());
    scene.run(clone).unwrap();
    let copy = scene.run(scene.volume.mount_path(far, rel(""))).unwrap();
    assert_eq!(describe(&copy), ["f=x"]);
}

#[test]
fn a_cancelled_clone_leaves_nothing_unless_it_will_run_again() {
    let scene = Scene::new();
    for number in 0..2000 {
        make(&scene.root, &format!("d{}/f{number}=x", number % 50));
    }
    for (halted, left) in [(false, 0), (true, 1)] {
        let control = Arc::new(Control::default());
        let watched = Arc::clone(&control);
        let done = scene.run(async {
            let clone =
                scene
                    .volume
                    .clone_folder(scene.vfid, vfid(OTHER), TaskId::random(), control);
            let stop = async {
                while watched.progress().entries_done == 0 {
                    tokio::task::yield_now().await;
                }
                if halted {
                    watched.halt()
                } else {
                    watched.cancel()
                }
            };
            tokio::join!(clone, stop).0
        });
        assert_eq!(done, Err(VolumeError::Cancelled));
        assert_eq!(hidden(&scene).len(), left, "halted: {halted}");
        let missing = scene.run(scene.volume.mount_path(vfid(OTHER), rel("")));
        assert_eq!(missing, Err(VolumeError::VFolderNotFound(vfid(OTHER))));
    }
    let (_, copy) = cloned(&scene);
    assert_eq!(describe(&copy).len(), 2050);
    assert_eq!(hidden(&scene), [""; 0]);
}

/// The regular files below `root` with their inodes.
fn inodes(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                todo.push(path);
            } else if meta.is_file() {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), meta.ino());
            }
        }
    }
    found
}

#[test]
fn an_interrupted_clone_goes_on_with_what_was_copied() {
    let scene = Scene::new();
    proxy_testkit::grove::plant(&scene.root, 3000, &mut Random::printed("resumed clone"));
    let task = TaskId::random();
    let mut kept = BTreeMap::new();
    for wanted in [1, 500, 1500, 2500] {
        let control = Arc::new(Control::default());
        let watched = Arc::clone(&control);
        let done = scene.run(async {
            let clone = scene
                .volume
                .clone_folder(scene.vfid, vfid(OTHER), task, control);
            let stop = async {
                while watched.progress().entries_done < wanted {
                    tokio::task::yield_now().await;
                }
                watched.halt();
            };
            tokio::join!(clone, stop).0
        });
        assert_eq!(done, Err(VolumeError::Cancelled));
        let [tree] = &hidden(&scene)[..] else {
            panic!("one tree: {:?}", hidden(&scene));
        };
        let there = inodes(&scene.scope_dir().join(tree));
        // What was whole then is the same file now.
        let same = kept
            .iter()
            .filter(|(path, ino)| there.get(*path) == Some(*ino));
        assert_eq!(same.count(), kept.len());
        let source = |path: &PathBuf| scene.root.join(path).symlink_metadata().unwrap();
        let tree = scene.scope_dir().join(tree);
        let whole = |path: &PathBuf| {
            let (own, its) = (tree.join(path).symlink_metadata().unwrap(), source(path));
            let same = (own.size(), own.mtime(), own.mtime_nsec());
            // One with several names may be copied anew under a name that was not there yet.
            its.nlink() == 1 && same == (its.size(), its.mtime(), its.mtime_nsec())
        };
        kept = there.into_iter().filter(|(path, _)| whole(path)).collect();
        // Something half-made, as a kill leaves it.
        if let Some(path) = kept.keys().next().cloned() {
            kept.remove(&path);
            let broken = tree.join(path);
            std::fs::remove_file(&broken).unwrap();
            std::fs::write(&broken, "half").unwrap();
        }
        std::fs::write(tree.join(".probe-from"), "left").unwrap();
    }
    assert!(500 < kept.len(), "{}", kept.len());
    clone_as(&scene, task).unwrap();
    let copy = scene.volume.mount_path(vfid(OTHER), rel(""));
    let copy = scene.run(copy).unwrap();
    let differences = proxy_testkit::grove::differences(&scene.root, &copy);
    assert_eq!(differences, [""; 0]);
    let there = inodes(&copy);
    assert!(kept.iter().all(|(path, ino)| there.get(path) == Some(ino)));
    assert_eq!(hidden(&scene), [""; 0]);
}

#[test]
fn nothing_is_left_of_a_clone_whose_source_went_while_it_was_interrupted() {
    let scene = Scene::new();
    scene.arrange(&["f=x"]);
    make(&scene.scope_dir(), &format!("{LEFTOVER}/half/of=it"));
    scene.delete_folder(scene.vfid).unwrap();
    let lost = VolumeError::VFolderNotFound(scene.vfid);
    assert_eq!(clone_as(&scene, TaskId::random()), Err(lost));
    assert_eq!(hidden(&scene), [""; 0]);
}

#[test]
fn progress_reaches_its_totals() {
    let scene = Scene::new();
    scene.arrange(&["a=12345", "d/b=123", "l->a"]);
    let control = reins();
    let clone = scene.volume.clone_folder(
        scene.vfid,
        vfid(OTHER),
        TaskId::random(),
        Arc::clone(&control),
    );
    scene.run(clone).unwrap();
    let progress = control.progress();
    assert_eq!((progress.entries_done, progress.entries_total), (4, 4));
    assert_eq!((progress.bytes_done, progress.bytes_total), (8, 8));
}

#[test]
fn a_source_that_changes_while_it_is_copied_fails_nothing() {
    let scene = Scene::new();
    for number in 0..400 {
        make(&scene.root, &format!("d{}/f{number}=x", number % 40));
    }
    let root = scene.root.clone();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let meddler = std::thread::spawn(move || meddle(&root, &stopped));
    for _ in 0..8 {
        clone_as(&scene, TaskId::random()).unwrap();
        scene.delete_folder(vfid(OTHER)).unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    meddler.join().unwrap();
    assert_eq!(hidden(&scene), [""; 0]);
}

/// Swaps files, links, FIFOs and directories of the same names for each other.
fn meddle(root: &Path, stop: &std::sync::atomic::AtomicBool) {
    let mut round = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        for number in 0..40 {
            let path = root.join(format!("d{number}"));
            let away = root.join(format!("away{number}"));
            let _ = std::fs::rename(&path, &away);
            match round % 3 {
                0 => drop(std::os::unix::fs::symlink("/etc", &path)),
                1 => fifo(&path),
                _ => drop(std::fs::write(&path, "x")),
            }
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::rename(&away, &path);
        }
        round += 1;
    }
}
