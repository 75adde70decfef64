//! Zip archives that can be sent while they are made, with a length known before the first byte.
//!
//! Members are stored, so every position follows from names and sizes alone; or, for those who
//! ask, deflated, and then the length is known at the end.
//! The caller keeps the list of members and, per member, one checksum; headers are made one at
//! a time and never held.
//!
//! ```
//! use proxy_wire::zip::{Checksum, Entry, Kind, Layout};
//!
//! let entry =
//!     Entry { name: b"a.txt", mode: 0o644, mtime_s: 1_700_000_000, size: 2, kind: Kind::File };
//! let mut layout = Layout::new();
//! layout.add(&entry)?;
//!
//! let mut body = Vec::new();
//! entry.local_header(&mut body);
//! body.extend_from_slice(b"hi");
//! let mut checksum = Checksum::new();
//! checksum.update(b"hi");
//! let crc = checksum.finalize();
//! entry.descriptor(crc, &mut body);
//!
//! let mut central = layout.central();
//! central.entry(&entry, crc, &mut body);
//! central.end(&mut body);
//! assert_eq!(body.len() as u64, layout.total_len().get());
//! # Ok::<(), proxy_wire::zip::ZipError>(())
//! ```
//!
//! Laws
//! - The length announced is the length made; [`Central::end`] asserts that both passes saw the
//!   same members. A member whose data turns out shorter must end the connection instead.
//! - The checksum of a member with data follows it (general-purpose bit 3). Its size stands in
//!   front as well, which readers of streams need. Empty members and directories have neither
//!   bit nor descriptor.
//! - Zip64 is used where a number needs it and nowhere else, so that old readers open the rest.
//! - A name never leads out of the directory it is unpacked in. A name that is no UTF-8 is
//!   stored with U+FFFD in place of what cannot be read: zip has no other encoding that every
//!   reader shows alike.
//! - Permission bits are kept, set-user-id and its kin are not: an archive grants nothing.
//!
//! Differs from the original: stored instead of deflated (files here are mostly compressed data
//! already), and beyond 4 GiB and 65,535 members it works.
//!
//! Source: PKWARE APPNOTE 6.3.10 §4.3-4.5; Info-ZIP's extra field 0x5455.

mod central;
mod deflated;
mod fields;

use std::borrow::Cow;

use proxy_core::units::Offset;

pub use central::{Central, Layout};
pub use crc32fast::Hasher as Checksum;
pub use deflated::{Deflated, Directory};
use fields::{MAX_16, MAX_32, Put as _};

/// One member of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its path in the archive, relative, with `/` between components and none at the end.
    pub name: &'a [u8],
    /// Its Unix mode; only the permission bits count.
    pub mode: u32,
    /// Modification time, seconds since 1970.
    pub mtime_s: i64,
    /// Bytes of data that will be sent. That of a directory does not count: it has none.
    pub size: u64,
    /// File or directory.
    pub kind: Kind,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory without content of its own; its name gets a `/`.
    Dir,
}

/// Why a member cannot be part of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ZipError {
    /// The name, as stored, has more than 65,535 bytes.
    NameTooLong,
    /// The name is empty, absolute, or has a `..` in it.
    NameUnsafe,
    /// The archive would have 2^64 bytes or more.
    TooLarge,
}

impl std::fmt::Display for ZipError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NameTooLong => "member name longer than 65535 bytes",
            Self::NameUnsafe => "member name leads out of the archive",
            Self::TooLarge => "archive too large",
        })
    }
}

impl std::error::Error for ZipError {}

const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const DESCRIPTOR_SIGNATURE: u32 = 0x0807_4b50;
const CENTRAL_SIGNATURE: u32 = 0x0201_4b50;

/// Method 0.
const STORED: u16 = 0;
/// General-purpose bit 3: the checksum follows the data.
const FLAG_DESCRIPTOR: u16 = 0x0008;
/// General-purpose bit 11: the name is UTF-8.
const FLAG_UTF8: u16 = 0x0800;
/// Version 2.0: directories and descriptors.
const VERSION_PLAIN: u16 = 20;
/// Version 4.5: zip64.
const VERSION_ZIP64: u16 = 45;
/// Upper byte of "version made by": Unix, so that modes count.
const MADE_ON_UNIX: u16 = 3 << 8;
/// The MS-DOS attribute of a directory.
const DOS_DIRECTORY: u32 = 0x10;

/// Bytes of a local header without name and extra fields.
const LOCAL_BYTES: u64 = 30;
/// Bytes of a central header without name and extra fields.
const CENTRAL_BYTES: u64 = 46;

/// Whether a name stays in the directory it is unpacked in.
pub(crate) fn is_safe_name(name: &[u8]) -> bool {
    let is_parent = |component: &[u8]| component == b"..";
    !name.is_empty() && name[0] != b'/' && !name.split(|byte| *byte == b'/').any(is_parent)
}

impl<'a> Entry<'a> {
    /// Appends what stands before the data.
    pub fn local_header(&self, out: &mut Vec<u8>) {
        let name = self.stored_name();
        let stamp = fields::DosStamp::of(self.mtime_s);
        let size = fields::saturate_32(self.data_len());
        out.put_32(LOCAL_SIGNATURE);
        out.put_16(if self.is_big() {
            VERSION_ZIP64
        } else {
            VERSION_PLAIN
        });
        out.put_16(self.flags(&name));
        out.put_16(STORED);
        out.put_16(stamp.time);
        out.put_16(stamp.date);
        // The checksum of nothing is 0; that of data is not known yet, and then 0 is the rule.
        out.put_32(0);
        out.put_32(size);
        out.put_32(size);
        out.put_16(self.stored_len(&name));
        out.put_16(self.local_extra_len());
        out.extend_from_slice(&name);
        if self.is_big() {
            // Here both sizes are obligatory, unlike in the central directory.
            fields::put_zip64(&[self.data_len(), self.data_len()], out);
        }
        fields::put_unix_time(self.mtime_s, out);
    }

