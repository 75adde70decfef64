//! Quota scopes of storage systems where a directory gets a limit by an object beside it.
//!
//! The vendor finds, makes, changes and removes the object ([`Limits`]); what happens in which
//! order, and what a second try takes over from the first, is the same for all of them.
//!
//! Laws
//! - The directory comes first, then the vendor's object, then the note of its number in the
//!   directory: whoever is interrupted leaves what a second try takes over.
//! - The note is a hint. What the vendor says of the object's path counts.
//! - A scope whose limit could not be set is not left behind: nobody writes there without one.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::ops::Deref;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proxy_anchor::{FileKind, Quota};
use proxy_core::id::{QuotaScopeId, SessionId};
use rustix::io::Errno;
use tokio::time::{Instant, timeout};

use crate::backend::ScopeQuota;
use crate::entries::{for_each, kind_of};
use crate::error::VolumeError;
use crate::tree::Tree;

/// Longest note that is read; ids of vendors are much shorter.
const NOTE_BYTES_MAX: usize = 256;
/// How long the vendor's numbers are good enough to let an upload begin.
const LATELY: Duration = Duration::from_secs(10);
/// How long an upload waits for them.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);

/// A vendor's object that limits a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The vendor's number or name for it.
    pub id: String,
    /// Bytes in use, once they are counted.
    pub used_bytes: Option<u64>,
    /// The limit that counts.
    pub limit_bytes: Option<u64>,
}

/// The objects of one vendor.
#[async_trait]
pub trait Limiter: Send + Sync {
    /// The file in the scope that notes the object's number; `None` where it needs no note.
    fn note(&self) -> Option<&'static str>;

    /// The object of a scope; `noted` is what the note says, which may be wrong.
    async fn find(
        &self,
        scope: QuotaScopeId,
        noted: Option<String>,
    ) -> Result<Option<Found>, VolumeError>;

    /// Makes the object and gives its number. Takes over one that is there already.
    async fn make(&self, scope: QuotaScopeId, limit_bytes: u64) -> Result<String, VolumeError>;

    /// Sets another limit.
    async fn change(
        &self,
        scope: QuotaScopeId,
        id: &str,
        limit_bytes: u64,
    ) -> Result<(), VolumeError>;

    /// Removes the object; a missing one is fine.
    async fn remove(&self, scope: QuotaScopeId, id: &str) -> Result<(), VolumeError>;
}

/// See [`crate::Backend::create_scope`].
///
/// # Errors
/// See there, and those of the vendor.
pub(crate) async fn create(
    tree: &Tree,
    limiter: &dyn Limiter,
    scope: QuotaScopeId,
    limit_bytes: Option<u64>,
) -> Result<(), VolumeError> {
    let exists = match tree.create_scope(scope).await {
        Ok(()) => false,
        Err(VolumeError::ScopeExists(_)) => true,
        Err(error) => return Err(error),
    };
    let Some(limit_bytes) = limit_bytes else {
        return if exists {
            Err(VolumeError::ScopeExists(scope))
        } else {
            Ok(())
        };
    };
    if exists && !is_half_made(tree, limiter, scope).await? {
        return Err(VolumeError::ScopeExists(scope));
    }
    let set = set(tree, limiter, scope, limit_bytes).await;
    if set.is_err() && !exists {
        // Only an empty one can be removed so. The vendor's object, if it was made, is found by
        // its path when the scope is made again.
        let removed = tree.on_volume(move |root| {
            let top = root.open_scope(None)?;
            Ok(top.rmdir(OsStr::new(&scope.dir_name()))?)
        });
        if let Err(error) = removed.await {
            tracing::warn!(%scope, %error, "a quota scope without its limit stays");
        }
    }
    set
}

/// Whether a scope that is there may be the work of a try that was interrupted.
async fn is_half_made(
    tree: &Tree,
    limiter: &dyn Limiter,
    scope: QuotaScopeId,
) -> Result<bool, VolumeError> {
    let Some(name) = limiter.note() else {
        let is_empty = tree.scope_is_empty(scope).await?;
        return Ok(is_empty && limiter.find(scope, None).await?.is_none());
    };
    // A note is written last: with a right one, the first try was done.
    let noted = note(tree, scope, name).await?;
    if noted.is_none() {
        return holds_only(tree, scope, name).await;
    }
    Ok(limiter.find(scope, noted).await?.is_none())
}

