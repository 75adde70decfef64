//! A file that is rotated by size: `name`, `name.1`, …, the highest number being the oldest.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An open log file. Lines are never split over two files.
#[derive(Debug)]
pub(super) struct RotatedFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    backups: usize,
}

impl RotatedFile {
    /// Opens for appending, making directory and file as needed.
    pub(super) fn open(path: &Path, bytes_max: u64, backups: usize) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            bytes_max,
            backups,
        })
    }

    fn numbered(&self, number: usize) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name: OsString = self.path.clone().into();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Without backups the file begins anew.
    fn rotate(&mut self) -> io::Result<()> {
        if self.backups == 0 {
            self.file.set_len(0)?;
        }
        for number in (0..self.backups).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = append(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Write for RotatedFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bytes = line.len() as u64;
        if self.bytes != 0 && self.bytes_max < self.bytes.saturating_add(bytes) {
            // A file that cannot be rotated grows on: records matter more than its size.
            let _ = self.rotate();
        }
        self.file.write_all(line)?;
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_rotated_by_size_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.log");
        let mut log = RotatedFile::open(&path, 10, 2).unwrap();
        for line in ["first\n", "second\n", "third\n", "fourth\n", "5\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join("a").join(name)).ok();
        assert_eq!(read("b.log").as_deref(), Some("fourth\n5\n"));
        assert_eq!(read("b.log.1").as_deref(), Some("third\n"));
        assert_eq!(read("b.log.2").as_deref(), Some("second\n"));
        assert_eq!(read("b.log.3"), None);
        // A restart goes on where the file ends.
        let mut log = RotatedFile::open(&path, 10, 0).unwrap();
        log.write_all(b"sixth\n").unwrap();
        assert_eq!(read("b.log").as_deref(), Some("sixth\n"));
    }
}
