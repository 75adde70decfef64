//! Finds the lines of a head, and refuses what is no line, before anything is interpreted.
//!
//! Laws
//! - Lines are judged in order and each as a whole, so that the verdict on a prefix is the
//!   verdict on everything that continues it.
//! - Length is judged before content: what is too long is never looked at.
//!
//! Source: RFC 9112 §2.2, §5.

use super::{HeadError, HeadLimits, is_token_byte};

/// Longest method in bytes. 32: the longest registered one has 17.
const METHOD_BYTES_MAX: usize = 32;

/// One complete line.
pub(super) struct Line<'a> {
    /// Its bytes, without CRLF.
    pub content: &'a [u8],
    /// Where the next line begins in the scanned buffer.
    pub next: usize,
}

/// The header lines and the empty line after them.
pub(super) struct Block {
    /// How many header lines.
    pub lines_count: usize,
    /// Just behind the empty line.
    pub end: usize,
}

/// Bytes of an empty line to skip: 0 or 2. `None` if that cannot be told yet.
///
/// One is tolerated because old clients send it after a body (RFC 9112 §2.2).
pub(super) fn leading_empty_line(buf: &[u8]) -> Option<usize> {
    match buf {
        [] | [b'\r'] => None,
        [b'\r', b'\n', ..] => Some(2),
        _ => Some(0),
    }
}

/// The first line. `None` while it is incomplete.
pub(super) fn request_line<'a>(
    buf: &'a [u8],
    limits: &HeadLimits,
) -> Result<Option<Line<'a>>, HeadError> {
    let breaks = memchr::memchr2(b'\r', b'\n', buf);
    check_method(&buf[..breaks.unwrap_or(buf.len())])?;
    let cap = Cap::at(
        0,
        limits,
        limits.request_line_bytes_max,
        HeadError::RequestLineTooLong,
    );
    line_at(buf, 0, breaks, cap)
}

/// Refuses early what is no method, so that a stranger's protocol is not waited for.
fn check_method(line: &[u8]) -> Result<(), HeadError> {
    let method = line.split(|byte| *byte == b' ').next().unwrap_or(line);
    let ended = method.len() < line.len();
    if ended && method.is_empty() {
        return Err(HeadError::Method);
    }
    if METHOD_BYTES_MAX < method.len() || !method.iter().all(|byte| is_token_byte(*byte)) {
        return Err(HeadError::Method);
    }
    Ok(())
}

/// The header lines that begin at `start`. `None` while the empty line has not come.
pub(super) fn header_block(
    buf: &[u8],
    start: usize,
    limits: &HeadLimits,
) -> Result<Option<Block>, HeadError> {
    let mut at = start;
    let mut lines_count = 0;
    loop {
        let rest = &buf[at..];
        if matches!(rest, [b' ' | b'\t', ..]) {
            return Err(HeadError::Folded);
        }
        let breaks = memchr::memchr2(b'\r', b'\n', rest);
        let line_max = limits.header_line_bytes_max;
        let cap = Cap::at(at, limits, line_max, HeadError::HeaderLineTooLong);
        let Some(line) = line_at(buf, at, breaks, cap)? else {
            return Ok(None);
        };
        at = line.next;
        if line.content.is_empty() {
            return Ok(Some(Block {
                lines_count,
                end: at,
            }));
        }
        lines_count += 1;
        if limits.headers_count_max < lines_count {
            return Err(HeadError::TooManyHeaders);
        }
    }
}

/// How long the next line may be, and the error when it is longer.
struct Cap {
    bytes_max: usize,
    error: HeadError,
}

impl Cap {
    /// The nearer of two limits: that of the line, and what the head has left at `at`.
    fn at(at: usize, limits: &HeadLimits, line_bytes_max: usize, error: HeadError) -> Self {
        let left = limits.head_bytes_max.saturating_sub(at);
        if left < line_bytes_max {
            return Self {
                bytes_max: left,
                error: HeadError::HeadTooLarge,
            };
        }
        Self {
            bytes_max: line_bytes_max,
            error,
        }
    }
}

/// The line that begins at `at`, whose first CR or LF is `breaks` bytes further.
fn line_at(
    buf: &[u8],
    at: usize,
    breaks: Option<usize>,
    cap: Cap,
) -> Result<Option<Line<'_>>, HeadError> {
    let rest = &buf[at..];
    let len = breaks.unwrap_or(rest.len());
    if cap.bytes_max < len {
        return Err(cap.error);
    }
    match &rest[len..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(Line {
            content: &rest[..len],
            next: at + len + 2,
        })),
        _ => Err(HeadError::LineEnding),
    }
}
