//! Who writes here, and what Redis said last of what they write.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use proxy_core::extent::Want;
use proxy_core::id::SessionId;
use proxy_state::{Holder, Revocation};
use tokio::sync::oneshot;

use super::record::Record;

/// All writers of this process.
#[derive(Default)]
pub(super) struct Held {
    table: Mutex<HashMap<SessionId, Writing>>,
}

/// Changes of one session in Redis are made one after the other; this is the state they begin with.
pub(super) type Known = Arc<tokio::sync::Mutex<Option<Record>>>;

#[derive(Default)]
struct Writing {
    known: Known,
    writers: Vec<Writer>,
    /// Wishes that are not granted yet.
    waiting: Vec<Waiting>,
    tickets: u64,
}

struct Waiting {
    ticket: u64,
    want: Want,
    superseded: bool,
}

struct Writer {
    holder: Holder,
    want: Want,
    /// The connection that its lease was last seen over.
    epoch: u64,
    /// `None` once it was told.
    revoke: Option<oneshot::Sender<Revocation>>,
    is_lost: bool,
}

impl Held {
    /// A wish to write, until the ticket is given to [`Self::leave`].
    pub(super) fn enter(&self, id: SessionId, want: Want) -> u64 {
        let mut table = self.table.lock();
        let writing = table.entry(id).or_default();
        writing.tickets += 1;
        let ticket = writing.tickets;
        writing.waiting.push(Waiting {
            ticket,
            want,
            superseded: false,
        });
        ticket
    }

    pub(super) fn is_superseded(&self, id: SessionId, ticket: u64) -> bool {
        let table = self.table.lock();
        let waiting = table.get(&id).map(|writing| writing.waiting.iter());
        let mine = waiting.and_then(|mut all| all.find(|waiting| waiting.ticket == ticket));
        mine.is_none_or(|waiting| waiting.superseded)
    }

    pub(super) fn leave(&self, id: SessionId, ticket: u64) {
        self.change(id, |writing| {
            writing.waiting.retain(|waiting| waiting.ticket != ticket);
        });
    }

    /// A new writer; the receiver fires when somebody elsewhere wants it to end.
    pub(super) fn insert(
        &self,
        id: SessionId,
        holder: Holder,
        want: Want,
        epoch: u64,
    ) -> oneshot::Receiver<Revocation> {
        let (revoke, revoked) = oneshot::channel();
        let mut table = self.table.lock();
        let writing = table.entry(id).or_default();
        writing.writers.push(Writer {
            holder,
            want,
            epoch,
            revoke: Some(revoke),
            is_lost: false,
        });
        revoked
    }

    pub(super) fn remove(&self, id: SessionId, holder: Holder) {
        self.change(id, |writing| {
            writing.writers.retain(|writer| writer.holder != holder);
        });
    }

    fn change(&self, id: SessionId, change: impl FnOnce(&mut Writing)) {
        let mut table = self.table.lock();
        let Some(writing) = table.get_mut(&id) else {
            return;
        };
        change(writing);
        if writing.writers.is_empty() && writing.waiting.is_empty() {
            table.remove(&id);
        }
    }

    /// Tells writers here, and wishes, that somebody elsewhere wants the same bytes.
    pub(super) fn revoke(&self, id: SessionId, newcomer: Want) {
        self.change(id, |writing| {
            let in_the_way = |want: Want| want.conflicts(newcomer);
            for waiting in &mut writing.waiting {
                waiting.superseded |= in_the_way(waiting.want);
            }
            let writers = writing.writers.iter_mut();
            for writer in writers.filter(|writer| in_the_way(writer.want)) {
                if let Some(revoke) = writer.revoke.take() {
                    // A writer that no longer listens is about to end.
                    let _ = revoke.send(Revocation { newcomer });
                }
            }
        });
    }

    /// Its next report is refused, and it is told to stop.
    pub(super) fn lose(&self, id: SessionId, holder: Holder) {
        self.change(id, |writing| {
            let writers = writing.writers.iter_mut();
            for writer in writers.filter(|writer| writer.holder == holder) {
                writer.is_lost = true;
                let newcomer = writer.want;
                if let Some(revoke) = writer.revoke.take() {
                    let _ = revoke.send(Revocation { newcomer });
                }
            }
        });
    }

    /// Whether `holder` was found to be no writer any more.
    pub(super) fn is_lost(&self, id: SessionId, holder: Holder) -> bool {
        self.writer(id, holder, |writer| writer.is_lost)
            .unwrap_or(false)
    }

    /// What it wants, and the connection it was last seen over.
    pub(super) fn want(&self, id: SessionId, holder: Holder) -> Option<(Want, u64)> {
        self.writer(id, holder, |writer| (writer.want, writer.epoch))
    }

    pub(super) fn seen(&self, id: SessionId, holder: Holder, epoch: u64) {
        self.writer(id, holder, |writer| writer.epoch = epoch);
    }

    fn writer<T>(
        &self,
        id: SessionId,
        holder: Holder,
        with: impl FnOnce(&mut Writer) -> T,
    ) -> Option<T> {
        let mut table = self.table.lock();
        let mut writers = table.get_mut(&id)?.writers.iter_mut();
        writers.find(|writer| writer.holder == holder).map(with)
    }

    /// What Redis said last of a session that is written here.
    pub(super) fn known(&self, id: SessionId) -> Known {
        let table = self.table.lock();
        table
            .get(&id)
            .map(|writing| Arc::clone(&writing.known))
            .unwrap_or_default()
    }

    pub(super) fn all(&self) -> Vec<(SessionId, Holder)> {
        let table = self.table.lock();
        let each = table.iter().flat_map(|(id, writing)| {
            let writers = writing.writers.iter().filter(|writer| !writer.is_lost);
            writers.map(|writer| (*id, writer.holder))
        });
        each.collect()
    }
}
