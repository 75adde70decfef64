//! Members whose data is deflated while it is sent: their lengths stand behind them.
//!
//! Laws
//! - Empty members and directories are stored, as in an archive with a length.
//! - A member that could pass 32 bits has zip64 fields from the start, since its descriptor must
//!   be of the kind that its header announced.
//!
//! Source: PKWARE APPNOTE 6.3.10 §4.3.9, §4.4.4 and §4.5.3; RFC 1951.

use proxy_core::units::Offset;

use super::central::Layout;
use super::fields::{self, MAX_32, Put as _};
use super::{
    CENTRAL_SIGNATURE, DESCRIPTOR_SIGNATURE, Entry, FLAG_DESCRIPTOR, LOCAL_SIGNATURE, MADE_ON_UNIX,
    VERSION_PLAIN, VERSION_ZIP64,
};

/// Method 8.
const DEFLATED: u16 = 8;

/// Bytes of data from which the deflated form might not fit 32 bits: data that can not be
/// compressed grows by far less than a sixteenth.
const WIDE_BYTES_MIN: u64 = 0xf000_0000;

/// What became of the data of one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deflated {
    /// The checksum of the data.
    pub crc: u32,
    /// Bytes of the deflated form.
    pub len: u64,
}

impl Entry<'_> {
    /// Appends what stands before deflated data. Without data it is as
    /// [`Entry::local_header`] says, and nothing else follows.
    pub fn deflated_header(&self, out: &mut Vec<u8>) {
        if !self.has_data() {
            return self.local_header(out);
        }
        let name = self.stored_name();
        let stamp = fields::DosStamp::of(self.mtime_s);
        let (version, size) = if self.is_wide() {
            (VERSION_ZIP64, u32::MAX)
        } else {
            (VERSION_PLAIN, 0)
        };
        out.put_32(LOCAL_SIGNATURE);
        out.put_16(version);
        out.put_16(self.flags(&name) | FLAG_DESCRIPTOR);
        out.put_16(DEFLATED);
        out.put_16(stamp.time);
        out.put_16(stamp.date);
        out.put_32(0);
        out.put_32(size);
        out.put_32(size);
        out.put_16(self.stored_len(&name));
        let wide_count = if self.is_wide() { 2 } else { 0 };
        out.put_16(fields::zip64_len(wide_count) + fields::unix_time_len(self.mtime_s));
        out.extend_from_slice(&name);
        if self.is_wide() {
            // Not known yet: the descriptor has them.
            fields::put_zip64(&[0, 0], out);
        }
        fields::put_unix_time(self.mtime_s, out);
    }

    /// Appends what stands behind deflated data; nothing where there was none.
    pub fn deflated_descriptor(&self, deflated: Deflated, out: &mut Vec<u8>) {
        if !self.has_data() {
            return;
        }
        out.put_32(DESCRIPTOR_SIGNATURE);
        out.put_32(deflated.crc);
        if self.is_wide() {
            out.put_64(deflated.len);
            out.put_64(self.data_len());
        } else {
            out.put_32(fields::saturate_32(deflated.len));
            out.put_32(fields::saturate_32(self.data_len()));
        }
    }

    const fn is_wide(&self) -> bool {
        WIDE_BYTES_MIN <= self.data_len()
    }

    fn deflated_central(&self, deflated: Deflated, offset: Offset, out: &mut Vec<u8>) {
        if !self.has_data() {
            return self.central_header(0, offset, out);
        }
        let name = self.stored_name();
        let stamp = fields::DosStamp::of(self.mtime_s);
        let numbers = [self.data_len(), deflated.len, offset.get()];
        let wide: Vec<u64> = numbers.into_iter().filter(|n| MAX_32 <= *n).collect();
        let version = if wide.is_empty() && !self.is_wide() {
            VERSION_PLAIN
        } else {
            VERSION_ZIP64
        };
        out.put_32(CENTRAL_SIGNATURE);
        out.put_16(MADE_ON_UNIX | version);
        out.put_16(version);
        out.put_16(self.flags(&name) | FLAG_DESCRIPTOR);
        out.put_16(DEFLATED);
        out.put_16(stamp.time);
        out.put_16(stamp.date);
        out.put_32(deflated.crc);
        out.put_32(fields::saturate_32(deflated.len));
        out.put_32(fields::saturate_32(self.data_len()));
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
}

/// The directory of an archive whose lengths are known only when its members were sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Directory(Layout);

impl Directory {
    /// A directory behind `members_len` bytes.
    pub fn new(members_len: u64) -> Self {
        Self(Layout::written(members_len))
    }

    /// Appends the header of the next member, whose local header stands at `offset`.
    pub fn entry(
        &mut self,
        entry: &Entry<'_>,
        deflated: Deflated,
        offset: Offset,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        entry.deflated_central(deflated, offset, out);
        self.0.wrote_entry((out.len() - start) as u64);
    }

    /// Appends the records that end the archive.
    pub fn end(self, out: &mut Vec<u8>) {
        self.0.end(out);
    }
}
