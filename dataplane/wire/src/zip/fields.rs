//! Fields that headers of a zip archive share: numbers, times, extra fields.
//!
//! Source: PKWARE APPNOTE 6.3.10 §4.4.6 and §4.5.3; Info-ZIP's extra field 0x5455.

use crate::date::Civil;

/// The largest 16-bit number, which in a header means "see zip64".
pub(super) const MAX_16: u64 = 0xffff;
/// The largest 32-bit number, which in a header means "see zip64".
pub(super) const MAX_32: u64 = 0xffff_ffff;

const ZIP64_TAG: u16 = 0x0001;
const UNIX_TIME_TAG: u16 = 0x5455;
/// Bytes of an extra field's tag and length.
const EXTRA_HEAD_BYTES: u16 = 4;
/// One byte of flags and a 32-bit time.
const UNIX_TIME_BYTES: u16 = 5;
/// Flag: the modification time is there, and no other.
const UNIX_TIME_MODIFIED: u8 = 1;

/// 1980-01-01T00:00:00Z, where MS-DOS time begins.
const DOS_FIRST_S: i64 = 315_532_800;
/// 2107-12-31T23:59:58Z, the last moment it can name.
const DOS_LAST_S: i64 = 4_354_819_198;

/// Little-endian numbers at the end of a buffer.
pub(super) trait Put {
    /// Appends 16 bits.
    fn put_16(&mut self, number: u16);
    /// Appends 32 bits.
    fn put_32(&mut self, number: u32);
    /// Appends 64 bits.
    fn put_64(&mut self, number: u64);
}

impl Put for Vec<u8> {
    fn put_16(&mut self, number: u16) {
        self.extend_from_slice(&number.to_le_bytes());
    }

    fn put_32(&mut self, number: u32) {
        self.extend_from_slice(&number.to_le_bytes());
    }

    fn put_64(&mut self, number: u64) {
        self.extend_from_slice(&number.to_le_bytes());
    }
}

/// `number` for a 32-bit field: itself, or all ones where zip64 has it.
pub(super) fn saturate_32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// `number` for a 16-bit field: itself, or all ones where zip64 has it.
pub(super) fn saturate_16(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// A moment in MS-DOS form, which has steps of two seconds and no time zone.
pub(super) struct DosStamp {
    /// Hours, minutes, half seconds.
    pub time: u16,
    /// Years since 1980, months, days.
    pub date: u16,
}

impl DosStamp {
    /// UTC, clamped to the years 1980 to 2107. Readers that know better use the Unix time.
    pub(super) fn of(unix_s: i64) -> Self {
        let at = Civil::from_unix(unix_s.clamp(DOS_FIRST_S, DOS_LAST_S));
        // Clamped: 0 to 127.
        let year = (at.year - 1980) as u16;
        Self {
            time: u16::from(at.hour) << 11 | u16::from(at.minute) << 5 | (u16::from(at.second) / 2),
            date: year << 9 | u16::from(at.month) << 5 | u16::from(at.day),
        }
    }
}

/// Bytes of a zip64 field with so many numbers.
pub(super) const fn zip64_len(numbers_count: usize) -> u16 {
    match numbers_count {
        0 => 0,
        1 => EXTRA_HEAD_BYTES + 8,
        2 => EXTRA_HEAD_BYTES + 16,
        _ => EXTRA_HEAD_BYTES + 24,
    }
}

/// Appends a zip64 field; none for no numbers. At most three (sizes and offset).
pub(super) fn put_zip64(numbers: &[u64], out: &mut Vec<u8>) {
    assert!(numbers.len() <= 3);
    if numbers.is_empty() {
        return;
    }
    out.put_16(ZIP64_TAG);
    out.put_16(zip64_len(numbers.len()) - EXTRA_HEAD_BYTES);
    for number in numbers {
        out.put_64(*number);
    }
}

/// Bytes of the Unix time field, which times beyond 32 bits do without.
pub(super) fn unix_time_len(unix_s: i64) -> u16 {
    if i32::try_from(unix_s).is_ok() {
        EXTRA_HEAD_BYTES + UNIX_TIME_BYTES
    } else {
        0
    }
}

/// Appends the Unix time field.
pub(super) fn put_unix_time(unix_s: i64, out: &mut Vec<u8>) {
    let Ok(short) = i32::try_from(unix_s) else {
        return;
    };
    out.put_16(UNIX_TIME_TAG);
    out.put_16(UNIX_TIME_BYTES);
    out.push(UNIX_TIME_MODIFIED);
    out.extend_from_slice(&short.to_le_bytes());
}
