//! Counting a folder again: what is read, what is not, and what is seen late.
//!
//! Source: `docs/semantics.md#usage`.

use std::path::PathBuf;
use std::time::Duration;

use proxy_testkit::data::Random;
use proxy_testkit::wait;
use proxy_volume::{Freshness, Known, Limits, UsedBytes, VolumeError};

use crate::scene::{OTHER, Scene, vfid};

const NOW: Freshness = Freshness {
    age_max: Duration::ZERO,
    time_max: Some(Duration::from_secs(60)),
};

/// A scene whose volume remembers, and relies on times of this age.
fn scene(settle: Duration, recount_scans: u32) -> Scene {
    let scene = Scene::with(Limits {
        usage_settle_time: settle,
        usage_recount_scans: recount_scans,
        ..Limits::default()
    });
    scene.volume.remember_usage_in(memory(&scene));
    scene
}

fn memory(scene: &Scene) -> PathBuf {
    scene.home.path().join("usage")
}

/// Counts; whatever changes afterwards has later times.
fn count(scene: &Scene) -> Known {
    let known = scene.run(scene.volume.usage_lately(scene.vfid, NOW));
    let probe = scene.home.path().join("probe");
    let time = || {
        std::fs::write(&probe, "").unwrap();
        probe.metadata().unwrap().modified().unwrap()
    };
    let before = time();
    wait::until("the clock moves on", Duration::from_secs(5), || {
        (before < time()).then_some(())
    });
    known.unwrap()
}

/// Whether the numbers are those of a whole scan.
fn is_right(scene: &Scene, known: &Known) -> bool {
    let usage = scene.run(scene.volume.usage(scene.vfid)).unwrap();
    let used = scene.run(scene.volume.used_bytes(scene.vfid)).unwrap();
    let known_used = UsedBytes {
        used_bytes: known.allocated_bytes,
        complete: known.usage.complete,
    };
    (known.usage, known_used) == (usage, used)
}

#[test]
fn what_has_not_changed_is_not_read_again() {
    let scene = scene(Duration::ZERO, 8);
    for dir in 0..1000 {
        let dir = scene.at(&format!("a{}/d{dir}", dir % 10));
        std::fs::create_dir_all(&dir).unwrap();
        for file in 0..100 {
            std::fs::write(dir.join(format!("f{file}")), "").unwrap();
        }
    }
    let all = 100_000 + 1010;
    let first = count(&scene);
    assert_eq!((first.usage.file_count, first.exact), (all, true));
    assert_eq!((first.dirs_read, first.dirs_skipped), (1011, 0));
    assert_eq!(first.entries_looked_at, all);
    let second = count(&scene);
    assert_eq!((second.usage, second.exact), (first.usage, false));
    assert_eq!((second.dirs_read, second.dirs_skipped), (0, 1011));
    assert_eq!(second.entries_looked_at, 0);
    std::fs::write(scene.at("a3/d3/new"), "12345").unwrap();
    std::fs::remove_file(scene.at("a4/d4/f7")).unwrap();
    std::fs::rename(scene.at("a5/d5"), scene.at("a6/moved")).unwrap();
    let third = count(&scene);
    assert!(is_right(&scene, &third), "{third:?}");
    // The moved directory itself has other times on some file systems.
    assert!((4..=5).contains(&third.dirs_read), "{third:?}");
    assert!(third.entries_looked_at <= 2 * 101 + 201 + 100, "{third:?}");
}

#[test]
fn numbers_of_the_wanted_age_are_told_without_a_look() {
    let scene = scene(Duration::ZERO, 8);
    scene.arrange(&["d/f=hello"]);
    let first = count(&scene);
    scene.arrange(&["d/g=hello"]);
    let hour = Freshness {
        age_max: Duration::from_secs(3600),
        ..NOW
    };
    let known = scene
        .run(scene.volume.usage_lately(scene.vfid, hour))
        .unwrap();
    assert_eq!((known.usage, known.exact), (first.usage, true));
    assert_eq!((known.dirs_read, known.dirs_skipped), (0, 0));
    assert!(known.as_of >= first.as_of && known.as_of < proxy_volume::Stamp::now());
    assert_eq!(count(&scene).usage.file_count, 3);
}

#[test]
fn bytes_written_in_place_are_seen_when_their_directory_has_its_turn() {
    for round in [1, 2, 5, 8] {
        let scene = scene(Duration::ZERO, round);
        for dir in 0..40 {
            scene.arrange(&[&format!("d{dir}/f=x"), &format!("d{dir}/e/f=x")]);
        }
        count(&scene);
        for dir in 0..40 {
            std::fs::write(scene.at(&format!("d{dir}/e/f")), "more than there was").unwrap();
        }
        let mut seen = None;
        for scan in 1..=round {
            let known = count(&scene);
            assert_eq!(known.exact, known.dirs_skipped == 0, "{known:?}");
            if is_right(&scene, &known) {
                seen.get_or_insert(scan);
            } else {
                assert!(!known.exact);
            }
        }
        assert!(seen.is_some(), "not within {round} scans");
    }
}

