//! Conditional requests: whether to send the file, and whether its range.
//!
//! Laws
//! - Order: `If-Match`, else `If-Unmodified-Since`; then `If-None-Match`, else
//!   `If-Modified-Since`; then `If-Range`.
//! - A modification time counts with its nanoseconds, a date is a whole second. Because
//!   `Last-Modified` is rounded up, a date that a client got from us is never before the file.
//! - A date that cannot be read, or that came twice, is as if it had not come; except in
//!   `If-Range`, where anything that is not certainly this version means the whole file.
//! - `Range` is for GET: with any other method no range is honoured.
//!
//! Differs from the original: an entity tag in `If-Range` is compared (strongly). The original
//! ignored it and sent the range, so that two versions could be stitched into one file.
//!
//! Source: RFC 9110 §13 and §14.2.

use crate::date;
use crate::etag::{self, Tag};
use crate::head::{Headers, Method, Single};

/// The modification time of what has none: no date of a client says anything about it.
pub const MTIME_NONE_S: i64 = i64::MAX;

/// What is known of the file that would be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Representation<'a> {
    /// Its strong entity tag, with quotes: see [`etag::make`].
    pub etag: &'a str,
    /// Modification time, full seconds since 1970, or [`MTIME_NONE_S`].
    pub mtime_s: i64,
    /// Modification time, nanoseconds beyond `mtime_s`; below 1,000,000,000.
    pub mtime_ns: u32,
    /// Size in bytes. No condition looks at it; it travels along for the range.
    pub size: u64,
}

impl Representation<'_> {
    /// Whether the file has not changed since `date_s`.
    fn unmodified_since(&self, date_s: i64) -> bool {
        (self.mtime_s, self.mtime_ns) <= (date_s, 0)
    }
}

/// What the conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send it: 200, or 206 by `Range` if `honour_range`.
    Proceed {
        /// Whether a `Range` header counts.
        honour_range: bool,
    },
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Evaluates the conditions of a request for a file that exists.
pub fn evaluate(headers: &Headers, file: &Representation<'_>, method: &Method) -> Outcome {
    if !precondition_holds(headers, file) {
        return Outcome::PreconditionFailed;
    }
    let is_read = matches!(method, Method::Get | Method::Head);
    match cached_copy_is_fresh(headers, file, is_read) {
        true if is_read => Outcome::NotModified,
        true => Outcome::PreconditionFailed,
        false => Outcome::Proceed {
            honour_range: *method == Method::Get && range_is_of_this_version(headers, file),
        },
    }
}

/// `If-Match`, else `If-Unmodified-Since`.
fn precondition_holds(headers: &Headers, file: &Representation<'_>) -> bool {
    if headers.get("if-match").is_some() {
        let matches = |tag: &Tag<'_>| tag.matches_strong(file.etag);
        return etag::any_matches(headers.get_all("if-match"), matches);
    }
    match date_of(headers, "if-unmodified-since") {
        Some(date_s) => file.mtime_s == MTIME_NONE_S || file.unmodified_since(date_s),
        None => true,
    }
}

/// `If-None-Match`, else `If-Modified-Since`, which is only for reading.
fn cached_copy_is_fresh(headers: &Headers, file: &Representation<'_>, is_read: bool) -> bool {
    if headers.get("if-none-match").is_some() {
        let matches = |tag: &Tag<'_>| tag.matches_weak(file.etag);
        return etag::any_matches(headers.get_all("if-none-match"), matches);
    }
    match date_of(headers, "if-modified-since") {
        Some(date_s) => is_read && file.unmodified_since(date_s),
        None => false,
    }
}

/// `If-Range`: an entity tag or a date.
fn range_is_of_this_version(headers: &Headers, file: &Representation<'_>) -> bool {
    let value = match headers.single("if-range") {
        Single::Absent => return true,
        Single::Repeated => return false,
        Single::One(value) => value,
    };
    if let Some(tag) = Tag::parse(value) {
        return tag.matches_strong(file.etag);
    }
    date::parse(value).is_some_and(|date_s| file.unmodified_since(date_s))
}

fn date_of(headers: &Headers, name: &str) -> Option<i64> {
    match headers.single(name) {
        Single::One(value) => date::parse(value),
        Single::Absent | Single::Repeated => None,
    }
}
