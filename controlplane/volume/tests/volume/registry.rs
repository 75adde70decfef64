//! All volumes of a configuration, and the volume that keeps nothing.

use proxy_core::id::{SessionId, TaskId};
use proxy_volume::{
    Capability, Capacity, Deleted, EntryType, HwInfo, Kind, Limits, Metric, Mkdir, Prepared, Spec,
    SpecError, Usage, UsedBytes, VolumeError, Volumes,
};

use crate::scene::{FOLDER, OTHER, Scene, reins, rel, scope, spec, vfid};

#[test]
fn a_missing_mount_point_stops_nobody_and_is_tried_again() {
    let scene = Scene::new();
    let late = scene.home.path().join("late");
    let file = scene.home.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let specs = vec![
        spec("late", &late),
        spec("file", &file),
        spec("v1", &scene.mount()),
    ];
    let volumes = Volumes::new(specs, &Limits::default()).unwrap();
    assert_eq!(scene.run(volumes.open_all()), 1);
    let names: Vec<_> = volumes
        .listed()
        .iter()
        .map(|volume| volume.name())
        .collect();
    assert_eq!(names, ["late", "file", "v1"]);
    for (name, cause) in [
        ("late", "No such file or directory"),
        ("file", "Not a directory"),
    ] {
        let volume = volumes.find(name).unwrap();
        assert_eq!(volume.capabilities(), [Capability::VFolder]);
        assert!(volume.root().is_none());
        let error = scene.run(volume.usage(scene.vfid)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("volume {name} is not available: {cause}")
        );
        assert_eq!(error.answer().status, 503);
    }
    std::fs::create_dir(&late).unwrap();
    let volume = volumes.find("late").unwrap();
    scene
        .run(volume.create_folder(vfid(FOLDER), 0o755, None, true))
        .unwrap();
    assert!(volume.root().is_some());
}

#[test]
fn another_directory_in_the_place_of_a_volume_is_taken() {
    let scene = Scene::new();
    let (place, aside) = (
        scene.home.path().join("place"),
        scene.home.path().join("aside"),
    );
    std::fs::create_dir(&place).unwrap();
    let volumes = Volumes::new(vec![spec("v1", &place)], &Limits::default()).unwrap();
    let volume = volumes.find("v1").unwrap();
    scene.run(volume.open()).unwrap();
    assert_eq!(scene.run(volume.refresh()), Ok(false));
    // What a mount does, for the eyes of those who look by name.
    std::fs::rename(&place, &aside).unwrap();
    assert!(scene.run(volume.refresh()).is_err());
    assert!(volume.root().is_some(), "what was open stays open");
    std::fs::create_dir(&place).unwrap();
    assert_eq!(scene.run(volume.refresh()), Ok(true));
    assert_eq!(scene.run(volume.refresh()), Ok(false));
    let make = volume.create_folder(vfid(FOLDER), 0o755, None, true);
    scene.run(make).unwrap();
    assert_eq!(std::fs::read_dir(&aside).unwrap().count(), 0);
    assert_ne!(std::fs::read_dir(&place).unwrap().count(), 0);
    volume.close();
    assert!(volume.root().is_none());
    scene.run(volume.open()).unwrap();
    assert!(volume.root().is_some());
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let scene = Scene::new();
    let strange = Spec {
        backend: "vfat".to_owned(),
        ..spec("v2", &scene.mount())
    };
    let refused = Volumes::new(vec![strange], &Limits::default())
        .err()
        .unwrap();
    let text = refused.to_string();
    let known = r#"volume v2: unknown backend "vfat", known are vfs, xfs, cephfs, netapp, "#;
    assert!(text.starts_with(known), "{text}");
    let twice = vec![spec("v", &scene.mount()), spec("v", &scene.mount())];
    let refused = Volumes::new(twice, &Limits::default()).err();
    assert_eq!(refused, Some(SpecError::Twice("v".to_owned())));
    let unknown = scene.volumes.find("v9").err();
    assert_eq!(unknown, Some(VolumeError::UnknownVolume("v9".to_owned())));
}

