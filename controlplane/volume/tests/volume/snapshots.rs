//! Snapshots of plain folders, where the file system shares extents.
//!
//! Source: `docs/semantics.md#snapshots`. `STORAGE_TEST_REFLINK_DIR` names a directory on XFS or
//! btrfs; without it the file system of the temporary directory decides.

use std::path::PathBuf;
use std::time::Duration;

use proxy_core::id::TaskId;
use proxy_volume::{Capability, Limits, Restore, Retention, SnapshotName, Stamp, VolumeError};

use crate::scene::{FOLDER, OTHER, Scene, describe, reins, vfid};

fn name(text: &str) -> SnapshotName {
    SnapshotName::parse(text).unwrap()
}

/// A scene where states can be kept.
fn scene() -> Option<Scene> {
    let place = std::env::var_os("STORAGE_TEST_REFLINK_DIR").map(PathBuf::from);
    let scene = Scene::within(place.unwrap_or_else(std::env::temp_dir), Limits::default());
    if scene.volume.capabilities().contains(&Capability::Snapshot) {
        return Some(scene);
    }
    let made = scene.run(
        scene
            .volume
            .create_snapshot(scene.vfid, name("a"), None, reins()),
    );
    assert_eq!(made, Err(VolumeError::Unsupported));
    println!("skipped: no shared extents here; STORAGE_TEST_REFLINK_DIR names a place with them");
    None
}

fn create(scene: &Scene, text: &str, expires: Option<Stamp>) -> Result<(), VolumeError> {
    let made = scene
        .volume
        .create_snapshot(scene.vfid, name(text), expires, reins());
    scene.run(made).map(drop)
}

fn names(scene: &Scene) -> Vec<String> {
    let kept = scene.run(scene.volume.snapshots(scene.vfid)).unwrap();
    kept.iter().map(|kept| kept.name.to_string()).collect()
}

const FIRST: [&str; 4] = ["a=one", "d/", "d/b=two", "l->a"];

#[test]
fn a_state_comes_back_in_place_and_as_a_new_folder() {
    let Some(scene) = scene() else { return };
    scene.arrange(&FIRST);
    scene.arrange(&[".upload/x=1"]);
    create(&scene, "s1", None).unwrap();
    assert_eq!(
        create(&scene, "s1", None),
        Err(VolumeError::SnapshotExists(name("s1")))
    );
    std::fs::write(scene.at("a"), "changed").unwrap();
    std::fs::remove_dir_all(scene.at("d")).unwrap();
    scene.arrange(&["new=x"]);
    let restore = |to, task| {
        scene.run(
            scene
                .volume
                .restore_snapshot(scene.vfid, name("s1"), to, task, reins()),
        )
    };
    restore(Restore::Into(vfid(OTHER)), TaskId::random()).unwrap();
    let other = scene
        .run(scene.volume.mount_path(vfid(OTHER), crate::scene::rel(".")))
        .unwrap();
    assert_eq!(describe(&other), FIRST);
    let present = scene.found();
    assert!(present.contains(&"a=changed".to_owned()), "{present:?}");
    let task = TaskId::random();
    for _ in 0..2 {
        restore(Restore::InPlace, task).unwrap();
        assert_eq!(scene.found(), FIRST);
    }
    let refused = restore(Restore::Into(vfid(OTHER)), TaskId::random());
    assert_eq!(refused, Err(VolumeError::FolderExists(vfid(OTHER))));
    assert_eq!(names(&scene), ["s1"]);
}

#[test]
fn snapshots_go_one_by_one_and_with_their_folder() {
    let Some(scene) = scene() else { return };
    scene.arrange(&FIRST);
    for text in ["s1", "s2", "s3"] {
        create(&scene, text, None).unwrap();
    }
    let delete = |text| {
        scene.run(
            scene
                .volume
                .delete_snapshot(scene.vfid, name(text), reins()),
        )
    };
    for _ in 0..2 {
        delete("s2").unwrap();
        assert_eq!(names(&scene), ["s1", "s3"]);
    }
    scene.delete_folder(scene.vfid).unwrap();
    let left = describe(&scene.scope_dir());
    assert!(left.iter().all(|line| line == ".snapshots/"), "{left:?}");
}

#[test]
fn what_interrupted_work_left_is_no_snapshot_and_in_nobodys_way() {
    let Some(scene) = scene() else { return };
    scene.arrange(&FIRST);
    create(&scene, "s1", None).unwrap();
    let folder = FOLDER.rsplit('/').next().unwrap();
    let home = scene.scope_dir().join(".snapshots").join(folder);
    for left in ["s2_new/part", "s1_gone/part"] {
        std::fs::create_dir_all(home.join(left)).unwrap();
    }
    assert_eq!(names(&scene), ["s1"]);
    create(&scene, "s2", None).unwrap();
    let delete = scene
        .volume
        .delete_snapshot(scene.vfid, name("s1"), reins());
    scene.run(delete).unwrap();
    assert_eq!(names(&scene), ["s2"]);
    let mut left: Vec<_> = std::fs::read_dir(&home)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["s2", "s2_facts"]);
}

#[test]
fn a_policy_removes_what_it_does_not_keep() {
    let Some(scene) = scene() else { return };
    scene.arrange(&FIRST);
    let past = Stamp { unix_ns: 1 };
    for (text, expires) in [("s1", None), ("s2", Some(past)), ("s3", None), ("s4", None)] {
        create(&scene, text, expires).unwrap();
    }
    let retain = |count_max, age_max| {
        let policy = Retention { count_max, age_max };
        scene
            .run(scene.volume.retain_snapshots(None, policy, reins()))
            .unwrap()
    };
    let done = retain(Some(2), Some(Duration::from_secs(3600)));
    assert_eq!(
        (done.kept, done.removed, done.failed.len()),
        (2, 2, 0),
        "{done:?}"
    );
    assert_eq!(names(&scene), ["s3", "s4"]);
    assert_eq!(retain(None, Some(Duration::ZERO)).removed, 2);
}
