//! What goes on beside the calls: leases are renewed, others are heard, and Redis is told what it
//! has missed or forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use proxy_core::extent::{Extent, Want};
use proxy_core::id::SessionId;
use proxy_core::units::Offset;
use proxy_state::{Session, Sessions as _, StateError};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::owned::HERE_EVERY;
use super::talk::{Answer, CHANNEL, Said};
use super::{Inner, Shared};
use crate::link::subscribe;

/// Leases are renewed so often: several times within the time that they are believed.
const RENEW_EVERY: Duration = Duration::from_millis(2500);
/// Sessions that are told of at a time.
const AT_A_TIME: usize = 16;
/// Sessions that are read at a time.
const PAGE: usize = 256;
/// Between two attempts to tell what is missing.
const AGAIN: Duration = Duration::from_secs(1);
/// Messages that may wait.
const MESSAGES_MAX: usize = 4096;

/// Starts all of it.
pub(super) fn start(inner: &Arc<Inner>) -> Vec<AbortHandle> {
    vec![
        tokio::spawn(hear(Arc::clone(inner))).abort_handle(),
        tokio::spawn(renew(Arc::clone(inner))).abort_handle(),
        tokio::spawn(follow(Arc::clone(inner))).abort_handle(),
        tokio::spawn(be_there(Arc::clone(inner))).abort_handle(),
    ]
}

/// Says that this server is there.
async fn be_there(inner: Arc<Inner>) {
    let (by, store) = (inner.talk.me, inner.records.store);
    loop {
        inner.talk.say(&Said::Here { store, by }).await;
        sleep(HERE_EVERY).await;
    }
}

async fn renew(inner: Arc<Inner>) {
    loop {
        sleep(RENEW_EVERY).await;
        let each = stream::iter(inner.held.all()).map(|(id, holder)| {
            let inner = &inner;
            async move {
                let epoch = inner.records.link.state().epoch;
                match inner.records.renew(id, holder).await {
                    Ok(true) => inner.held.seen(id, holder, epoch),
                    Ok(false) => lost(inner, id, holder).await,
                    Err(_) => {}
                }
            }
        });
        each.buffer_unordered(AT_A_TIME)
            .for_each(|()| async {})
            .await;
    }
}

/// A lease that Redis does not know is taken again where Redis forgot it; if that fails, its holder
/// hears of it.
async fn lost(inner: &Inner, id: SessionId, holder: proxy_state::Holder) {
    let keep = |_: &mut Session| Ok::<(), ()>(());
    if let Shared::Lost = inner.share(id, Some(holder), keep).await {
        inner.held.lose(id, holder);
    }
}

async fn hear(inner: Arc<Inner>) {
    let mut messages = subscribe(&inner.records.link, CHANNEL, MESSAGES_MAX);
    while let Some(message) = messages.recv().await {
        let Ok(said) = serde_json::from_slice::<Said>(&message) else {
            // A newer release says more.
            continue;
        };
        heard(&inner, said).await;
    }
}

async fn heard(inner: &Arc<Inner>, said: Said) {
    let me = inner.talk.me;
    match said {
        Said::Revoke {
            id,
            by,
            from,
            to,
            append,
            at,
        } if by != me => {
            let newcomer = match append {
                true => Want::Append {
                    at: at.map(Offset::new),
                    end: to,
                },
                false => Want::Part(Extent::new(from, to)),
            };
            inner.held.revoke(id, newcomer);
        }
        Said::Ask {
            id,
            by,
            ticket,
            taking,
        } => {
            let inner = Arc::clone(inner);
            tokio::spawn(async move {
                let answer = answer(&inner, id, taking.filter(|_| by != me), by == me).await;
                let to = by;
                match to == me {
                    true => inner.talk.answered(ticket, answer),
                    false => {
                        let said = Said::Answer { to, ticket, answer };
                        inner.talk.say(&said).await;
                    }
                }
            });
        }
        Said::Answer { to, ticket, answer } => {
            inner
                .owned
                .hear(answer.store, answer.store == inner.records.store);
            if to == me {
                inner.talk.answered(ticket, answer);
            }
        }
        Said::Here { store, by } => inner.owned.hear(store, by == me),
        Said::Gone { id, by } if by != me => {
            inner.owned.forget(id);
            if let Err(error) = inner.local.abandon(id).await {
                tracing::warn!(session = %id, %error, "an abandoned upload is still on record");
            }
        }
        Said::Revoke { .. } | Said::Gone { .. } => {}
    }
}

