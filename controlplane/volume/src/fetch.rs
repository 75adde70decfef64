//! Reading a file of a vfolder piece by piece, with one piece in memory.
//!
//! The caller asks for the next piece when it has got rid of the last: a slow client costs one
//! piece, not the size of its file.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use proxy_core::units::KIB;
use rustix::io::{pread, retry_on_intr};

use crate::bulkhead::Bulkhead;
use crate::error::VolumeError;

/// Bytes per piece: few enough for many readers, many enough to make the thread switch small.
pub const PIECE_BYTES: usize = 256 * KIB as usize;

/// A regular file open for reading, and how far it was read.
#[derive(Debug)]
pub struct Fetch {
    source: Option<(Arc<OwnedFd>, Arc<Bulkhead>)>,
    at: u64,
    size: u64,
}

impl Fetch {
    pub(crate) fn new(file: OwnedFd, size: u64, lanes: Arc<Bulkhead>) -> Self {
        Self {
            source: Some((Arc::new(file), lanes)),
            at: 0,
            size,
        }
    }

    pub(crate) fn empty() -> Self {
        Self {
            source: None,
            at: 0,
            size: 0,
        }
    }

    /// Bytes of the file when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next 1..=[`PIECE_BYTES`] bytes; `None` at the end of the file.
    ///
    /// # Errors
    /// Those of the disk; the caller must not pretend that the file ends here.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, VolumeError> {
        let Some((file, lanes)) = &self.source else {
            return Ok(None);
        };
        let (file, at) = (Arc::clone(file), self.at);
        let want = usize::try_from(self.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let want = want.clamp(1, PIECE_BYTES);
        let piece = lanes
            .short(move || {
                let mut piece = vec![0; want];
                let got = retry_on_intr(|| pread(&*file, &mut piece[..], at))
                    .map_err(|errno| VolumeError::os("read file", errno))?;
                piece.truncate(got);
                Ok(piece)
            })
            .await?;
        if piece.is_empty() {
            self.source = None;
            return Ok(None);
        }
        self.at += piece.len() as u64;
        Ok(Some(piece))
    }
}
