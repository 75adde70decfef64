//! Folders, copies and snapshots: the mount and the interface together.

use std::fs;

use proxy_core::id::TaskId;
use proxy_volume::{
    Capability, Cloned, HwStatus, Restore, Snapshot, SnapshotName, Stamp, VolumeError,
};

use crate::bed::{KIB, Scene, reins, scope, task, vfid, write};

pub fn folders(scene: &mut Scene) {
    let missing = scene.run(scene.volume.create_folder(vfid(1), 0o755, None, false));
    assert_eq!(missing, Err(VolumeError::ScopeNotFound(scope())));
    let (one, dir) = scene.folder(1);
    write(&dir, "deep/er/file", 10);
    let taken = scene.run(scene.volume.create_folder(one, 0o755, None, true));
    assert_eq!(taken, Err(VolumeError::FolderExists(one)));
    scene.run(scene.volume.delete_folder(one, reins())).unwrap();
    assert!(!dir.exists());
    scene.run(scene.volume.delete_folder(one, reins())).unwrap();
    assert!(scene.scope_dir().is_dir(), "the scope stays");
}

pub fn usage(scene: &mut Scene) {
    let (one, dir) = scene.folder(1);
    write(&dir, "a", 10 * KIB);
    write(&dir, "d/b", 20 * KIB);
    let usage = scene.run(scene.volume.usage(one)).unwrap();
    assert_eq!((usage.file_count, usage.complete), (3, true));
    assert!(
        (30 * KIB..60 * KIB).contains(&usage.used_bytes),
        "{usage:?}"
    );
    let used = scene.run(scene.volume.used_bytes(one)).unwrap();
    assert!((30 * KIB..60 * KIB).contains(&used.used_bytes), "{used:?}");
    let missing = scene.run(scene.volume.usage(vfid(9)));
    assert_eq!(missing, Err(VolumeError::VFolderNotFound(vfid(9))));
}

pub fn clones(scene: &mut Scene) {
    let (one, dir) = scene.folder(1);
    write(&dir, "d/b", 20 * KIB);
    std::os::unix::fs::symlink("d/b", dir.join("link")).unwrap();
    let (id, two) = (task(), vfid(2));
    let clone = || scene.run(scene.volume.clone_folder(one, two, id, reins()));
    clone().unwrap();
    clone().expect("the same task again finds its work done");
    let copy = scene.place(two);
    assert_eq!(
        fs::read(copy.join("d/b")).unwrap(),
        fs::read(dir.join("d/b")).unwrap()
    );
    assert_eq!(
        fs::read_link(copy.join("link")).unwrap(),
        fs::read_link(dir.join("link")).unwrap()
    );
    let other = scene.run(scene.volume.clone_folder(one, two, task(), reins()));
    assert_eq!(other, Err(VolumeError::FolderExists(two)));
}

fn name(text: &str) -> SnapshotName {
    SnapshotName::parse(text).unwrap()
}

fn create(scene: &Scene, text: &str) -> Result<Snapshot, VolumeError> {
    let made = scene
        .volume
        .create_snapshot(vfid(1), name(text), None, reins());
    scene.run(made)
}

fn delete(scene: &Scene, text: &str) {
    let gone = scene.volume.delete_snapshot(vfid(1), name(text), reins());
    scene.run(gone).unwrap();
}

fn restore(scene: &Scene, text: &str, to: Restore, id: TaskId) -> Result<Cloned, VolumeError> {
    let done = scene
        .volume
        .restore_snapshot(vfid(1), name(text), to, id, reins());
    scene.run(done)
}

fn names(scene: &Scene) -> Vec<String> {
    let all = scene.run(scene.volume.snapshots(vfid(1))).unwrap();
    let mut names: Vec<_> = all.iter().map(|one| one.name.to_string()).collect();
    names.sort();
    names
}

/// A name with everything that names may have.
const FIRST: &str = "before-upgrade.2";
const SECOND: &str = "b";

