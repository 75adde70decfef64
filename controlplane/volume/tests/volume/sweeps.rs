//! Removing what interrupted work left behind.

use std::fs::FileTimes;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proxy_core::id::SessionId;
use proxy_volume::{CLONE_AGE_MIN, Swept};

use crate::scene::{OTHER, Scene, describe, make, reins, vfid};

const OLD: &str = "00112233445566778899aabbccddeeff";
const NEW: &str = "ffeeddccbbaa99887766554433221100";
const TRASH: &str = ".trash-fedcba9876543210fedcba9876543210-00112233445566778899aabbccddeeff";
const CLONE: &str = ".clone-fedcba9876543210fedcba9876543210-00112233445566778899aabbccddeeff";
const MARK: &str = ".cloned-00112233445566778899aabbccddeeff-1234";

fn age(path: &Path, age: Duration) {
    let file = std::fs::File::open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(SystemTime::now() - age))
        .unwrap();
}

fn sweep(scene: &Scene) -> Swept {
    scene
        .run(
            scene
                .volume
                .sweep_staging(Duration::from_secs(3600), Arc::new(|_| false), reins()),
        )
        .unwrap()
}

#[test]
fn abandoned_uploads_go_and_running_ones_stay() {
    let scene = Scene::new();
    scene
        .run(scene.volume.create_folder(vfid(OTHER), 0o755, None, false))
        .unwrap();
    scene.arrange(&[
        &format!(".upload/{OLD}=12345"),
        &format!(".upload/{NEW}=x"),
        "f=x",
    ]);
    age(
        &scene.at(&format!(".upload/{OLD}")),
        Duration::from_secs(3700),
    );
    age(&scene.at("f"), Duration::from_secs(9999));
    let swept = sweep(&scene);
    assert_eq!((swept.bytes, swept.sessions.len()), (5, 1));
    assert_eq!(swept.sessions[0].1, SessionId::parse(OLD).unwrap());
    assert_eq!(swept.sessions[0].0.folder, scene.vfid.folder);
    let staged = format!(".upload/{NEW}");
    assert_eq!(
        scene.found(),
        [
            ".upload/".to_owned(),
            format!("{staged}=x"),
            "f=x".to_owned()
        ]
    );
    age(&scene.at(&staged), Duration::from_secs(3700));
    assert_eq!(sweep(&scene).sessions.len(), 1);
    assert_eq!(scene.found(), ["f=x"]);
    assert_eq!(sweep(&scene), Swept::default());
}

#[test]
fn hidden_trees_go_when_nobody_can_need_them() {
    let scene = Scene::new();
    scene.delete_folder(scene.vfid).unwrap();
    let at = |name: &str| scene.scope_dir().join(name);
    make(&scene.scope_dir(), &format!("{TRASH}/d/f=x"));
    make(&scene.scope_dir(), &format!("{CLONE}/d/f=x"));
    make(&scene.scope_dir(), &format!("{MARK}="));
    make(&scene.scope_dir(), "project_id=7");
    assert_eq!(sweep(&scene).hidden, 1);
    let young = describe(&scene.scope_dir());
    assert!(
        !at(TRASH).exists() && at(CLONE).exists() && at(MARK).exists(),
        "{young:?}"
    );
    let old = CLONE_AGE_MIN + Duration::from_secs(60);
    age(&at(CLONE), old);
    age(&at(MARK), old);
    age(&at("project_id"), old);
    assert_eq!(sweep(&scene).hidden, 1);
    assert_eq!(
        describe(&scene.scope_dir()),
        ["project_id=7"],
        "what is not ours stays"
    );
}
