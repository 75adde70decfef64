//! Making, copying and removing whole vfolders.
//!
//! Laws
//! - A clone appears under its name as a whole or not at all; a deleted folder loses its name
//!   first. In between the tree lies under a hidden name in the same quota scope.
//! - Both can be interrupted anywhere and run again: a clone goes on with what the first run has
//!   copied, unless the machine was started since; one that was published already is recognised
//!   by the mark of its task.
//! - No error shows where the volume lies.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use proxy_anchor::{AnchorError, Detached, Dir, FileKind, Hidden, VolumeRoot};
use proxy_core::id::{QuotaScopeId, SessionId, TaskId, VFolderId};
use proxy_core::relpath::RelPath;
use rustix::io::Errno;

use crate::backend::Cloned;
use crate::control::Control;
use crate::copy;
use crate::copy::content::Ways;
use crate::durable;
use crate::entries::kind_of;
use crate::error::{In, VolumeError};
use crate::limits::Limits;
use crate::remove;
use crate::usage::{Sums, Tally};

/// Mode that needs no chmod: what a directory gets by itself.
const DEFAULT_MODE: u32 = 0o755;
/// A tree that is being built is nobody's business.
pub(crate) const HIDDEN_MODE: u32 = 0o700;
/// Counting first makes a removal longer; beyond this it goes without a total.
const COUNT_TIME_MAX: Duration = Duration::from_secs(60);
/// Rounds over a tree that is written to while it is removed, before that is an error.
const DISCARD_ROUNDS_MAX: u32 = 8;
/// Begins the name of the mark that a clone leaves in the scope when it is published.
pub(crate) const MARK: &str = ".cloned-";
/// Begins the name of a tree that was detached, see `proxy-anchor`.
const TRASH: &str = ".trash-";

/// An error of the gate about a vfolder as a whole.
pub(crate) fn of(vfid: VFolderId) -> impl Fn(AnchorError) -> VolumeError {
    move |error| In(vfid, &RelPath::root()).err(error)
}

fn errno_is(error: &AnchorError, errno: Errno) -> bool {
    error.errno() == Some(errno.raw_os_error())
}

/// Makes the directory of a scope.
///
/// # Errors
/// [`VolumeError::ScopeExists`].
pub(crate) fn create_scope(root: &VolumeRoot, scope: QuotaScopeId) -> Result<(), VolumeError> {
    match root.create_scope(&scope) {
        Err(error) if errno_is(&error, Errno::EXIST) => Err(VolumeError::ScopeExists(scope)),
        done => Ok(done?),
    }
}

/// Removes the directory of a scope that has no directories. Missing is fine.
///
/// # Errors
/// [`VolumeError::ScopeNotEmpty`], and those of the system.
pub(crate) fn delete_scope(root: &VolumeRoot, scope: QuotaScopeId) -> Result<(), VolumeError> {
    let mut dir = match root.open_scope(Some(&scope)) {
        Err(error) if error.is_not_found() => return Ok(()),
        dir => dir?,
    };
    let entries: Vec<_> = dir.entries().collect::<Result<_, _>>()?;
    for entry in &entries {
        if kind_of(&dir, entry)? == FileKind::Dir {
            return Err(VolumeError::ScopeNotEmpty(scope));
        }
    }
    for entry in &entries {
        dir.unlink(&entry.name)?;
    }
    let volume = root.open_scope(None)?;
    match volume.rmdir(scope.dir_name().as_ref()) {
        // Somebody makes a folder in it just now.
        Err(error) if errno_is(&error, Errno::NOTEMPTY) => Err(VolumeError::ScopeNotEmpty(scope)),
        Err(error) if error.is_not_found() => Ok(()),
        done => Ok(done.and_then(|()| volume.sync())?),
    }
}

