//! The files that a workload reads, and the place where it writes: made once, shared by all peers.
//!
//! ```text
//! <root>/                               a volume, for peers that have volumes
//!   <scope>/<xx>/<yy>/<rest>/           the folder: document root of plain file servers
//!     4kib-1000/0000, 0001, ...         a set: files of one size
//!     up/                               where uploads go; emptied between runs
//! ```
//!
//! Content is a function of the file's name and the position, see [`crate::content`].

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise, syncfs};

use crate::content::Pattern;
use crate::workload::{FileSet, Workload};

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

/// How volumes are laid out, as they say it themselves.
const LAYOUT_VERSION: &str = "3";
/// Written at a time.
const BLOCK_BYTES: usize = 1024 * 1024;

impl Fixture {
    /// Makes the files of a workload that are not there yet.
    ///
    /// # Errors
    /// The disk is full, or not writable.
    pub fn make(root: &Path, workload: &Workload) -> io::Result<Self> {
        let folder = folder_in(root);
        std::fs::create_dir_all(folder.join(UPLOADS))?;
        std::fs::write(root.join("version.txt"), LAYOUT_VERSION)?;
        let mut fixture = Self {
            root: root.to_owned(),
            files: Vec::new(),
        };
        let mut made = false;
        for set in sets(workload) {
            std::fs::create_dir_all(folder.join(set.dir()))?;
            for number in 0..set.count {
                let file = BenchFile {
                    name: format!("{}/{number:05}", set.dir()),
                    bytes: set.bytes.0,
                };
                made |= make_file(&folder.join(&file.name), &file)?;
                fixture.files.push(file);
            }
        }
        if made {
            // Dirty pages can be neither dropped nor ignored by a measurement.
            syncfs(File::open(&folder)?)?;
        }
        Ok(fixture)
    }

    /// Removes sets that none of these workloads needs.
    ///
    /// # Errors
    /// As unlink(2) says.
    pub fn prune(root: &Path, needed: &[&Workload]) -> io::Result<()> {
        let keep: Vec<String> = needed
            .iter()
            .flat_map(|w| sets(w))
            .map(|s| s.dir())
            .collect();
        let Ok(entries) = std::fs::read_dir(folder_in(root)) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !keep.contains(&name) && name != UPLOADS && entry.path().is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// The files of a set.
    #[must_use]
    pub fn set(&self, set: &FileSet) -> Vec<FileId> {
        let dir = set.dir();
        let inside = |file: &BenchFile| file.name.split('/').next() == Some(dir.as_str());
        let ids = self
            .files
            .iter()
            .enumerate()
            .filter(|(_, file)| inside(file));
        ids.map(|(index, _)| FileId(index as u32)).collect()
    }

    /// Brings all files into the page cache.
    ///
    /// # Errors
    /// As read(2) says.
    pub fn warm(&self) -> io::Result<()> {
        let mut block = vec![0; BLOCK_BYTES];
        for file in &self.files {
            let mut from = File::open(self.folder().join(&file.name))?;
            while io::Read::read(&mut from, &mut block)? > 0 {}
        }
        Ok(())
    }

    /// Drops files from the page cache.
    ///
    /// # Errors
    /// As open(2) says.
    pub fn chill(&self, files: &[FileId]) -> io::Result<()> {
        for id in files {
            let file = File::open(self.path(*id))?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }

    /// Empties the place of uploads, and waits for the disk.
    ///
    /// # Errors
    /// As unlink(2) says.
    pub fn empty_uploads(&self) -> io::Result<()> {
        let uploads = self.folder().join(UPLOADS);
        std::fs::remove_dir_all(&uploads)?;
        std::fs::create_dir_all(&uploads)?;
        Ok(syncfs(File::open(&uploads)?)?)
    }

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

/// The sets of a workload, each once.
fn sets(workload: &Workload) -> Vec<FileSet> {
    let mut sets: Vec<FileSet> = Vec::new();
    for set in workload.load.iter().filter_map(|load| load.files) {
        if !sets.contains(&set) {
            sets.push(set);
        }
    }
    sets
}

/// True when it was not there.
fn make_file(path: &Path, file: &BenchFile) -> io::Result<bool> {
    if path.metadata().is_ok_and(|found| found.len() == file.bytes) {
        return Ok(false);
    }
    let pattern = Pattern::of(&file.name);
    let mut out = File::create(path)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut at = 0;
    while at < file.bytes {
        let len = (file.bytes - at).min(BLOCK_BYTES as u64) as usize;
        pattern.fill(at, &mut block[..len]);
        out.write_all(&block[..len])?;
        at += len as u64;
    }
    Ok(true)
}

/// Whether a file holds what the pattern says.
///
/// # Errors
/// Where it does not, or why it cannot be read.
pub fn verify(path: &Path, pattern: Pattern, bytes: u64) -> Result<(), String> {
    let at_path = |problem: String| format!("{}: {problem}", path.display());
    let mut from = File::open(path).map_err(|error| at_path(error.to_string()))?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut at = 0;
    loop {
        let read = io::Read::read(&mut from, &mut block);
        let count = read.map_err(|error| at_path(error.to_string()))?;
        if count == 0 {
            break;
        }
        if let Some(place) = pattern.mismatch(at, &block[..count]) {
            return Err(at_path(format!("wrong byte at {place}")));
        }
        at += count as u64;
    }
    if at == bytes {
        Ok(())
    } else {
        Err(at_path(format!("{at} bytes instead of {bytes}")))
    }
}
