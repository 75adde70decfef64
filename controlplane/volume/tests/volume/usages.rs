//! Counting what a folder holds.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use proxy_volume::{Limits, Usage, UsedBytes, VolumeError};

use crate::scene::{OTHER, Scene, deep, vfid};

/// The numbers as the original makes them, but for second names: every entry below, its own size.
fn by_hand(root: &Path) -> Usage {
    let mut usage = Usage {
        complete: true,
        ..Usage::default()
    };
    let mut todo = vec![root.to_owned()];
    let mut seen = HashSet::new();
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            usage.file_count += 1;
            if seen.insert(meta.ino()) {
                usage.used_bytes += meta.size();
            }
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    usage
}

#[track_caller]
fn check(scene: &Scene) {
    let usage = scene.run(scene.volume.usage(scene.vfid)).unwrap();
    assert_eq!(usage, by_hand(&scene.root));
    let used = scene.run(scene.volume.used_bytes(scene.vfid)).unwrap();
    assert!(used.complete);
    match Command::new("du")
        .args(["-s", "--block-size=1"])
        .arg(&scene.root)
        .output()
    {
        Ok(du) if du.status.success() => {
            let text = String::from_utf8(du.stdout).unwrap();
            let want: u64 = text.split_whitespace().next().unwrap().parse().unwrap();
            assert_eq!(
                used,
                UsedBytes {
                    used_bytes: want,
                    complete: true
                }
            );
        }
        other => println!("skipped: comparison with du: {other:?}"),
    }
}

#[test]
fn everything_below_counts_with_its_own_size() {
    let scene = Scene::new();
    check(&scene);
    scene.arrange(&[
        "f=hello",
        "d/e/f=x",
        "l->d",
        "gone->nothing",
        "p|",
        "out->/etc",
        ".upload/s=1",
    ]);
    check(&scene);
    let usage = scene.run(scene.volume.usage(scene.vfid)).unwrap();
    assert_eq!(
        usage.file_count, 10,
        "staging counts: it occupies the quota"
    );
}

#[test]
fn allocated_bytes_count_holes_and_second_names_for_nothing() {
    let scene = Scene::new();
    let content = vec![1u8; 100_000];
    std::fs::write(scene.at("f"), &content).unwrap();
    scene.arrange(&["d/"]);
    for name in ["g", "d/h"] {
        std::fs::hard_link(scene.at("f"), scene.at(name)).unwrap();
    }
    std::fs::File::create(scene.at("sparse"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    check(&scene);
}

#[test]
fn many_directories_are_counted_by_many_threads() {
    let scene = Scene::new();
    for dir in 0..200 {
        for sub in 0..5 {
            let dir = scene.at(&format!("d{dir}/s{sub}"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("f"), "12345").unwrap();
        }
    }
    check(&scene);
}

#[test]
fn a_deep_tree_is_counted() {
    let scene = Scene::new();
    deep(&scene.root, "d", 3000, true);
    let usage = scene.run(scene.volume.usage(scene.vfid)).unwrap();
    assert_eq!((usage.file_count, usage.complete), (3 * 3000 + 1, true));
    // The standard library would remove it with a descriptor per level.
    scene.delete_folder(scene.vfid).unwrap();
}

#[test]
fn a_scan_that_runs_out_of_time_in_the_middle_tells_what_it_saw_until_then() {
    // docs/semantics.md#usage
    let mut time_max = Duration::from_micros(500);
    for _ in 0..12 {
        let limits = Limits {
            scan_time_max: time_max,
            ..Limits::default()
        };
        let scene = Scene::with(limits);
        for dir in 0..400 {
            let dir = scene.at(&format!("d{dir}"));
            std::fs::create_dir(&dir).unwrap();
            for file in 0..20 {
                std::fs::write(dir.join(format!("f{file}")), "x").unwrap();
            }
        }
        let usage = scene.run(scene.volume.usage(scene.vfid)).unwrap();
        if !usage.complete {
            assert!(usage.file_count < 400 * 21, "{usage:?}");
            if 0 < usage.file_count {
                return;
            }
        }
        time_max = match usage.complete {
            true => time_max / 2,
            false => time_max * 3 / 2,
        };
    }
    panic!("no time was found in which some of it is counted");
}

#[test]
fn a_scan_out_of_time_answers_with_what_it_saw() {
    let limits = Limits {
        scan_time_max: Duration::ZERO,
        ..Limits::default()
    };
    let scene = Scene::with(limits);
    scene.arrange(&["f=hello"]);
    let usage = scene.run(scene.volume.usage(scene.vfid)).unwrap();
    assert_eq!(
        usage,
        Usage {
            file_count: 0,
            used_bytes: 0,
            complete: false
        }
    );
    let missing = scene.run(scene.volume.usage(vfid(OTHER)));
    assert_eq!(missing, Err(VolumeError::VFolderNotFound(vfid(OTHER))));
}