/// Makes a vfolder; an empty one that is there already is taken as made by a first try.
///
/// # Errors
/// [`VolumeError::ScopeNotFound`], [`VolumeError::FolderExists`].
pub(crate) fn create(root: &VolumeRoot, vfid: VFolderId, mode: u32) -> Result<(), VolumeError> {
    let error = match root.create_vfolder(&vfid, mode) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    if errno_is(&error, Errno::EXIST) {
        return adopt_empty(root, vfid, mode);
    }
    match vfid.scope {
        Some(scope) if error.is_not_found() && !root.scope_exists(&scope)? => {
            Err(VolumeError::ScopeNotFound(scope))
        }
        _ => Err(of(vfid)(error)),
    }
}

fn adopt_empty(root: &VolumeRoot, vfid: VFolderId, mode: u32) -> Result<(), VolumeError> {
    let mut dir = match root.vfolder(&vfid) {
        // Something else has its name.
        Err(AnchorError::VFolderMissing) => return Err(VolumeError::FolderExists(vfid)),
        folder => folder
            .and_then(|folder| folder.open_whole())
            .map_err(of(vfid))?,
    };
    if dir.entries().next().transpose()?.is_some() {
        return Err(VolumeError::FolderExists(vfid));
    }
    if mode == DEFAULT_MODE {
        Ok(())
    } else {
        Ok(dir.chmod(mode)?)
    }
}

/// Removes a vfolder. Missing is fine; what an interrupted run left behind is removed too.
///
/// # Errors
/// [`VolumeError::Cancelled`], and the first refusal of the system.
pub(crate) fn delete(
    root: &VolumeRoot,
    vfid: VFolderId,
    limits: &Limits,
    control: &Control,
) -> Result<(), VolumeError> {
    control.check()?;
    let detached = root.detach_vfolder(&vfid).map_err(of(vfid))?;
    root.prune_parents(&vfid);
    if let Some(tree) = detached {
        let mark = mark_end(&tree.dir)?;
        announce(std::slice::from_ref(&tree), limits, control)?;
        discard(tree, limits, control)?;
        remove_marks(root, vfid, &mark)?;
    }
    if !has_trash(root, vfid)? {
        return Ok(());
    }
    let mut trees = root.detached()?;
    trees.retain(|tree| is_same_folder(*tree.id(), vfid));
    if control.progress().entries_total == 0 {
        announce(&trees, limits, control)?;
    }
    for tree in trees {
        discard(tree, limits, control)?;
    }
    Ok(())
}

/// Counts what is to be removed, so that progress has a total; within a bound of time, or not.
fn announce(trees: &[Detached], limits: &Limits, control: &Control) -> Result<(), VolumeError> {
    let tally = Tally::of_names(Some(Instant::now() + COUNT_TIME_MAX), limits);
    let mut entries = 0;
    for tree in trees {
        // Its own directory goes as well.
        entries += 1;
        if !tally.scan(tree.dir.try_clone()?, limits, control)? {
            return control.check();
        }
    }
    let sums = tally.sums();
    control.announce(entries + sums.entries, 0);
    Ok(())
}

/// Takes away a tree that has lost its name: the directory of the scope, and the name in it.
pub(crate) type Dispose<'a> = &'a dyn Fn(&Dir, &OsStr) -> Result<(), String>;

/// As [`delete`], by another way of removing trees. What that leaves is removed here.
///
/// # Errors
/// As [`delete`].
pub(crate) fn delete_by(
    root: &VolumeRoot,
    vfid: VFolderId,
    dispose: Dispose<'_>,
    limits: &Limits,
    control: &Control,
) -> Result<(), VolumeError> {
    control.check()?;
    let detached = root.detach_vfolder(&vfid).map_err(of(vfid))?;
    root.prune_parents(&vfid);
    let end = detached.map(|tree| mark_end(&tree.dir)).transpose()?;
    if let Some(end) = end {
        remove_marks(root, vfid, &end)?;
    }
    let prefix = format!("{TRASH}{}-", vfid.folder.simple());
    for name in names_in_scope(root, vfid)? {
        if !name.as_encoded_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        let scope = root.open_scope(vfid.scope.as_ref())?;
        if let Err(why) = dispose(&scope, &name) {
            tracing::warn!(%vfid, why, "a tree is removed in the usual way");
        }
    }
    // What was not taken.
    delete(root, vfid, limits, control)
}

