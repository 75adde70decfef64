//! Who may write to which session, in memory.
//!
//! Leases die with the process, as do the requests that hold them. A session without holder and
//! without waiting claim takes no room here.
//!
//! Laws
//! - No two holders of a session may write the same bytes, and no two go on at its end
//!   ([`Want::conflicts`]); of claims that conflict the newest wins.
//! - A lease passes on only when its holder has ended *and* the holder's queued changes are
//!   settled, so that a new holder never reads a record that is about to change under it.
//! - Nothing is handed over in messages. A wake-up only says "look again", so a claim that is
//!   dropped at any moment leaves nothing behind.
//! - No lock is held while something else is woken, dropped or waited for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proxy_core::extent::Want;
use proxy_core::id::SessionId;
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
    /// Names claims.
    tickets: u64,
}

#[derive(Debug, Default)]
struct Slot {
    held: Vec<Held>,
    claims: Vec<Waiting>,
}

/// A claim that is not granted yet.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    want: Want,
    /// A newer claim conflicts with it.
    superseded: bool,
    /// Wakes it when something changed.
    wake: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Held {
    holder: Holder,
    want: Want,
    /// `None` once it was told.
    revoke: Option<oneshot::Sender<Revocation>>,
    /// Changes of this holder that are queued and not settled.
    changes_unsettled: usize,
    /// The holder has let go; the lease ends with its last unsettled change.
    ended: bool,
}

impl Slot {
    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.claims.is_empty()
    }

    /// Everybody who waits, to be woken without the lock.
    fn wakes(&mut self) -> Vec<oneshot::Sender<()>> {
        let wakes = self.claims.iter_mut();
        wakes.filter_map(|claim| claim.wake.take()).collect()
    }

    fn holder(&mut self, holder: Holder) -> Option<&mut Held> {
        self.held.iter_mut().find(|held| held.holder == holder)
    }
}

enum Step {
    Granted(Holder, oneshot::Receiver<Revocation>),
    Superseded,
    Wait(oneshot::Receiver<()>),
}

