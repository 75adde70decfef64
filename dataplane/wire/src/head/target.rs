//! The request line: method, target and version.
//!
//! Laws
//! - Exactly one blank between the three parts, none elsewhere.
//! - The target is a path, an absolute `http` or `https` URL, or `*` for OPTIONS. It stays
//!   percent-encoded: the router compares raw paths, so no encoding can dodge a route.
//! - Bytes above ASCII are accepted in a target when they are UTF-8: clients that paste a query
//!   unencoded did so against the original, and no reader splits lines differently for it.
//!
//! Source: RFC 9112 §3.

use super::{HeadError, Version, is_token};

/// The parts of a request line, borrowed from it.
pub(super) struct RequestLine<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub version: Version,
}

impl<'a> RequestLine<'a> {
    /// Reads a line without its CRLF.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, HeadError> {
        let (Some(first), Some(last)) = (memchr::memchr(b' ', line), memchr::memrchr(b' ', line))
        else {
            return Err(HeadError::RequestLine);
        };
        if first == last || memchr::memchr(b' ', &line[first + 1..last]).is_some() {
            return Err(HeadError::RequestLine);
        }
        let (method, target, version) = (&line[..first], &line[first + 1..last], &line[last + 1..]);
        if target.is_empty() || version.is_empty() {
            return Err(HeadError::RequestLine);
        }
        if !is_token(method) {
            return Err(HeadError::Method);
        }
        let method = std::str::from_utf8(method).map_err(|_| HeadError::Method)?;
        let version = read_version(version)?;
        let (path, query) = read_target(target, method)?;
        Ok(Self {
            method,
            path,
            query,
            version,
        })
    }
}

fn read_version(version: &[u8]) -> Result<Version, HeadError> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(HeadError::Version)
        }
        _ => Err(HeadError::RequestLine),
    }
}

/// Path and query of a target.
fn read_target<'a>(
    target: &'a [u8],
    method: &str,
) -> Result<(&'a str, Option<&'a str>), HeadError> {
    let target = std::str::from_utf8(target).map_err(|_| HeadError::Target)?;
    // A fragment never travels; a server that ignored it would read another path than a proxy.
    let is_forbidden = |byte: u8| byte <= b' ' || byte == 0x7f || byte == b'#';
    // Without an early end, so that the compiler can look at many bytes at a time.
    let is_bad = target
        .bytes()
        .fold(false, |bad, byte| bad | is_forbidden(byte));
    if is_bad {
        return Err(HeadError::Target);
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((target, None));
    }
    let origin_form = match target.starts_with('/') {
        true => target,
        false => without_authority(target).ok_or(HeadError::Target)?,
    };
    Ok(match origin_form.split_once('?') {
        Some((path, query)) => (root_if_empty(path), Some(query)),
        None => (root_if_empty(origin_form), None),
    })
}

/// What follows scheme and host of an absolute URL. `None` if it is none.
fn without_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    // User names in URLs are refused, not ignored: they serve only to disguise a host.
    let sound = !authority.is_empty() && super::framing::is_host(authority.as_bytes());
    sound.then_some(rest)
}

fn root_if_empty(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}
