//! Of which sessions this server may speak without asking anybody, and who else is there.
//!
//! Laws
//! - A session has one owner at most: the server that knows every byte of it. It became that while
//!   Redis named it as the last writer, and is that until it has said itself that another one is.
//! - Only the owner goes on while Redis is away. After a start nothing is owned: others may have
//!   gone on meanwhile.
//! - A server that was not heard of for [`GONE`], by one that hears, is gone; nobody waits for it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use proxy_core::id::SessionId;
use tokio::time::Instant;
use uuid::Uuid;

/// How often each server says that it is there.
pub(super) const HERE_EVERY: Duration = Duration::from_secs(1);
/// See the laws. A link that was lost a short time ago is back within seconds.
const GONE: Duration = Duration::from_secs(8);
/// Who does not hear itself for so long hears nobody.
const DEAF: Duration = Duration::from_secs(3);
/// Sessions that are remembered to be elsewhere.
const GIVEN_MAX: usize = 100_000;

/// See the module.
#[derive(Default)]
pub(super) struct Owned {
    table: Mutex<Table>,
    peers: Mutex<Peers>,
}

#[derive(Default)]
struct Table {
    mine: HashSet<SessionId>,
    /// Who asked for it last, and which question that was.
    given: HashMap<SessionId, (Uuid, u64)>,
    /// Counts the questions.
    asked: u64,
    /// The last question whose session is not remembered any more.
    dropped: u64,
}

#[derive(Default)]
struct Peers {
    heard: HashMap<Uuid, Instant>,
    /// Since when this server hears, and when it heard itself last.
    hearing: Option<(Instant, Instant)>,
}

impl Owned {
    pub(super) fn is_mine(&self, id: SessionId) -> bool {
        self.table.lock().mine.contains(&id)
    }

    /// A new session: nobody else knows it.
    pub(super) fn begin(&self, id: SessionId) {
        self.table.lock().mine.insert(id);
    }

    /// To be called before the lease is asked for; for [`Self::gain`].
    pub(super) fn mark(&self) -> u64 {
        self.table.lock().asked
    }

    /// It is owned, unless another one asked for it since `mark`.
    pub(super) fn gain(&self, id: SessionId, mark: u64) {
        let mut table = self.table.lock();
        let given = table.given.get(&id).map_or(0, |(_, asked)| *asked);
        if given.max(table.dropped) <= mark {
            table.given.remove(&id);
            table.mine.insert(id);
        }
    }

    /// The server `to` is about to own it.
    pub(super) fn give(&self, id: SessionId, to: Uuid) {
        let mut table = self.table.lock();
        table.mine.remove(&id);
        table.asked += 1;
        let asked = table.asked;
        if GIVEN_MAX <= table.given.len() {
            table.given.clear();
            table.dropped = asked;
        }
        table.given.insert(id, (to, asked));
    }

    /// Who asked for it last, since it was owned here.
    pub(super) fn given_to(&self, id: SessionId) -> Option<Uuid> {
        self.table.lock().given.get(&id).map(|(to, _)| *to)
    }

    /// Redis names another one.
    pub(super) fn lose(&self, id: SessionId) {
        self.table.lock().mine.remove(&id);
    }

    /// There is no such session any more.
    pub(super) fn forget(&self, id: SessionId) {
        let mut table = self.table.lock();
        table.mine.remove(&id);
        table.given.remove(&id);
    }

    /// A server said something.
    pub(super) fn hear(&self, store: Uuid, is_self: bool) {
        let now = Instant::now();
        let mut peers = self.peers.lock();
        if !is_self {
            peers.heard.insert(store, now);
            return;
        }
        let since = match peers.hearing {
            Some((since, last)) if now - last <= DEAF => since,
            _ => now,
        };
        peers.hearing = Some((since, now));
    }

    pub(super) fn is_gone(&self, store: Uuid) -> bool {
        self.peers.lock().is_gone(store)
    }

    /// Who is there, as far as one knows.
    pub(super) fn present(&self) -> Vec<Uuid> {
        let mut peers = self.peers.lock();
        let all: Vec<Uuid> = peers.heard.keys().copied().collect();
        let (gone, present): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|store| peers.is_gone(*store));
        for store in gone {
            peers.heard.remove(&store);
        }
        present
    }
}

impl Peers {
    fn is_gone(&self, store: Uuid) -> bool {
        let now = Instant::now();
        let Some((since, last)) = self.hearing else {
            return false;
        };
        let heard = self.heard.get(&store).map_or(since, |at| since.max(*at));
        now - last <= DEAF && GONE <= now - heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_one_asked_for_meanwhile_is_not_gained() {
        let (owned, id, other) = (Owned::default(), SessionId::random(), Uuid::new_v4());
        owned.gain(id, owned.mark());
        assert!(owned.is_mine(id));
        let mark = owned.mark();
        owned.give(id, other);
        assert!(!owned.is_mine(id));
        owned.gain(id, mark);
        assert!(!owned.is_mine(id));
        assert_eq!(owned.given_to(id), Some(other));
        owned.gain(id, owned.mark());
        assert!(owned.is_mine(id));
        assert_eq!(owned.given_to(id), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_hears_says_that_another_one_is_gone() {
        let (owned, me, other) = (Owned::default(), Uuid::new_v4(), Uuid::new_v4());
        owned.hear(other, false);
        tokio::time::advance(GONE * 2).await;
        assert!(!owned.is_gone(other), "deaf");
        for _ in 0..GONE.as_secs() {
            owned.hear(me, true);
            assert!(!owned.is_gone(other), "hears for too short a time");
            tokio::time::advance(HERE_EVERY).await;
        }
        owned.hear(me, true);
        assert!(owned.is_gone(other));
        assert!(owned.is_gone(Uuid::new_v4()), "never heard of");
        owned.hear(other, false);
        assert_eq!(owned.present(), [other]);
    }
}