pub fn snapshots(scene: &mut Scene) {
    if !scene.can(Capability::Snapshot) {
        return;
    }
    let (one, dir) = scene.folder(1);
    write(&dir, "d/f", 5);
    let begin = Stamp::now();
    let made = create(scene, FIRST).unwrap();
    assert_eq!((made.name.as_str(), made.expires), (FIRST, None));
    let about = (made.created.unix_ns - begin.unix_ns).abs();
    assert!(about < 5_000_000_000, "{made:?}");
    let taken = create(scene, FIRST);
    assert_eq!(taken, Err(VolumeError::SnapshotExists(name(FIRST))));
    fs::write(dir.join("d/f"), "changed").unwrap();
    write(&dir, "new", 1);
    create(scene, SECOND).unwrap();
    assert_eq!(names(scene), [SECOND, FIRST]);
    let (other, _) = scene.folder(2);
    let others = scene.run(scene.volume.snapshots(other));
    assert_eq!(others, Ok(Vec::new()), "not of this folder");
    bring_back(scene);
    delete(scene, FIRST);
    delete(scene, FIRST);
    delete(scene, "nowhere");
    assert_eq!(names(scene), [SECOND]);
    scene.restart();
    assert_eq!(names(scene), [SECOND]);
    assert_eq!(fs::read(scene.place(one).join("d/f")).unwrap(), b"changed");
    let nowhere = scene.run(scene.volume.snapshots(vfid(9)));
    assert_eq!(nowhere, Err(VolumeError::VFolderNotFound(vfid(9))));
}

fn bring_back(scene: &Scene) {
    let read = |folder: u8| fs::read(scene.place(vfid(folder)).join("d/f")).unwrap();
    let new = Restore::Into(vfid(3));
    restore(scene, FIRST, new, task()).unwrap();
    assert_eq!(read(3), b"xxxxx");
    assert_eq!(read(1), b"changed", "the folder stays as it is");
    let taken = restore(scene, FIRST, new, task());
    assert_eq!(taken, Err(VolumeError::FolderExists(vfid(3))));
    let id = task();
    restore(scene, FIRST, Restore::InPlace, id).unwrap();
    restore(scene, FIRST, Restore::InPlace, id).expect("a repetition finds it done");
    assert_eq!(read(1), b"xxxxx");
    assert!(!scene.place(vfid(1)).join("new").exists());
    restore(scene, SECOND, Restore::InPlace, task()).unwrap();
    assert_eq!(read(1), b"changed");
    let missing = restore(scene, "nowhere", Restore::InPlace, task());
    let lost = VolumeError::SnapshotNotFound(name("nowhere"));
    assert_eq!(missing, Err(lost));
}

pub fn expiry(scene: &mut Scene) {
    if !scene.can(Capability::Snapshot) {
        return;
    }
    let (one, _) = scene.folder(1);
    let hour = 3_600_000_000_000;
    let whole = Stamp::now().unix_ns / 1_000_000_000 * 1_000_000_000;
    let at = Stamp {
        unix_ns: whole + hour,
    };
    let made = scene
        .volume
        .create_snapshot(one, name("short"), Some(at), reins());
    assert_eq!(scene.run(made).unwrap().expires, Some(at));
    scene.restart();
    let all = scene.run(scene.volume.snapshots(one)).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].expires, Some(at), "it is kept where the snapshot is");
    let gone = scene.volume.delete_snapshot(one, name("short"), reins());
    scene.run(gone).expect("and can be removed before");
    assert_eq!(scene.run(scene.volume.snapshots(one)), Ok(Vec::new()));
}

