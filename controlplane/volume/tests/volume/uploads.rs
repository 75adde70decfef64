//! Beginning an upload.

use std::os::unix::fs::MetadataExt;

use proxy_core::id::SessionId;
use proxy_volume::{Prepared, VolumeError};

use crate::scene::{OTHER, Scene, os_error, rel, vfid};

fn prepare(scene: &Scene, path: &str, size: u64) -> Result<Prepared, VolumeError> {
    scene.run(
        scene
            .volume
            .prepare_upload(scene.vfid, rel(path), size, SessionId::random()),
    )
}

#[test]
fn a_staging_file_waits_for_the_bytes() {
    let scene = Scene::new();
    let session = SessionId::random();
    let prepared = scene
        .run(
            scene
                .volume
                .prepare_upload(scene.vfid, rel("d/e/f"), 5, session),
        )
        .unwrap();
    let Prepared::Staged(staged) = prepared else {
        panic!("{prepared:?}")
    };
    let meta = scene.at(&format!(".upload/{session}")).metadata().unwrap();
    assert_eq!((staged.ino, staged.size), (meta.ino(), 0));
    assert!(
        !scene.at("d").exists(),
        "nothing of the target is there yet"
    );
}

#[test]
fn a_file_without_bytes_is_there_at_once() {
    let scene = Scene::new();
    scene.arrange(&["old=x"]);
    for path in ["f", "d/e/f", "old"] {
        let prepared = prepare(&scene, path, 0).unwrap();
        let Prepared::Published(staged) = prepared else {
            panic!("{prepared:?}")
        };
        assert_eq!(scene.at(path).metadata().unwrap().ino(), staged.ino);
        assert_eq!(scene.at(path).metadata().unwrap().len(), 0);
    }
    assert!(!scene.at(".upload").exists());
}

#[test]
fn a_target_that_no_file_can_have_is_refused_before_anything_is_made() {
    for size in [0, 5] {
        let scene = Scene::new();
        scene.arrange(&["d/", "f=x", "out->/tmp"]);
        let before = scene.found();
        for (path, errno) in [("d", 21), (".", 21), ("f/g", 20)] {
            assert_eq!(os_error(prepare(&scene, path, size)).0, errno, "{path}");
        }
        for path in ["../x", "out/x", ".upload/x"] {
            let refused = prepare(&scene, path, size);
            assert!(
                matches!(refused, Err(VolumeError::InvalidSubpath { .. })),
                "{path}"
            );
        }
        assert_eq!(scene.found(), before);
        let missing = scene
            .volume
            .prepare_upload(vfid(OTHER), rel("f"), size, SessionId::random());
        let missing = scene.run(missing).map(drop);
        assert_eq!(missing, Err(VolumeError::VFolderNotFound(vfid(OTHER))));
    }
}
