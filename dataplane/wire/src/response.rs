//! Response heads, as bytes.
//!
//! Laws
//! - One header line per header pushed, in that order, spelled as pushed.
//! - No value can end its line: control characters become blanks (RFC 9110 §5.5). Names are
//!   literals of this program.
//! - Nothing is added in secret. `Date`, `Server` and `Connection` are pushed like the others.
//!
//! Source: RFC 9112 §4, §9.3; RFC 9110 §6.4.1, §15.

use crate::head::{Method, Version, is_token};

/// The whole answer to `Expect: 100-continue`, to be followed by the real one.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Status and header fields of one response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    status: u16,
    headers: Vec<(&'static str, Vec<u8>)>,
}

impl ResponseHead {
    /// A head with `status` and no headers.
    ///
    /// # Panics
    /// If `status` has not three digits.
    pub fn new(status: u16) -> Self {
        assert!((100..=999).contains(&status), "status {status}");
        Self {
            status,
            headers: Vec::new(),
        }
    }

    /// The status.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Adds a header behind the others, and gives the head back for the next one.
    ///
    /// # Panics
    /// If `name` is not a token.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.push(name, value);
        self
    }

    /// Adds a header behind the others.
    ///
    /// # Panics
    /// If `name` is not a token.
    pub fn push(&mut self, name: &'static str, value: impl Into<Value>) {
        assert!(is_token(name.as_bytes()), "header name {name:?}");
        self.headers.push((name, value.into().0));
    }

    /// Adds several headers behind the others.
    ///
    /// # Panics
    /// If a name is not a token.
    pub fn extend<V: Into<Value>>(&mut self, headers: impl IntoIterator<Item = (&'static str, V)>) {
        for (name, value) in headers {
            self.push(name, value);
        }
    }

    /// Adds `Date` and `Server`. `date` is what [`crate::date::format`] made of now; the caller
    /// makes it once a second for all connections.
    #[must_use]
    pub fn stamped(self, date: &str, server: &'static str) -> Self {
        self.with("Date", date).with("Server", server)
    }

    /// Adds what the client must know about the connection: nothing where the version's default
    /// says it already.
    #[must_use]
    pub fn connection(self, asked_in: Version, keep_alive: bool) -> Self {
        match (keep_alive, asked_in) {
            (false, _) => self.with("Connection", "close"),
            (true, Version::Http10) => self.with("Connection", "keep-alive"),
            (true, Version::Http11) => self,
        }
    }

    /// The first value of `name`, in any letter case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .headers
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }

    /// The names in order, as they will be written.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.headers.iter().map(|(name, _)| *name)
    }

    /// Appends the head to `out`, the empty line included.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.reserve(
            64 + self
                .headers
                .iter()
                .map(|(n, v)| n.len() + v.len() + 4)
                .sum::<usize>(),
        );
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(self.status.to_string().as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in &self.headers {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend(value.iter().map(|byte| harmless(*byte)));
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A header value: text, bytes or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(Vec<u8>);

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self(number.to_string().into_bytes())
    }
}

/// Whether an answer of `status` to `method` carries a body.
///
/// Where it does not, the bytes after the head belong to the next answer, whatever
/// `Content-Length` says.
pub const fn has_body(method: &Method, status: u16) -> bool {
    !matches!(method, Method::Head) && !matches!(status, 100..=199 | 204 | 304)
}

/// The standard reason phrase; empty for a status that has none here.
pub const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// `byte`, or a blank where it could end the line or hide something.
const fn harmless(byte: u8) -> u8 {
    match byte {
        b'\t' | b' '..=b'~' | 0x80.. => byte,
        _ => b' ',
    }
}
