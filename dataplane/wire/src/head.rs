//! Request heads: from received bytes to a request that is safe to act on.
//!
//! Strict on purpose. A proxy in front of this server and the server itself must never disagree
//! about where a request ends; whatever two readers of RFC 9112 could read in two ways is
//! refused.
//!
//! Laws
//! - Lines end in CRLF. A bare CR or LF, a folded line, a blank before a colon, a control
//!   character: 400. One empty line before the request line is skipped, not two.
//! - `Content-Length` stands at most once, even when a repetition would agree, and never beside
//!   `Transfer-Encoding`. The only transfer coding is `chunked`.
//! - HTTP/1.1 needs exactly one well-formed `Host`; HTTP/1.0 may have none, not two.
//! - The verdict does not depend on how the bytes were cut: a prefix of a good head is
//!   [`Parsed::Partial`], and an error on a prefix is the error of every continuation.
//!
//! Source: RFC 9110 §4-7, §10; RFC 9112 §2-6, §9, §11.

mod fields;
mod framing;
mod headers;
mod scan;
mod target;

pub use crate::limits::HeadLimits;
pub use fields::{Pseudo, from_fields, is_of_a_connection};
pub use framing::Framing;
pub use headers::{Headers, Single};

/// What a look at the received bytes gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// No fault so far, and the empty line has not come yet. Read more and parse again.
    Partial,
    /// A whole head. The bytes after `consumed` belong to the body or to the next request.
    Complete {
        /// The request.
        head: RequestHead,
        /// Bytes of the buffer that the head took, an empty line before it included.
        consumed: usize,
    },
}

/// One request, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method; letter case counts.
    pub method: Method,
    /// The path as sent, still percent-encoded, without query. Begins with `/`, or is `*`.
    ///
    /// For an absolute-form target this is the path of that URL.
    pub path: String,
    /// What stood after the first `?`, as sent. `None` without a `?`, `Some("")` after a bare one.
    pub query: Option<String>,
    /// The protocol version.
    pub version: Version,
    /// All header fields, in order.
    pub headers: Headers,
    /// How the body is delimited.
    pub framing: Framing,
    /// The client waits for a 100 before it sends the body.
    ///
    /// `false` for HTTP/1.0 and when no body was announced: then a 100 must not be sent.
    pub expect_continue: bool,
    /// The client lets the connection live after this request.
    pub keep_alive: bool,
}

/// A request method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `OPTIONS`
    Options,
    /// `PATCH`
    Patch,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// Any other token.
    Other(String),
}

impl Method {
    /// Reads a method. `token` must have been checked to be one.
    pub(crate) fn from_token(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            "PATCH" => Self::Patch,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The method as on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Other(other) => other,
        }
    }
}

/// A protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2: what is said about connections and framing in text is not said there.
    Http2,
}

/// Why a head was refused. After any of these the connection must be closed: where the next
/// request would begin is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// The request line passed its limit.
    RequestLineTooLong,
    /// A header line passed its limit.
    HeaderLineTooLong,
    /// More header lines than allowed.
    TooManyHeaders,
    /// The head as a whole passed its limit.
    HeadTooLarge,
    /// A CR without LF, or an LF without CR.
    LineEnding,
    /// Not a method; also what anything but HTTP looks like, such as a TLS greeting.
    Method,
    /// The request line is not `method SP target SP version`.
    RequestLine,
    /// A well-formed version that is not spoken here.
    Version,
    /// The target is none of path, absolute URL and `*`, or has forbidden characters.
    Target,
    /// A header line that continues the one before it.
    Folded,
    /// A header name that is not a token, or a blank before the colon.
    HeaderName,
    /// A control character in a header value.
    HeaderValue,
    /// HTTP/1.1 without `Host`.
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// `Host` is not a host with an optional port.
    HostInvalid,
    /// `Content-Length` is not a decimal number below 2^64.
    LengthInvalid,
    /// More than one `Content-Length`.
    LengthRepeated,
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthWithEncoding,
    /// `Transfer-Encoding` in HTTP/1.0.
    EncodingInOldVersion,
    /// `Transfer-Encoding` does not end in a single `chunked`: the end of the body is unknown.
    EncodingNotChunked,
    /// A transfer coding before `chunked`.
    EncodingUnsupported,
    /// A field about the connection where the protocol has none: HTTP/2.
    OfAConnection,
}

