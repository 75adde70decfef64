//! Sending many files as one archive, or any range of it.
//!
//! The archive is a sequence of pieces, bytes made by us and spans of files, whose positions are
//! known beforehand ([`Plan`]). So a transfer that broke goes on where it stopped.
//!
//! Laws
//! - What was listed is what is sent: a member that changed meanwhile ends the answer, before its
//!   last byte where that is ours.
//! - Small members travel together, made ahead by whoever may wait for a disk; of big ones spans
//!   go from the file to the peer. Memory does not grow with either.
//! - A checksum is made once: from bytes that are sent anyway if they are, known from an earlier
//!   transfer if they were, and only else by reading what is not sent.

mod ahead;
mod plan;

use std::future::Future;
use std::ops::Range;

use futures_util::future::join;
use proxy_core::units::{ByteLen, KIB, MIB, Offset};
use proxy_wire::zip::Checksum;

use crate::seam::{Sink, SinkError};
use ahead::Ahead;
use plan::clip;
pub use plan::{Format, Listed, Member, Packed, Plan};

/// Bytes that are gathered before they are sent.
const GATHER_BYTES: usize = (128 * KIB) as usize;
/// Bytes from which a piece is sent by itself instead of being copied behind others.
const DIRECT_BYTES: usize = (32 * KIB) as usize;
/// Members up to this size are read whole and packed together; spans from here on are spliced.
const SMALL_BYTES_MAX: u64 = 64 * KIB;
/// Bytes of data that are packed at a time.
const PACK_BYTES_MAX: u64 = 256 * KIB;
/// Members that are packed at a time: with nothing in them they still have to be looked at.
const PACK_MEMBERS_MAX: usize = 128;
/// Packs and big members that are made ready ahead. Four hide the latency of a disk; beyond, they
/// only hold memory.
const AHEAD_MAX: usize = 4;
/// Bytes whose checksum is made ahead of sending them, so that they are in memory by then.
const SUM_BYTES: u64 = 4 * MIB;
/// Big members that were sent and not yet looked at again: each holds a descriptor.
const UNCHECKED_MAX: usize = 16;

/// A big member that was sent.
#[derive(Debug)]
pub struct Sent<F> {
    /// Which.
    pub index: usize,
    /// Open.
    pub file: F,
    /// The checksum of all its data, if one was made.
    pub sum: Option<u32>,
}

/// The files behind the members.
pub trait Members: Listed {
    /// An open file.
    type File;

    /// The checksum of a member's data, if an earlier transfer has left it.
    fn known_sum(&self, index: usize) -> Option<u32>;

    /// Opens a member for reading, and makes sure that it is still what was listed.
    fn open(&self, index: usize) -> impl Future<Output = Result<Self::File, SinkError>>;

    /// As [`Plan::pack`]. Each is what was listed, before it was read and after.
    fn pack(
        &self,
        members: Range<usize>,
        window: Range<u64>,
    ) -> impl Future<Output = Result<Packed, SinkError>>;

    /// The checksum of a span of a member's data.
    fn sum(
        &self,
        file: &Self::File,
        at: Offset,
        len: ByteLen,
    ) -> impl Future<Output = Result<Checksum, SinkError>>;

    /// Makes sure that members are still what was listed, and remembers their checksums.
    fn check(&self, sent: Vec<Sent<Self::File>>) -> impl Future<Output = Result<(), SinkError>>;
}

/// Sends `head` and what lies in `window` of the archive that `plan` says.
///
/// Shape: `plan` is that of `members`; the window is not empty and lies within it.
///
/// # Errors
/// [`SinkError::Truncated`] when a member is no longer what was listed; the connection must then
/// be closed, as after any other.
pub async fn send<M, S>(
    members: &M,
    plan: &Plan,
    window: Range<u64>,
    head: &[u8],
    sink: &mut S,
) -> Result<(), SinkError>
where
    M: Members,
    S: Sink<File = M::File>,
{
    assert_eq!(plan.count(), members.count());
    assert!(window.start < window.end);
    assert!(window.end <= plan.total_len().get());
    let sums_count = match plan.format() {
        // Only the directory needs them afterwards.
        Format::Zip if plan.members_len() < window.end => plan.count(),
        Format::Zip | Format::Tar => 0,
    };
    let first = plan.member_at(window.start);
    let mut transfer = Transfer {
        members,
        plan,
        out: Out {
            sink,
            bytes: head.to_vec(),
            at: plan.start(first),
            window: window.clone(),
        },
        sums: vec![0; sums_count],
        unchecked: Vec::new(),
    };
    transfer.send_members(first).await?;
    if plan.members_len() < window.end {
        transfer.send_end(first).await?;
    }
    transfer.check().await?;
    transfer.out.flush().await
}

