//! Names that change while we look. Goal: nothing outside is ever read, written or revealed.
//! Method: a thread exchanges an inner directory (or file, or `.upload`) with a link to the
//! outside by `RENAME_EXCHANGE`, without a pause, while each operation runs some thousand
//! times. Every outcome that may be seen is listed; outside is compared at the end.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bed::{Bed, SECRET, StopOnDrop, WAYS, Way, rel, words};
use proxy_anchor::{AnchorError, Opened, staging, walk};
use proxy_core::id::SessionId;
use rustix::fs::{CWD, RenameFlags};

const ROUNDS: u64 = 3000;

const LIMITS: walk::Limits = walk::Limits {
    entries_max: 1000,
    depth_max: 20,
    name_bytes_max: 100_000,
};

/// Where the link that takes the place of the directory points.
#[derive(Clone, Copy, Debug)]
enum Lure {
    Absolute,
    Relative,
    /// A link of its own kind on the way: `hop` points outside.
    Chained,
}

const LURES: [Lure; 3] = [Lure::Absolute, Lure::Relative, Lure::Chained];

fn tree(way: Way, lure: Lure) -> Bed {
    let bed = Bed::new(way);
    bed.file("in/d/x", "inside")
        .dir("in/d/sub")
        .file("in/d/sub/y", "inside");
    // The same names outside: whoever is led there finds what it looks for.
    std::fs::write(bed.outside.join("x"), SECRET).unwrap();
    std::fs::create_dir(bed.outside.join("sub")).unwrap();
    std::fs::write(bed.outside.join("sub/y"), SECRET).unwrap();
    let ups = "../".repeat(bed.host.components().count() + 1);
    match lure {
        Lure::Absolute => bed.link("in/l", "{outside}"),
        Lure::Relative => bed.link("in/l", &format!("{ups}{}", bed.outside.display())),
        Lure::Chained => bed.link("in/l", "hop").link("in/hop", "{outside}"),
    };
    bed
}

#[track_caller]
fn assert_outside_untouched(bed: &Bed) {
    assert_eq!(Bed::names(&bed.outside), ["secret", "sub", "x"]);
    assert_eq!(Bed::names(&bed.outside.join("sub")), ["y"]);
    for file in ["x", "sub/y"] {
        assert_eq!(
            std::fs::read_to_string(bed.outside.join(file)).unwrap(),
            SECRET
        );
    }
}

/// Runs `attempt` while `a` and `b` change places; all outcomes have to be among `allowed`.
#[track_caller]
fn race(
    bed: &Bed,
    (a, b): (&str, &str),
    rounds: u64,
    allowed: &[&str],
    attempt: impl Fn(u64) -> String,
) -> BTreeMap<String, u64> {
    let (a, b) = (bed.host.join(a), bed.host.join(b));
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut seen = BTreeMap::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let swapped = rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
                swaps.fetch_add(u64::from(swapped.is_ok()), Ordering::Relaxed);
            }
        });
        let _stop = StopOnDrop(&stop);
        let mut round = 0;
        // On a busy machine the other thread may get no turn for a while: go on until it had.
        let raced = || rounds / 10 < swaps.load(Ordering::Relaxed);
        while round < rounds || (!raced() && round < 100 * rounds) {
            let outcome = attempt(round);
            assert!(
                allowed.contains(&outcome.as_str()),
                "{outcome} is not among {allowed:?}"
            );
            *seen.entry(outcome).or_insert(0) += 1;
            round += 1;
            if rounds < round {
                std::thread::yield_now();
            }
        }
    });
    let swaps = swaps.load(Ordering::Relaxed);
    assert!(0 < swaps, "no exchange at all: no race");
    // Whatever lies at `a` now, tests go on from the same state.
    if swaps % 2 == 1 {
        rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
    }
    seen
}

fn content(opened: Opened) -> String {
    if opened.stat.is_dir() {
        return "dir".to_owned();
    }
    let mut text = String::new();
    std::fs::File::from(opened.fd)
        .read_to_string(&mut text)
        .unwrap();
    text
}

