//! Descriptors come back. Goal: after every kind of call, failed ones too, the process holds
//! as many as before. Method: one test alone in its process, counting `/proc/self/fd`.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::ops::ControlFlow;

use bed::{Bed, WAYS, rel};
use proxy_anchor::{staging, walk};
use proxy_core::id::SessionId;

const LIMITS: walk::Limits = walk::Limits {
    entries_max: 1000,
    depth_max: 5,
    name_bytes_max: 10_000,
};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn everything(bed: &Bed) {
    let paths = [
        ".",
        "f",
        "d",
        "d/x",
        "to_f",
        "to_d/x",
        "out",
        "self",
        "missing/x",
        "f/x",
        "fifo",
        "d/../f",
        "../x",
        ".upload/x",
        "deep/1/2/3/4/5/6/7",
    ];
    for path in paths.map(rel) {
        let _ = bed.root.open_read(&path);
        let _ = bed.root.open_read_cached(&path);
        let _ = bed.root.open_exact(&path);
        let _ = bed.root.stat(&path, true);
        let _ = bed.root.resolve_path(&path);
        let _ = bed
            .root
            .open_dir(&path)
            .map(|mut dir| dir.entries().count());
        let _ = bed.root.mkdir(&path.join(&rel("n/m")), true, true, 0o755);
        let _ = bed
            .root
            .rename(&path.join(&rel("n")), &path.join(&rel("k")));
        let _ = walk::snapshot(&bed.root, &path, LIMITS);
        let session = SessionId::random();
        let _ = staging::create(&bed.root, &session);
        let _ = staging::check_target(&bed.root, &path);
        let _ = staging::publish(&bed.root, &session, &path);
        let _ = staging::is_published(&bed.root, 1, 1, 0, &path);
        let _ = staging::discard(&bed.root, &session);
        let _ = staging::open(&bed.root, &session);
        let _ = staging::list(&bed.root);
    }
    let _ = bed.volume.vfolders().count();
    let _ = bed.volume.detached();
    for path in ["d", "deep", "out"].map(rel) {
        let _ = bed
            .root
            .remove_tree(&path, &mut |_| ControlFlow::Continue(()));
    }
}

#[test]
fn every_descriptor_is_closed() {
    for way in WAYS {
        let bed = Bed::new(way);
        let before = open_descriptors();
        for _ in 0..3 {
            bed.file("f", "")
                .file("d/x", "")
                .file("deep/1/2/3/4/5/6/7/x", "");
            if !bed.exists("out") {
                bed.link("to_f", "f")
                    .link("to_d", "d")
                    .link("out", "{outside}");
                bed.link("self", "self");
            }
            if !bed.exists("fifo") {
                bed.fifo("fifo");
            }
            everything(&bed);
            for link in ["to_f", "to_d", "out", "self"] {
                let _ = std::fs::remove_file(bed.host.join(link));
            }
            assert_eq!(open_descriptors(), before, "by {way:?}");
        }
        let tree = bed.volume.detach_vfolder(&bed.id).unwrap().unwrap();
        let watch = &mut |_| ControlFlow::Continue(());
        tree.remove_tree(watch).unwrap();
        tree.rmdir().unwrap();
        drop(tree);
        assert_eq!(open_descriptors(), before, "by {way:?}");
    }
}
