//! The engine and its buffers as the disk that the transfer machines know.

use std::io;

use proxy_core::units::{ByteLen, Offset};
use proxy_transfer::{Buffer, Disk, Partial};

use crate::buffer::{Lease, Pool};
use crate::engine::{FileRef, Ring};

/// The files of one data-plane thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Files {
    /// Moves the bytes.
    pub ring: Ring,
    /// What they travel in.
    pub pool: Pool,
}

impl Buffer for Lease {
    fn capacity(&self) -> usize {
        Lease::capacity(self)
    }

    fn as_slice(&self) -> &[u8] {
        Lease::as_slice(self)
    }

    fn clear(&mut self) {
        Lease::clear(self);
    }
}

impl Disk for Files {
    type File = FileRef;
    type Buf = Lease;

    async fn buffer(&self) -> Lease {
        self.pool.lease().await
    }

    async fn read_at(
        &self,
        file: &FileRef,
        buf: Lease,
        at: Offset,
        want: usize,
    ) -> (io::Result<usize>, Lease) {
        self.ring.read_at(file, buf, at.get(), want).await
    }

    async fn write_at(
        &self,
        file: &FileRef,
        buf: Lease,
        at: Offset,
    ) -> (Result<usize, Partial>, Lease) {
        self.ring.write_at(file, buf, at.get()).await
    }

    async fn sync(&self, file: &FileRef) -> io::Result<()> {
        self.ring.sync(file).await
    }

    async fn reserve(&self, file: &FileRef, at: Offset, len: ByteLen) -> io::Result<()> {
        self.ring.allocate(file, at.get(), len.get()).await
    }
}
