//! What a scan remembers of a folder's directories: one file per folder, in the data directory.
//!
//! Laws
//! - A file that is damaged, of another version, or about another directory counts as missing.
//! - Its size is bounded; directories for which there is no room are read each time.
//! - Losing it costs time and no number, so it is not synced.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use proxy_core::id::{SessionId, VFolderId};

use crate::stamp::Stamp;

/// Begins every file; its last byte is the version of the form.
const MAGIC: &[u8; 8] = b"usage\0\0\x01";
/// Ends the names of the files.
const SUFFIX: &str = ".usage";
/// Directories that are remembered of one folder.
const RECORDS_MAX: usize = 250_000;
/// Bytes of one file, and about as many in memory while it is used.
const BYTES_MAX: usize = 32 << 20;
/// Bytes of a record beside its names and links.
const RECORD_BYTES: usize = 60;
/// Bytes of a link.
const LINK_BYTES: usize = 24;

/// A file with several names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) ino: u64,
    pub(crate) apparent_bytes: u64,
    pub(crate) allocated_bytes: u64,
}

/// A directory as it was when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
    /// The scan in which it is to be read again in any case.
    pub(crate) due: u32,
    /// Entries with one name that are no directories.
    pub(crate) entries: u64,
    pub(crate) apparent_bytes: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) links: Vec<Link>,
    /// Names of its directories, each followed by a NUL.
    pub(crate) dirs: Vec<u8>,
}

impl Record {
    fn bytes(&self) -> usize {
        RECORD_BYTES + LINK_BYTES * self.links.len() + self.dirs.len()
    }
}

/// All that is remembered of one folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pages {
    /// Tells a folder from another one of its name.
    pub(crate) root_ino: u64,
    /// How many scans have written it.
    pub(crate) scans: u32,
    /// When the last one began.
    pub(crate) as_of: Stamp,
    /// Whether the last one read every directory.
    pub(crate) exact: bool,
    pub(crate) entries: u64,
    pub(crate) apparent_bytes: u64,
    pub(crate) allocated_bytes: u64,
    /// By inode.
    records: HashMap<u64, Record>,
    bytes: usize,
}

impl Pages {
    /// Remembers a directory, if there is room.
    pub(crate) fn insert(&mut self, ino: u64, record: Record) {
        let bytes = self.bytes + record.bytes();
        if self.records.len() < RECORDS_MAX && bytes <= BYTES_MAX {
            self.bytes = bytes;
            self.records.insert(ino, record);
        }
    }

    /// Takes a directory out.
    pub(crate) fn take(&mut self, ino: u64) -> Option<Record> {
        let record = self.records.remove(&ino)?;
        self.bytes -= record.bytes();
        Some(record)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes + 128);
        out.extend_from_slice(MAGIC);
        put(&mut out, self.root_ino);
        put(&mut out, u64::from(self.scans));
        put(&mut out, ns(self.as_of.unix_ns).cast_unsigned());
        put(&mut out, u64::from(self.exact));
        for number in [self.entries, self.apparent_bytes, self.allocated_bytes] {
            put(&mut out, number);
        }
        put(&mut out, self.records.len() as u64);
        for (ino, record) in &self.records {
            put(&mut out, *ino);
            put(&mut out, record.mtime_ns.cast_unsigned());
            put(&mut out, record.ctime_ns.cast_unsigned());
            for number in [
                u64::from(record.due),
                record.entries,
                record.apparent_bytes,
                record.allocated_bytes,
                record.links.len() as u64,
            ] {
                put(&mut out, number);
            }
            for link in &record.links {
                put(&mut out, link.ino);
                put(&mut out, link.apparent_bytes);
                put(&mut out, link.allocated_bytes);
            }
            put(&mut out, record.dirs.len() as u64);
            out.extend_from_slice(&record.dirs);
        }
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut rest = body.strip_prefix(MAGIC)?;
        let rest = &mut rest;
        let mut pages = Self {
            root_ino: take(rest)?,
            scans: u32::try_from(take(rest)?).ok()?,
            as_of: Stamp {
                unix_ns: i128::from(take(rest)?.cast_signed()),
            },
            exact: take(rest)? == 1,
            entries: take(rest)?,
            apparent_bytes: take(rest)?,
            allocated_bytes: take(rest)?,
            ..Self::default()
        };
        for _ in 0..take(rest)? {
            let ino = take(rest)?;
            pages.insert(ino, record(rest)?);
        }
        rest.is_empty().then_some(pages)
    }
}

