//! Projects of one file system: finding the project of a scope, and giving one out.
//!
//! Law: of the steps that make a scope, the one that makes it count as made comes last.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_anchor::{Dir, FileKind, VolumeRoot};
use proxy_core::id::QuotaScopeId;
use proxy_ring::quota::{ProjectTag, holds_project_quotas, project_tag, set_project_tag};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::adopt::adopt;
use super::files::{ProjectFiles, Row};
use super::refused;
use crate::backend::ScopeQuota;
use crate::control::Control;
use crate::entries::kind_of;
use crate::error::VolumeError;
use crate::folder;
use crate::limits::Limits;
use crate::privilege::QuotaPrivilege;

/// How long to wait for others who give out numbers; each takes milliseconds.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two tries to take a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// What there is of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No directory.
    Missing,
    /// A directory that is not, or not wholly, of one project.
    Plain,
    /// A directory of this project.
    Project(u32),
}

pub(super) struct Projects {
    pub(super) lock_file: PathBuf,
    pub(super) project_min: u32,
    pub(super) files: Option<ProjectFiles>,
    pub(super) privilege: Arc<dyn QuotaPrivilege>,
}

impl Projects {
    /// Why the file system under the volume can have no quotas; warns about what would keep them
    /// from being held.
    pub(super) fn unfit(&self, root: &VolumeRoot) -> Result<Option<String>, VolumeError> {
        let dir = root.open_scope(None)?;
        let os = |errno| VolumeError::os("look at the file system", errno);
        let magic = rustix::fs::fstatfs(&dir).map_err(os)?.f_type as u64;
        let Some(advice) = advice(magic) else {
            let text = "no XFS, ext4 or F2FS: those have project quotas; use backend \"vfs\" here";
            return Ok(Some(text.to_owned()));
        };
        let held = holds_project_quotas(&dir);
        if !held.map_err(|error| refused("look at project quotas", &error))? {
            return Ok(Some(format!("mounted without project quotas: {advice}")));
        }
        if let Err(error) = self.privilege.project_quota(dir.as_fd(), self.project_min)
            // Somebody will be asked who is not there yet.
            && error.kind() != std::io::ErrorKind::WouldBlock
        {
            let error = refused("read project quotas", &error);
            tracing::warn!(%error, "quota scopes cannot be made or limited");
        }
        let exempt = |sets: rustix::thread::CapabilitySets| {
            sets.effective.contains(CapabilitySet::SYS_RESOURCE)
        };
        if magic != XFS_MAGIC && rustix::thread::capabilities(None).is_ok_and(exempt) {
            tracing::warn!("quotas do not hold this server: give up CAP_SYS_RESOURCE");
        }
        // Configurations are told at the start, as the original did.
        self.lock_host().map(|_| None)
    }

    /// Makes a scope that is missing; otherwise says what is there.
    pub(super) fn create(
        &self,
        root: &VolumeRoot,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
    ) -> Result<Found, VolumeError> {
        let _locks = self.lock(root)?;
        let (found, _) = find(root, scope)?;
        if found != Found::Missing {
            return Ok(found);
        }
        let project = self.give_out(root, scope, limit_bytes)?;
        folder::create_scope(root, scope)?;
        let dir = root.open_scope(Some(&scope))?;
        tag(&dir, project, true)?;
        dir.sync()?;
        Ok(Found::Missing)
    }

    /// Takes a directory, with everything in it, into a project.
    pub(super) fn adopt(
        &self,
        root: &VolumeRoot,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
        limits: &Limits,
        control: &Control,
    ) -> Result<(), VolumeError> {
        let project = {
            let _locks = self.lock(root)?;
            let dir = root.open_scope(Some(&scope))?;
            let known = tag_of(&dir)?.project;
            let project = match known {
                0 => self.give_out(root, scope, limit_bytes)?,
                known => {
                    self.set_limit(&dir, known, self.limit_of(root, limit_bytes)?)?;
                    self.record(root, scope, Some(known));
                    known
                }
            };
            // Not yet inherited: that is the sign of a scope that is whole.
            tag(&dir, project, false)?;
            project
        };
        let open = || root.open_scope(Some(&scope)).map_err(VolumeError::from);
        adopt(open()?, project, limits, control)?;
        tag(&open()?, project, true)?;
        // What was made in the directory itself before that line.
        adopt(open()?, project, limits, control)?;
        Ok(open()?.sync()?)
    }

