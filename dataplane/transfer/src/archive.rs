//! Sending many files as one stored zip, with a length that was announced before the first byte.
//!
//! Laws
//! - What was listed is what is sent: a member that changed meanwhile ends the answer.
//! - Small members travel together; big ones go buffer by buffer. Memory does not grow with either.
//! - Per member four bytes are kept until the end: its checksum.

use std::future::Future;

use proxy_core::units::{ByteLen, Offset};
use proxy_wire::zip::{Checksum, Entry, Kind, Layout};

use crate::download::pump;
use crate::seam::{Disk, Sink, SinkError};

/// Bytes that are gathered before they are sent: headers and members up to half of it.
const GATHER_BYTES: usize = 128 * 1024;

/// The members of an archive.
pub trait Members {
    /// An open file.
    type File;

    /// How many there are.
    fn count(&self) -> usize;

    /// Shows member `index`, `0 <= index < count`. The same every time.
    fn entry<T>(&self, index: usize, show: impl FnOnce(&Entry<'_>) -> T) -> T;

    /// Opens member `index` for reading, and makes sure that it is still what was listed.
    fn open(&self, index: usize) -> impl Future<Output = Result<Self::File, SinkError>>;
}

/// Bytes on their way to a sink, in large enough pieces.
struct Gather<'s, S> {
    sink: &'s mut S,
    bytes: Vec<u8>,
    sent: u64,
}

impl<S: Sink> Gather<'_, S> {
    async fn flush_beyond(&mut self, most: usize) -> Result<(), SinkError> {
        if self.bytes.len() <= most {
            return Ok(());
        }
        self.sink.send(&self.bytes, true).await?;
        self.sent += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }

    async fn direct(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        if bytes.len() <= GATHER_BYTES / 2 {
            self.bytes.extend_from_slice(bytes);
            return self.flush_beyond(GATHER_BYTES).await;
        }
        self.flush_beyond(0).await?;
        self.sink.send(bytes, true).await?;
        self.sent += bytes.len() as u64;
        Ok(())
    }
}

/// Sends `head` and the archive that `layout` announced for `members`.
pub async fn send_zip<D, M, S>(
    disk: &D,
    members: &M,
    layout: Layout,
    head: &[u8],
    sink: &mut S,
) -> Result<(), SinkError>
where
    D: Disk,
    M: Members<File = D::File>,
    S: Sink<File = D::File>,
{
    assert!(layout.entries_count() == members.count() as u64);
    let mut out = Gather {
        sink,
        bytes: head.to_vec(),
        sent: 0,
    };
    let mut checksums = Vec::with_capacity(members.count());
    for index in 0..members.count() {
        let checksum = send_member(disk, members, index, &mut out).await?;
        checksums.push(checksum);
        out.flush_beyond(GATHER_BYTES).await?;
    }
    let mut central = layout.central();
    for (index, checksum) in checksums.iter().enumerate() {
        members.entry(index, |entry| {
            central.entry(entry, *checksum, &mut out.bytes)
        });
        out.flush_beyond(GATHER_BYTES).await?;
    }
    central.end(&mut out.bytes);
    out.sink.send(&out.bytes, false).await?;
    out.sent += out.bytes.len() as u64;
    assert!(out.sent == head.len() as u64 + layout.total_len().get());
    Ok(())
}

/// Sends one member; returns the checksum of its data.
async fn send_member<D, M, S>(
    disk: &D,
    members: &M,
    index: usize,
    out: &mut Gather<'_, S>,
) -> Result<u32, SinkError>
where
    D: Disk,
    M: Members<File = D::File>,
    S: Sink<File = D::File>,
{
    let size = members.entry(index, |entry| {
        entry.local_header(&mut out.bytes);
        if entry.kind == Kind::File {
            entry.size
        } else {
            0
        }
    });
    let mut checksum = Checksum::new();
    if size > 0 {
        let file = members.open(index).await?;
        let len = ByteLen::new(size);
        pump(disk, &file, Offset::ZERO, len, async |bytes, _| {
            checksum.update(bytes);
            out.direct(bytes).await
        })
        .await?;
    }
    let checksum = checksum.finalize();
    members.entry(index, |entry| entry.descriptor(checksum, &mut out.bytes));
    Ok(checksum)
}
