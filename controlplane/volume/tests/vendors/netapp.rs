//! What only ONTAP does.

use proxy_core::id::QuotaScopeId;
use proxy_simulators::Simulator;
use proxy_simulators::netapp::NetApp;
use proxy_volume::{Cause, HwStatus, VolumeError};
use serde_json::{Value, json};

use crate::bed::{Bed, MIB, Scene, scope, vendor_error};
use crate::beds::{home, netapp_options};

/// A scene whose simulator's state is at hand.
struct Own {
    scene: Scene,
    sim: Simulator<NetApp>,
}

fn own_with(more: Value) -> Own {
    let bed = crate::beds::netapp();
    let home = home();
    let sim = Simulator::start(NetApp::new(&home.path().join("mount")), home.path());
    let mut options = netapp_options(&sim);
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
    own_with(json!({}))
}

#[test]
fn a_limit_is_a_rule_and_quotas_are_switched_on_once() {
    let own = own();
    own.scene.create_scope(Some(MIB)).unwrap();
    let name = scope().dir_name();
    assert_eq!(own.sim.vendor().names(), (vec![name.clone()], vec![name]));
    own.scene.settles(|quota| quota.used_bytes.is_some());
    assert!(own.sim.vendor().quotas_on());
    let second = QuotaScopeId::parse(crate::bed::OTHER_SCOPE).unwrap();
    own.scene
        .run(own.scene.volume.create_scope(second, Some(MIB)))
        .unwrap();
    assert_eq!(own.sim.count("PATCH", "/api/storage/volumes/"), 1);
}

#[test]
fn a_rule_that_could_not_be_resized_counts_after_quotas_were_cycled() {
    let own = own();
    own.sim.vendor().fail_next_resize();
    own.scene.create_scope(Some(MIB)).unwrap();
    let quota = own.scene.settles(|quota| quota.used_bytes.is_some());
    assert_eq!(quota.limit_bytes, Some(MIB));
    assert_eq!(own.sim.count("POST", "/api/storage/quota/rules"), 1);
}

#[test]
fn a_directory_that_is_seen_late_is_waited_for() {
    let own = own();
    own.sim.vendor().hide_new_directories(0);
    own.scene.create_scope(None).unwrap();
    let own = own_with(json!({"netapp_nfs_wait": 0.2}));
    own.sim.vendor().hide_new_directories(usize::MAX);
    let error = own.scene.create_scope(None).unwrap_err();
    assert!(
        matches!(error, VolumeError::ScopeCreationFailed { .. }),
        "{error}"
    );
    own.sim.vendor().hide_new_directories(0);
    // The qtree is there by now, its directory comes with the next request.
    own.scene.create_scope(None).unwrap();
}

#[test]
fn a_volume_that_moved_is_found_again() {
    let own = own();
    own.scene.create_scope(Some(MIB)).unwrap();
    own.sim
        .vendor()
        .change_volume_uuid("11111111-41bd-11e9-81d5-00a0986138f7");
    let quota = own.scene.describe().unwrap().unwrap();
    assert_eq!(quota.limit_bytes, Some(MIB));
    let again = "22222222-41bd-11e9-81d5-00a0986138f7";
    own.sim.vendor().change_volume_uuid(again);
    own.scene
        .run(own.scene.volume.update_scope(scope(), 2 * MIB))
        .unwrap();
    let capacity = own.scene.run(own.scene.volume.fs_usage()).unwrap();
    assert_eq!(capacity.capacity_bytes, Some(1 << 40));
}

#[test]
fn health_is_that_of_the_volume() {
    let own = own();
    let info = || own.scene.run(own.scene.volume.hwinfo()).unwrap();
    let facts = info().metadata;
    let keys: Vec<_> = facts.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["quota", "files"]);
    for (_, value) in &facts {
        assert!(serde_json::from_str::<Value>(value).unwrap().is_object());
    }
    own.sim.vendor().set_online(false);
    assert_eq!(info().status, HwStatus::Degraded);
}

#[test]
fn the_metric_is_an_average_and_not_a_counter() {
    let own = own();
    let metric = own.scene.run(own.scene.volume.metric()).unwrap();
    assert_eq!((metric.iops_read, metric.iops_write), (200, 100));
    assert_eq!(
        (metric.io_bytes_read, metric.io_bytes_write),
        (2_000_000, 1_000_000)
    );
    assert_eq!((metric.io_usec_read, metric.io_usec_write), (350.0, 720.0));
    assert_eq!(metric.observed_at.to_string(), "2026-01-01T12:00:15+00:00");
}

#[test]
fn a_volume_that_is_not_there_is_told_by_its_name() {
    let own = own_with(json!({"netapp_volume_name": "vol9"}));
    let error = vendor_error(own.scene.create_scope(None));
    assert_eq!(error.cause, Cause::NotFound);
    assert_eq!(error.text, "no volume is called vol9");
}

#[test]
fn a_scope_goes_with_its_rule_and_its_qtree_when_nothing_is_in_it() {
    let own = own();
    let names = || own.sim.vendor().names();
    own.scene.create_scope(Some(MIB)).unwrap();
    let (vfid, _) = own.scene.folder(1);
    let delete = || own.scene.run(own.scene.volume.delete_scope(scope()));
    assert_eq!(delete(), Err(VolumeError::ScopeNotEmpty(scope())));
    assert_eq!((names().0.len(), names().1.len()), (1, 1));
    let gone = own.scene.volume.delete_folder(vfid, crate::bed::reins());
    own.scene.run(gone).unwrap();
    delete().unwrap();
    delete().unwrap();
    assert_eq!(names(), (vec![], vec![]));
    own.scene.create_scope(Some(MIB)).unwrap();
}