/// Whether a scope holds nothing, but for a note that was being written.
async fn holds_only(
    tree: &Tree,
    scope: QuotaScopeId,
    note: &'static str,
) -> Result<bool, VolumeError> {
    tree.on_volume(move |root| {
        let mut dir = root.open_scope(Some(&scope))?;
        for entry in dir.entries() {
            let name = entry?.name;
            if !name.as_encoded_bytes().starts_with(note.as_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}

/// See [`crate::Backend::describe_scope`].
///
/// # Errors
/// Those of the vendor.
pub(crate) async fn describe(
    tree: &Tree,
    limiter: &dyn Limiter,
    scope: QuotaScopeId,
) -> Result<Option<ScopeQuota>, VolumeError> {
    if !tree.scope_exists(scope).await? {
        return Ok(None);
    }
    let found = find(tree, limiter, scope).await?.unwrap_or_default();
    Ok(Some(ScopeQuota {
        used_bytes: found.used_bytes,
        limit_bytes: found.limit_bytes,
    }))
}

/// Sets the limit of a scope that is there, by whatever object it has or needs.
///
/// # Errors
/// Those of the vendor.
pub(crate) async fn set(
    tree: &Tree,
    limiter: &dyn Limiter,
    scope: QuotaScopeId,
    limit_bytes: u64,
) -> Result<(), VolumeError> {
    let id = match find(tree, limiter, scope).await? {
        Some(found) => {
            if found.limit_bytes != Some(limit_bytes) {
                limiter.change(scope, &found.id, limit_bytes).await?;
            }
            found.id
        }
        None => limiter.make(scope, limit_bytes).await?,
    };
    match limiter.note() {
        Some(name) => write_note(tree, scope, name, id).await,
        None => Ok(()),
    }
}

/// See [`crate::Backend::unset_scope`].
///
/// # Errors
/// Those of the vendor.
pub(crate) async fn unset(
    tree: &Tree,
    limiter: &dyn Limiter,
    scope: QuotaScopeId,
) -> Result<(), VolumeError> {
    if let Some(found) = find(tree, limiter, scope).await? {
        limiter.remove(scope, &found.id).await?;
    }
    let Some(name) = limiter.note() else {
        return Ok(());
    };
    tree.on_volume(move |root| {
        let dir = root.open_scope(Some(&scope))?;
        match dir.unlink(OsStr::new(name)) {
            Err(error) if error.is_not_found() => Ok(()),
            done => Ok(done?),
        }
    })
    .await
}

/// See [`crate::Backend::delete_scope`].
///
/// # Errors
/// See there, and those of the vendor.
pub(crate) async fn delete(
    tree: &Tree,
    limiter: &dyn Limiter,
    scope: QuotaScopeId,
) -> Result<(), VolumeError> {
    if !tree.scope_exists(scope).await? {
        return Ok(());
    }
    // Before the limit is lifted: a scope that stays keeps it.
    tree.on_volume(move |root| {
        for_each(
            &mut root.open_scope(Some(&scope))?,
            |dir, entry| match kind_of(dir, entry)? {
                FileKind::Dir => Err(VolumeError::ScopeNotEmpty(scope)),
                _ => Ok(()),
            },
        )
    })
    .await?;
    unset(tree, limiter, scope).await?;
    tree.delete_scope(scope).await
}

/// How the scopes of a volume are limited; see [`crate::Backend::limits`].
pub struct Limited<'a> {
    /// The vendor's objects.
    pub limiter: Held<'a>,
    /// What it said lately.
    pub lately: &'a Lately,
}

/// A limiter that lives as long as its volume, or as long as the call.
pub enum Held<'a> {
    /// The volume's.
    Lent(&'a dyn Limiter),
    /// Made for the call.
    Own(Box<dyn Limiter + 'a>),
}

impl<'a> Deref for Held<'a> {
    type Target = dyn Limiter + 'a;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Lent(limiter) => *limiter,
            Self::Own(limiter) => &**limiter,
        }
    }
}

/// What the vendor said of scopes lately, so that not every upload asks.
#[derive(Default)]
pub struct Lately(Mutex<HashMap<QuotaScopeId, (Instant, ScopeQuota)>>);

impl Lately {
    fn of(&self, scope: QuotaScopeId) -> Option<ScopeQuota> {
        let mut known = self.0.lock();
        known.retain(|_, (at, _)| at.elapsed() < LATELY);
        known.get(&scope).map(|(_, quota)| *quota)
    }

    /// Refuses early what the storage system would refuse late: after the bytes were sent.
    ///
    /// # Errors
    /// [`VolumeError::QuotaExceeded`]. What cannot be known now is told when bytes are written.
    pub(crate) async fn refuse(
        &self,
        tree: &Tree,
        limiter: &dyn Limiter,
        scope: Option<QuotaScopeId>,
        bytes: u64,
    ) -> Result<(), VolumeError> {
        let Some(scope) = scope else { return Ok(()) };
        if self
            .of(scope)
            .is_some_and(|quota| over(quota, bytes).is_none())
        {
            return Ok(());
        }
        let asked = timeout(ASK_TIME_MAX, describe(tree, limiter, scope)).await;
        let Ok(Ok(Some(quota))) = asked else {
            return Ok(());
        };
        self.0.lock().insert(scope, (Instant::now(), quota));
        match over(quota, bytes) {
            Some(quota) => Err(VolumeError::QuotaExceeded {
                needed_bytes: Some(bytes),
                quota: Some(quota),
            }),
            None => Ok(()),
        }
    }
}

/// The numbers of a quota that has no room for so many bytes more.
fn over(quota: ScopeQuota, bytes: u64) -> Option<Quota> {
    let quota = Quota {
        used_bytes: quota.used_bytes?,
        limit_bytes: quota.limit_bytes?,
    };
    (quota.left_bytes() < bytes).then_some(quota)
}

async fn find(
    tree: &Tree,
    limiter: &dyn Limiter,
    scope: QuotaScopeId,
) -> Result<Option<Found>, VolumeError> {
    let noted = match limiter.note() {
        Some(name) => note(tree, scope, name).await?,
        None => None,
    };
    limiter.find(scope, noted).await
}

/// What a note says, without white space around it; `None` for none, or one of no use.
pub(crate) async fn note(
    tree: &Tree,
    scope: QuotaScopeId,
    name: &str,
) -> Result<Option<String>, VolumeError> {
    let name = OsString::from(name);
    tree.on_volume(move |root| {
        let opened = root
            .open_scope(Some(&scope))
            .and_then(|dir| dir.open_file(&name));
        let opened = match opened {
            Ok(opened) if opened.stat.is_file() => opened,
            Ok(_) => return Ok(None),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut text = [0; NOTE_BYTES_MAX];
        let got = rustix::io::pread(&opened.fd, &mut text, 0)
            .map_err(|errno| VolumeError::os("read note of quota", errno))?;
        let text = std::str::from_utf8(&text[..got]).unwrap_or_default().trim();
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        Ok((!text.is_empty() && text.bytes().all(plain)).then(|| text.to_owned()))
    })
    .await
}

/// Writes a note whole or not at all.
pub(crate) async fn write_note(
    tree: &Tree,
    scope: QuotaScopeId,
    name: &str,
    text: String,
) -> Result<(), VolumeError> {
    if note(tree, scope, name).await?.as_deref() == Some(text.as_str()) {
        return Ok(());
    }
    let name = name.to_owned();
    tree.on_volume(move |root| {
        let dir = root.open_scope(Some(&scope))?;
        let new = OsString::from(format!("{name}.{}", SessionId::random()));
        let file = dir.create_file(&new, 0o644)?;
        let os = |errno: Errno| VolumeError::os("write note of quota", errno);
        let written = rustix::io::pwrite(&file, text.as_bytes(), 0)
            .and_then(|_| rustix::fs::fsync(&file))
            .map_err(os)
            .and_then(|()| Ok(dir.rename(&new, &dir, OsStr::new(&name))?));
        if written.is_err() {
            let _ = dir.unlink(&new);
        }
        written.and_then(|()| Ok(dir.sync()?))
    })
    .await
}
