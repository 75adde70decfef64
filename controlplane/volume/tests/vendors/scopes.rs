//! Quota scopes: what the Manager does with them.

use proxy_volume::{Absent, Capability, OptionKind, ScopeQuota, VolumeError};
use serde_json::json;

use crate::bed::{KIB, MIB, Scene, other_scope, scope, write};

pub fn life(scene: &mut Scene) {
    assert_eq!(scene.describe(), Ok(None), "not there yet");
    scene.create_scope(Some(10 * MIB)).unwrap();
    assert!(scene.scope_dir().is_dir());
    if !scene.can(Capability::Quota) {
        assert_eq!(
            scene.describe(),
            Ok(Some(ScopeQuota::default())),
            "no limits here"
        );
        return;
    }
    let limit = |bytes: Option<u64>| move |quota: ScopeQuota| quota.limit_bytes == bytes;
    scene.settles(limit(Some(10 * MIB)));
    scene
        .run(scene.volume.update_scope(scope(), 20 * MIB))
        .unwrap();
    scene.settles(limit(Some(20 * MIB)));
    scene.restart();
    scene.settles(limit(Some(20 * MIB)));
    scene.run(scene.volume.unset_scope(scope())).unwrap();
    scene.settles(limit(None));
    scene.run(scene.volume.unset_scope(scope())).unwrap();
    scene.run(scene.volume.update_scope(scope(), MIB)).unwrap();
    scene.settles(limit(Some(MIB)));
    let missing = scene.run(scene.volume.unset_scope(other_scope()));
    assert_eq!(missing, Err(VolumeError::ScopeNotFound(other_scope())));
}

pub fn twice(scene: &mut Scene) {
    let exists = || Err(VolumeError::ScopeExists(scope()));
    scene.create_scope(Some(MIB)).unwrap();
    assert_eq!(scene.create_scope(Some(MIB)), exists());
    assert_eq!(scene.create_scope(None), exists());
    scene.restart();
    assert_eq!(scene.create_scope(Some(2 * MIB)), exists());
    if scene.can(Capability::Quota) {
        scene.settles(|quota| quota.limit_bytes == Some(MIB));
    }
}

pub fn change_makes(scene: &mut Scene) {
    scene
        .run(scene.volume.update_scope(scope(), 5 * MIB))
        .unwrap();
    assert!(scene.scope_dir().is_dir());
    if scene.can(Capability::Quota) {
        scene.settles(|quota| quota.limit_bytes == Some(5 * MIB));
    }
}

pub fn late_limit(scene: &mut Scene) {
    scene.create_scope(None).unwrap();
    let (_, dir) = scene.folder(1);
    write(&dir, "a", 100);
    let quota = scene.describe().unwrap().unwrap();
    assert_eq!(quota.limit_bytes, None);
    assert_eq!(
        scene.create_scope(Some(MIB)),
        Err(VolumeError::ScopeExists(scope()))
    );
    scene.run(scene.volume.update_scope(scope(), MIB)).unwrap();
    if scene.can(Capability::Quota) {
        scene.settles(|quota| quota.limit_bytes == Some(MIB));
    }
}

pub fn over_quota(scene: &mut Scene) {
    scene.create_scope(Some(100 * KIB)).unwrap();
    let (_, dir) = scene.folder(1);
    write(&dir, "a/b", 60 * KIB);
    write(&dir, "c", 70 * KIB);
    if !scene.can(Capability::Quota) {
        return;
    }
    let quota = scene.settles(|quota| quota.used_bytes.is_some_and(|used| used > 0));
    assert_eq!(quota.limit_bytes, Some(100 * KIB));
    let used = quota.used_bytes.unwrap();
    assert!((130 * KIB..200 * KIB).contains(&used), "{used}");
    std::fs::remove_file(dir.join("c")).unwrap();
    scene.settles(|quota| quota.used_bytes.is_some_and(|used| used < 100 * KIB));
}

/// Numbers and flags as texts, and optional texts that are empty: configurations of the original
/// hold such.
pub fn lenient(scene: &mut Scene) {
    for row in proxy_volume::options_of(scene.volume.kind()) {
        let given = scene.bed.options.get(row.key).cloned();
        let value = match (row.kind, row.default, given) {
            (_, Absent::Refused, _) => continue,
            (OptionKind::Flag, _, Some(value)) => json!(value.to_string()),
            (OptionKind::Flag, Absent::Value("true"), None) => json!("Yes"),
            (OptionKind::Flag, _, None) => json!(0),
            (OptionKind::Number, Absent::Value(text), None) => json!(text),
            (OptionKind::Wait, ..) => json!(0),
            (OptionKind::Text | OptionKind::Path, _, None) => json!(""),
            _ => continue,
        };
        scene.bed.options.insert(row.key.to_owned(), value);
    }
    scene.restart();
    scene.create_scope(Some(MIB)).unwrap();
    if scene.can(Capability::Quota) {
        scene.settles(|quota| quota.limit_bytes == Some(MIB));
    }
}
