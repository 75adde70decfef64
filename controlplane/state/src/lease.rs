//! Who may write to which session, in memory.
//!
//! Leases die with the process, as do the requests that hold them. A session without holder and
//! without waiting claim takes no room here.
//!
//! Laws
//! - At most one holder and one waiting claim per session: a newer claim ends the older wait.
//! - A lease passes on only when its holder has ended *and* the holder's queued changes are
//!   settled, so that a new holder never reads an offset that is about to move.
//! - Nothing is handed over in messages. A wake-up only says "look again", so a claim that is
//!   dropped at any moment leaves nothing behind.
//! - No lock is held while something else is woken, dropped or waited for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proxy_core::id::SessionId;
use proxy_core::units::Offset;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::session::{Holder, LeaseGuard, Revocation};

/// All leases of one store.
///
/// The number of slots is bounded by the number of requests: each has a holder or a live claim.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    table: Mutex<Table>,
}

/// What [`Leases::acquire`] yields.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Who holds it now.
    pub(crate) holder: Holder,
    /// Fires when a newer claim arrives.
    pub(crate) revoked: oneshot::Receiver<Revocation>,
    /// Ends it when dropped.
    pub(crate) guard: LeaseGuard,
}

/// Why a claim got no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The holder did not end within the bound.
    Held,
    /// A newer claim came.
    Superseded,
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<SessionId, Slot>,
    /// Of all claims so far, the number of the newest.
    tickets: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Ticket of the newest claim on this session.
    newest: u64,
    held: Option<Held>,
    /// Wakes the claim that waits; it is the newest one.
    waiting: Option<oneshot::Sender<Wake>>,
}

#[derive(Debug)]
struct Held {
    holder: Holder,
    /// `None` once it was told.
    revoke: Option<oneshot::Sender<Revocation>>,
    /// Changes of this holder that are queued and not settled.
    changes_unsettled: usize,
    /// The holder has let go; the lease ends with its last unsettled change.
    ended: bool,
}

/// Why a waiting claim is woken. When the slot was dropped instead, it looks again too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    Free,
    Superseded,
}

enum Step {
    Granted(Holder, oneshot::Receiver<Revocation>),
    Superseded,
    Wait(oneshot::Receiver<Wake>),
}

