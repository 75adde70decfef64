//! Scopes, vfolders and the hidden trees beside them. Goal: a vfolder is there as a whole or
//! missing, and nothing else in a volume is taken for one.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bed::{Bed, SCOPE_DIR, WAYS, Way, rel, vfid, word, words};
use proxy_anchor::{AnchorError, Detached, VolumeRoot};
use proxy_core::id::{QuotaScopeId, VFolderId};

const LEGACY: &str = "aabb0000000000000000000000000001";

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn outcome(result: Result<(), AnchorError>) -> String {
    words(result, |()| "ok".to_owned())
}

fn remove(tree: &Detached) -> u64 {
    let removed = tree
        .remove_tree(&mut |_| ControlFlow::Continue(()))
        .unwrap();
    assert!(removed.complete);
    tree.rmdir().unwrap();
    tree.rmdir().unwrap();
    removed.entries
}

#[test]
fn abilities_are_found_and_nothing_is_left() {
    for dir in ["/tmp", "/dev/shm"] {
        let Ok(home) = tempfile::tempdir_in(dir) else {
            println!("skipped: {dir} is not writable");
            continue;
        };
        let abilities = VolumeRoot::open(home.path()).unwrap().abilities();
        // Every file system of these machines can do that; the others are told as they are.
        assert!(abilities.splice, "{dir}: {abilities:?}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "{dir}");
        let reflinks = abilities
            .named()
            .into_iter()
            .find(|(name, _)| *name == "reflink");
        assert_eq!(reflinks, Some(("reflink", abilities.reflink)));
    }
    let nowhere = VolumeRoot::open(Path::new("/proc")).unwrap();
    assert_eq!(nowhere.abilities(), proxy_anchor::Abilities::default());
}

#[test]
fn vfolders_lie_where_the_layout_says() {
    for way in WAYS {
        let bed = Bed::new(way);
        let want = bed
            .volume
            .path()
            .join(SCOPE_DIR)
            .join("01/23/456789abcdef0123456789abcdef");
        assert_eq!(bed.host, want);
        assert!(want.is_dir());
        let legacy = VFolderId::parse(LEGACY).unwrap();
        bed.volume.create_vfolder(&legacy, 0o755).unwrap();
        let root = bed.volume.vfolder(&legacy).unwrap();
        let want = bed.volume.path().join("aa/bb/0000000000000000000000000001");
        assert_eq!(root.host_path(), want);
        assert_eq!(root.id(), &legacy);
    }
}

#[test]
fn making_twice_or_nowhere_is_refused() {
    for way in WAYS {
        let bed = Bed::new(way);
        let scope = bed.id.scope.unwrap();
        assert_eq!(outcome(bed.volume.create_vfolder(&bed.id, 0o755)), "EEXIST");
        assert_eq!(outcome(bed.volume.create_scope(&scope)), "EEXIST");
        assert!(bed.volume.scope_exists(&scope).unwrap());

        let text = "project:99999999-2222-3333-4444-555555555555";
        let other = QuotaScopeId::parse(text).unwrap();
        assert!(!bed.volume.scope_exists(&other).unwrap());
        let id = VFolderId {
            scope: Some(other),
            folder: bed.id.folder,
        };
        let error = bed.volume.create_vfolder(&id, 0o755).unwrap_err();
        assert_eq!(word(&error), "ENOENT");
        assert!(!bed.volume.path().join(other.dir_name()).exists());
        assert_eq!(
            words(bed.volume.vfolder(&id), |_| "found".to_owned()),
            "missing"
        );
        let error = bed.volume.vfolder(&vfid(1)).unwrap_err();
        assert_eq!(error, AnchorError::VFolderMissing);

        std::fs::write(bed.volume.path().join(other.dir_name()), "a file").unwrap();
        assert!(!bed.volume.scope_exists(&other).unwrap());
        assert_eq!(
            words(bed.volume.vfolder(&id), |_| "found".to_owned()),
            "missing"
        );
    }
}

#[test]
fn modes_are_exact_when_asked_for() {
    let bed = Bed::new(Way::Openat2);
    for (last, asked, want) in [(1, 0o755, 0o755), (2, 0o777, 0o777), (3, 0o700, 0o700)] {
        bed.volume.create_vfolder(&vfid(last), asked).unwrap();
        let host = bed
            .volume
            .vfolder(&vfid(last))
            .unwrap()
            .host_path()
            .to_owned();
        // 0755 goes through the umask, which no sane one makes larger.
        assert_eq!(mode(&host) & !0o755, want & !0o755);
        assert!(asked == 0o755 || mode(&host) == want, "{asked:o}");
    }
}

#[test]
fn a_vfolder_behind_a_link_of_the_operator_is_found_inside_the_volume_only() {
    for way in WAYS {
        let bed = Bed::new(way);
        bed.file("f", "content");
        let volume = bed.volume.path();
        std::fs::rename(volume.join(SCOPE_DIR), volume.join("moved")).unwrap();
        std::os::unix::fs::symlink("moved", volume.join(SCOPE_DIR)).unwrap();
        let root = bed.volume.vfolder(&bed.id).unwrap();
        let want = volume.join("moved/01/23/456789abcdef0123456789abcdef");
        assert_eq!(root.host_path(), want);
        assert!(root.open_read(&rel("f")).unwrap().stat.is_file());

        std::fs::remove_file(volume.join(SCOPE_DIR)).unwrap();
        std::os::unix::fs::symlink(&bed.outside, volume.join(SCOPE_DIR)).unwrap();
        std::fs::create_dir_all(bed.outside.join("01/23/456789abcdef0123456789abcdef")).unwrap();
        assert_eq!(
            words(bed.volume.vfolder(&bed.id), |_| "found".to_owned()),
            "missing"
        );
    }
}

#[test]
fn a_detached_vfolder_is_missing_at_once_and_removed_later() {
    for way in WAYS {
        let bed = Bed::new(way);
        bed.file("a/b/c", "x")
            .file("d", "y")
            .file(".upload/z", "z")
            .link("out", "{outside}");
        let kept = bed.root.open_read(&rel("d")).unwrap();
        let tree = bed.volume.detach_vfolder(&bed.id).unwrap().unwrap();
        assert_eq!(tree.id(), &bed.id);
        assert_eq!(
            words(bed.volume.vfolder(&bed.id), |_| "found".to_owned()),
            "missing"
        );
        assert!(bed.volume.detach_vfolder(&bed.id).unwrap().is_none());
        assert_eq!(bed.volume.vfolders().count(), 0);
        // Names that only look like ours are somebody else's.
        let folder = bed.id.folder.simple();
        for odd in [
            format!(".trash-{folder}-backup"),
            format!(".trash-{folder}"),
            ".trash-1-2".into(),
        ] {
            std::fs::create_dir(bed.volume.path().join(SCOPE_DIR).join(odd)).unwrap();
        }
        // As after a crash: found again, in the same scope.
        drop(tree);
        let left = bed.volume.detached().unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].id().folder, bed.id.folder);
        assert_eq!(remove(&left[0]), 7);
        assert!(bed.volume.detached().unwrap().is_empty());
        drop(kept);

        bed.volume.prune_parents(&bed.id);
        let odd = Bed::names(&bed.volume.path().join(SCOPE_DIR));
        assert!(odd.len() == 3 && odd.iter().all(|name| name.starts_with(".trash-")));
        bed.volume.prune_parents(&bed.id);
        assert!(bed.volume.scope_exists(&bed.id.scope.unwrap()).unwrap());
        bed.volume.create_vfolder(&bed.id, 0o755).unwrap();
        bed.assert_outside_untouched();
    }
}

