//! A mounted volume: quota scopes, vfolders, and the hidden trees beside them.
//!
//! Layout: `<scope, 32 hex>/<aa>/<bb>/<28 hex>`; folders from before quota scopes lack the
//! first level. Everything else in a volume is not ours and is left alone.
//!
//! Laws
//! - Above a vfolder only this program and the operator make names, so links that stay in the
//!   volume are followed there.
//! - Making a vfolder, its scope, or publishing a clone is durable when it returns.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proxy_core::id::{QuotaScopeId, SessionId, VFolderId};
use proxy_core::relpath::RelPath;
use rustix::fs::{Mode, OFlags, RenameFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::abilities::Abilities;
use crate::components::Missing;
use crate::dir::Dir;
use crate::error::{AnchorError, Result, Stop};
use crate::hidden::{Detached, Hidden, Why};
use crate::listing::{VFolders, scope_of, vfolder_id};
use crate::resolve::{Base, Last, has_parent_refs, split};
use crate::stat::{Opened, Stat};
use crate::sys;
use crate::vfolder::{VFolderRoot, check, on_entry};

/// Mode of a new scope or vfolder directory before anybody asks for another.
const DIR_MODE: u32 = 0o755;

/// A volume, held by a descriptor of its mount point. Cheap to clone.
#[derive(Clone, Debug)]
pub struct VolumeRoot {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `O_PATH`.
    fd: OwnedFd,
    /// Canonical.
    path: PathBuf,
    portable: bool,
    /// A name that clients' paths may not have anywhere.
    reserved: Option<Box<str>>,
    opens_without_waiting: bool,
    abilities: Abilities,
}

/// Space on the file system of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsUsage {
    /// All of it.
    pub capacity_bytes: u64,
    /// What unprivileged users cannot write to any more.
    pub used_bytes: u64,
}

