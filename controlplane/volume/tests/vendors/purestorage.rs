//! What only a FlashBlade does.

use proxy_simulators::Simulator;
use proxy_simulators::purestorage::FlashBlade;
use proxy_volume::{Cause, HwStatus, SnapshotName, VolumeError};
use serde_json::{Value, json};

use crate::bed::{Bed, Scene, reins, vendor_error, write};
use crate::beds::{home, purestorage_options};

/// A scene whose simulator's state is at hand.
struct Own {
    scene: Scene,
    sim: Simulator<FlashBlade>,
}

fn own_with(version: &str, more: Value) -> Own {
    let bed = crate::beds::purestorage();
    let home = home();
    let sim = Simulator::start(FlashBlade::new(&home.path().join("mount")), home.path());
    let mut options = purestorage_options(&sim, version);
    options.extend(more.as_object().unwrap().clone());
    let bed = Bed {
        home,
        options,
        ..bed
    };
    let scene = Scene::new(bed);
    Own { scene, sim }
}

fn own() -> Own {
    own_with("2.12", json!({}))
}

#[test]
fn one_login_serves_all_calls() {
    let own = own();
    for _ in 0..5 {
        own.scene.run(own.scene.volume.metric()).unwrap();
        own.scene.run(own.scene.volume.hwinfo()).unwrap();
    }
    assert_eq!(own.sim.count("POST", "/api/login"), 1);
    assert_eq!(own.sim.count("GET", "/api/api_version"), 1);
}

#[test]
fn a_version_that_the_array_lacks_is_replaced() {
    for (wanted, has, used) in [
        ("1.8", &["1.8", "2.0"][..], "/api/1.8/"),
        ("1.9", &["1.8", "2.0", "2.4"][..], "/api/2.4/"),
        ("2.99", &["1.0", "1.12"][..], "/api/1.12/"),
    ] {
        let own = own_with(wanted, json!({}));
        own.sim.vendor().set_versions(has);
        own.scene.run(own.scene.volume.metric()).unwrap();
        assert!(own.sim.count("GET", used) > 0, "{wanted} of {has:?}");
    }
    let own = own();
    own.sim.vendor().set_versions(&["3.0"]);
    let error = vendor_error(own.scene.run(own.scene.volume.metric()));
    assert_eq!(error.text, "no version that we know among 3.0");
}

#[test]
fn capacity_is_the_file_systems_own_or_the_arrays() {
    let own = own();
    let capacity = || own.scene.run(own.scene.volume.fs_usage()).unwrap();
    write(&own.scene.bed.mount(), "file", 5000);
    let whole = capacity();
    assert_eq!(
        (whole.capacity_bytes, whole.used_bytes),
        (Some(1 << 40), Some(5000))
    );
    own.sim.vendor().set_provisioned(0);
    assert_eq!(capacity().capacity_bytes, Some(4 << 40));
}

#[test]
fn health_counts_the_blades() {
    let own = own();
    let info = || own.scene.run(own.scene.volume.hwinfo()).unwrap();
    let url = own.sim.url();
    let facts = info().metadata;
    let fact = |key: &str| {
        let found = facts.iter().find(|(other, _)| other == key);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(
        (fact("blade_count"), fact("name")),
        (Some("2"), Some("fb1"))
    );
    assert_eq!(fact("console_url"), Some(url.as_str()));
    own.sim.vendor().set_blades(&["healthy"; 450]);
    assert!(
        info()
            .metadata
            .contains(&("blade_count".to_owned(), "450".to_owned()))
    );
    own.sim.vendor().set_blades(&["healthy", "critical"]);
    assert_eq!(info().status, HwStatus::Degraded);
}

#[test]
fn the_metric_is_rounded() {
    for version in ["1.12", "2.12"] {
        let own = own_with(version, json!({}));
        let metric = own.scene.run(own.scene.volume.metric()).unwrap();
        assert_eq!((metric.iops_read, metric.iops_write), (120, 61));
        assert_eq!(
            (metric.io_bytes_read, metric.io_bytes_write),
            (1_000_001, 500_000)
        );
        assert_eq!(
            (metric.io_usec_read, metric.io_usec_write),
            (810.5, 1210.25)
        );
        assert_eq!(metric.observed_at.to_string(), "2026-01-01T12:00:15+00:00");
    }
}

#[test]
fn snapshots_that_nobody_could_read_are_refused() {
    let own = own();
    own.sim.vendor().show_snapshots(false);
    let (vfid, _) = own.scene.folder(1);
    let name = || SnapshotName::parse("a").unwrap();
    let create = || {
        let made = own
            .scene
            .volume
            .create_snapshot(vfid, name(), None, reins());
        own.scene.run(made)
    };
    let error = vendor_error(create());
    assert_eq!(error.cause, Cause::Refused);
    assert!(error.text.contains("snapshot_directory_enabled"), "{error}");
    own.sim.vendor().show_snapshots(true);
    create().unwrap();
    assert_eq!(create(), Err(VolumeError::SnapshotExists(name())));
    assert_eq!(own.sim.vendor().snapshot_names().len(), 1);
}

#[test]
fn deleted_folders_are_handed_to_the_array() {
    let own = own_with("2.12", json!({"purity_fast_remove": true}));
    let fast = own.scene.bed.mount().join(".fast-remove");
    for taken in [true, false] {
        let _ = std::fs::remove_dir_all(&fast);
        if taken {
            std::fs::create_dir(&fast).unwrap();
        }
        let (vfid, dir) = own.scene.folder(1);
        write(&dir, "deep/file", 10);
        own.scene
            .run(own.scene.volume.delete_folder(vfid, reins()))
            .unwrap();
        assert!(!dir.exists());
        let left = std::fs::read_dir(own.scene.scope_dir()).unwrap().count();
        assert_eq!(left, 0, "nothing is left in the scope");
        let handed = std::fs::read_dir(&fast).map_or(0, |entries| entries.count());
        assert_eq!(
            handed,
            usize::from(taken),
            "and without the directory it is removed here"
        );
    }
}
