//! Making, renaming and removing by name. Goal: links on the way are followed inside only,
//! the entry itself is acted on, and staging stays out of reach. Method: one fresh tree per
//! line, the outcome as a word, then a look at the host.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;

use bed::{Bed, WAYS, rel, words};
use proxy_anchor::AnchorError;

fn tree(way: bed::Way) -> Bed {
    let bed = Bed::new(way);
    bed.file("f", "file")
        .file("d/x", "x")
        .dir("empty")
        .file(".upload/staged", "staged");
    bed.link("to_d", "d")
        .link("to_f", "f")
        .link("to_root", ".")
        .link("to_upload", ".upload");
    bed.link("out", "{outside}")
        .link("dangling", "nowhere")
        .link("self", "self");
    bed
}

fn outcome(result: Result<(), AnchorError>) -> String {
    words(result, |()| "ok".to_owned())
}

#[test]
fn mkdir_follows_the_table() {
    // path, parents, exist_ok, outcome, where it is on the host then
    let table: &[(&str, bool, bool, &str, &str)] = &[
        ("new", false, false, "ok", "new"),
        ("new", true, true, "ok", "new"),
        ("d/new", false, false, "ok", "d/new"),
        ("to_d/new", false, false, "ok", "d/new"),
        ("d/../new", false, false, "ok", "new"),
        ("new/x/y", true, false, "ok", "new/x/y"),
        ("new/x/y", false, false, "ENOENT", ""),
        ("new/../other", true, false, "ok", "other"),
        ("to_d/n/m", true, false, "ok", "d/n/m"),
        ("dangling/n", true, false, "ok", "nowhere/n"),
        ("dangling/n", false, false, "ENOENT", ""),
        ("d", false, false, "EEXIST", ""),
        ("d", true, true, "ok", "d"),
        ("to_d", false, true, "ok", "d"),
        ("to_d", false, false, "EEXIST", ""),
        ("f", true, true, "EEXIST", ""),
        ("to_f", true, true, "EEXIST", ""),
        ("out", true, true, "EEXIST", ""),
        ("dangling", true, true, "EEXIST", ""),
        (".", true, false, "EEXIST", ""),
        (".", true, true, "ok", "d"),
        ("d/..", true, true, "ok", "d"),
        ("f/x", true, true, "ENOTDIR", ""),
        ("out/new", true, true, "escapes", ""),
        ("out/a/b", true, true, "escapes", ""),
        ("../new", true, true, "escapes", ""),
        ("..", true, true, "escapes", ""),
        ("d/../../new", true, true, "escapes", ""),
        ("self/new", true, true, "ELOOP", ""),
        (".upload", true, true, "reserved", ""),
        (".upload/new", true, true, "reserved", ""),
        ("to_upload/new", true, true, "reserved", ""),
        ("to_upload/a/b", true, true, "reserved", ""),
        ("to_root/.upload", true, true, "reserved", ""),
        ("to_root/.upload/new", true, true, "reserved", ""),
        ("a\0b", true, true, "invalid", ""),
    ];
    for way in WAYS {
        for (path, parents, exist_ok, want, place) in table {
            let bed = tree(way);
            let got = outcome(bed.root.mkdir(&rel(path), *parents, *exist_ok, 0o755));
            assert_eq!(got, *want, "mkdir {path:?} {parents} {exist_ok} by {way:?}");
            assert!(bed.host.join(place).is_dir(), "{path:?} -> {place:?}");
            assert_eq!(Bed::names(&bed.host.join(".upload")), ["staged"]);
            bed.assert_outside_untouched();
        }
    }
}

#[test]
fn reserved_names_are_not_made_where_they_are_missing() {
    for way in WAYS {
        let bed = Bed::new(way);
        bed.link("to_root", ".")
            .link("to_upload", ".upload")
            .link("to_deep", ".upload/deep");
        for path in [
            "to_root/.upload/x",
            "to_upload/x",
            "to_root/.upload",
            "to_deep/x",
        ] {
            let got = outcome(bed.root.mkdir(&rel(path), true, true, 0o755));
            assert_eq!(got, "reserved", "{path} by {way:?}");
        }
        assert!(!bed.exists(".upload"));
    }
}

