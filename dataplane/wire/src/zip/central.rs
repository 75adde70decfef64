//! The two passes over the members: one for lengths, one for the central directory.
//!
//! Laws
//! - Both passes walk the same [`Layout`], so that what is written is what was counted.
//! - Per member nothing is kept here; a million members cost as much as one.
//!
//! Source: PKWARE APPNOTE 6.3.10 §4.3.12-4.3.16.

use proxy_core::units::{ByteLen, Offset};

use super::fields::{MAX_16, MAX_32, Put as _, saturate_16, saturate_32};
use super::{Entry, MADE_ON_UNIX, VERSION_ZIP64, ZipError};

const END_SIGNATURE: u32 = 0x0605_4b50;
const ZIP64_END_SIGNATURE: u32 = 0x0606_4b50;
const ZIP64_LOCATOR_SIGNATURE: u32 = 0x0706_4b50;

/// Bytes of the end record.
const END_BYTES: u64 = 22;
/// Bytes of the zip64 end record.
const ZIP64_END_BYTES: u64 = 56;
/// Bytes of the zip64 locator.
const ZIP64_LOCATOR_BYTES: u64 = 20;

/// The lengths of an archive, member by member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    entries_count: u64,
    /// Bytes of all members so far, which is where the next one begins.
    members_len: u64,
    /// Bytes of their central headers.
    central_len: u64,
}

impl Layout {
    /// An archive without members; 22 bytes.
    pub const fn new() -> Self {
        Self {
            entries_count: 0,
            members_len: 0,
            central_len: 0,
        }
    }

    /// Counts a member in, and gives the position of its local header.
    ///
    /// # Errors
    /// Any [`ZipError`]; the member is not counted.
    pub fn add(&mut self, entry: &Entry<'_>) -> Result<Offset, ZipError> {
        let name_len = entry.checked_name_len()?;
        let offset = Offset::new(self.members_len);
        let local_len = entry.local_len(name_len).ok_or(ZipError::TooLarge)?;
        let grown = Self {
            entries_count: self.entries_count + 1,
            members_len: self
                .members_len
                .checked_add(local_len)
                .ok_or(ZipError::TooLarge)?,
            central_len: self
                .central_len
                .checked_add(entry.central_len(name_len, offset))
                .ok_or(ZipError::TooLarge)?,
        };
        grown.checked_total().ok_or(ZipError::TooLarge)?;
        *self = grown;
        Ok(offset)
    }

    /// The layout of members that were sent without one.
    pub(super) const fn written(members_len: u64) -> Self {
        Self {
            entries_count: 0,
            members_len,
            central_len: 0,
        }
    }

    /// Counts a central header that was sent.
    pub(super) const fn wrote_entry(&mut self, len: u64) {
        self.entries_count += 1;
        self.central_len += len;
    }

    /// Members so far.
    pub const fn entries_count(&self) -> u64 {
        self.entries_count
    }

    /// Where the central directory begins: behind the last member.
    pub const fn central_start(&self) -> Offset {
        Offset::new(self.members_len)
    }

    /// Bytes of the central headers of all members so far.
    pub const fn central_len(&self) -> u64 {
        self.central_len
    }

    /// Appends the records that end the archive, behind the last central header.
    pub fn end(&self, out: &mut Vec<u8>) {
        if self.needs_zip64() {
            zip64_end(self, out);
        }
        out.put_32(END_SIGNATURE);
        out.put_16(0); // this disk
        out.put_16(0); // disk of the central directory
        out.put_16(saturate_16(self.entries_count));
        out.put_16(saturate_16(self.entries_count));
        out.put_32(saturate_32(self.central_len));
        out.put_32(saturate_32(self.members_len));
        out.put_16(0); // comment
    }

    /// Bytes of the whole archive if no member is added: its `Content-Length`.
    pub fn total_len(&self) -> ByteLen {
        // `add` admits nothing that does not fit.
        ByteLen::new(self.checked_total().unwrap_or(u64::MAX))
    }

    /// Begins the second pass.
    pub const fn central(self) -> Central {
        Central {
            whole: self,
            so_far: Self::new(),
        }
    }

    fn checked_total(&self) -> Option<u64> {
        self.members_len
            .checked_add(self.central_len)?
            .checked_add(self.end_len())
    }

    const fn end_len(&self) -> u64 {
        if self.needs_zip64() {
            ZIP64_END_BYTES + ZIP64_LOCATOR_BYTES + END_BYTES
        } else {
            END_BYTES
        }
    }

    const fn needs_zip64(&self) -> bool {
        MAX_16 <= self.entries_count || MAX_32 <= self.members_len || MAX_32 <= self.central_len
    }
}

/// The central directory in the course of being made.
#[derive(Clone, Debug)]
pub struct Central {
    whole: Layout,
    so_far: Layout,
}

impl Central {
    /// Appends the header of the next member.
    ///
    /// Shape: members in the order of [`Layout::add`], each with the checksum of its data.
    ///
    /// # Panics
    /// If the member was never admitted by a layout.
    pub fn entry(&mut self, entry: &Entry<'_>, crc: u32, out: &mut Vec<u8>) {
        let added = self.so_far.add(entry);
        let offset = added.expect("the first pass has admitted every member of the second");
        assert!(self.so_far.entries_count <= self.whole.entries_count);
        entry.central_header(crc, offset, out);
    }

    /// Appends the records that end the archive.
    ///
    /// # Panics
    /// If the two passes did not see the same members: then the length announced is wrong.
    pub fn end(self, out: &mut Vec<u8>) {
        assert_eq!(
            self.so_far, self.whole,
            "the second pass saw other members than the first"
        );
        self.whole.end(out);
    }
}

fn zip64_end(layout: &Layout, out: &mut Vec<u8>) {
    out.put_32(ZIP64_END_SIGNATURE);
    // Counted from behind this field.
    out.put_64(ZIP64_END_BYTES - 12);
    out.put_16(MADE_ON_UNIX | VERSION_ZIP64);
    out.put_16(VERSION_ZIP64);
    out.put_32(0); // this disk
    out.put_32(0); // disk of the central directory
    out.put_64(layout.entries_count);
    out.put_64(layout.entries_count);
    out.put_64(layout.central_len);
    out.put_64(layout.members_len);
    out.put_32(ZIP64_LOCATOR_SIGNATURE);
    out.put_32(0); // disk of the zip64 end record
    out.put_64(layout.members_len + layout.central_len);
    out.put_32(1); // disks
}
