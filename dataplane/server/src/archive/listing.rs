//! What an archive will hold: snapshots of trees, and the plan and the tag that follow from them.
//!
//! Law: the tag changes when any byte of the archive could.

use proxy_anchor::walk::{self, Entry, EntryKind};
use proxy_anchor::{AnchorError, Stat, VFolderRoot};
use proxy_core::units::Offset;
use proxy_transfer::archive::{Format, Listed, Member, Packed, Plan};
use proxy_transfer::seam::SinkError;
use proxy_wire::query::Package;
use proxy_wire::zip::{Kind, ZipError};
use sha2::{Digest, Sha256};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use super::sums::Sums;

/// Goes into every tag; to be changed whenever archives of the same members are made otherwise.
const TAG_SEED: &[u8] = b"archive 1\n";

/// One snapshot, and how its names are cut for the archive.
pub(super) struct Part {
    /// What is below one entry of a selection.
    pub(super) snapshot: walk::Snapshot,
    /// Bytes of each path that the archive does not show.
    pub(super) cut: usize,
    /// The requested folder itself is empty: it is the only member, as `./`.
    pub(super) alone: bool,
}

impl Part {
    fn count(&self) -> usize {
        if self.alone { 1 } else { self.snapshot.len() }
    }
}

/// See the module.
pub(crate) struct Listing {
    pub(super) folder: VFolderRoot,
    parts: Vec<Part>,
    /// How many members come before each part.
    before: Vec<usize>,
    count: usize,
    plan: Plan,
    tag: String,
}

impl Listing {
    /// Finds the place of every member.
    ///
    /// # Errors
    /// A member that can not be part of an archive.
    pub(super) fn new(
        folder: VFolderRoot,
        parts: Vec<Part>,
        package: Package,
    ) -> Result<Self, ZipError> {
        let format = match package {
            Package::Zip | Package::ZipDeflate => Format::Zip,
            Package::Tar | Package::TarGz | Package::TarZst => Format::Tar,
        };
        let mut listing = Self {
            folder,
            before: Vec::with_capacity(parts.len()),
            count: 0,
            plan: Plan::new(format),
            tag: String::new(),
            parts,
        };
        for part in &listing.parts {
            listing.before.push(listing.count);
            listing.count += part.count();
        }
        let mut plan = Plan::new(format);
        let mut hash = Sha256::new_with_prefix(TAG_SEED);
        hash.update(package.suffix());
        for index in 0..listing.count {
            listing.show(index, |member| {
                hash.update(member.name);
                hash.update([0]);
                plan.add(member)
            })?;
            if let Some(entry) = listing.entry(index) {
                hash_facts(&entry, &mut hash);
            }
        }
        let hash = hash.finalize();
        let half: String = hash[..16].iter().map(|b| format!("{b:02x}")).collect();
        listing.plan = plan;
        listing.tag = format!("\"{half}\"");
        Ok(listing)
    }

    /// Where everything is.
    pub(super) const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The strong entity tag of the archive.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    /// What is there and could not be read.
    pub(super) fn unreadable(&self) -> u64 {
        let unreadable = |part: &Part| part.snapshot.unreadable();
        self.parts.iter().map(unreadable).sum()
    }

    /// The part and the index in it of member `index`.
    fn place(&self, index: usize) -> Option<(&Part, usize)> {
        let at = self.before.partition_point(|before| *before <= index);
        // Parts without members stand before the one that begins at the same index.
        let at = at.checked_sub(1)?;
        Some((self.parts.get(at)?, index - self.before[at]))
    }

    /// What was listed as member `index`; `None` where a folder is its own only member.
    pub(super) fn entry(&self, index: usize) -> Option<Entry> {
        let (part, index) = self.place(index)?;
        if part.alone {
            return None;
        }
        part.snapshot.entry(index)
    }

    /// Opens member `index`, which must still be what was listed. Waits for the disk.
    pub(super) fn open(&self, index: usize) -> Result<(Entry, OwnedFd), SinkError> {
        let entry = self.entry(index).ok_or(SinkError::Truncated)?;
        let opened = self.folder.open_entry(&entry).map_err(|e| vanished(&e))?;
        is_still(&entry, &opened.stat)?;
        Ok((entry, opened.fd))
    }