impl HeadError {
    /// The status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::RequestLineTooLong => 414,
            Self::HeaderLineTooLong | Self::TooManyHeaders | Self::HeadTooLarge => 431,
            Self::EncodingUnsupported => 501,
            Self::Version => 505,
            Self::LineEnding
            | Self::Method
            | Self::RequestLine
            | Self::Target
            | Self::Folded
            | Self::HeaderName
            | Self::HeaderValue
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::LengthInvalid
            | Self::LengthRepeated
            | Self::LengthWithEncoding
            | Self::EncodingInOldVersion
            | Self::EncodingNotChunked
            | Self::OfAConnection => 400,
        }
    }

    /// What is wrong, in words for the client.
    pub const fn text(self) -> &'static str {
        match self {
            Self::RequestLineTooLong => "request line too long",
            Self::HeaderLineTooLong => "header line too long",
            Self::TooManyHeaders => "too many header lines",
            Self::HeadTooLarge => "request head too large",
            Self::LineEnding => "line does not end in CRLF",
            Self::Method => "invalid method",
            Self::RequestLine => "invalid request line",
            Self::Version => "unsupported protocol version",
            Self::Target => "invalid request target",
            Self::Folded => "folded header line",
            Self::HeaderName => "invalid header name",
            Self::HeaderValue => "invalid header value",
            Self::HostMissing => "host header missing",
            Self::HostRepeated => "host header repeated",
            Self::HostInvalid => "invalid host header",
            Self::LengthInvalid => "invalid content-length",
            Self::LengthRepeated => "content-length repeated",
            Self::LengthWithEncoding => "content-length beside transfer-encoding",
            Self::EncodingInOldVersion => "transfer-encoding in HTTP/1.0",
            Self::EncodingNotChunked => "transfer-encoding does not end in chunked",
            Self::EncodingUnsupported => "unsupported transfer coding",
            Self::OfAConnection => "connection-specific header",
        }
    }
}

impl std::fmt::Display for HeadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for HeadError {}

/// Reads one request head from the start of `buf`.
///
/// Shape: `buf` holds everything received and not yet consumed. Call it again with more bytes
/// after [`Parsed::Partial`]; it keeps no state, and `buf` need never grow past
/// `limits.head_bytes_max` plus 4 bytes.
///
/// # Errors
/// Any [`HeadError`]: answer with its status, then close.
pub fn parse(buf: &[u8], limits: &HeadLimits) -> Result<Parsed, HeadError> {
    let Some(skipped) = scan::leading_empty_line(buf) else {
        return Ok(Parsed::Partial);
    };
    let buf = &buf[skipped..];
    let Some(first) = scan::request_line(buf, limits)? else {
        return Ok(Parsed::Partial);
    };
    let line = target::RequestLine::parse(first.content)?;
    let Some(block) = scan::header_block(buf, first.next, limits)? else {
        return Ok(Parsed::Partial);
    };
    let headers = Headers::from_block(&buf[first.next..block.end], block.lines_count)?;
    let head = assemble(&line, headers)?;
    Ok(Parsed::Complete {
        head,
        consumed: skipped + block.end,
    })
}

/// Puts the parts together and applies the rules that need several of them.
fn assemble(line: &target::RequestLine<'_>, headers: Headers) -> Result<RequestHead, HeadError> {
    framing::check_host(&headers, line.version)?;
    let framing = Framing::of(&headers, line.version)?;
    let expect_continue = framing.has_body()
        && line.version == Version::Http11
        && headers
            .get_all("expect")
            .any(|value| value.eq_ignore_ascii_case(b"100-continue"));
    let keep_alive = framing::keep_alive(&headers, line.version);
    Ok(RequestHead {
        method: Method::from_token(line.method),
        path: line.path.to_owned(),
        query: line.query.map(str::to_owned),
        version: line.version,
        headers,
        framing,
        expect_continue,
        keep_alive,
    })
}

/// Characters of a token: methods, header names, codings (RFC 9110 §5.6.2).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[byte as usize]
}

/// [`is_token_byte`] as a table: a head has hundreds of such bytes.
const TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_tchar(byte as u8);
        byte += 1;
    }
    table
};

const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Whether `bytes` is a token: one or more token characters.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// `bytes` without optional blanks at both ends.
pub(crate) fn trim_blanks(bytes: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(first) = bytes.iter().position(|byte| !is_blank(byte)) else {
        return &[];
    };
    let last = bytes
        .iter()
        .rposition(|byte| !is_blank(byte))
        .unwrap_or(first);
    &bytes[first..=last]
}
