//! Writing what a request brings into the staging file, whichever request it is.
//!
//! Laws
//! - Received, synced, then recorded: in this order, for every acknowledged byte.
//! - A byte on record is never written again: what the body says of it is compared instead.
//! - The target appears whole, by rename, before the ledger calls the session finished; a crash
//!   in between is repaired by looking at the target.
//! - A failed sync ends the upload. A full disk or quota does not, nor storage that went away:
//!   both may come back.
//! - Of a body with a checksum nothing is recorded before the checksum was seen to hold.
//!
//! Source: `docs/semantics.md#durability`.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};

use proxy_core::extent::{Extent, Extents, Recorded, Stretch, Want};
use proxy_core::problem;
use proxy_core::units::{ByteLen, MIB, Offset};

use crate::compare::{Compared, compare};
use crate::ledger::{Ledger, LedgerError};
use crate::receive::{Ended, Intake, receive};
use crate::seam::{Disk, PeerError, Source};

/// Bytes after which a long body is synced and recorded, so that a crash costs no more than
/// this. 256 MiB: about a fifth of a second at the speed of one local disk.
pub const CHECKPOINT_BYTES: u64 = 256 * MIB;

/// From this many bytes on, blocks are reserved ahead: extending writes queue up behind
/// each other in the file system, writes into reserved blocks do not.
pub const RESERVE_BYTES_MIN: u64 = 4 * MIB;

/// Writes in flight per request. Four keep a disk busy while the next buffer fills.
pub const DEPTH: usize = 8;

/// What to answer.
#[derive(Debug)]
pub enum Written<E> {
    /// 204: all of the body is durable.
    Stored {
        /// Bytes that are durable now.
        durable: Extents,
        /// Bytes of the whole upload.
        size: Offset,
        /// This request put the file in its place.
        finished: bool,
    },
    /// 409: the client continues from the wrong place.
    Mismatch {
        /// What is durable.
        have: Offset,
    },
    /// 400: the body is longer than what is missing. Nothing of it was kept since the last
    /// checkpoint.
    TooLong {
        /// Bytes that are missing.
        missing: ByteLen,
    },
    /// 400: the body of a part is shorter than its range. What came stays.
    TooShort {
        /// Bytes that are missing of the range.
        missing: ByteLen,
    },
    /// 409: the body has other bytes than those on record.
    Differs {
        /// Where the first buffer with a difference begins.
        at: Offset,
    },
    /// 460: the body is not what its checksum says. Nothing of it was kept.
    Checksum,
    /// The server ends: what came is durable, and is to be continued elsewhere.
    Paused {
        /// Bytes that are durable.
        durable: Extents,
    },
    /// 507: full, or over quota. What is durable stays and can be continued.
    NoSpace {
        /// Bytes that are durable.
        durable: Extents,
        /// What the file system said.
        error: io::Error,
    },
    /// The body broke; what is durable stays and can be continued.
    Cut {
        /// Bytes that are durable.
        durable: Extents,
        /// How it broke.
        error: PeerError,
    },
    /// 500, or 503 for storage that went away: the disk failed. `ended` says that the upload can
    /// not be continued.
    Disk {
        /// What was being done.
        operation: &'static str,
        /// What the file system said.
        error: io::Error,
        /// Whether the upload is over.
        ended: bool,
    },
    /// The ledger refused.
    Ledger(LedgerError<E>),
}

impl<E> From<LedgerError<E>> for Written<E> {
    fn from(error: LedgerError<E>) -> Self {
        Self::Ledger(error)
    }
}

/// Which blocks to lay out before the first byte.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LayOut {
    Nothing,
    /// Those of so many bytes from the beginning of the job.
    These(ByteLen),
    /// Those of the whole file, of so many bytes.
    All(ByteLen),
}

/// What a request may write, and what is there already.
#[derive(Debug)]
pub(crate) struct Job {
    /// Where its body begins.
    pub(crate) from: u64,
    /// Where its body ends, at most. `from <= to <= size`
    pub(crate) to: u64,
    /// It goes on at the end, and its body may end before `to`.
    pub(crate) is_append: bool,
    /// Bytes of the whole upload; `None` if this job can not complete it.
    pub(crate) size: Option<u64>,
    /// Durable bytes at the moment of the claim. Between `from` and `to` nobody else adds any.
    pub(crate) known: Extents,
    pub(crate) lay_out: LayOut,
}

/// Why the body is not followed any further.
enum Halt {
    /// It is over, wherever it should be.
    Over,
    /// It is longer than the job.
    TooLong,
    Stopped(Option<Want>),
    Peer(PeerError),
    Disk(&'static str, io::Error),
    Differs,
}

/// One request at work.
struct Work<'w, D: Disk, L: Ledger<File = D::File>> {
    disk: &'w D,
    ledger: &'w L,
    file: D::File,
    job: Job,
    /// Where the next byte of the body belongs. `job.from <= at <= job.to`
    at: u64,
    /// Durable bytes, as far as this request has heard.
    durable: Extents,
    /// Written and not yet on record, first to last.
    fresh: Vec<Extent>,
    /// The body has a checksum: nothing is recorded before its end.
    is_checked: bool,
    /// The ledger said that nothing is missing: the file is ours to put in its place.
    is_whole: bool,
}

