//! What only Scale does.

use proxy_simulators::Simulator;
use proxy_simulators::gpfs::{self, Gpfs};
use proxy_volume::{Capability, Cause, HwStatus, VolumeError};
use serde_json::{Value, json};

use crate::bed::{Bed, MIB, Scene, cause, reins, scope, vfid};
use crate::beds::{gpfs_options, home};

/// A scene whose simulator's state is at hand.
struct Own {
    scene: Scene,
    sim: Simulator<Gpfs>,
}

fn own_with(more: Value) -> Own {
    let bed = crate::beds::gpfs();
    let home = home();
    let sim = Simulator::start(Gpfs::new(&home.path().join("mount")), home.path());
    let mut options = gpfs_options(&sim);
    options.extend(more.as_object().unwrap().clone());
    let bed = Bed {
        home,
        options,
        ..bed
    };
    let scene = Scene::new(bed);
    Own { scene, sim }
}

#[test]
fn a_scope_is_a_fileset_with_our_prefix_and_owner() {
    let own = own_with(json!({"gpfs_fileset_prefix": "bai-", "gpfs_owner": "7:8"}));
    own.scene.create_scope(Some(1)).unwrap();
    let name = format!("bai-{}", scope().dir_name());
    assert_eq!(
        own.sim.vendor().filesets(),
        [(name, "7:8".to_owned(), true)]
    );
    let quota = own.scene.describe().unwrap().unwrap();
    assert_eq!(quota.limit_bytes, Some(1024), "never rounded down to none");
}

#[test]
fn dependent_filesets_have_no_snapshots() {
    let own = own_with(json!({"gpfs_independent_filesets": false}));
    assert!(!own.scene.can(Capability::Snapshot));
    let (one, _) = own.scene.folder(1);
    let all = own.scene.run(own.scene.volume.snapshots(one));
    assert_eq!(all, Err(VolumeError::Unsupported));
    assert!(!own.sim.vendor().filesets()[0].2);
}

#[test]
fn a_fileset_that_could_not_be_linked_is_linked_by_itself() {
    let own = own_with(json!({}));
    own.sim.vendor().fail_next_link();
    own.scene.create_scope(Some(MIB)).unwrap();
    assert_eq!(own.sim.count("POST", "/link"), 1);
    assert_eq!(own.sim.vendor().filesets().len(), 1);
}

#[test]
fn a_fileset_of_the_name_that_is_linked_elsewhere_is_left_alone() {
    let own = own_with(json!({}));
    let name = scope().dir_name();
    own.sim.vendor().add_fileset(&name, Some("/gpfs/elsewhere"));
    assert_eq!(cause(own.scene.create_scope(None)), Cause::Conflict);
    assert!(!own.scene.scope_dir().exists());
}

#[test]
fn health_is_that_of_the_worst_part() {
    let own = own_with(json!({}));
    for (word, want) in [
        ("HEALTHY", HwStatus::Healthy),
        ("TIPS", HwStatus::Healthy),
        ("DEGRADED", HwStatus::Degraded),
        ("FAILED", HwStatus::Unavailable),
    ] {
        own.sim.vendor().set_health(word);
        let info = own.scene.run(own.scene.volume.hwinfo()).unwrap();
        assert_eq!(info.status, want, "{word}");
        assert_eq!(info.status_info.is_some(), want != HwStatus::Healthy);
        for (key, value) in &info.metadata {
            let value: Value = serde_json::from_str(value).unwrap();
            assert!(value.is_object() || value.is_array(), "{key}");
        }
    }
}

#[test]
fn numbers_are_those_of_the_last_row_and_of_all_pools() {
    let own = own_with(json!({}));
    let metric = own.scene.run(own.scene.volume.metric()).unwrap();
    assert_eq!((metric.iops_read, metric.io_bytes_write), (200, 1_000_000));
    assert_eq!((metric.io_usec_read, metric.io_usec_write), (350.5, 0.0));
    own.sim.vendor().lose_metrics();
    assert_eq!(
        cause(own.scene.run(own.scene.volume.metric())),
        Cause::NotFound
    );
    let capacity = own.scene.run(own.scene.volume.fs_usage()).unwrap();
    assert_eq!(capacity.capacity_bytes, Some(2 << 40));
}

#[test]
fn snapshots_go_with_their_folder() {
    let own = own_with(json!({}));
    let (one, _) = own.scene.folder(1);
    own.scene.folder(2);
    for (folder, name) in [(one, "a"), (one, "b"), (vfid(2), "a")] {
        let name = proxy_volume::SnapshotName::parse(name).unwrap();
        let made = own
            .scene
            .volume
            .create_snapshot(folder, name, None, reins());
        own.scene.run(made).unwrap();
    }
    own.scene
        .run(own.scene.volume.delete_folder(one, reins()))
        .unwrap();
    assert_eq!(own.sim.vendor().snapshots().len(), 1, "of the other folder");
    assert_eq!(gpfs::PAGE, 2, "three were more than a page");
}
