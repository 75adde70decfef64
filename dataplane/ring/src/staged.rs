//! Files that uploads land in: past the page cache where that is possible, through it where not.
//!
//! Direct I/O spares the copy into the page cache, its memory, and the wait in the sync for what
//! it has not written yet. It wants whole blocks: what does not begin and end on one goes through
//! the page cache by a second descriptor of the same file.
//!
//! Laws
//! - A stride is written by one of the two ways at a time: the kernel keeps them coherent only
//!   one after the other.
//! - One sync makes both durable: they are the same inode.
//!
//! Source: open(2) O_DIRECT; kernel Documentation/filesystems/ext4/dio, 2.6.10.

use std::io;
use std::sync::Arc;

use proxy_core::units::{ByteLen, Offset};
use proxy_transfer::{Disk, Partial};

use crate::buffer::{ALIGN_BYTES, Lease};
use crate::disk::Files;
use crate::engine::FileRef;

/// A file open for writing, perhaps also past the page cache. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StagedFile {
    plain: FileRef,
    /// The same file, O_DIRECT.
    direct: Option<FileRef>,
}

impl StagedFile {
    /// `direct` is a second descriptor of the same file that was opened with O_DIRECT.
    pub fn new(plain: FileRef, direct: Option<FileRef>) -> Self {
        Self { plain, direct }
    }

    /// The descriptor that goes through the page cache.
    pub fn plain(&self) -> &FileRef {
        &self.plain
    }

    /// The way for `len` bytes at `at`.
    fn way(&self, at: u64, len: usize) -> &FileRef {
        let whole = |bytes: u64| bytes.is_multiple_of(ALIGN_BYTES as u64);
        match &self.direct {
            Some(direct) if whole(at) && whole(len as u64) => direct,
            _ => &self.plain,
        }
    }
}

/// The disk as uploads see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Staging(pub Files);

impl Disk for Staging {
    type File = StagedFile;
    type Buf = Lease;

    async fn buffer(&self) -> Lease {
        self.0.buffer().await
    }

    fn stride(&self, file: &StagedFile) -> ByteLen {
        let bytes = if file.direct.is_some() {
            ALIGN_BYTES
        } else {
            1
        };
        ByteLen::new(bytes as u64)
    }

    async fn read_at(
        &self,
        file: &StagedFile,
        buf: Lease,
        at: Offset,
        want: usize,
    ) -> (io::Result<usize>, Lease) {
        self.0.read_at(&file.plain, buf, at, want).await
    }

    async fn write_at(
        &self,
        file: &StagedFile,
        buf: Lease,
        at: Offset,
    ) -> (Result<usize, Partial>, Lease) {
        let way = file.way(at.get(), buf.filled());
        let (outcome, buf) = self.0.write_at(way, buf, at).await;
        match outcome {
            // This file system takes O_DIRECT at open and refuses it at the write.
            Err(Partial { written: 0, error })
                if error.raw_os_error() == Some(EINVAL) && !Arc::ptr_eq(way, &file.plain) =>
            {
                self.0.write_at(&file.plain, buf, at).await
            }
            outcome => (outcome, buf),
        }
    }

    async fn sync(&self, file: &StagedFile) -> io::Result<()> {
        self.0.sync(&file.plain).await
    }

    async fn reserve(&self, file: &StagedFile, at: Offset, len: ByteLen) -> io::Result<()> {
        self.0.reserve(&file.plain, at, len).await
    }
}

const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();
