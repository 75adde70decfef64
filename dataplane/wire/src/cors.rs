//! Cross-origin headers, which decide whether a browser may see an answer at all.
//!
//! Laws
//! - `/`, `/download` and `/download-archive` allow every origin, by echoing it, with
//!   credentials; `/upload` allows every origin with a fixed set of headers.
//! - The headers stand on errors too: without them a browser reports "network error" and hides
//!   the status.
//! - What is echoed into a header is a token or goes through [`crate::response`], which lets no
//!   value end its line.
//!
//! Differs from the original: `Vary: Origin` (the echo makes answers differ by origin, caches
//! must know), `Access-Control-Max-Age` (fewer preflights), and headers on every answer of
//! `/upload`, where the original left them off errors.
//!
//! Source: WHATWG Fetch, CORS protocol; the original's answers.

use std::collections::BTreeSet;

use crate::head::{Headers, is_token, trim_blanks};
use crate::response::ResponseHead;

/// How long a browser may remember a preflight. 7,200 s: the most that Chromium accepts.
const MAX_AGE_S: &str = "7200";

/// Headers that scripts may read without being told; Fetch's list without `Content-Length`,
/// which the original names, and which old browsers hide.
const ALWAYS_READABLE: [&str; 6] = [
    "cache-control",
    "content-language",
    "content-type",
    "expires",
    "last-modified",
    "pragma",
];

/// The headers of every answer of `/upload`, errors and 405 included.
pub const UPLOAD_HEADERS: [(&str, &str); 4] = [
    ("Access-Control-Allow-Origin", "*"),
    (ALLOW_HEADERS, UPLOAD_ALLOWED),
    (
        "Access-Control-Expose-Headers",
        "Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset, Content-Type, Location, \
         Upload-Ranges, Upload-Expires, Upload-Concat, Upload-Complete, Upload-Limit, \
         Upload-Draft-Interop-Version, Tus-Version, Tus-Max-Size, Tus-Extension, \
         Tus-Checksum-Algorithm, Content-Range",
    ),
    ("Access-Control-Allow-Methods", "*"),
];

/// Name of the header that says which request headers are allowed.
pub const ALLOW_HEADERS: &str = "Access-Control-Allow-Headers";

const UPLOAD_ALLOWED: &str =
    "Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset, Content-Type";

/// Request headers of `/upload` that a preflight is granted when it asks for them, beside those
/// that it is granted in any case.
const UPLOAD_ALLOWED_MORE: [&str; 8] = [
    "Upload-Concat",
    "Upload-Checksum",
    "Upload-Defer-Length",
    "Upload-Complete",
    "Upload-Draft-Interop-Version",
    "Content-Range",
    "X-Requested-With",
    "X-Request-ID",
];

/// The value of `Access-Control-Allow-Headers` for an answer of `/upload`: the original's, and
/// what a preflight asks for and we know.
pub fn upload_allowed(headers: &Headers) -> String {
    let asked = requested_names(headers);
    let more = UPLOAD_ALLOWED_MORE.iter().filter(|name| {
        let mut names = asked.split(|byte| *byte == b',');
        names.any(|asked| asked.eq_ignore_ascii_case(name.as_bytes()))
    });
    let mut allowed = UPLOAD_ALLOWED.to_owned();
    for name in more {
        allowed.push_str(", ");
        allowed.push_str(name);
    }
    allowed
}

/// Why a preflight was refused: 403 with [`PreflightError::text`] as `text/plain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreflightError {
    /// No `Origin`.
    OriginMissing,
    /// No `Access-Control-Request-Method`, or one that is not a method.
    MethodMissing,
}

impl PreflightError {
    /// The status of the answer.
    pub const fn status(self) -> u16 {
        403
    }

    /// The body of the answer.
    pub const fn text(self) -> &'static str {
        match self {
            Self::OriginMissing => {
                "CORS preflight request failed: origin header is not specified in the request"
            }
            Self::MethodMissing => {
                "CORS preflight request failed: 'Access-Control-Request-Method' header is not \
                 specified"
            }
        }
    }
}

/// The headers of the 200 that grants a preflight (`OPTIONS`) on `/`, `/download` or
/// `/download-archive`; `Content-Length: 0` is for the caller.
///
/// # Errors
/// What the request lacks to be a preflight; 403.
pub fn preflight(headers: &Headers) -> Result<Vec<(&'static str, Vec<u8>)>, PreflightError> {
    let origin = headers.get("origin").ok_or(PreflightError::OriginMissing)?;
    let method = headers
        .get("access-control-request-method")
        .filter(|method| is_token(method))
        .ok_or(PreflightError::MethodMissing)?;
    let mut granted = vec![
        ("Access-Control-Allow-Origin", origin.to_vec()),
        ("Access-Control-Allow-Credentials", b"true".to_vec()),
        ("Access-Control-Allow-Methods", method.to_vec()),
    ];
    let names = requested_names(headers);
    if !names.is_empty() {
        granted.push(("Access-Control-Allow-Headers", names));
    }
    granted.push(("Access-Control-Max-Age", MAX_AGE_S.as_bytes().to_vec()));
    granted.push(("Vary", b"Origin".to_vec()));
    Ok(granted)
}

/// The names asked for: upper case, sorted, each once, joined by commas.
fn requested_names(headers: &Headers) -> Vec<u8> {
    let names: BTreeSet<Vec<u8>> = headers
        .get_all("access-control-request-headers")
        .flat_map(|line| line.split(|byte| *byte == b','))
        .map(trim_blanks)
        .filter(|name| is_token(name))
        .map(<[u8]>::to_ascii_uppercase)
        .collect();
    names.into_iter().collect::<Vec<_>>().join(&b","[..])
}

/// Adds the headers of an actual answer of `/`, `/download` or `/download-archive`, success or
/// error, except 405.
///
/// Shape: `origin` is the request's `Origin`; without one only `Vary` is added. `answer` has
/// all its other headers already, `Date` and `Server` included, because their names are listed.
pub fn expose(answer: &mut ResponseHead, origin: Option<&[u8]>) {
    if let Some(origin) = origin {
        let names: Vec<&str> = answer
            .names()
            .filter(|name| !is_always_readable(name))
            .collect();
        answer.push("Access-Control-Expose-Headers", names.join(","));
        answer.push("Access-Control-Allow-Origin", origin);
        answer.push("Access-Control-Allow-Credentials", "true");
    }
    answer.push("Vary", "Origin");
}

fn is_always_readable(name: &str) -> bool {
    ALWAYS_READABLE
        .iter()
        .any(|readable| name.eq_ignore_ascii_case(readable))
}
