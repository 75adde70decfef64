//! Uploads on disk. Goal: a target appears whole or not at all, every step can be repeated,
//! and nobody can lead us out through `.upload`. Method: tables for targets; the states that
//! a crash can leave, made by hand; threads for the races.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use bed::{Bed, StopOnDrop, WAYS, Way, rel, words};
use proxy_anchor::{AnchorError, staging};
use proxy_core::id::SessionId;

fn tree(way: Way) -> Bed {
    let bed = Bed::new(way);
    bed.file("f", "old")
        .file("d/x", "x")
        .link("to_d", "d")
        .link("to_f", "f");
    bed.link("out", "{outside}")
        .link("out_file", "{outside}/secret")
        .link("to_root", ".");
    bed.link("to_upload", ".upload")
        .link("dangling", "nowhere")
        .link("self", "self");
    bed
}

fn staged(bed: &Bed, content: &str) -> (SessionId, staging::Staged) {
    let session = SessionId::random();
    let staged = staging::create(&bed.root, &session).unwrap();
    let mut file = File::from(staged.fd.try_clone().unwrap());
    file.write_all(content.as_bytes()).unwrap();
    file.sync_all().unwrap();
    (session, staging::open(&bed.root, &session).unwrap())
}

fn outcome(result: Result<(), AnchorError>) -> String {
    words(result, |()| "ok".to_owned())
}

/// Target, outcome of `check_target` and `publish` alike, where the file is then.
const TARGETS: &[(&str, &str, &str)] = &[
    ("new", "ok", "new"),
    ("f", "ok", "f"),
    ("d/new", "ok", "d/new"),
    ("to_d/new", "ok", "d/new"),
    ("to_root/to_d/new", "ok", "d/new"),
    ("d/../new", "ok", "new"),
    ("p/q/r/new", "ok", "p/q/r/new"),
    ("to_d/q/new", "ok", "d/q/new"),
    ("p/../new", "ok", "new"),
    ("dangling/new", "ok", "nowhere/new"),
    ("to_f", "ok", "to_f"),
    ("out_file", "ok", "out_file"),
    ("dangling", "ok", "dangling"),
    ("to_d", "ok", "to_d"),
    ("d/.upload", "ok", "d/.upload"),
    ("a\nb %2e%2e 한글", "ok", "a\nb %2e%2e 한글"),
    (".", "EISDIR", ""),
    ("d", "EISDIR", ""),
    ("to_root/d", "EISDIR", ""),
    ("d/..", "EISDIR", ""),
    ("f/new", "ENOTDIR", ""),
    ("f/p/new", "ENOTDIR", ""),
    ("to_f/new", "ENOTDIR", ""),
    ("self/new", "ELOOP", ""),
    ("..", "EISDIR", ""),
    ("../new", "escapes", ""),
    ("../../../../../../../../../../tmp/new", "escapes", ""),
    ("p/../../new", "escapes", ""),
    ("out/new", "escapes", ""),
    ("out/p/new", "escapes", ""),
    ("out/../new", "escapes", ""),
    (".upload", "reserved", ""),
    (".upload/new", "reserved", ""),
    ("to_upload/new", "reserved", ""),
    ("to_upload/p/new", "reserved", ""),
    ("to_root/.upload", "reserved", ""),
    ("to_root/.upload/p/new", "reserved", ""),
    ("d/../.upload/new", "reserved", ""),
    ("a\0b", "invalid", ""),
];

#[test]
fn targets_are_as_the_table_says() {
    for way in WAYS {
        for (target, want, place) in TARGETS {
            let bed = tree(way);
            let checked = staging::check_target(&bed.root, &rel(target));
            assert_eq!(outcome(checked), *want, "check {target:?} by {way:?}");
            assert!(
                !bed.exists("p") && !bed.exists("nowhere"),
                "a check makes nothing"
            );

            let (session, file) = staged(&bed, "content");
            let published = staging::publish(&bed.root, &session, &rel(target));
            assert_eq!(outcome(published), *want, "publish {target:?} by {way:?}");
            if *want == "ok" {
                let meta = std::fs::symlink_metadata(bed.host.join(place)).unwrap();
                assert!(meta.is_file() && bed.read(place) == "content", "{target:?}");
                assert!(!bed.exists(".upload"));
                let (ino, dev, target) = (file.ino, file.dev, rel(target));
                assert!(staging::is_published(&bed.root, ino, dev, 7, &target).unwrap());
                assert!(!staging::is_published(&bed.root, ino, dev, 8, &target).unwrap());
                assert!(!staging::is_published(&bed.root, ino + 1, dev, 7, &target).unwrap());
            } else {
                assert_eq!(bed.read(&format!(".upload/{session}")), "content");
            }
            bed.assert_outside_untouched();
        }
    }
}

