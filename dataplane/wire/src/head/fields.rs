//! Heads out of fields that came without HTTP/1.1 framing: the requests of HTTP/2.
//!
//! Laws
//! - One set of rules: the fields are written as an HTTP/1.1 head and read back by
//!   [`super::parse`], so what is refused there is refused here, with the same status.
//! - No part can end its line: what would is refused before anything is written.
//! - Fields that speak about a connection have no place here (RFC 9113 §8.2.2).
//!
//! Source: RFC 9113 §8.2, §8.3, §8.8.

use super::{Framing, HeadError, HeadLimits, Parsed, RequestHead, Version, is_token};

/// What a request without framing of its own consists of.
#[derive(Clone, Copy, Debug)]
pub struct Pseudo<'a> {
    /// `:method`
    pub method: &'a str,
    /// `:path`, with its query.
    pub path: &'a str,
    /// `:authority`; `Host` may stand for it.
    pub authority: Option<&'a str>,
    /// The request ended with its fields: there is no body.
    pub ends: bool,
}

/// Fields that name a property of one connection, and none of the request.
const OF_A_CONNECTION: [&str; 5] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// Whether a field of this name, in any letter case, is about a connection (RFC 9113 §8.2.2).
pub fn is_of_a_connection(name: &str) -> bool {
    OF_A_CONNECTION
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}

/// Makes a head of `pseudo` and `fields`.
///
/// Shape: names of `fields` are lower-case tokens, in the order they came. A body without a
/// `Content-Length` ends by itself: its framing is [`Framing::Chunked`].
///
/// # Errors
/// As [`super::parse`]; the stream is answered, the connection can go on.
pub fn from_fields<'a>(
    pseudo: Pseudo<'_>,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    limits: &HeadLimits,
) -> Result<RequestHead, HeadError> {
    let mut bytes = Vec::with_capacity(512);
    if !is_token(pseudo.method.as_bytes()) {
        return Err(HeadError::Method);
    }
    if pseudo.path.bytes().any(|byte| byte <= b' ') {
        return Err(HeadError::Target);
    }
    for part in [pseudo.method, " ", pseudo.path, " HTTP/1.1\r\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
    if let Some(authority) = pseudo.authority {
        line(&mut bytes, "host", authority.as_bytes())?;
    }
    for (name, value) in fields {
        if is_of_a_connection(name) {
            return Err(HeadError::OfAConnection);
        }
        if name == "host"
            && let Some(authority) = pseudo.authority
        {
            if value == authority.as_bytes() {
                continue;
            }
            return Err(HeadError::HostRepeated);
        }
        line(&mut bytes, name, value)?;
    }
    bytes.extend_from_slice(b"\r\n");
    match super::parse(&bytes, limits)? {
        Parsed::Complete { mut head, consumed } if consumed == bytes.len() => {
            head.version = Version::Http2;
            if !pseudo.ends && head.framing == Framing::None {
                head.framing = Framing::Chunked;
            }
            Ok(head)
        }
        // Nothing above can end a head early or leave it open.
        Parsed::Complete { .. } | Parsed::Partial => Err(HeadError::LineEnding),
    }
}

fn line(bytes: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), HeadError> {
    if !is_token(name.as_bytes()) {
        return Err(HeadError::HeaderName);
    }
    if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(HeadError::HeaderValue);
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
    Ok(())
}
