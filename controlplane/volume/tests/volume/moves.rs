//! Moving and renaming.

use proxy_volume::VolumeError;

use crate::scene::{Scene, make, rel};

/// What a move came to: the tree afterwards, an error number, or another refusal.
#[derive(Debug, PartialEq, Eq)]
enum Want<'a> {
    Tree(&'a [&'a str]),
    Errno(i32, &'a str),
    Refused,
    Outside,
    Name,
}

use Want::{Errno, Name, Outside, Refused, Tree};

#[track_caller]
fn judge(scene: &Scene, before: &[String], done: Result<(), VolumeError>, want: &Want<'_>) {
    let after = scene.found();
    match (want, done) {
        (Tree(tree), Ok(())) => assert_eq!(after, *tree),
        (Errno(want, at), Err(VolumeError::Os { errno, path, .. })) => {
            assert_eq!((errno, path.as_str()), (*want, *at));
            assert_eq!(after, before);
        }
        (Refused, Err(VolumeError::Refused(_)))
        | (Outside, Err(VolumeError::InvalidSubpath { .. }))
        | (Name, Err(VolumeError::InvalidName { .. })) => assert_eq!(after, before),
        (want, done) => panic!("wanted {want:?}, got {done:?} and {after:?}"),
    }
}

#[track_caller]
fn check(plan: &[&str], from: &str, to: &str, want: Want<'_>) {
    let scene = Scene::new();
    scene.arrange(plan);
    let before = scene.found();
    let done = scene.run(scene.volume.move_entry(scene.vfid, rel(from), rel(to)));
    judge(&scene, &before, done, &want);
}

#[track_caller]
fn check_rename(plan: &[&str], from: &str, name: &str, want: Want<'_>) {
    let scene = Scene::new();
    scene.arrange(plan);
    let before = scene.found();
    let done = scene.run(scene.volume.rename(scene.vfid, rel(from), name.to_owned()));
    judge(&scene, &before, done, &want);
}

#[test]
fn files_and_directories_move() {
    check(&["a=1"], "a", "b", Tree(&["b=1"]));
    check(&["a=1", "b=2"], "a", "b", Tree(&["b=1"]));
    check(&["a=1", "d/"], "a", "d/b", Tree(&["d/", "d/b=1"]));
    check(&["a=1", "d/"], "a", "d", Tree(&["d/", "d/a=1"]));
    check(&["d/a=1"], "d/a", ".", Tree(&["a=1", "d/"]));
    check(&["d/a=1"], "d/a", "", Tree(&["a=1", "d/"]));
    check(&["d/a=1", "e/"], "d", "e", Tree(&["e/", "e/d/", "e/d/a=1"]));
    check(&["d/a=1"], "d", "e", Tree(&["e/", "e/a=1"]));
    check(&["a=1"], "a", "a", Tree(&["a=1"]));
    check(&["d/a=1"], "d", "d", Tree(&["d/", "d/a=1"]));
    check(
        &["d/a=1", "e/"],
        "d",
        "e/../d",
        Tree(&["d/", "d/a=1", "e/"]),
    );
    check(&["p|"], "p", "q", Tree(&["q|"]));
    check(
        &["d/e/a=1"],
        "d/e/../e/a",
        "d/b",
        Tree(&["d/", "d/b=1", "d/e/"]),
    );
}

#[test]
fn links_move_themselves() {
    check(&["a=1", "l->a"], "l", "m", Tree(&["a=1", "m->a"]));
    check(&["d/", "l->gone"], "l", "d", Tree(&["d/", "d/l->gone"]));
    check(&["l->/etc/passwd"], "l", "m", Tree(&["m->/etc/passwd"]));
    check(&["d/x=1", "l->d"], "l", "m", Tree(&["d/", "d/x=1", "m->d"]));
    check(
        &["a=1", "d/", "l->d"],
        "a",
        "l",
        Tree(&["d/", "d/a=1", "l->d"]),
    );
    check(
        &["a=1", "d/", "l->d"],
        "a",
        "l/b",
        Tree(&["d/", "d/b=1", "l->d"]),
    );
    check(&["a=1", "b=2", "l->b"], "a", "l", Tree(&["b=2", "l=1"]));
    check(&["a=1", "l->gone"], "a", "l", Tree(&["l=1"]));
    check(&["a=1", "l->/etc/passwd"], "a", "l", Tree(&["l=1"]));
    check(&["a=1", "l->l"], "a", "l", Tree(&["l=1"]));
}