#[test]
fn names_too_long_are_known_before_the_upload() {
    for way in WAYS {
        let bed = tree(way);
        let (just, over) = ("n".repeat(255), "n".repeat(256));
        for (target, want) in [
            (just.clone(), "ok"),
            (format!("missing/{just}"), "ok"),
            (over.clone(), "ENAMETOOLONG"),
            (format!("missing/{over}"), "ENAMETOOLONG"),
            (format!("{over}/x"), "ENAMETOOLONG"),
            (format!("missing/{over}/x"), "ENAMETOOLONG"),
        ] {
            let got = outcome(staging::check_target(&bed.root, &rel(&target)));
            assert_eq!(got, want, "{target} by {way:?}");
        }
    }
}

#[test]
fn a_session_is_one_regular_file() {
    for way in WAYS {
        let bed = tree(way);
        let session = SessionId::random();
        let gone = |bed: &Bed| words(staging::open(&bed.root, &session), |_| "open".to_owned());
        assert_eq!(gone(&bed), "ENOENT");
        staging::discard(&bed.root, &session).unwrap();

        let staged = staging::create(&bed.root, &session).unwrap();
        assert_eq!(staged.size, 0);
        let again = words(staging::create(&bed.root, &session), |_| "made".to_owned());
        assert_eq!(again, "EEXIST");
        let listed = staging::list(&bed.root).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].0, listed[0].1.ino), (session, staged.ino));

        let name = format!(".upload/{session}");
        let mode = std::fs::metadata(bed.host.join(&name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o111, 0);
        bed.file(".upload/not-a-session", "")
            .file(&format!(".upload/{}", "A".repeat(32)), "");
        assert_eq!(staging::list(&bed.root).unwrap().len(), 1);

        std::fs::remove_file(bed.host.join(&name)).unwrap();
        for (what, plant) in [("file", "{outside}/secret"), ("dir", "{outside}")] {
            bed.link(&name, plant);
            assert_eq!(gone(&bed), "ENOENT", "link to a {what}");
            let published = staging::publish(&bed.root, &session, &rel("t"));
            assert_eq!(outcome(published), "ENOENT", "link to a {what}");
            staging::discard(&bed.root, &session).unwrap();
            assert!(!bed.exists(&name));
        }
        bed.dir(&name);
        assert_eq!(gone(&bed), "ENOENT", "directory");
        bed.assert_outside_untouched();
    }
}

#[test]
fn a_planted_staging_directory_is_not_followed() {
    for way in WAYS {
        for plant in ["{outside}", "d", "/", "self_made"] {
            let bed = tree(way);
            let session = SessionId::random();
            std::fs::write(bed.outside.join(session.to_string()), "bait").unwrap();
            if plant == "self_made" {
                bed.file(".upload", "a file");
            } else {
                bed.link(".upload", plant);
            }
            let create = words(staging::create(&bed.root, &session), |_| "made".to_owned());
            assert_eq!(create, "ENOTDIR", "{plant} by {way:?}");
            assert_eq!(
                words(staging::open(&bed.root, &session), |_| "".to_owned()),
                "ENOTDIR"
            );
            let published = staging::publish(&bed.root, &session, &rel("t"));
            assert_eq!(outcome(published), "ENOTDIR");
            staging::discard(&bed.root, &session).unwrap();
            assert!(staging::list(&bed.root).unwrap().is_empty());
            assert!(bed.exists(".upload") && !bed.exists("t"));
            let bait = bed.outside.join(session.to_string());
            assert_eq!(std::fs::read_to_string(&bait).unwrap(), "bait");
            std::fs::remove_file(bait).unwrap();
            bed.assert_outside_untouched();
        }
    }
}

