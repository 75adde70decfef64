//! Upload sessions that all servers of a fleet share: the local store, and Redis.
//!
//! Laws
//! - See [`Sessions`]. Every byte is on disk before anybody records it, and on record in the local
//!   store before a caller hears of it: Redis may be behind, or be lost.
//! - What Redis says of a session and what is on record here are one truth together: all bytes of
//!   either are durable, finished is finished, offsets never go back.
//! - Redis away stops nobody whose session is owned here: it goes on with the local store, and is
//!   merged when Redis is back. A session that may have moved on elsewhere is refused meanwhile: a
//!   wrong offset is worse than none.
//! - So the server that wrote last is asked before anybody else names an offset, and gives the
//!   session away before anybody else writes; see `owned`.
//! - A byte that makes an upload whole is on record nowhere before the file is in its place.
//! - One writer per byte: the lease here comes first, then the one in Redis, which an original
//!   server respects, too. Among our own the newest wins; an original that writes is waited for.
//!
//! Decisions
//! - *The lease in Redis has one value for all of ours.* Who of us writes what is in `upload:S`, so
//!   that parts of one file can be written on several servers at a time.
//! - *A writer that is not heard of for nine seconds is none*: a claim waits ten.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proxy_core::extent::{Extent, Extents, Recorded, Want};
use proxy_core::id::{SessionId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_core::units::Offset;
use proxy_state::{
    Change, Claim, ClaimError, ClaimOutcome, EmbeddedStore, Grant, Holder, LeaseError, LeaseGuard,
    Session, SessionState, Sessions, StateError,
};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::held::Held;
use self::owned::Owned;
use self::record::{Committed, Looked, Record, Records, Taken};
use self::talk::{Question, Said, Talk};
use crate::link::{Link, LinkError};

mod held;
mod mend;
mod owned;
mod record;
mod talk;

/// How long a claim waits for a writer on another server.
const LEASE_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at a session that is written elsewhere.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// Attempts to make one change while others make theirs.
const ATTEMPTS_MAX: usize = 50;
/// So long after a connection was made, others are asked what Redis may have forgotten.
const SETTLE: Duration = Duration::from_secs(8);
/// How long a look waits for a server that has to be asked, and a claim.
const ASK_WAIT: Duration = Duration::from_secs(2);
const TAKE_WAIT: Duration = Duration::from_secs(8);

/// What happened, for metrics.
#[derive(Debug, Default)]
pub struct SessionCounters {
    /// Calls that were answered from the local store because Redis was away.
    pub degraded: AtomicU64,
    /// Claims that found another writer in the way.
    pub conflicts: AtomicU64,
    /// Claims of sessions that another server wrote last.
    pub takeovers: AtomicU64,
    /// Sessions that were merged into Redis.
    pub merged: AtomicU64,
    /// Writers that found their lease gone.
    pub lost: AtomicU64,
    /// Sessions whose last changes Redis does not have yet.
    pub dirty: AtomicU64,
    /// Servers that hear each other, this one included.
    pub servers: AtomicU64,
}

/// See the module.
pub struct SharedSessions {
    inner: Arc<Inner>,
    tasks: Vec<AbortHandle>,
}

struct Inner {
    local: Arc<EmbeddedStore>,
    records: Records,
    held: Held,
    talk: Talk,
    counters: Arc<SessionCounters>,
    /// Sessions whose last changes Redis does not have.
    dirty: Mutex<HashSet<SessionId>>,
    /// Sessions that were abandoned while Redis was away.
    gone: Mutex<HashSet<SessionId>>,
    owned: Owned,
    /// When the connection was made, or Redis was found empty.
    since: Mutex<Instant>,
    /// What is lost with everything else that Redis knows.
    word: Mutex<String>,
    /// The connection of the last call.
    epoch: AtomicU64,
}

/// What became of a change in Redis.
enum Shared<T> {
    /// It is made; the session is this now.
    Done(Box<Session>),
    /// It was not to be made.
    Stopped(T),
    /// The writer is none any more.
    Lost,
    /// Redis is away, or has other things to do.
    Away,
}

impl Drop for SharedSessions {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl SharedSessions {
    /// Shares the sessions of `local` over `link`, which leads to database 8. `store` names the
    /// local store, for as long as it lives. To be called inside a runtime.
    pub fn start(local: Arc<EmbeddedStore>, link: Link, store: Uuid) -> Self {
        let records = Records {
            link: link.clone(),
            store,
        };
        let inner = Arc::new(Inner {
            local,
            records,
            held: Held::default(),
            talk: Talk::new(link),
            counters: Arc::default(),
            dirty: Mutex::default(),
            gone: Mutex::default(),
            owned: Owned::default(),
            since: Mutex::new(Instant::now()),
            word: Mutex::default(),
            epoch: AtomicU64::new(0),
        });
        let tasks = mend::start(&inner);
        Self { inner, tasks }
    }

    /// What happened so far.
    pub fn counters(&self) -> Arc<SessionCounters> {
        Arc::clone(&self.inner.counters)
    }

    /// Why sessions are not shared now, or not all of them; `None` in health.
    pub fn degraded(&self) -> Option<String> {
        let link = &self.inner.records.link;
        if !link.is_up() {
            let why = link.fault().unwrap_or_else(|| "not connected yet".into());
            return Some(format!("uploads are not shared: {why}"));
        }
        match self.inner.counters.dirty.load(Ordering::Relaxed) {
            0 => None,
            dirty => Some(format!("{dirty} uploads are not merged yet")),
        }
    }

    /// Checks that a writer is one; [`LeaseError::Lost`] otherwise.
    fn check(&self, id: SessionId, holder: Holder) -> Result<(), LeaseError> {
        match self.inner.held.is_lost(id, holder) {
            true => Err(LeaseError::Lost),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Sessions for SharedSessions {
    async fn create(&self, session: Session) -> Result<(), StateError> {
        let inner = &self.inner;
        inner.local.create(session.clone()).await?;
        inner.owned.begin(session.id);
        if inner.records.create(&session).await.is_err() {
            inner.soil(session.id);
        }
        Ok(())
    }

    async fn look(&self, id: SessionId) -> Result<Option<Session>, StateError> {
        let inner = &self.inner;
        let local = inner.local.look(id).await?;
        if local.as_ref().is_some_and(Session::is_finished) {
            return Ok(local);
        }
        let record = match inner.records.look(id).await {
            Ok(Looked::Record(record)) => record,
            Ok(Looked::Gone) => {
                inner.owned.forget(id);
                inner.local.abandon(id).await?;
                return Ok(None);
            }
            Err(error) => {
                inner.fail_over(id, local.is_some(), &error)?;
                return Ok(local);
            }
        };
        let shared = match record.session(local.as_ref()) {
            Some(session) => Some(session),
            None => record
                .offset()
                .and_then(|offset| of_the_original(id, offset)),
        };
        let mut known = both(local, shared);
        if inner.may_know_more(id, &record) {
            let others = inner
                .ask(id, &record, None, Instant::now() + ASK_WAIT)
                .await?;
            known = both(known, others);
        }
        Ok(known)
    }

    async fn claim(&self, want: Claim) -> Result<ClaimOutcome, ClaimError> {
        let inner = &self.inner;
        let id = want.session.id;
        let is_known = inner.local.look(id).await?.is_some();
        if !inner.records.link.is_up() {
            inner.fail_over(id, is_known, &LinkError::Down)?;
        }
        let granted = match inner.local.claim(want.clone()).await? {
            ClaimOutcome::Granted(granted) => *granted,
            finished => return Ok(finished),
        };
        let holder = granted.holder;
        let (epoch, mark) = (inner.records.link.state().epoch, inner.owned.mark());
        let ticket = inner.held.enter(id, want.want);
        let shared = inner
            .take_over(&granted, &want, is_known, ticket, mark)
            .await;
        let session = match shared {
            Ok(session) => session,
            Err(error) => {
                inner.held.leave(id, ticket);
                inner.release(id, holder);
                if !is_known {
                    drop(granted);
                    inner.local.forget(id).await?;
                }
                return Err(error);
            }
        };
        if session.is_finished() {
            inner.held.leave(id, ticket);
            inner.release(id, holder);
            return Ok(ClaimOutcome::Finished(Box::new(session)));
        }
        let granted = Grant { session, ..granted };
        let granted = inner.attend(id, granted, want.want, epoch);
        inner.held.leave(id, ticket);
        Ok(ClaimOutcome::Granted(Box::new(granted)))
    }

    async fn advance(
        &self,
        id: SessionId,
        holder: Holder,
        to: Offset,
    ) -> Result<Recorded, LeaseError> {
        self.check(id, holder)?;
        let inner = &self.inner;
        let recorded = inner.local.advance(id, holder, to).await?;
        let extent = Extent::new(0, to.get());
        let change = |session: &mut Session| {
            let mut durable = session.durable();
            durable.insert(extent);
            session.set_durable(&durable);
            Ok::<(), Recorded>(())
        };
        match inner.share(id, Some(holder), change).await {
            Shared::Done(session) => Ok(recorded_of(&session)),
            Shared::Stopped(recorded) => Ok(recorded),
            Shared::Lost => Err(LeaseError::Lost),
            Shared::Away => inner.alone(id, recorded),
        }
    }

    async fn record(
        &self,
        id: SessionId,
        holder: Holder,
        extent: Extent,
    ) -> Result<Recorded, LeaseError> {
        self.check(id, holder)?;
        let inner = &self.inner;
        let ranges_max = inner.local.ranges_max();
        // The bytes that make it whole are for the end; only Redis knows those of others, so it is
        // asked first. They are on disk already: it may know of them before the store here does.
        let change = |session: &mut Session| {
            let mut durable = session.durable();
            durable.insert(extent);
            let whole = durable.is_whole(session.size);
            if whole {
                return Err(Ok(Recorded { durable, whole }));
            }
            // As the store here, which is asked only when it is on record there.
            if ranges_max < durable.len() {
                return Err(Err(LeaseError::TooManyRanges { ranges_max }));
            }
            session.set_durable(&durable);
            Ok(())
        };
        match inner.share(id, Some(holder), change).await {
            Shared::Done(session) => {
                let here = inner.local.record(id, holder, extent).await?;
                let mut recorded = recorded_of(&session);
                recorded.whole |= here.whole;
                Ok(recorded)
            }
            Shared::Stopped(stopped) => stopped,
            Shared::Lost => Err(LeaseError::Lost),
            Shared::Away => {
                let recorded = inner.local.record(id, holder, extent).await?;
                inner.alone(id, recorded)
            }
        }
    }

    async fn secure(&self, id: SessionId) -> Result<(), StateError> {
        self.inner.local.secure(id).await
    }

    async fn change(
        &self,
        id: SessionId,
        holder: Holder,
        change: Change,
    ) -> Result<Session, LeaseError> {
        self.check(id, holder)?;
        let inner = &self.inner;
        // Numbers and places of pieces are given in one place: where all of us look.
        let pieces_max = inner.local.ranges_max();
        let made = |session: &mut Session| session.apply(change.clone(), pieces_max);
        match inner.share(id, Some(holder), made).await {
            Shared::Done(session) => Ok(inner.local.adopt(*session).await?),
            Shared::Stopped(refusal) => Err(refusal),
            Shared::Lost => Err(LeaseError::Lost),
            Shared::Away => {
                let changed = inner.local.change(id, holder, change).await?;
                inner.alone(id, changed)
            }
        }
    }

    async fn release(&self, id: SessionId, holder: Holder) {
        self.inner.local.release(id, holder).await;
        self.inner.held.remove(id, holder);
        self.inner.release(id, holder);
    }

    async fn finish(
        &self,
        id: SessionId,
        holder: Holder,
        last_from: Offset,
        target: RelPath,
    ) -> Result<(), LeaseError> {
        let inner = &self.inner;
        let finish = inner.local.finish(id, holder, last_from, target.clone());
        finish.await?;
        let change = |session: &mut Session| {
            session.set_durable(&Extents::prefix_of(session.size));
            session.pieces.all.clear();
            session.state = SessionState::Finished {
                last_from,
                target: target.clone(),
            };
            Ok::<(), ()>(())
        };
        // The file is in its place: whoever holds the lease now has nothing left to write.
        if let Shared::Lost = inner.share(id, Some(holder), change).await {
            inner.share(id, None, change).await;
        }
        Ok(())
    }

    async fn expired(&self, now_unix_s: u64, max: usize) -> Result<Vec<Session>, StateError> {
        let mut expired = self.inner.local.expired(now_unix_s, max).await?;
        let mut written = HashSet::new();
        for session in expired.iter().filter(|session| !session.is_finished()) {
            if let Ok(Looked::Record(record)) = self.inner.records.look(session.id).await
                && record.is_held
            {
                written.insert(session.id);
            }
        }
        expired.retain(|session| !written.contains(&session.id));
        Ok(expired)
    }

    async fn forget(&self, id: SessionId) -> Result<bool, StateError> {
        self.inner.owned.forget(id);
        let is_gone = self.inner.local.forget(id).await?;
        if is_gone {
            // Its token has expired: what is in Redis would keep its staging file for a day. If
            // Redis is away, it does.
            let _ = self.inner.records.abandon(id).await;
        }
        Ok(is_gone)
    }

    async fn abandon(&self, id: SessionId) -> Result<(), StateError> {
        let inner = &self.inner;
        let abandoned = inner.local.abandon(id).await;
        inner.owned.forget(id);
        if inner.records.abandon(id).await.is_err() {
            inner.gone.lock().insert(id);
        }
        let by = inner.talk.me;
        inner.talk.say(&Said::Gone { id, by }).await;
        abandoned
    }
}

fn recorded_of(session: &Session) -> Recorded {
    let durable = session.durable();
    let whole = durable.is_whole(session.size);
    Recorded { durable, whole }
}

fn both(one: Option<Session>, other: Option<Session>) -> Option<Session> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.merged(&other)),
        (one, other) => one.or(other),
    }
}

/// A session that an original server made, of which nothing but the offset is known: no inode, and
/// no size beyond the offset.
fn of_the_original(id: SessionId, offset: u64) -> Option<Session> {
    Some(Session {
        id,
        volume: String::new(),
        vfid: VFolderId::parse(&"0".repeat(32)).ok()?,
        relpath: RelPath::parse("unknown").ok()?,
        size: offset,
        offset: Offset::new(offset),
        ranges: Extents::default(),
        pieces: Default::default(),
        metadata: None,
        ino: 0,
        dev: 0,
        exp: u64::MAX,
        state: SessionState::Open,
    })
}

impl Inner {
    /// Whether this session can go on without Redis: known here, and owned.
    fn fail_over(&self, id: SessionId, is_known: bool, why: &LinkError) -> Result<(), StateError> {
        self.counters.degraded.fetch_add(1, Ordering::Relaxed);
        if !is_known || !self.owned.is_mine(id) {
            tracing::warn!(session = %id, %why, "an upload of another server can not go on here");
            return Err(StateError::Away);
        }
        Ok(())
    }

    /// Redis does not have the last change of a session.
    fn soil(&self, id: SessionId) {
        let mut dirty = self.dirty.lock();
        dirty.insert(id);
        self.count_dirty(dirty.len());
    }

    fn count_dirty(&self, dirty: usize) {
        let dirty = u64::try_from(dirty).unwrap_or(u64::MAX);
        self.counters.dirty.store(dirty, Ordering::Relaxed);
    }

    /// What is on record here alone may be acknowledged by the owner only. To be asked when it is
    /// on record: who takes the session from here is told of it, or it is not acknowledged.
    fn alone<T>(&self, id: SessionId, recorded: T) -> Result<T, LeaseError> {
        match self.owned.is_mine(id) {
            true => Ok(recorded),
            false => Err(LeaseError::Store(StateError::Away)),
        }
    }

    /// What others know, where one of them may know more than Redis. Who wrote last has to answer;
    /// just after Redis came back everybody has, unless the owner does.
    async fn ask(
        &self,
        id: SessionId,
        record: &Record,
        taking: Option<Uuid>,
        deadline: Instant,
    ) -> Result<Option<Session>, StateError> {
        let ours = self.records.store;
        loop {
            let is_settled = self.is_settled();
            let mut required: HashSet<Uuid> = record.beside.iter().copied().collect();
            required.extend(record.last());
            required.extend(self.owned.given_to(id));
            if !is_settled {
                required.extend(self.owned.present());
            }
            required.retain(|store| *store != ours && !self.owned.is_gone(*store));
            let all = record.is_empty() || !is_settled;
            let question = Question {
                id,
                taking,
                required,
                all,
            };
            let mut asked = self.talk.ask(question).await;
            let is_there = |store: &Uuid| *store != ours && !self.owned.is_gone(*store);
            asked.missed.retain(is_there);
            let is_said = asked.missed.is_empty() && (is_settled || asked.is_complete);
            if is_said || asked.has_owner && record.beside.is_empty() {
                return Ok(asked.known);
            }
            if deadline <= Instant::now() || !self.records.link.is_up() {
                let missed = asked.missed;
                tracing::debug!(session = %id, ?missed, "who may know more was not heard");
                return Err(StateError::Away);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether others may know more than what was read and the store here: Redis forgot it, or came
    /// back a short time ago, or names another server, who may have gone on alone.
    fn may_know_more(&self, id: SessionId, record: &Record) -> bool {
        let epoch = self.records.link.state().epoch;
        let is_new = self.epoch.swap(epoch, Ordering::Relaxed) != epoch;
        if is_new || *self.word.lock() != record.word {
            *self.since.lock() = Instant::now();
        }
        let is_another = record.last().is_some_and(|last| last != self.records.store);
        if is_another {
            self.owned.lose(id);
        }
        if !record.beside.is_empty() || is_another {
            return true;
        }
        let is_lost = record.is_empty() || self.owned.given_to(id).is_some();
        !self.owned.is_mine(id) && (is_lost || !self.is_settled())
    }

    /// Counts who hears us.
    async fn count(&self) {
        if let Some(heard) = self.talk.count().await {
            self.counters.servers.store(heard, Ordering::Relaxed);
        }
    }

    /// Whether everybody has had the time to tell Redis what it may have forgotten.
    fn is_settled(&self) -> bool {
        self.since.lock().elapsed() >= SETTLE
    }

    /// Gets the lease in Redis, and what is known there; puts both records together.
    async fn take_over(
        &self,
        granted: &Grant,
        want: &Claim,
        is_known: bool,
        ticket: u64,
        mark: u64,
    ) -> Result<Session, ClaimError> {
        let (id, begun) = (granted.session.id, Instant::now());
        let taken = self.take(id, granted.holder, want.want, ticket).await;
        let record = match taken {
            Ok(record) => record,
            Err(Untaken::Refused(refusal)) => return Err(refusal),
            Err(Untaken::Gone) => {
                self.local.abandon(id).await?;
                return Err(ClaimError::OtherUpload);
            }
            Err(Untaken::Away(why)) => {
                self.fail_over(id, is_known, &why)?;
                self.soil(id);
                return Ok(granted.session.clone());
            }
        };
        let shared = record.session(Some(&want.session));
        if shared
            .as_ref()
            .is_some_and(|shared| !shared.is_same_upload(&want.session))
        {
            return Err(ClaimError::OtherUpload);
        }
        let ours = self.records.store;
        let is_ours = record.last() == Some(ours);
        if record.last().is_some_and(|last| last != ours) {
            self.counters.takeovers.fetch_add(1, Ordering::Relaxed);
        }
        let mut session = match &shared {
            Some(shared) => granted.session.merged(shared),
            None => granted.session.clone(),
        };
        if self.may_know_more(id, &record) {
            let now = Instant::now();
            let until = (begun + LEASE_WAIT).clamp(now + ASK_WAIT, now + TAKE_WAIT);
            let others = self.ask(id, &record, Some(ours), until).await?;
            if let Some(other) = others.filter(|other| other.is_same_upload(&session)) {
                session = session.merged(&other);
            }
        }
        let place = (want.session.ino, want.session.dev);
        if session != granted.session {
            session = self.local.adopt(session).await?;
        }
        (session.ino, session.dev) = place;
        let is_alone = record.beside.is_empty();
        let is_put = is_ours && shared.as_ref() == Some(&session);
        *self.held.known(id).lock().await = Some(record);
        if !is_put {
            let put = |shared: &mut Session| {
                *shared = shared.merged(&session);
                (shared.ino, shared.dev) = place;
                Ok::<(), ()>(())
            };
            let holder = Some(granted.holder);
            match self.share_as(id, holder, put, Some(&session)).await {
                Shared::Lost => return Err(ClaimError::Superseded),
                Shared::Done(shared) => session = *shared,
                // Nobody knows that it is written here.
                Shared::Away if !self.owned.is_mine(id) => {
                    return Err(ClaimError::Store(StateError::Away));
                }
                Shared::Away | Shared::Stopped(()) => return Ok(session),
            }
        }
        if is_alone {
            self.owned.gain(id, mark);
        }
        Ok(session)
    }

    /// The lease in Redis, or why not.
    async fn take(
        &self,
        id: SessionId,
        holder: Holder,
        want: Want,
        ticket: u64,
    ) -> Result<Record, Untaken> {
        let deadline = Instant::now() + LEASE_WAIT;
        let mut is_told = false;
        loop {
            if self.held.is_superseded(id, ticket) {
                return Err(Untaken::Refused(ClaimError::Superseded));
            }
            match self.records.take(id, holder, want).await {
                Ok(Taken::Ok(record)) => return Ok(record),
                Ok(Taken::Gone) => return Err(Untaken::Gone),
                Ok(Taken::Busy(_) | Taken::Foreign) if deadline <= Instant::now() => {
                    return Err(Untaken::Refused(ClaimError::Held));
                }
                Ok(busy) => {
                    if !std::mem::replace(&mut is_told, true) {
                        self.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                        if let Taken::Busy(holders) = busy {
                            tracing::debug!(session = %id, ?holders, "another server writes");
                            self.talk.say(&revocation(id, self.talk.me, want)).await;
                        }
                    }
                    sleep(LOOK_EVERY).await;
                }
                Err(why) => return Err(Untaken::Away(why)),
            }
        }
    }

    /// A change in Redis of a session that is on record here.
    async fn share<E>(
        &self,
        id: SessionId,
        holder: Option<Holder>,
        change: impl Fn(&mut Session) -> Result<(), E>,
    ) -> Shared<E> {
        self.share_as(id, holder, change, None).await
    }

    /// A change in Redis, made to what is there; where nothing is there, to `like`, or to the
    /// record here.
    async fn share_as<E>(
        &self,
        id: SessionId,
        holder: Option<Holder>,
        change: impl Fn(&mut Session) -> Result<(), E>,
        like: Option<&Session>,
    ) -> Shared<E> {
        let known = self.held.known(id);
        let mut known = known.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let record = match known.take() {
                Some(record) => record,
                None => match self.records.look(id).await {
                    Ok(Looked::Record(record)) => record,
                    Ok(Looked::Gone) => return Shared::Lost,
                    Err(why) => return self.is_away(id, &why),
                },
            };
            let session = match like {
                Some(like) => record.session(Some(like)).or_else(|| Some(like.clone())),
                None => self.as_known(id, &record).await,
            };
            let Some(mut session) = session else {
                return Shared::Lost;
            };
            let store = self.writer(id, holder, &record);
            let is_unnamed = holder.is_none() && store != record.last();
            let is_to_be_made = like.is_some() && (record.is_without_ours() || is_unnamed);
            if let Err(stop) = change(&mut session)
                && !is_to_be_made
            {
                *known = Some(record);
                return Shared::Stopped(stop);
            }
            let commit = self.records.commit(&session, store, holder, &record);
            match commit.await {
                Ok(Committed::Ok(record)) => {
                    *known = Some(record);
                    return Shared::Done(Box::new(session));
                }
                Ok(Committed::Stale(record)) => *known = Some(record),
                Ok(Committed::Lost(record)) => match self.take_again(id, holder, &record).await {
                    Ok(true) => {}
                    Ok(false) => return Shared::Lost,
                    Err(why) => return self.is_away(id, &why),
                },
                Ok(Committed::Gone) => return Shared::Lost,
                Err(why) => return self.is_away(id, &why),
            }
        }
        self.is_away(id, &LinkError::Down)
    }

    /// Who is named as the last writer: who holds the lease, or owns it; without that the same as
    /// before.
    fn writer(&self, id: SessionId, holder: Option<Holder>, record: &Record) -> Option<Uuid> {
        let ours = Some(self.records.store);
        let last = record.last();
        if last.is_some() && last != ours {
            self.owned.lose(id);
        }
        match holder.is_some() || self.owned.is_mine(id) {
            true => ours,
            false => last.or_else(|| self.owned.given_to(id)),
        }
    }

    fn is_away<E>(&self, id: SessionId, why: &LinkError) -> Shared<E> {
        self.counters.degraded.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(session = %id, %why, "an upload goes on with the local store");
        self.soil(id);
        Shared::Away
    }

    /// What Redis says, with what it forgot.
    async fn as_known(&self, id: SessionId, record: &Record) -> Option<Session> {
        if let Some(session) = record.session(None) {
            return Some(session);
        }
        let local = self.local.look(id).await.ok().flatten()?;
        let shared = record.session(Some(&local));
        both(Some(local), shared)
    }

    /// Redis does not know a writer of ours: it is back if Redis has forgotten things since we
    /// spoke last, and nobody else writes.
    async fn take_again(
        &self,
        id: SessionId,
        holder: Option<Holder>,
        record: &Record,
    ) -> Result<bool, LinkError> {
        let Some(holder) = holder else {
            return Ok(false);
        };
        let Some((want, seen)) = self.held.want(id, holder) else {
            return Ok(false);
        };
        let epoch = self.records.link.state().epoch;
        if seen == epoch && !record.is_empty() {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
            self.held.lose(id, holder);
            return Ok(false);
        }
        let taken = self.records.take(id, holder, want).await?;
        let is_back = matches!(taken, Taken::Ok(_));
        match is_back {
            true => self.held.seen(id, holder, epoch),
            false => self.held.lose(id, holder),
        }
        Ok(is_back)
    }

    /// Keeps a granted session: passes revocations on, and gives the lease in Redis back.
    fn attend(self: &Arc<Self>, id: SessionId, granted: Grant, want: Want, epoch: u64) -> Grant {
        let Grant {
            holder,
            session,
            revoked: mut here,
            guard,
        } = granted;
        let mut elsewhere = self.held.insert(id, holder, want, epoch);
        let (tell, revoked) = oneshot::channel();
        let (end, mut ended) = oneshot::channel::<()>();
        let guard = LeaseGuard::new(move || {
            drop(guard);
            // Who kept it is gone with the runtime.
            let _ = end.send(());
        });
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let mut tell = Some(tell);
            loop {
                let newcomer = tokio::select! {
                    _ = &mut ended => break,
                    signal = &mut here, if tell.is_some() => signal.ok(),
                    signal = &mut elsewhere, if tell.is_some() => signal.ok(),
                };
                if let (Some(newcomer), Some(tell)) = (newcomer, tell.take()) {
                    // A writer that no longer listens is about to end.
                    let _ = tell.send(newcomer);
                }
            }
            inner.held.remove(id, holder);
            inner.release(id, holder);
        });
        Grant {
            holder,
            session,
            revoked,
            guard,
        }
    }

    /// Ends a lease in Redis, in the background; one that can not be ended ends by itself.
    fn release(self: &Arc<Self>, id: SessionId, holder: Holder) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(why) = inner.records.release(id, holder).await {
                tracing::debug!(session = %id, %why, "a lease is left to its end");
            }
        });
    }
}

/// Why there is no lease.
enum Untaken {
    Refused(ClaimError),
    Gone,
    Away(LinkError),
}

fn revocation(id: SessionId, by: Uuid, want: Want) -> Said {
    let extent = want.extent();
    let (append, at) = match want {
        Want::Append { at, .. } => (true, at.map(Offset::get)),
        Want::Part(_) => (false, None),
    };
    Said::Revoke {
        id,
        by,
        from: extent.from,
        to: extent.to,
        append,
        at,
    }
}
