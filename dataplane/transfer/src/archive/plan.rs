//! Where everything is in an archive: from any position to the member, and the piece of it, that
//! stands there.
//!
//! Laws
//! - Positions follow from the list of members alone; the same list gives the same bytes.
//! - Finding the member at a position costs O(log n); two numbers are kept per member.

use std::ops::Range;

use proxy_core::units::ByteLen;
use proxy_wire::tar;
use proxy_wire::zip::{self, Checksum, Kind, Layout, ZipError};

use crate::seam::SinkError;

/// How members are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Stored members, a checksum behind each, a directory at the end.
    Zip,
    /// Headers and data, nothing that depends on the data.
    Tar,
}

/// One member, as the caller has listed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its path in the archive; see [`zip::Entry::name`].
    pub name: &'a [u8],
    /// Its Unix mode; only the permission bits count.
    pub mode: u32,
    /// Modification time, full seconds since 1970.
    pub mtime_s: i64,
    /// Nanoseconds beyond; below 1,000,000,000.
    pub mtime_ns: u32,
    /// Bytes of data. That of a directory does not count.
    pub size: u64,
    /// File or directory.
    pub kind: Kind,
}

impl<'a> Member<'a> {
    /// As a zip has it.
    pub const fn zip(&self) -> zip::Entry<'a> {
        zip::Entry {
            name: self.name,
            mode: self.mode,
            mtime_s: self.mtime_s,
            size: self.size,
            kind: self.kind,
        }
    }

    /// As a tar has it.
    pub const fn tar(&self) -> tar::Entry<'a> {
        tar::Entry {
            name: self.name,
            mode: self.mode,
            mtime_s: self.mtime_s,
            mtime_ns: self.mtime_ns,
            size: self.size,
            kind: self.kind,
        }
    }

    /// How many bytes are read from it.
    pub const fn data_len(&self) -> u64 {
        self.zip().data_len()
    }
}

/// A list of members.
pub trait Listed {
    /// How many there are.
    fn count(&self) -> usize;

    /// Shows member `index`, `0 <= index < count`. The same every time.
    fn show<T>(&self, index: usize, show: impl FnOnce(&Member<'_>) -> T) -> T;
}

/// Bytes of whole small members, and the checksums of their data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// What of them lies in the window that was asked for.
    pub bytes: Vec<u8>,
    /// One per member; zero where the format has none.
    pub sums: Vec<u32>,
}

/// The positions of one archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    format: Format,
    /// Where each member begins.
    starts: Vec<u64>,
    /// Where each member's entry in the directory begins, behind the start of the directory.
    central: Vec<u64>,
    /// Of a zip.
    layout: Layout,
    /// Where the last member ends.
    members_len: u64,
}

impl Plan {
    /// An archive without members.
    pub const fn new(format: Format) -> Self {
        Self {
            format,
            starts: Vec::new(),
            central: Vec::new(),
            layout: Layout::new(),
            members_len: 0,
        }
    }

    /// The plan for all of `list`.
    ///
    /// # Errors
    /// A member that can not be part of an archive.
    pub fn of(format: Format, list: &impl Listed) -> Result<Self, ZipError> {
        let mut plan = Self::new(format);
        for index in 0..list.count() {
            list.show(index, |member| plan.add(member))?;
        }
        Ok(plan)
    }

    /// Counts a member in.
    ///
    /// # Errors
    /// Any [`ZipError`]; the member is not counted.
    pub fn add(&mut self, member: &Member<'_>) -> Result<(), ZipError> {
        let start = self.members_len;
        match self.format {
            Format::Zip => {
                let central = self.layout.central_len();
                self.layout.add(&member.zip())?;
                self.central.push(central);
                self.members_len = self.layout.central_start().get();
            }
            Format::Tar => {
                let end = start.checked_add(member.tar().member_len()?);
                let fits = |end: &u64| end.checked_add(tar::END.len() as u64).is_some();
                self.members_len = end.filter(fits).ok_or(ZipError::TooLarge)?;
            }
        }
        self.starts.push(start);
        Ok(())
    }

    /// Which format it is.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Members.
    pub const fn count(&self) -> usize {
        self.starts.len()
    }

    /// Bytes of the whole archive: its `Content-Length`.
    pub fn total_len(&self) -> ByteLen {
        match self.format {
            Format::Zip => self.layout.total_len(),
            Format::Tar => ByteLen::new(self.members_len + tar::END.len() as u64),
        }
    }

