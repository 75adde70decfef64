//! A mounted directory with vfolders: every operation as an `async` call with bounds.
//!
//! This is where waiting meets doing: the modules below it block, the callers above it do not.
//!
//! Laws
//! - One gate: names reach the disk through `proxy-anchor` only.
//! - A dropped future of a long operation cancels the operation, which cleans up by itself.
//! - Two clones to one folder do not run at once in this process.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use proxy_anchor::{AnchorError, Room, VFolderRoot, VolumeRoot, staging};
use proxy_core::id::{QuotaScopeId, SessionId, TaskId, VFolderId};
use proxy_core::relpath::RelPath;
use rustix::io::Errno;
use tokio::time::timeout;

use crate::backend::{
    Capacity, Cloned, Deleted, Freshness, Known, Mkdir, Prepared, Swept, Usage, UsedBytes,
};
use crate::book::Book;
use crate::bulkhead::{Bulkhead, joined};
use crate::control::Control;
use crate::error::{In, VolumeError};
use crate::fetch::Fetch;
use crate::folder::Job;
use crate::lately::{self, Totals};
use crate::limits::Limits;
use crate::listing::{Listing, Reader};
use crate::marks::EndedTask;
use crate::paging::{Page, PageWish};
use crate::snapshot::{Snapshot, SnapshotName};
use crate::stamp::Stamp;
use crate::sweep::KeepSession;
use crate::usage::{Sums, Tally};
use crate::{deleting, folder, kept, marks, moving, paging, restore, sweep};

/// Mode of a directory that a user makes, before the umask.
const DIR_MODE: u32 = 0o755;
/// The layout that this program reads and writes: quota scopes above vfolders.
pub const LAYOUT_CURRENT: u32 = 3;
/// The layout of volumes that do not say: vfolders without quota scopes.
pub const LAYOUT_UNMARKED: u32 = 2;
/// Says which layout a volume has; written by the migration tool only.
const LAYOUT_FILE: &str = "version.txt";
/// What a scan may take beyond its time before it counts as hanging.
const SCAN_GRACE: Duration = Duration::from_secs(1);

/// See the module. All paths are relative to the vfolder.
#[derive(Debug)]
pub struct Tree {
    root: VolumeRoot,
    lanes: Arc<Bulkhead>,
    limits: Limits,
    cloning: Arc<Mutex<HashSet<VFolderId>>>,
    /// Folders whose snapshots are made or removed now.
    keeping: Arc<Mutex<HashSet<VFolderId>>>,
}

/// Tree work on an open volume.
pub(crate) trait Work<T>:
    FnOnce(&VolumeRoot, &Limits, &Control) -> Result<T, VolumeError> + Send + 'static
{
}

impl<T, W> Work<T> for W where
    W: FnOnce(&VolumeRoot, &Limits, &Control) -> Result<T, VolumeError> + Send + 'static
{
}

impl Tree {
    pub(crate) fn new(root: VolumeRoot, lanes: Arc<Bulkhead>, limits: Limits) -> Self {
        Self {
            root,
            lanes,
            limits,
            cloning: Arc::default(),
            keeping: Arc::default(),
        }
    }

    /// The opened mount point.
    pub fn root(&self) -> &VolumeRoot {
        &self.root
    }

