//! Directory quotas of any vendor: what their backends share.

use proxy_core::id::SessionId;
use proxy_core::relpath::RelPath;
use proxy_volume::{Prepared, VolumeError};

use proxy_simulators::{Fault, What};

use crate::bed::{Bed, KIB, Scene, scope, write};
use crate::beds;

const BEDS: &[fn() -> Bed] = &[beds::onefs, beds::vast, beds::weka];

/// Those whose scopes are more than directories.
const OWN_WAY: &[fn() -> Bed] = &[beds::gpfs, beds::hammerspace, beds::exascaler];

#[test]
fn an_upload_that_does_not_fit_is_refused_before_it_begins() {
    for make in BEDS {
        let scene = Scene::new(make());
        let backend = scene.bed.backend;
        scene.create_scope(Some(100 * KIB)).unwrap();
        let (one, dir) = scene.folder(1);
        write(&dir, "old", 60 * KIB);
        let begin = |size| {
            let path = RelPath::parse("new").unwrap();
            let begun = scene
                .volume
                .prepare_upload(one, path, size, SessionId::random());
            scene.run(begun)
        };
        let Err(VolumeError::QuotaExceeded {
            needed_bytes,
            quota: Some(quota),
        }) = begin(60 * KIB)
        else {
            panic!("{backend}: 120 KiB do not fit into 100");
        };
        assert_eq!(needed_bytes, Some(60 * KIB), "{backend}");
        assert_eq!(quota.limit_bytes, 100 * KIB, "{backend}");
        assert!(60 * KIB <= quota.used_bytes, "{backend}");
        let begun = begin(20 * KIB).unwrap();
        assert!(matches!(begun, Prepared::Staged(_)), "{backend}");
        std::fs::remove_file(dir.join("old")).unwrap();
        begin(60 * KIB).expect("an old number refuses nobody");
        scene.bed.sim.stop();
        begin(200 * KIB).expect("files are worked on as ever");
    }
}

#[test]
fn an_empty_scope_is_removed_with_its_limit() {
    for make in BEDS.iter().chain(OWN_WAY) {
        let scene = Scene::new(make());
        let backend = scene.bed.backend;
        let delete = || scene.run(scene.volume.delete_scope(scope()));
        assert_eq!(delete(), Ok(()), "{backend}: a missing one");
        scene.create_scope(Some(KIB)).unwrap();
        let (one, _) = scene.folder(1);
        assert_eq!(delete(), Err(VolumeError::ScopeNotEmpty(scope())));
        let quota = scene.describe().unwrap().unwrap();
        assert_eq!(quota.limit_bytes, Some(KIB), "{backend}: it stays limited");
        let gone = scene.volume.delete_folder(one, crate::bed::reins());
        scene.run(gone).unwrap();
        assert_eq!(delete(), Ok(()), "{backend}");
        assert!(!scene.scope_dir().exists(), "{backend}");
        scene.create_scope(None).unwrap();
        let quota = scene.describe().unwrap().unwrap();
        assert_eq!(quota.limit_bytes, None, "{backend}: nothing is left of it");
    }
}

#[test]
fn a_limit_that_the_system_takes_for_wrong_is_told_as_such() {
    for make in BEDS.iter().chain(&[beds::netapp as fn() -> Bed]) {
        let scene = Scene::new(make());
        let backend = scene.bed.backend;
        scene.create_scope(Some(100 * KIB)).unwrap();
        let change = || scene.run(scene.volume.update_scope(scope(), 200 * KIB));
        for method in ["PATCH", "PUT", "POST"] {
            let refusal = Fault::new(What::Status(400)).on(method, "quota");
            scene.bed.sim.inject(refusal.always());
        }
        let refused = change();
        assert!(
            matches!(refused, Err(VolumeError::LimitRefused(_))),
            "{backend}: {refused:?}"
        );
        let answer = refused.unwrap_err().answer();
        let told = String::from_utf8(answer.body).unwrap();
        assert_eq!(
            (answer.status, told.as_str()),
            (400, r#"{"msg":"Invalid quota config option"}"#),
            "{backend}"
        );
        scene.bed.sim.heal();
        assert_eq!(change(), Ok(()), "{backend}");
    }
}
