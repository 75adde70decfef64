//! Removing whole vfolders.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use proxy_volume::{Control, VolumeError};

use crate::moves::Unmount;
use crate::scene::{FOLDER, OTHER, Scene, describe, make, os, reins, vfid};

const TRASH: &str = ".trash-0123456789abcdef0123456789abcdef-00112233445566778899aabbccddeeff";
const OTHERS_TRASH: &str =
    ".trash-fedcba9876543210fedcba9876543210-00112233445566778899aabbccddeeff";

#[test]
fn a_folder_goes_with_all_that_is_in_it_and_empty_parents() {
    let scene = Scene::new();
    let outside = scene.home.path().join("outside");
    make(&outside, "keep=x");
    scene.arrange(&[".upload/s=1", "d/e/f=x", "gone->nothing", "p|", "up->../.."]);
    std::os::unix::fs::symlink(&outside, scene.at("d/far")).unwrap();
    std::fs::write(scene.root.join(os(b"bad\xff")), "x").unwrap();
    scene.arrange(&["closed/e/f=x"]);
    for (path, mode) in [("d/e", 0o500), ("closed/e", 0o000), ("closed", 0o100)] {
        std::fs::set_permissions(scene.at(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    scene.delete_folder(scene.vfid).unwrap();
    assert_eq!(
        describe(&scene.scope_dir()),
        [""; 0],
        "the scope stays, empty"
    );
    assert_eq!(describe(&outside), ["keep=x"]);
    scene.delete_folder(scene.vfid).unwrap();
}

#[test]
fn parents_with_other_folders_stay() {
    let scene = Scene::new();
    let near = "user:11111111-2222-3333-4444-555555555555/0124000000000000000000000000000f";
    scene
        .run(scene.volume.create_folder(vfid(near), 0o755, None, false))
        .unwrap();
    scene.delete_folder(scene.vfid).unwrap();
    let left = ["01/", "01/24/", "01/24/000000000000000000000000000f/"];
    assert_eq!(describe(&scene.scope_dir()), left);
}

#[test]
fn what_a_crash_left_behind_is_removed_by_the_second_run() {
    let scene = Scene::new();
    let plan = |name: &str| format!("{name}/d/e/f=x");
    make(&scene.scope_dir(), &plan(TRASH));
    make(&scene.scope_dir(), &plan(OTHERS_TRASH));
    scene.arrange(&["d/f=x"]);
    scene.delete_folder(scene.vfid).unwrap();
    let left = describe(&scene.scope_dir());
    assert!(
        left.iter().all(|line| line.starts_with(OTHERS_TRASH)),
        "{left:?}"
    );
    make(&scene.scope_dir(), &plan(TRASH));
    scene.delete_folder(scene.vfid).unwrap();
    assert!(
        !scene.scope_dir().join(TRASH).exists(),
        "also when the folder is gone already"
    );
    assert!(scene.scope_dir().join(OTHERS_TRASH).exists());
}

#[test]
fn a_cancelled_deletion_has_taken_the_name_and_can_be_finished() {
    let scene = Scene::new();
    scene.arrange(&["d/f=x"]);
    let control = Arc::new(Control::default());
    control.cancel();
    let done = scene.run(scene.volume.delete_folder(scene.vfid, Arc::clone(&control)));
    assert_eq!(done, Err(VolumeError::Cancelled));
    assert_eq!(scene.found(), ["d/", "d/f=x"], "nothing was begun");
    scene.delete_folder(scene.vfid).unwrap();
    assert_eq!(describe(&scene.scope_dir()), [""; 0]);
}

#[test]
fn a_dropped_deletion_stops_and_can_be_finished() {
    let scene = Scene::new();
    for number in 0..20_000 {
        std::fs::write(scene.at(&format!("f{number}")), "").unwrap();
    }
    let control = reins();
    let watched = Arc::clone(&control);
    scene.run(async {
        let deletion = scene.volume.delete_folder(scene.vfid, control);
        tokio::select! {
            done = deletion => done.unwrap(),
            () = begun(&watched) => {}
        }
    });
    scene.delete_folder(scene.vfid).unwrap();
    // The dropped one may still be at the entry it was at; nothing else is left to it.
    for _ in 0..1000 {
        if describe(&scene.scope_dir()).is_empty() {
            return;
        }
        scene.run(tokio::task::yield_now());
    }
    assert_eq!(describe(&scene.scope_dir()), [""; 0]);
}

async fn begun(control: &Control) {
    while control.progress().entries_done == 0 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn two_deletions_of_one_folder_both_succeed() {
    let scene = Scene::new();
    for dir in 0..300 {
        for file in 0..10 {
            make(&scene.root, &format!("d{dir}/s/f{file}=x"));
        }
    }
    let (one, two) = scene.run(async {
        let volume = &scene.volume;
        tokio::join!(
            volume.delete_folder(scene.vfid, reins()),
            volume.delete_folder(scene.vfid, reins())
        )
    });
    assert_eq!((one, two), (Ok(()), Ok(())));
    assert_eq!(describe(&scene.scope_dir()), [""; 0]);
}

#[test]
fn another_file_system_inside_is_not_emptied() {
    let scene = Scene::new();
    scene.arrange(&["d/other/"]);
    let at = scene.at("d/other");
    let flags = rustix::mount::MountFlags::NOSUID;
    let mounted = rustix::mount::mount("none", &at, "tmpfs", flags, None::<&std::ffi::CStr>);
    if let Err(error) = mounted {
        println!("skipped: no right to mount: {error}");
        return;
    }
    make(&at, "keep=x");
    let held = std::fs::File::open(&at).unwrap();
    let _unmount =
        Unmount(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held)).into());
    let paths = vec![crate::scene::rel("d")];
    let done = scene.run(scene.volume.delete_files(scene.vfid, paths, true, reins()));
    assert_eq!(crate::scene::os_error(done), (16, "d/other".to_owned()));
    let done = scene.delete_folder(scene.vfid);
    assert_eq!(crate::scene::os_error(done).0, 16);
    let kept = std::fs::read_to_string(format!(
        "/proc/self/fd/{}/keep",
        std::os::fd::AsRawFd::as_raw_fd(&held)
    ));
    assert_eq!(kept.unwrap(), "x");
}

#[test]
fn folders_that_never_were_are_deleted() {
    let scene = Scene::new();
    let unscoped = "0123456789abcdef0123456789abcdef";
    let elsewhere = FOLDER.replace("11111111-", "aaaaaaaa-");
    for id in [OTHER, unscoped, &elsewhere] {
        assert_eq!(scene.delete_folder(vfid(id)), Ok(()), "{id}");
    }
    assert!(scene.root.exists());
}