#[test]
fn pruning_stops_at_neighbours() {
    let bed = Bed::new(Way::Openat2);
    bed.volume.create_vfolder(&vfid(1), 0o755).unwrap();
    remove(&bed.volume.detach_vfolder(&bed.id).unwrap().unwrap());
    bed.volume.prune_parents(&bed.id);
    assert!(bed.volume.vfolder(&vfid(1)).is_ok());
    let legacy = VFolderId::parse(LEGACY).unwrap();
    bed.volume.create_vfolder(&legacy, 0o755).unwrap();
    remove(&bed.volume.detach_vfolder(&legacy).unwrap().unwrap());
    bed.volume.prune_parents(&legacy);
    assert_eq!(Bed::names(bed.volume.path()), [SCOPE_DIR]);
}

#[test]
fn a_clone_appears_as_a_whole() {
    for way in WAYS {
        let bed = Bed::new(way);
        let id = vfid(1);
        let hidden = bed.volume.create_hidden(&id, 0o755).unwrap();
        hidden.dir.mkdir(OsStr::new("sub"), 0o755).unwrap();
        drop(hidden.dir.create_file(OsStr::new("f"), 0o644).unwrap());
        assert_eq!(
            words(bed.volume.vfolder(&id), |_| "found".to_owned()),
            "missing"
        );
        assert_eq!(bed.volume.vfolders().count(), 1);
        assert!(bed.volume.detached().unwrap().is_empty());
        assert_eq!(bed.volume.unfinished_clones(&id).unwrap().len(), 1);
        assert!(bed.volume.unfinished_clones(&vfid(2)).unwrap().is_empty());

        bed.volume.publish_vfolder(&hidden).unwrap();
        let root = bed.volume.vfolder(&id).unwrap();
        assert_eq!(Bed::names(root.host_path()), ["f", "sub"]);
        assert!(bed.volume.unfinished_clones(&id).unwrap().is_empty());
        // Published twice: nothing hidden is left to publish.
        assert_eq!(outcome(bed.volume.publish_vfolder(&hidden)), "ENOENT");

        let second = bed.volume.create_hidden(&id, 0o755).unwrap();
        assert_eq!(outcome(bed.volume.publish_vfolder(&second)), "EEXIST");
        assert_eq!(Bed::names(root.host_path()), ["f", "sub"]);
        assert_eq!(remove(&second.abandon()), 0);
        assert!(bed.volume.unfinished_clones(&id).unwrap().is_empty());
    }
}

