//! `Content-Disposition`: what a browser shall call the file.
//!
//! Laws
//! - The value is one line of printable ASCII, whatever the name.
//! - The quoted part can be neither left nor broken by a name.
//!
//! Differs from the original: control characters become `_` in the quoted part, where the
//! original sent them or closed the connection; backslashes in front of a quote or of the end
//! are doubled, where the original let the name end the quoted part early.
//!
//! Source: RFC 6266; the original's form, blanks included.

use std::fmt::Write as _;

/// Makes `attachment;filename="…"; filename*=UTF-8''…` for `name`.
///
/// Shape: `name` is one file name, any bytes. What is no UTF-8 appears as U+FFFD in the second
/// form and not at all in the first.
pub fn attachment(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut value = String::from("attachment;filename=\"");
    push_quoted(&name, &mut value);
    value.push_str("\"; filename*=UTF-8''");
    push_percent_encoded(&name, &mut value);
    value
}

/// The ASCII characters of `name`, for between quotes.
fn push_quoted(name: &str, value: &mut String) {
    let mut backslashes_count = 0_usize;
    for letter in name.chars().filter(char::is_ascii) {
        if letter == '"' {
            value.extend(std::iter::repeat_n('\\', backslashes_count + 1));
        }
        backslashes_count = if letter == '\\' {
            backslashes_count + 1
        } else {
            0
        };
        value.push(if letter.is_ascii_control() {
            '_'
        } else {
            letter
        });
    }
    value.extend(std::iter::repeat_n('\\', backslashes_count));
}

/// UTF-8, percent-encoded, with the original's set of characters that stay.
fn push_percent_encoded(name: &str, value: &mut String) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'~' | b'/') {
            value.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(value, "%{byte:02X}");
        }
    }
}
