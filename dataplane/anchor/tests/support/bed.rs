//! What every test here stands on: a volume with one vfolder, and things outside of it that
//! must never be touched.
//!
//! The volume lies in `STORAGE_TEST_ROOT` when that is set, so that the same tests run on any
//! file system; otherwise in the default temporary directory.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

use proxy_anchor::{AnchorError, VFolderRoot, VolumeRoot};
use proxy_core::id::VFolderId;
use proxy_core::relpath::RelPath;

pub const SCOPE: &str = "user:11111111-2222-3333-4444-555555555555";
pub const SCOPE_DIR: &str = "11111111222233334444555555555555";

/// What outside files hold; no answer may ever show it.
pub const SECRET: &str = "secret of somebody else";

/// How lookups are made: each table runs with all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Openat2,
    Portable,
}

pub const WAYS: [Way; 2] = [Way::Openat2, Way::Portable];

pub struct Bed {
    pub volume: VolumeRoot,
    pub id: VFolderId,
    pub root: VFolderRoot,
    /// The vfolder on this host.
    pub host: PathBuf,
    /// A directory beside the volume with `secret` in it.
    pub outside: PathBuf,
    _dir: tempfile::TempDir,
}

pub fn vfid(last: u8) -> VFolderId {
    VFolderId::parse(&format!("{SCOPE}/0123456789abcdef0123456789abcd{last:02x}")).unwrap()
}

pub fn test_dir() -> tempfile::TempDir {
    match std::env::var_os("STORAGE_TEST_ROOT") {
        Some(root) => tempfile::tempdir_in(root).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

impl Bed {
    pub fn new(way: Way) -> Self {
        let dir = test_dir();
        let path = dir.path().join("volume");
        let outside = dir.path().join("outside");
        for made in [&path, &outside] {
            fs::create_dir(made).unwrap();
        }
        fs::write(outside.join("secret"), SECRET).unwrap();
        let volume = match way {
            Way::Openat2 => VolumeRoot::open(&path).unwrap(),
            Way::Portable => VolumeRoot::open_portable(&path).unwrap(),
        };
        let id = vfid(0xef);
        // By hand: the real way syncs, and hundreds of trees are made here.
        fs::create_dir_all(path.join(id.components().join("/"))).unwrap();
        let root = volume.vfolder(&id).unwrap();
        let host = root.host_path().to_owned();
        let outside = fs::canonicalize(outside).unwrap();
        Self {
            volume,
            id,
            root,
            host,
            outside,
            _dir: dir,
        }
    }

    pub fn dir(&self, path: &str) -> &Self {
        fs::create_dir_all(self.host.join(path)).unwrap();
        self
    }

    pub fn file(&self, path: &str, content: &str) -> &Self {
        let path = self.host.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// `{host}`, `{outside}` and `{own}` (the last name of `{host}`) are filled in.
    pub fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.host.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let own = self.host.file_name().unwrap().to_str().unwrap();
        let target = target
            .replace("{host}", self.host.to_str().unwrap())
            .replace("{outside}", self.outside.to_str().unwrap())
            .replace("{own}", own);
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    pub fn fifo(&self, path: &str) -> &Self {
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mkfifoat(rustix::fs::CWD, self.host.join(path), mode).unwrap();
        self
    }

    pub fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.host.join(path)).is_ok()
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.host.join(path)).unwrap()
    }

    /// Names in a directory of the host, sorted.
    pub fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Outside is as it was.
    #[track_caller]
    pub fn assert_outside_untouched(&self) {
        assert_eq!(Self::names(&self.outside), ["secret"]);
        assert_eq!(
            fs::read_to_string(self.outside.join("secret")).unwrap(),
            SECRET
        );
    }
}

pub fn rel(path: &str) -> RelPath {
    RelPath::parse(path).unwrap()
}

/// A short word for an error, as the tables write it: `ENOENT`, `escapes`, `reserved`.
pub fn word(error: &AnchorError) -> String {
    use rustix::io::Errno;
    let AnchorError::Os { errno, .. } = error else {
        return match error {
            AnchorError::VFolderMissing => "missing".to_owned(),
            AnchorError::Escapes => "escapes".to_owned(),
            AnchorError::Reserved => "reserved".to_owned(),
            AnchorError::InvalidName => "invalid".to_owned(),
            other => format!("{other:?}"),
        };
    };
    let word = match Errno::from_raw_os_error(*errno) {
        Errno::NOENT => "ENOENT",
        Errno::NOTDIR => "ENOTDIR",
        Errno::ISDIR => "EISDIR",
        Errno::LOOP => "ELOOP",
        Errno::EXIST => "EEXIST",
        Errno::NAMETOOLONG => "ENAMETOOLONG",
        Errno::NOTEMPTY => "ENOTEMPTY",
        Errno::BUSY => "EBUSY",
        Errno::INVAL => "EINVAL",
        Errno::ACCESS => "EACCES",
        Errno::AGAIN => "EAGAIN",
        other => return format!("{other:?}"),
    };
    word.to_owned()
}

pub fn words<T>(result: Result<T, AnchorError>, good: impl FnOnce(T) -> String) -> String {
    match result {
        Ok(it) => good(it),
        Err(error) => word(&error),
    }
}

/// Tells other threads to stop, also when a test fails: a scope waits for all its threads.
pub struct StopOnDrop<'a>(pub &'a std::sync::atomic::AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
