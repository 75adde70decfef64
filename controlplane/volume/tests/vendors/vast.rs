//! What only VAST does.

use std::fs;

use proxy_simulators::Simulator;
use proxy_simulators::vast::{BASE_DIR, Vast};
use proxy_volume::{HwStatus, SnapshotName};
use serde_json::{Value, json};

use crate::bed::{Bed, MIB, Scene, reins, scope};
use crate::beds::{home, vast_options};

/// A scene whose simulator's state is at hand.
struct Own {
    scene: Scene,
    sim: Simulator<Vast>,
}

fn own_with(more: Value) -> Own {
    let bed = crate::beds::vast();
    let home = home();
    let sim = Simulator::start(Vast::new(&home.path().join("mount")), home.path());
    let mut options = vast_options(&sim);
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
    fn note(&self) -> Option<String> {
        fs::read_to_string(self.scene.scope_dir().join(".vast-quota-id")).ok()
    }

    fn limit(&self) -> Option<u64> {
        self.scene.describe().unwrap().unwrap().limit_bytes
    }

    fn path(&self) -> String {
        format!("{BASE_DIR}/{}", scope().dir_name())
    }
}

#[test]
fn the_note_is_a_hint_and_the_path_counts() {
    let own = own();
    own.scene.create_scope(Some(MIB)).unwrap();
    let name = own.scene.scope_dir().display().to_string();
    let id = own.note().unwrap();
    let want = (id.parse().unwrap(), name, own.path());
    assert_eq!(own.sim.vendor().quotas(), [want]);
    let stray = own.sim.vendor().add_quota("stray", "/backend/x", 7);
    let place = own.scene.scope_dir().join(".vast-quota-id");
    for wrong in [stray.to_string().as_str(), "9999", "", "x/y"] {
        fs::write(&place, wrong).unwrap();
        assert_eq!(own.limit(), Some(MIB), "{wrong:?}");
    }
    fs::write(&place, stray.to_string()).unwrap();
    own.scene
        .run(own.scene.volume.update_scope(scope(), 2 * MIB))
        .unwrap();
    assert_eq!(
        (own.limit(), own.note()),
        (Some(2 * MIB), Some(id)),
        "mended"
    );
}

#[test]
fn a_quota_under_another_name_is_found_by_its_path() {
    for pages in [true, false] {
        let own = own();
        if !pages {
            own.sim.vendor().forget_pages();
        }
        for number in 0..600 {
            let name = format!("q{number}");
            own.sim
                .vendor()
                .add_quota(&name, &format!("/elsewhere/{number}"), 7);
        }
        own.sim
            .vendor()
            .add_quota("made by hand", &own.path(), 3 * MIB);
        own.scene.create_scope(Some(MIB)).unwrap();
        assert_eq!(own.limit(), Some(MIB), "taken over and changed");
        assert_eq!(own.sim.vendor().quotas().len(), 601);
    }
}

#[test]
fn a_name_of_another_path_is_left_alone() {
    let own = own();
    let name = own.scene.scope_dir().display().to_string();
    own.sim.vendor().add_quota(&name, "/elsewhere", 7);
    own.scene.create_scope(Some(MIB)).unwrap();
    assert_eq!(own.limit(), Some(MIB));
    let names: Vec<_> = own
        .sim
        .vendor()
        .quotas()
        .into_iter()
        .map(|(_, name, _)| name)
        .collect();
    assert_eq!(names, [name.clone(), format!("{name} {}", own.path())]);
}

#[test]
fn tokens_are_renewed_without_the_password() {
    let own = own();
    own.scene.create_scope(Some(MIB)).unwrap();
    let logins = || own.sim.count("POST", "/token/") - own.sim.count("POST", "/token/refresh/");
    assert_eq!((logins(), own.sim.count("POST", "/token/refresh/")), (1, 0));
    own.sim.vendor().expire_access();
    assert_eq!(own.limit(), Some(MIB));
    assert_eq!((logins(), own.sim.count("POST", "/token/refresh/")), (1, 1));
    own.sim.vendor().token_seconds(30);
    own.sim.vendor().expire_access();
    for _ in 0..3 {
        assert_eq!(
            own.limit(),
            Some(MIB),
            "one that ends within a minute is not kept"
        );
    }
    assert!(own.sim.count("POST", "/token/refresh/") >= 4);
    assert_eq!(logins(), 1);
}

#[test]
fn a_login_before_every_call_can_be_had() {
    let own = own_with(json!({"vast_force_login": true}));
    own.scene.create_scope(None).unwrap();
    let before = own.sim.count("POST", "/token/");
    own.scene.describe().unwrap();
    own.scene.describe().unwrap();
    let logins = own.sim.count("POST", "/token/") - before;
    assert!(logins >= 2, "{logins}");
    assert_eq!(own.sim.count("POST", "/token/refresh/"), 0);
}

#[test]
fn what_the_cluster_says_is_kept_for_a_while() {
    let own = own_with(json!({"vast_cluster_info_cache_ttl": 3600}));
    for _ in 0..5 {
        own.scene.run(own.scene.volume.fs_usage()).unwrap();
        own.scene.run(own.scene.volume.metric()).unwrap();
    }
    assert_eq!(own.sim.count("GET", "/clusters/1/"), 1);
}

#[test]
fn health_is_the_clusters_state() {
    let own = own();
    for (state, want) in [
        ("ONLINE", HwStatus::Healthy),
        ("ACTIVATING", HwStatus::Degraded),
        ("FAILED", HwStatus::Unavailable),
    ] {
        own.sim.vendor().set_cluster(state);
        let info = own.scene.run(own.scene.volume.hwinfo()).unwrap();
        assert_eq!(
            (info.status, info.status_info.as_deref()),
            (want, Some(state))
        );
        let keys: Vec<_> = info.metadata.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["quota", "cluster_info"]);
        assert!(
            info.metadata
                .iter()
                .all(|(_, text)| serde_json::from_str::<Value>(text).is_ok())
        );
    }
}

#[test]
fn a_snapshot_whose_name_is_in_anothers_is_its_own() {
    let own = own();
    let (one, _) = own.scene.folder(1);
    for text in ["ab", "a", "b"] {
        let name = SnapshotName::parse(text).unwrap();
        let made = own.scene.volume.create_snapshot(one, name, None, reins());
        own.scene.run(made).unwrap();
    }
    let name = SnapshotName::parse("a").unwrap();
    let gone = own.scene.volume.delete_snapshot(one, name, reins());
    own.scene.run(gone).unwrap();
    let left = own.scene.run(own.scene.volume.snapshots(one)).unwrap();
    let mut left: Vec<_> = left.iter().map(|one| one.name.as_str()).collect();
    left.sort_unstable();
    assert_eq!(left, ["ab", "b"]);
}