fn done(result: Result<(), AnchorError>) -> String {
    words(result, |()| "ok".to_owned())
}

const DIR_AND_LURE: (&str, &str) = ("in/d", "in/l");

#[test]
fn reading_stays_inside() {
    for way in WAYS {
        for lure in LURES {
            let bed = tree(way, lure);
            for path in ["in/d/x", "in/d/sub/y", "in/d/sub/../x", "in/../in/d/x"] {
                let path = rel(path);
                let seen = race(&bed, DIR_AND_LURE, ROUNDS, &["inside", "escapes"], |_| {
                    words(bed.root.open_read(&path), content)
                });
                println_outcomes(&format!("open_read {path} {way:?} {lure:?}"), &seen);
                // ELOOP: exact lookups refuse the link instead of looking where it leads.
                race(&bed, DIR_AND_LURE, ROUNDS / 4, &["inside", "ELOOP"], |_| {
                    words(bed.root.open_exact(&path), content)
                });
                race(
                    &bed,
                    DIR_AND_LURE,
                    ROUNDS / 4,
                    &["inside", "escapes", "wait"],
                    |_| {
                        let opened = bed.root.open_read_cached(&path);
                        opened.map_or("wait".to_owned(), |opened| words(opened, content))
                    },
                );
                race(&bed, DIR_AND_LURE, ROUNDS / 4, &["6", "escapes"], |_| {
                    words(bed.root.stat(&path, true), |stat| stat.size.to_string())
                });
                let places = ["in/d/x", "in/d/sub/y", "escapes"];
                race(&bed, DIR_AND_LURE, ROUNDS / 4, &places, |_| {
                    words(bed.root.resolve_path(&path), |path| path.to_string())
                });
            }
            race(&bed, DIR_AND_LURE, ROUNDS, &["sub x", "escapes"], |_| {
                words(bed.root.open_dir(&rel("in/d")), |mut dir| {
                    let mut names: Vec<_> = dir
                        .entries()
                        .map(|entry| entry.unwrap().name.into_string().unwrap())
                        .collect();
                    names.sort();
                    names.join(" ")
                })
            });
            assert_outside_untouched(&bed);
        }
    }
}

fn println_outcomes(what: &str, seen: &BTreeMap<String, u64>) {
    eprintln!("{what}: {seen:?}");
}

#[test]
fn a_file_that_becomes_a_link_is_read_or_refused() {
    for way in WAYS {
        let bed = tree(way, Lure::Absolute);
        bed.link("in/d/lx", "{outside}/x");
        let swap = ("in/d/x", "in/d/lx");
        race(&bed, swap, ROUNDS, &["inside", "escapes"], |_| {
            words(bed.root.open_read(&rel("in/d/x")), content)
        });
        let dir = bed.root.open_dir(&rel("in/d")).unwrap();
        race(&bed, swap, ROUNDS, &["inside", "ELOOP"], |_| {
            words(dir.open_file(OsStr::new("x")), content)
        });
        race(&bed, swap, ROUNDS, &["ok"], |_| {
            let shot = walk::snapshot(&bed.root, &rel("."), LIMITS).unwrap();
            for entry in shot.entries() {
                let text = words(bed.root.open_entry(&entry), content);
                let known = ["inside", "ELOOP", "escapes", "ENOENT"];
                assert!(known.contains(&text.as_str()), "{entry:?}: {text}");
            }
            "ok".to_owned()
        });
        assert_outside_untouched(&bed);
    }
}

