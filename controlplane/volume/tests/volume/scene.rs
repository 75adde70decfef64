//! A volume in a temporary directory, and ways to arrange and read its disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proxy_core::id::{QuotaScopeId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_volume::{Control, Limits, Spec, Volume, VolumeError, Volumes};
use rustix::fs::{CWD, Mode, OFlags};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The vfolder that every scene has.
pub const FOLDER: &str =
    "user:11111111-2222-3333-4444-555555555555/0123456789abcdef0123456789abcdef";
/// One that no scene has, in the same scope.
pub const OTHER: &str =
    "user:11111111-2222-3333-4444-555555555555/fedcba9876543210fedcba9876543210";

pub struct Scene {
    runtime: Runtime,
    pub home: TempDir,
    pub volumes: Arc<Volumes>,
    pub volume: Arc<Volume>,
    pub vfid: VFolderId,
    pub root: PathBuf,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        Self::within(std::env::temp_dir(), limits)
    }

    pub fn within(place: PathBuf, limits: Limits) -> Self {
        let home = tempfile::tempdir_in(place).unwrap();
        let mount = home.path().join("mount");
        std::fs::create_dir(&mount).unwrap();
        let volumes = Arc::new(Volumes::new(vec![spec("v1", &mount)], &limits).unwrap());
        let volume = volumes.find("v1").unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        let vfid = vfid(FOLDER);
        runtime
            .block_on(volume.create_folder(vfid, 0o755, None, true))
            .unwrap();
        let root = runtime
            .block_on(volume.mount_path(vfid, RelPath::root()))
            .unwrap();
        Self {
            runtime,
            home,
            volumes,
            volume,
            vfid,
            root,
        }
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn mount(&self) -> PathBuf {
        self.home.path().join("mount").canonicalize().unwrap()
    }

    pub fn scope_dir(&self) -> PathBuf {
        self.mount().join("11111111222233334444555555555555")
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Makes what `plan` says, a line each: `dir/`, `file=content`, `link->target`, `fifo|`.
    pub fn arrange(&self, plan: &[&str]) {
        for line in plan {
            make(&self.root, line);
        }
    }

    /// Everything below the vfolder, in the words of [`Self::arrange`].
    pub fn found(&self) -> Vec<String> {
        describe(&self.root)
    }

    pub fn list(&self, path: &str, limit: usize) -> Result<Vec<proxy_volume::Entry>, VolumeError> {
        let listing = self.volume.list(self.vfid, rel(path), limit);
        self.run(async { listing.await?.all().await })
    }

    pub fn delete_folder(&self, vfid: VFolderId) -> Result<(), VolumeError> {
        self.run(self.volume.delete_folder(vfid, reins()))
    }
}

pub fn spec(name: &str, path: &Path) -> Spec {
    Spec {
        name: name.to_owned(),
        backend: "vfs".to_owned(),
        path: path.to_owned(),
        fsprefix: ".".to_owned(),
        options: serde_json::Map::new(),
    }
}

pub fn vfid(text: &str) -> VFolderId {
    VFolderId::parse(text).unwrap()
}

pub fn scope() -> QuotaScopeId {
    vfid(FOLDER).scope.unwrap()
}

pub fn rel(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

pub fn reins() -> Arc<Control> {
    Arc::new(Control::default())
}

/// Makes one entry below `root`, with its parents.
pub fn make(root: &Path, line: &str) {
    let parent = |path: &Path| std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    if let Some((path, target)) = line.split_once("->") {
        let path = root.join(path);
        parent(&path);
        symlink(target, path).unwrap();
    } else if let Some((path, content)) = line.split_once('=') {
        let path = root.join(path);
        parent(&path);
        std::fs::write(path, content).unwrap();
    } else if let Some(path) = line.strip_suffix('|') {
        let path = root.join(path);
        parent(&path);
        fifo(&path);
    } else {
        std::fs::create_dir_all(root.join(line)).unwrap();
    }
}

pub fn fifo(path: &Path) {
    let mode = Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

/// Everything below `root`, sorted; undecodable names are replaced.
pub fn describe(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            let meta = path.symlink_metadata().unwrap();
            found.push(match () {
                () if meta.is_dir() => {
                    todo.push(path);
                    format!("{name}/")
                }
                () if meta.is_symlink() => {
                    format!(
                        "{name}->{}",
                        std::fs::read_link(&path).unwrap().to_string_lossy()
                    )
                }
                () if meta.is_file() => {
                    format!(
                        "{name}={}",
                        String::from_utf8_lossy(&std::fs::read(&path).unwrap())
                    )
                }
                () => format!("{name}|"),
            });
        }
    }
    found.sort();
    found
}

/// What a tree is made of, by path: type and mode, size, link count of files, mtime, target.
pub fn facts(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec();
            let mut text = format!("{:o} {}.{}", meta.mode(), meta.mtime(), meta.mtime_nsec());
            if meta.is_symlink() {
                text += &format!(" {}", std::fs::read_link(&path).unwrap().to_string_lossy());
            } else if meta.is_dir() {
                todo.push(path);
            } else {
                text += &format!(" {} bytes, {} names", meta.size(), meta.nlink());
            }
            found.insert(name, text);
        }
    }
    found
}

/// A chain of directories `name` with `levels` levels below `root`, and a file in the last.
/// Longer than any path, so it is made one name at a time. With `fan`, every level has a
/// sibling directory and a file as well.
pub fn deep(root: &Path, name: &str, levels: usize, fan: bool) {
    let open = |dir: &OwnedFd, name: &str| {
        rustix::fs::openat(dir, name, OFlags::DIRECTORY | OFlags::PATH, Mode::empty()).unwrap()
    };
    let mkdir = |dir: &OwnedFd, name: &str| {
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)).unwrap();
    };
    let mut dir = rustix::fs::open(root, OFlags::DIRECTORY | OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdir(&dir, name);
        if fan {
            mkdir(&dir, "side");
            touch(&dir, "file");
        }
        dir = open(&dir, name);
    }
    touch(&dir, "end");
}

fn touch(dir: &OwnedFd, name: &str) {
    let flags = OFlags::CREATE | OFlags::WRONLY;
    drop(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)).unwrap());
}

pub fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Descriptors that this process has open.
pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The error of the system that an operation failed with: number and path.
pub fn os_error<T: std::fmt::Debug>(done: Result<T, VolumeError>) -> (i32, String) {
    match done {
        Err(VolumeError::Os { errno, path, .. }) => (errno, path),
        other => panic!("an error of the system was expected: {other:?}"),
    }
}
