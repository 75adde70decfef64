//! Snapshots of vfolders: their names, and what a backend says of them.
//!
//! A snapshot is a state of a vfolder that can be listed, brought back in place or as a new
//! vfolder, and removed. What the storage system keeps for it may be larger, see [`Unit`]; the
//! vfolder's part of it is what users see and get back.
//!
//! Laws
//! - Names are made by clients from a small alphabet that every storage system takes; a vendor
//!   name is made from the folder and this name, so that what others made is never touched.
//! - A snapshot that expires is removed by the retention task, and by the storage system itself
//!   where that has such a thing.

use std::fmt;
use std::sync::Arc;

use crate::stamp::Stamp;

/// Longest name; several vendors put prefixes before it, within 64 characters.
const NAME_BYTES_MAX: usize = 40;

/// A name of a snapshot: 1 to 40 letters, digits, `-` and `.`; neither at its begin nor its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName(Arc<str>);

impl SnapshotName {
    /// Takes a name that every storage system takes.
    pub fn parse(text: &str) -> Option<Self> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        (bytes.len() <= NAME_BYTES_MAX
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().copied().all(inner))
        .then(|| Self(text.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the storage system keeps when it keeps a state of one vfolder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The vfolder alone.
    VFolder,
    /// The quota scope it is in.
    Scope,
    /// The whole volume.
    Volume,
}

impl Unit {
    /// The word on the wire.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::VFolder => "vfolder",
            Self::Scope => "quota-scope",
            Self::Volume => "volume",
        }
    }
}

/// One snapshot of a vfolder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// When it was made.
    pub created: Stamp,
    /// When it will be removed; `None` for never.
    pub expires: Option<Stamp>,
    /// What the storage system keeps for it.
    pub unit: Unit,
    /// Bytes that it holds beside the present state, where that is known.
    pub used_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_every_storage_system_takes() {
        let long = "a".repeat(NAME_BYTES_MAX);
        for (name, taken) in [
            ("a", true),
            ("before-upgrade.2", true),
            (long.as_str(), true),
            ("", false),
            ("-a", false),
            ("a.", false),
            (".snap", false),
            ("_a", false),
            ("a_b", false),
            ("a/b", false),
            ("a b", false),
            ("é", false),
            (&format!("{long}a"), false),
        ] {
            assert_eq!(SnapshotName::parse(name).is_some(), taken, "{name:?}");
        }
    }
}