#[test]
fn what_cannot_move_stays() {
    check(&[], "a", "b", Errno(2, "a"));
    check(&["a=1"], "a", "gone/b", Errno(2, "gone/b"));
    check(&["a=1", "f=2"], "a", "f/b", Errno(20, "f/b"));
    check(&["a=1", "d/a=2"], "a", "d", Refused);
    check(&["d/x=1", "e/d/"], "d", "e", Refused);
    check(&["d/a=1", "f=2"], "d", "f", Errno(17, "f"));
    check(&["d/a=1", "l->gone"], "d", "l", Errno(17, "l"));
    check(&["d/a=1"], "d", "d/e", Refused);
    check(&["d/e/a=1"], "d", "d/e", Refused);
    check(&["d/a=1"], "d/a", "d", Refused);
    check(&["d/a=1", "l->d"], "d", "l", Refused);
    check(&["d/"], ".", "d", Errno(16, "."));
    check(&["d/e/"], "d/e/..", "x", Errno(16, "d/e/.."));
    check(&["a=1"], "a", &"n".repeat(256), Errno(36, &"n".repeat(256)));
}

#[test]
fn nothing_moves_in_or_out() {
    let plan = ["a=1", "out->/tmp", "up->.."];
    for (from, to) in [
        ("a", "../a"),
        ("a", "out/stolen"),
        ("a", "up/a"),
        ("../x", "b"),
        ("out/x", "b"),
        ("a", ".upload"),
        ("a", ".upload/x"),
        (".upload/x", "b"),
    ] {
        check(&plan, from, to, Outside);
    }
    check(&plan, "a", "out", Tree(&["out=1", "up->.."]));
}

#[test]
fn a_name_is_a_name() {
    check_rename(&["d/a=1"], "d/a", "b", Tree(&["d/", "d/b=1"]));
    check_rename(&["a=1", "b=2"], "a", "b", Tree(&["b=1"]));
    check_rename(&["a=1", "b/"], "a", "b", Tree(&["b/", "b/a=1"]));
    check_rename(&["a=1", "b/a=2"], "a", "b", Refused);
    check_rename(&["a=1"], "a", "a", Tree(&["a=1"]));
    check_rename(&["a=1"], "a", "..b", Tree(&["..b=1"]));
    for name in ["", ".", "..", "x/y", "/x", "x/", "../x", "a\0b"] {
        check_rename(&["a=1"], "a", name, Name);
    }
    check_rename(&["a=1"], ".", "b", Errno(16, "."));
    check_rename(&["a=1"], "gone", "b", Errno(2, "gone"));
    check_rename(&["a=1"], "a", ".upload", Outside);
    check_rename(&["a=1"], "a", &"n".repeat(256), Errno(36, &"n".repeat(256)));
}

#[test]
fn a_move_to_another_file_system_copies_and_removes() {
    let scene = Scene::new();
    std::fs::create_dir(scene.at("other")).unwrap();
    let mounted = rustix::mount::mount(
        "none",
        scene.at("other"),
        "tmpfs",
        rustix::mount::MountFlags::NOSUID,
        None::<&std::ffi::CStr>,
    );
    if let Err(error) = mounted {
        println!("skipped: no right to mount: {error}");
        return;
    }
    let unmount = Unmount(scene.at("other"));
    let plan = ["f=1", "d/e/f=2", "d/l->e/f", "l->gone", "odd/p|", "odd/f=3"];
    plan.iter().for_each(|line| make(&scene.root, line));
    std::fs::hard_link(scene.at("d/e/f"), scene.at("d/hard")).unwrap();
    for (from, to) in [("f", "other/g"), ("d", "other"), ("l", "other/m")] {
        scene
            .run(scene.volume.move_entry(scene.vfid, rel(from), rel(to)))
            .unwrap();
    }
    let refused = scene.run(
        scene
            .volume
            .move_entry(scene.vfid, rel("odd"), rel("other")),
    );
    assert!(
        matches!(refused, Err(VolumeError::Refused(_))),
        "{refused:?}"
    );
    let want = [
        "odd/",
        "odd/f=3",
        "odd/p|",
        "other/",
        "other/d/",
        "other/d/e/",
        "other/d/e/f=2",
        "other/d/hard=2",
        "other/d/l->e/f",
        "other/g=1",
        "other/m->gone",
    ];
    assert_eq!(scene.found(), want);
    let into_file = scene.run(
        scene
            .volume
            .move_entry(scene.vfid, rel("odd/f"), rel("other/g")),
    );
    into_file.unwrap();
    assert_eq!(std::fs::read_to_string(scene.at("other/g")).unwrap(), "3");
    drop(unmount);
}

pub struct Unmount(pub std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