/// Takes the body of `source` to its places, to its end or to whatever ends it before.
pub(crate) async fn write<D, S, L>(
    disk: &D,
    source: &mut S,
    ledger: &L,
    grant: &mut L::Grant,
    job: Job,
) -> Written<L::Error>
where
    D: Disk,
    S: Source<Buf = D::Buf>,
    L: Ledger<File = D::File>,
{
    assert!(job.from <= job.to);
    assert!(job.size.is_none_or(|size| job.to <= size));
    let file = match ledger.open(grant).await {
        Ok(file) => file,
        Err(error) => return error.into(),
    };
    let mut work = Work {
        disk,
        ledger,
        file,
        at: job.from,
        durable: job.known.clone(),
        fresh: Vec::new(),
        is_checked: source.verdict().is_some(),
        is_whole: false,
        job,
    };
    if let Err(error) = work.lay_out().await {
        let durable = work.durable;
        return Written::NoSpace { durable, error };
    }
    let halt = match work.follow(source, grant).await {
        Ok(halt) => halt,
        Err(written) => return written,
    };
    if matches!(halt, Halt::Over) && source.verdict() == Some(false) {
        return Written::Checksum;
    }
    work.end(grant, halt).await
}

impl<D, L> Work<'_, D, L>
where
    D: Disk,
    L: Ledger<File = D::File>,
{
    /// Lays out blocks. An error is that of a full disk; others only mean a slower way.
    async fn lay_out(&self) -> io::Result<()> {
        let from = Offset::new(self.job.from);
        let these = match self.job.lay_out {
            LayOut::Nothing => return Ok(()),
            LayOut::These(bytes) => bytes,
            LayOut::All(size) => {
                let all = self.disk.reserve(&self.file, Offset::ZERO, size).await;
                match all {
                    // The file does not fit now; this part of it may.
                    Err(error) if is_no_space(&error) => ByteLen::new(self.job.to - self.job.from),
                    _ => return Ok(()),
                }
            }
        };
        match self.disk.reserve(&self.file, from, these).await {
            Err(error) if is_no_space(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Follows the body: gaps are written, what is on record is compared.
    async fn follow<S>(
        &mut self,
        source: &mut S,
        grant: &mut L::Grant,
    ) -> Result<Halt, Written<L::Error>>
    where
        S: Source<Buf = D::Buf>,
    {
        loop {
            if self.at == self.job.to {
                return Ok(match source.is_over().await {
                    Ok(true) => Halt::Over,
                    Ok(false) => Halt::TooLong,
                    Err(error) => Halt::Peer(error),
                });
            }
            if CHECKPOINT_BYTES <= self.fresh_bytes() && !self.is_checked {
                self.flush(grant).await?;
            }
            let newcomer = Cell::new(None);
            let halt = {
                let wait = async { newcomer.set(self.ledger.revoked(grant).await) };
                let mut stop = pin!(wait);
                match self.job.known.at(self.at) {
                    Stretch::Held(to) => self.compare(source, to, stop.as_mut()).await,
                    Stretch::Gap(to) => self.receive(source, to, stop.as_mut()).await,
                }
            };
            match halt {
                None => {}
                Some(Halt::Stopped(_)) => return Ok(Halt::Stopped(newcomer.take())),
                Some(halt) => return Ok(halt),
            }
        }
    }

    fn fresh_bytes(&self) -> u64 {
        self.fresh.iter().map(|extent| extent.len()).sum()
    }

    /// Writes what comes into a gap that ends at `to`, up to a checkpoint.
    async fn receive<S>(
        &mut self,
        source: &mut S,
        to: u64,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Halt>
    where
        S: Source<Buf = D::Buf>,
    {
        let mut room = to.min(self.job.to) - self.at;
        if !self.is_checked {
            room = room.min(CHECKPOINT_BYTES - self.fresh_bytes());
        }
        let intake = Intake {
            from: Offset::new(self.at),
            room: ByteLen::new(room),
            depth: DEPTH,
        };
        let received = receive(self.disk, &self.file, source, intake, stop).await;
        let extent = Extent::new(self.at, received.written.get());
        assert!(extent.len() <= room);
        self.at = extent.to;
        if !extent.is_empty() {
            self.fresh.push(extent);
        }
        match received.ended {
            Ended::RoomFull => None,
            Ended::BodyOver => Some(Halt::Over),
            Ended::Peer(error) => Some(Halt::Peer(error)),
            Ended::Stopped => Some(Halt::Stopped(None)),
            Ended::Disk(error) => Some(Halt::Disk("write", error)),
        }
    }

    /// Compares what comes with what is on record up to `to`.
    async fn compare<S>(
        &mut self,
        source: &mut S,
        to: u64,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Halt>
    where
        S: Source<Buf = D::Buf>,
    {
        let held = Extent::new(self.at, to.min(self.job.to));
        let (at, ended) = compare(self.disk, &self.file, source, held, stop).await;
        self.at = at;
        match ended {
            Compared::Same => None,
            Compared::BodyOver => Some(Halt::Over),
            Compared::Stopped => Some(Halt::Stopped(None)),
            Compared::Peer(error) => Some(Halt::Peer(error)),
            Compared::Disk(error) => Some(Halt::Disk("read", error)),
            Compared::Differs => Some(Halt::Differs),
        }
    }

    /// Syncs what is written and records it.
    async fn flush(&mut self, grant: &L::Grant) -> Result<(), Written<L::Error>> {
        self.sync(grant).await?;
        for extent in std::mem::take(&mut self.fresh) {
            let Recorded { durable, whole } = self.ledger.record(grant, extent).await?;
            self.durable = durable;
            self.is_whole |= whole;
        }
        Ok(())
    }

    async fn sync(&mut self, grant: &L::Grant) -> Result<(), Written<L::Error>> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let Err(error) = self.disk.sync(&self.file).await else {
            return Ok(());
        };
        // A full disk shows late on network file systems, at the sync: what was durable before
        // still is. Any other failure may have lost pages that looked written.
        if is_no_space(&error) {
            let durable = self.durable.clone();
            return Err(Written::NoSpace { durable, error });
        }
        // So it is while the storage is away: it may come back, with what it acknowledged.
        let ended = !is_away(&error);
        if ended {
            self.ledger.abort(grant).await;
        }
        Err(Written::Disk {
            operation: "sync",
            error,
            ended,
        })
    }

    /// Keeps what is to be kept, puts a whole file in its place, and says how it went.
    async fn end(mut self, grant: &L::Grant, halt: Halt) -> Written<L::Error> {
        match &halt {
            Halt::Over if self.reaches_the_end() => {
                // Nothing can be missing, and the name goes on record with the bytes.
                if let Err(written) = self.sync(grant).await {
                    return written;
                }
                self.is_whole = true;
                self.fresh.clear();
            }
            Halt::Over => {}
            Halt::TooLong => self.fresh.clear(),
            Halt::Stopped(newcomer) => self.make_way(*newcomer),
            _ if self.is_checked => self.fresh.clear(),
            _ => {}
        }
        if let Err(written) = self.flush(grant).await {
            return written;
        }
        let finished = self.is_whole;
        if finished {
            let from = Offset::new(self.job.from);
            if let Err(error) = self.ledger.finish(grant, from).await {
                return error.into();
            }
            self.durable = Extents::prefix_of(self.job.size.unwrap_or(0));
        }
        self.outcome(halt, finished)
    }

    fn outcome(self, halt: Halt, finished: bool) -> Written<L::Error> {
        let missing = ByteLen::new(self.job.to - self.at);
        let durable = self.durable;
        match halt {
            Halt::Over if !self.job.is_append && self.at < self.job.to => {
                Written::TooShort { missing }
            }
            Halt::Over => Written::Stored {
                durable,
                size: Offset::new(self.job.size.unwrap_or(0)),
                finished,
            },
            Halt::TooLong => Written::TooLong {
                missing: ByteLen::new(self.job.to - self.job.from),
            },
            Halt::Stopped(Some(want)) if want.is_nothing() => Written::Paused { durable },
            Halt::Stopped(_) => LedgerError::Lost.into(),
            Halt::Peer(error) => Written::Cut { durable, error },
            Halt::Disk(_, error) if is_no_space(&error) => Written::NoSpace { durable, error },
            Halt::Disk(operation, error) => Written::Disk {
                operation,
                error,
                ended: false,
            },
            Halt::Differs => Written::Differs {
                at: Offset::new(self.at),
            },
        }
    }

    /// All bytes are there, whatever the others do: those before this job were when it began.
    fn reaches_the_end(&self) -> bool {
        Some(self.at) == self.job.size && self.job.from <= self.job.known.prefix()
    }

    /// Leaves to a newer writer what it brings.
    fn make_way(&mut self, newcomer: Option<Want>) {
        if self.is_checked {
            self.fresh.clear();
        }
        let limit = match newcomer {
            None => return,
            // It continues where the record stands: our tail would only be in its way. One that
            // continues elsewhere will be told where to.
            Some(Want::Append { at, .. }) if self.job.is_append => {
                if at.map(Offset::get) != Some(self.durable.prefix()) {
                    return;
                }
                0
            }
            Some(want) => want.extent().from,
        };
        for extent in &mut self.fresh {
            *extent = Extent::new(extent.from, extent.to.min(limit));
        }
        self.fresh.retain(|extent| !extent.is_empty());
    }
}

/// `ESTALE` and its like: what is not on record may be lost, and the upload can go on from there.
pub fn is_away(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(problem::is_away)
}

/// ENOSPC and EDQUOT: the operator or the user can mend it, the upload can go on.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
