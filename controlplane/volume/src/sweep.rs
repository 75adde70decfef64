//! Removing what interrupted work left on a volume.
//!
//! Laws
//! - An upload is abandoned when its staging file has not changed for the given time and the
//!   caller does not know its session as one that may still go on.
//! - Detached trees go at once: nobody can be using them. Half-made clones and marks of finished
//!   ones stay for [`CLONE_AGE_MIN`], since another server may be at work on them.
//! - What cannot be removed is logged and left to the next sweep.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use proxy_anchor::{Detached, Dir, VolumeRoot, staging};
use proxy_core::id::{QuotaScopeId, SessionId, VFolderId};

use crate::backend::Swept;
use crate::control::Control;
use crate::error::VolumeError;
use crate::folder::{discard, is_mark};
use crate::limits::Limits;
use crate::stamp::Stamp;

/// Longer than any clone takes, and than any task stays on record unfinished.
pub const CLONE_AGE_MIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Whether a session may still go on: its staging file is kept, however old it is. May block.
pub type KeepSession = Arc<dyn Fn(SessionId) -> bool + Send + Sync>;

/// Begins the name of a tree that is being built, see `proxy-anchor`.
const CLONE: &str = ".clone-";

/// Sweeps a volume. `busy` names the folders that this process is making now.
///
/// # Errors
/// [`VolumeError::Cancelled`], and those of reading the volume's own directory.
pub(crate) fn sweep(
    root: &VolumeRoot,
    age: Duration,
    keep: &KeepSession,
    busy: &HashSet<VFolderId>,
    limits: &Limits,
    control: &Control,
) -> Result<Swept, VolumeError> {
    let now = Stamp::now();
    let mut swept = Swept::default();
    for tree in root.detached()? {
        control.check()?;
        swept.hidden += u64::from(removed(tree, limits, control)?);
    }
    hidden_clones(
        root,
        None,
        &old(now, age.max(CLONE_AGE_MIN)),
        busy,
        limits,
        control,
        &mut swept,
    )?;
    for scope in scopes(root)? {
        let older = old(now, age.max(CLONE_AGE_MIN));
        hidden_clones(root, Some(scope), &older, busy, limits, control, &mut swept)?;
    }
    for vfid in root.vfolders() {
        control.check()?;
        let done = vfid
            .map_err(VolumeError::from)
            .and_then(|vfid| uploads(root, vfid, &old(now, age), keep, &mut swept));
        if let Err(error) = done {
            tracing::warn!(%error, "a folder is left out of the sweep");
        }
    }
    Ok(swept)
}

/// Whether a time lies further back than `age`.
fn old(now: Stamp, age: Duration) -> impl Fn(i128) -> bool {
    let age_ns = i128::try_from(age.as_nanos()).unwrap_or(i128::MAX);
    move |time_ns| time_ns < now.unix_ns.saturating_sub(age_ns)
}

fn uploads(
    root: &VolumeRoot,
    vfid: VFolderId,
    is_old: &impl Fn(i128) -> bool,
    keep: &KeepSession,
    swept: &mut Swept,
) -> Result<(), VolumeError> {
    let gone = |error: &proxy_anchor::AnchorError| {
        error.is_not_found() || *error == proxy_anchor::AnchorError::VFolderMissing
    };
    let folder = match root.vfolder(&vfid) {
        Err(error) if gone(&error) => return Ok(()),
        folder => folder?,
    };
    for (session, stat) in staging::list(&folder)? {
        if !is_old(stat.mtime_ns) || keep(session) {
            continue;
        }
        match staging::discard(&folder, &session) {
            Ok(()) => {
                swept.sessions.push((vfid, session));
                swept.bytes = swept.bytes.saturating_add(stat.size);
            }
            Err(error) => tracing::warn!(%vfid, %error, "an abandoned upload stays"),
        }
    }
    Ok(())
}

pub(crate) fn scopes(root: &VolumeRoot) -> Result<Vec<QuotaScopeId>, VolumeError> {
    let mut found = Vec::new();
    for entry in root.open_scope(None)?.entries() {
        let name = entry?.name;
        let name = name.to_str().filter(|name| name.len() == 32).unwrap_or("");
        // The kind is not on disk; any will do for finding the directory.
        found.extend(QuotaScopeId::parse(&format!("user:{name}")));
    }
    Ok(found)
}

fn hidden_clones(
    root: &VolumeRoot,
    scope: Option<QuotaScopeId>,
    is_old: &impl Fn(i128) -> bool,
    busy: &HashSet<VFolderId>,
    limits: &Limits,
    control: &Control,
    swept: &mut Swept,
) -> Result<(), VolumeError> {
    let mut dir = match root.open_scope(scope.as_ref()) {
        Err(error) if error.is_not_found() => return Ok(()),
        dir => dir?,
    };
    let mut folders = HashSet::new();
    let names = dir.entries().map(|entry| entry.map(|entry| entry.name));
    for name in names.collect::<Result<Vec<_>, _>>()? {
        control.check()?;
        if is_mark(&name) && is_old_entry(&dir, &name, is_old) {
            let _ = dir.unlink(&name);
        }
        folders.extend(clone_of(&name, scope).filter(|_| is_old_entry(&dir, &name, is_old)));
    }
    for vfid in folders {
        if busy.iter().any(|other| other.folder == vfid.folder) {
            continue;
        }
        for tree in root.unfinished_clones(&vfid)? {
            swept.hidden += u64::from(removed(tree, limits, control)?);
        }
    }
    Ok(())
}

fn is_old_entry(dir: &Dir, name: &OsStr, is_old: &impl Fn(i128) -> bool) -> bool {
    dir.stat(name).is_ok_and(|stat| is_old(stat.mtime_ns))
}

/// The folder that a hidden tree was to become.
fn clone_of(name: &OsStr, scope: Option<QuotaScopeId>) -> Option<VFolderId> {
    let (folder, _) = name.to_str()?.strip_prefix(CLONE)?.split_once('-')?;
    let folder = VFolderId::parse(folder).ok()?.folder;
    Some(VFolderId { scope, folder })
}

/// Whether the tree is gone.
fn removed(tree: Detached, limits: &Limits, control: &Control) -> Result<bool, VolumeError> {
    let vfid = *tree.id();
    match discard(tree, limits, control) {
        Ok(()) => Ok(true),
        Err(VolumeError::Cancelled) => Err(VolumeError::Cancelled),
        Err(error) => {
            tracing::warn!(%vfid, %error, "a hidden tree stays");
            Ok(false)
        }
    }
}
