//! Goal: the promises of `Sessions`, as an outsider sees them.
//! Method: the embedded store in a temporary directory; one check per topic, data below.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use proxy_core::extent::{Extents, Want};
use proxy_core::id::{SessionId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_core::units::Offset;
use proxy_state::{
    Claim, ClaimError, ClaimOutcome, EmbeddedStore, Grant, Holder, LeaseError, Revocation, Session,
    SessionState, Sessions, StateError, StoreOptions,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Longest wait for anything that should happen at once.
const SOON: Duration = Duration::from_secs(20);

struct Bench {
    store: Arc<EmbeddedStore>,
    _dir: TempDir,
}

fn bench(options: StoreOptions) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&dir.path().join("state.redb"), options).unwrap();
    Bench {
        store: Arc::new(store),
        _dir: dir,
    }
}

fn session(size: u64) -> Session {
    Session {
        id: SessionId::random(),
        volume: "local".into(),
        vfid: VFolderId::parse("aabbccddeeff00112233445566778899").unwrap(),
        relpath: RelPath::parse("dir/file.bin").unwrap(),
        size,
        offset: Offset::ZERO,
        ranges: Extents::default(),
        pieces: Default::default(),
        metadata: None,
        ino: 7,
        dev: 8,
        exp: 1_000,
        state: SessionState::Open,
    }
}

fn claim(session: &Session) -> Claim {
    Claim {
        session: session.clone(),
        want: Want::append(Some(session.offset)),
    }
}

async fn granted(store: &EmbeddedStore, session: &Session) -> Grant {
    match store.claim(claim(session)).await.unwrap() {
        ClaimOutcome::Granted(grant) => *grant,
        ClaimOutcome::Finished(session) => panic!("finished: {session:?}"),
    }
}

fn claim_later(
    store: &Arc<EmbeddedStore>,
    session: &Session,
) -> JoinHandle<Result<ClaimOutcome, ClaimError>> {
    let (store, claim) = (Arc::clone(store), claim(session));
    tokio::spawn(async move { store.claim(claim).await })
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what)
        .await
        .expect("happens soon")
}

#[tokio::test]
async fn a_created_session_is_seen_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let want = session(10);
    {
        let store = EmbeddedStore::open(&path, StoreOptions::default()).unwrap();
        assert_eq!(store.look(want.id).await, Ok(None));
        store.create(want.clone()).await.unwrap();
        assert_eq!(store.look(want.id).await, Ok(Some(want.clone())));
        assert_eq!(store.create(want.clone()).await, Err(StateError::Exists));
        store.flush().await.unwrap();
        assert_eq!(store.create(want.clone()).await, Err(StateError::Exists));
        assert_eq!(store.stats().created_len, 0);
    }
    let store = EmbeddedStore::open(&path, StoreOptions::default()).unwrap();
    assert_eq!(store.look(want.id).await, Ok(Some(want)));
}