pub fn numbers(scene: &mut Scene) {
    let capacity = scene.run(scene.volume.fs_usage()).unwrap();
    if let (Some(all), Some(used)) = (capacity.capacity_bytes, capacity.used_bytes) {
        assert!(used <= all && all > 0, "{capacity:?}");
    }
    let info = scene.run(scene.volume.hwinfo()).unwrap();
    assert_eq!(info.status, HwStatus::Healthy, "{info:?}");
    let metric = scene.run(scene.volume.metric());
    if scene.can(Capability::Metric) {
        let metric = metric.unwrap();
        assert!(
            metric.iops_read > 0 && metric.io_bytes_write > 0,
            "{metric:?}"
        );
    } else {
        assert_eq!(metric, Err(VolumeError::Unsupported));
    }
}

/// What remains visible of a folder's snapshots: a folder of the same number has them all.
fn left(scene: &Scene) -> Vec<Snapshot> {
    scene.folder(1);
    let left = scene.run(scene.volume.snapshots(vfid(1))).unwrap();
    let gone = scene.volume.delete_folder(vfid(1), reins());
    scene.run(gone).unwrap();
    left
}

pub fn gone(scene: &mut Scene) {
    if !scene.can(Capability::Snapshot) {
        return;
    }
    let (one, dir) = scene.folder(1);
    let (two, _) = scene.folder(2);
    write(&dir, "d/f", 5);
    create(scene, FIRST).unwrap();
    create(scene, SECOND).unwrap();
    let other = scene
        .volume
        .create_snapshot(two, name("other"), None, reins());
    scene.run(other).unwrap();
    scene.run(scene.volume.delete_folder(one, reins())).unwrap();
    assert_eq!(left(scene), [], "they are gone with it");
    scene.run(scene.volume.delete_folder(one, reins())).unwrap();
    let others = scene.run(scene.volume.snapshots(two)).unwrap();
    assert_eq!(others.len(), 1, "of another folder");
    scene.restart();
    assert_eq!(left(scene), [], "and stay gone");
}

pub fn scope_gone(scene: &mut Scene) {
    let delete = |scene: &Scene| scene.run(scene.volume.delete_scope(scope()));
    scene.create_scope(Some(100 * KIB)).unwrap();
    let (one, dir) = scene.folder(1);
    write(&dir, "f", 5);
    if scene.can(Capability::Snapshot) {
        create(scene, FIRST).unwrap();
    }
    assert_eq!(delete(scene), Err(VolumeError::ScopeNotEmpty(scope())));
    assert!(dir.exists(), "nothing is touched");
    if scene.can(Capability::Snapshot) {
        assert_eq!(names(scene), [FIRST]);
    }
    scene.run(scene.volume.delete_folder(one, reins())).unwrap();
    assert_eq!(delete(scene), Ok(()));
    assert!(!scene.scope_dir().exists());
    assert_eq!(delete(scene), Ok(()), "a missing one is fine");
    scene.create_scope(None).unwrap();
    if scene.can(Capability::Snapshot) {
        assert_eq!(left(scene), [], "a scope made anew has none");
    }
}

pub fn reopened(scene: &mut Scene) {
    let (one, dir) = scene.folder(1);
    write(&dir, "f", 5);
    assert!(scene.volume.root().is_some());
    scene.volume.close();
    assert!(scene.volume.root().is_none(), "nothing keeps the mount");
    let usage = scene.run(scene.volume.usage(one)).unwrap();
    assert_eq!(usage.file_count, 1);
    // Something else is mounted there.
    let (mount, aside) = (scene.bed.mount(), scene.bed.home.path().join("aside"));
    fs::rename(&mount, &aside).unwrap();
    fs::create_dir(&mount).unwrap();
    assert_eq!(scene.run(scene.volume.refresh()), Ok(true));
    let missing = scene.run(scene.volume.usage(one));
    assert_eq!(missing, Err(VolumeError::VFolderNotFound(one)));
    fs::remove_dir(&mount).unwrap();
    fs::rename(&aside, &mount).unwrap();
    assert_eq!(scene.run(scene.volume.refresh()), Ok(true));
    assert_eq!(scene.run(scene.volume.refresh()), Ok(false), "the same");
    scene.run(scene.volume.usage(one)).unwrap();
}
