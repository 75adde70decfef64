//! Making directories, deleting entries, reading files.

use proxy_volume::{Deleted, Mkdir, VolumeError};

use crate::scene::{Scene, os, os_error, reins, rel};

#[track_caller]
fn check_mkdir(plan: &[&str], path: &str, how: (bool, bool), want: Result<&[&str], i32>) {
    let scene = Scene::new();
    scene.arrange(plan);
    let how = Mkdir {
        parents: how.0,
        exist_ok: how.1,
    };
    let done = scene.run(scene.volume.mkdir(scene.vfid, rel(path), how));
    match want {
        Ok(tree) => {
            done.unwrap();
            assert_eq!(scene.found(), tree, "{path}");
        }
        Err(errno) => {
            let before = describe_plan(plan);
            assert_eq!(os_error(done).0, errno, "{path}");
            assert_eq!(scene.found(), before, "{path}");
        }
    }
}

fn describe_plan(plan: &[&str]) -> Vec<String> {
    let scene = Scene::new();
    scene.arrange(plan);
    scene.found()
}

#[test]
fn directories_are_made() {
    check_mkdir(&[], "a", (false, false), Ok(&["a/"]));
    check_mkdir(&[], "a/b/c", (true, false), Ok(&["a/", "a/b/", "a/b/c/"]));
    check_mkdir(&[], "a/b", (false, false), Err(2));
    check_mkdir(&["a/"], "a", (true, false), Err(17));
    check_mkdir(&["a/"], "a", (true, true), Ok(&["a/"]));
    check_mkdir(&["a=x"], "a", (true, true), Err(17));
    check_mkdir(&["a=x"], "a/b", (true, true), Err(20));
    check_mkdir(&[], "", (true, false), Err(17));
    check_mkdir(&[], ".", (true, true), Ok(&[]));
    check_mkdir(
        &["d/", "l->d"],
        "l/new",
        (true, false),
        Ok(&["d/", "d/new/", "l->d"]),
    );
    check_mkdir(&["d/", "l->d"], "l", (true, true), Ok(&["d/", "l->d"]));
    check_mkdir(&["l->gone"], "l", (true, true), Err(17));
    check_mkdir(&[], &"n".repeat(256), (true, false), Err(36));
}

#[test]
fn directories_are_not_made_outside() {
    let scene = Scene::new();
    scene.arrange(&["out->/tmp", "up->../.."]);
    let how = Mkdir {
        parents: true,
        exist_ok: true,
    };
    for path in ["../x", "out/x", "up/x", ".upload", ".upload/x", "a/../../x"] {
        let refused = scene.run(scene.volume.mkdir(scene.vfid, rel(path), how));
        assert!(
            matches!(refused, Err(VolumeError::InvalidSubpath { .. })),
            "{path}: {refused:?}"
        );
    }
}

/// Deletes `paths`; wants what is left, or the refusal of everything.
#[track_caller]
fn check_delete(plan: &[&str], paths: &[&str], recursive: bool, left: &[&str]) -> Deleted {
    let scene = Scene::new();
    scene.arrange(plan);
    let paths = paths.iter().map(|path| rel(path)).collect();
    let done = scene.run(
        scene
            .volume
            .delete_files(scene.vfid, paths, recursive, reins()),
    );
    assert_eq!(scene.found(), left, "{plan:?}");
    done.unwrap()
}