impl VolumeRoot {
    /// Opens the mount point, and tries what its file system can do.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_reserving(path, None)
    }

    /// As [`VolumeRoot::open`]; `reserved` is a name that no path of a client may have anywhere,
    /// nor any link that is followed for one: where a storage system shows its snapshots, in every
    /// directory.
    pub fn open_reserving(path: &Path, reserved: Option<&str>) -> io::Result<Self> {
        Self::open_as(path, false, None, reserved)
    }

    /// As [`VolumeRoot::open`], but never uses `openat2`: the way of old kernels, for tests
    /// and for sandboxes that kill the caller of an unknown system call.
    pub fn open_portable(path: &Path) -> io::Result<Self> {
        Self::open_as(path, true, None, None)
    }

    fn open_as(
        path: &Path,
        portable: bool,
        known: Option<Abilities>,
        reserved: Option<&str>,
    ) -> io::Result<Self> {
        let path = std::fs::canonicalize(path)?;
        let flags = sys::DIR_HANDLE | OFlags::CLOEXEC;
        let fd = sys::retry(|| rustix::fs::open(&path, flags, Mode::empty()))?;
        let opens_without_waiting =
            rustix::fs::fstatfs(&fd).is_ok_and(|fs| opens_without_waiting(fs.f_type as u64));
        // Where no file can be made, none is written fast either.
        let abilities = known.unwrap_or_else(|| Abilities::probe(&fd).unwrap_or_default());
        let inner = Inner {
            fd,
            path,
            portable,
            reserved: reserved.map(Box::from),
            opens_without_waiting,
            abilities,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whether the path of the volume still leads to the opened directory. Something that was
    /// mounted there since, or is no longer, makes it another one.
    ///
    /// # Errors
    /// Only those of the system, such as a path that is gone.
    pub fn is_current(&self) -> io::Result<bool> {
        use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let open = statx(&self.inner.fd, "", AtFlags::EMPTY_PATH, wanted)?;
        let named = statx(CWD, &self.inner.path, AtFlags::empty(), wanted)?;
        let of = |found: &rustix::fs::Statx| {
            let device = (found.stx_dev_major, found.stx_dev_minor);
            (device, found.stx_ino, found.stx_mnt_id)
        };
        Ok(of(&open) == of(&named))
    }

    /// The mount point on this host, without links.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Space on the file system.
    pub fn statvfs(&self) -> Result<FsUsage> {
        let fs = sys::retry(|| rustix::fs::fstatvfs(&self.inner.fd))
            .map_err(|errno| AnchorError::os("statvfs", errno, b"."))?;
        let capacity_bytes = fs.f_frsize.saturating_mul(fs.f_blocks);
        let used = fs.f_blocks.saturating_sub(fs.f_bavail);
        Ok(FsUsage {
            capacity_bytes,
            used_bytes: fs.f_frsize.saturating_mul(used),
        })
    }

    /// What the file system can do, as found out when it was opened. Nothing where no file can be
    /// made.
    pub fn abilities(&self) -> Abilities {
        self.inner.abilities
    }

    /// True when device nodes on the volume cannot be opened. Without it, a user who can make
    /// device nodes can have us open one (for reading, and close it at once).
    pub fn is_nodev(&self) -> bool {
        rustix::fs::fstatvfs(&self.inner.fd)
            .is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NODEV))
    }

    /// The mount point itself: `O_PATH`.
    pub(crate) fn handle(&self) -> &OwnedFd {
        &self.inner.fd
    }

    pub(crate) fn is_portable(&self) -> bool {
        self.inner.portable
    }

    pub(crate) fn reserved(&self) -> Option<&str> {
        self.inner.reserved.as_deref()
    }

    pub(crate) fn opens_without_waiting(&self) -> bool {
        self.inner.opens_without_waiting
    }

    /// Looks a vfolder up.
    ///
    /// # Errors
    /// [`AnchorError::VFolderMissing`] when it is absent or not a directory.
    pub fn vfolder(&self, id: &VFolderId) -> Result<VFolderRoot> {
        match self.find_vfolder(id) {
            // The server forgot the mount's own directory: open it anew.
            Err(error) if error.kernel() == Some(Errno::STALE) => {
                let fresh = {
                    let Inner {
                        path,
                        portable,
                        abilities,
                        ..
                    } = &*self.inner;
                    Self::open_as(path, *portable, Some(*abilities), self.reserved())
                };
                let fresh = fresh.map_err(|_| AnchorError::VFolderMissing)?;
                fresh.find_vfolder(id)
            }
            found => found,
        }
    }

    fn find_vfolder(&self, id: &VFolderId) -> Result<VFolderRoot> {
        let path = id.components().join("/");
        match self.base().dir(path.as_bytes(), sys::DIR_HANDLE) {
            Ok(found) => Ok(self.root_of(id, found.it, &found.location)),
            Err(Stop::Errno(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) | Err(Stop::Escapes) => {
                Err(AnchorError::VFolderMissing)
            }
            Err(stop) => Err(stop.at("open", path.as_bytes())),
        }
    }

    /// As [`VolumeRoot::vfolder`], from the kernel's caches alone. `None`: waiting would be
    /// needed, or the answer is not simple.
    pub fn vfolder_cached(&self, id: &VFolderId) -> Option<Result<VFolderRoot>> {
        if !self.inner.opens_without_waiting {
            return None;
        }
        let path = id.components().join("/");
        match self.base().cached(path.as_bytes(), sys::DIR_HANDLE)? {
            Ok(fd) => Some(Ok(self.root_of(id, fd, path.as_bytes()))),
            Err(_) => Some(Err(AnchorError::VFolderMissing)),
        }
    }

    /// Opens a regular file of a vfolder by one `openat2`, from the kernel's caches alone.
    ///
    /// `None`: anything but a regular file in a plain place. Then look the vfolder up with
    /// [`VolumeRoot::vfolder_cached`], which knows the answer or the reason.
    ///
    /// Contained: both halves of the path are free of `..`, and no link is followed.
    pub fn open_file_cached(&self, id: &VFolderId, path: &RelPath) -> Option<Opened> {
        if !self.inner.opens_without_waiting {
            return None;
        }
        let name = self.joined(id, path)?;
        let opened = self.base().read_cached(&name)?.ok()?;
        opened.stat.is_file().then_some(opened)
    }

    /// Whether a file that [`VolumeRoot::open_file_cached`] opened still has its name, and
    /// neither content nor inode changed since `stat` was taken: one statx(2).
    ///
    /// Links and `..` cannot deceive: whatever the name leads to must be the very inode that was
    /// opened beneath the vfolder, unchanged, and what is then read is read from that.
    pub fn is_unchanged(&self, id: &VFolderId, path: &RelPath, stat: &Stat) -> bool {
        self.joined(id, path)
            .is_some_and(|name| Stat::of_entry(&self.inner.fd, &name).is_ok_and(|now| now == *stat))
    }

    fn root_of(&self, id: &VFolderId, fd: OwnedFd, location: &[u8]) -> VFolderRoot {
        use std::os::unix::ffi::OsStrExt;
        let host = self.inner.path.join(std::ffi::OsStr::from_bytes(location));
        VFolderRoot::new(fd, host, self.clone(), *id)
    }

    /// True when the directory of a quota scope is there.
    pub fn scope_exists(&self, scope: &QuotaScopeId) -> Result<bool> {
        let name = scope.dir_name();
        match self.base().dir(name.as_bytes(), sys::DIR_HANDLE) {
            Ok(_) => Ok(true),
            Err(Stop::Errno(Errno::NOENT | Errno::NOTDIR)) => Ok(false),
            Err(stop) => Err(stop.at("open", name.as_bytes())),
        }
    }

    /// Makes the directory of a quota scope, 0755 through the umask. `EEXIST` when there.
    pub fn create_scope(&self, scope: &QuotaScopeId) -> Result<()> {
        let name = scope.dir_name();
        let os = |errno| AnchorError::os("mkdir", errno, name.as_bytes());
        sys::mkdir(&self.inner.fd, name.as_bytes(), DIR_MODE).map_err(os)?;
        unless_unreadable(sys::sync_handle(&self.inner.fd)).map_err(os)
    }

    /// The directory of a quota scope, or of the volume for folders without one.
    pub fn open_scope(&self, scope: Option<&QuotaScopeId>) -> Result<Dir> {
        let name = scope.map_or_else(|| ".".to_owned(), QuotaScopeId::dir_name);
        let found = self.base().dir(name.as_bytes(), sys::DIR_READ);
        let found = found.map_err(|stop| stop.at("open", name.as_bytes()))?;
        Ok(Dir::new(found.it, found.location))
    }

    /// Makes a vfolder; its scope has to be there (`ENOENT`), the levels between are made.
    ///
    /// With a `mode` other than 0755 the directory gets exactly that; else 0755 through the
    /// umask. `EEXIST` when it is there.
    pub fn create_vfolder(&self, id: &VFolderId, mode: u32) -> Result<()> {
        self.open_scope(id.scope.as_ref())?;
        let path = id.components().join("/");
        let missing = Missing::Make;
        on_entry(
            &self.base(),
            "mkdir",
            path.as_bytes(),
            missing,
            |dir, name| {
                sys::mkdir(dir, name, DIR_MODE)?;
                set_mode(dir, name, mode)?;
                unless_unreadable(dir.sync())
            },
        )
    }

    /// Takes a vfolder's name away: from now on it is missing. `None` when it already is.
    ///
    /// The tree stays in the same scope under a hidden name, to be removed with
    /// [`Detached::remove_tree`] and [`Detached::rmdir`].
    pub fn detach_vfolder(&self, id: &VFolderId) -> Result<Option<Detached>> {
        let path = id.components().join("/");
        let os = |stop: Stop| stop.at("detach", path.as_bytes());
        let Last::Entry(parent, last) = split(path.as_bytes()) else {
            return Err(AnchorError::InvalidName);
        };
        let parent = match self.base().parent(parent, last, Missing::Refuse) {
            Err(Stop::Errno(Errno::NOENT | Errno::NOTDIR)) => return Ok(None),
            parent => parent.map_err(os)?,
        };
        if !Stat::of_entry(&parent, last).is_ok_and(|stat| stat.is_dir()) {
            return Ok(None);
        }
        let holder = self.holder(id)?;
        let name = Why::Trash.name(id, SessionId::random());
        match sys::rename(&parent, last, &holder, name.as_bytes()) {
            Err(Errno::NOENT) => return Ok(None),
            renamed => renamed.map_err(|errno| os(errno.into()))?,
        }
        let fd = sys::open(&holder, name.as_bytes(), sys::DIR_READ | OFlags::NOFOLLOW)
            .map_err(|errno| os(errno.into()))?;
        Ok(Some(Detached {
            dir: Dir::new(fd, Vec::new()),
            holder,
            name,
            id: *id,
        }))
    }

    /// Removes the two levels above a vfolder as far as they are empty. Never fails: somebody
    /// may just be making a vfolder there.
    pub fn prune_parents(&self, id: &VFolderId) {
        let mut path = id.components();
        path.pop();
        for _ in 0..2 {
            let name = path.join("/");
            let rmdir = |dir: &crate::resolve::Parent<'_>, name: &[u8]| sys::rmdir(dir, name);
            let missing = Missing::Refuse;
            if on_entry(&self.base(), "rmdir", name.as_bytes(), missing, rmdir).is_err() {
                return;
            }
            path.pop();
        }
    }

    /// Trees that were detached but not removed, for example because of a crash.
    pub fn detached(&self) -> Result<Vec<Detached>> {
        let mut found = Vec::new();
        self.hidden_in(None, Why::Trash, None, &mut found)?;
        for scope in self.open_scope(None)?.entries() {
            let name = scope?.name;
            if let Some(scope) = name.to_str().and_then(scope_of) {
                self.hidden_in(Some(&scope), Why::Trash, None, &mut found)?;
            }
        }
        Ok(found)
    }

    /// Trees that were to become this vfolder and were left behind.
    pub fn unfinished_clones(&self, id: &VFolderId) -> Result<Vec<Detached>> {
        let mut found = Vec::new();
        self.hidden_in(id.scope.as_ref(), Why::Clone, Some(id), &mut found)?;
        Ok(found)
    }

    fn hidden_in(
        &self,
        scope: Option<&QuotaScopeId>,
        why: Why,
        only: Option<&VFolderId>,
        found: &mut Vec<Detached>,
    ) -> Result<()> {
        let mut dir = match self.open_scope(scope) {
            Err(error) if error.is_not_found() => return Ok(()),
            dir => dir?,
        };
        let mut names = Vec::new();
        for entry in dir.entries() {
            names.extend(entry?.name.into_string());
        }
        for name in names {
            let Some(folder) = why.folder_of(&name) else {
                continue;
            };
            let Some(id) = vfolder_id(scope, folder) else {
                continue;
            };
            if only.is_some_and(|only| only.folder != id.folder) {
                continue;
            }
            let tree = match dir.open_dir_raw(name.as_bytes()) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                tree => tree.map_err(|errno| dir.os("open", name.as_bytes(), errno))?,
            };
            let holder = self.reopen(&dir)?;
            let tree = Dir::new(tree.into_fd(), Vec::new());
            found.push(Detached {
                dir: tree,
                holder,
                name,
                id,
            });
        }
        Ok(())
    }

    /// Makes a hidden tree that can become the vfolder `id`. Mode as for
    /// [`VolumeRoot::create_vfolder`].
    pub fn create_hidden(&self, id: &VFolderId, mode: u32) -> Result<Hidden> {
        self.resume_hidden(id, mode, SessionId::random())
    }

    /// As [`VolumeRoot::create_hidden`], for the tree with this number; one that is there is taken
    /// with all that is in it.
    pub fn resume_hidden(&self, id: &VFolderId, mode: u32, number: SessionId) -> Result<Hidden> {
        let holder = self.holder(id)?;
        let name = Why::Clone.name(id, number);
        let made = || -> std::result::Result<OwnedFd, Errno> {
            match sys::mkdir(&holder, name.as_bytes(), DIR_MODE) {
                Err(Errno::EXIST) => {}
                made => made?,
            }
            set_mode(&holder, name.as_bytes(), mode)?;
            sys::open(&holder, name.as_bytes(), sys::DIR_READ | OFlags::NOFOLLOW)
        };
        let fd = made().map_err(|errno| AnchorError::os("mkdir", errno, name.as_bytes()))?;
        Ok(Hidden {
            dir: Dir::new(fd, Vec::new()),
            holder,
            name,
            id: *id,
        })
    }

    /// Gives a hidden tree its vfolder's name. `EEXIST` when that is taken: the tree stays
    /// hidden then. The content is as durable as the caller made it, the name is durable.
    pub fn publish_vfolder(&self, hidden: &Hidden) -> Result<()> {
        let path = hidden.id.components().join("/");
        Stat::of_entry(&hidden.holder, hidden.name.as_bytes())
            .map_err(|errno| AnchorError::os("publish", errno, path.as_bytes()))?;
        let missing = Missing::Make;
        on_entry(
            &self.base(),
            "publish",
            path.as_bytes(),
            missing,
            |dir, last| {
                rename_to_free(hidden, dir, last)?;
                unless_unreadable(dir.sync())?;
                unless_unreadable(sys::sync(&hidden.holder))
            },
        )
    }

    /// Every vfolder of the volume, in no order. Ids of scopes read `user:`: the kind of a
    /// scope is not on disk.
    pub fn vfolders(&self) -> VFolders {
        VFolders::of(self)
    }

    pub(crate) fn base(&self) -> Base<'_> {
        let Inner {
            fd, path, portable, ..
        } = &*self.inner;
        Base {
            fd: fd.as_fd(),
            host: path,
            portable: *portable,
            // Above a vfolder there are no names of clients.
            reserved: None,
        }
    }

    pub(crate) fn holder(&self, id: &VFolderId) -> Result<OwnedFd> {
        self.open_scope(id.scope.as_ref()).map(Dir::into_fd)
    }

    fn reopen(&self, dir: &Dir) -> Result<OwnedFd> {
        dir.try_clone().map(Dir::into_fd)
    }

    /// A path in a vfolder as a path in its volume. `None` where a walk has to decide.
    fn joined(&self, id: &VFolderId, path: &RelPath) -> Option<Vec<u8>> {
        let below = check(path, self.reserved()).ok()?;
        if below == b"." || has_parent_refs(below) {
            return None;
        }
        let mut name = id.components().join("/").into_bytes();
        name.push(b'/');
        name.extend_from_slice(below);
        Some(name)
    }
}

