//! Why the store refused or failed.
//!
//! Laws
//! - One batch of changes shares one commit, so its error is cheap to clone.
//! - A failed commit means *unknown*: the change may or may not be in the file. Nobody was told
//!   that it is.
//! - Text: lowercase, no full stop; opening errors name the file and the way out.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the state file could not be opened. Nothing on disk was deleted or emptied.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another store of this one, holds the file.
    #[error(
        "state file {path} is in use{}: stop that process, or choose another data directory",
        owner_text(*.owner_pid)
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// Who holds it, where the kernel says so.
        owner_pid: Option<u32>,
    },
    /// The content is not what this program wrote.
    #[error(
        "state file {path} is damaged ({reason}); it was left as it is: restore a backup, or move \
         the file away to begin with empty state (unfinished uploads then start at byte 0)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the check found.
        reason: String,
    },
    /// Written by a release that this one does not understand.
    #[error(
        "state file {path} has format {found}, this release reads up to {known}: run the newer \
         release, or choose another data directory"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format it says it has.
        found: u32,
        /// The newest format that this release reads.
        known: u32,
    },
    /// The system said no.
    #[error("{op} {path}: {source}")]
    Io {
        /// What was tried, a verb phrase.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// ` by process 42`, or a phrase when the kernel does not say.
fn owner_text(owner_pid: Option<u32>) -> String {
    match owner_pid {
        Some(pid) => format!(" by process {pid}"),
        None => " by another process".to_owned(),
    }
}

/// Why a call on an open store failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StateError {
    /// The disk below the state file is full or over quota. The store works again by itself once
    /// there is room.
    #[error("no space for the state file: {text}")]
    NoSpace {
        /// What the system said.
        text: String,
    },
    /// The disk below the state file failed. Every further call tries the file anew.
    #[error("state file: {text}")]
    Disk {
        /// What the system said.
        text: String,
    },
    /// A record that this program did not write that way.
    #[error("state file holds a damaged record: {text}")]
    Damaged {
        /// Which, and what is wrong.
        text: String,
    },
    /// A record of this identifier exists already.
    #[error("already recorded")]
    Exists,
    /// The record is larger than the store takes.
    #[error("record of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// No such record.
    #[error("no such record")]
    Unknown,
    /// The store has been closed.
    #[error("the state store is closed")]
    Closed,
    /// What other servers know is needed, and can not be had.
    #[error("the state shared with other servers is away")]
    Away,
}

impl StateError {
    /// Whether the same call can succeed later without anybody changing the request.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::NoSpace { .. } | Self::Disk { .. } | Self::Away => true,
            Self::Damaged { .. }
            | Self::Exists
            | Self::TooLarge { .. }
            | Self::Unknown
            | Self::Closed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn opening_errors_name_the_file_and_the_way_out() {
        let path = PathBuf::from("/data/state.redb");
        for (error, parts) in [
            (
                OpenError::InUse {
                    path: path.clone(),
                    owner_pid: Some(42),
                },
                ["/data/state.redb", "process 42", "stop that process"],
            ),
            (
                OpenError::InUse {
                    path: path.clone(),
                    owner_pid: None,
                },
                ["/data/state.redb", "another process", "data directory"],
            ),
            (
                OpenError::Damaged {
                    path: path.clone(),
                    reason: "bad page".into(),
                },
                ["/data/state.redb", "bad page", "restore a backup"],
            ),
            (
                OpenError::Newer {
                    path,
                    found: 9,
                    known: 1,
                },
                ["/data/state.redb", "format 9", "newer release"],
            ),
        ] {
            let text = error.to_string();
            for part in parts {
                assert!(text.contains(part), "{text:?} lacks {part:?}");
            }
            assert!(!text.ends_with('.'), "{text:?}");
        }
    }
}