/// What is known here of a session. One that is about to be written elsewhere is given away before
/// it is looked at: what is acknowledged later is not, see [`super::Inner::alone`].
async fn answer(inner: &Inner, id: SessionId, to: Option<Uuid>, is_own: bool) -> Answer {
    let store = inner.records.store;
    if is_own {
        return Answer {
            store,
            ..Answer::default()
        };
    }
    let (is_owner, given_to) = (inner.owned.is_mine(id), inner.owned.given_to(id));
    if let Some(to) = to {
        inner.owned.give(id, to);
    }
    let session = inner.local.look(id).await.ok().flatten();
    Answer {
        store,
        is_owner,
        given_to,
        session: session.map(Box::new),
    }
}

/// After every connection Redis is told what is on record here: it may have been emptied, or be a
/// replica that is behind.
async fn follow(inner: Arc<Inner>) {
    let mut state = inner.records.link.watch();
    let mut told_epoch = 0;
    loop {
        let now = *state.borrow_and_update();
        if now.up {
            if now.epoch != told_epoch {
                *inner.since.lock() = Instant::now();
            }
            let was_emptied = match inner.records.epoch().await {
                Ok(found) => std::mem::replace(&mut *inner.word.lock(), found.clone()) != found,
                Err(_) => false,
            };
            if was_emptied || now.epoch != told_epoch {
                *inner.since.lock() = Instant::now();
                if tell_all(&inner).await.is_ok() {
                    told_epoch = now.epoch;
                }
            }
            tell_dirty(&inner).await;
            inner.count().await;
        }
        tokio::select! {
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = sleep(AGAIN) => {}
        }
    }
}

/// Everything that is on record here and of use to anybody.
async fn tell_all(inner: &Arc<Inner>) -> Result<(), StateError> {
    let mut after = None;
    loop {
        let page = inner.local.sessions(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.id);
        let told = stream::iter(page).map(|session| async move { tell(inner, session).await });
        let told: Vec<bool> = told.buffer_unordered(AT_A_TIME).collect().await;
        if told.contains(&false) {
            return Err(StateError::Away);
        }
    }
}

async fn tell_dirty(inner: &Arc<Inner>) {
    let gone: Vec<SessionId> = inner.gone.lock().iter().copied().collect();
    for id in gone {
        if inner.records.abandon(id).await.is_err() {
            return;
        }
        inner.gone.lock().remove(&id);
    }
    let dirty: Vec<SessionId> = inner.dirty.lock().iter().copied().collect();
    for id in dirty {
        // Before it is told: what changes meanwhile makes it dirty again.
        inner.dirty.lock().remove(&id);
        let session = inner.local.look(id).await.ok().flatten();
        let is_told = match session {
            Some(session) => tell(inner, session).await,
            None => true,
        };
        if !is_told {
            inner.soil(id);
            return;
        }
        let left = inner.dirty.lock().len();
        inner.count_dirty(left);
    }
}

/// Merges one session into Redis. `false`: Redis is away again.
async fn tell(inner: &Arc<Inner>, session: Session) -> bool {
    let put = |shared: &mut Session| {
        let merged = shared.merged(&session);
        match merged == *shared {
            true => Err(()),
            false => {
                *shared = merged;
                Ok(())
            }
        }
    };
    match inner.share_as(session.id, None, put, Some(&session)).await {
        Shared::Done(_) => {
            inner.counters.merged.fetch_add(1, Ordering::Relaxed);
            true
        }
        Shared::Stopped(()) => true,
        Shared::Lost => {
            // Abandoned elsewhere.
            inner.owned.forget(session.id);
            if let Err(error) = inner.local.abandon(session.id).await {
                tracing::warn!(session = %session.id, %error, "can not forget an upload");
            }
            true
        }
        Shared::Away => false,
    }
}
