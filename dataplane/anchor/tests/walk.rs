//! Snapshots. Goal: exactly what an archive may hold, within limits that are errors. Method:
//! trees by hand, the snapshot as sorted lines.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::io::Read;

use bed::{Bed, WAYS, Way, rel, words};
use proxy_anchor::walk::{EntryKind, Limits, Snapshot, snapshot};
use proxy_anchor::{AnchorError, Limit};

const WIDE: Limits = Limits {
    entries_max: 100_000,
    depth_max: 100,
    name_bytes_max: 10_000_000,
};

fn lines(shot: &Snapshot) -> Vec<String> {
    let mut lines: Vec<String> = shot
        .entries()
        .map(|entry| {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            match entry.kind {
                EntryKind::File => format!("{path} {}", entry.size),
                EntryKind::LinkToFile => format!("{path} ->{}", entry.size),
                EntryKind::Dir => format!("{path}/"),
            }
        })
        .collect();
    assert_eq!(lines.len(), shot.len());
    lines.sort();
    lines
}

fn tree(way: Way) -> Bed {
    let bed = Bed::new(way);
    bed.file("f", "four")
        .file("a/b/c", "c")
        .dir("empty")
        .dir("a/e/e")
        .file(".upload/s", "s");
    bed.file("a/.upload/kept", "k")
        .fifo("a/fifo")
        .dir("odd")
        .fifo("odd/fifo");
    bed.link("to_f", "f")
        .link("a/abs", "{host}/f")
        .link("a/up", "../f")
        .link("to_dir", "a");
    bed.link("a/loop", "loop")
        .link("dangling", "nowhere")
        .link("out", "{outside}/secret");
    bed.link("out_dir", "{outside}")
        .link("a/out", "../../../secret")
        .link("odd/out", "/etc");
    bed.link("staged", ".upload/s")
        .link("root", ".")
        .link("to_fifo", "a/fifo");
    bed
}

#[test]
fn snapshots_hold_what_an_archive_may() {
    let all = [
        "a/.upload/kept 1",
        "a/abs ->4",
        "a/b/c 1",
        "a/e/e/",
        "a/up ->4",
        "empty/",
        "f 4",
        "odd/",
        "to_f ->4",
    ];
    let table: &[(&str, &str, &[&str])] = &[
        (".", "", &all),
        ("root", "", &all),
        ("a/..", "", &all),
        ("a", "a", &all[..5]),
        ("to_dir", "a", &all[..5]),
        ("to_dir/b", "a/b", &["a/b/c 1"]),
        ("a/e", "a/e", &["a/e/e/"]),
        ("empty", "empty", &["empty/"]),
        ("odd", "odd", &["odd/"]),
        ("f", "f", &["f 4"]),
        ("to_f", "f", &["f 4"]),
        ("a/abs", "f", &["f 4"]),
        ("a/fifo", "a/fifo", &[]),
    ];
    for way in WAYS {
        let bed = tree(way);
        for (from, base, want) in table {
            let shot = snapshot(&bed.root, &rel(from), WIDE).unwrap();
            assert_eq!(shot.base(), base.as_bytes(), "{from} by {way:?}");
            assert_eq!(lines(&shot), *want, "{from} by {way:?}");
            assert_eq!(shot.unreadable(), 0);
        }
        for (from, want) in [
            ("out", "escapes"),
            ("out_dir", "escapes"),
            ("..", "escapes"),
            ("missing", "ENOENT"),
            ("a/loop", "ELOOP"),
            (".upload", "reserved"),
            ("root/.upload", "reserved"),
            ("staged", "reserved"),
        ] {
            let got = words(snapshot(&bed.root, &rel(from), WIDE), |shot| {
                lines(&shot).concat()
            });
            assert_eq!(got, want, "{from} by {way:?}");
        }
    }
}