#[test]
fn writing_stays_inside() {
    for way in WAYS {
        for lure in LURES {
            let bed = tree(way, lure);
            race(
                &bed,
                DIR_AND_LURE,
                ROUNDS,
                &["ok", "escapes", "ENOENT"],
                |round| {
                    // In pairs, so that the directory does not grow.
                    let path = rel(&format!("in/d/new{}", round / 2));
                    match round % 2 {
                        0 => done(bed.root.mkdir(&path, true, false, 0o755)),
                        _ => done(bed.root.rmdir(&path)),
                    }
                },
            );
            race(
                &bed,
                DIR_AND_LURE,
                ROUNDS,
                &["ok", "escapes", "EEXIST"],
                |_| done(bed.root.mkdir(&rel("in/d/p/q/r"), true, false, 0o755)),
            );
            race(
                &bed,
                DIR_AND_LURE,
                ROUNDS,
                &["ok", "escapes", "ENOENT"],
                |round| {
                    let (from, to) =
                        [("in/d/x", "in/d/z"), ("in/d/z", "in/d/x")][(round % 2) as usize];
                    done(bed.root.rename(&rel(from), &rel(to)))
                },
            );
            race(
                &bed,
                DIR_AND_LURE,
                ROUNDS,
                &["ok", "escapes", "ENOENT"],
                |round| {
                    let (from, to) = [("in/d/x", "in/y"), ("in/y", "in/d/x")][(round % 2) as usize];
                    done(bed.root.rename(&rel(from), &rel(to)))
                },
            );
            race(
                &bed,
                DIR_AND_LURE,
                ROUNDS,
                &["ok", "escapes", "ENOENT"],
                |_| done(bed.root.unlink(&rel("in/d/x"))),
            );
            assert_outside_untouched(&bed);
        }
    }
}

#[test]
fn removal_stays_inside() {
    for way in WAYS {
        let bed = tree(way, Lure::Absolute);
        // Held: by name, the test itself would be led outside.
        let real = bed.root.open_dir(&rel("in/d")).unwrap();
        let allowed = [
            "removed",
            "stopped",
            "ENOTDIR",
            "ENOTEMPTY",
            "escapes",
            "ENOENT",
        ];
        race(&bed, DIR_AND_LURE, ROUNDS, &allowed, |round| {
            let _ = real.mkdir(OsStr::new("sub"), 0o755);
            let sub = real.open_dir(OsStr::new("sub")).unwrap();
            let _ = sub.mkdir(OsStr::new("deep"), 0o755);
            let path = ["in/d/sub", "in/d/sub/deep"][(round % 2) as usize];
            let removed = bed
                .root
                .remove_tree(&rel(path), &mut |_| ControlFlow::Continue(()));
            words(removed, |done| {
                if done.complete { "removed" } else { "stopped" }.to_owned()
            })
        });
        assert_outside_untouched(&bed);
    }
}

/// A tree is put in place by one rename, so that the test never writes by a raced name.
fn put_in_place(bed: &Bed) {
    bed.file("fresh/d/x", "inside")
        .file("fresh/d/sub/y", "inside")
        .link("fresh/l", "{outside}");
    let _ = std::fs::rename(bed.host.join("fresh"), bed.host.join("in"));
    let _ = bed
        .root
        .remove_tree(&rel("fresh"), &mut |_| ControlFlow::Continue(()));
}

#[test]
fn removing_the_exchanged_directory_itself_never_follows() {
    const TREES: u64 = 500;
    for way in WAYS {
        let bed = tree(way, Lure::Absolute);
        let stop = AtomicBool::new(false);
        let (a, b) = (bed.host.join("in/d"), bed.host.join("in/l"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
                }
            });
            let _stop = StopOnDrop(&stop);
            for tree in 0..TREES {
                let paths = [&["in"][..], &["in/d", "in/l", "in"]][(tree % 2) as usize];
                for path in paths {
                    let removed = bed
                        .root
                        .remove_tree(&rel(path), &mut |_| ControlFlow::Continue(()));
                    let outcome = words(removed, |_| "ok".to_owned());
                    let known = ["ok", "ENOENT", "ENOTDIR", "ENOTEMPTY", "EISDIR"];
                    assert!(known.contains(&outcome.as_str()), "{path}: {outcome}");
                }
                put_in_place(&bed);
            }
        });
        assert_outside_untouched(&bed);
    }
}