    /// Packs small members. Waits for the disk.
    pub(super) fn pack(
        &self,
        members: Range<usize>,
        window: &Range<u64>,
        sums: &Sums,
    ) -> Result<Packed, SinkError> {
        let first = members.start;
        let mut entries = Vec::with_capacity(members.len());
        let read = |index: usize, out: &mut Vec<u8>| {
            let entry = self.entry(index);
            if let Some(entry) = &entry
                && entry.kind != EntryKind::Dir
            {
                self.read_whole(index, entry, out)?;
            }
            entries.push(entry);
            Ok(())
        };
        let packed = self.plan.pack(self, members, window, read)?;
        if self.plan.format() == Format::Zip {
            let zipped = entries.iter().zip(&packed.sums);
            for (entry, sum) in zipped.filter_map(|(entry, sum)| Some((entry.as_ref()?, sum))) {
                if 0 < entry.size && entry.kind != EntryKind::Dir {
                    sums.keep(entry, *sum);
                }
            }
        }
        assert_eq!(packed.sums.len(), entries.len(), "from {first}");
        Ok(packed)
    }

    /// Reads small members, one behind the other. Waits for the disk.
    pub(super) fn read(&self, members: Range<usize>) -> Result<Vec<u8>, SinkError> {
        let mut out = Vec::new();
        for index in members {
            if let Some(entry) = self.entry(index)
                && entry.kind != EntryKind::Dir
            {
                self.read_whole(index, &entry, &mut out)?;
            }
        }
        Ok(out)
    }

    /// Appends the content of a small file, which is what was listed before and after.
    fn read_whole(&self, index: usize, entry: &Entry, out: &mut Vec<u8>) -> Result<(), SinkError> {
        if entry.size == 0 {
            let stat = self.folder.stat_entry(entry).map_err(|e| vanished(&e))?;
            return is_still(entry, &stat);
        }
        let (_, file) = self.open(index)?;
        let start = out.len();
        // A small file: one that is packed.
        out.resize(start + entry.size as usize, 0);
        read_exact(&file, &mut out[start..], Offset::ZERO)?;
        is_still(entry, &Stat::of_open(&file).map_err(SinkError::Disk)?)
    }
}

impl Listed for Listing {
    fn count(&self) -> usize {
        self.count
    }

    fn show<T>(&self, index: usize, show: impl FnOnce(&Member<'_>) -> T) -> T {
        let (part, index) = self.place(index).expect("an index below the count");
        if part.alone {
            return show(&Member {
                name: b".",
                mode: 0o755,
                mtime_s: 0,
                mtime_ns: 0,
                size: 0,
                kind: Kind::Dir,
            });
        }
        let entry = part.snapshot.entry(index);
        let entry = entry.expect("every index of a part has an entry");
        let kind = match entry.kind {
            EntryKind::File | EntryKind::LinkToFile => Kind::File,
            EntryKind::Dir => Kind::Dir,
        };
        show(&Member {
            name: entry.path.get(part.cut..).unwrap_or_default(),
            mode: entry.mode,
            mtime_s: entry.mtime.s,
            mtime_ns: entry.mtime.ns,
            size: entry.size,
            kind,
        })
    }
}

fn hash_facts(entry: &Entry, hash: &mut Sha256) {
    hash.update([match entry.kind {
        EntryKind::File | EntryKind::LinkToFile => b'f',
        EntryKind::Dir => b'd',
    }]);
    hash.update(entry.mode.to_le_bytes());
    hash.update(entry.mtime.s.to_le_bytes());
    hash.update(entry.mtime.ns.to_le_bytes());
    // The size of a directory, its inode and its other time are no part of what is sent.
    if entry.kind != EntryKind::Dir {
        hash.update(entry.size.to_le_bytes());
        hash.update(entry.ctime.s.to_le_bytes());
        hash.update(entry.ctime.ns.to_le_bytes());
        hash.update(entry.ino.to_le_bytes());
    }
}

/// Whether a file is what was listed.
pub(super) fn is_still(entry: &Entry, stat: &Stat) -> Result<(), SinkError> {
    if entry.is(stat) {
        Ok(())
    } else {
        Err(SinkError::Truncated)
    }
}

/// What became of a file that was listed and can not be opened.
fn vanished(error: &AnchorError) -> SinkError {
    match error.errno() {
        // Errors of the disk or the server, and too many open files, say nothing about the file.
        Some(errno @ (5 | 12 | 23 | 24)) => SinkError::Disk(io::Error::from_raw_os_error(errno)),
        _ => SinkError::Truncated,
    }
}

/// Fills `room` from `at`.
pub(super) fn read_exact(file: &OwnedFd, room: &mut [u8], at: Offset) -> Result<(), SinkError> {
    let mut filled = 0;
    while filled < room.len() {
        match rustix::io::pread(file, &mut room[filled..], at.get() + filled as u64) {
            Ok(0) => return Err(SinkError::Truncated),
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(SinkError::Disk(errno.into())),
        }
    }
    Ok(())
}
