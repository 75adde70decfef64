//! Where a body ends, and whether the connection goes on after it.
//!
//! Laws
//! - There is one way to say how long a body is. Everything else is refused, because the next
//!   request begins where the body ends, and a wrong guess lets a body be read as a request.
//! - Without `Content-Length` and `Transfer-Encoding` a request has no body.
//!
//! Source: RFC 9112 §6 and §9.3; RFC 9110 §7.2, §8.6.

use super::{HeadError, Headers, Single, Version, trim_blanks};

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body was announced.
    None,
    /// Exactly so many bytes follow; may be 0.
    Length(u64),
    /// Chunks follow: see [`crate::chunked`].
    Chunked,
}

impl Framing {
    /// Whether at least one more byte belongs to this request.
    pub const fn has_body(self) -> bool {
        match self {
            Self::None | Self::Length(0) => false,
            Self::Length(_) | Self::Chunked => true,
        }
    }

    /// Decides from the fields of a head.
    pub(super) fn of(headers: &Headers, version: Version) -> Result<Self, HeadError> {
        let length = headers.single("content-length");
        if headers.get("transfer-encoding").is_some() {
            if version == Version::Http10 {
                return Err(HeadError::EncodingInOldVersion);
            }
            if length != Single::Absent {
                return Err(HeadError::LengthWithEncoding);
            }
            return check_codings(headers).map(|()| Self::Chunked);
        }
        match length {
            Single::Absent => Ok(Self::None),
            Single::Repeated => Err(HeadError::LengthRepeated),
            Single::One(value) => read_decimal(value)
                .map(Self::Length)
                .ok_or(HeadError::LengthInvalid),
        }
    }
}

/// Accepts `chunked` alone.
fn check_codings(headers: &Headers) -> Result<(), HeadError> {
    let mut before_last = 0_usize;
    let mut last: &[u8] = b"";
    let mut chunked_count = 0_usize;
    for coding in list_members(headers, "transfer-encoding") {
        if !last.is_empty() {
            before_last += 1;
        }
        last = coding;
        chunked_count += usize::from(coding.eq_ignore_ascii_case(b"chunked"));
    }
    if chunked_count != 1 || !last.eq_ignore_ascii_case(b"chunked") {
        return Err(HeadError::EncodingNotChunked);
    }
    if before_last != 0 {
        return Err(HeadError::EncodingUnsupported);
    }
    Ok(())
}

/// The non-empty members of a comma-separated field, over all its lines.
pub(super) fn list_members<'a>(
    headers: &'a Headers,
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(trim_blanks)
        .filter(|member| !member.is_empty())
}

/// A number of digits only. `None` for signs, blanks, lists, nothing, or 2^64 and above.
fn read_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether the connection may carry another request.
pub(super) fn keep_alive(headers: &Headers, version: Version) -> bool {
    let says = |option: &[u8]| {
        list_members(headers, "connection").any(|member| member.eq_ignore_ascii_case(option))
    };
    match version {
        Version::Http11 | Version::Http2 => !says(b"close"),
        Version::Http10 => says(b"keep-alive") && !says(b"close"),
    }
}

/// Applies the rules for `Host`.
pub(super) fn check_host(headers: &Headers, version: Version) -> Result<(), HeadError> {
    match (headers.single("host"), version) {
        (Single::Absent, Version::Http10) => Ok(()),
        (Single::Absent, Version::Http11 | Version::Http2) => Err(HeadError::HostMissing),
        (Single::Repeated, _) => Err(HeadError::HostRepeated),
        (Single::One(host), _) if is_host(host) => Ok(()),
        (Single::One(_), _) => Err(HeadError::HostInvalid),
    }
}

/// Whether `text` has only characters of a host and port. Empty is allowed (RFC 9110 §7.2).
pub(super) fn is_host(text: &[u8]) -> bool {
    text.iter().all(|byte| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b':'
                    | b'['
                    | b']'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            )
    })
}