#[test]
fn publishing_stays_inside() {
    // Each publication syncs: fewer rounds, as many exchanges.
    const UPLOADS: u64 = 400;
    for way in WAYS {
        for lure in LURES {
            let bed = tree(way, lure);
            let seen = race(&bed, DIR_AND_LURE, UPLOADS, &["ok", "escapes"], |round| {
                let target = match round % 3 {
                    0 => rel("in/d/x"),
                    1 => rel("in/d/p/q/t"),
                    _ => rel(&format!("in/d/{round}/t")),
                };
                let session = SessionId::random();
                let staged = staging::create(&bed.root, &session).unwrap();
                let checked = done(staging::check_target(&bed.root, &target));
                assert!(["ok", "escapes"].contains(&checked.as_str()), "{checked}");
                let outcome = done(staging::publish(&bed.root, &session, &target));
                let there = staging::is_published(&bed.root, staged.ino, staged.dev, 0, &target);
                let there = words(there, |there| there.to_string());
                assert!(
                    ["true", "false", "escapes"].contains(&there.as_str()),
                    "{there}"
                );
                assert!(outcome == "ok" || there != "true");
                staging::discard(&bed.root, &session).unwrap();
                outcome
            });
            println_outcomes(&format!("publish {way:?} {lure:?}"), &seen);
            assert_outside_untouched(&bed);
        }
    }
}

#[test]
fn staging_never_follows_a_link_in_its_place() {
    for way in WAYS {
        let bed = tree(way, Lure::Absolute);
        let bait = SessionId::random();
        std::fs::write(bed.outside.join(bait.to_string()), SECRET).unwrap();
        bed.dir(".upload").link("lure", "{outside}");
        let swap = (".upload", "lure");
        race(&bed, swap, ROUNDS, &["ok", "ENOTDIR", "ENOENT"], |round| {
            let session = SessionId::random();
            let made = words(staging::create(&bed.root, &session), |_| "ok".to_owned());
            assert_ne!(
                words(staging::open(&bed.root, &bait), |_| "ok".to_owned()),
                "ok"
            );
            let taken = done(staging::publish(&bed.root, &bait, &rel("stolen")));
            assert_ne!(taken, "ok");
            staging::discard(&bed.root, &bait).unwrap();
            let listed = staging::list(&bed.root).unwrap();
            assert!(listed.iter().all(|(session, _)| *session != bait));
            if round % 50 == 0 {
                let _ = staging::publish(&bed.root, &session, &rel("t"));
            }
            let _ = staging::discard(&bed.root, &session);
            // The directory itself goes with its last file; the race needs one.
            let _ = std::fs::create_dir(bed.host.join(".upload"));
            made
        });
        assert!(!bed.exists("stolen"));
        std::fs::remove_file(bed.outside.join(bait.to_string())).unwrap();
        assert_outside_untouched(&bed);
    }
}

#[test]
fn snapshots_stay_inside() {
    for way in WAYS {
        for lure in LURES {
            let bed = tree(way, lure);
            let secret_ino = |name: &str| {
                use std::os::unix::fs::MetadataExt;
                std::fs::metadata(bed.outside.join(name)).unwrap().ino()
            };
            let secrets = [secret_ino("x"), secret_ino("sub/y")];
            race(
                &bed,
                DIR_AND_LURE,
                ROUNDS,
                &["0", "1", "2", "3", "4"],
                |round| {
                    let from = if round % 2 == 0 { rel(".") } else { rel("in") };
                    let shot = walk::snapshot(&bed.root, &from, LIMITS).unwrap();
                    for entry in shot.entries() {
                        assert!(!secrets.contains(&entry.ino), "{entry:?}");
                        // "escapes": the entry was real, its directory is the link by now; exact
                        // lookups say ELOOP for the same, and ENOENT once it is elsewhere.
                        let text = words(bed.root.open_entry(&entry), content);
                        let known = ["inside", "dir", "ELOOP", "escapes", "ENOENT", "ENOTDIR"];
                        assert!(known.contains(&text.as_str()), "{entry:?}: {text}");
                    }
                    shot.len().to_string()
                },
            );
            race(&bed, DIR_AND_LURE, ROUNDS / 2, &["2", "escapes"], |_| {
                words(walk::snapshot(&bed.root, &rel("in/d"), LIMITS), |shot| {
                    assert!(shot.entries().all(|entry| !secrets.contains(&entry.ino)));
                    shot.len().to_string()
                })
            });
            assert_outside_untouched(&bed);
        }
    }
}