    pub(super) fn describe(
        &self,
        root: &VolumeRoot,
        scope: QuotaScopeId,
    ) -> Result<Option<ScopeQuota>, VolumeError> {
        let (found, dir) = find(root, scope)?;
        let (project, dir) = match (found, dir) {
            (Found::Project(project), Some(dir)) => (project, dir),
            (Found::Missing, _) | (_, None) => return Ok(None),
            (Found::Plain, _) => return Ok(Some(ScopeQuota::default())),
        };
        let Ok(quota) = self.privilege.project_quota(dir.as_fd(), project) else {
            // The directory shows a limit to everybody, as long as there is one.
            let quota = root.room(Some(&scope))?.quota;
            return Ok(Some(ScopeQuota {
                used_bytes: quota.map(|quota| quota.used_bytes),
                limit_bytes: quota.map(|quota| quota.limit_bytes),
            }));
        };
        Ok(Some(ScopeQuota {
            used_bytes: Some(quota.used_bytes),
            limit_bytes: Some(quota.limit_bytes).filter(|limit| *limit > 0),
        }))
    }

    /// Sets the limit of a scope that is a project, 0 for none; otherwise says what is there.
    pub(super) fn limit(
        &self,
        root: &VolumeRoot,
        scope: QuotaScopeId,
        limit_bytes: u64,
    ) -> Result<Found, VolumeError> {
        let (found, dir) = find(root, scope)?;
        if let (Found::Project(project), Some(dir)) = (found, dir) {
            self.set_limit(&dir, project, limit_bytes)?;
        }
        Ok(found)
    }

    pub(super) fn delete(&self, root: &VolumeRoot, scope: QuotaScopeId) -> Result<(), VolumeError> {
        let _locks = self.lock(root)?;
        let (found, dir) = find(root, scope)?;
        folder::delete_scope(root, scope)?;
        if let (Found::Project(project), Some(dir)) = (found, dir) {
            // Last: without a limit and without files the number is free again.
            self.set_limit(&dir, project, 0)?;
        }
        self.record(root, scope, None);
        Ok(())
    }

    /// A number that nobody has, with its limit set.
    fn give_out(
        &self,
        root: &VolumeRoot,
        scope: QuotaScopeId,
        limit_bytes: Option<u64>,
    ) -> Result<u32, VolumeError> {
        let dir = root.open_scope(None)?;
        let known = match &self.files {
            Some(files) => files.ids(&scope.dir_name()),
            None => Default::default(),
        };
        let on_disk = tagged(&mut dir.try_clone()?)?;
        let project = match known.own.filter(|own| !on_disk.contains(own)) {
            Some(own) => own,
            None => self.smallest_free(&dir, &on_disk, &known.all)?,
        };
        self.set_limit(&dir, project, self.limit_of(root, limit_bytes)?)?;
        self.record(root, scope, Some(project));
        Ok(project)
    }

    fn smallest_free(
        &self,
        dir: &Dir,
        on_disk: &BTreeSet<u32>,
        in_files: &BTreeSet<u32>,
    ) -> Result<u32, VolumeError> {
        let mut taken: BTreeSet<u32> = on_disk.union(in_files).copied().collect();
        let mut from = self.project_min;
        loop {
            let next = self.privilege.next_project_quota(dir.as_fd(), from);
            let next = next.map_err(|error| refused("list project quotas", &error))?;
            let Some(next) = next else { break };
            taken.insert(next.project);
            match next.project.checked_add(1) {
                Some(after) => from = after,
                None => break,
            }
        }
        let mut free = self.project_min;
        for project in taken.range(self.project_min..) {
            if *project != free {
                break;
            }
            free += 1;
        }
        Ok(free)
    }

