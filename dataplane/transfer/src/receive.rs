//! Receiving a body into a file: several writes in flight while the next buffer fills.
//!
//! Laws
//! - Buffer after buffer goes to its own place; order of completion does not matter.
//! - `written` is the end of the contiguous prefix that the file system took: a hole ends it.
//! - Writes begin and end at whole strides of the disk as far as the peer keeps pace.
//! - Nothing is promised here: the bytes are in the page cache until somebody syncs.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use proxy_core::units::{ByteLen, Offset};

use crate::seam::{Buffer, Disk, Fill, Partial, PeerError, Source};

/// What is to be received.
#[derive(Clone, Copy, Debug)]
pub struct Intake {
    /// Where the first byte goes.
    pub from: Offset,
    /// How many bytes may come.
    pub room: ByteLen,
    /// Most writes in flight: the disk works on them while the next buffer fills.
    pub depth: usize,
}

/// Why receiving ended.
#[derive(Debug)]
pub enum Ended {
    /// The body is over.
    BodyOver,
    /// `room` bytes came; the body may go on.
    RoomFull,
    /// The peer ended it.
    Peer(PeerError),
    /// Somebody called `stop`.
    Stopped,
    /// The disk failed.
    Disk(io::Error),
}

/// What was received.
#[derive(Debug)]
pub struct Received {
    /// End of the contiguous bytes in the file. Not durable yet.
    pub written: Offset,
    /// Why it ended.
    pub ended: Ended,
}

/// Where the writes stand.
struct Front {
    /// Where the next buffer goes.
    next: Offset,
    /// End of the prefix and the error, once a write failed.
    failed: Option<(Offset, io::Error)>,
}

impl Front {
    fn note(&mut self, at: Offset, outcome: Result<usize, Partial>) {
        let Err(Partial { written, error }) = outcome else {
            return;
        };
        let end = at.advance(ByteLen::new(written as u64)).unwrap_or(at);
        let earlier = self.failed.as_ref().is_none_or(|(known, _)| end < *known);
        if earlier {
            self.failed = Some((end, error));
        }
    }
}

enum Turn<B> {
    Filled(Result<Fill, PeerError>, B),
    Stopped,
}

/// Receives up to `intake.room` bytes of `source` into `file`.
///
/// Shape: `stop` is any future; when it is ready, receiving ends at once and the bytes of
/// finished writes count. Every write is waited for before this returns, so that no late one can
/// land in a file that somebody else continues.
pub async fn receive<D, S>(
    disk: &D,
    file: &D::File,
    source: &mut S,
    intake: Intake,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Received
where
    D: Disk,
    S: Source<Buf = D::Buf>,
{
    assert!(intake.depth > 0);
    let mut writes = FuturesUnordered::new();
    let mut front = Front {
        next: intake.from,
        failed: None,
    };
    let mut left = intake.room.get();
    let ended = loop {
        if left == 0 {
            break Ended::RoomFull;
        }
        while writes.len() >= intake.depth {
            if let Some((at, outcome)) = writes.next().await {
                front.note(at, outcome);
            }
        }
        if front.failed.is_some() {
            break Ended::RoomFull;
        }
        let limit = limit_at(front.next, left, disk.stride(file));
        let mut turn = pin!(next_fill(disk, source, limit));
        // A buffer fills while writes complete; a failed write or a stop ends the wait.
        let turn = poll_fn(|cx| {
            while let Poll::Ready(Some((at, outcome))) = writes.poll_next_unpin(cx) {
                front.note(at, outcome);
            }
            if front.failed.is_some() || stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Turn::Stopped);
            }
            turn.as_mut()
                .poll(cx)
                .map(|(outcome, buf)| Turn::Filled(outcome, buf))
        })
        .await;
        let (outcome, buf) = match turn {
            Turn::Filled(outcome, buf) => (outcome, buf),
            Turn::Stopped => break Ended::Stopped,
        };
        let count = buf.as_slice().len() as u64;
        assert!(count <= left);
        if count > 0 {
            let at = front.next;
            let Some(next) = at.advance(ByteLen::new(count)) else {
                break Ended::Disk(io::ErrorKind::FileTooLarge.into());
            };
            front.next = next;
            left -= count;
            writes.push(write_one(disk, file, buf, at));
        }
        match outcome {
            Ok(Fill::More) => {}
            Ok(Fill::End) => break Ended::BodyOver,
            Err(error) => break Ended::Peer(error),
        }
    };
    while let Some((at, outcome)) = writes.next().await {
        front.note(at, outcome);
    }
    match front.failed {
        Some((end, error)) => Received {
            written: end,
            ended: Ended::Disk(error),
        },
        None => Received {
            written: front.next,
            ended,
        },
    }
}

/// How much to receive for a write at `at`, so that the next one begins at a whole stride, and
/// this one ends at one: a tail that fills none goes by itself.
fn limit_at(at: Offset, left: u64, stride: ByteLen) -> u64 {
    let beyond = at.get() % stride.get();
    if beyond > 0 {
        return left.min(stride.get() - beyond);
    }
    let whole = left - left % stride.get();
    if whole > 0 { whole } else { left }
}

async fn next_fill<D, S>(disk: &D, source: &mut S, left: u64) -> (Result<Fill, PeerError>, D::Buf)
where
    D: Disk,
    S: Source<Buf = D::Buf>,
{
    let ready = source.ready().await;
    let mut buf = disk.buffer().await;
    buf.clear();
    if let Err(error) = ready {
        return (Err(error), buf);
    }
    let limit = usize::try_from(left)
        .unwrap_or(usize::MAX)
        .min(buf.capacity());
    source.fill(buf, limit).await
}

async fn write_one<D: Disk>(
    disk: &D,
    file: &D::File,
    buf: D::Buf,
    at: Offset,
) -> (Offset, Result<usize, Partial>) {
    let (outcome, buf) = disk.write_at(file, buf, at).await;
    drop(buf);
    (at, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_begin_and_end_at_strides_where_they_can() {
        const STRIDE: u64 = 4096;
        for (at, left, stride, want) in [
            (0, 10_000, 1, 10_000),
            (7, 10_000, 1, 10_000),
            (0, 10_000, STRIDE, 8192),
            (8192, 1808, STRIDE, 1808),
            (0, 4096, STRIDE, 4096),
            (1, 10_000, STRIDE, 4095),
            (1, 100, STRIDE, 100),
            (4095, 10_000, STRIDE, 1),
            (4096, 1, STRIDE, 1),
        ] {
            let limit = limit_at(Offset::new(at), left, ByteLen::new(stride));
            assert_eq!(limit, want, "{left} bytes at {at}");
        }
    }
}