#[test]
fn entries_open_as_what_they_were() {
    for way in WAYS {
        let bed = tree(way);
        std::os::unix::fs::symlink("f", bed.host.join("later")).unwrap();
        let odd = std::os::unix::ffi::OsStrExt::as_bytes(std::ffi::OsStr::new("a/b/c"));
        for entry in snapshot(&bed.root, &rel("."), WIDE).unwrap().entries() {
            let opened = bed.root.open_entry(&entry).unwrap();
            assert_eq!(opened.stat.ino, entry.ino, "{entry:?}");
            assert_eq!(opened.stat.mode, entry.mode);
            assert_eq!(opened.stat.is_dir(), entry.kind == EntryKind::Dir);
            if entry.path == odd {
                let mut text = String::new();
                std::fs::File::from(opened.fd)
                    .read_to_string(&mut text)
                    .unwrap();
                assert_eq!(text, "c");
            }
        }
        // A file that became a link since is not followed.
        let shot = snapshot(&bed.root, &rel("f"), WIDE).unwrap();
        std::fs::remove_file(bed.host.join("f")).unwrap();
        bed.link("f", "{outside}/secret");
        let reopened = bed.root.open_entry(&shot.entry(0).unwrap());
        assert_eq!(words(reopened, |_| "open".to_owned()), "ELOOP");
    }
}

#[test]
fn names_are_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let bed = Bed::new(Way::Openat2);
    let odd = std::ffi::OsStr::from_bytes(b"bad\xff\n");
    std::fs::create_dir(bed.host.join(odd)).unwrap();
    std::fs::write(bed.host.join(odd).join(odd), "odd").unwrap();
    let shot = snapshot(&bed.root, &rel("."), WIDE).unwrap();
    let entry = shot.entry(0).unwrap();
    assert_eq!(entry.path, b"bad\xff\n/bad\xff\n");
    assert_eq!(bed.root.open_entry(&entry).unwrap().stat.size, 3);
}

#[test]
fn limits_are_errors_not_truncations() {
    let bed = Bed::new(Way::Openat2);
    // 3 files, 2 directories with content, 1 empty one; names: f a g b h e = 6 bytes.
    bed.file("f", "")
        .file("a/g", "")
        .file("a/b/h", "")
        .dir("a/b/e");
    let fits = Limits {
        entries_max: 6,
        depth_max: 3,
        name_bytes_max: 6,
    };
    assert_eq!(snapshot(&bed.root, &rel("."), fits).unwrap().len(), 4);
    for (limits, limit, max) in [
        (
            Limits {
                entries_max: 5,
                ..fits
            },
            Limit::Entries,
            5,
        ),
        (
            Limits {
                entries_max: 0,
                ..fits
            },
            Limit::Entries,
            0,
        ),
        (
            Limits {
                depth_max: 2,
                ..fits
            },
            Limit::Depth,
            2,
        ),
        (
            Limits {
                depth_max: 0,
                ..fits
            },
            Limit::Depth,
            0,
        ),
        (
            Limits {
                name_bytes_max: 5,
                ..fits
            },
            Limit::NameBytes,
            5,
        ),
    ] {
        let error = snapshot(&bed.root, &rel("."), limits).unwrap_err();
        assert_eq!(error, AnchorError::Limit { limit, max });
    }
    let from_b = Limits {
        entries_max: 2,
        depth_max: 1,
        name_bytes_max: 2,
    };
    assert_eq!(snapshot(&bed.root, &rel("a/b"), from_b).unwrap().len(), 2);
}

#[test]
fn large_directories_come_whole() {
    let bed = Bed::new(Way::Openat2);
    for n in 0..3000 {
        bed.file(&format!("d{}/a-name-of-some-length-{n}", n % 3), "");
    }
    let shot = snapshot(&bed.root, &rel("."), WIDE).unwrap();
    let mut lines = lines(&shot);
    lines.dedup();
    assert_eq!(lines.len(), 3000);
}
