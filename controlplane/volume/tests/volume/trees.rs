//! Trees that are deeper, wider or more crooked than any path.
//!
//! Deep trees are compared by walking them with descriptors: their paths fit in no system call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proxy_core::id::TaskId;
use proxy_core::relpath::RelPath;
use proxy_volume::Limits;

use crate::scene::{OTHER, Scene, deep, describe, make, open_descriptors, reins, rel, vfid};

/// Few enough for every level to be closed and opened again many times over.
fn few() -> Limits {
    Limits {
        dirs_open_max: 8,
        ..Limits::default()
    }
}

fn count(scene: &Scene, id: &str) -> u64 {
    scene.run(scene.volume.usage(vfid(id))).unwrap().file_count
}

#[test]
fn a_deep_tree_is_cloned_and_removed() {
    for limits in [Limits::default(), few()] {
        let scene = Scene::with(limits);
        let watch = Watch::start();
        deep(&scene.root, "d", 3000, true);
        let clone = scene
            .volume
            .clone_folder(scene.vfid, vfid(OTHER), TaskId::random(), reins());
        let cloned = scene.run(clone).unwrap();
        assert_eq!(cloned.entries, 3 * 3000 + 1);
        assert_eq!(count(&scene, OTHER), 3 * 3000 + 1);
        scene.delete_folder(vfid(OTHER)).unwrap();
        let paths = vec![rel("d")];
        scene
            .run(scene.volume.delete_files(scene.vfid, paths, true, reins()))
            .unwrap();
        assert_eq!(scene.found(), ["file=", "side/"]);
        scene.delete_folder(scene.vfid).unwrap();
        assert_eq!(describe(&scene.scope_dir()), [""; 0]);
        // Other tests of this process open files meanwhile; a descriptor per level would be 3000.
        assert!(watch.most() < 600, "{} descriptors", watch.most());
    }
}

/// Counts the open descriptors of this process for as long as it lives.
struct Watch {
    most: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Watch {
    fn start() -> Self {
        let watch = Self {
            most: Arc::default(),
            ended: Arc::default(),
        };
        let (most, ended) = (Arc::clone(&watch.most), Arc::clone(&watch.ended));
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                most.fetch_max(open_descriptors(), Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        watch
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_wide_tree_is_cloned_listed_and_removed() {
    let scene = Scene::new();
    for number in 0..20_000 {
        std::fs::write(scene.at(&format!("f{number}")), "x").unwrap();
    }
    for number in 0..2_000 {
        std::fs::create_dir(scene.at(&format!("d{number}"))).unwrap();
    }
    let clone = scene
        .volume
        .clone_folder(scene.vfid, vfid(OTHER), TaskId::random(), reins());
    assert_eq!(scene.run(clone).unwrap().entries, 22_000);
    assert_eq!(count(&scene, OTHER), 22_000);
    let listing = scene.volume.list(vfid(OTHER), RelPath::root(), 0);
    let entries = scene.run(async { listing.await?.all().await }).unwrap();
    assert_eq!(entries.len(), 22_000);
    for id in [OTHER, crate::scene::FOLDER] {
        scene.delete_folder(vfid(id)).unwrap();
    }
    assert_eq!(describe(&scene.scope_dir()), [""; 0]);
}

#[test]
fn a_bushy_tree_is_the_same_for_any_number_of_threads() {
    for threads in [1, 2, 8] {
        let limits = Limits {
            tree_threads_max: threads,
            ..few()
        };
        let scene = Scene::with(limits);
        for one in 0..12 {
            for two in 0..12 {
                for three in 0..6 {
                    make(&scene.root, &format!("{one}/{two}/{three}/f=x"));
                }
            }
        }
        let clone = scene
            .volume
            .clone_folder(scene.vfid, vfid(OTHER), TaskId::random(), reins());
        scene.run(clone).unwrap();
        let copy = scene
            .run(scene.volume.mount_path(vfid(OTHER), rel("")))
            .unwrap();
        assert_eq!(describe(&copy), scene.found());
        scene.delete_folder(scene.vfid).unwrap();
        scene.delete_folder(vfid(OTHER)).unwrap();
        assert_eq!(describe(&scene.scope_dir()), [""; 0]);
    }
}