#[test]
fn only_vfolders_are_listed() {
    for way in WAYS {
        let bed = Bed::new(way);
        let legacy = VFolderId::parse(LEGACY).unwrap();
        bed.volume.create_vfolder(&legacy, 0o755).unwrap();
        bed.volume.create_vfolder(&vfid(1), 0o755).unwrap();
        let detached = bed.volume.detach_vfolder(&vfid(1)).unwrap().unwrap();
        let hidden = bed.volume.create_hidden(&vfid(2), 0o755).unwrap();
        let volume = bed.volume.path();
        std::fs::write(volume.join("version.txt"), "3").unwrap();
        std::fs::write(volume.join("ff"), "no level").unwrap();
        let scope = volume.join(SCOPE_DIR);
        for odd in [
            "AB/cd/0123456789abcdef0123456789ab",
            "01/23/short",
            "01/zz",
            "lost+found",
        ] {
            std::fs::create_dir_all(scope.join(odd)).unwrap();
        }
        std::fs::write(scope.join("01/23/0123456789abcdef012345678901"), "a file").unwrap();
        std::fs::write(scope.join(".quota_id"), "1").unwrap();
        std::os::unix::fs::symlink(&bed.outside, volume.join("0".repeat(32))).unwrap();

        let mut found: Vec<_> = bed
            .volume
            .vfolders()
            .map(|id| id.unwrap().to_string())
            .collect();
        found.sort();
        assert_eq!(found, [LEGACY.to_owned(), bed.id.to_string()]);
        drop((detached, hidden));
    }
}

#[test]
fn space_is_that_of_the_file_system() {
    let bed = Bed::new(Way::Openat2);
    let usage = bed.volume.statvfs().unwrap();
    assert!(0 < usage.capacity_bytes);
    assert!(usage.used_bytes <= usage.capacity_bytes);
    assert!(VolumeRoot::open(Path::new("/nowhere/at/all")).is_err());
    assert!(VolumeRoot::open(&bed.outside.join("secret")).is_err());
}

#[test]
fn cached_vfolders_are_the_same() {
    let bed = Bed::new(Way::Openat2);
    match bed.volume.vfolder_cached(&bed.id) {
        Some(root) => assert_eq!(root.unwrap().host_path(), bed.host),
        None => eprintln!("skipped: no RESOLVE_CACHED on this kernel or file system"),
    }
    if let Some(root) = bed.volume.vfolder_cached(&vfid(9)) {
        assert_eq!(words(root, |_| "found".to_owned()), "missing");
    }
}

#[test]
fn making_and_pruning_vfolders_side_by_side_loses_none() {
    const ROUNDS: usize = 150;
    for way in WAYS {
        let bed = Bed::new(way);
        remove(&bed.volume.detach_vfolder(&bed.id).unwrap().unwrap());
        std::thread::scope(|scope| {
            for last in 0..3 {
                let volume = &bed.volume;
                scope.spawn(move || {
                    let id = vfid(last);
                    for _ in 0..ROUNDS {
                        volume.create_vfolder(&id, 0o755).unwrap();
                        volume.vfolder(&id).unwrap();
                        let tree = volume.detach_vfolder(&id).unwrap().unwrap();
                        remove(&tree);
                        volume.prune_parents(&id);
                    }
                });
            }
        });
        assert_eq!(
            Bed::names(&bed.volume.path().join(SCOPE_DIR)),
            Vec::<String>::new()
        );
    }
}
