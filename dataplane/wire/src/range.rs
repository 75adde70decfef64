//! Byte ranges: from a `Range` header to spans of one file.
//!
//! Decides, never reads: the caller has the length, this module has the rules.
//!
//! Laws
//! - A span is never empty and never leaves the file.
//! - Spans keep the client's order. Those that overlap or touch become one, at the place of the
//!   first of them, as RFC 9110 §15.3.7.2 allows: no byte is ever sent twice.
//! - A foreign unit is ignored: 200. More ranges than the limit, or more than the limit that
//!   overlap, are ignored too: the whole file costs less than serving them.
//! - A header that is malformed, or asks for nothing that exists, is refused: 416. RFC 9110
//!   §14.2 leaves the choice for malformed ones, and 416 is what the original's clients know.
//!
//! Differs from the original: several ranges are served, unit names may have any letter case,
//! foreign units are ignored, and `bytes=-0` is 416 instead of the whole file.
//!
//! Source: RFC 9110 §14.

use proxy_core::units::{ByteLen, Offset};

use crate::head::{Headers, Single, is_token, trim_blanks};
pub use crate::limits::RangeLimits;

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Where it begins.
    start: Offset,
    /// How long it is; never 0.
    len: ByteLen,
}

impl Span {
    /// A span of `len` bytes from `start`. `None` if it is empty or would pass `u64::MAX`.
    pub fn new(start: Offset, len: ByteLen) -> Option<Self> {
        start.advance(len)?;
        (len != ByteLen::ZERO).then_some(Self { start, len })
    }

    /// The first byte.
    pub const fn start(&self) -> Offset {
        self.start
    }

    /// How many bytes; at least 1.
    pub const fn len(&self) -> ByteLen {
        self.len
    }

    /// Never: there for symmetry with [`len`](Self::len).
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Just behind the last byte.
    pub const fn end(&self) -> Offset {
        // `new` and `Bounds` have seen that this is no overflow.
        Offset::new(self.start.get() + self.len.get())
    }

    /// The value of `Content-Range` for this span of a file of `file_len` bytes.
    pub fn content_range(&self, file_len: ByteLen) -> String {
        let last = self.end().get() - 1;
        format!("bytes {}-{last}/{}", self.start.get(), file_len.get())
    }
}

/// The value of `Content-Range` on a 416.
pub fn content_range_unsatisfied(file_len: ByteLen) -> String {
    format!("bytes */{}", file_len.get())
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeOutcome {
    /// 200 with everything.
    Whole,
    /// 206 with one span.
    One(Span),
    /// 206 with several, as [`crate::byteranges`]; at least two, none overlapping another.
    Many(Vec<Span>),
    /// 416.
    Unsatisfiable,
}

/// Decides for a request: no header is the whole file, a repeated one is malformed.
pub fn of_request(headers: &Headers, len: ByteLen, limits: &RangeLimits) -> RangeOutcome {
    match headers.single("range") {
        Single::Absent => RangeOutcome::Whole,
        Single::One(value) => parse(value, len, limits),
        Single::Repeated => RangeOutcome::Unsatisfiable,
    }
}

/// Decides for one header value and a file of `len` bytes.
pub fn parse(value: &[u8], len: ByteLen, limits: &RangeLimits) -> RangeOutcome {
    let Some(equals) = value.iter().position(|byte| *byte == b'=') else {
        return RangeOutcome::Unsatisfiable;
    };
    let (unit, set) = (&value[..equals], &value[equals + 1..]);
    if !is_token(unit) {
        return RangeOutcome::Unsatisfiable;
    }
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return RangeOutcome::Whole;
    }
    match read_set(set, len.get(), limits) {
        Set::Malformed => RangeOutcome::Unsatisfiable,
        Set::TooMany => RangeOutcome::Whole,
        Set::Ranges(ranges) => choose(&ranges, limits),
    }
}

/// A satisfiable range: `start < end`, and `end` is within the file.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    start: u64,
    end: u64,
}