/// Members that are handled together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Small ones, read whole.
    Pack(Range<usize>),
    /// One whose data does not fit into memory.
    Big(usize),
}

/// The steps for some members, in order.
#[derive(Debug)]
pub struct Steps<'m, M> {
    members: &'m M,
    left: Range<usize>,
}

impl<'m, M: Listed> Steps<'m, M> {
    /// The steps for the members in `left`.
    pub const fn new(members: &'m M, left: Range<usize>) -> Self {
        Self { members, left }
    }
}

impl<M: Listed> Iterator for Steps<'_, M> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.left.is_empty() {
            return None;
        }
        let first = self.left.start;
        let mut packed_len = 0;
        let mut end = first;
        while end < self.left.end && end - first < PACK_MEMBERS_MAX {
            let len = self.members.show(end, |member| member.data_len());
            if SMALL_BYTES_MAX < len || PACK_BYTES_MAX < packed_len + len {
                break;
            }
            packed_len += len;
            end += 1;
        }
        let step = if end == first {
            end += 1;
            Step::Big(first)
        } else {
            Step::Pack(first..end)
        };
        self.left.start = end;
        Some(step)
    }
}

/// What a step needs, ready.
enum Ready<F> {
    Pack(Range<usize>, Packed),
    Big(usize, F),
}

/// Begins steps until enough are under way.
async fn refill<'a, M: Members>(
    members: &'a M,
    steps: &mut Steps<'a, M>,
    window: &Range<u64>,
    ahead: &mut Ahead<'a, Result<Ready<M::File>, SinkError>>,
) {
    while ahead.len() < AHEAD_MAX {
        let Some(step) = steps.next() else { return };
        let window = window.clone();
        let work = async move {
            match step {
                Step::Pack(range) => {
                    let packed = members.pack(range.clone(), window).await?;
                    Ok(Ready::Pack(range, packed))
                }
                Step::Big(index) => Ok(Ready::Big(index, members.open(index).await?)),
            }
        };
        ahead.push(work).await;
    }
}

struct Transfer<'a, 's, M: Members, S> {
    members: &'a M,
    plan: &'a Plan,
    out: Out<'s, S>,
    /// By member, for the directory; none where that is not sent.
    sums: Vec<u32>,
    unchecked: Vec<Sent<M::File>>,
}

