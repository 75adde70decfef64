//! Goal: states of folders on CephFS are kept, brought back and forgotten by its own snapshots.
//! Method: a cluster of one daemon of each kind, made by `tests/testbeds/cephfs.sh`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proxy_core::id::{TaskId, VFolderId};
use proxy_testkit::folder::{names, picture};
use proxy_testkit::skip;
use proxy_testkit::testbed::Testbed;
use proxy_volume::{
    Control, Limits, Restore, SnapshotName, Spec, Stamp, Volume, VolumeError, Volumes,
};

const SCOPE: &str = "user:11111111-2222-3333-4444-555555555555";

struct Scene {
    volume: Arc<Volume>,
    mount: PathBuf,
    home: VFolderId,
}

fn folder(hex: &str) -> VFolderId {
    VFolderId::parse(&format!("{SCOPE}/{hex}")).unwrap()
}

fn control() -> Arc<Control> {
    Arc::new(Control::default())
}

impl Scene {
    async fn new(mount: &Path) -> Self {
        let spec = Spec {
            name: "v".to_owned(),
            backend: "cephfs".to_owned(),
            path: mount.to_owned(),
            fsprefix: ".".to_owned(),
            options: Default::default(),
        };
        let volumes = Volumes::new(vec![spec], &Limits::default()).unwrap();
        let volume = volumes.find("v").unwrap();
        let home = folder("0123456789abcdef0123456789abcdef");
        let (limit, mount) = (Some(1 << 30), mount.to_owned());
        volume
            .create_folder(home, 0o750, limit, true)
            .await
            .unwrap();
        Self {
            volume,
            mount,
            home,
        }
    }

    fn at(&self, vfid: VFolderId) -> PathBuf {
        self.mount.join(vfid.components().join("/"))
    }

    async fn keep(&self, name: &str, expires: Option<Stamp>) -> Result<(), VolumeError> {
        let name = SnapshotName::parse(name).unwrap();
        let kept = self
            .volume
            .create_snapshot(self.home, name, expires, control());
        kept.await.map(drop)
    }

    async fn bring_back(&self, name: &str, to: Restore) -> Result<u64, VolumeError> {
        let name = SnapshotName::parse(name).unwrap();
        let task = TaskId::random();
        let restored = self
            .volume
            .restore_snapshot(self.home, name, to, task, control());
        restored.await.map(|cloned| cloned.entries)
    }

    async fn kept(&self) -> Vec<(String, Option<Stamp>)> {
        let kept = self.volume.snapshots(self.home).await.unwrap();
        let named = |kept: proxy_volume::Snapshot| (kept.name.to_string(), kept.expires);
        kept.into_iter().map(named).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_of_folders_are_kept_and_brought_back() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    let bed = match Testbed::up(&tests, "cephfs", &[]) {
        Ok(bed) => bed,
        Err(reason) => return skip(reason),
    };
    let scene = Scene::new(bed.mount()).await;
    let home = scene.at(scene.home);
    fs::create_dir_all(home.join("a/b")).unwrap();
    fs::write(home.join("a/b/f"), "first").unwrap();
    std::os::unix::fs::symlink("a/b/f", home.join("link")).unwrap();
    let first = picture(&home);
    scene.keep("one", None).await.unwrap();
    let twice = scene.keep("one", Some(Stamp::now())).await;
    assert!(
        matches!(twice, Err(VolumeError::SnapshotExists(_))),
        "{twice:?}"
    );
    fs::write(home.join("a/b/f"), "second").unwrap();
    fs::write(home.join("more"), "more").unwrap();
    fs::create_dir(home.join(".upload")).unwrap();
    fs::write(home.join(".upload/part"), "staged").unwrap();
    let ends = Stamp {
        unix_ns: 4_000_000_000 * 1_000_000_000,
    };
    scene.keep("two", Some(ends)).await.unwrap();
    let both = vec![("one".to_owned(), None), ("two".to_owned(), Some(ends))];
    assert_eq!(scene.kept().await, both);

    assert_eq!(scene.bring_back("one", Restore::InPlace).await, Ok(4));
    fs::remove_dir_all(home.join(".upload")).expect("uploads under way are kept");
    assert_eq!(picture(&home), first);
    assert_eq!(scene.kept().await, both, "the states stay");
    let new = folder("fedcba9876543210fedcba9876543210");
    assert!(scene.bring_back("two", Restore::Into(new)).await.is_ok());
    assert_eq!(
        fs::read_to_string(scene.at(new).join("a/b/f")).unwrap(),
        "second"
    );
    assert!(
        !scene.at(new).join(".upload").exists(),
        "no part of a state"
    );
    let lost = scene.bring_back("three", Restore::InPlace).await;
    assert!(
        matches!(lost, Err(VolumeError::SnapshotNotFound(_))),
        "{lost:?}"
    );

    for _ in 0..2 {
        let name = SnapshotName::parse("one").unwrap();
        let deleted = scene.volume.delete_snapshot(scene.home, name, control());
        deleted.await.expect("a missing one is no error");
    }
    assert_eq!(scene.kept().await, both[1..]);
    for vfid in [scene.home, new] {
        scene.volume.delete_folder(vfid, control()).await.unwrap();
    }
    let scope = scene.home.scope.unwrap();
    assert_eq!(names(&scene.mount.join(scope.dir_name())), [""; 0]);
    scene.volume.delete_scope(scope).await.unwrap();
    assert!(!scene.mount.join(scope.dir_name()).exists());
}
