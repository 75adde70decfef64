//! What only Hammerspace does, and the plain directory of the other backend.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use proxy_simulators::hammerspace::Hammerspace;
use proxy_simulators::{Fault, Simulator, What};
use proxy_volume::{Limits, ShareMount, ShareMounts, SnapshotName, VolumeError, Volumes};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::json;

use crate::bed::{Bed, MIB, Scene, reins, scope, write};
use crate::beds::{hammerspace_options, home};

/// A scene whose simulator's state is at hand; shares lie in `shares`, as seen from the mount.
fn own(shares: &str) -> (Scene, Simulator<Hammerspace>) {
    let bed = crate::beds::hammerspace();
    let home = home();
    let shares = home.path().join(shares);
    std::fs::create_dir_all(&shares).unwrap();
    let sim = Simulator::start(Hammerspace::new(&shares), home.path());
    let options = hammerspace_options(&sim);
    let bed = Bed {
        home,
        options,
        ..bed
    };
    (Scene::new(bed), sim)
}

#[test]
fn a_size_is_lifted_in_the_way_that_a_release_takes() {
    for keeps in [false, true] {
        let (scene, sim) = own("mount");
        scene.create_scope(Some(MIB)).unwrap();
        if keeps {
            sim.vendor().keep_limits();
        }
        scene.run(scene.volume.unset_scope(scope())).unwrap();
        assert_eq!(sim.vendor().shares(), [(scope().dir_name(), 0)]);
        assert_eq!(scene.describe().unwrap().unwrap().limit_bytes, None);
    }
}

#[test]
fn capacity_is_told_by_the_state_or_by_the_newest_whole_row() {
    let (scene, sim) = own("mount");
    let (_, dir) = scene.folder(1);
    write(&dir, "a", 1000);
    let state = scene.run(scene.volume.fs_usage()).unwrap();
    sim.vendor().only_metrics();
    let metrics = scene.run(scene.volume.fs_usage()).unwrap();
    assert_eq!(state, metrics);
    assert_eq!(state.capacity_bytes, Some(1 << 42));
    assert!(state.used_bytes.is_some_and(|used| used >= 1000));
}

#[test]
fn a_snapshot_whose_answer_was_lost_is_found() {
    let (scene, sim) = own("mount");
    let (one, _) = scene.folder(1);
    let name = SnapshotName::parse("a").unwrap();
    sim.inject(Fault::new(What::DropAfter).on("POST", "/snapshot-create/"));
    let made = scene
        .volume
        .create_snapshot(one, name.clone(), None, reins());
    scene.run(made).unwrap();
    assert_eq!(sim.vendor().snapshots().len(), 1);
    scene.run(scene.volume.delete_folder(one, reins())).unwrap();
    assert_eq!(sim.vendor().snapshots(), Vec::<String>::new());
}

/// Mounts as the fleet would: a share's directory over the directory of the scope.
struct Binds {
    shares: PathBuf,
    mount: PathBuf,
    asked: Mutex<Vec<ShareMount>>,
}

impl ShareMounts for Binds {
    fn mount(&self, wanted: ShareMount) {
        let (_, share) = wanted.location.split_once(":/").unwrap();
        let target = self.mount.join(&wanted.dir_name);
        std::fs::create_dir_all(&target).unwrap();
        mount_bind(self.shares.join(share), target).unwrap();
        self.asked.lock().push(wanted);
    }

    fn unmount(&self, wanted: ShareMount) {
        unmount(self.mount.join(wanted.dir_name), UnmountFlags::DETACH).unwrap();
    }
}

/// Ends a mount, also when a test fails.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Whether this process may mount at all.
fn may_mount(scene: &Scene) -> bool {
    let at = scene.bed.home.path().join("probe");
    std::fs::create_dir(&at).unwrap();
    let text = CString::new(at.to_str().unwrap()).unwrap();
    let done = mount_bind(text.as_c_str(), text.as_c_str());
    drop(Unmount(at));
    if let Err(error) = &done {
        println!("skipped: nothing can be mounted here: {error}");
    }
    done.is_ok()
}

#[test]
fn shares_are_mounted_before_anything_is_written() {
    let (mut scene, sim) = own("shares");
    if !may_mount(&scene) {
        return;
    }
    let options = [("mount_shares", json!(true)), ("mount_wait", json!(0.2))];
    let options = options.map(|(key, value)| (key.to_owned(), value));
    scene.bed.options.extend(options);
    let volumes = Volumes::new(vec![scene.bed.spec()], &Limits::default()).unwrap();
    scene.volume = volumes.find("v1").unwrap();
    let done = scene.create_scope(Some(MIB));
    assert!(
        matches!(done, Err(VolumeError::ScopeCreationFailed { .. })),
        "nobody mounts: {done:?}"
    );
    assert_eq!(scene.describe(), Ok(None), "it is not there yet");
    let binds = Arc::new(Binds {
        shares: scene.bed.home.path().join("shares"),
        mount: scene.bed.mount(),
        asked: Mutex::default(),
    });
    let _ = volumes.outside().mounts.set(Arc::clone(&binds) as _);
    let _unmount = Unmount(scene.scope_dir());
    // The share is there, and nobody could use it: this goes on.
    let (_, dir) = scene.folder(1);
    write(&dir, "a", 1000);
    let share = scene
        .bed
        .home
        .path()
        .join("shares")
        .join(scope().dir_name());
    let seen = std::fs::read_dir(&share).unwrap().count();
    assert_eq!(seen, 1, "it is in the share");
    let name = scope().dir_name();
    let wanted = ShareMount {
        volume: "v1".to_owned(),
        dir_name: name.clone(),
        scope: scope(),
        location: format!("10.0.0.7:/{name}"),
    };
    assert_eq!(*binds.asked.lock(), [wanted]);
    let again = scene.create_scope(None);
    assert_eq!(again, Err(VolumeError::ScopeExists(scope())));
    assert_eq!(sim.count("POST", "/shares"), 1);
    // The mount is lost: nothing is written below its point, it is mounted again.
    unmount(scene.scope_dir(), UnmountFlags::DETACH).unwrap();
    let _ = scene.folder(2);
    assert_eq!(binds.asked.lock().len(), 2);
    for number in [1, 2] {
        let folder = crate::bed::vfid(number);
        scene
            .run(scene.volume.delete_folder(folder, reins()))
            .unwrap();
    }
    scene.run(scene.volume.delete_scope(scope())).unwrap();
    assert!(
        !scene.scope_dir().exists(),
        "the mount point is gone as well"
    );
    assert_eq!(sim.vendor().shares(), []);
}
