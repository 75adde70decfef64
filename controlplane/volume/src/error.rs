//! Why an operation on a volume failed, and what the wire says about it.
//!
//! Laws
//! - No text shows a path of the server: paths are relative to the vfolder, causes are kinds.
//! - A missing folder, scope or file is an error of the vfolder's domain, so that the Manager
//!   understands it.
//! - Text: lowercase, no full stop; it is shown to people as the message of failed tasks.
//!
//! Source: contract of the manager-facing API, the common failures of each operation.

use proxy_anchor::{AnchorError, Quota, Room};
use proxy_core::id::{QuotaScopeId, VFolderId};
use proxy_core::problem::{self, Answer, Kind, Problem};
use proxy_core::relpath::RelPath;
use rustix::io::Errno;
use serde_json::json;
use thiserror::Error;

use crate::snapshot::SnapshotName;
use crate::vendor::{Cause, VendorError};

/// Longest path in an error, in bytes; deep trees have paths of any length.
const PATH_BYTES_MAX: usize = 512;

/// Why an operation on a volume failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The configuration has no volume of this name.
    #[error("no such volume: {0}")]
    UnknownVolume(String),
    /// The volume cannot be reached now: its directory is missing or refused.
    #[error("volume {volume} is not available: {cause}")]
    Unavailable {
        /// Its name.
        volume: String,
        /// What the system said, without a path.
        cause: String,
    },
    /// Too many operations are waiting for the volume, or it did not answer in time.
    #[error("the volume is busy or does not answer")]
    Busy,
    /// The backend has no such operation.
    #[error("the storage backend does not support this operation")]
    Unsupported,
    /// The vfolder's directory is missing or no directory.
    #[error("vfolder not found: {0}")]
    VFolderNotFound(VFolderId),
    /// The path leads out of the vfolder or into what is not the client's.
    #[error("path is outside of the vfolder {vfid}: {path}")]
    InvalidSubpath {
        /// The vfolder.
        vfid: VFolderId,
        /// The path as given.
        path: String,
    },
    /// A name that no entry can have, or that would move it elsewhere.
    #[error("invalid name for a file of {vfid}: {name}")]
    InvalidName {
        /// The vfolder.
        vfid: VFolderId,
        /// The name as given.
        name: String,
    },
    /// A folder is to be created without a quota scope.
    #[error("a new vfolder needs a quota scope: {0}")]
    ScopeRequired(VFolderId),
    /// The quota scope is there already.
    #[error("quota scope exists already: {0}")]
    ScopeExists(QuotaScopeId),
    /// The quota scope is missing.
    #[error("quota scope not found: {0}")]
    ScopeNotFound(QuotaScopeId),
    /// The quota scope that a folder needs could not be made on the way.
    #[error("quota scope {scope} cannot be created: {cause}")]
    ScopeCreationFailed {
        /// The scope.
        scope: QuotaScopeId,
        /// Why.
        cause: String,
    },
    /// A vfolder with something in it is there already.
    #[error("vfolder exists already: {0}")]
    FolderExists(VFolderId),
    /// The vfolder has no snapshot of this name.
    #[error("snapshot not found: {0}")]
    SnapshotNotFound(SnapshotName),
    /// The vfolder has a snapshot of this name already.
    #[error("snapshot exists already: {0}")]
    SnapshotExists(SnapshotName),
    /// The storage system's own interface refused, failed or did not answer.
    #[error("{0}")]
    Vendor(Box<VendorError>),
    /// The quota scope has vfolders, or other directories.
    #[error("quota scope is not empty: {0}")]
    ScopeNotEmpty(QuotaScopeId),
    /// The quota of the scope is used up, or would be.
    #[error("{}", over_quota(*needed_bytes, *quota))]
    QuotaExceeded {
        /// What was asked for, where that is known.
        needed_bytes: Option<u64>,
        /// The numbers, where they are known.
        quota: Option<Quota>,
    },
    /// The storage system does not take a limit: it is too large, too small, or not of its kind.
    #[error("the limit is refused: {0}")]
    LimitRefused(String),
    /// The volume as a whole is full.
    #[error("no space left on the volume: {free_bytes} bytes free")]
    NoSpace {
        /// What is left.
        free_bytes: u64,
    },
    /// The volume has no room for a copy. Nothing was copied.
    #[error("not enough space for a clone: {needed_bytes} bytes needed, {free_bytes} free")]
    NoRoom {
        /// Allocated bytes of the source.
        needed_bytes: u64,
        /// Free bytes of the volume.
        free_bytes: u64,
    },
    /// The system refused.
    #[error("{op}: {}{}", strerror(*errno), quoted(path))]
    Os {
        /// What was tried, a verb phrase.
        op: &'static str,
        /// The system's error number.
        errno: i32,
        /// The entry, relative to the vfolder; empty when it is about no entry.
        path: String,
    },
    /// The request makes no sense, though each of its parts does.
    #[error("{0}")]
    Refused(&'static str),
    /// Somebody asked the operation to stop.
    #[error("cancelled")]
    Cancelled,
    /// A defect of this program.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl VolumeError {
    /// An error of the system about no entry in particular; [`Self::at`] adds the entry.
    pub(crate) fn os(op: &'static str, errno: Errno) -> Self {
        Self::Os {
            op,
            errno: errno.raw_os_error(),
            path: String::new(),
        }
    }

    /// An error of the system about an entry.
    pub(crate) fn os_at(op: &'static str, errno: Errno, path: &RelPath) -> Self {
        Self::Os {
            op,
            errno: errno.raw_os_error(),
            path: path.as_str().to_owned(),
        }
    }

    /// Names the entry, unless the error knows it already.
    pub(crate) fn at(mut self, entry: impl FnOnce() -> String) -> Self {
        if let Self::Os { path, .. } = &mut self
            && path.is_empty()
        {
            *path = entry();
        }
        self
    }

    /// Names the entry, whatever the error said it was.
    pub(crate) fn about(mut self, entry: &RelPath) -> Self {
        if let Self::Os { path, .. } = &mut self {
            *path = entry.as_str().to_owned();
        }
        self
    }

    /// The error number, when the system gave one.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Os { errno, .. } => Some(Errno::from_raw_os_error(*errno)),
            _ => None,
        }
    }

    /// Whether a file system refused for want of space, by quota or otherwise.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOSPC | Errno::DQUOT))
    }

    /// The same, where it is the limit itself that was not taken.
    pub(crate) fn of_limit(self) -> Self {
        match self {
            Self::Vendor(error) if error.cause == Cause::Refused => {
                Self::LimitRefused(error.to_string())
            }
            // ext4 with an old quota file; CephFS.
            Self::Os { op, .. } if matches!(self.errno(), Some(Errno::RANGE | Errno::INVAL)) => {
                Self::LimitRefused(format!("{op}: the number is out of range"))
            }
            other => other,
        }
    }

    /// The same refusal for want of space with its cause and numbers.
    pub(crate) fn of_room(self, room: &Room) -> Self {
        let by_quota = self.errno() == Some(Errno::DQUOT);
        match room.ends_with_quota() {
            None if !by_quota => Self::NoSpace {
                free_bytes: room.free_bytes,
            },
            ended => Self::QuotaExceeded {
                needed_bytes: None,
                quota: ended.or(room.quota),
            },
        }
    }

    /// The answer of an endpoint that has no envelope of its own for this error.
    pub fn answer(&self) -> Answer {
        let text = self.to_string();
        match self {
            Self::UnknownVolume(name) => problem(Kind::InvalidVolume, name.clone()),
            Self::Unavailable { .. } | Self::Cancelled => problem(Kind::VolumeUnavailable, text),
            Self::Busy => problem(Kind::Overloaded, text),
            Self::Unsupported => problem::unsupported_operation(),
            Self::VFolderNotFound(_) => problem(Kind::VFolderNotFound, text),
            Self::InvalidSubpath { .. } | Self::InvalidName { .. } => {
                Problem::new(Kind::InvalidSubpath)
                    .data(json!(text))
                    .msg(text)
                    .answer()
            }
            Self::ScopeRequired(_) => problem(Kind::InvalidAPIParameters, text),
            Self::ScopeExists(_) => {
                let text = "Volume already exists with given quota scope.";
                problem::plain(409, &json!({ "msg": text }))
            }
            Self::ScopeNotFound(_) => problem(Kind::QuotaScopeNotFound, text),
            Self::ScopeCreationFailed { .. } => problem(Kind::ExternalStorageService, text),
            Self::FolderExists(_) => problem(Kind::VFolderExists, text),
            Self::NoRoom { .. } => problem(Kind::ProcessExecution, text),
            Self::ScopeNotEmpty(_) => problem(Kind::QuotaDirectoryNotEmpty, text),
            Self::QuotaExceeded {
                needed_bytes,
                quota,
            } => {
                let data = quota.map(|quota| {
                    json!({
                        "used_bytes": quota.used_bytes,
                        "limit_bytes": quota.limit_bytes,
                        "needed_bytes": needed_bytes,
                    })
                });
                let problem = Problem::new(Kind::QuotaExceeded).msg(text);
                data.into_iter().fold(problem, Problem::data).answer()
            }
            // The Manager's own word for it.
            Self::LimitRefused(_) => {
                problem::plain(400, &json!({ "msg": "Invalid quota config option" }))
            }
            Self::NoSpace { free_bytes } => {
                let problem = Problem::new(Kind::NoSpace).msg(text);
                problem.data(json!({ "free_bytes": free_bytes })).answer()
            }
            // Where nobody could ask for the numbers.
            Self::Os { .. } if self.errno() == Some(Errno::DQUOT) => {
                problem(Kind::QuotaExceeded, text)
            }
            Self::Os { .. } if self.is_full() => problem(Kind::NoSpace, text),
            Self::Os { errno, .. } if problem::is_away(*errno) => {
                problem(Kind::VolumeUnavailable, text)
            }
            Self::Os { errno, path, .. } => {
                let paths: &[String] = if path.is_empty() {
                    &[]
                } else {
                    std::slice::from_ref(path)
                };
                problem::os_error(&strerror(*errno), Some(*errno), paths)
            }
            Self::Refused(text) => problem::os_error(text, None, &[]),
            Self::SnapshotNotFound(_) => problem(Kind::SnapshotNotFound, text),
            Self::SnapshotExists(_) => problem(Kind::SnapshotExists, text),
            Self::Vendor(error) => error.answer(),
            Self::Internal(_) => problem(Kind::StorageProxy, text),
        }
    }
}