#[test]
fn modes_pass_the_umask() {
    // Reading it by umask(2) would change it for the other tests.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = u32::from_str_radix(umask.unwrap().trim(), 8).unwrap();
    let bed = tree(bed::Way::Openat2);
    bed.root.mkdir(&rel("p/q"), true, false, 0o777).unwrap();
    let mode = std::fs::metadata(bed.host.join("p/q"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o777 & !umask);
}

#[test]
fn rename_acts_on_entries() {
    // from, to, outcome, then: gone, there
    let table: &[(&str, &str, &str, &str, &str)] = &[
        ("f", "g", "ok", "f", "g"),
        ("f", "d/g", "ok", "f", "d/g"),
        ("f", "to_d/g", "ok", "f", "d/g"),
        ("to_d/x", "y", "ok", "d/x", "y"),
        ("to_d/../f", "d/../g", "ok", "f", "g"),
        ("f", "d/x", "ok", "f", "d/x"),
        ("to_f", "moved", "ok", "to_f", "moved"),
        ("out", "moved", "ok", "out", "moved"),
        ("dangling", "moved", "ok", "dangling", "moved"),
        ("f", "to_d", "ok", "f", "to_d"),
        ("f", "out", "ok", "f", "out"),
        ("d", "empty", "ok", "d", "empty/x"),
        ("d", "d/sub", "EINVAL", "", "d/x"),
        ("f", "empty", "EISDIR", "", "f"),
        ("d", "f", "ENOTDIR", "", "d/x"),
        ("missing", "g", "ENOENT", "g", ""),
        ("f", "missing/g", "ENOENT", "", "f"),
        ("f", "out/g", "escapes", "", "f"),
        ("out/secret", "g", "escapes", "g", ""),
        ("f", "../g", "escapes", "", "f"),
        (".", "g", "EBUSY", "g", ""),
        ("f", ".", "EBUSY", "", "f"),
        ("d/..", "g", "EBUSY", "g", ""),
        ("f", ".upload", "reserved", "", "f"),
        ("f", ".upload/g", "reserved", "", "f"),
        ("f", "to_upload/g", "reserved", "", "f"),
        ("f", "to_root/.upload", "reserved", "", "f"),
        (".upload", "g", "reserved", "g", ""),
        ("to_upload/staged", "g", "reserved", "g", ""),
        ("to_root/.upload", "g", "reserved", "g", ""),
    ];
    for way in WAYS {
        for (from, to, want, gone, there) in table {
            let bed = tree(way);
            let got = outcome(bed.root.rename(&rel(from), &rel(to)));
            assert_eq!(got, *want, "rename {from:?} to {to:?} by {way:?}");
            assert!(
                gone.is_empty() || !bed.exists(gone),
                "{from:?} {to:?}: {gone:?} is there"
            );
            assert!(bed.exists(there), "{from:?} {to:?}: {there:?} is not there");
            assert_eq!(Bed::names(&bed.host.join(".upload")), ["staged"]);
            bed.assert_outside_untouched();
        }
    }
}

#[test]
fn removal_acts_on_entries() {
    // path; unlink, rmdir, remove_tree
    let table: &[(&str, &str, &str, &str)] = &[
        ("f", "ok", "ENOTDIR", "ok"),
        ("d", "EISDIR", "ENOTEMPTY", "ok"),
        ("empty", "EISDIR", "ok", "ok"),
        ("d/x", "ok", "ENOTDIR", "ok"),
        ("to_d/x", "ok", "ENOTDIR", "ok"),
        ("to_d", "ok", "ENOTDIR", "ok"),
        ("to_f", "ok", "ENOTDIR", "ok"),
        ("out", "ok", "ENOTDIR", "ok"),
        ("dangling", "ok", "ENOTDIR", "ok"),
        ("self", "ok", "ENOTDIR", "ok"),
        ("missing", "ENOENT", "ENOENT", "ENOENT"),
        ("missing/x", "ENOENT", "ENOENT", "ENOENT"),
        ("f/x", "ENOTDIR", "ENOTDIR", "ENOTDIR"),
        (".", "EBUSY", "EBUSY", "EBUSY"),
        ("d/..", "EBUSY", "EBUSY", "EBUSY"),
        ("..", "EBUSY", "EBUSY", "EBUSY"),
        ("../x", "escapes", "escapes", "escapes"),
        ("out/secret", "escapes", "escapes", "escapes"),
        (".upload", "reserved", "reserved", "reserved"),
        (".upload/staged", "reserved", "reserved", "reserved"),
        ("to_upload/staged", "reserved", "reserved", "reserved"),
        ("to_root/.upload", "reserved", "reserved", "reserved"),
    ];
    for way in WAYS {
        for (path, unlink, rmdir, remove) in table {
            for (op, want) in [("unlink", unlink), ("rmdir", rmdir), ("remove", remove)] {
                let bed = tree(way);
                let got = outcome(match op {
                    "unlink" => bed.root.unlink(&rel(path)),
                    "rmdir" => bed.root.rmdir(&rel(path)),
                    _ => {
                        let watch = &mut |_| ControlFlow::Continue(());
                        bed.root
                            .remove_tree(&rel(path), watch)
                            .map(|done| assert!(done.complete))
                    }
                });
                assert_eq!(got, *want, "{op} {path:?} by {way:?}");
                // What links point at stays: only the entry is meant.
                if got == "ok" {
                    assert!(!bed.exists(path), "{op} {path:?}");
                    assert!(bed.exists("f") || *path == "f", "{op} {path:?}");
                    assert!(bed.exists("d") || *path == "d", "{op} {path:?}");
                }
                assert_eq!(Bed::names(&bed.host.join(".upload")), ["staged"]);
                bed.assert_outside_untouched();
            }
        }
    }
}
