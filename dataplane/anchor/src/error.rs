//! What a lookup can answer instead of a descriptor.
//!
//! Laws
//! - Paths in errors are relative to the vfolder (or, above it, to the volume): a client may
//!   see them.
//! - The errno of the system call travels as it is; what it means to a client is decided by
//!   the caller.

use rustix::io::Errno;

/// Short for results of this crate.
pub type Result<T> = std::result::Result<T, AnchorError>;

/// Why a name did not become a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnchorError {
    /// The vfolder is not there, or is not a directory.
    #[error("vfolder not found")]
    VFolderMissing,
    /// The name, or a link on its way, leads out of the vfolder.
    #[error("path leaves the vfolder")]
    Escapes,
    /// The name leads into the staging directory, which clients cannot reach.
    #[error("path is reserved")]
    Reserved,
    /// The name cannot exist: it holds a NUL, or is not one component where one is needed.
    #[error("invalid name")]
    InvalidName,
    /// A tree is larger than the caller is willing to hold.
    #[error("tree exceeds {limit} of {max}")]
    Limit {
        /// Which limit.
        limit: Limit,
        /// Its value.
        max: u64,
    },
    /// The file system refused.
    #[error("{op} {path}: {}", Errno::from_raw_os_error(*.errno))]
    Os {
        /// What was being done, a verb.
        op: &'static str,
        /// As the kernel said it.
        errno: i32,
        /// Relative to the vfolder; undecodable bytes are replaced.
        path: String,
    },
}

/// The limits of a [`crate::walk::snapshot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Files, links and directories together.
    Entries,
    /// Levels of directories below the start.
    Depth,
    /// Bytes of all names together.
    NameBytes,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Entries => "the entry limit",
            Self::Depth => "the depth limit",
            Self::NameBytes => "the name bytes limit",
        })
    }
}

impl AnchorError {
    /// True when there is nothing of that name: `ENOENT`, or `ENOTDIR` because a file stands
    /// where a directory would have to be. A missing vfolder is not meant by this.
    pub fn is_not_found(&self) -> bool {
        matches!(self.kernel(), Some(Errno::NOENT | Errno::NOTDIR))
    }

    /// The errno, when the kernel was the one to refuse.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Os { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    pub(crate) fn kernel(&self) -> Option<Errno> {
        self.errno().map(Errno::from_raw_os_error)
    }

    pub(crate) fn os(op: &'static str, errno: Errno, path: &[u8]) -> Self {
        let path = String::from_utf8_lossy(path).into_owned();
        Self::Os {
            op,
            errno: errno.raw_os_error(),
            path,
        }
    }
}

/// Why a lookup stopped, before anyone knows which operation and name it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Escapes,
    Reserved,
    Errno(Errno),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl Stop {
    pub(crate) fn at(self, op: &'static str, path: &[u8]) -> AnchorError {
        match self {
            Self::Escapes => AnchorError::Escapes,
            Self::Reserved => AnchorError::Reserved,
            Self::Errno(errno) => AnchorError::os(op, errno, path),
        }
    }
}