    pub(crate) async fn on_volume<T: Send + 'static>(
        &self,
        work: impl FnOnce(&VolumeRoot) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        let root = self.root.clone();
        self.lanes.short(move || work(&root)).await
    }

    pub(crate) async fn in_folder<T: Send + 'static>(
        &self,
        vfid: VFolderId,
        work: impl FnOnce(&VFolderRoot) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        self.on_volume(move |root| work(&vfolder(root, vfid)?))
            .await
    }

    pub(crate) async fn long<T: Send + 'static>(
        &self,
        control: Arc<Control>,
        work: impl Work<T>,
    ) -> Result<T, VolumeError> {
        let reins = CancelOnDrop(Some(Arc::clone(&control)));
        let (root, limits) = (self.root.clone(), self.limits.clone());
        let done = self
            .lanes
            .tree(move || work(&root, &limits, &control))
            .await;
        reins.let_go();
        done
    }

    /// See [`crate::Backend::create_scope`].
    ///
    /// # Errors
    /// See there.
    pub async fn create_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        self.on_volume(move |root| folder::create_scope(root, scope))
            .await
    }

    /// Whether the directory of a scope is there.
    ///
    /// # Errors
    /// Only those of the system.
    pub async fn scope_exists(&self, scope: QuotaScopeId) -> Result<bool, VolumeError> {
        self.on_volume(move |root| Ok(root.scope_exists(&scope)?))
            .await
    }

    /// As [`Self::scope_exists`], after a look at all that lies beside it: an NFS client then
    /// asks the server again for a name that it remembers as missing.
    ///
    /// # Errors
    /// Only those of the system.
    pub(crate) async fn scope_listed(&self, scope: QuotaScopeId) -> Result<bool, VolumeError> {
        self.on_volume(move |root| {
            for entry in root.open_scope(None)?.entries() {
                entry?;
            }
            Ok(root.scope_exists(&scope)?)
        })
        .await
    }

    /// Whether a scope that is there holds nothing.
    ///
    /// # Errors
    /// Only those of the system.
    pub(crate) async fn scope_is_empty(&self, scope: QuotaScopeId) -> Result<bool, VolumeError> {
        self.on_volume(move |root| {
            let mut dir = root.open_scope(Some(&scope))?;
            let first = dir.entries().next().transpose()?;
            Ok(first.is_none())
        })
        .await
    }

    /// Whether a scope holds no directory but the one of this name, which shows snapshots.
    ///
    /// # Errors
    /// Only those of the system.
    pub(crate) async fn scope_is_bare(
        &self,
        scope: QuotaScopeId,
        but: &'static str,
    ) -> Result<bool, VolumeError> {
        self.on_volume(move |root| {
            let mut dir = root.open_scope(Some(&scope))?;
            let names = dir.entries().map(|entry| entry.map(|entry| entry.name));
            let names = names.collect::<Result<Vec<_>, _>>()?;
            for name in names.iter().filter(|name| *name != but) {
                if dir.stat(name)?.is_dir() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// Looks whether a vfolder is there.
    ///
    /// # Errors
    /// [`VolumeError::VFolderNotFound`].
    pub(crate) async fn check_folder(&self, vfid: VFolderId) -> Result<(), VolumeError> {
        self.in_folder(vfid, |_| Ok(())).await
    }

    /// Hands everything that this host has written to the storage system, which then keeps it.
    ///
    /// # Errors
    /// Only those of the system.
    pub(crate) async fn flush(&self) -> Result<(), VolumeError> {
        let root = self.root.clone();
        let work = move || {
            let top = root.open_scope(None)?;
            match rustix::fs::syncfs(&top) {
                // Somebody's bytes were refused, and so are no part of any state.
                Err(Errno::NOSPC | Errno::DQUOT) => Ok(()),
                synced => synced.map_err(|errno| VolumeError::os("sync", errno)),
            }
        };
        self.lanes.patient(work).await
    }

    /// See [`crate::Backend::delete_scope`].
    ///
    /// # Errors
    /// See there.
    pub async fn delete_scope(&self, scope: QuotaScopeId) -> Result<(), VolumeError> {
        self.on_volume(move |root| folder::delete_scope(root, scope))
            .await
    }

    /// See [`crate::Backend::room`].
    ///
    /// # Errors
    /// See there.
    pub async fn room(&self, scope: Option<QuotaScopeId>) -> Result<Room, VolumeError> {
        self.on_volume(move |root| Ok(root.room(scope.as_ref())?))
            .await
    }

    /// See [`crate::Backend::create_folder`].
    ///
    /// # Errors
    /// See there.
    pub async fn create_folder(&self, vfid: VFolderId, mode: u32) -> Result<(), VolumeError> {
        self.on_volume(move |root| folder::create(root, vfid, mode))
            .await
    }

    /// See [`crate::Backend::delete_folder`].
    ///
    /// # Errors
    /// See there.
    pub async fn delete_folder(
        &self,
        vfid: VFolderId,
        control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        self.long(control, move |root, limits, control| {
            folder::delete(root, vfid, limits, control)
        })
        .await
    }

    /// See [`crate::Volume::clone_folder`]. The scope of the destination exists.
    ///
    /// # Errors
    /// See there.
    pub(crate) async fn clone_folder(
        &self,
        job: Job,
        control: Arc<Control>,
    ) -> Result<Cloned, VolumeError> {
        let claim = Claim::on(&self.cloning, job.dst).ok_or(VolumeError::FolderExists(job.dst))?;
        self.long(control, move |root, limits, control| {
            let _claim = claim;
            folder::clone(root, job, limits, control)
        })
        .await
    }

    /// Whether states of folders can be kept here without copying their content.
    pub(crate) fn keeps_states(&self) -> bool {
        self.root.abilities().reflink
    }

    /// See [`crate::Backend::snapshots`].
    ///
    /// # Errors
    /// See there.
    pub(crate) async fn snapshots(&self, vfid: VFolderId) -> Result<Vec<Snapshot>, VolumeError> {
        if !self.keeps_states() {
            return Err(VolumeError::Unsupported);
        }
        self.on_volume(move |root| kept::list(root, vfid)).await
    }

    /// See [`crate::Backend::create_snapshot`].
    ///
    /// # Errors
    /// See there; [`VolumeError::Busy`] while another one of the folder is made.
    pub(crate) async fn create_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        expires: Option<Stamp>,
        control: Arc<Control>,
    ) -> Result<Snapshot, VolumeError> {
        let claim = Claim::on(&self.keeping, vfid).ok_or(VolumeError::Busy)?;
        self.long(control, move |root, limits, control| {
            let _claim = claim;
            kept::create(root, vfid, name, expires, limits, control)
        })
        .await
    }

    /// See [`crate::Backend::delete_snapshot`].
    ///
    /// # Errors
    /// See there; [`VolumeError::Busy`] while one of the folder is made.
    pub(crate) async fn delete_snapshot(
        &self,
        vfid: VFolderId,
        name: SnapshotName,
        control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        let claim = Claim::on(&self.keeping, vfid).ok_or(VolumeError::Busy)?;
        self.long(control, move |root, limits, control| {
            let _claim = claim;
            kept::delete(root, vfid, &name, limits, control)
        })
        .await
    }

    /// Removes what is kept of a folder that was deleted.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) async fn delete_snapshots(
        &self,
        vfid: VFolderId,
        control: Arc<Control>,
    ) -> Result<(), VolumeError> {
        self.long(control, move |root, limits, control| {
            kept::delete_all(root, vfid, limits, control)
        })
        .await
    }

    /// The folders with states that are kept beside them.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) async fn folders_kept(&self) -> Result<Vec<VFolderId>, VolumeError> {
        self.long(Arc::default(), |root, _, _| kept::folders(root))
            .await
    }

    /// All folders of the volume.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) async fn folders(&self) -> Result<Vec<VFolderId>, VolumeError> {
        self.long(Arc::default(), |root, _, _| {
            Ok(root.vfolders().collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Copies a kept state of a vfolder back. The scope of the destination exists.
    ///
    /// # Errors
    /// See [`crate::Backend::restore_snapshot`].
    #[allow(
        dead_code,
        reason = "for storage systems whose snapshots are copied back"
    )]
    pub(crate) async fn restore(
        &self,
        job: restore::Job,
        control: Arc<Control>,
    ) -> Result<Cloned, VolumeError> {
        let target = job.target();
        let claim = Claim::on(&self.cloning, target).ok_or(VolumeError::FolderExists(target))?;
        self.long(control, move |root, limits, control| {
            let _claim = claim;
            restore::restore(root, &job, limits, control)
        })
        .await
    }

    /// See [`crate::Backend::mount_path`].
    ///
    /// # Errors
    /// See there.
    pub async fn mount_path(
        &self,
        vfid: VFolderId,
        subpath: RelPath,
    ) -> Result<PathBuf, VolumeError> {
        self.in_folder(vfid, move |folder| {
            let resolved = folder.resolve_os(subpath.as_str().as_ref());
            resolved.map_err(|error| In(vfid, &subpath).err(error))?;
            Ok(folder.host_path().to_owned())
        })
        .await
    }

    /// See [`crate::Backend::usage`].
    ///
    /// # Errors
    /// See there.
    pub async fn usage(&self, vfid: VFolderId) -> Result<Usage, VolumeError> {
        let (sums, complete) = self.scan(vfid).await?;
        Ok(Usage {
            file_count: sums.entries,
            used_bytes: sums.apparent_bytes,
            complete,
        })
    }

    /// See [`crate::Backend::used_bytes`].
    ///
    /// # Errors
    /// See there.
    pub async fn used_bytes(&self, vfid: VFolderId) -> Result<UsedBytes, VolumeError> {
        let (sums, complete) = self.scan(vfid).await?;
        Ok(UsedBytes {
            used_bytes: sums.allocated_bytes,
            complete,
        })
    }

    /// See [`crate::Volume::usage_lately`].
    ///
    /// # Errors
    /// See there.
    pub(crate) async fn usage_lately(
        &self,
        vfid: VFolderId,
        book: Book,
        wish: Freshness,
    ) -> Result<Known, VolumeError> {
        let begun = Stamp::now();
        let totals = Arc::new(Totals::default());
        let control = Arc::new(Control::default());
        let _reins = CancelOnDrop(Some(Arc::clone(&control)));
        let (root, limits) = (self.root.clone(), self.limits.clone());
        let counting = Arc::clone(&totals);
        let until = wish.time_max.map(|time| Instant::now() + time);
        let work = move || {
            let dir = vfolder(&root, vfid)?.open_whole()?;
            let ino = dir.metadata()?.ino;
            let old = book.read(vfid).filter(|old| old.root_ino == ino);
            if let Some(old) = old.as_ref().filter(|old| is_fresh(old.as_of, wish.age_max)) {
                return Ok(old.known());
            }
            let bounds = lately::Bounds {
                until,
                threads: if until.is_some() {
                    limits.tree_threads_max
                } else {
                    1
                },
                limits: &limits,
                control: &control,
            };
            let pages = lately::count(dir, old, &counting, &bounds)?;
            if let Some(Err(error)) = pages.as_ref().map(|pages| book.write(vfid, pages)) {
                tracing::warn!(%vfid, %error, "the size of a folder is not remembered");
            }
            let as_of = pages.as_ref().map_or(begun, |pages| pages.as_of);
            Ok(counting.known(as_of, pages.is_some()))
        };
        let handle = self.lanes.scan(work).await?;
        match wish.time_max {
            None => joined(handle).await,
            Some(time) => match timeout(time + SCAN_GRACE, joined(handle)).await {
                Ok(known) => known,
                Err(_) => Ok(totals.known(begun, false)),
            },
        }
    }

    /// Scans a folder for a bounded time, also when the mount hangs.
    async fn scan(&self, vfid: VFolderId) -> Result<(Sums, bool), VolumeError> {
        let time_max = self.limits.scan_time_max;
        let tally = Arc::new(Tally::new(Some(Instant::now() + time_max), &self.limits));
        let control = Arc::new(Control::default());
        // Dropped at the end in any case: a scan that nobody waits for ends.
        let _reins = CancelOnDrop(Some(Arc::clone(&control)));
        let (root, limits) = (self.root.clone(), self.limits.clone());
        let counting = Arc::clone(&tally);
        let work = move || {
            let folder = vfolder(&root, vfid)?;
            counting.scan(folder.open_whole()?, &limits, &control)
        };
        let handle = self.lanes.scan(work).await?;
        let complete = match timeout(time_max + SCAN_GRACE, joined(handle)).await {
            Ok(done) => done?,
            Err(_) => false,
        };
        Ok((tally.sums(), complete))
    }

    /// See [`crate::Backend::fs_usage`].
    ///
    /// # Errors
    /// See there.
    pub async fn capacity(&self) -> Result<Capacity, VolumeError> {
        let usage = self.on_volume(|root| Ok(root.statvfs()?)).await?;
        Ok(Capacity {
            capacity_bytes: Some(usage.capacity_bytes),
            used_bytes: Some(usage.used_bytes),
        })
    }

    /// See [`crate::Backend::list`].
    ///
    /// # Errors
    /// See there.
    pub async fn list(
        &self,
        vfid: VFolderId,
        dir: RelPath,
        limit: usize,
    ) -> Result<Listing, VolumeError> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let reader = self.in_folder(vfid, move |folder| Reader::new(folder, &dir, limit));
        Ok(Listing::open(reader.await?, Arc::clone(&self.lanes)))
    }

    /// See [`crate::Backend::page`].
    ///
    /// # Errors
    /// See there.
    pub async fn page(&self, vfid: VFolderId, wish: PageWish) -> Result<Page, VolumeError> {
        self.in_folder(vfid, move |folder| paging::page(folder, &wish))
            .await
    }

    /// See [`crate::Backend::mkdir`].
    ///
    /// # Errors
    /// See there.
    pub async fn mkdir(
        &self,
        vfid: VFolderId,
        dir: RelPath,
        how: Mkdir,
    ) -> Result<(), VolumeError> {
        self.in_folder(vfid, move |folder| {
            let made = folder.mkdir(&dir, how.parents, how.exist_ok, DIR_MODE);
            made.map_err(|error| In(vfid, &dir).err(error))
        })
        .await
    }

    /// Gives an entry another name in its directory. See [`crate::Volume::rename`].
    ///
    /// # Errors
    /// See there.
    pub async fn rename(
        &self,
        vfid: VFolderId,
        from: RelPath,
        name: String,
    ) -> Result<(), VolumeError> {
        let limits = self.limits.clone();
        self.in_folder(vfid, move |folder| {
            let to = moving::renamed(folder, &from, &name)?;
            moving::move_entry(folder, &from, &to, &limits)
        })
        .await
    }

    /// See [`crate::Volume::move_entry`].
    ///
    /// # Errors
    /// See there.
    pub async fn move_entry(
        &self,
        vfid: VFolderId,
        from: RelPath,
        to: RelPath,
    ) -> Result<(), VolumeError> {
        let limits = self.limits.clone();
        self.in_folder(vfid, move |folder| {
            moving::move_entry(folder, &from, &to, &limits)
        })
        .await
    }

    /// See [`crate::Volume::delete_files`].
    ///
    /// # Errors
    /// See there.
    pub async fn delete_files(
        &self,
        vfid: VFolderId,
        paths: Vec<RelPath>,
        recursive: bool,
        control: Arc<Control>,
    ) -> Result<Deleted, VolumeError> {
        let reins = CancelOnDrop(Some(Arc::clone(&control)));
        let (root, limits) = (self.root.clone(), self.limits.clone());
        let work =
            move || deleting::delete(&vfolder(&root, vfid)?, &paths, recursive, &limits, &control);
        // Somebody may be waiting for it, so it does not queue behind clones.
        let done = self.lanes.patient(work).await;
        reins.let_go();
        done
    }

    /// See [`crate::Backend::fetch`].
    ///
    /// # Errors
    /// See there.
    pub async fn fetch(&self, vfid: VFolderId, path: RelPath) -> Result<Fetch, VolumeError> {
        let lanes = Arc::clone(&self.lanes);
        self.in_folder(vfid, move |folder| {
            let opened = folder
                .open_read(&path)
                .map_err(|error| In(vfid, &path).err(error))?;
            if opened.stat.is_file() {
                return Ok(Fetch::new(opened.fd, opened.stat.size, lanes));
            }
            let errno = if opened.stat.is_dir() {
                Errno::ISDIR
            } else {
                Errno::INVAL
            };
            Err(VolumeError::os_at("read", errno, &path))
        })
        .await
    }

    /// See [`crate::Backend::prepare_upload`].
    ///
    /// # Errors
    /// See there.
    pub async fn prepare_upload(
        &self,
        vfid: VFolderId,
        path: RelPath,
        size: u64,
        session: SessionId,
    ) -> Result<Prepared, VolumeError> {
        self.in_folder(vfid, move |folder| {
            let at = |error| In(vfid, &path).err(error);
            staging::check_target(folder, &path).map_err(at)?;
            refuse_over_quota(folder, size)?;
            let staged = staging::create(folder, &session).map_err(at)?;
            if size > 0 {
                return Ok(Prepared::Staged(staged));
            }
            match staging::publish(folder, &session, &path) {
                Ok(()) => Ok(Prepared::Published(staged)),
                Err(error) => {
                    // Nobody will ever ask for this session: it must not wait for the sweep.
                    let _ = staging::discard(folder, &session);
                    Err(at(error))
                }
            }
        })
        .await
    }

    /// See [`crate::Backend::layout_version`].
    ///
    /// # Errors
    /// See there.
    pub async fn layout_version(&self) -> Result<u32, VolumeError> {
        self.on_volume(|root| {
            let opened = root.open_scope(None)?.open_file(LAYOUT_FILE.as_ref());
            let mut text = [0; 16];
            let got = match opened {
                Ok(file) => rustix::io::read(&file.fd, &mut text)
                    .map_err(|errno| VolumeError::os("read layout version", errno))?,
                Err(error) if error.is_not_found() => 0,
                Err(error) => return Err(error.into()),
            };
            let text = String::from_utf8_lossy(&text[..got]);
            Ok(text.trim().parse().unwrap_or(LAYOUT_UNMARKED))
        })
        .await
    }

    /// See [`crate::Volume::settle`].
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) async fn settle(&self, vfid: VFolderId, task: TaskId) -> Result<(), VolumeError> {
        self.on_volume(move |root| marks::remove(root, vfid, task))
            .await
    }

    /// See [`crate::Volume::sweep_marks`].
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) async fn sweep_marks(&self, ended: EndedTask) -> Result<u64, VolumeError> {
        self.long(Arc::default(), move |root, _, control| {
            marks::sweep(root, &ended, control)
        })
        .await
    }

    /// See [`crate::Backend::sweep`].
    ///
    /// # Errors
    /// See there.
    pub async fn sweep(
        &self,
        age: Duration,
        keep: KeepSession,
        control: Arc<Control>,
    ) -> Result<Swept, VolumeError> {
        let cloning = Arc::clone(&self.cloning);
        self.long(control, move |root, limits, control| {
            let busy = cloning.lock().clone();
            sweep::sweep(root, age, &keep, &busy, limits, control)
        })
        .await
    }
}

