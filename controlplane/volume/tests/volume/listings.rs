//! Listing a directory.

use std::collections::BTreeMap;

use proxy_volume::{EntryType, VolumeError};

use crate::scene::{Scene, os, os_error};

/// Lists `dir` of a folder arranged by `plan`; wants `name type target`, sorted.
#[track_caller]
fn check(plan: &[&str], dir: &str, want: &[&str]) {
    let scene = Scene::new();
    scene.arrange(plan);
    let mut found: Vec<_> = scene
        .list(dir, 0)
        .unwrap()
        .iter()
        .map(|entry| {
            format!(
                "{} {} {}",
                entry.name,
                entry.kind.wire(),
                entry.symlink_target
            )
        })
        .collect();
    found.sort();
    assert_eq!(found, want, "{plan:?} {dir}");
}

#[test]
fn entries_have_their_kinds_and_links_their_targets() {
    check(&[], "", &[]);
    check(
        &["f=x", "d/", "p|"],
        ".",
        &["d DIRECTORY ", "f FILE ", "p FILE "],
    );
    check(
        &[
            "a=x",
            "d/",
            "in->a",
            "gone->nothing",
            "out->/etc/passwd",
            "up->../../x",
            "self->.",
        ],
        "",
        &[
            "a FILE ",
            "d DIRECTORY ",
            "gone SYMLINK nothing",
            "in SYMLINK a",
            "out SYMLINK ",
            "self SYMLINK .",
            "up SYMLINK ",
        ],
    );
    check(&["l1->l2", "l2->l1"], "", &["l1 SYMLINK ", "l2 SYMLINK "]);
    check(
        &[
            "a=x",
            "sub/b=y",
            "sub/up->../a",
            "sub/near->b",
            "sub/round->../sub/b",
        ],
        "sub",
        &[
            "b FILE ",
            "near SYMLINK b",
            "round SYMLINK b",
            "up SYMLINK ",
        ],
    );
    check(
        &["real/f=x", "real/l->f", "way->real"],
        "way",
        &["f FILE ", "l SYMLINK f"],
    );
    check(&["d/x=1", "e/"], "e/../d", &["x FILE "]);
    check(
        &["one->d/two", "d/two->three", "d/three=x"],
        "",
        &["d DIRECTORY ", "one SYMLINK d/three"],
    );
}

#[test]
fn links_with_an_absolute_path_of_the_folder_itself_are_inside() {
    let scene = Scene::new();
    scene.arrange(&["d/a=x"]);
    std::os::unix::fs::symlink(scene.at("d/a"), scene.at("d/l")).unwrap();
    let found = scene.list("d", 0).unwrap();
    let link = found.iter().find(|entry| entry.name == "l").unwrap();
    assert_eq!(link.symlink_target, "a");
}

#[test]
fn staging_is_hidden_at_the_root_only() {
    check(&[".upload/x=1", "d/.upload/y=2"], "", &["d DIRECTORY "]);
    check(
        &[".upload/x=1", "d/.upload/y=2"],
        "d",
        &[".upload DIRECTORY "],
    );
    check(&[".upload/x=1", "l->.upload/x"], "", &["l SYMLINK "]);
    let scene = Scene::new();
    scene.arrange(&[".upload/x=1", "root->."]);
    assert_eq!(scene.list("root", 0).unwrap().len(), 1);
    let refused = scene.list(".upload", 0);
    assert!(
        matches!(refused, Err(VolumeError::InvalidSubpath { .. })),
        "{refused:?}"
    );
}

#[test]
fn numbers_are_those_of_the_entry_itself() {
    use std::os::unix::fs::MetadataExt;
    let scene = Scene::new();
    scene.arrange(&["f=hello", "d/", "l->f"]);
    for entry in scene.list("", 0).unwrap() {
        let meta = scene.at(&entry.name).symlink_metadata().unwrap();
        assert_eq!(
            (entry.mode, entry.size),
            (meta.mode(), meta.size()),
            "{}",
            entry.name
        );
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        assert_eq!(entry.created.unix_ns, ns(meta.ctime(), meta.ctime_nsec()));
        assert_eq!(entry.modified.unix_ns, ns(meta.mtime(), meta.mtime_nsec()));
    }
}

#[test]
fn odd_names_are_listed_as_text() {
    let scene = Scene::new();
    let long = "x".repeat(255);
    let all: [(&[u8], &str); 7] = [
        (b"bad\xff", "bad\u{fffd}"),
        (b"line\nbreak", "line\nbreak"),
        (b"back\\slash", "back\\slash"),
        (b"\"quoted\"", "\"quoted\""),
        (b" ", " "),
        ("한글".as_bytes(), "한글"),
        (long.as_bytes(), &long),
    ];
    let mut made = BTreeMap::new();
    for (name, text) in all {
        match std::fs::write(scene.root.join(os(name)), "x") {
            Ok(()) => drop(made.insert(text.to_owned(), EntryType::File)),
            Err(error) => println!("skipped: name {text:?} on this file system: {error}"),
        }
    }
    let found: BTreeMap<_, _> = scene
        .list("", 0)
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.kind))
        .collect();
    assert_eq!(found, made);
}

#[test]
fn what_cannot_be_listed_says_so() {
    let scene = Scene::new();
    scene.arrange(&["f=x", "d/", "out->/etc", "loop->loop"]);
    assert_eq!(os_error(scene.list("gone", 0)), (2, "gone".to_owned()));
    assert_eq!(os_error(scene.list("f", 0)), (20, "f".to_owned()));
    assert_eq!(os_error(scene.list("loop", 0)), (40, "loop".to_owned()));
    for path in ["out", "..", "../..", "d/../../x", "out/passwd"] {
        let refused = scene.list(path, 0);
        assert!(
            matches!(refused, Err(VolumeError::InvalidSubpath { .. })),
            "{path}: {refused:?}"
        );
    }
    let vfid = crate::scene::vfid(crate::scene::OTHER);
    let missing = scene.run(scene.volume.list(vfid, crate::scene::rel(""), 0));
    assert_eq!(missing.err(), Some(VolumeError::VFolderNotFound(vfid)));
}

#[test]
fn a_limit_cuts_the_directory_order() {
    let scene = Scene::new();
    for number in 0..3000 {
        std::fs::write(scene.at(&format!("f{number}")), "").unwrap();
    }
    let all: Vec<_> = std::fs::read_dir(&scene.root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for (limit, want) in [(0, 3000), (1, 1), (1000, 1000), (2999, 2999), (5000, 3000)] {
        let found: Vec<_> = scene
            .list("", limit)
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(found, all[..want], "limit {limit}");
    }
}

#[test]
fn twenty_thousand_entries_are_one_answer() {
    let scene = Scene::new();
    for number in 0..20_000 {
        std::fs::write(scene.at(&format!("f{number}")), "").unwrap();
    }
    assert_eq!(scene.list("", 0).unwrap().len(), 20_000);
}
