//! Goal: what the store does when the disk below it fails.
//! Method: the real store on a real file, with a disk that fails when told to (`faults`).
#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering::SeqCst;

use proxy_core::extent::{Extents, Want};
use proxy_core::id::VFolderId;
use tempfile::TempDir;

use super::faults::Faults;
use super::*;

struct Bench {
    store: EmbeddedStore,
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A linger that never ends: only what a test does leads to commits.
        let created_linger = Duration::from_secs(3600);
        let options = StoreOptions {
            created_linger,
            ..StoreOptions::default()
        };
        let store = EmbeddedStore::open(&dir.path().join("state.redb"), options).unwrap();
        Self { store, dir }
    }

    fn faults(&self) -> &Faults {
        self.store.engine.file().faults()
    }

    async fn grant(&self, session: &Session) -> Grant {
        let want = Claim {
            session: session.clone(),
            want: Want::append(None),
        };
        match self.store.claim(want).await.unwrap() {
            ClaimOutcome::Granted(grant) => *grant,
            ClaimOutcome::Finished(_) => panic!("finished"),
        }
    }

    async fn offset(&self, id: SessionId) -> u64 {
        self.store.look(id).await.unwrap().unwrap().offset.get()
    }

    /// Closes the store and opens the file again, as the next process would.
    fn restart(self) -> Self {
        let Self { store, dir } = self;
        let path = store.path().to_owned();
        drop(store);
        let store = EmbeddedStore::open(&path, StoreOptions::default()).unwrap();
        Self { store, dir }
    }
}

