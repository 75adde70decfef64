//! Tar archives whose every position follows from names, sizes and times alone.
//!
//! POSIX ustar headers; a pax header goes before those members that do not fit one: long names,
//! names beyond ASCII, 8 GiB and more, times with a fraction or before 1970.
//!
//! ```
//! use proxy_wire::tar::{END, Entry, Kind};
//!
//! let entry = Entry {
//!     name: b"a.txt",
//!     mode: 0o644,
//!     mtime_s: 1_700_000_000,
//!     mtime_ns: 0,
//!     size: 2,
//!     kind: Kind::File,
//! };
//! let mut body = Vec::new();
//! entry.header(&mut body);
//! body.extend_from_slice(b"hi");
//! entry.padding(&mut body);
//! assert_eq!(body.len() as u64, entry.member_len()?);
//! body.extend_from_slice(&END);
//! # Ok::<(), proxy_wire::zip::ZipError>(())
//! ```
//!
//! Laws
//! - [`Entry::member_len`] is what [`Entry::header`], the data and [`Entry::padding`] make.
//! - A name never leads out of the directory it is unpacked in. Unlike in zip, bytes that are no
//!   UTF-8 stay as they are; a pax header that holds them says so (`hdrcharset=BINARY`).
//! - Permission bits are kept; set-user-id and its kin, owners and groups are not: an archive
//!   grants nothing.
//!
//! Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".

use std::borrow::Cow;

pub use crate::zip::Kind;
use crate::zip::{ZipError, is_safe_name};

/// Bytes of a record; everything in an archive is a multiple of it.
pub const BLOCK_BYTES: u64 = 512;

/// What ends an archive: two empty records.
pub const END: [u8; 2 * BLOCK_BYTES as usize] = [0; 2 * BLOCK_BYTES as usize];

/// Bytes of a name, with the `/` of a directory. The same as zip's, so that a folder that can be
/// had in one format can be had in the other.
const NAME_BYTES_MAX: usize = 0xffff;

/// Bytes of the name field.
const NAME_FIELD: usize = 100;
/// Bytes of the prefix field, which holds the directories of a long name.
const PREFIX_FIELD: usize = 155;
/// The largest number of eleven octal digits.
const OCTAL_11_MAX: u64 = 0o777_7777_7777;

/// One member of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its path in the archive, relative, with `/` between components and none at the end.
    pub name: &'a [u8],
    /// Its Unix mode; only the permission bits count.
    pub mode: u32,
    /// Modification time, full seconds since 1970.
    pub mtime_s: i64,
    /// Nanoseconds beyond; below 1,000,000,000.
    pub mtime_ns: u32,
    /// Bytes of data that will be sent. That of a directory does not count: it has none.
    pub size: u64,
    /// File or directory.
    pub kind: Kind,
}

impl<'a> Entry<'a> {
    /// Bytes of header, data and padding.
    ///
    /// # Errors
    /// A name that is unsafe or too long, or a size that passes `u64`.
    pub fn member_len(&self) -> Result<u64, ZipError> {
        if !is_safe_name(self.name) {
            return Err(ZipError::NameUnsafe);
        }
        if NAME_BYTES_MAX < self.stored_name().len() {
            return Err(ZipError::NameTooLong);
        }
        let pax = self.pax();
        let pax_len = match pax.len() as u64 {
            0 => 0,
            len => BLOCK_BYTES + len.next_multiple_of(BLOCK_BYTES),
        };
        self.data_len()
            .checked_next_multiple_of(BLOCK_BYTES)
            .and_then(|data| data.checked_add(BLOCK_BYTES + pax_len))
            .ok_or(ZipError::TooLarge)
    }

    /// Appends what stands before the data.
    pub fn header(&self, out: &mut Vec<u8>) {
        let name = self.stored_name();
        let pax = self.pax();
        if !pax.is_empty() {
            let own = format!("PaxHeaders/{}", pax.len());
            let head = Block {
                name: own.as_bytes(),
                prefix: b"",
                mode: 0o644,
                size: pax.len() as u64,
                mtime: 0,
                kind: b'x',
            };
            head.put(out);
            out.extend_from_slice(&pax);
            pad(pax.len() as u64, out);
        }
        let (prefix, last) = split(&name).unwrap_or((b"", &name[..name.len().min(NAME_FIELD)]));
        let head = Block {
            name: last,
            prefix,
            mode: self.mode & 0o777,
            // Where it does not fit the pax header has it, and counts.
            size: fit(self.data_len()),
            mtime: fit(u64::try_from(self.mtime_s).unwrap_or(0)),
            kind: match self.kind {
                Kind::File => b'0',
                Kind::Dir => b'5',
            },
        };
        head.put(out);
    }

