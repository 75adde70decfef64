//! Archives that are compressed while they are sent: no length, no ranges, fewer bytes.
//!
//! Laws
//! - Compressing takes milliseconds per block, so it runs on threads of its own, of lower
//!   priority than those that serve connections; how many archives are compressed at a time is
//!   limited.
//! - A block is compressed when the one before was sent: memory is one block and its outcome.
//! - What can not be finished is not ended: the chunked body breaks off, and so does a body that
//!   ends with its connection, by a reset.
//!
//! Source: RFC 1952, RFC 8878, RFC 9112 §7.1.

use std::cell::Cell;
use std::io::{self, Write as _};

use flate2::write::GzEncoder;
use proxy_core::units::{ByteLen, KIB, Offset};
use proxy_ring::{FileRef, Files, ThreadPool};
use proxy_transfer::Sink;
use proxy_transfer::archive::{self, Listed as _};
use proxy_transfer::download::pump;
use proxy_transfer::seam::SinkError;
use proxy_wire::query::Package;

use super::contents::Contents;
use super::deflate;

/// Bytes that are compressed at a time: a millisecond of work, against which handing it over
/// costs nothing.
const BLOCK_BYTES: usize = (256 * KIB) as usize;
/// Fast levels: who wants the smallest file does not want it while it is downloaded. Measured on
/// a program: gzip 3 makes 28 % of it at 160 MB/s (6: 27 % at 100), zstd 3 24 % at 390 MB/s.
pub(super) const DEFLATE_LEVEL: u32 = 3;
const ZSTD_LEVEL: i32 = 3;
/// Steps of politeness towards the threads that serve.
const NICENESS: i32 = 10;

/// A body without a length, on its way.
pub(super) struct Body<'s, S> {
    sink: &'s mut S,
    /// HTTP/1.1 marks the end of such a body, 1.0 by the end of the connection.
    chunked: bool,
}

impl<S: Sink<File = FileRef>> Body<'_, S> {
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.chunked {
            return self.sink.send(bytes, true).await;
        }
        // Copy: frame and bytes in one send; what was compressed is small.
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.sink.send(&chunk, true).await
    }

    async fn end(self) -> Result<(), SinkError> {
        let end: &[u8] = if self.chunked { b"0\r\n\r\n" } else { b"" };
        self.sink.send(end, false).await
    }
}

/// Sends `head` and the archive of `contents` as `package`.
pub(super) async fn send<S: Sink<File = FileRef>>(
    contents: &Contents<'_>,
    package: Package,
    chunked: bool,
    head: &[u8],
    sink: &mut S,
) -> Result<(), SinkError> {
    sink.send(head, true).await?;
    let mut body = Body { sink, chunked };
    let setup = &contents.thread.setup;
    let coder = match package {
        Package::TarGz => {
            let level = flate2::Compression::new(DEFLATE_LEVEL);
            Coder::Gzip(GzEncoder::new(Vec::new(), level))
        }
        Package::TarZst => zstd_coder().map_err(SinkError::Disk)?,
        Package::Zip | Package::ZipDeflate | Package::Tar => {
            deflate::send(contents, &mut body).await?;
            return body.end().await;
        }
    };
    let mut squeeze = Squeeze {
        body,
        coder: Some(coder),
        block: Vec::with_capacity(BLOCK_BYTES),
        threads: &setup.archives.threads,
        files: contents.thread.files.clone(),
    };
    let plan = contents.listing.plan();
    assert_eq!(plan.count(), contents.count());
    let whole = 0..plan.total_len().get();
    archive::send(contents, plan, whole, &[], &mut squeeze).await?;
    squeeze.finish().await?.end().await
}

/// Runs `job` on a thread that may compute.
pub(super) async fn run<T: Send + 'static>(
    threads: &ThreadPool,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SinkError> {
    let polite = move || {
        be_polite();
        job()
    };
    let gone = |_| SinkError::Disk(io::Error::other("compressing broke"));
    threads
        .run(polite)
        .await
        .map_err(gone)?
        .map_err(SinkError::Disk)
}

/// Lowers the priority of this thread, once.
fn be_polite() {
    thread_local! {
        static POLITE: Cell<bool> = const { Cell::new(false) };
    }
    if !POLITE.replace(true) {
        // Without it everything is as right, only less fair. On Linux it is the thread's own.
        let _ = rustix::process::nice(NICENESS);
    }
}

/// What compresses a stream.
enum Coder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

fn zstd_coder() -> io::Result<Coder> {
    let mut coder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    // So that a reader knows a damaged file.
    coder.include_checksum(true)?;
    Ok(Coder::Zstd(coder))
}

impl Coder {
    /// Takes a block, and gives what has come out so far.
    fn feed(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Gzip(coder) => {
                coder.write_all(block)?;
                std::mem::take(coder.get_mut())
            }
            Self::Zstd(coder) => {
                coder.write_all(block)?;
                std::mem::take(coder.get_mut())
            }
        })
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(coder) => coder.finish(),
            Self::Zstd(coder) => coder.finish(),
        }
    }
}

/// A sink that compresses.
struct Squeeze<'s, 't, S> {
    body: Body<'s, S>,
    /// `None` while a thread has it.
    coder: Option<Coder>,
    block: Vec<u8>,
    threads: &'t ThreadPool,
    files: Files,
}

impl<'s, S: Sink<File = FileRef>> Squeeze<'s, '_, S> {
    async fn press(&mut self) -> Result<(), SinkError> {
        let mut coder = self.coder.take().ok_or(SinkError::Truncated)?;
        let mut block = std::mem::take(&mut self.block);
        let job = move || {
            let out = coder.feed(&block)?;
            block.clear();
            Ok((coder, block, out))
        };
        let (coder, block, out) = run(self.threads, job).await?;
        self.coder = Some(coder);
        self.block = block;
        self.body.send(&out).await
    }

    async fn finish(mut self) -> Result<Body<'s, S>, SinkError> {
        self.press().await?;
        let coder = self.coder.take().ok_or(SinkError::Truncated)?;
        let out = run(self.threads, move || coder.finish()).await?;
        self.body.send(&out).await?;
        Ok(self.body)
    }
}

impl<S: Sink<File = FileRef>> Sink for Squeeze<'_, '_, S> {
    type File = FileRef;

    async fn send(&mut self, bytes: &[u8], _: bool) -> Result<(), SinkError> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK_BYTES {
                self.press().await?;
            }
        }
        Ok(())
    }

    async fn send_file(
        &mut self,
        file: &FileRef,
        at: Offset,
        len: ByteLen,
        more: bool,
    ) -> Result<(), SinkError> {
        let files = self.files.clone();
        pump(&files, file, at, len, async |bytes, _| {
            self.send(bytes, more).await
        })
        .await
    }
}
