//! Comparing a body with bytes that are on record already, instead of writing them again.
//!
//! Law: one buffer at a time. A request that held one while it waits for another could wait for
//! ever beside others that do the same; so digests are compared, not buffers.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;

use proxy_core::extent::Extent;
use proxy_core::units::Offset;
use proxy_wire::checksum;

use crate::seam::{Buffer, Disk, Fill, PeerError, Source};

/// How a comparison ended.
#[derive(Debug)]
pub(crate) enum Compared {
    /// All bytes were there, and the same.
    Same,
    /// The body ended before; what came was the same.
    BodyOver,
    /// Somebody called `stop`.
    Stopped,
    /// The peer ended it.
    Peer(PeerError),
    /// The disk failed.
    Disk(io::Error),
    /// Some byte is not the same.
    Differs,
}

/// Takes the bytes of `held` off `source` and compares them with those in `file`. Says up to where
/// they were the same.
pub(crate) async fn compare<D, S>(
    disk: &D,
    file: &D::File,
    source: &mut S,
    held: Extent,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> (u64, Compared)
where
    D: Disk,
    S: Source<Buf = D::Buf>,
{
    let mut at = held.from;
    while at < held.to {
        let filled = {
            let mut fill = pin!(fill(disk, source, held.to - at));
            poll_fn(|cx| match fill.as_mut().poll(cx) {
                Poll::Ready(filled) => Poll::Ready(Some(filled)),
                Poll::Pending => stop.as_mut().poll(cx).map(|()| None),
            })
            .await
        };
        let Some((outcome, digest, count)) = filled else {
            return (at, Compared::Stopped);
        };
        match recorded(disk, file, at, count).await {
            Ok(recorded) if recorded == digest => at += count as u64,
            Ok(_) => return (at, Compared::Differs),
            Err(error) => return (at, Compared::Disk(error)),
        }
        match outcome {
            Ok(Fill::More) => {}
            Ok(Fill::End) => return (at, Compared::BodyOver),
            Err(error) => return (at, Compared::Peer(error)),
        }
    }
    (at, Compared::Same)
}

/// One turn of the body: what came of it, the digest of its bytes, and how many there were.
async fn fill<D, S>(
    disk: &D,
    source: &mut S,
    left: u64,
) -> (Result<Fill, PeerError>, checksum::Digest, usize)
where
    D: Disk,
    S: Source<Buf = D::Buf>,
{
    let ready = source.ready().await;
    let mut buf = disk.buffer().await;
    buf.clear();
    let limit = usize::try_from(left).unwrap_or(usize::MAX);
    let limit = limit.min(buf.capacity());
    let (outcome, buf) = match ready {
        Ok(()) => source.fill(buf, limit).await,
        Err(error) => (Err(error), buf),
    };
    let bytes = buf.as_slice();
    (outcome, checksum::digest(bytes), bytes.len())
}

/// The digest of `count` bytes of the file; of fewer if it ends before.
async fn recorded<D: Disk>(
    disk: &D,
    file: &D::File,
    at: u64,
    count: usize,
) -> io::Result<checksum::Digest> {
    let mut buf = disk.buffer().await;
    buf.clear();
    while buf.as_slice().len() < count {
        let have = buf.as_slice().len();
        let from = Offset::new(at + have as u64);
        let (outcome, back) = disk.read_at(file, buf, from, count - have).await;
        buf = back;
        if outcome? == 0 {
            break;
        }
    }
    Ok(checksum::digest(buf.as_slice()))
}