/// Renames only if the name is free, also on file systems without `RENAME_NOREPLACE` (NFS):
/// there the name is claimed by an empty directory first, which a rename may replace.
fn rename_to_free(hidden: &Hidden, to: impl AsFd, last: &[u8]) -> std::result::Result<(), Errno> {
    let (to, name) = (to.as_fd(), hidden.name.as_bytes());
    let flags = RenameFlags::NOREPLACE;
    match sys::retry(|| rustix::fs::renameat_with(&hidden.holder, name, to, last, flags)) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            sys::mkdir(to, last, DIR_MODE)?;
            sys::rename(&hidden.holder, name, to, last)
        }
        done => done,
    }
}

fn set_mode(dir: impl AsFd, name: &[u8], mode: u32) -> std::result::Result<(), Errno> {
    if mode == DIR_MODE {
        return Ok(());
    }
    let fd = sys::open(dir, name, sys::DIR_READ | OFlags::NOFOLLOW)?;
    sys::retry(|| rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)))
}

/// A directory that we may write but not read is the operator's choice: nothing to sync then.
pub(crate) fn unless_unreadable(
    synced: std::result::Result<(), Errno>,
) -> std::result::Result<(), Errno> {
    match synced {
        Err(Errno::ACCESS) => Ok(()),
        synced => synced,
    }
}

/// File systems whose `open` and `stat` of cached files touch neither disk nor network.
/// NFS and other network file systems talk to their server in `open` even then.
fn opens_without_waiting(magic: u64) -> bool {
    const LOCAL: [u64; 8] = [
        0xef53,      // ext2, ext3, ext4
        0x5846_5342, // XFS
        0x9123_683e, // btrfs
        0x0102_1994, // tmpfs
        0x8584_58f6, // ramfs
        0xf2f5_2010, // F2FS
        0x2fc1_2fc1, // ZFS
        0xca45_1a4e, // bcachefs
    ];
    LOCAL.contains(&magic)
}