impl Leases {
    /// Takes the lease of `id`, ending an older holder and older claims. Waits up to `bound`.
    ///
    /// # Cancellation
    /// Dropping the future gives up the claim.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        id: SessionId,
        offset: Option<Offset>,
        bound: Duration,
    ) -> Result<Lease, Refused> {
        let deadline = Instant::now() + bound;
        let place = self.enter(id);
        loop {
            match self.step(id, place.ticket, offset) {
                Step::Granted(holder, revoked) => {
                    let guard = self.guard(id, holder);
                    return Ok(Lease {
                        holder,
                        revoked,
                        guard,
                    });
                }
                Step::Superseded => return Err(Refused::Superseded),
                Step::Wait(wake) => match timeout_at(deadline, wake).await {
                    Ok(Ok(Wake::Superseded)) => return Err(Refused::Superseded),
                    Ok(Ok(Wake::Free) | Err(_)) => {}
                    Err(_) => return Err(Refused::Held),
                },
            }
        }
    }

    /// Takes the lease of `id` only if nobody holds or wants it.
    pub(crate) fn acquire_idle(self: &Arc<Self>, id: SessionId) -> Option<LeaseGuard> {
        let mut table = self.table.lock();
        if table.slots.contains_key(&id) {
            return None;
        }
        table.tickets += 1;
        let newest = table.tickets;
        let (held, _) = Held::new();
        let holder = held.holder;
        table.slots.insert(
            id,
            Slot {
                newest,
                held: Some(held),
                waiting: None,
            },
        );
        drop(table);
        Some(self.guard(id, holder))
    }

    /// Registers a change of `holder`: the lease will not pass on before the result is dropped.
    /// `None`: it is not the holder, or has ended.
    pub(crate) fn begin_change(self: &Arc<Self>, id: SessionId, holder: Holder) -> Option<Change> {
        let mut table = self.table.lock();
        let held = table.slots.get_mut(&id)?.held.as_mut()?;
        if held.holder != holder || held.ended {
            return None;
        }
        held.changes_unsettled += 1;
        drop(table);
        Some(Change {
            leases: Arc::clone(self),
            id,
            holder,
        })
    }

    /// Ends the lease of `holder`, if it has it.
    pub(crate) fn end(&self, id: SessionId, holder: Holder) {
        self.settle(id, holder, |held| held.ended = true);
    }

    /// Whether someone holds the lease of `id`.
    pub(crate) fn is_held(&self, id: SessionId) -> bool {
        self.table
            .lock()
            .slots
            .get(&id)
            .is_some_and(|slot| slot.held.is_some())
    }

    /// Sessions with a holder or a waiting claim.
    pub(crate) fn count(&self) -> usize {
        self.table.lock().slots.len()
    }

    fn guard(self: &Arc<Self>, id: SessionId, holder: Holder) -> LeaseGuard {
        let leases = Arc::clone(self);
        LeaseGuard::new(move || leases.end(id, holder))
    }

    /// Makes this the newest claim and ends the wait of the one before.
    fn enter(self: &Arc<Self>, id: SessionId) -> Place {
        let mut table = self.table.lock();
        table.tickets += 1;
        let ticket = table.tickets;
        let slot = table.slots.entry(id).or_default();
        slot.newest = ticket;
        let older = slot.waiting.take();
        drop(table);
        if let Some(older) = older {
            // Nobody there any more is fine: that claim was dropped.
            let _ = older.send(Wake::Superseded);
        }
        Place {
            leases: Arc::clone(self),
            id,
            ticket,
        }
    }

    /// One look at the slot: take it, give up, or wait for the next change.
    fn step(&self, id: SessionId, ticket: u64, offset: Option<Offset>) -> Step {
        let mut table = self.table.lock();
        let slot = table.slots.entry(id).or_default();
        if ticket < slot.newest {
            return Step::Superseded;
        }
        slot.newest = ticket;
        let Some(held) = slot.held.as_mut() else {
            let (held, revoked) = Held::new();
            let holder = held.holder;
            slot.held = Some(held);
            return Step::Granted(holder, revoked);
        };
        let revoke = held.revoke.take();
        let (wake, woken) = oneshot::channel();
        slot.waiting = Some(wake);
        drop(table);
        if let Some(revoke) = revoke {
            // A holder that no longer listens is about to end.
            let _ = revoke.send(Revocation {
                newcomer_offset: offset,
            });
        }
        Step::Wait(woken)
    }

    /// Changes the state of `holder`; frees the lease when it has ended and nothing is unsettled.
    fn settle(&self, id: SessionId, holder: Holder, change: impl FnOnce(&mut Held)) {
        let mut table = self.table.lock();
        let Some(slot) = table.slots.get_mut(&id) else {
            return;
        };
        let Some(held) = slot.held.as_mut() else {
            return;
        };
        if held.holder != holder {
            return;
        }
        change(held);
        if !held.ended || held.changes_unsettled > 0 {
            return;
        }
        let freed = slot.held.take();
        let waiting = slot.waiting.take();
        if waiting.is_none() {
            table.slots.remove(&id);
        }
        drop(table);
        drop(freed);
        if let Some(waiting) = waiting {
            // A claim that was dropped meanwhile cleans up by itself, see `Place`.
            let _ = waiting.send(Wake::Free);
        }
    }
}

impl Held {
    fn new() -> (Self, oneshot::Receiver<Revocation>) {
        let (revoke, revoked) = oneshot::channel();
        let holder = Holder::random();
        let held = Self {
            holder,
            revoke: Some(revoke),
            changes_unsettled: 0,
            ended: false,
        };
        (held, revoked)
    }
}

/// A claim's place in the table; leaving it in any way removes a slot that nobody needs.
struct Place {
    leases: Arc<Leases>,
    id: SessionId,
    ticket: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.leases.table.lock();
        let Some(slot) = table.slots.get_mut(&self.id) else {
            return;
        };
        if slot.newest != self.ticket {
            return;
        }
        let waiting = slot.waiting.take();
        if slot.held.is_none() {
            table.slots.remove(&self.id);
        }
        drop(table);
        drop(waiting);
    }
}

/// A queued change of a holder. Dropping it settles the change.
#[derive(Debug)]
pub(crate) struct Change {
    leases: Arc<Leases>,
    id: SessionId,
    holder: Holder,
}

impl Change {
    /// Ends the lease together with this change.
    pub(crate) fn end_lease(self) {
        self.leases.end(self.id, self.holder);
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.leases
            .settle(self.id, self.holder, |held| held.changes_unsettled -= 1);
    }
}