fn session(size: u64) -> Session {
    Session {
        id: SessionId::random(),
        volume: "local".into(),
        vfid: VFolderId::parse("aabbccddeeff00112233445566778899").unwrap(),
        relpath: RelPath::parse("file.bin").unwrap(),
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

fn no_space(got: &Result<(), LeaseError>) -> bool {
    matches!(got, Err(LeaseError::Store(StateError::NoSpace { .. })))
}

#[tokio::test]
async fn a_full_disk_is_told_and_forgiven() {
    let bench = Bench::new();
    let session = session(100);
    let grant = bench.grant(&session).await;
    let advance = async |to| {
        bench
            .store
            .advance(session.id, grant.holder, Offset::new(to))
            .await
            .map(drop)
    };
    advance(10).await.unwrap();

    bench.faults().full.store(true, SeqCst);
    for to in [20, 30] {
        let got = advance(to).await;
        assert!(no_space(&got), "{got:?}");
    }
    assert!(bench.store.fault().is_some());

    bench.faults().full.store(false, SeqCst);
    assert_eq!(
        bench.offset(session.id).await,
        10,
        "a read alone opens the file again"
    );
    assert_eq!(bench.store.fault(), None);
    assert_eq!(advance(20).await, Ok(()), "the lease survived");
    drop(grant);
    let bench = bench.restart();
    assert_eq!(bench.offset(session.id).await, 20);
}

#[tokio::test]
async fn a_failed_sync_is_told_and_the_file_is_written_again() {
    let bench = Bench::new();
    let session = session(100);
    let grant = bench.grant(&session).await;
    let advance = async |to| {
        bench
            .store
            .advance(session.id, grant.holder, Offset::new(to))
            .await
            .map(drop)
    };
    advance(10).await.unwrap();

    bench.faults().unsyncable.store(true, SeqCst);
    for to in [20, 30] {
        let got = advance(to).await;
        assert!(
            matches!(got, Err(LeaseError::Store(StateError::Disk { .. }))),
            "{got:?}"
        );
        let read = bench.store.look(session.id).await;
        assert!(
            read.is_err(),
            "nothing is read from a file that may not be on disk: {read:?}"
        );
    }

    bench.faults().unsyncable.store(false, SeqCst);
    // The failed commits may have reached the file or not; what was acknowledged is there.
    let offset = bench.offset(session.id).await;
    assert!([10, 20, 30].contains(&offset), "{offset}");
    assert_eq!(advance(40).await, Ok(()));
    drop(grant);
    let bench = bench.restart();
    assert_eq!(bench.offset(session.id).await, 40);
}

#[tokio::test]
async fn an_unreadable_disk_is_told_and_forgiven() {
    let bench = Bench::new();
    let session = session(100);
    let grant = bench.grant(&session).await;
    bench
        .store
        .advance(session.id, grant.holder, Offset::new(10))
        .await
        .unwrap();
    bench.faults().full.store(true, SeqCst);
    bench.faults().unreadable.store(true, SeqCst);
    bench
        .store
        .advance(session.id, grant.holder, Offset::new(20))
        .await
        .unwrap_err();
    bench.store.look(session.id).await.unwrap_err();
    bench.faults().full.store(false, SeqCst);
    bench.store.look(session.id).await.unwrap_err();
    bench.faults().unreadable.store(false, SeqCst);
    assert_eq!(bench.offset(session.id).await, 10);
}

#[tokio::test]
async fn a_new_session_never_hides_a_commit_that_was_told_as_failed() {
    let bench = Bench::new();
    let session = session(100);
    let grant = bench.grant(&session).await;
    // Not committed yet: the failing commit brings the session and the offset to the file.
    bench.faults().unsyncable.store(true, SeqCst);
    bench
        .store
        .advance(session.id, grant.holder, Offset::new(10))
        .await
        .unwrap_err();
    drop(grant);
    bench.faults().unsyncable.store(false, SeqCst);
    let seen = bench.offset(session.id).await;
    let grant = bench.grant(&session).await;
    assert_eq!(grant.session.offset.get(), seen);
    // Whoever is granted an offset can go on from it.
    let next = Offset::new(seen + 1);
    assert_eq!(
        bench
            .store
            .advance(session.id, grant.holder, next)
            .await
            .map(drop),
        Ok(())
    );
}

#[tokio::test]
async fn a_failed_finish_keeps_the_lease() {
    let bench = Bench::new();
    let session = session(100);
    let grant = bench.grant(&session).await;
    let finish = async || {
        let target = session.relpath.clone();
        bench
            .store
            .finish(session.id, grant.holder, Offset::ZERO, target)
            .await
    };
    bench.faults().full.store(true, SeqCst);
    let got = finish().await;
    assert!(no_space(&got), "{got:?}");
    bench.faults().full.store(false, SeqCst);
    assert_eq!(finish().await, Ok(()));
    assert_eq!(finish().await, Err(LeaseError::Lost));
    assert_eq!(bench.store.stats().leases, 0);
}

#[tokio::test]
async fn new_sessions_survive_a_full_disk() {
    let bench = Bench::new();
    let session = session(100);
    bench.faults().full.store(true, SeqCst);
    bench.store.create(session.clone()).await.unwrap();
    bench.store.flush().await.unwrap_err();
    assert_eq!(bench.store.stats().created_len, 1);
    bench.faults().full.store(false, SeqCst);
    assert_eq!(
        bench.store.look(session.id).await,
        Ok(Some(session.clone()))
    );
    let bench = bench.restart();
    assert_eq!(bench.store.look(session.id).await, Ok(Some(session)));
}

#[tokio::test]
async fn a_lease_passes_on_only_after_queued_changes() {
    let bench = Bench::new();
    let session = session(100);
    let grant = bench.grant(&session).await;
    let change = bench
        .store
        .holders_change(session.id, grant.holder)
        .unwrap();
    let (holder, want) = (
        grant.holder,
        Claim {
            session: session.clone(),
            want: Want::append(None),
        },
    );
    // The connection dies with a report in the queue.
    drop(grant);
    assert_eq!(
        bench
            .store
            .advance(session.id, holder, Offset::new(1))
            .await,
        Err(LeaseError::Lost)
    );
    let mut newer = std::pin::pin!(bench.store.claim(want));
    let waits = tokio::time::timeout(Duration::from_millis(1), &mut newer).await;
    assert!(waits.is_err(), "the report is not settled");
    drop(change);
    assert!(matches!(newer.await, Ok(ClaimOutcome::Granted(_))));
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_its_report() {
    let bench = Bench::new();
    let session = session(100);
    let grant = bench.grant(&session).await;
    {
        let report = bench
            .store
            .advance(session.id, grant.holder, Offset::new(10));
        let mut report = std::pin::pin!(report);
        // Polled once, so it is queued; then dropped.
        let _ = futures_poll_once(report.as_mut()).await;
    }
    drop(grant);
    let grant = bench.grant(&session).await;
    assert_eq!(grant.session.offset, Offset::new(10));
}

/// Polls `future` once.
async fn futures_poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn the_store_ends_with_everything_queued_on_disk() {
    let bench = Bench::new();
    let sessions: Vec<_> = (0..50).map(|_| session(100)).collect();
    for session in &sessions {
        bench.store.create(session.clone()).await.unwrap();
    }
    assert_eq!(bench.store.stats().commits, 0);
    let bench = bench.restart();
    for session in &sessions {
        assert_eq!(bench.offset(session.id).await, 0);
    }
}

#[tokio::test]
async fn more_new_sessions_than_may_wait_lead_to_commits() {
    let dir = tempfile::tempdir().unwrap();
    let created_linger = Duration::from_secs(3600);
    let options = StoreOptions {
        created_len_max: 3,
        created_linger,
        ..StoreOptions::default()
    };
    let store = EmbeddedStore::open(&dir.path().join("state.redb"), options).unwrap();
    let store = Arc::new(store);
    let creates: Vec<_> = (0..100)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.create(session(10)).await })
        })
        .collect();
    for create in creates {
        assert_eq!(create.await.unwrap(), Ok(()));
    }
    assert!(store.stats().created_len <= 3);
    assert!(store.stats().commits >= 30, "{:?}", store.stats());
    assert_eq!(
        store.expired(u64::MAX, 1000).await.unwrap().len() + store.stats().created_len,
        100
    );
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        queue_len_max: 1,
        batch_len_max: 1,
        ..StoreOptions::default()
    };
    let store = EmbeddedStore::open(&dir.path().join("state.redb"), options).unwrap();
    let store = Arc::new(store);
    let uploads: Vec<_> = (0..30)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let session = session(10);
                let want = Claim {
                    session: session.clone(),
                    want: Want::append(None),
                };
                let ClaimOutcome::Granted(grant) = store.claim(want).await.unwrap() else {
                    panic!("granted")
                };
                store
                    .advance(session.id, grant.holder, Offset::new(1))
                    .await
                    .map(drop)
            })
        })
        .collect();
    for upload in uploads {
        assert_eq!(upload.await.unwrap(), Ok(()));
    }
    assert_eq!(store.stats().queue_len, 0);
    assert_eq!(store.stats().leases, 0);
}