impl<'a, M: Members, S: Sink<File = M::File>> Transfer<'a, '_, M, S> {
    /// Sends the members from `first` on, as far as the window goes.
    async fn send_members(&mut self, first: usize) -> Result<(), SinkError> {
        let window = self.out.window.clone();
        let behind = match self.plan.member_at(window.end - 1) {
            last if last < self.plan.count() => last + 1,
            count => count,
        };
        let mut steps = Steps::new(self.members, first..behind);
        let mut ahead = Ahead::new();
        refill(self.members, &mut steps, &window, &mut ahead).await;
        while let Some(ready) = ahead.next().await {
            let ready = ready?;
            refill(self.members, &mut steps, &window, &mut ahead).await;
            match ready {
                Ready::Pack(range, packed) => {
                    self.note_sums(range.start, &packed.sums);
                    self.out.skip_to(self.plan.start(range.start));
                    self.out.put_clipped(&packed.bytes).await?;
                    self.out.skip_to(self.plan.start(range.end));
                }
                Ready::Big(index, file) => self.send_big(index, file).await?,
            }
        }
        Ok(())
    }

    async fn send_big(&mut self, index: usize, file: M::File) -> Result<(), SinkError> {
        let (members, plan) = (self.members, self.plan);
        let mut bytes = Vec::new();
        let len = members.show(index, |member| {
            plan.head(member, &mut bytes);
            member.data_len()
        });
        self.out.put(&bytes).await?;
        let data_at = self.out.at;
        let data_end = data_at + len;
        let window = &self.out.window;
        let from = window.start.clamp(data_at, data_end) - data_at;
        let to = window.end.clamp(data_at, data_end) - data_at;
        // What stands behind the data has the checksum in it.
        let needs_sum = plan.format() == Format::Zip && data_end < window.end;
        let known = if needs_sum {
            members.known_sum(index)
        } else {
            None
        };
        let sum = match known {
            None if needs_sum => Some(self.send_summed(&file, from, to).await?),
            known => {
                if from < to {
                    self.out.send_file(&file, from, to - from).await?;
                }
                known
            }
        };
        self.out.skip_to(data_end);
        bytes.clear();
        members.show(index, |member| {
            plan.tail(member, sum.unwrap_or(0), &mut bytes);
        });
        self.out.put(&bytes).await?;
        self.note_sums(index, &[sum.unwrap_or(0)]);
        self.unchecked.push(Sent { index, file, sum });
        if UNCHECKED_MAX <= self.unchecked.len() {
            self.check().await?;
        }
        Ok(())
    }

    /// Sends bytes `from..to` of a file, which end it, and makes the checksum of all of it. The
    /// checksum of a span is made while the one before is on its way.
    async fn send_summed(&mut self, file: &M::File, from: u64, to: u64) -> Result<u32, SinkError> {
        let members = self.members;
        let mut total = sum_span(members, file, 0, from).await?;
        let mut at = from;
        let mut next = first_sum(members, file, at, to).await?;
        while at < to {
            let len = (to - at).min(SUM_BYTES);
            total.combine(&next);
            let sending = self.out.send_file(file, at, len);
            let (sent, ahead) = join(sending, first_sum(members, file, at + len, to)).await;
            sent?;
            next = ahead?;
            at += len;
        }
        Ok(total.finalize())
    }

    fn note_sums(&mut self, first: usize, sums: &[u32]) {
        if !self.sums.is_empty() {
            self.sums[first..first + sums.len()].copy_from_slice(sums);
        }
    }

    /// Sends what stands behind the members; they have been sent from `first_sent` on.
    async fn send_end(&mut self, first_sent: usize) -> Result<(), SinkError> {
        let (members, plan) = (self.members, self.plan);
        if plan.format() == Format::Zip {
            let first = plan.entry_at(self.out.window.start);
            self.find_sums(first..first_sent).await?;
            self.out.skip_to(plan.central_start(first));
            let last = plan.entry_at(self.out.window.end - 1);
            let mut bytes = Vec::new();
            for index in first..plan.count().min(last + 1) {
                bytes.clear();
                let sum = self.sums[index];
                members.show(index, |member| {
                    plan.central_entry(index, member, sum, &mut bytes);
                });
                self.out.put(&bytes).await?;
            }
            self.out
                .skip_to(plan.central_start(plan.count().min(last + 1)));
        }
        // The last bytes are held back until everything was looked at.
        self.check().await?;
        let mut bytes = Vec::new();
        if plan.format() == Format::Tar || self.out.at == plan.central_start(plan.count()) {
            plan.end(&mut bytes);
            self.out.put(&bytes).await?;
        }
        Ok(())
    }

    /// Checksums of members that are not sent, for the directory.
    async fn find_sums(&mut self, missing: Range<usize>) -> Result<(), SinkError> {
        let members = self.members;
        let mut unknown = Vec::<Range<usize>>::new();
        for index in missing {
            match members.known_sum(index) {
                Some(sum) => self.sums[index] = sum,
                None => match unknown.last_mut() {
                    Some(range) if range.end == index => range.end += 1,
                    _ => unknown.push(index..index + 1),
                },
            }
        }
        let nothing = 0..0;
        for range in unknown {
            let mut steps = Steps::new(members, range);
            let mut ahead = Ahead::new();
            refill(members, &mut steps, &nothing, &mut ahead).await;
            while let Some(ready) = ahead.next().await {
                let ready = ready?;
                refill(members, &mut steps, &nothing, &mut ahead).await;
                match ready {
                    Ready::Pack(range, packed) => self.note_sums(range.start, &packed.sums),
                    Ready::Big(index, file) => self.find_big_sum(index, file).await?,
                }
            }
        }
        Ok(())
    }

    async fn find_big_sum(&mut self, index: usize, file: M::File) -> Result<(), SinkError> {
        let members = self.members;
        let len = members.show(index, |member| member.data_len());
        let sum = sum_span(members, &file, 0, len).await?.finalize();
        self.note_sums(index, &[sum]);
        let sum = Some(sum);
        members.check(vec![Sent { index, file, sum }]).await
    }

    async fn check(&mut self) -> Result<(), SinkError> {
        if self.unchecked.is_empty() {
            return Ok(());
        }
        let sent = std::mem::take(&mut self.unchecked);
        self.members.check(sent).await
    }
}