#[tokio::test]
async fn creating_does_not_wait_for_a_sync_and_commits_within_the_linger() {
    let linger = Duration::from_millis(1);
    let Bench { store, _dir } = bench(StoreOptions {
        created_linger: linger,
        ..StoreOptions::default()
    });
    store.create(session(1)).await.unwrap();
    soon(async {
        while store.stats().created_len > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(store.stats().commits, 1);
}

/// Advances a session of 10 bytes by `steps`; wants the answer to the last step and the offset.
async fn check_advance(steps: &[u64], want: Result<(), LeaseError>, offset: u64) {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let session = session(10);
    store.create(session.clone()).await.unwrap();
    let grant = granted(&store, &session).await;
    let mut got = Ok(());
    for to in steps {
        got = store
            .advance(session.id, grant.holder, Offset::new(*to))
            .await
            .map(drop);
    }
    assert_eq!(got, want, "{steps:?}");
    let seen = store.look(session.id).await.unwrap().unwrap();
    assert_eq!(seen.offset, Offset::new(offset), "{steps:?}");
}

#[tokio::test]
async fn offsets_only_move_on_and_never_pass_the_size() {
    let past = |got| {
        Err(LeaseError::PastSize {
            size: 10,
            got: Offset::new(got),
        })
    };
    let back = |have, got| {
        Err(LeaseError::Backwards {
            have: Offset::new(have),
            got: Offset::new(got),
        })
    };
    check_advance(&[0], Ok(()), 0).await;
    check_advance(&[4], Ok(()), 4).await;
    check_advance(&[4, 4], Ok(()), 4).await;
    check_advance(&[4, 10], Ok(()), 10).await;
    check_advance(&[4, 3], back(4, 3), 4).await;
    check_advance(&[4, 11], past(11), 4).await;
    check_advance(&[u64::MAX], past(u64::MAX), 0).await;
}

#[tokio::test]
async fn an_advance_to_the_same_place_costs_no_commit() {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let session = session(10);
    let grant = granted(&store, &session).await;
    store
        .advance(session.id, grant.holder, Offset::new(4))
        .await
        .unwrap();
    let before = store.stats().commits;
    store
        .advance(session.id, grant.holder, Offset::new(4))
        .await
        .unwrap();
    assert_eq!(store.stats().commits, before);
}

#[tokio::test]
async fn only_the_holder_may_report() {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let session = session(10);
    store.create(session.clone()).await.unwrap();
    let (id, to) = (session.id, Offset::new(4));
    assert_eq!(
        store.advance(id, Holder::random(), to).await.map(drop),
        Err(LeaseError::Lost)
    );
    let grant = granted(&store, &session).await;
    assert_eq!(
        store.advance(id, Holder::random(), to).await.map(drop),
        Err(LeaseError::Lost)
    );
    store.release(id, Holder::random()).await;
    let moved = store.advance(id, grant.holder, to).await;
    assert_eq!(moved.map(drop), Ok(()));
    store.release(id, grant.holder).await;
    store.release(id, grant.holder).await;
    assert_eq!(
        store.advance(id, grant.holder, to).await.map(drop),
        Err(LeaseError::Lost)
    );
    let target = session.relpath.clone();
    let finish = store.finish(id, grant.holder, Offset::ZERO, target).await;
    assert_eq!(finish, Err(LeaseError::Lost));
    drop(grant);
    assert_eq!(store.stats().leases, 0);
}

#[tokio::test]
async fn a_store_that_lost_its_memory_adopts_the_session_at_zero() {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let mut lost = session(10);
    lost.offset = Offset::new(7);
    let grant = granted(&store, &lost).await;
    assert_eq!(grant.session.offset, Offset::ZERO);
    assert_eq!(grant.session.state, SessionState::Open);
    assert_eq!(
        store.look(lost.id).await.unwrap().unwrap().offset,
        Offset::ZERO
    );
    assert_eq!(
        store
            .advance(lost.id, grant.holder, Offset::new(3))
            .await
            .map(drop),
        Ok(())
    );
}

#[tokio::test]
async fn a_session_is_never_taken_for_another_upload() {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let session = session(10);
    store.create(session.clone()).await.unwrap();
    let same = |change: fn(&mut Session)| {
        let mut other = session.clone();
        change(&mut other);
        other
    };
    for other in [
        same(|session| session.size = 11),
        same(|session| session.volume = "other".into()),
        same(|session| session.relpath = RelPath::parse("other.bin").unwrap()),
        same(|session| session.vfid.folder = uuid::Uuid::nil()),
    ] {
        let got = store.claim(claim(&other)).await.map(|_| ());
        assert_eq!(got, Err(ClaimError::OtherUpload), "{other:?}");
    }
    assert!(
        store
            .claim(claim(&same(|session| session.ino = 9)))
            .await
            .is_ok()
    );
    assert_eq!(store.stats().leases, 0);
}

#[tokio::test]
async fn a_finished_session_is_remembered_and_not_granted() {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let session = session(10);
    store.create(session.clone()).await.unwrap();
    let grant = granted(&store, &session).await;
    let target = RelPath::parse("elsewhere/file.bin").unwrap();
    let from = Offset::new(6);
    let past = store
        .finish(session.id, grant.holder, Offset::new(11), target.clone())
        .await;
    assert_eq!(
        past,
        Err(LeaseError::PastSize {
            size: 10,
            got: Offset::new(11)
        })
    );
    assert_eq!(
        store
            .finish(session.id, grant.holder, from, target.clone())
            .await,
        Ok(())
    );
    let want = SessionState::Finished {
        last_from: from,
        target,
    };
    for _ in 0..2 {
        match store.claim(claim(&session)).await.unwrap() {
            ClaimOutcome::Finished(seen) => {
                assert_eq!(seen.state, want);
                assert_eq!(seen.offset, Offset::new(10));
            }
            ClaimOutcome::Granted(grant) => panic!("granted: {grant:?}"),
        }
    }
    let late = store
        .advance(session.id, grant.holder, Offset::new(10))
        .await
        .map(drop);
    assert_eq!(late, Err(LeaseError::Lost));
    assert_eq!(store.stats().leases, 0);
}

#[tokio::test]
async fn a_newer_claim_revokes_the_holder_and_gets_what_it_committed() {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let session = session(10);
    let old = granted(&store, &session).await;
    let newer = claim_later(&store, &session);
    let revoked = soon(old.revoked).await.unwrap();
    assert_eq!(
        revoked,
        Revocation {
            newcomer: Want::append(Some(Offset::ZERO))
        }
    );
    store
        .advance(session.id, old.holder, Offset::new(4))
        .await
        .unwrap();
    assert!(!newer.is_finished(), "a report must not end the lease");
    drop(old.guard);
    match soon(newer).await.unwrap().unwrap() {
        ClaimOutcome::Granted(grant) => assert_eq!(grant.session.offset, Offset::new(4)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn of_many_claims_the_newest_wins() {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let session = session(10);
    let mut old = granted(&store, &session).await;
    let mut claims = Vec::new();
    for _ in 0..20 {
        claims.push(claim_later(&store, &session));
        // Each has to be in its place before the next comes: the order is what is tested.
        tokio::task::yield_now().await;
    }
    soon(&mut old.revoked).await.unwrap();
    let newest = claims.pop().unwrap();
    for older in claims {
        let got = soon(older).await.unwrap().map(|_| ());
        assert_eq!(got, Err(ClaimError::Superseded));
    }
    assert!(!newest.is_finished());
    store.release(session.id, old.holder).await;
    let outcome = soon(newest).await.unwrap().unwrap();
    assert!(matches!(outcome, ClaimOutcome::Granted(_)));
    drop((outcome, old));
    assert_eq!(store.stats().leases, 0);
}

#[tokio::test]
async fn a_holder_that_does_not_let_go_keeps_the_lease() {
    let options = StoreOptions {
        lease_wait: Duration::from_millis(10),
        ..StoreOptions::default()
    };
    let Bench { store, _dir } = bench(options);
    let session = session(10);
    let old = granted(&store, &session).await;
    for _ in 0..3 {
        let got = store.claim(claim(&session)).await.map(|_| ());
        assert_eq!(got, Err(ClaimError::Held));
    }
    assert_eq!(
        store
            .advance(session.id, old.holder, Offset::new(1))
            .await
            .map(drop),
        Ok(())
    );
    drop(old);
    assert!(store.claim(claim(&session)).await.is_ok());
    assert_eq!(store.stats().leases, 0);
}

#[tokio::test]
async fn a_thread_that_dies_lets_go() {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let session = session(10);
    let grant = granted(&store, &session).await;
    let died = std::thread::spawn(move || {
        let _grant = grant;
        std::panic::resume_unwind(Box::new("dies"));
    });
    assert!(died.join().is_err());
    assert_eq!(store.stats().leases, 0);
    granted(&store, &session).await;
}

#[tokio::test]
async fn a_claim_that_is_dropped_leaves_nothing() {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let session = session(10);
    let mut old = granted(&store, &session).await;
    let waiting = claim_later(&store, &session);
    soon(&mut old.revoked).await.unwrap();
    waiting.abort();
    assert!(soon(waiting).await.unwrap_err().is_cancelled());
    drop(old);
    assert_eq!(store.stats().leases, 0);
    granted(&store, &session).await;
    assert_eq!(store.stats().leases, 0);
}

#[tokio::test]
async fn expired_sessions_are_listed_oldest_first_without_those_in_use() {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let mut sessions = Vec::new();
    for exp in [30, 10, 20, 40] {
        let session = Session { exp, ..session(10) };
        store.create(session.clone()).await.unwrap();
        sessions.push(session);
    }
    store.flush().await.unwrap();
    let exps = |now, max| {
        let store = Arc::clone(&store);
        async move {
            let expired = store.expired(now, max).await.unwrap();
            expired
                .into_iter()
                .map(|session| session.exp)
                .collect::<Vec<_>>()
        }
    };
    for (now, max, want) in [
        (9, 10, vec![]),
        (10, 10, vec![10]),
        (39, 10, vec![10, 20, 30]),
        (39, 2, vec![10, 20]),
        (39, 0, vec![]),
        (u64::MAX, 10, vec![10, 20, 30, 40]),
    ] {
        assert_eq!(exps(now, max).await, want, "now {now}, max {max}");
    }
    let grant = granted(&store, &sessions[1]).await;
    assert_eq!(exps(39, 2).await, [20, 30]);
    assert_eq!(store.forget(sessions[1].id).await, Ok(false));
    drop(grant);
    assert_eq!(store.forget(sessions[1].id).await, Ok(true));
    assert_eq!(store.forget(sessions[1].id).await, Ok(true));
    assert_eq!(store.forget(SessionId::random()).await, Ok(true));
    assert_eq!(store.look(sessions[1].id).await, Ok(None));
    assert_eq!(exps(39, 10).await, [20, 30]);
    assert_eq!(store.stats().leases, 0);
}

#[tokio::test]
async fn a_session_can_be_forgotten_before_its_first_commit() {
    let Bench { store, _dir } = bench(StoreOptions::default());
    let session = session(10);
    store.create(session.clone()).await.unwrap();
    assert_eq!(store.forget(session.id).await, Ok(true));
    assert_eq!(store.look(session.id).await, Ok(None));
    assert_eq!(store.expired(u64::MAX, 10).await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_that_end_together_share_a_sync() {
    const UPLOADS: u64 = 400;
    let Bench { store, _dir } = bench(StoreOptions::default());
    let mut uploads = Vec::new();
    for _ in 0..UPLOADS {
        let store = Arc::clone(&store);
        uploads.push(tokio::spawn(async move {
            let session = session(10);
            let grant = granted(&store, &session).await;
            let (id, holder) = (session.id, grant.holder);
            store.advance(id, holder, Offset::new(10)).await.unwrap();
            store
                .finish(id, holder, Offset::ZERO, session.relpath)
                .await
                .unwrap();
        }));
    }
    for upload in uploads {
        soon(upload).await.unwrap();
    }
    let stats = store.stats();
    assert!(stats.changes >= 3 * UPLOADS, "{stats:?}");
    assert!(stats.commits <= UPLOADS / 4, "{stats:?}");
    assert_eq!(
        (stats.leases, stats.queue_len, stats.failures),
        (0, 0, 0),
        "{stats:?}"
    );
}
