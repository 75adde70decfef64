//! Limits of the client-facing wire: every number that a stranger could otherwise choose.
//!
//! A limit is a field with a default and a reason. The server may take other values from its
//! configuration; the parsers never look anything up by themselves.
//!
//! Laws
//! - Whatever a client sends, what is held for it before it is understood has a bound here.
//! - A limit that is passed is an answer (414, 431, 400 or the whole file), never a truncation.
//!
//! Source: RFC 9110 §2.3 and §14.2, RFC 9112 §3 and §7.1.

/// Bytes of a request line, without its CRLF.
///
/// 16 KiB: the archive token in a query lists file names, and 8 KiB (what the original proxy
/// and most servers allow) holds about a hundred of them.
pub const REQUEST_LINE_BYTES_MAX: usize = 16 * 1024;

/// Bytes of one header line, without its CRLF.
///
/// 8,190: the limit of the original proxy's HTTP library, so no client depends on more.
pub const HEADER_LINE_BYTES_MAX: usize = 8190;

/// Header lines of one request. 100: browsers send about 25, and proxies add a handful.
pub const HEADERS_COUNT_MAX: usize = 100;

/// Bytes of a whole head, with every CRLF.
///
/// 32 KiB: the longest request line, a full header line, and room for ordinary ones.
/// It bounds the memory of a connection that has not yet said what it wants.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Bytes of chunk extensions over a whole body.
///
/// 16 KiB: nobody sends extensions, but whoever does may send a signature or two. Counted over
/// the body, because one byte of data in every chunk would pass any bound per chunk.
pub const CHUNK_EXTENSION_BYTES_MAX: u64 = 16 * 1024;

/// Bytes of a whole trailer section. 8 KiB: checksums and signatures fit many times.
pub const TRAILER_BYTES_MAX: u64 = 8 * 1024;

/// Ranges in one `Range` header.
///
/// 100: readers of columnar and array formats ask for dozens at once; each costs the server
/// one part head and one read.
pub const RANGES_COUNT_MAX: usize = 100;

/// Ranges of one request that may overlap an earlier one. 2: RFC 9110 §14.2 names "more than
/// two overlapping ranges" as a sign of a broken client or of an attack.
pub const RANGES_OVERLAPPING_MAX: usize = 2;

/// Unknown query keys that one answer names. 32: a request line holds thousands of them, and
/// each would come back as 25 bytes of error text.
pub const UNKNOWN_KEYS_REPORTED_MAX: usize = 32;

/// Limits of a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Longest request line in bytes; longer is 414.
    pub request_line_bytes_max: usize,
    /// Longest header line in bytes; longer is 431.
    pub header_line_bytes_max: usize,
    /// Most header lines; more is 431.
    pub headers_count_max: usize,
    /// Largest head in bytes; larger is 431.
    pub head_bytes_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            request_line_bytes_max: REQUEST_LINE_BYTES_MAX,
            header_line_bytes_max: HEADER_LINE_BYTES_MAX,
            headers_count_max: HEADERS_COUNT_MAX,
            head_bytes_max: HEAD_BYTES_MAX,
        }
    }
}

/// Limits of the parts of a chunked body that are not data. Passing one ends the body with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Most bytes of chunk extensions over the whole body.
    pub extension_bytes_max: u64,
    /// Most bytes of the trailer section.
    pub trailer_bytes_max: u64,
}

impl Default for ChunkLimits {
    fn default() -> Self {
        Self {
            extension_bytes_max: CHUNK_EXTENSION_BYTES_MAX,
            trailer_bytes_max: TRAILER_BYTES_MAX,
        }
    }
}

/// Limits of a `Range` header. Passing one sends the whole file, as RFC 9110 §14.2 allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeLimits {
    /// Most ranges in one header.
    pub ranges_count_max: usize,
    /// Most ranges that overlap an earlier one of the same header.
    pub ranges_overlapping_max: usize,
}

impl Default for RangeLimits {
    fn default() -> Self {
        Self {
            ranges_count_max: RANGES_COUNT_MAX,
            ranges_overlapping_max: RANGES_OVERLAPPING_MAX,
        }
    }
}

const _: () = assert!(REQUEST_LINE_BYTES_MAX + HEADER_LINE_BYTES_MAX < HEAD_BYTES_MAX);
