//! EXAScaler: a program instead of an interface.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use proxy_core::id::QuotaScopeId;
use proxy_volume::{Cause, Limits, ProjectIds, ScopeQuota, VolumeError, Volumes};
use serde_json::json;

use crate::bed::{KIB, MIB, OTHER_SCOPE, Scene, scope, vendor_error, write};

fn scene() -> (Scene, PathBuf) {
    let scene = Scene::new(crate::beds::exascaler());
    let table = scene.bed.home.path().join("table");
    (scene, table)
}

fn calls(table: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(table.join("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn noted(scene: &Scene) -> String {
    std::fs::read_to_string(scene.scope_dir().join("project_id")).unwrap()
}

#[test]
fn a_scope_is_a_project_with_fixed_words() {
    let (scene, table) = scene();
    scene.create_scope(Some(10 * MIB)).unwrap();
    assert_eq!(noted(&scene), "101");
    let place = scene.scope_dir().display().to_string();
    assert_eq!(
        calls(&table),
        [
            format!("project -d {place}"),
            format!("project -p 101 -r -s {place}"),
            format!("setquota -p 101 -B10240 {place}"),
        ]
    );
    let second = QuotaScopeId::parse(OTHER_SCOPE).unwrap();
    scene.run(scene.volume.create_scope(second, None)).unwrap();
    let other = scene.bed.mount().join(second.dir_name());
    assert_eq!(std::fs::read(other.join("project_id")).unwrap(), b"102");
    scene.run(scene.volume.update_scope(scope(), 1)).unwrap();
    let quota = scene.describe().unwrap().unwrap();
    assert_eq!(quota.limit_bytes, Some(KIB), "never rounded down to none");
}

#[test]
fn quotas_are_read_in_every_form() {
    let (scene, table) = scene();
    scene.create_scope(Some(100 * KIB)).unwrap();
    let (_, dir) = scene.folder(1);
    write(&dir, "a", 150 * KIB);
    for format in ["inline", "wrapped", "partial"] {
        std::fs::write(table.join("format"), format).unwrap();
        let quota = scene.describe().unwrap().unwrap();
        let used = quota.used_bytes.unwrap();
        assert!((150 * KIB..=160 * KIB).contains(&used), "{format}: {used}");
        assert_eq!(quota.limit_bytes, Some(100 * KIB), "{format}");
    }
    std::fs::write(table.join("format"), "garbage").unwrap();
    let error = vendor_error(scene.describe());
    assert_eq!(error.cause, Cause::Malformed, "{error}");
}

#[test]
fn what_breaks_off_is_gone_on_with() {
    for verb in ["project", "setquota"] {
        let (mut scene, table) = scene();
        std::fs::write(table.join("fail"), verb).unwrap();
        let error = vendor_error(scene.create_scope(Some(MIB)));
        assert_eq!(error.cause, Cause::Failed);
        assert!(error.text.contains("Operation not permitted"), "{error}");
        assert_eq!(error.to_string().matches("EXAScaler").count(), 1);
        std::fs::remove_file(table.join("fail")).unwrap();
        scene.restart();
        scene.create_scope(Some(MIB)).unwrap();
        assert_eq!(noted(&scene), "101", "the number is not drawn again");
        scene.settles(|quota| quota.limit_bytes == Some(MIB));
    }
}

#[test]
fn scopes_of_the_original_are_taken_over() {
    let (scene, table) = scene();
    std::fs::create_dir(scene.scope_dir()).unwrap();
    std::fs::write(scene.scope_dir().join("project_id"), "340").unwrap();
    let name = scope().dir_name();
    std::fs::write(table.join(format!("tag-{name}")), "340\n").unwrap();
    std::fs::write(table.join("limit-340"), "2048\n").unwrap();
    let quota = scene.describe().unwrap().unwrap();
    assert_eq!(quota.limit_bytes, Some(2 * MIB));
    scene.run(scene.volume.update_scope(scope(), MIB)).unwrap();
    scene.settles(|quota| quota.limit_bytes == Some(MIB));
    let second = QuotaScopeId::parse(OTHER_SCOPE).unwrap();
    scene.run(scene.volume.create_scope(second, None)).unwrap();
    let other = scene.bed.mount().join(second.dir_name());
    assert_eq!(std::fs::read(other.join("project_id")).unwrap(), b"341");
}

#[test]
fn a_program_that_is_missing_or_hangs_is_told() {
    let (mut scene, _) = scene();
    for (command, time, want) in [
        (json!(["/nowhere/lfs"]), 5.0, Cause::Unreachable),
        (json!(["sleep", "600", "#"]), 0.2, Cause::Failed),
        (json!(["sh", "-c", "exec sleep 600"]), 0.2, Cause::Late),
    ] {
        let options = &mut scene.bed.options;
        options.insert("lfs_command".to_owned(), command.clone());
        options.insert("lfs_timeout".to_owned(), json!(time));
        scene.restart();
        let error = vendor_error(scene.create_scope(Some(MIB)));
        assert_eq!(error.cause, want, "{command}: {error}");
        std::fs::remove_dir_all(scene.scope_dir()).unwrap();
    }
}

struct Fleet(Result<u32, String>);

#[async_trait]
impl ProjectIds for Fleet {
    async fn next(&self) -> Result<u32, String> {
        self.0.clone()
    }
}

#[test]
fn the_fleet_gives_numbers_where_there_is_one() {
    for (told, want) in [(Ok(777), None), (Err("no etcd"), Some(Cause::Unreachable))] {
        let (mut scene, _) = scene();
        let volumes = Volumes::new(vec![scene.bed.spec()], &Limits::default()).unwrap();
        let ids = Arc::new(Fleet(told.map_err(str::to_owned)));
        let _ = volumes.outside().project_ids.set(ids);
        scene.volume = volumes.find("v1").unwrap();
        let done = scene.create_scope(Some(MIB));
        match want {
            None => assert_eq!((done, noted(&scene).as_str()), (Ok(()), "777")),
            Some(cause) => assert_eq!(vendor_error(done).cause, cause),
        }
    }
}

#[test]
fn a_directory_without_a_project_has_no_numbers() {
    let (scene, table) = scene();
    std::fs::create_dir(scene.scope_dir()).unwrap();
    assert_eq!(scene.describe(), Ok(Some(ScopeQuota::default())));
    scene.run(scene.volume.unset_scope(scope())).unwrap();
    assert_eq!(calls(&table), Vec::<String>::new());
    let exists = scene.create_scope(None);
    assert_eq!(exists, Err(VolumeError::ScopeExists(scope())));
}