    /// A scope without a limit gets all there is: the original did so, and its clients see it.
    fn limit_of(&self, root: &VolumeRoot, limit_bytes: Option<u64>) -> Result<u64, VolumeError> {
        match limit_bytes {
            Some(limit_bytes) => Ok(limit_bytes),
            None => Ok(root.statvfs()?.capacity_bytes),
        }
    }

    fn set_limit(&self, dir: &Dir, project: u32, limit_bytes: u64) -> Result<(), VolumeError> {
        let set = self
            .privilege
            .set_project_limit(dir.as_fd(), project, limit_bytes);
        set.map_err(|error| refused("set project quota", &error))
    }

    /// Notes the project of a scope for people; that this cannot be is no reason to fail.
    fn record(&self, root: &VolumeRoot, scope: QuotaScopeId, project: Option<u32>) {
        let Some(files) = &self.files else { return };
        let (name, path) = (scope.dir_name(), root.path().join(scope.dir_name()));
        let row = Row {
            name: &name,
            path: &path,
            project,
        };
        if let Err(error) = files.record(row) {
            tracing::warn!(%error, %scope, "the project files could not be kept");
        }
    }

    /// Locks out everybody who gives out numbers: on this host, and on others that share the
    /// file system.
    fn lock(&self, root: &VolumeRoot) -> Result<(File, Dir), VolumeError> {
        let host = self.lock_host()?;
        flock(&host)?;
        let dir = root.open_scope(None)?;
        flock(&dir)?;
        Ok((host, dir))
    }

    fn lock_host(&self) -> Result<File, VolumeError> {
        // Not through a link, since the default lies where everybody may write.
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o666)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&self.lock_file);
        // Another user's lock file can be locked as well as an own one.
        opened
            .or_else(|_| File::open(&self.lock_file))
            .map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                VolumeError::os("open the lock file of project quotas", errno)
            })
    }
}

fn flock(file: impl AsFd) -> Result<(), VolumeError> {
    let until = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Err(VolumeError::Busy),
            Err(errno) => return Err(VolumeError::os("lock project quotas", errno)),
        }
    }
}

fn find(root: &VolumeRoot, scope: QuotaScopeId) -> Result<(Found, Option<Dir>), VolumeError> {
    let dir = match root.open_scope(Some(&scope)) {
        Err(error) if error.is_not_found() => return Ok((Found::Missing, None)),
        dir => dir?,
    };
    let tag = tag_of(&dir)?;
    let found = match tag.project {
        project if project != 0 && tag.inherited => Found::Project(project),
        _ => Found::Plain,
    };
    Ok((found, Some(dir)))
}

/// The projects of all directories of the volume's root.
fn tagged(dir: &mut Dir) -> Result<BTreeSet<u32>, VolumeError> {
    let mut found = BTreeSet::new();
    crate::entries::for_each(dir, |dir, entry| {
        if kind_of(dir, entry)? == FileKind::Dir
            && let Ok(dir) = dir.open_dir(&entry.name)
        {
            found.insert(tag_of(&dir)?.project);
        }
        Ok(())
    })?;
    Ok(found)
}

fn tag_of(dir: &Dir) -> Result<ProjectTag, VolumeError> {
    project_tag(dir).map_err(|error| refused("read project", &error))
}

fn tag(dir: &Dir, project: u32, inherited: bool) -> Result<(), VolumeError> {
    let tag = ProjectTag { project, inherited };
    set_project_tag(dir, tag).map_err(|error| refused("set project", &error))
}

const XFS_MAGIC: u64 = 0x5846_5342;

/// How to have project quotas on a file system; `None` where there are none.
fn advice(magic: u64) -> Option<&'static str> {
    match magic {
        XFS_MAGIC => Some("unmount it, and mount it with -o prjquota (a remount does nothing)"),
        0xef53 => Some("unmount it, tune2fs -O project -Q prjquota, mount it with -o prjquota"),
        0xf2f5_2010 => Some("mount it with -o prjquota (mkfs.f2fs -O extra_attr,project_quota)"),
        _ => None,
    }
}