/// As [`delete`], by moving the tree into the directory `place` of the volume, whose entries the
/// storage system removes.
///
/// # Errors
/// As [`delete`].
pub(crate) fn delete_into(
    root: &VolumeRoot,
    vfid: VFolderId,
    place: &'static str,
    limits: &Limits,
    control: &Control,
) -> Result<(), VolumeError> {
    let give = |scope: &Dir, name: &OsStr| {
        let volume = root.open_scope(None);
        let place = volume.and_then(|volume| volume.open_dir(place.as_ref()));
        place
            .and_then(|place| scope.rename(name, &place, name))
            .map_err(|error| error.to_string())
    };
    delete_by(root, vfid, &give, limits, control)
}

/// Whether the scope holds a detached tree of this folder: cheaper than opening all scopes.
fn has_trash(root: &VolumeRoot, vfid: VFolderId) -> Result<bool, VolumeError> {
    let prefix = format!("{TRASH}{}-", vfid.folder.simple());
    let names = names_in_scope(root, vfid)?;
    Ok(names
        .iter()
        .any(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes())))
}

/// Removes the marks that say who cloned this folder: its inode number will be used again.
pub(crate) fn remove_marks(
    root: &VolumeRoot,
    vfid: VFolderId,
    end: &str,
) -> Result<(), VolumeError> {
    let names = names_in_scope(root, vfid)?;
    let ours =
        |name: &&OsString| is_mark(name) && name.as_encoded_bytes().ends_with(end.as_bytes());
    let scope = root.open_scope(vfid.scope.as_ref());
    for name in names.iter().filter(ours) {
        if let Ok(scope) = &scope {
            let _ = scope.unlink(name);
        }
    }
    Ok(())
}

/// As [`names_in`], of the scope of a folder.
pub(crate) fn names_in_scope(
    root: &VolumeRoot,
    vfid: VFolderId,
) -> Result<Vec<OsString>, VolumeError> {
    names_in(root, vfid.scope)
}

/// What lies in a scope beside the first level of folders; nothing if there is no such scope.
pub(crate) fn names_in(
    root: &VolumeRoot,
    scope: Option<QuotaScopeId>,
) -> Result<Vec<OsString>, VolumeError> {
    let mut scope = match root.open_scope(scope.as_ref()) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        scope => scope?,
    };
    let names = scope.entries().map(|entry| entry.map(|entry| entry.name));
    let hidden = names.filter(|name| match name {
        Ok(name) => name.as_encoded_bytes().starts_with(b"."),
        Err(_) => true,
    });
    Ok(hidden.collect::<Result<_, _>>()?)
}

/// The kind of a scope is not on disk, so it does not tell folders apart.
fn is_same_folder(one: VFolderId, other: VFolderId) -> bool {
    let place = |id: VFolderId| (id.scope.map(|scope| scope.uuid), id.folder);
    place(one) == place(other)
}

/// Removes a tree that lost its name, or never got one.
///
/// # Errors
/// As [`remove::empty`].
pub(crate) fn discard(
    tree: Detached,
    limits: &Limits,
    control: &Control,
) -> Result<(), VolumeError> {
    let mut rounds = 0;
    loop {
        remove::empty(tree.dir.try_clone()?, limits, control)?;
        match remove::emptied(|| tree.rmdir(), || Some(&tree.dir), limits) {
            // Whoever holds it open has written to it once more.
            Err(error) if is_not_empty(&error) && rounds < DISCARD_ROUNDS_MAX => rounds += 1,
            done => {
                done?;
                control.add_entries(1);
                return Ok(());
            }
        }
    }
}