fn record(rest: &mut &[u8]) -> Option<Record> {
    let mut record = Record {
        mtime_ns: take(rest)?.cast_signed(),
        ctime_ns: take(rest)?.cast_signed(),
        due: u32::try_from(take(rest)?).ok()?,
        entries: take(rest)?,
        apparent_bytes: take(rest)?,
        allocated_bytes: take(rest)?,
        ..Record::default()
    };
    for _ in 0..take(rest)? {
        record.links.push(Link {
            ino: take(rest)?,
            apparent_bytes: take(rest)?,
            allocated_bytes: take(rest)?,
        });
    }
    let length = usize::try_from(take(rest)?).ok()?;
    let (dirs, more) = rest.split_at_checked(length)?;
    record.dirs = dirs.to_vec();
    *rest = more;
    Some(record)
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let (number, more) = rest.split_first_chunk()?;
    *rest = more;
    Some(u64::from_le_bytes(*number))
}

/// Nanoseconds as they are kept: until the year 2262.
pub(crate) fn ns(time: i128) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

/// Where the files of one volume are.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    dir: PathBuf,
}

impl Book {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn name(vfid: VFolderId) -> String {
        let scope = vfid
            .scope
            .map_or_else(String::new, |scope| scope.dir_name());
        format!("{scope}-{}{SUFFIX}", vfid.folder.simple())
    }

    /// What is remembered of a folder.
    pub(crate) fn read(&self, vfid: VFolderId) -> Option<Pages> {
        let bytes = fs::read(self.dir.join(Self::name(vfid))).ok()?;
        let pages = Pages::decode(&bytes);
        if pages.is_none() {
            tracing::warn!(%vfid, "what is remembered of its size is damaged: it is counted anew");
        }
        pages
    }

    /// Replaces what is remembered of a folder.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn write(&self, vfid: VFolderId, pages: &Pages) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let part = self.dir.join(format!("{}.part", SessionId::random()));
        let written = fs::write(&part, pages.encode());
        let done = written.and_then(|()| fs::rename(&part, self.dir.join(Self::name(vfid))));
        if done.is_err() {
            let _ = fs::remove_file(&part);
        }
        done
    }

    /// Forgets a folder.
    pub(crate) fn forget(&self, vfid: VFolderId) {
        let _ = fs::remove_file(self.dir.join(Self::name(vfid)));
    }

    /// Forgets all folders but these, and what a crash left half-written.
    pub(crate) fn retain(&self, folders: &[VFolderId]) {
        let keep: std::collections::HashSet<_> =
            folders.iter().map(|vfid| Self::name(*vfid)).collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !name.to_str().is_some_and(|name| keep.contains(name)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pages() -> Pages {
        let mut pages = Pages {
            root_ino: 7,
            scans: 3,
            as_of: Stamp {
                unix_ns: 1_700_000_000_123_456_789,
            },
            exact: true,
            entries: 5,
            apparent_bytes: 6,
            allocated_bytes: u64::MAX,
            ..Pages::default()
        };
        for ino in 0..5 {
            let link = Link {
                ino,
                apparent_bytes: 1,
                allocated_bytes: 2,
            };
            let record = Record {
                mtime_ns: -1,
                ctime_ns: 12,
                due: 9,
                entries: ino,
                apparent_bytes: 3,
                allocated_bytes: 4,
                links: vec![link; ino as usize],
                dirs: b"a\0\xff\0".repeat(ino as usize),
            };
            pages.insert(ino, record);
        }
        pages
    }

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_not() {
        let bytes = pages().encode();
        assert_eq!(Pages::decode(&bytes), Some(pages()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert_eq!(Pages::decode(&damaged), None, "byte {at}");
            assert_eq!(Pages::decode(&bytes[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let mut pages = Pages::default();
        let large = Record {
            dirs: vec![b'x'; BYTES_MAX / 2],
            ..Record::default()
        };
        for ino in 1..=3 {
            pages.insert(ino, large.clone());
        }
        assert!(pages.encode().len() <= BYTES_MAX + 128);
        assert_eq!(pages.take(1), Some(large.clone()));
        assert_eq!(pages.take(3), None, "there was no room");
        pages.insert(3, large.clone());
        assert_eq!(pages.take(3), Some(large));
    }

    #[test]
    fn files_are_found_by_folder_and_go_with_it() {
        let home = tempfile::tempdir().unwrap();
        let book = Book::new(home.path().join("usage/v"));
        let id = |last: char| {
            let id = format!(
                "user:11111111-2222-3333-4444-555555555555/{}{last}",
                "0".repeat(31)
            );
            VFolderId::parse(&id).unwrap()
        };
        assert_eq!(book.read(id('1')), None);
        for last in ['1', '2', '3'] {
            book.write(id(last), &pages()).unwrap();
        }
        assert_eq!(book.read(id('1')), Some(pages()));
        book.forget(id('1'));
        assert_eq!(book.read(id('1')), None);
        fs::write(home.path().join("usage/v/x.part"), "").unwrap();
        book.retain(&[id('2')]);
        assert_eq!(
            fs::read_dir(home.path().join("usage/v")).unwrap().count(),
            1
        );
        assert_eq!(book.read(id('2')), Some(pages()));
    }
}
