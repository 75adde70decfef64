//! What only OneFS does.

use std::fs;

use proxy_simulators::Simulator;
use proxy_simulators::onefs::{IFS_PATH, OneFs};
use proxy_volume::{HwStatus, Restore, SnapshotName};
use serde_json::{Value, json};

use crate::bed::{Bed, MIB, Scene, reins, scope, task, vfid, write};
use crate::beds::{home, onefs_options};

/// A scene whose simulator's state is at hand.
struct Own {
    scene: Scene,
    sim: Simulator<OneFs>,
}

fn own_with(more: Value) -> Own {
    let bed = crate::beds::onefs();
    let home = home();
    let sim = Simulator::start(OneFs::new(&home.path().join("mount")), home.path());
    let mut options = onefs_options(&sim);
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
        fs::read_to_string(self.scene.scope_dir().join(".quota_id")).ok()
    }

    fn limit(&self) -> Option<u64> {
        self.scene.describe().unwrap().unwrap().limit_bytes
    }
}

#[test]
fn the_note_is_a_hint_and_the_path_counts() {
    let own = own();
    own.scene.create_scope(Some(MIB)).unwrap();
    let path = format!("{IFS_PATH}/{}", scope().dir_name());
    let quotas = own.sim.vendor().quotas();
    assert_eq!(quotas, [(own.note().unwrap(), path)]);
    let right = own.note();
    let stray = own.sim.vendor().add_quota("/ifs/data/other", 7);
    let place = own.scene.scope_dir().join(".quota_id");
    for wrong in [stray.as_str(), "not an id", "", "../../x", "\u{fffd}"] {
        fs::write(&place, wrong).unwrap();
        assert_eq!(own.limit(), Some(MIB), "{wrong:?}");
    }
    fs::remove_file(&place).unwrap();
    assert_eq!(own.limit(), Some(MIB), "a lost note");
    fs::write(&place, format!("{stray}\n")).unwrap();
    own.scene
        .run(own.scene.volume.update_scope(scope(), 2 * MIB))
        .unwrap();
    assert_eq!((own.limit(), own.note()), (Some(2 * MIB), right), "mended");
    assert_eq!(own.sim.vendor().quotas().len(), 2, "the stray one stays");
}

#[test]
fn scopes_of_the_original_are_taken_over() {
    let own = own();
    let path = format!("{IFS_PATH}/{}", scope().dir_name());
    let id = own.sim.vendor().add_quota(&path, 3 * MIB);
    fs::create_dir(own.scene.scope_dir()).unwrap();
    fs::write(own.scene.scope_dir().join(".quota_id"), format!("{id}\n")).unwrap();
    assert_eq!(own.limit(), Some(3 * MIB));
    own.scene
        .run(own.scene.volume.unset_scope(scope()))
        .unwrap();
    assert_eq!((own.limit(), own.note()), (None, None));
    assert!(own.sim.vendor().quotas().is_empty());
}

#[test]
fn a_note_that_was_being_written_is_no_obstacle() {
    let own = own();
    fs::create_dir(own.scene.scope_dir()).unwrap();
    let path = format!("{IFS_PATH}/{}", scope().dir_name());
    own.sim.vendor().add_quota(&path, 7);
    fs::write(own.scene.scope_dir().join(".quota_id.half"), "AAB").unwrap();
    own.scene.create_scope(Some(MIB)).unwrap();
    assert_eq!(own.limit(), Some(MIB), "taken over");
    assert!(own.note().is_some());
}

#[test]
fn a_full_directory_is_counted_before_its_usage_is_told() {
    let own = own();
    own.sim.vendor().count_slowly(3);
    own.scene.create_scope(None).unwrap();
    let (_, dir) = own.scene.folder(1);
    write(&dir, "f", 5000);
    own.scene
        .run(own.scene.volume.update_scope(scope(), MIB))
        .unwrap();
    let first = own.scene.describe().unwrap().unwrap();
    assert_eq!((first.used_bytes, first.limit_bytes), (None, Some(MIB)));
    own.scene
        .settles(|quota| quota.used_bytes.is_some_and(|used| used >= 5000));
}

#[test]
fn an_account_without_sessions_uses_its_password() {
    let own = own();
    own.scene.create_scope(Some(MIB)).unwrap();
    assert_eq!(own.sim.count("POST", "/session"), 1, "one login for all");
    own.sim.vendor().refuse_sessions();
    assert_eq!(own.limit(), Some(MIB));
}

