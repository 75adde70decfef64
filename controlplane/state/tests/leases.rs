//! Goal: one writer at a time, no lost wake-up and no forgotten lease, whatever claims do.
//! Method: many tasks on four threads claim few sessions, report, let go, are aborted while they
//! wait and while they report, from a printed seed. Every holder lets go at once, so a claim that
//! is not granted or superseded has lost its wake-up.
#![allow(clippy::unwrap_used)]

#[path = "support/random.rs"]
mod random;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proxy_core::extent::{Extents, Want};
use proxy_core::id::{SessionId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_core::units::Offset;
use proxy_state::{
    Claim, ClaimError, ClaimOutcome, EmbeddedStore, Session, SessionState, Sessions, StoreOptions,
};
use random::Random;

const SESSIONS: usize = 6;
const TASKS: u64 = 12;
const CLAIMS: u64 = 400;
/// Longest run of everything.
const BOUND: Duration = Duration::from_secs(100);

/// What is known of a session beside the store.
struct Watched {
    session: Session,
    is_written: AtomicBool,
    acknowledged: AtomicU64,
}

#[derive(Default)]
struct Count {
    granted: AtomicU64,
    superseded: AtomicU64,
    aborted: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leases_survive_everything_that_claims_do() {
    let seed = random::seed();
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&dir.path().join("state.redb"), StoreOptions::default());
    let store = Arc::new(store.unwrap());
    let watched: Arc<[Watched]> = (0..SESSIONS).map(|_| watched()).collect();
    let count = Arc::new(Count::default());
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let (store, watched) = (Arc::clone(&store), Arc::clone(&watched));
        let (count, random) = (Arc::clone(&count), Random(seed.wrapping_add(task)));
        tasks.push(tokio::spawn(claim_again_and_again(
            store, watched, count, random,
        )));
    }
    for task in tasks {
        tokio::time::timeout(BOUND, task)
            .await
            .expect("ends within the bound")
            .unwrap();
    }
    for watched in watched.iter() {
        let seen = store.look(watched.session.id).await.unwrap().unwrap();
        assert!(watched.acknowledged.load(Ordering::SeqCst) <= seen.offset.get());
    }
    // The report of an aborted holder keeps its lease until it is settled.
    store.flush().await.unwrap();
    assert_eq!(store.stats().leases, 0);
    let Count {
        granted,
        superseded,
        aborted,
    } = &*count;
    eprintln!("granted {granted:?}, superseded {superseded:?}, aborted {aborted:?}");
    for count in [granted, superseded, aborted] {
        assert!(
            0 < count.load(Ordering::SeqCst),
            "the test does not test what it should"
        );
    }
}

fn watched() -> Watched {
    let session = Session {
        id: SessionId::random(),
        volume: "local".into(),
        vfid: VFolderId::parse("aabbccddeeff00112233445566778899").unwrap(),
        relpath: RelPath::parse("file.bin").unwrap(),
        size: u64::MAX,
        offset: Offset::ZERO,
        ranges: Extents::default(),
        pieces: Default::default(),
        metadata: None,
        ino: 7,
        dev: 8,
        exp: 1_000,
        state: SessionState::Open,
    };
    Watched {
        session,
        is_written: AtomicBool::new(false),
        acknowledged: AtomicU64::new(0),
    }
}

async fn claim_again_and_again(
    store: Arc<EmbeddedStore>,
    watched: Arc<[Watched]>,
    count: Arc<Count>,
    mut random: Random,
) {
    for _ in 0..CLAIMS {
        let at = random.below(SESSIONS as u64) as usize;
        let reports = random.below(8).saturating_sub(4);
        let once = claim_once(Arc::clone(&store), Arc::clone(&watched), at, reports);
        let claim = tokio::spawn(once);
        if random.below(3) == 0 {
            for _ in 0..random.below(20) {
                tokio::task::yield_now().await;
            }
            claim.abort();
        }
        match claim.await {
            Ok(Ok(())) => count.granted.fetch_add(1, Ordering::SeqCst),
            Ok(Err(ClaimError::Superseded)) => count.superseded.fetch_add(1, Ordering::SeqCst),
            Ok(Err(error)) => panic!("{error}"),
            Err(error) if error.is_cancelled() => count.aborted.fetch_add(1, Ordering::SeqCst),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
    }
}

/// Marks the session as written to for as long as it lives. Declared after the grant, so it goes
/// before the lease does.
struct Writing<'a>(&'a AtomicBool);

impl<'a> Writing<'a> {
    fn begin(is_written: &'a AtomicBool) -> Self {
        assert!(
            !is_written.swap(true, Ordering::SeqCst),
            "two writers at a time"
        );
        Self(is_written)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

async fn claim_once(
    store: Arc<EmbeddedStore>,
    watched: Arc<[Watched]>,
    at: usize,
    reports: u64,
) -> Result<(), ClaimError> {
    let Watched {
        session,
        is_written,
        acknowledged,
    } = &watched[at];
    let claim = Claim {
        session: session.clone(),
        want: Want::append(None),
    };
    let ClaimOutcome::Granted(grant) = store.claim(claim).await? else {
        panic!("granted")
    };
    let _writing = Writing::begin(is_written);
    let mut offset = grant.session.offset.get();
    assert!(
        acknowledged.load(Ordering::SeqCst) <= offset,
        "an acknowledged offset is not seen"
    );
    for _ in 0..reports {
        let seen = store.look(session.id).await.unwrap().unwrap().offset.get();
        assert_eq!(seen, offset, "the offset moved under its holder");
        offset += 1;
        store
            .advance(session.id, grant.holder, Offset::new(offset))
            .await
            .unwrap();
        acknowledged.store(offset, Ordering::SeqCst);
    }
    Ok(())
}
