//! What commands print: results on standard output, everything else on standard error.
//!
//! A reader that went away (`ls | head -1`) is no failure, so write errors are dropped.

use std::io::{self, Write as _};

use serde_json::Value;

/// One line, or several, of a result.
pub fn line(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Text that ends in a newline already.
pub fn text(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A result for programs.
pub fn json(value: &Value) {
    line(&format!("{value:#}"));
}

/// Why a command failed.
pub fn error(text: &str) {
    let _ = writeln!(io::stderr().lock(), "storage-proxy: {text}");
}