enum Set {
    Malformed,
    TooMany,
    /// The satisfiable ones, in the client's order.
    Ranges(Vec<Bounds>),
}

/// Reads what stands after the `=`.
fn read_set(set: &[u8], len: u64, limits: &RangeLimits) -> Set {
    let mut ranges = Vec::new();
    let mut count = 0_usize;
    // No blank may follow the `=` itself; around commas it may.
    if matches!(set, [b' ' | b'\t', ..]) {
        return Set::Malformed;
    }
    for member in set.split(|byte| *byte == b',').map(trim_blanks) {
        if member.is_empty() {
            continue;
        }
        count += 1;
        match read_range(member, len) {
            None => return Set::Malformed,
            Some(bounds) if count <= limits.ranges_count_max => ranges.extend(bounds),
            Some(_) => {}
        }
    }
    match count {
        0 => Set::Malformed,
        _ if limits.ranges_count_max < count => Set::TooMany,
        _ => Set::Ranges(ranges),
    }
}

/// One member: `None` if malformed, `Some(None)` if it lies outside the file.
fn read_range(member: &[u8], len: u64) -> Option<Option<Bounds>> {
    let dash = member.iter().position(|byte| *byte == b'-')?;
    let first = read_number(&member[..dash])?;
    let last = read_number(&member[dash + 1..])?;
    let (start, end) = match (first, last) {
        (None, None) => return None,
        (Some(first), Some(last)) if last < first => return None,
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(len)),
        (Some(first), None) => (first, len),
        (None, Some(suffix)) => (len.saturating_sub(suffix), len),
    };
    Some((start < end).then_some(Bounds { start, end }))
}

/// Digits, or nothing at all (`Some(None)`). Numbers past `u64` become its maximum: they lie
/// outside every file all the same.
fn read_number(text: &[u8]) -> Option<Option<u64>> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, byte: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(byte - b'0'))
    };
    Some((!text.is_empty()).then(|| text.iter().fold(0, add)))
}

/// Joins what may be joined and counts what is left.
fn choose(ranges: &[Bounds], limits: &RangeLimits) -> RangeOutcome {
    let mut kept: Vec<Bounds> = Vec::with_capacity(ranges.len());
    let mut overlapping_count = 0_usize;
    for (at, range) in ranges.iter().enumerate() {
        let overlaps = |other: &Bounds| other.start < range.end && range.start < other.end;
        overlapping_count += usize::from(ranges[..at].iter().any(overlaps));
        absorb(&mut kept, *range);
    }
    if limits.ranges_overlapping_max < overlapping_count {
        return RangeOutcome::Whole;
    }
    let spans: Vec<Span> = kept
        .iter()
        .map(|bounds| {
            assert!(bounds.start < bounds.end);
            Span {
                start: Offset::new(bounds.start),
                len: ByteLen::new(bounds.end - bounds.start),
            }
        })
        .collect();
    match spans.as_slice() {
        [] => RangeOutcome::Unsatisfiable,
        [span] => RangeOutcome::One(*span),
        _ => RangeOutcome::Many(spans),
    }
}

/// Adds `range` to disjoint ranges, keeping them disjoint and apart.
///
/// The joined range takes the place of the earliest one that it swallowed.
fn absorb(kept: &mut Vec<Bounds>, range: Bounds) {
    let mut joined = range;
    let mut place = None;
    let mut at = 0;
    while at < kept.len() {
        let other = kept[at];
        if joined.end < other.start || other.end < joined.start {
            at += 1;
            continue;
        }
        joined = Bounds {
            start: joined.start.min(other.start),
            end: joined.end.max(other.end),
        };
        kept.remove(at);
        place = Some(place.map_or(at, |have: usize| have.min(at)));
        // The joined range is wider: it may now touch one that was passed over.
        at = 0;
    }
    kept.insert(place.unwrap_or(kept.len()), joined);
}
