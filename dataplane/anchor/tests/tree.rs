//! Directories and the removal of trees. Goal: any depth and size, few descriptors, no link
//! followed, and `.upload` hidden where clients look.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::ffi::OsStr;
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

use bed::{Bed, WAYS, Way, rel, word, words};
use proxy_anchor::{Dir, FileKind, tree};

fn os(name: &str) -> &OsStr {
    OsStr::new(name)
}

fn names(dir: &mut Dir) -> Vec<String> {
    let mut names: Vec<String> = dir
        .entries()
        .map(|entry| entry.unwrap().name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn go(dir: Dir) -> u64 {
    let removed = tree::empty(dir, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(removed.complete);
    removed.entries
}

#[test]
fn deep_trees_are_removed_with_few_descriptors() {
    const DEPTH: usize = 700;
    for way in WAYS {
        let bed = Bed::new(way);
        // Longer than a path can be, so it is made step by step.
        let mut dir = bed.root.open_whole().unwrap();
        for level in 0..DEPTH {
            drop(dir.create_file(os("file"), 0o644).unwrap());
            dir.symlink(os("out"), bed.outside.as_os_str()).unwrap();
            let name = format!("{level:0>200}");
            dir.mkdir(os(&name), 0o755).unwrap();
            dir = dir.open_dir(os(&name)).unwrap();
        }
        assert_eq!(go(bed.root.open_whole().unwrap()), DEPTH as u64 * 3);
        assert_eq!(Bed::names(&bed.host), Vec::<String>::new());
        bed.assert_outside_untouched();
    }
}

#[test]
fn wide_trees_are_removed_in_batches_that_can_be_stopped() {
    const FILES: u64 = 5000;
    let bed = Bed::new(Way::Openat2);
    let dir = bed.root.open_whole().unwrap();
    for n in 0..FILES {
        drop(
            dir.create_file(os(&format!("a-file-with-quite-a-long-name-{n}")), 0o600)
                .unwrap(),
        );
    }
    let mut told = Vec::new();
    let stop = &mut |gone| {
        told.push(gone);
        if told.len() < 3 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    let removed = tree::empty(bed.root.open_whole().unwrap(), stop).unwrap();
    assert!(!removed.complete);
    assert!(
        0 < removed.entries && removed.entries < FILES,
        "{removed:?}"
    );
    let left = Bed::names(&bed.host).len() as u64;
    assert_eq!(left + removed.entries, FILES);
    assert_eq!(go(bed.root.open_whole().unwrap()), left);
}

#[test]
fn removal_keeps_up_with_somebody_who_adds() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let bed = Bed::new(Way::Openat2);
    for n in 0..200 {
        bed.file(&format!("d{n}/f"), "");
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let _ = std::fs::write(bed.host.join(format!("d{}/more{n}", n % 200)), "");
            }
        });
        let _stop = bed::StopOnDrop(&stop);
        let removed = tree::empty(bed.root.open_whole().unwrap(), &mut |_| {
            ControlFlow::Continue(())
        });
        // Either done, or told that a directory would not stay empty.
        assert!(matches!(
            words(removed, |_| "ok".to_owned()).as_str(),
            "ok" | "ENOTEMPTY"
        ));
    });
    go(bed.root.open_whole().unwrap());
    assert_eq!(Bed::names(&bed.host), Vec::<String>::new());
}

#[test]
fn a_client_does_not_see_the_staging_directory() {
    for way in WAYS {
        let bed = Bed::new(way);
        bed.file(".upload/s", "")
            .file("f", "")
            .file("d/.upload/s", "")
            .link("me", ".");
        for path in [".", "me", "d/..", "me/me"] {
            let mut dir = bed.root.open_dir(&rel(path)).unwrap();
            assert_eq!(names(&mut dir), ["d", "f", "me"], "{path} by {way:?}");
            assert_eq!(names(&mut dir.try_clone().unwrap()), ["d", "f", "me"]);
            for call in [
                dir.stat(os(".upload")).map(|_| ()),
                dir.open_dir(os(".upload")).map(|_| ()),
                dir.open_file(os(".upload")).map(|_| ()),
                dir.mkdir(os(".upload"), 0o755),
                dir.rmdir(os(".upload")),
                dir.unlink(os(".upload")),
                dir.rename(os(".upload"), &dir, os("x")),
                dir.rename(os("f"), &dir, os(".upload")),
                dir.link(os("f"), &dir, os(".upload")),
                dir.symlink(os(".upload"), os("f")),
            ] {
                assert_eq!(word(&call.unwrap_err()), "reserved");
            }
        }
        let mut below = bed.root.open_dir(&rel("d")).unwrap();
        assert_eq!(names(&mut below), [".upload"]);
        let mut whole = bed.root.open_whole().unwrap();
        assert_eq!(names(&mut whole), [".upload", "d", "f", "me"]);
        assert_eq!(
            names(&mut whole),
            [".upload", "d", "f", "me"],
            "again from the start"
        );
    }
}

