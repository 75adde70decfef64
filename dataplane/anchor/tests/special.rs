//! Files that are not files. Goal: nothing that a user can put into a vfolder makes us wait,
//! and descriptors come out clean. Method: each call runs on its own thread with a deadline.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::time::Duration;

use bed::{Bed, WAYS, Way, rel, words};
use proxy_anchor::{Opened, VFolderRoot, staging, walk};
use proxy_core::id::SessionId;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::FdFlags;

const LIMITS: walk::Limits = walk::Limits {
    entries_max: 1000,
    depth_max: 10,
    name_bytes_max: 10_000,
};

/// Generous: a machine under load is slow, a FIFO without a peer is for ever.
const DEADLINE: Duration = Duration::from_secs(30);

#[track_caller]
fn in_time<T: Send + 'static>(
    root: &VFolderRoot,
    call: impl FnOnce(VFolderRoot) -> T + Send + 'static,
) -> T {
    let (done, wait) = mpsc::channel();
    let root = root.clone();
    std::thread::spawn(move || done.send(call(root)));
    wait.recv_timeout(DEADLINE)
        .expect("the call waits for somebody")
}

fn tree(way: Way) -> (Bed, Option<UnixListener>) {
    let bed = Bed::new(way);
    bed.file("f", "file")
        .fifo("fifo")
        .link("to_fifo", "fifo")
        .dir("d")
        .fifo("d/fifo");
    // Socket paths are short: bind by way of the working directory of nobody.
    let path = bed.host.join("socket");
    let socket = UnixListener::bind(&path).ok();
    let null = rustix::fs::makedev(1, 3);
    let mode = Mode::from_raw_mode(0o666);
    let device = bed.host.join("device");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        &device,
        FileType::CharacterDevice,
        mode,
        null,
    );
    if made.is_err() {
        eprintln!("skipped: device nodes need CAP_MKNOD");
    }
    (bed, socket)
}

fn kind(opened: Opened) -> String {
    let flags = rustix::io::fcntl_getfd(opened.fd.as_fd()).unwrap();
    assert!(flags.contains(FdFlags::CLOEXEC));
    let status = rustix::fs::fcntl_getfl(opened.fd.as_fd()).unwrap();
    if opened.stat.is_file() || opened.stat.is_dir() {
        assert!(
            !status.intersects(OFlags::NONBLOCK | OFlags::PATH),
            "{status:?}"
        );
    }
    format!("{:?}", FileType::from_raw_mode(opened.stat.mode))
}

#[test]
fn opening_never_waits() {
    for way in WAYS {
        let (bed, _socket) = tree(way);
        for (path, want) in [
            ("f", "RegularFile"),
            (".", "Directory"),
            ("fifo", "Fifo"),
            ("to_fifo", "Fifo"),
            ("d/fifo", "Fifo"),
            ("socket", "Socket"),
            ("device", "CharacterDevice"),
        ] {
            if !bed.exists(path) {
                eprintln!("skipped: no {path} here");
                continue;
            }
            let opened = in_time(&bed.root, move |root| root.open_read(&rel(path)));
            assert_eq!(words(opened, kind), want, "{path} by {way:?}");
            let cached = in_time(&bed.root, move |root| root.open_read_cached(&rel(path)));
            assert!(
                cached.is_none_or(|opened| words(opened, kind) == want),
                "{path}"
            );
            if path != "to_fifo" {
                let exact = in_time(&bed.root, move |root| root.open_exact(&rel(path)));
                assert_eq!(words(exact, kind), want, "{path} by {way:?}");
                let name = std::ffi::OsStr::new(path.rsplit('/').next().unwrap());
                let parent = rel(path).parent().unwrap_or(rel("."));
                let dir = bed.root.open_dir(&parent).unwrap();
                if path != "." {
                    assert_eq!(
                        words(dir.open_file(name), kind),
                        want,
                        "{path} in its directory"
                    );
                }
            }
        }
    }
}

#[test]
fn archives_and_staging_never_wait() {
    for way in WAYS {
        let (bed, _socket) = tree(way);
        let shot = in_time(&bed.root, |root| walk::snapshot(&root, &rel("."), LIMITS)).unwrap();
        let mut paths: Vec<_> = shot.entries().map(|entry| entry.path).collect();
        paths.sort();
        // "d" holds nothing that an archive can hold, so it is an empty directory there.
        assert_eq!(paths, [b"d".to_vec(), b"f".to_vec()]);
        for path in ["fifo", "socket", "device"]
            .into_iter()
            .filter(|path| bed.exists(path))
        {
            let shot = in_time(&bed.root, move |root| {
                walk::snapshot(&root, &rel(path), LIMITS)
            });
            assert!(shot.unwrap().is_empty(), "{path}");
        }

        let session = SessionId::random();
        bed.dir(".upload").fifo(&format!(".upload/{session}"));
        let opened = in_time(&bed.root, move |root| staging::open(&root, &session));
        assert_eq!(words(opened, |_| "open".to_owned()), "ENOENT");
        let published = in_time(&bed.root, move |root| {
            staging::publish(&root, &session, &rel("t"))
        });
        assert_eq!(words(published, |()| "published".to_owned()), "ENOENT");
        assert!(staging::list(&bed.root).unwrap().is_empty());
        staging::discard(&bed.root, &session).unwrap();
        assert!(!bed.exists(".upload"));
    }
}

#[test]
fn staged_descriptors_block_like_any_file() {
    let bed = Bed::new(Way::Openat2);
    let session = SessionId::random();
    drop(staging::create(&bed.root, &session).unwrap());
    let staged = staging::open(&bed.root, &session).unwrap();
    let status = rustix::fs::fcntl_getfl(&staged.fd).unwrap();
    assert!(
        status.contains(OFlags::RDWR) && !status.contains(OFlags::NONBLOCK),
        "{status:?}"
    );
    assert!(
        rustix::io::fcntl_getfd(&staged.fd)
            .unwrap()
            .contains(FdFlags::CLOEXEC)
    );
}
