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
    /// Apart, because answers travel through many hands.
    fields: Box<Fields>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    /// Each name, and where its value ends in `values`; it begins where the one before ends.
    names: Vec<(&'static str, usize)>,
    values: Vec<u8>,
}

/// Room for the headers of an ordinary answer, so that they are laid out without growing.
const NAMES_USUAL: usize = 16;
const VALUE_BYTES_USUAL: usize = 384;

impl ResponseHead {
    /// A head with `status` and no headers.
    ///
    /// # Panics
    /// If `status` has not three digits.
    pub fn new(status: u16) -> Self {
        assert!((100..=999).contains(&status), "status {status}");
        Self {
            status,
            fields: Box::new(Fields {
                names: Vec::with_capacity(NAMES_USUAL),
                values: Vec::with_capacity(VALUE_BYTES_USUAL),
            }),
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
    pub fn with<'v>(mut self, name: &'static str, value: impl Into<Value<'v>>) -> Self {
        self.push(name, value);
        self
    }

    /// Adds a header behind the others.
    ///
    /// # Panics
    /// If `name` is not a token.
    pub fn push<'v>(&mut self, name: &'static str, value: impl Into<Value<'v>>) {
        assert!(is_token(name.as_bytes()), "header name {name:?}");
        let Fields { names, values } = &mut *self.fields;
        match value.into() {
            Value::Text(bytes) => push_harmless(values, bytes),
            Value::Owned(bytes) => push_harmless(values, &bytes),
            Value::Number(number) => push_decimal(values, number),
        }
        names.push((name, values.len()));
    }

    /// Adds several headers behind the others.
    ///
    /// # Panics
    /// If a name is not a token.
    pub fn extend<'v, V: Into<Value<'v>>>(
        &mut self,
        headers: impl IntoIterator<Item = (&'static str, V)>,
    ) {
        for (name, value) in headers {
            self.push(name, value);
        }
    }

    /// The same head with another status.
    ///
    /// # Panics
    /// As [`ResponseHead::new`].
    #[must_use]
    pub fn restated(mut self, status: u16) -> Self {
        assert!((100..=999).contains(&status), "status {status}");
        self.status = status;
        self
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
            (true, Version::Http11 | Version::Http2) => self,
        }
    }

    /// The first value of `name`, in any letter case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The names in order, as they will be written.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.names.iter().map(|(name, _)| *name)
    }

    /// Names and values in order, as they will be written.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let mut start = 0;
        self.fields.names.iter().map(move |&(name, end)| {
            let value = &self.fields.values[start..end];
            start = end;
            (name, value)
        })
    }

    /// Appends the head to `out`, the empty line included.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let names_bytes: usize = self
            .fields
            .names
            .iter()
            .map(|(name, _)| name.len() + 4)
            .sum();
        out.reserve(64 + names_bytes + self.fields.values.len());
        out.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(out, u64::from(self.status));
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in self.iter() {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends the digits of `number`.
fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A header value: text, bytes or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'v> {
    /// Borrowed bytes.
    Text(&'v [u8]),
    /// Bytes made for this.
    Owned(Vec<u8>),
    /// Decimal digits.
    Number(u64),
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text.as_bytes())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Owned(text.into_bytes())
    }
}

impl<'v> From<&'v [u8]> for Value<'v> {
    fn from(bytes: &'v [u8]) -> Self {
        Self::Text(bytes)
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
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
        104 => "Upload Resumption Supported",
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
        423 => "Locked",
        431 => "Request Header Fields Too Large",
        460 => "Checksum Mismatch",
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

/// Appends `bytes`, with blanks where one could end the line or hide something.
fn push_harmless(out: &mut Vec<u8>, bytes: &[u8]) {
    let is_harmful = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    let start = out.len();
    out.extend_from_slice(bytes);
    // Without an early end, so that the compiler can look at many bytes at a time.
    if bytes.iter().fold(false, |any, byte| any | is_harmful(byte)) {
        for byte in out[start..].iter_mut().filter(|byte| is_harmful(byte)) {
            *byte = b' ';
        }
    }
}