    /// Where the last member ends, and with it all that is made of files.
    pub const fn members_len(&self) -> u64 {
        self.members_len
    }

    /// Where member `index` begins; one past the last is where they end.
    pub fn start(&self, index: usize) -> u64 {
        self.starts.get(index).copied().unwrap_or(self.members_len)
    }

    /// The first member that ends behind `position`.
    pub fn member_at(&self, position: u64) -> usize {
        if self.members_len <= position {
            return self.count();
        }
        // Every member has a header, so no two begin at one place.
        self.starts.partition_point(|start| *start <= position) - 1
    }

    /// The first member whose entry in the directory of a zip ends behind `position`.
    pub fn entry_at(&self, position: u64) -> usize {
        let Some(within) = position.checked_sub(self.members_len) else {
            return 0;
        };
        if self.layout.central_len() <= within {
            return self.central.len();
        }
        self.central.partition_point(|start| *start <= within) - 1
    }

    /// Appends the directory entry of member `index` of a zip.
    pub(super) fn central_entry(
        &self,
        index: usize,
        member: &Member<'_>,
        sum: u32,
        out: &mut Vec<u8>,
    ) {
        let at = proxy_core::units::Offset::new(self.start(index));
        member.zip().central_header(sum, at, out);
    }

    /// Where the directory entry of member `index` begins.
    pub(super) fn central_start(&self, index: usize) -> u64 {
        let within = self.central.get(index).copied();
        self.members_len + within.unwrap_or(self.layout.central_len())
    }

    /// Appends what ends the archive.
    pub(super) fn end(&self, out: &mut Vec<u8>) {
        match self.format {
            Format::Zip => self.layout.end(out),
            Format::Tar => out.extend_from_slice(&tar::END),
        }
    }

    /// Appends what stands before the data of a member.
    pub fn head(&self, member: &Member<'_>, out: &mut Vec<u8>) {
        match self.format {
            Format::Zip => member.zip().local_header(out),
            Format::Tar => member.tar().header(out),
        }
    }

    /// Appends what stands behind the data of a member.
    pub fn tail(&self, member: &Member<'_>, sum: u32, out: &mut Vec<u8>) {
        match self.format {
            Format::Zip => member.zip().descriptor(sum, out),
            Format::Tar => member.tar().padding(out),
        }
    }

    /// Makes whole members, and keeps what of them lies in `window`.
    ///
    /// Shape: `read` appends exactly the data of the member that it is asked for.
    ///
    /// # Errors
    /// Those of `read`; [`SinkError::Truncated`] when it appended something else.
    pub fn pack(
        &self,
        list: &impl Listed,
        members: Range<usize>,
        window: &Range<u64>,
        mut read: impl FnMut(usize, &mut Vec<u8>) -> Result<(), SinkError>,
    ) -> Result<Packed, SinkError> {
        let start = self.start(members.start);
        let room = usize::try_from(self.start(members.end) - start).unwrap_or(0);
        let mut bytes = Vec::with_capacity(room);
        let mut sums = Vec::with_capacity(members.len());
        for index in members.clone() {
            let len = list.show(index, |member| {
                self.head(member, &mut bytes);
                member.data_len()
            });
            let data_at = bytes.len();
            read(index, &mut bytes)?;
            if (bytes.len() - data_at) as u64 != len {
                return Err(SinkError::Truncated);
            }
            let sum = self.sum_of(&bytes[data_at..]);
            list.show(index, |member| self.tail(member, sum, &mut bytes));
            sums.push(sum);
        }
        assert_eq!(bytes.len() as u64, self.start(members.end) - start);
        let kept = clip(start, bytes.len() as u64, window);
        bytes.truncate(kept.end);
        bytes.drain(..kept.start);
        Ok(Packed { bytes, sums })
    }

    fn sum_of(&self, data: &[u8]) -> u32 {
        if self.format == Format::Tar {
            return 0;
        }
        let mut sum = Checksum::new();
        sum.update(data);
        sum.finalize()
    }
}

/// Which of `len` bytes at `position` lie in `window`; empty at a place within them if none.
pub(super) fn clip(position: u64, len: u64, window: &Range<u64>) -> Range<usize> {
    let start = window.start.clamp(position, position + len) - position;
    let end = window.end.clamp(position + start, position + len) - position;
    // Both count bytes that are in memory.
    start as usize..end as usize
}