/// The checksum of bytes `from..to`.
async fn sum_span<M: Members>(
    members: &M,
    file: &M::File,
    from: u64,
    to: u64,
) -> Result<Checksum, SinkError> {
    let mut total = Checksum::new();
    let mut at = from;
    while at < to {
        total.combine(&first_sum(members, file, at, to).await?);
        at += (to - at).min(SUM_BYTES);
    }
    Ok(total)
}

/// The checksum of the first span of bytes `from..to`; that of nothing where there are none.
async fn first_sum<M: Members>(
    members: &M,
    file: &M::File,
    from: u64,
    to: u64,
) -> Result<Checksum, SinkError> {
    let len = to.saturating_sub(from).min(SUM_BYTES);
    if len == 0 {
        return Ok(Checksum::new());
    }
    members
        .sum(file, Offset::new(from), ByteLen::new(len))
        .await
}

/// Bytes on their way to a sink, in large enough pieces, each at its position of the archive.
struct Out<'s, S> {
    sink: &'s mut S,
    /// Not sent yet.
    bytes: Vec<u8>,
    /// Where the next byte of the archive goes.
    at: u64,
    /// What is wanted of it.
    window: Range<u64>,
}

impl<S: Sink> Out<'_, S> {
    /// Takes the next bytes of the archive, and sends what of them is wanted.
    async fn put(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        let wanted = clip(self.at, bytes.len() as u64, &self.window);
        let end = self.at + bytes.len() as u64;
        self.at += wanted.start as u64;
        self.put_clipped(&bytes[wanted]).await?;
        self.at = end;
        Ok(())
    }

    /// As [`Out::put`], when only what is wanted is there.
    async fn put_clipped(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.at = self.at.max(self.window.start) + bytes.len() as u64;
        if bytes.len() < DIRECT_BYTES || self.window.end <= self.at {
            // Copy: headers and small members cost less copied together than sent alone. The
            // last bytes wait for the last look at the files.
            self.bytes.extend_from_slice(bytes);
            if self.bytes.len() < GATHER_BYTES || self.window.end <= self.at {
                return Ok(());
            }
            return self.flush_before_more().await;
        }
        self.flush_before_more().await?;
        self.sink.send(bytes, true).await
    }

    async fn flush_before_more(&mut self) -> Result<(), SinkError> {
        if !self.bytes.is_empty() {
            self.sink.send(&self.bytes, true).await?;
            self.bytes.clear();
        }
        Ok(())
    }

    /// Sends `len` bytes of `file` from `from`, all of which are wanted.
    async fn send_file(&mut self, file: &S::File, from: u64, len: u64) -> Result<(), SinkError> {
        self.flush_before_more().await?;
        self.at = self.at.max(self.window.start) + len;
        assert!(self.at <= self.window.end);
        let more = self.at < self.window.end;
        let (from, len) = (Offset::new(from), ByteLen::new(len));
        self.sink.send_file(file, from, len, more).await
    }

    /// Goes on at `at`: what is before was sent, or is not wanted.
    fn skip_to(&mut self, at: u64) {
        assert!(self.at <= at || self.at <= self.window.start);
        self.at = self.at.max(at);
    }

    /// Sends what is left; nothing follows.
    async fn flush(self) -> Result<(), SinkError> {
        assert!(self.window.end <= self.at);
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.sink.send(&self.bytes, false).await
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