#[test]
fn what_is_too_fresh_is_not_relied_on() {
    let scene = scene(Duration::from_secs(3600), 8);
    scene.arrange(&["d/f=x"]);
    for _ in 0..2 {
        let known = count(&scene);
        assert_eq!((known.dirs_read, known.exact), (2, true));
    }
}

#[test]
fn the_staging_area_is_always_read() {
    let scene = scene(Duration::ZERO, 8);
    scene.arrange(&[".upload/s=1", "d/.upload/s=1"]);
    count(&scene);
    std::fs::write(scene.at(".upload/s"), "12345").unwrap();
    let known = count(&scene);
    assert!(is_right(&scene, &known), "{known:?}");
    assert_eq!((known.dirs_read, known.dirs_skipped), (1, 3));
}

#[test]
fn second_names_count_once_from_memory_too() {
    let scene = scene(Duration::ZERO, 8);
    scene.arrange(&["a/f=hello", "b/", "c/g=x", "d/"]);
    std::fs::hard_link(scene.at("a/f"), scene.at("b/f")).unwrap();
    std::fs::hard_link(scene.at("a/f"), scene.at("d/f")).unwrap();
    let first = count(&scene);
    assert!(is_right(&scene, &first));
    let second = count(&scene);
    assert_eq!((second.usage, second.dirs_read), (first.usage, 0));
    std::fs::remove_file(scene.at("b/f")).unwrap();
    let third = count(&scene);
    assert!(is_right(&scene, &third));
}

#[test]
fn a_damaged_memory_is_made_anew_and_a_folder_takes_it_along() {
    let scene = scene(Duration::ZERO, 8);
    scene.arrange(&["d/f=x"]);
    count(&scene);
    let file = |scene: &Scene| {
        let mut files = std::fs::read_dir(memory(scene)).unwrap();
        files.next().map(|entry| entry.unwrap().path())
    };
    let path = file(&scene).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for damaged in [&b"nonsense"[..], b"", &bytes[..bytes.len() / 2]] {
        std::fs::write(&path, damaged).unwrap();
        let known = count(&scene);
        assert!(is_right(&scene, &known));
        assert_eq!((known.dirs_read, known.exact), (2, true));
        assert_eq!(count(&scene).dirs_read, 0);
    }
    // Another folder of that name is not taken for this one.
    std::fs::rename(&scene.root, scene.home.path().join("away")).unwrap();
    std::fs::create_dir(&scene.root).unwrap();
    let known = count(&scene);
    assert_eq!((known.usage.file_count, known.exact), (0, true));
    scene.delete_folder(scene.vfid).unwrap();
    assert_eq!(file(&scene), None);
    let gone = scene.run(scene.volume.usage_lately(vfid(OTHER), NOW));
    assert_eq!(gone, Err(VolumeError::VFolderNotFound(vfid(OTHER))));
}

#[test]
fn a_scan_out_of_time_is_not_remembered() {
    let scene = scene(Duration::ZERO, 8);
    scene.arrange(&["d/f=x"]);
    let wish = Freshness {
        time_max: Some(Duration::ZERO),
        ..NOW
    };
    let known = scene
        .run(scene.volume.usage_lately(scene.vfid, wish))
        .unwrap();
    assert_eq!((known.usage.complete, known.exact), (false, false));
    let known = count(&scene);
    assert_eq!((known.usage.complete, known.dirs_read), (true, 2));
}

#[test]
fn random_changes_by_names_are_all_seen() {
    let scene = scene(Duration::ZERO, 8);
    let mut random = Random::printed("counting again");
    let mut dirs = vec![scene.root.clone()];
    for number in 0..400 {
        let dir = random.pick(&dirs).clone();
        let path = dir.join(format!("n{number}"));
        match random.below(6) {
            0 if dirs.len() < 40 => {
                std::fs::create_dir(&path).unwrap();
                dirs.push(path);
            }
            1 => std::os::unix::fs::symlink("nowhere", &path).unwrap(),
            2 if 1 < dirs.len() => {
                let moved = dirs.remove(random.below(dirs.len() as u64 - 1) as usize + 1);
                let inside = |other: &PathBuf| other.starts_with(&moved);
                if inside(&dir) || dirs.iter().any(inside) {
                    dirs.push(moved);
                } else {
                    std::fs::rename(&moved, &path).unwrap();
                    dirs.push(path);
                }
            }
            3 => {
                if let Some(Ok(entry)) = std::fs::read_dir(&dir).unwrap().next()
                    && !entry.path().is_dir()
                {
                    std::fs::remove_file(entry.path()).unwrap();
                }
            }
            _ => std::fs::write(&path, vec![b'x'; random.below(9000) as usize]).unwrap(),
        }
        if number % 4 == 0 {
            let known = count(&scene);
            assert!(is_right(&scene, &known), "{number}: {known:?}");
        }
    }
}