#[test]
fn entries_are_named_by_one_component() {
    let bed = Bed::new(Way::Openat2);
    bed.file("d/f", "");
    let dir = bed.root.open_dir(&rel(".")).unwrap();
    for name in ["", ".", "..", "d/f", "/", "/etc", "a\0b", "d/"] {
        for call in [
            dir.stat(os(name)).map(|_| ()),
            dir.open_dir(os(name)).map(|_| ()),
            dir.open_file(os(name)).map(|_| ()),
            dir.create_file(os(name), 0o644).map(|_| ()),
            dir.mkdir(os(name), 0o755),
            dir.unlink(os(name)),
            dir.rmdir(os(name)),
            dir.readlink(os(name)).map(|_| ()),
            dir.symlink(os(name), os("x")),
            dir.rename(os("d"), &dir, os(name)),
            dir.link(os("d"), &dir, os(name)),
            dir.set_times(os(name), 0, 0),
        ] {
            assert_eq!(word(&call.unwrap_err()), "invalid", "{name:?}");
        }
    }
}

#[test]
fn a_directory_does_all_that_a_tree_copy_needs() {
    let bed = Bed::new(Way::Openat2);
    bed.file("f", "content")
        .link("out", "{outside}/secret")
        .fifo("fifo");
    let odd = OsStr::from_bytes(b"bad\xff");
    let dir = bed.root.open_dir(&rel(".")).unwrap();
    drop(dir.create_file(odd, 0o640).unwrap());
    dir.link(os("f"), &dir, os("second")).unwrap();
    assert_eq!(dir.stat(os("second")).unwrap().nlink, 2);
    let target = dir.readlink(os("out")).unwrap();
    assert_eq!(target, bed.outside.join("secret"));
    dir.symlink(os("copy"), &target).unwrap();
    assert_eq!(word(&dir.open_file(os("copy")).unwrap_err()), "ELOOP");
    assert_eq!(word(&dir.open_dir(os("copy")).unwrap_err()), "ENOTDIR");
    assert_eq!(
        word(&dir.create_file(os("copy"), 0o644).unwrap_err()),
        "EEXIST"
    );

    let ns = 1_600_000_000_123_456_789;
    for name in ["f", "out"] {
        dir.set_times(os(name), ns, ns).unwrap();
        assert_eq!(dir.stat(os(name)).unwrap().mtime_ns / 1000, ns / 1000);
    }
    dir.set_times(os("f"), -1_500_000_000, -1_500_000_000)
        .unwrap();
    let before_1970 = dir.stat(os("f")).unwrap().mtime_ns;
    assert!(
        matches!(before_1970, -1_500_000_000 | -2_000_000_000),
        "{before_1970}"
    );

    let mut text = String::new();
    let opened = dir.open_file(os("f")).unwrap();
    std::fs::File::from(opened.fd)
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "content");

    dir.mkdir(os("sub"), 0o755).unwrap();
    let sub = dir.open_dir(os("sub")).unwrap();
    sub.chmod(0o700).unwrap();
    assert_eq!(sub.metadata().unwrap().mode & 0o7777, 0o700);
    assert_eq!(sub.location(), b"sub");
    dir.rename(os("f"), &sub, os("moved")).unwrap();
    dir.sync().unwrap();
    let error = sub.open_file(os("missing")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "open sub/missing: No such file or directory (os error 2)"
    );

    let mut dir = bed.root.open_dir(&rel(".")).unwrap();
    for entry in dir.entries() {
        let entry = entry.unwrap();
        let want = match entry.name.as_bytes() {
            b"second" | b"bad\xff" => FileKind::File,
            b"out" | b"copy" => FileKind::Symlink,
            b"sub" => FileKind::Dir,
            _ => FileKind::Special,
        };
        assert!(
            entry.kind == want || entry.kind == FileKind::Unknown,
            "{entry:?}"
        );
    }
}

#[test]
fn an_open_directory_that_was_removed_is_empty() {
    let bed = Bed::new(Way::Openat2);
    bed.dir("d");
    let mut dir = bed.root.open_dir(&rel("d")).unwrap();
    std::fs::remove_dir(bed.host.join("d")).unwrap();
    assert_eq!(names(&mut dir), Vec::<String>::new());
    assert_eq!(go(dir), 0);
}
