//! Resumable Uploads for HTTP, interop version 8: headers, the interim answer, problems.
//!
//! Laws
//! - A request speaks this protocol if it says version 8 and does not speak tus.
//! - A structured field of another type counts as absent.
//!
//! Source: draft-ietf-httpbis-resumable-upload, sections 4 and 6 to 8.

use serde_json::{Value, json};

use crate::head::Headers;
use crate::response::ResponseHead;

/// Header by which a client says that it speaks a draft, in lower case for reading.
pub const INTEROP_LOWER: &str = "upload-draft-interop-version";
/// The same for answers.
pub const INTEROP: &str = "Upload-Draft-Interop-Version";
/// The version spoken.
pub const INTEROP_VERSION: &str = "8";
/// Header of completeness.
pub const UPLOAD_COMPLETE: &str = "Upload-Complete";
/// The same in lower case for reading.
pub const UPLOAD_COMPLETE_LOWER: &str = "upload-complete";
/// Header of limits.
pub const UPLOAD_LIMIT: &str = "Upload-Limit";
/// Media type of what is appended.
pub const PARTIAL_UPLOAD: &str = "application/partial-upload";

const PROBLEMS: &str = "https://iana.org/assignments/http-problem-types#";

/// Whether a request speaks this protocol.
pub fn speaks(headers: &Headers) -> bool {
    let version = headers.get(INTEROP_LOWER).map(<[u8]>::trim_ascii);
    version == Some(INTEROP_VERSION.as_bytes()) && headers.get("tus-resumable").is_none()
}

/// Reads a boolean.
pub fn parse_bool(value: &[u8]) -> Option<bool> {
    match value.trim_ascii() {
        b"?1" => Some(true),
        b"?0" => Some(false),
        _ => None,
    }
}

/// Writes a boolean.
pub const fn boolean(value: bool) -> &'static str {
    if value { "?1" } else { "?0" }
}

/// Whether a `Content-Type` is that of what is appended; parameters do not matter.
pub fn is_partial_upload(value: &[u8]) -> bool {
    let media = value.split(|byte| *byte == b';').next().unwrap_or_default();
    media
        .trim_ascii()
        .eq_ignore_ascii_case(PARTIAL_UPLOAD.as_bytes())
}

/// The value of [`UPLOAD_LIMIT`]; `max_age_s` only for an upload that exists.
pub fn limit(max_size: u64, max_age_s: Option<u64>) -> String {
    // Integers of structured fields have 15 digits.
    let max_size = max_size.min(999_999_999_999_999);
    match max_age_s {
        Some(age) => format!(
            "max-size={max_size}, max-age={}",
            age.min(999_999_999_999_999)
        ),
        None => format!("max-size={max_size}"),
    }
}

/// The interim answer to a creation: where the upload can be resumed.
pub fn interim(location: &str, limit: &str) -> ResponseHead {
    let clean = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).collect() };
    ResponseHead::new(104)
        .with("Location", clean(location))
        .with(UPLOAD_LIMIT, clean(limit))
        .with(INTEROP, INTEROP_VERSION)
}

/// The body of a 409: the client continues at the wrong place.
pub fn mismatching_offset(expected: u64, provided: u64) -> Value {
    json!({
        "type": format!("{PROBLEMS}mismatching-upload-offset"),
        "title": "offset from request does not match offset of resource",
        "expected-offset": expected,
        "provided-offset": provided,
    })
}

/// The body of a 400: nothing can be appended any more.
pub fn completed_upload() -> Value {
    json!({
        "type": format!("{PROBLEMS}completed-upload"),
        "title": "upload is already completed",
    })
}

/// The body of a 400: this is not the length of the upload.
pub fn inconsistent_length() -> Value {
    json!({
        "type": format!("{PROBLEMS}inconsistent-upload-length"),
        "title": "inconsistent length values for upload",
    })
}