fn is_not_empty(error: &AnchorError) -> bool {
    errno_is(error, Errno::NOTEMPTY) || errno_is(error, Errno::EXIST)
}

/// What is to be cloned, and for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) src: VFolderId,
    pub(crate) dst: VFolderId,
    /// Marks the result, so that a second run of the same task knows its own work.
    pub(crate) task: TaskId,
    /// Free bytes of the volume, if known.
    pub(crate) free_bytes: Option<u64>,
}

/// Copies a vfolder to a new one, whose scope exists.
///
/// # Errors
/// [`VolumeError::VFolderNotFound`] (the source), [`VolumeError::FolderExists`],
/// [`VolumeError::NoRoom`], [`VolumeError::Cancelled`], and the first refusal of the system.
pub(crate) fn clone(
    root: &VolumeRoot,
    job: Job,
    limits: &Limits,
    control: &Control,
) -> Result<Cloned, VolumeError> {
    control.check()?;
    let source = match root.vfolder(&job.src) {
        Ok(source) => source,
        Err(error) => {
            // Nothing will come of what an earlier run has copied.
            for leftover in root.unfinished_clones(&job.dst)? {
                discard(leftover, limits, control)?;
            }
            return Err(of(job.src)(error));
        }
    };
    let from = || source.open_dir(&RelPath::root()).map_err(of(job.src));
    clone_from(root, job, &from, limits, control)
}

/// As [`clone`], from the directory that `from` opens, each time anew.
///
/// # Errors
/// As [`clone`].
pub(crate) fn clone_from(
    root: &VolumeRoot,
    job: Job,
    from: &dyn Fn() -> Result<Dir, VolumeError>,
    limits: &Limits,
    control: &Control,
) -> Result<Cloned, VolumeError> {
    match root.vfolder(&job.dst) {
        Err(AnchorError::VFolderMissing) => {}
        found => {
            let there = found
                .and_then(|folder| folder.open_whole())
                .map_err(of(job.dst))?;
            return already_cloned(root, job, &there);
        }
    }
    let number = own_number(root, job)?;
    for leftover in root.unfinished_clones(&job.dst)? {
        if number.is_none() || leftover.number() != number {
            discard(leftover, limits, control)?;
        }
    }
    let hidden = match number {
        Some(number) => root.resume_hidden(&job.dst, HIDDEN_MODE, number),
        None => root.create_hidden(&job.dst, HIDDEN_MODE),
    };
    let hidden = hidden.map_err(of(job.dst))?;
    let cloned = go_on(root, job, from, &hidden, limits, control)
        .and_then(|cloned| publish(root, job, &hidden).map(|()| cloned));
    if cloned.is_err() && !control.is_halted() {
        give_up(hidden, limits);
    }
    cloned
}

/// Fills a hidden tree, which may hold what an earlier run of the task has copied.
fn go_on(
    root: &VolumeRoot,
    job: Job,
    from: &dyn Fn() -> Result<Dir, VolumeError>,
    hidden: &Hidden,
    limits: &Limits,
    control: &Control,
) -> Result<Cloned, VolumeError> {
    Ways::forget_probe(&hidden.dir);
    let tally = Tally::new(None, limits);
    tally.scan(hidden.dir.try_clone()?, limits, control)?;
    let there_bytes = tally.sums().allocated_bytes;
    let mut sums = announced(from()?, limits, control)?;
    sums.allocated_bytes = sums.allocated_bytes.saturating_sub(there_bytes);
    refuse_over_quota(root, job.dst, &sums)?;
    fill(from()?, &hidden.dir, sums, job.free_bytes, limits, control)
}