    /// Appends what stands after the data.
    pub fn padding(&self, out: &mut Vec<u8>) {
        pad(self.data_len(), out);
    }

    /// How many bytes to send between header and padding.
    pub const fn data_len(&self) -> u64 {
        match self.kind {
            Kind::File => self.size,
            Kind::Dir => 0,
        }
    }

    /// The name as it stands in the archive.
    fn stored_name(&self) -> Cow<'a, [u8]> {
        match self.kind {
            Kind::File => Cow::Borrowed(self.name),
            Kind::Dir => Cow::Owned([self.name, b"/"].concat()),
        }
    }

    /// The records of the extended header; empty when the plain one says it all.
    fn pax(&self) -> Vec<u8> {
        let name = self.stored_name();
        let mut records = Vec::new();
        let (is_text, fits) = (std::str::from_utf8(&name).is_ok(), split(&name).is_some());
        if !fits && !is_text {
            record("hdrcharset", b"BINARY", &mut records);
        }
        // Plain fields take any byte but promise no encoding: enough for what has none.
        if !fits || (is_text && !name.is_ascii()) {
            record("path", &name, &mut records);
        }
        if OCTAL_11_MAX < self.data_len() {
            let size = self.data_len().to_string();
            record("size", size.as_bytes(), &mut records);
        }
        let fits = u64::try_from(self.mtime_s).is_ok_and(|mtime| mtime <= OCTAL_11_MAX);
        if self.mtime_ns != 0 || !fits {
            record("mtime", self.mtime_text().as_bytes(), &mut records);
        }
        records
    }

    /// Seconds since 1970 as a decimal number without needless digits.
    fn mtime_text(&self) -> String {
        let total_ns = i128::from(self.mtime_s) * 1_000_000_000 + i128::from(self.mtime_ns);
        let sign = if total_ns < 0 { "-" } else { "" };
        let ns = total_ns.unsigned_abs();
        let (seconds, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
        if rest == 0 {
            return format!("{sign}{seconds}");
        }
        let text = format!("{sign}{seconds}.{rest:09}");
        text.trim_end_matches('0').to_owned()
    }
}

/// `number`, or 0 where its field can not hold it.
const fn fit(number: u64) -> u64 {
    if number <= OCTAL_11_MAX { number } else { 0 }
}

/// Prefix and name for the two fields. `None`: it does not fit.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_FIELD {
        return Some((b"", name));
    }
    // A `/` that is neither first nor last: what stands before it is the prefix.
    let first = name.len() - NAME_FIELD - 1;
    let last = PREFIX_FIELD.min(name.len() - 2);
    let at = (first.max(1)..=last).find(|at| name[*at] == b'/')?;
    Some((&name[..at], &name[at + 1..]))
}

/// Appends `<len> <key>=<value>\n`, where the length counts its own digits.
fn record(key: &str, value: &[u8], out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.ilog10() as usize + 1 {
        len = rest + len.ilog10() as usize + 1;
    }
    out.extend_from_slice(format!("{len} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Zeros up to the next record.
fn pad(len: u64, out: &mut Vec<u8>) {
    let rest = len.next_multiple_of(BLOCK_BYTES) - len;
    // Below a record.
    out.resize(out.len() + rest as usize, 0);
}

/// One header record.
struct Block<'a> {
    name: &'a [u8],
    prefix: &'a [u8],
    mode: u32,
    size: u64,
    mtime: u64,
    kind: u8,
}

impl Block<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        field(self.name, NAME_FIELD, out);
        octal(u64::from(self.mode), 8, out);
        octal(0, 8, out); // owner
        octal(0, 8, out); // group
        octal(self.size, 12, out);
        octal(self.mtime, 12, out);
        // The checksum counts its own field as blanks.
        out.extend_from_slice(b"        ");
        out.push(self.kind);
        field(b"", 100, out); // target of a link
        out.extend_from_slice(b"ustar\x0000");
        field(b"", 32, out); // owner's name
        field(b"", 32, out); // group's name
        octal(0, 8, out); // device
        octal(0, 8, out);
        field(self.prefix, PREFIX_FIELD, out);
        field(b"", 12, out);
        let block = &mut out[start..];
        assert_eq!(block.len() as u64, BLOCK_BYTES);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Bytes, filled up with zeros. What a reader needs to end there is not needed when full.
fn field(bytes: &[u8], width: usize, out: &mut Vec<u8>) {
    assert!(bytes.len() <= width);
    out.extend_from_slice(bytes);
    out.resize(out.len() + width - bytes.len(), 0);
}

/// An octal number and a zero, `width` bytes together.
fn octal(number: u64, width: usize, out: &mut Vec<u8>) {
    let text = format!("{number:0digits$o}\0", digits = width - 1);
    field(text.as_bytes(), width, out);
}