#[test]
fn entries_are_deleted_themselves() {
    let plan = [
        "d/f=x",
        "e/",
        "f=x",
        "gone->nothing",
        "in->f",
        "out->/etc/passwd",
        "p|",
        "way->d",
    ];
    check_delete(
        &plan,
        &["f", "p", "e"],
        false,
        &[
            "d/",
            "d/f=x",
            "gone->nothing",
            "in->f",
            "out->/etc/passwd",
            "way->d",
        ],
    );
    check_delete(
        &plan,
        &["gone", "in", "out", "way"],
        false,
        &["d/", "d/f=x", "e/", "f=x", "p|"],
    );
    check_delete(
        &plan,
        &["gone", "in", "out", "way"],
        true,
        &["d/", "d/f=x", "e/", "f=x", "p|"],
    );
    let kept = check_delete(&["d/f=x", "e/"], &["d", "e"], false, &["d/", "d/f=x"]);
    assert_eq!((kept.entries, kept.kept), (1, vec![rel("d")]));
    let gone = check_delete(&["d/e/f=x", "d/e/g=x", "k=x"], &["d"], true, &["k=x"]);
    assert_eq!((gone.entries, gone.kept), (4, vec![]));
    check_delete(&["d/f=x", "way->d"], &["way/f"], false, &["d/", "way->d"]);
    check_delete(&["d/f=x"], &["d/../d/f"], false, &["d/"]);
    check_delete(&["d/e/f=x", "g=x"], &["d/e/.."], true, &["g=x"]);
}

#[test]
fn what_is_not_there_is_deleted() {
    let long = "n".repeat(300);
    for recursive in [false, true] {
        let paths = ["gone", "gone/deeper", "f/below", "f", "f", &long];
        let deleted = check_delete(&["f=x", "g=x"], &paths, recursive, &["g=x"]);
        assert_eq!(deleted.entries, 1);
        check_delete(&["g=x"], &[], recursive, &["g=x"]);
    }
}

#[test]
fn one_path_that_leads_out_refuses_all() {
    let plan = ["d/", "f=x", "out->/tmp", "self->."];
    let left = ["d/", "f=x", "out->/tmp", "self->."];
    for bad in [
        "..",
        "../x",
        "out/x",
        ".upload",
        ".upload/s",
        ".",
        "d/..",
        "d/../../x",
    ] {
        let scene = Scene::new();
        scene.arrange(&plan);
        let paths = vec![rel("f"), rel(bad)];
        let done = scene.run(scene.volume.delete_files(scene.vfid, paths, true, reins()));
        let refused = matches!(
            done,
            Err(VolumeError::InvalidSubpath { .. } | VolumeError::Refused(_))
        );
        assert!(refused, "{bad}: {done:?}");
        assert_eq!(scene.found(), left, "{bad}");
    }
}

#[test]
fn a_deleted_tree_takes_nothing_from_behind_its_links() {
    let scene = Scene::new();
    let outside = scene.home.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("keep"), "x").unwrap();
    scene.arrange(&["d/sub/f=x", "keep/g=x", "d/near->../keep"]);
    std::os::unix::fs::symlink(&outside, scene.at("d/sub/far")).unwrap();
    std::fs::write(scene.root.join("d").join(os(b"bad\xff")), "x").unwrap();
    let paths = vec![rel("d")];
    scene
        .run(scene.volume.delete_files(scene.vfid, paths, true, reins()))
        .unwrap();
    assert_eq!(scene.found(), ["keep/", "keep/g=x"]);
    assert!(outside.join("keep").exists());
}

#[test]
fn files_are_read_in_pieces() {
    let scene = Scene::new();
    scene.arrange(&["empty=", "d/", "in->big", "out->/etc/passwd", "p|"]);
    let content: Vec<u8> = (0..1_000_000u32).map(|byte| byte as u8).collect();
    std::fs::write(scene.at("big"), &content).unwrap();
    let read = |path: &str| {
        scene.run(async {
            let mut file = scene.volume.open_for_fetch(scene.vfid, rel(path)).await?;
            let mut all = Vec::new();
            while let Some(piece) = file.next().await? {
                assert!(piece.len() <= proxy_volume::PIECE_BYTES);
                all.extend(piece);
            }
            Ok(all)
        })
    };
    assert_eq!(read("big").unwrap(), content);
    assert_eq!(read("in").unwrap(), content);
    assert_eq!(read("empty").unwrap(), b"");
    assert_eq!(os_error(read("gone")), (2, "gone".to_owned()));
    assert_eq!(os_error(read("d")), (21, "d".to_owned()));
    assert_eq!(os_error(read("p")), (22, "p".to_owned()));
    assert!(matches!(
        read("out"),
        Err(VolumeError::InvalidSubpath { .. })
    ));
}