#[test]
fn lists_come_in_pages() {
    let own = own();
    own.sim.vendor().page(1);
    own.scene.create_scope(None).unwrap();
    let (one, _) = own.scene.folder(1);
    for name in ["a", "b", "c"] {
        let name = SnapshotName::parse(name).unwrap();
        let made = own.scene.volume.create_snapshot(one, name, None, reins());
        own.scene.run(made).unwrap();
    }
    let all = own.scene.run(own.scene.volume.snapshots(one)).unwrap();
    assert_eq!(all.len(), 3);
}

#[test]
fn snapshots_survive_that_their_folder_is_replaced_and_go_with_it() {
    let own = own();
    let (one, dir) = own.scene.folder(1);
    write(&dir, "f", 5);
    let name = |text: &str| SnapshotName::parse(text).unwrap();
    for text in ["a", "b"] {
        let made = own
            .scene
            .volume
            .create_snapshot(one, name(text), None, reins());
        own.scene.run(made).unwrap();
    }
    for text in ["a", "b", "a"] {
        let done =
            own.scene
                .volume
                .restore_snapshot(one, name(text), Restore::InPlace, task(), reins());
        own.scene.run(done).unwrap();
    }
    let shown = own.scene.scope_dir().join("01/23/.snapshot");
    assert_eq!(fs::read_dir(&shown).unwrap().count(), 2);
    let usage = own.scene.run(own.scene.volume.usage(one)).unwrap();
    assert_eq!(usage.file_count, 1, "snapshots are not in the folder");
    let gone = own.scene.volume.delete_folder(one, reins());
    own.scene.run(gone).unwrap();
    assert!(!shown.exists(), "no orphans");
    let other = own.scene.volume.create_folder(vfid(1), 0o755, None, true);
    own.scene.run(other).unwrap();
    assert_eq!(own.scene.run(own.scene.volume.snapshots(one)), Ok(vec![]));
}

#[test]
fn health_and_performance_are_those_of_the_cluster() {
    let own = own();
    let info = || own.scene.run(own.scene.volume.hwinfo()).unwrap();
    let facts = info().metadata;
    let keys: Vec<_> = facts.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["cluster", "nodes"]);
    for ((_, text), items) in facts.iter().zip([1, 3]) {
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(value.as_array().map(Vec::len), Some(items));
    }
    own.sim.vendor().node_down(Some(2));
    let told = info();
    assert_eq!(told.status, HwStatus::Degraded);
    assert_eq!(told.status_info.as_deref(), Some("node 2 is down"));
    let row = || {
        let metric = own.scene.run(own.scene.volume.metric()).unwrap();
        let bytes = (metric.io_bytes_read, metric.io_bytes_write);
        let times = (metric.io_usec_read, metric.io_usec_write);
        ((metric.iops_read, metric.iops_write), bytes, times)
    };
    let (bytes, times) = ((2_500_000, 1_500_000), (350.5, 720.25));
    assert_eq!(row(), ((200, 100), bytes, times));
    own.sim.vendor().forget_rates();
    assert_eq!(row(), ((300, 0), bytes, times), "an older version");
}

#[test]
fn options_of_the_original_are_taken() {
    let own = own_with(json!({"dell_admin": "root", "dell_username": "root"}));
    own.scene.create_scope(Some(MIB)).unwrap();
    let fault = |key: &str, value: Value| {
        let mut spec = own.scene.bed.spec();
        spec.options.insert(key.to_owned(), value);
        proxy_volume::Volumes::new(vec![spec], &proxy_volume::Limits::default())
            .err()
            .map(|error| error.to_string())
    };
    for (key, value, want) in [
        ("dell_ifs_path", json!("/mnt"), "a directory below /ifs"),
        ("dell_api_version", json!("twelve"), "a number in quotes"),
    ] {
        let text = fault(key, value).unwrap();
        assert!(text.contains(key) && text.contains(want), "{text}");
    }
    let mut spec = own.scene.bed.spec();
    spec.options.remove("dell_admin");
    spec.options.remove("dell_username");
    let volumes = proxy_volume::Volumes::new(vec![spec], &proxy_volume::Limits::default());
    let text = volumes.err().unwrap().to_string();
    assert!(
        text.starts_with("volume.v1.options.dell_username: is missing"),
        "{text}"
    );
}
