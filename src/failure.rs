//! How a command ends when it does not end well.

use std::fmt;
use std::io;
use std::path::Path;

/// Text for standard error and an exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// 1 or 2, see the crate.
    pub code: u8,
    /// One or more lines without a trailing newline.
    pub text: String,
}

impl Failure {
    /// Something did not work.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            code: 1,
            text: text.into(),
        }
    }

    /// The command was not used as it is meant.
    pub fn usage(text: impl Into<String>) -> Self {
        Self {
            code: 2,
            text: text.into(),
        }
    }

    /// A file or directory refused an operation.
    pub fn at(verb: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(format!("{verb} {}: {}", path.display(), plain(error)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The text of an I/O error without the number that Rust appends.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    let mut text = text[..end].to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}
