//! Headers of resumable uploads: reading them, and what OPTIONS tells.
//!
//! Laws
//! - Whatever the original read as a number is read as the same number.
//! - A number that no file can have is a mismatch (409), not a malformed header (400): clients
//!   answer 409 with a HEAD and recover.
//!
//! Differs from the original: digits of other scripts than ASCII are refused.
//!
//! Source: tus 1.0.0, core protocol and extensions; the integer grammar of Python's `int`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proxy_core::units::{ByteLen, Offset};

/// The protocol version spoken, for `Tus-Resumable` and `Tus-Version`.
pub const VERSION: &str = "1.0.0";
/// Header of the protocol version.
pub const TUS_RESUMABLE: &str = "Tus-Resumable";
/// The same in lower case for reading.
pub const TUS_RESUMABLE_LOWER: &str = "tus-resumable";
/// Header of an offset, in lower case for reading.
pub const UPLOAD_OFFSET_LOWER: &str = "upload-offset";
/// Header of an offset, for answers.
pub const UPLOAD_OFFSET: &str = "Upload-Offset";
/// Header of the size of an upload.
pub const UPLOAD_LENGTH: &str = "Upload-Length";

/// Header of the size, in lower case for reading.
pub const UPLOAD_LENGTH_LOWER: &str = "upload-length";
/// Header by which a client says that it does not know the size yet, in lower case for reading.
pub const UPLOAD_DEFER_LENGTH_LOWER: &str = "upload-defer-length";
/// Header of the kind of a concatenation.
pub const UPLOAD_CONCAT: &str = "Upload-Concat";
/// The same in lower case for reading.
pub const UPLOAD_CONCAT_LOWER: &str = "upload-concat";
/// Header of what a client says of its file.
pub const UPLOAD_METADATA: &str = "Upload-Metadata";
/// The same in lower case for reading.
pub const UPLOAD_METADATA_LOWER: &str = "upload-metadata";
/// Header of a body's checksum, in lower case for reading.
pub const UPLOAD_CHECKSUM_LOWER: &str = "upload-checksum";
/// Header of the end of an upload's life.
pub const UPLOAD_EXPIRES: &str = "Upload-Expires";
/// The extensions spoken, for `Tus-Extension`.
pub const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,concatenation,\
                              checksum,expiration,termination";

/// Longest `Upload-Metadata` that is taken: it is kept with the session.
pub const METADATA_BYTES_MAX: usize = 4096;

/// Reads an `Upload-Length`: digits alone. `None` is 400.
pub fn parse_length(value: &[u8]) -> Option<u64> {
    let text = value.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What an `Upload-Concat` header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concat {
    /// A piece.
    Partial,
    /// The whole, of the pieces with these addresses, in this order.
    Final(Vec<String>),
}

/// Reads an `Upload-Concat`. `None` is 400.
pub fn parse_concat(value: &[u8]) -> Option<Concat> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if text == "partial" {
        return Some(Concat::Partial);
    }
    let list = text.strip_prefix("final;")?;
    let addresses: Vec<String> = list.split_ascii_whitespace().map(str::to_owned).collect();
    (!addresses.is_empty()).then_some(Concat::Final(addresses))
}

/// The query of an address that may be absolute or not.
pub fn query_of(address: &str) -> Option<&str> {
    let (_, query) = address.split_once('?')?;
    Some(query.split_once('#').map_or(query, |(query, _)| query))
}

/// Checks an `Upload-Metadata`: keys, each once, each with a value in Base64 or none; the text
/// if it is one. `None` is 400.
pub fn check_metadata(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if METADATA_BYTES_MAX < text.len() {
        return None;
    }
    let mut keys = BTreeSet::new();
    for pair in text.split(',') {
        let pair = pair.trim();
        let (key, encoded) = pair.split_once(' ').unwrap_or((pair, ""));
        if key.is_empty() || !key.is_ascii() || !keys.insert(key) {
            return None;
        }
        STANDARD.decode(encoded.trim()).ok()?;
    }
    Some(text)
}

/// What an `Upload-Offset` header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadOffset {
    /// This position.
    At(Offset),
    /// A number that is no position: negative, or 2^64 and above. It mismatches every offset.
    Nowhere,
}

impl UploadOffset {
    /// Whether the client resumes where the server is.
    pub fn is_at(self, offset: Offset) -> bool {
        self == Self::At(offset)
    }
}

/// The header is not an integer: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnInteger;

impl std::fmt::Display for NotAnInteger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("upload-offset is not an integer")
    }
}

impl std::error::Error for NotAnInteger {}

/// Reads an `Upload-Offset`: blanks around it, a sign, and single underscores between digits
/// are allowed.
///
/// # Errors
/// It is not an integer; 400.
pub fn parse_offset(value: &[u8]) -> Result<UploadOffset, NotAnInteger> {
    let text = value.trim_ascii();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    match (read_digits(digits)?, negative) {
        (Some(0), _) => Ok(UploadOffset::At(Offset::ZERO)),
        (Some(number), false) => Ok(UploadOffset::At(Offset::new(number))),
        (Some(_), true) | (None, _) => Ok(UploadOffset::Nowhere),
    }
}

/// The number, or `None` if it does not fit.
fn read_digits(text: &[u8]) -> Result<Option<u64>, NotAnInteger> {
    let mut number = Some(0_u64);
    let mut after_digit = false;
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                let digit = u64::from(byte - b'0');
                number = number.and_then(|sum| sum.checked_mul(10)?.checked_add(digit));
                after_digit = true;
            }
            b'_' if after_digit => after_digit = false,
            _ => return Err(NotAnInteger),
        }
    }
    // Also false for no digits at all, and for a trailing underscore.
    if after_digit {
        Ok(number)
    } else {
        Err(NotAnInteger)
    }
}

/// The headers of `OPTIONS /upload` beside those of [`crate::cors::UPLOAD_HEADERS`];
/// `Content-Length: 0` is for the caller.
pub fn options_headers(upload_size_max: ByteLen) -> [(&'static str, String); 6] {
    [
        (TUS_RESUMABLE, VERSION.to_owned()),
        ("Tus-Version", VERSION.to_owned()),
        ("Tus-Max-Size", upload_size_max.get().to_string()),
        ("Tus-Extension", EXTENSIONS.to_owned()),
        ("Tus-Checksum-Algorithm", crate::checksum::names()),
        ("X-Content-Type-Options", "nosniff".to_owned()),
    ]
}

/// The headers of a successful HEAD (200) and PATCH (204) beside those of
/// [`crate::cors::UPLOAD_HEADERS`].
pub fn progress_headers(offset: Offset, size: ByteLen) -> [(&'static str, String); 4] {
    [
        ("Cache-Control", "no-store".to_owned()),
        (TUS_RESUMABLE, VERSION.to_owned()),
        (UPLOAD_OFFSET, offset.get().to_string()),
        (UPLOAD_LENGTH, size.get().to_string()),
    ]
}
