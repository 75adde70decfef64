//! Entity tags: making ours, reading and comparing those of clients.
//!
//! Laws
//! - Our tags are strong and name a version of a file by modification time and size, as the
//!   original's do, so that a client can go from one server to the other and resume.
//! - A malformed list is read up to its first fault: what came before still counts.
//!
//! Source: RFC 9110 §8.8.3, §13.1.

/// Makes the tag of a file: `"<mtime in ns, hex>-<size, hex>"`.
///
/// Shape: `mtime_ns` is the part below a second, under 1,000,000,000.
pub fn make(mtime_s: i64, mtime_ns: u32, size: u64) -> String {
    let total_ns = i128::from(mtime_s) * 1_000_000_000 + i128::from(mtime_ns);
    let sign = if total_ns < 0 { "-" } else { "" };
    format!("\"{sign}{:x}-{size:x}\"", total_ns.unsigned_abs())
}

/// One entity tag of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    /// It was marked `W/`.
    pub weak: bool,
    /// The tag with its quotes.
    pub quoted: &'a [u8],
}

impl<'a> Tag<'a> {
    /// Reads a value that is one tag and nothing else.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::split_first(value)?;
        rest.is_empty().then_some(tag)
    }

    /// Reads the tag at the start of `value`, and gives what follows.
    fn split_first(value: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match value.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, value),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let len = inner.iter().position(|byte| *byte == b'"')?;
        if !inner[..len]
            .iter()
            .all(|byte| matches!(byte, b'!' | b'#'..=b'~' | 0x80..))
        {
            return None;
        }
        let (quoted, rest) = quoted.split_at(len + 2);
        Some((Self { weak, quoted }, rest))
    }

    /// Strong comparison: equal, and neither is weak. `own` is strong, with its quotes.
    pub fn matches_strong(&self, own: &str) -> bool {
        !self.weak && self.quoted == own.as_bytes()
    }

    /// Weak comparison: equal, weak or not.
    pub fn matches_weak(&self, own: &str) -> bool {
        self.quoted == own.as_bytes()
    }
}

/// Whether a field of conditions, over all its lines, is `*` or has a tag that `matches`.
pub fn any_matches<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    matches: impl Fn(&Tag<'a>) -> bool,
) -> bool {
    let mut lines = lines;
    lines.any(|line| line == b"*" || tags(line).any(|tag| matches(&tag)))
}

/// The tags of one list, up to its first fault.
pub fn tags(list: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    let mut rest = list;
    std::iter::from_fn(move || {
        // Empty members are lawful for a recipient (RFC 9110 §5.6.1).
        while let [b',' | b' ' | b'\t', tail @ ..] = rest {
            rest = tail;
        }
        let (tag, tail) = Tag::split_first(rest)?;
        let tail = crate::head::trim_blanks(tail);
        // What follows a tag is a comma or nothing.
        rest = match tail {
            [] | [b',', ..] => tail,
            _ => b"",
        };
        Some(tag)
    })
}
