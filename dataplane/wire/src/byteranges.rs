//! The body of a 206 with several ranges: `multipart/byteranges`.
//!
//! Laws
//! - The length of the whole body is known before its first byte, so it goes out with
//!   `Content-Length` and the connection lives on.
//! - Part heads are made one at a time, when their turn comes.
//!
//! Source: RFC 9110 §14.6 and §15.3.7.2; RFC 2046 §5.1.

use proxy_core::units::ByteLen;

use crate::range::Span;

/// The frame around the spans of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    boundary: String,
    part_type: &'static str,
    file_len: ByteLen,
}

impl Multipart {
    /// A frame for parts of type `part_type` from a file of `file_len` bytes.
    ///
    /// `seed` makes the boundary; it must be random, so that no file can contain it on purpose.
    pub fn new(seed: u128, part_type: &'static str, file_len: ByteLen) -> Self {
        Self {
            boundary: format!("{seed:032x}"),
            part_type,
            file_len,
        }
    }

    /// The value of the answer's `Content-Type`.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Appends what stands before the data of `span`.
    ///
    /// The line break before a boundary belongs to it. The first part has one too: an empty
    /// preamble, which every reader skips, and one rule less to keep.
    pub fn part_head(&self, span: &Span, out: &mut Vec<u8>) {
        let head = format!(
            "\r\n--{}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
            self.boundary,
            self.part_type,
            span.content_range(self.file_len),
        );
        out.extend_from_slice(head.as_bytes());
    }

    /// Appends what stands after the data of the last span.
    pub fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n--");
        out.extend_from_slice(self.boundary.as_bytes());
        out.extend_from_slice(b"--\r\n");
    }

    /// Length of the whole body with the data of all `spans`. `None` past `u64::MAX`.
    pub fn content_length(&self, spans: &[Span]) -> Option<ByteLen> {
        let mut scratch = Vec::new();
        self.end(&mut scratch);
        let mut total = scratch.len() as u64;
        for span in spans {
            scratch.clear();
            self.part_head(span, &mut scratch);
            total = total
                .checked_add(scratch.len() as u64)?
                .checked_add(span.len().get())?;
        }
        Some(ByteLen::new(total))
    }
}