/// Refuses early what the file system would refuse late, or, on CephFS, too late.
fn refuse_over_quota(folder: &VFolderRoot, bytes: u64) -> Result<(), VolumeError> {
    // What cannot be known now will be told when the bytes are written.
    let room = folder.room();
    match room.ok().and_then(|room| room.refuses(bytes)) {
        Some(quota) => Err(VolumeError::QuotaExceeded {
            needed_bytes: Some(bytes),
            quota: Some(quota),
        }),
        None => Ok(()),
    }
}

fn is_fresh(as_of: Stamp, age_max: Duration) -> bool {
    let age_ns = Stamp::now().unix_ns - as_of.unix_ns;
    // What is from the future is of unknown age.
    (0..=age_max.as_nanos() as i128).contains(&age_ns)
}

fn vfolder(root: &VolumeRoot, vfid: VFolderId) -> Result<VFolderRoot, VolumeError> {
    root.vfolder(&vfid)
        .map_err(|error: AnchorError| In(vfid, &RelPath::root()).err(error))
}

/// Cancels an operation whose caller went away.
struct CancelOnDrop(Option<Arc<Control>>);

impl CancelOnDrop {
    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(control) = &self.0 {
            control.cancel();
        }
    }
}

/// The right to make one folder, until dropped.
struct Claim {
    claims: Arc<Mutex<HashSet<VFolderId>>>,
    vfid: VFolderId,
}

impl Claim {
    fn on(claims: &Arc<Mutex<HashSet<VFolderId>>>, vfid: VFolderId) -> Option<Self> {
        let claims = Arc::clone(claims);
        let free = claims.lock().insert(vfid);
        free.then_some(Self { claims, vfid })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.vfid);
    }
}