/// Which hidden tree is the work of a task. Only while the same kernel has the same file system
/// mounted is what was written to one still there, synced or not.
fn own_number(root: &VolumeRoot, job: Job) -> Result<Option<SessionId>, VolumeError> {
    static BOOT: OnceLock<Option<u128>> = OnceLock::new();
    let boot = BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(TaskId::parse(text.trim()).ok()?.uuid().as_u128())
    });
    let dev = root.open_scope(job.dst.scope.as_ref())?.metadata()?.dev;
    let number = |boot: &u128| boot.rotate_left(1) ^ u128::from(dev) ^ job.task.uuid().as_u128();
    Ok(boot
        .as_ref()
        .map(|boot| SessionId::from_bytes(number(boot).to_be_bytes())))
}

/// Removes a part of a tree that nobody will ever see.
pub(crate) fn give_up(hidden: Hidden, limits: &Limits) {
    let vfid = *hidden.id();
    if !hidden.is_hidden() {
        // It has its place already, though something failed after that.
        return;
    }
    // Not with the caller's reins: a cancelled copy has to clean up as well.
    if let Err(error) = discard(hidden.abandon(), limits, &Control::default()) {
        tracing::warn!(%vfid, %error, "a part of a copy is left to the sweep");
    }
}

/// What is to be copied into `to`, which the quota of its scope allows.
pub(crate) fn measured(
    root: &VolumeRoot,
    to: VFolderId,
    from: Dir,
    limits: &Limits,
    control: &Control,
) -> Result<Sums, VolumeError> {
    let sums = announced(from, limits, control)?;
    refuse_over_quota(root, to, &sums)?;
    Ok(sums)
}

fn announced(from: Dir, limits: &Limits, control: &Control) -> Result<Sums, VolumeError> {
    let tally = Tally::new(None, limits);
    tally.scan(from, limits, control)?;
    control.check()?;
    let sums = tally.sums();
    control.announce(sums.entries, sums.content_bytes);
    Ok(sums)
}

fn refuse_over_quota(root: &VolumeRoot, to: VFolderId, sums: &Sums) -> Result<(), VolumeError> {
    // Also for copies that share their blocks: each scope is charged for them in full.
    let needed_bytes = sums.allocated_bytes;
    match root.room(to.scope.as_ref())?.refuses(needed_bytes) {
        Some(quota) => Err(VolumeError::QuotaExceeded {
            needed_bytes: Some(needed_bytes),
            quota: Some(quota),
        }),
        None => Ok(()),
    }
}

pub(crate) fn fill(
    from: Dir,
    to: &Dir,
    sums: Sums,
    free_bytes: Option<u64>,
    limits: &Limits,
    control: &Control,
) -> Result<Cloned, VolumeError> {
    let ways = Ways::default();
    if let Some(free_bytes) = free_bytes
        && free_bytes < sums.allocated_bytes
        && !ways.shares_extents(to)
    {
        return Err(VolumeError::NoRoom {
            needed_bytes: sums.allocated_bytes,
            free_bytes,
        });
    }
    let cloned = durable::filled(to, limits, control, || {
        copy::tree(from, to.try_clone()?, &ways, limits, control)
    })?;
    control.check()?;
    Ok(cloned)
}

