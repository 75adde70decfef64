//! What only Weka does.

use std::os::unix::fs::MetadataExt;

use proxy_simulators::weka::Weka;
use proxy_simulators::{Fault, Simulator, What};
use proxy_volume::{Cause, HwStatus};
use serde_json::{Value, json};

use crate::bed::{Bed, MIB, Scene, cause, scope, vendor_error, write};
use crate::beds::{home, weka_options};

/// A scene whose simulator's state is at hand.
struct Own {
    scene: Scene,
    sim: Simulator<Weka>,
}

fn own_with(more: Value) -> Own {
    let bed = crate::beds::weka();
    let home = home();
    let sim = Simulator::start(Weka::new(&home.path().join("mount")), home.path());
    let mut options = weka_options(&sim);
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

impl Own {
    fn limit(&self) -> Option<u64> {
        self.scene.describe().unwrap().unwrap().limit_bytes
    }

    fn inode(&self) -> u64 {
        self.scene.scope_dir().metadata().unwrap().ino()
    }
}

#[test]
fn a_limit_is_a_quota_of_the_inode() {
    let own = own();
    own.scene.create_scope(Some(MIB)).unwrap();
    assert_eq!(own.sim.vendor().quotas(), [(own.inode(), MIB)]);
    own.scene
        .run(own.scene.volume.unset_scope(scope()))
        .unwrap();
    assert_eq!(own.sim.vendor().quotas(), [], "removed, and waited for");
}

#[test]
fn no_quota_is_told_in_two_ways() {
    for status in [404, 500] {
        let own = own();
        own.sim.vendor().no_quota_status(status);
        own.scene.create_scope(None).unwrap();
        assert_eq!(own.limit(), None, "{status}");
        own.scene
            .run(own.scene.volume.update_scope(scope(), MIB))
            .unwrap();
        own.scene
            .run(own.scene.volume.unset_scope(scope()))
            .unwrap();
        own.scene
            .run(own.scene.volume.unset_scope(scope()))
            .unwrap();
        assert_eq!(own.limit(), None, "{status}");
    }
}

#[test]
fn older_releases_are_served_by_their_older_interface() {
    let own = own();
    own.sim.vendor().only_v1();
    own.scene.create_scope(Some(MIB)).unwrap();
    assert_eq!(own.sim.vendor().quotas(), [(own.inode(), MIB)]);
    assert_eq!(own.sim.count("POST", "/api/v1"), 1);
}

#[test]
fn a_full_directory_is_counted_first() {
    let own = own();
    own.sim.vendor().count_slowly(4);
    own.scene.create_scope(None).unwrap();
    let (_, dir) = own.scene.folder(1);
    write(&dir, "f", 5000);
    own.scene
        .run(own.scene.volume.update_scope(scope(), MIB))
        .unwrap();
    let quota = own.scene.describe().unwrap().unwrap();
    assert_eq!(quota.used_bytes, Some(5000), "it was waited for");
    assert!(own.sim.count("GET", "/quota/") >= 5);
}

#[test]
fn a_quota_that_ends_in_error_is_told_and_leaves_no_scope() {
    let own = own();
    own.sim.vendor().fail_next_quota();
    assert_eq!(cause(own.scene.create_scope(Some(MIB))), Cause::JobFailed);
    assert!(
        !own.scene.scope_dir().exists(),
        "nobody writes without a limit"
    );
    own.scene.create_scope(Some(MIB)).unwrap();
    assert_eq!(own.limit(), Some(MIB));
}

#[test]
fn a_file_system_that_was_made_anew_is_found() {
    let own = own();
    own.scene.create_scope(Some(MIB)).unwrap();
    own.sim
        .vendor()
        .change_fs_uid("b3a8f3a2-0000-0000-0000-000000000002");
    assert_eq!(own.limit(), Some(MIB));
    let missing = own_with(json!({"weka_fs_name": "nowhere"}));
    let error = vendor_error(missing.scene.create_scope(Some(MIB)));
    assert_eq!(error.cause, Cause::NotFound);
    assert_eq!(error.text, "there is no file system \"nowhere\"");
}

#[test]
fn tokens_are_renewed_without_the_password() {
    let own = own();
    own.scene.create_scope(Some(MIB)).unwrap();
    own.sim.vendor().expire_access();
    assert_eq!(own.limit(), Some(MIB));
    assert_eq!(own.sim.count("POST", "/login/refresh"), 1);
    assert_eq!(own.sim.count("POST", "/login"), 2, "and one login");
}

#[test]
fn health_is_a_word_and_performance_the_latest() {
    let own = own();
    for (word, want) in [
        ("OK", HwStatus::Healthy),
        ("Degraded", HwStatus::Degraded),
        ("rebuilding everything", HwStatus::Unavailable),
    ] {
        own.sim.vendor().set_health(word);
        let info = own.scene.run(own.scene.volume.hwinfo()).unwrap();
        let word = (want != HwStatus::Healthy).then(|| word.to_lowercase());
        assert_eq!((info.status, info.status_info), (want, word));
        let keys: Vec<_> = info.metadata.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["quota", "cluster_info"]);
    }
    let metric = own.scene.run(own.scene.volume.metric()).unwrap();
    assert_eq!((metric.iops_read, metric.iops_write), (200, 100));
    let bytes = (metric.io_bytes_read, metric.io_bytes_write);
    assert_eq!(bytes, (2_500_000, 1_500_000));
    assert_eq!((metric.io_usec_read, metric.io_usec_write), (350.5, 720.25));
    own.sim
        .inject(Fault::new(What::Status(500)).on("GET", "/cluster").always());
    let info = own.scene.run(own.scene.volume.hwinfo()).unwrap();
    assert_eq!(info.status, HwStatus::Unavailable);
}