impl From<VendorError> for VolumeError {
    fn from(error: VendorError) -> Self {
        Self::Vendor(Box::new(error))
    }
}

impl From<AnchorError> for VolumeError {
    /// For operations on open directories, which cannot leave them. Operations on paths of
    /// clients say which vfolder they were about, see `In`.
    fn from(error: AnchorError) -> Self {
        match error {
            AnchorError::Os {
                op,
                errno,
                mut path,
            } => {
                path.truncate(path.floor_char_boundary(PATH_BYTES_MAX));
                Self::Os { op, errno, path }
            }
            AnchorError::Limit { .. } => Self::Internal("a tree limit outside of a snapshot"),
            AnchorError::InvalidName => Self::os("use name", Errno::INVAL),
            _ => Self::Internal("a client's path where none belongs"),
        }
    }
}

/// The vfolder and path that an operation is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct In<'a>(pub(crate) VFolderId, pub(crate) &'a RelPath);

impl In<'_> {
    /// What an error of the gate means for this path.
    pub(crate) fn err(self, error: AnchorError) -> VolumeError {
        let Self(vfid, path) = self;
        let path = path.as_str();
        match error {
            AnchorError::VFolderMissing => VolumeError::VFolderNotFound(vfid),
            AnchorError::Escapes | AnchorError::Reserved => VolumeError::InvalidSubpath {
                vfid,
                path: path.to_owned(),
            },
            AnchorError::InvalidName => VolumeError::InvalidName {
                vfid,
                name: path.to_owned(),
            },
            other => other.into(),
        }
    }
}

fn problem(kind: Kind, text: String) -> Answer {
    Problem::new(kind).msg(text).answer()
}

/// The system's words for an error number, without the number.
pub fn strerror(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.rfind(" (os error")
        .map_or(text.as_str(), |end| &text[..end])
        .to_owned()
}

fn over_quota(needed_bytes: Option<u64>, quota: Option<Quota>) -> String {
    let mut text = "quota exceeded".to_owned();
    if let Some(quota) = quota {
        let Quota {
            used_bytes,
            limit_bytes,
        } = quota;
        text.push_str(&format!(": {used_bytes} of {limit_bytes} bytes used"));
    }
    if let Some(needed_bytes) = needed_bytes {
        text.push_str(&format!(", {needed_bytes} more needed"));
    }
    text
}

fn quoted(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!(": '{path}'")
    }
}