impl Leases {
    /// Takes a lease of `id`, ending older holders and claims that conflict with it. Waits up to
    /// `bound`.
    ///
    /// # Cancellation
    /// Dropping the future gives up the claim.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        id: SessionId,
        want: Want,
        bound: Duration,
    ) -> Result<Lease, Refused> {
        let deadline = Instant::now() + bound;
        let place = self.enter(id, want);
        loop {
            match self.step(id, place.ticket, want) {
                Step::Granted(holder, revoked) => {
                    let guard = self.guard(id, holder);
                    return Ok(Lease {
                        holder,
                        revoked,
                        guard,
                    });
                }
                Step::Superseded => return Err(Refused::Superseded),
                // A wake-up that was dropped is one, too: look again.
                Step::Wait(wake) => match timeout_at(deadline, wake).await {
                    Ok(_) => {}
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
        let (held, _) = Held::new(Want::alone());
        let holder = held.holder;
        let slot = Slot {
            held: vec![held],
            claims: Vec::new(),
        };
        table.slots.insert(id, slot);
        drop(table);
        Some(self.guard(id, holder))
    }

    /// Registers a change of `holder`: its lease will not pass on before the result is dropped.
    /// `None`: it is no holder, or has ended.
    pub(crate) fn begin_change(self: &Arc<Self>, id: SessionId, holder: Holder) -> Option<Change> {
        let mut table = self.table.lock();
        let held = table.slots.get_mut(&id)?.holder(holder)?;
        if held.ended {
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

    /// Ends every lease and every claim of `id`: what they are about is over.
    pub(crate) fn end_all(&self, id: SessionId) {
        let mut table = self.table.lock();
        let Some(slot) = table.slots.get_mut(&id) else {
            return;
        };
        for claim in &mut slot.claims {
            claim.superseded = true;
        }
        let (freed, wakes) = (std::mem::take(&mut slot.held), slot.wakes());
        if slot.is_idle() {
            table.slots.remove(&id);
        }
        drop(table);
        drop(freed);
        wake_all(wakes);
    }

    /// Whether someone holds a lease of `id`.
    pub(crate) fn is_held(&self, id: SessionId) -> bool {
        let table = self.table.lock();
        let slot = table.slots.get(&id);
        slot.is_some_and(|slot| !slot.held.is_empty())
    }

    /// Sessions with a holder or a waiting claim.
    pub(crate) fn count(&self) -> usize {
        self.table.lock().slots.len()
    }

    fn guard(self: &Arc<Self>, id: SessionId, holder: Holder) -> LeaseGuard {
        let leases = Arc::clone(self);
        LeaseGuard::new(move || leases.end(id, holder))
    }

    /// Makes this the newest claim and ends the wait of those that it conflicts with.
    fn enter(self: &Arc<Self>, id: SessionId, want: Want) -> Place {
        let mut table = self.table.lock();
        table.tickets += 1;
        let ticket = table.tickets;
        let slot = table.slots.entry(id).or_default();
        let mut wakes = Vec::new();
        for older in slot
            .claims
            .iter_mut()
            .filter(|old| old.want.conflicts(want))
        {
            older.superseded = true;
            wakes.extend(older.wake.take());
        }
        slot.claims.push(Waiting {
            ticket,
            want,
            superseded: false,
            wake: None,
        });
        drop(table);
        wake_all(wakes);
        Place {
            leases: Arc::clone(self),
            id,
            ticket,
        }
    }

    /// One look at the slot: take it, give up, or wait for the next change.
    fn step(&self, id: SessionId, ticket: u64, want: Want) -> Step {
        let mut table = self.table.lock();
        let slot = table.slots.entry(id).or_default();
        let Some(at) = slot.claims.iter().position(|claim| claim.ticket == ticket) else {
            return Step::Superseded;
        };
        if slot.claims[at].superseded {
            return Step::Superseded;
        }
        let mut revoked = Vec::new();
        let mut is_free = true;
        for held in slot
            .held
            .iter_mut()
            .filter(|held| held.want.conflicts(want))
        {
            is_free = false;
            revoked.extend(held.revoke.take());
        }
        if is_free {
            slot.claims.swap_remove(at);
            let (held, revoked) = Held::new(want);
            let holder = held.holder;
            slot.held.push(held);
            return Step::Granted(holder, revoked);
        }
        let (wake, woken) = oneshot::channel();
        slot.claims[at].wake = Some(wake);
        drop(table);
        for revoke in revoked {
            // A holder that no longer listens is about to end.
            let _ = revoke.send(Revocation { newcomer: want });
        }
        Step::Wait(woken)
    }

    /// Changes the state of `holder`; frees the lease when it has ended and nothing is unsettled.
    fn settle(&self, id: SessionId, holder: Holder, change: impl FnOnce(&mut Held)) {
        let mut table = self.table.lock();
        let Some(slot) = table.slots.get_mut(&id) else {
            return;
        };
        let Some(held) = slot.holder(holder) else {
            return;
        };
        change(held);
        if !held.ended || held.changes_unsettled > 0 {
            return;
        }
        let at = slot.held.iter().position(|held| held.holder == holder);
        let freed = at.map(|at| slot.held.swap_remove(at));
        let wakes = slot.wakes();
        if slot.is_idle() {
            table.slots.remove(&id);
        }
        drop(table);
        drop(freed);
        wake_all(wakes);
    }
}

fn wake_all(wakes: Vec<oneshot::Sender<()>>) {
    for wake in wakes {
        // A claim that was dropped meanwhile cleans up by itself, see `Place`.
        let _ = wake.send(());
    }
}

impl Held {
    fn new(want: Want) -> (Self, oneshot::Receiver<Revocation>) {
        let (revoke, revoked) = oneshot::channel();
        let holder = Holder::random();
        let held = Self {
            holder,
            want,
            revoke: Some(revoke),
            changes_unsettled: 0,
            ended: false,
        };
        (held, revoked)
    }
}

/// A claim's place in the table; leaving it in any way removes the claim, and a slot that nobody
/// needs.
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
        let mine = slot
            .claims
            .iter()
            .position(|claim| claim.ticket == self.ticket);
        let gone = mine.map(|at| slot.claims.swap_remove(at));
        if slot.is_idle() {
            table.slots.remove(&self.id);
        }
        drop(table);
        drop(gone);
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
