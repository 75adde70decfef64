//! What happens to the bytes of a body: counted, kept, or compared with what they should be.

use std::fs::File;
use std::io::Write as _;

use crate::call::Content;
use crate::content::Pattern;
use crate::fixture::Fixture;

/// Most bytes of an answer that are kept.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Where the bytes of one body go.
#[derive(Debug)]
pub enum Sink {
    /// Counted; need not be seen.
    Discard,
    /// Kept for the exchange.
    Keep(Vec<u8>),
    /// Compared.
    File {
        /// What they should be.
        pattern: Pattern,
        /// Position in the file.
        at: u64,
    },
    /// Kept in a file, to be unpacked at the end.
    Archive(File),
}

impl Sink {
    /// The right one for an answer.
    ///
    /// # Errors
    /// No room for a file.
    pub fn new(content: &Content, fixture: &Fixture, verify: bool) -> Result<Self, String> {
        Ok(match content {
            Content::Kept => Self::Keep(Vec::new()),
            Content::File { file, from, .. } if verify => Self::File {
                pattern: Pattern::of(&fixture.file(*file).name),
                at: *from,
            },
            Content::Archive { .. } if verify => {
                let file = tempfile::tempfile_in(&fixture.root);
                Self::Archive(file.map_err(|error| error.to_string())?)
            }
            Content::File { .. } | Content::Archive { .. } => Self::Discard,
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// They are not what they should be.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Self::Discard => {}
            Self::Keep(kept) => {
                let room = KEPT_BYTES_MAX.saturating_sub(kept.len());
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Self::File { pattern, at } => {
                if let Some(place) = pattern.mismatch(*at, bytes) {
                    return Err(format!("wrong byte at {place}"));
                }
                *at += bytes.len() as u64;
            }
            Self::Archive(file) => file.write_all(bytes).map_err(|error| error.to_string())?,
        }
        Ok(())
    }
}

/// Whether a body of `got` bytes is what was asked for.
///
/// # Errors
/// Both lengths.
pub fn length(content: &Content, got: u64) -> Result<(), String> {
    let (want, fits) = match content {
        Content::Kept => return Ok(()),
        Content::File { len, .. } => (*len, got == *len),
        Content::Archive { bytes_min } => (*bytes_min, *bytes_min <= got),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("{got} bytes instead of {want}"))
    }
}