#[test]
fn layout_versions_are_read_and_never_refused() {
    let scene = Scene::new();
    for (content, want) in [
        (None, 2),
        (Some("3"), 3),
        (Some("3\n"), 3),
        (Some("2"), 2),
        (Some("soon"), 2),
        (Some("99999999999999999999"), 2),
    ] {
        if let Some(content) = content {
            std::fs::write(scene.mount().join("version.txt"), content).unwrap();
        }
        assert_eq!(
            scene.run(scene.volume.layout_version()),
            Ok(want),
            "{content:?}"
        );
    }
}

#[test]
fn plain_volumes_are_healthy_and_have_no_metric() {
    let scene = Scene::new();
    assert_eq!(scene.run(scene.volume.hwinfo()), Ok(HwInfo::healthy()));
    assert_eq!(
        scene.run(scene.volume.metric()),
        Err(VolumeError::Unsupported)
    );
}

#[test]
fn noop_does_nothing_to_folders_and_succeeds() {
    let scene = Scene::new();
    let noop = scene.volumes.find("noop").unwrap();
    assert!(
        scene
            .volumes
            .listed()
            .iter()
            .all(|volume| volume.name() != "noop")
    );
    let (one, two) = (vfid(FOLDER), vfid(OTHER));
    scene.run(async {
        assert_eq!((noop.kind(), noop.capabilities().len()), (Kind::Noop, 0));
        assert_eq!(noop.open().await, Ok(()));
        assert_eq!(noop.create_scope(scope(), Some(1)).await, Ok(()));
        assert_eq!(noop.describe_scope(scope()).await, Ok(None));
        assert_eq!(noop.update_scope(scope(), 1).await, Ok(()));
        assert_eq!(
            noop.unset_scope(scope()).await,
            Err(VolumeError::ScopeNotFound(scope()))
        );
        assert_eq!(noop.create_folder(one, 0o755, None, false).await, Ok(()));
        assert_eq!(noop.delete_folder(one, reins()).await, Ok(()));
        assert!(
            noop.clone_folder(one, two, TaskId::random(), reins())
                .await
                .is_ok()
        );
        assert_eq!(noop.mount_path(one, rel("../x")).await, Ok(".".into()));
        let usage = Usage {
            complete: true,
            ..Usage::default()
        };
        assert_eq!(noop.usage(one).await, Ok(usage));
        let used = UsedBytes {
            complete: true,
            ..UsedBytes::default()
        };
        assert_eq!(noop.used_bytes(one).await, Ok(used));
        let capacity = Capacity {
            capacity_bytes: Some(0),
            used_bytes: Some(0),
        };
        assert_eq!(noop.fs_usage().await, Ok(capacity));
        assert_eq!(noop.hwinfo().await, Ok(HwInfo::healthy()));
        let metric = noop.metric().await.unwrap();
        assert_eq!(
            metric,
            Metric {
                observed_at: metric.observed_at,
                ..Metric::default()
            }
        );
    });
}

#[test]
fn noop_does_nothing_to_files_and_succeeds() {
    let scene = Scene::new();
    let noop = scene.volumes.find("noop").unwrap();
    let one = vfid(FOLDER);
    scene.run(async {
        let how = Mkdir {
            parents: false,
            exist_ok: false,
        };
        assert_eq!(noop.mkdir(one, rel("../x"), how).await, Ok(()));
        assert_eq!(noop.rename(one, rel("a"), "b/c".to_owned()).await, Ok(()));
        assert_eq!(noop.move_entry(one, rel("a"), rel("b")).await, Ok(()));
        let deleted = noop.delete_files(one, vec![rel(".")], true, reins()).await;
        assert_eq!(deleted, Ok(Deleted::default()));
        let list = noop.list(one, rel("x"), 0).await.unwrap();
        let list = list.all().await.unwrap();
        assert_eq!((list.len(), list[0].name.as_str()), (1, ""));
        assert_eq!(
            (list[0].kind, list[0].mode, list[0].size),
            (EntryType::File, 0, 0)
        );
        assert_eq!(
            noop.open_for_fetch(one, rel("x"))
                .await
                .unwrap()
                .next()
                .await,
            Ok(None)
        );
        let prepared = noop
            .prepare_upload(one, rel("x"), 5, SessionId::random())
            .await;
        assert!(matches!(prepared, Ok(Prepared::Nothing)));
    });
}