/// Fills a vfolder that is there with the state that `from` opens: the same directory, so that
/// what belongs to the directory stays. The copy is made aside, then both change places entry by
/// entry. Interrupted anywhere, it can be run again: until then the vfolder may show a part of
/// either state, and what of the old one is aside is removed by the next run.
///
/// # Errors
/// As [`clone`]; but for the moment of the change, the vfolder is as it was.
pub(crate) fn refill(
    root: &VolumeRoot,
    job: Job,
    from: &dyn Fn() -> Result<Dir, VolumeError>,
    limits: &Limits,
    control: &Control,
) -> Result<Cloned, VolumeError> {
    control.check()?;
    let vfid = job.dst;
    let folder = root.vfolder(&vfid).map_err(of(vfid))?;
    for leftover in root.unfinished_clones(&vfid)? {
        discard(leftover, limits, control)?;
    }
    let sums = measured(root, vfid, from()?, limits, control)?;
    let [new, old] = [(); 2].map(|()| root.create_hidden(&vfid, HIDDEN_MODE).map_err(of(vfid)));
    let (new, old) = (new?, old?);
    let filled = fill(from()?, &new.dir, sums, job.free_bytes, limits, control);
    let refilled = filled.and_then(|cloned| {
        let mut place = folder.open_dir(&RelPath::root()).map_err(of(vfid))?;
        if let Err(error) = hand_over(&mut place, &old.dir) {
            // Nothing of the new state is there yet: what has left comes back.
            hand_over(&mut old.dir.try_clone()?, &place)?;
            return Err(error);
        }
        hand_over(&mut new.dir.try_clone()?, &place)?;
        place.chmod(new.dir.metadata()?.mode & 0o7777)?;
        place.sync()?;
        Ok(cloned)
    });
    if !control.is_halted() {
        give_up(new, limits);
        give_up(old, limits);
    }
    refilled
}

/// Moves all entries of a directory into another.
fn hand_over(from: &mut Dir, to: &Dir) -> Result<(), VolumeError> {
    let entries: Vec<_> = from.entries().collect::<Result<_, _>>()?;
    for entry in entries {
        match from.rename(&entry.name, to, &entry.name) {
            Err(error) if error.is_not_found() => {}
            done => done?,
        }
    }
    Ok(())
}

/// Gives a finished tree its name, and marks it as the work of the task.
pub(crate) fn publish(root: &VolumeRoot, job: Job, hidden: &Hidden) -> Result<(), VolumeError> {
    let scope = root.open_scope(job.dst.scope.as_ref())?;
    let mark = leave_mark(&scope, job.task, &hidden.dir)?;
    let published = root.publish_vfolder(hidden);
    if published.is_err() {
        // If it stays, it names a tree that no folder will ever be.
        let _ = scope.unlink(&mark);
    }
    match published {
        Err(error) if errno_is(&error, Errno::EXIST) => Err(VolumeError::FolderExists(job.dst)),
        done => done.map_err(of(job.dst)),
    }
}

/// The destination is there: by an earlier run of this task, or by somebody else.
fn already_cloned(root: &VolumeRoot, job: Job, there: &Dir) -> Result<Cloned, VolumeError> {
    let scope = root.open_scope(job.dst.scope.as_ref())?;
    match scope.stat(&mark(job.task, there)?) {
        Ok(_) => Ok(Cloned::default()),
        Err(_) => Err(VolumeError::FolderExists(job.dst)),
    }
}

/// Says, durably, in the directory of the scope that the tree `dir` is the work of `task`. A crash
/// may have left the same mark: inode numbers are used again at once.
pub(crate) fn leave_mark(scope: &Dir, task: TaskId, dir: &Dir) -> Result<OsString, VolumeError> {
    let mark = mark(task, dir)?;
    match scope.create_file(&mark, 0o600) {
        Err(error) if !errno_is(&error, Errno::EXIST) => return Err(error.into()),
        _ => scope.sync()?,
    }
    Ok(mark)
}

/// Says that the tree `dir` is the work of `task`.
pub(crate) fn mark(task: TaskId, dir: &Dir) -> Result<OsString, VolumeError> {
    let end = mark_end(dir)?;
    Ok(OsString::from(format!("{}{end}", mark_begin(task))))
}

/// How every mark of a task begins.
pub(crate) fn mark_begin(task: TaskId) -> String {
    format!("{MARK}{}", task.uuid().simple())
}

/// How every mark about the tree `dir` ends.
pub(crate) fn mark_end(dir: &Dir) -> Result<String, VolumeError> {
    Ok(format!("-{:x}", dir.metadata()?.ino))
}

/// Whether a name in a scope is a mark of a finished clone.
pub(crate) fn is_mark(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(MARK.as_bytes())
}
