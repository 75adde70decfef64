//! Quota scopes, making vfolders, mount paths.

use std::os::unix::fs::PermissionsExt;

use proxy_core::id::VFolderId;
use proxy_volume::{ScopeQuota, VolumeError};

use crate::scene::{OTHER, Scene, rel, vfid};

const FAR: &str = "project:99999999-2222-3333-4444-555555555555/0123456789abcdef0123456789abcdef";

#[test]
fn scopes_are_plain_directories() {
    let scene = Scene::new();
    let volume = &scene.volume;
    let far = vfid(FAR).scope.unwrap();
    scene.run(async {
        assert_eq!(volume.describe_scope(far).await, Ok(None));
        assert_eq!(
            volume.unset_scope(far).await,
            Err(VolumeError::ScopeNotFound(far))
        );
        assert_eq!(volume.create_scope(far, Some(1 << 30)).await, Ok(()));
        assert_eq!(
            volume.create_scope(far, None).await,
            Err(VolumeError::ScopeExists(far))
        );
        assert_eq!(
            volume.describe_scope(far).await,
            Ok(Some(ScopeQuota::default()))
        );
        assert_eq!(volume.update_scope(far, 5).await, Ok(()));
        assert_eq!(volume.unset_scope(far).await, Ok(()));
    });
    let dir = scene.mount().join("99999999222233334444555555555555");
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    std::fs::remove_dir(&dir).unwrap();
    scene.run(volume.update_scope(far, 5)).unwrap();
    assert!(dir.is_dir(), "a limit for a missing scope makes it");
}

#[track_caller]
fn check_create(scene: &Scene, id: &str, mode: u32, auto: bool, want: Result<u32, VolumeError>) {
    let vfid = vfid(id);
    let done = scene.run(scene.volume.create_folder(vfid, mode, Some(0), auto));
    assert_eq!(done, want.clone().map(|_| ()));
    if let Ok(mode) = want {
        let path = scene.run(scene.volume.mount_path(vfid, rel(""))).unwrap();
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o7777,
            mode,
            "{path:?}"
        );
    }
}

#[test]
fn folders_are_made_with_their_mode() {
    let scene = Scene::new();
    check_create(&scene, OTHER, 0o755, false, Ok(0o755));
    check_create(&scene, OTHER, 0o755, false, Ok(0o755));
    check_create(&scene, OTHER, 0o770, false, Ok(0o770));
    std::fs::write(
        scene
            .run(scene.volume.mount_path(vfid(OTHER), rel("")))
            .unwrap()
            .join("x"),
        "",
    )
    .unwrap();
    check_create(
        &scene,
        OTHER,
        0o755,
        true,
        Err(VolumeError::FolderExists(vfid(OTHER))),
    );
    let missing = Err(VolumeError::ScopeNotFound(vfid(FAR).scope.unwrap()));
    check_create(&scene, FAR, 0o755, false, missing);
    check_create(&scene, FAR, 0o2777, true, Ok(0o2777));
    let legacy = VFolderId {
        scope: None,
        ..vfid(FAR)
    };
    let done = scene.run(scene.volume.create_folder(legacy, 0o755, None, true));
    assert_eq!(done, Err(VolumeError::ScopeRequired(legacy)));
}

#[test]
fn a_file_in_the_place_of_a_folder_is_not_touched() {
    let scene = Scene::new();
    let place = scene.scope_dir().join("fe/dc/ba9876543210fedcba9876543210");
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, "x").unwrap();
    check_create(
        &scene,
        OTHER,
        0o755,
        true,
        Err(VolumeError::FolderExists(vfid(OTHER))),
    );
    scene.delete_folder(vfid(OTHER)).unwrap();
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "x");
}

#[test]
fn a_mount_path_is_the_folder_whatever_the_subpath() {
    let scene = Scene::new();
    scene.arrange(&["d/", "out->/etc", "in->d"]);
    let want = scene.scope_dir().join("01/23/456789abcdef0123456789abcdef");
    let path = |vfid, sub| scene.run(scene.volume.mount_path(vfid, rel(sub)));
    for sub in [".", "", "d", "in", "gone/deeper", "d/.."] {
        assert_eq!(path(scene.vfid, sub), Ok(want.clone()), "{sub}");
    }
    for sub in ["..", "out", "out/passwd", "d/../../x"] {
        let refused = path(scene.vfid, sub);
        assert!(
            matches!(refused, Err(VolumeError::InvalidSubpath { .. })),
            "{sub}: {refused:?}"
        );
    }
    assert_eq!(
        path(vfid(OTHER), "."),
        Err(VolumeError::VFolderNotFound(vfid(OTHER)))
    );
}

#[test]
fn capacity_is_that_of_the_mount_point() {
    let scene = Scene::new();
    let fs = rustix::fs::statvfs(scene.mount()).unwrap();
    let capacity = scene.run(scene.volume.fs_usage()).unwrap();
    assert_eq!(capacity.capacity_bytes, Some(fs.f_frsize * fs.f_blocks));
    assert!(capacity.free_bytes() <= capacity.capacity_bytes);
}