    /// Appends what stands after the data: nothing unless there was any.
    ///
    /// Shape: `crc` is the checksum of exactly `size` bytes.
    pub fn descriptor(&self, crc: u32, out: &mut Vec<u8>) {
        if !self.has_data() {
            return;
        }
        out.put_32(DESCRIPTOR_SIGNATURE);
        out.put_32(crc);
        if self.is_big() {
            out.put_64(self.data_len());
            out.put_64(self.data_len());
        } else {
            let size = fields::saturate_32(self.data_len());
            out.put_32(size);
            out.put_32(size);
        }
    }

    /// Whether data follows the local header, and a descriptor follows the data.
    pub const fn has_data(&self) -> bool {
        self.data_len() != 0
    }

    /// Appends the header in the central directory, `offset` being that of the local header.
    pub fn central_header(&self, crc: u32, offset: Offset, out: &mut Vec<u8>) {
        let name = self.stored_name();
        let stamp = fields::DosStamp::of(self.mtime_s);
        let size = fields::saturate_32(self.data_len());
        let wide = self.central_wide(offset);
        let version = if wide.is_empty() {
            VERSION_PLAIN
        } else {
            VERSION_ZIP64
        };
        out.put_32(CENTRAL_SIGNATURE);
        out.put_16(MADE_ON_UNIX | version);
        out.put_16(version);
        out.put_16(self.flags(&name));
        out.put_16(STORED);
        out.put_16(stamp.time);
        out.put_16(stamp.date);
        out.put_32(if self.has_data() { crc } else { 0 });
        out.put_32(size);
        out.put_32(size);
        out.put_16(self.stored_len(&name));
        out.put_16(fields::zip64_len(wide.len()) + fields::unix_time_len(self.mtime_s));
        out.put_16(0); // comment
        out.put_16(0); // disk
        out.put_16(0); // internal attributes
        out.put_32(self.external_attributes());
        out.put_32(fields::saturate_32(offset.get()));
        out.extend_from_slice(&name);
        fields::put_zip64(&wide, out);
        fields::put_unix_time(self.mtime_s, out);
    }

    /// Bytes of local header, data and descriptor.
    fn local_len(&self, name_len: u64) -> Option<u64> {
        let descriptor_len = match (self.has_data(), self.is_big()) {
            (false, _) => 0,
            (true, false) => 16,
            (true, true) => 24,
        };
        let frame = LOCAL_BYTES + name_len + u64::from(self.local_extra_len()) + descriptor_len;
        frame.checked_add(self.data_len())
    }

    /// Bytes of the central header.
    fn central_len(&self, name_len: u64, offset: Offset) -> u64 {
        let wide_count = self.central_wide(offset).len();
        let extra_len = fields::zip64_len(wide_count) + fields::unix_time_len(self.mtime_s);
        CENTRAL_BYTES + name_len + u64::from(extra_len)
    }

    fn local_extra_len(&self) -> u16 {
        let wide_count = if self.is_big() { 2 } else { 0 };
        fields::zip64_len(wide_count) + fields::unix_time_len(self.mtime_s)
    }

    /// The numbers that do not fit the central header, in their prescribed order.
    fn central_wide(&self, offset: Offset) -> Vec<u64> {
        let mut wide = Vec::new();
        if self.is_big() {
            wide.extend([self.data_len(), self.data_len()]);
        }
        if MAX_32 <= offset.get() {
            wide.push(offset.get());
        }
        wide
    }

    /// Whether the size needs zip64. The largest 32-bit value itself means "look there".
    const fn is_big(&self) -> bool {
        MAX_32 <= self.data_len()
    }

    /// How many bytes to send between local header and descriptor.
    pub const fn data_len(&self) -> u64 {
        match self.kind {
            Kind::File => self.size,
            Kind::Dir => 0,
        }
    }

    fn flags(&self, name: &[u8]) -> u16 {
        let descriptor = if self.has_data() { FLAG_DESCRIPTOR } else { 0 };
        let utf8 = if name.is_ascii() { 0 } else { FLAG_UTF8 };
        descriptor | utf8
    }

    fn external_attributes(&self) -> u32 {
        let permissions = self.mode & 0o777;
        match self.kind {
            Kind::File => (0o100_000 | permissions) << 16,
            Kind::Dir => (0o040_000 | permissions) << 16 | DOS_DIRECTORY,
        }
    }

    /// The name as it stands in the archive.
    fn stored_name(&self) -> Cow<'a, [u8]> {
        let readable = match String::from_utf8_lossy(self.name) {
            Cow::Borrowed(name) => Cow::Borrowed(name.as_bytes()),
            Cow::Owned(name) => Cow::Owned(name.into_bytes()),
        };
        match self.kind {
            Kind::File => readable,
            Kind::Dir => {
                let mut name = readable.into_owned();
                name.push(b'/');
                Cow::Owned(name)
            }
        }
    }

    /// The length of a stored name, which [`Layout::add`] has found to fit.
    fn stored_len(&self, name: &[u8]) -> u16 {
        assert!(
            name.len() as u64 <= MAX_16,
            "a member that no layout admitted"
        );
        // Just asserted to fit.
        name.len() as u16
    }

    /// Checks the name and gives its stored length.
    fn checked_name_len(&self) -> Result<u64, ZipError> {
        if !is_safe_name(self.name) {
            return Err(ZipError::NameUnsafe);
        }
        let len = self.stored_name().len() as u64;
        if MAX_16 < len {
            Err(ZipError::NameTooLong)
        } else {
            Ok(len)
        }
    }
}
