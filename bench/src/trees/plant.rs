//! Trees for measuring: made, counted, warmed and removed by plain calls of this program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directories beside each other at most, as people and programs lay out large datasets.
const FAN: u64 = 100;
/// Threads that make files.
const THREADS: u64 = 4;

/// A tree to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    files: u64,
    /// Directories with files in them; 0 for none but the root.
    dirs: u64,
    bytes: u64,
}

impl Plan {
    pub(super) fn flat(files: u64, bytes: u64) -> Self {
        let dirs = 0;
        Self { files, dirs, bytes }
    }

    pub(super) fn deep(files: u64, dirs: u64, bytes: u64) -> Self {
        Self { files, dirs, bytes }
    }

    /// Everything below the root: files and directories.
    pub(super) fn entries(&self) -> u64 {
        self.files + self.dirs + self.dirs.div_ceil(FAN)
    }

    fn dir(&self, root: &Path, number: u64) -> PathBuf {
        match self.dirs {
            0 => root.to_owned(),
            dirs => {
                let number = number % dirs;
                root.join(format!("group-{:04}", number / FAN))
                    .join(format!("part-{number:06}"))
            }
        }
    }
}

/// Makes a tree below `root`, which exists or not.
pub(super) fn plant(root: &Path, plan: &Plan) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for dir in 0..plan.dirs {
        fs::create_dir_all(plan.dir(root, dir))?;
    }
    let content = vec![b'x'; usize::try_from(plan.bytes).unwrap_or(0)];
    let make = |first: u64| {
        for number in (first..plan.files).step_by(THREADS as usize) {
            let dir = plan.dir(root, number);
            fs::write(dir.join(format!("sample-{number:08}.bin")), &content)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..THREADS)
            .map(|first| scope.spawn(move || make(first)))
            .collect();
        let mut made = Ok(());
        for maker in makers {
            let done = maker.join();
            made = made.and(done.unwrap_or_else(|_| Err(io::Error::other("a maker panicked"))));
        }
        made
    })
}

/// Entries below `root`, counted as simply as possible.
pub(super) fn count(root: &Path) -> io::Result<u64> {
    let mut entries = 0;
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            entries += 1;
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(entries)
}

/// Looks at every entry, so that it is in memory.
pub(super) fn warm(root: &Path) -> io::Result<()> {
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.metadata()?.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Reads every file, so that its content is in memory.
pub(super) fn read(root: &Path) -> io::Result<()> {
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            } else {
                fs::read(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Removes a tree that this program made; gone already is fine.
pub(super) fn remove(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
