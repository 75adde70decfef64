//! Parts of an upload: reading `Content-Range` of a PUT, and telling the durable ranges.
//!
//! Laws
//! - A range has a byte, and its length is that of the body.
//! - The total is that of the upload; `*` stands for "you know it".
//!
//! Source: RFC 9110 §14.4, §14.5; `docs/semantics.md#parts`.

use proxy_core::extent::{Extent, Extents};

/// Header of a part's place, in lower case for reading.
pub const CONTENT_RANGE_LOWER: &str = "content-range";
/// Header of the durable ranges.
pub const UPLOAD_RANGES: &str = "Upload-Ranges";

/// Why a `Content-Range` is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartError {
    /// Not `bytes first-last/total` with `first <= last < total`: 400.
    Malformed,
    /// The total is not the size of the upload, or the range leaves it: 416.
    Outside {
        /// Bytes of the upload.
        size: u64,
    },
}

impl std::fmt::Display for PartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed => f.write_str("Content-Range is not \"bytes first-last/total\""),
            Self::Outside { size } => {
                write!(
                    f,
                    "Content-Range is about another size than the {size} bytes to come"
                )
            }
        }
    }
}

impl std::error::Error for PartError {}

/// Reads the `Content-Range` of a part of an upload of `size` bytes.
///
/// # Errors
/// See [`PartError`].
pub fn parse_content_range(value: &[u8], size: u64) -> Result<Extent, PartError> {
    let (first, last, total) = split(value).ok_or(PartError::Malformed)?;
    let first = number(first).ok_or(PartError::Malformed)?;
    let last = number(last).ok_or(PartError::Malformed)?;
    let outside = PartError::Outside { size };
    if total != b"*" {
        let total = number(total).ok_or(PartError::Malformed)?;
        if total <= last {
            return Err(PartError::Malformed);
        }
        if total != size {
            return Err(outside);
        }
    }
    if last < first {
        return Err(PartError::Malformed);
    }
    if size <= last {
        return Err(outside);
    }
    Ok(Extent::new(first, last + 1))
}

fn split(value: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let value = value.trim_ascii();
    let (unit, rest) = value.split_at_checked(5)?;
    if !unit.eq_ignore_ascii_case(b"bytes") || !rest.first()?.is_ascii_whitespace() {
        return None;
    }
    let rest = rest.trim_ascii_start();
    let dash = rest.iter().position(|byte| *byte == b'-')?;
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    let (range, total) = (rest.get(..slash)?, rest.get(slash + 1..)?);
    Some((range.get(..dash)?, range.get(dash + 1..)?, total))
}

/// Digits and nothing else; `None` also for what does not fit.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The value of [`UPLOAD_RANGES`], such as `bytes=0-99,200-299`; `None` if nothing is durable.
pub fn upload_ranges(durable: &Extents) -> Option<String> {
    if durable.is_empty() {
        return None;
    }
    let ranges = durable
        .iter()
        .map(|range| format!("{}-{}", range.from, range.to - 1));
    Some(format!("bytes={}", ranges.collect::<Vec<_>>().join(",")))
}