#[test]
fn publishing_can_be_repeated_after_a_crash_anywhere() {
    for way in WAYS {
        // Before anything: nothing to see.
        let bed = tree(way);
        let (session, file) = staged(&bed, "content");
        let target = rel("p/q/new");
        let is = |bed: &Bed| staging::is_published(&bed.root, file.ino, file.dev, 7, &target);
        assert!(!is(&bed).unwrap());
        // After the parents were made.
        bed.dir("p/q");
        assert!(!is(&bed).unwrap());
        staging::publish(&bed.root, &session, &target).unwrap();
        // After the rename, before anybody heard of it.
        let again = staging::publish(&bed.root, &session, &target);
        assert_eq!(outcome(again), "ENOENT");
        assert!(is(&bed).unwrap());
        staging::discard(&bed.root, &session).unwrap();
        assert_eq!(bed.read("p/q/new"), "content");
        // Another device number, as after a remount of a network file system.
        assert!(staging::is_published(&bed.root, file.ino, 1, 7, &target).unwrap());
        // Somebody else's file of the same name.
        std::fs::rename(bed.host.join("p/q/new"), bed.host.join("p/q/old")).unwrap();
        bed.file("p/q/new", "another");
        assert!(!is(&bed).unwrap());
    }
}

#[test]
fn other_sessions_keep_the_staging_directory() {
    for way in WAYS {
        let bed = tree(way);
        let (first, _) = staged(&bed, "first");
        let (second, _) = staged(&bed, "second");
        staging::publish(&bed.root, &first, &rel("one")).unwrap();
        assert_eq!(Bed::names(&bed.host.join(".upload")), [second.to_string()]);
        staging::publish(&bed.root, &second, &rel("one")).unwrap();
        assert_eq!(bed.read("one"), "second");
        assert!(!bed.exists(".upload"));
    }
}

#[test]
fn a_removed_vfolder_is_missing() {
    for way in WAYS {
        let bed = Bed::new(way);
        std::fs::remove_dir(&bed.host).unwrap();
        let created = staging::create(&bed.root, &SessionId::random());
        assert_eq!(words(created, |_| "made".to_owned()), "missing");
        assert!(!bed.root.is_alive());
        assert_eq!(
            words(bed.volume.vfolder(&bed.id), |_| "found".to_owned()),
            "missing"
        );
    }
}

/// Every finished upload removes `.upload` if it can, while others are making it.
#[test]
fn creating_survives_the_removal_of_the_staging_directory() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 400;
    for way in WAYS {
        let bed = Bed::new(way);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let root = &bed.root;
                scope.spawn(move || {
                    let target = rel(&format!("t{thread}"));
                    for round in 0..ROUNDS {
                        let session = SessionId::random();
                        let staged = staging::create(root, &session).unwrap();
                        // Publishing syncs; discarding makes more races in the same time.
                        let publish = round % 40 == 0;
                        match publish {
                            true => staging::publish(root, &session, &target).unwrap(),
                            false => staging::discard(root, &session).unwrap(),
                        }
                        let there = staging::is_published(root, staged.ino, staged.dev, 0, &target);
                        assert_eq!(there.unwrap(), publish);
                    }
                });
            }
        });
        assert_eq!(Bed::names(&bed.host), ["t0", "t1", "t2", "t3"]);
    }
}

/// Parents vanish between being made and being used.
#[test]
fn publishing_survives_the_removal_of_fresh_parents() {
    use std::sync::atomic::{AtomicBool, Ordering};
    const ROUNDS: usize = 60;
    for way in WAYS {
        let bed = Bed::new(way);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = std::fs::remove_dir(bed.host.join("p/q"));
                    let _ = std::fs::remove_dir(bed.host.join("p"));
                }
            });
            let _stop = StopOnDrop(&stop);
            for _ in 0..ROUNDS {
                let session = SessionId::random();
                staging::create(&bed.root, &session).unwrap();
                let published = staging::publish(&bed.root, &session, &rel("p/q/t"));
                // Lost more races in a row than a client is worth: nothing else is lost.
                match outcome(published).as_str() {
                    "ok" => std::fs::remove_file(bed.host.join("p/q/t")).unwrap(),
                    "EAGAIN" | "ENOENT" => {
                        staging::publish(&bed.root, &session, &rel("t")).unwrap();
                    }
                    other => panic!("{other}"),
                }
            }
        });
    }
}
