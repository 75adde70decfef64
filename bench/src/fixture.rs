//! The files that a workload reads, and the place where it writes: made once, shared by all peers.
//!
//! ```text
//! <root>/                               a volume, for peers that have volumes
//!   <scope>/<xx>/<yy>/<rest>/           the folder: document root of plain file servers
//!     4kib-1000/0000, 0001, ...         a set: files of one size
//!     up/                               where uploads go; emptied between runs
//! ```
//!
//! Content is a function of the file's number and the position, see [`crate::fixture::Fixture`].

use std::path::{Path, PathBuf};

/// A file of a fixture: index into [`Fixture::files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A file on disk.
#[derive(Clone, Debug)]
pub struct BenchFile {
    /// Name in the folder, such as `4kib-1000/0007`: letters, digits, `-` and `/` only.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// A volume with one folder and its files.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// The volume.
    pub root: PathBuf,
    /// All files, by [`FileId`].
    pub files: Vec<BenchFile>,
}

/// The quota scope of the one folder.
pub const SCOPE: &str = "user:11111111-2222-3333-4444-555555555555";
/// The one folder.
pub const FOLDER: &str = "aabbccddeeff00112233445566778899";
/// Where uploads go, in the folder.
pub const UPLOADS: &str = "up";

impl Fixture {
    /// The folder as it lies on disk.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        folder_in(&self.root)
    }

    /// A file.
    #[must_use]
    pub fn file(&self, id: FileId) -> &BenchFile {
        &self.files[id.0 as usize]
    }

    /// Where a file lies on disk.
    #[must_use]
    pub fn path(&self, id: FileId) -> PathBuf {
        self.folder().join(&self.file(id).name)
    }
}

/// `<root>/<scope>/<xx>/<yy>/<rest>`: how volumes lay out their folders.
fn folder_in(root: &Path) -> PathBuf {
    let scope: String = SCOPE
        .chars()
        .skip_while(|c| *c != ':')
        .filter(char::is_ascii_hexdigit)
        .collect();
    root.join(scope)
        .join(&FOLDER[..2])
        .join(&FOLDER[2..4])
        .join(&FOLDER[4..])
}
