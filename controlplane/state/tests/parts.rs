//! Goal: parts of one upload are recorded in any order, by several holders at a time, and one of
//! them, never two, learns that the upload is whole.
//! Method: the embedded store in a temporary directory; reports as tables, holders as tasks.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use proxy_core::extent::{Extent, Extents, Want};
use proxy_core::id::{SessionId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_core::units::Offset;
use proxy_state::{
    Change, Claim, ClaimError, ClaimOutcome, EmbeddedStore, Grant, LeaseError, Session,
    SessionState, Sessions, StoreOptions,
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

fn store(options: StoreOptions) -> (Arc<EmbeddedStore>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&dir.path().join("state.redb"), options).unwrap();
    (Arc::new(store), dir)
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

async fn claim(store: &EmbeddedStore, session: &Session, want: Want) -> Result<Grant, ClaimError> {
    let session = session.clone();
    match store.claim(Claim { session, want }).await? {
        ClaimOutcome::Granted(grant) => Ok(*grant),
        ClaimOutcome::Finished(session) => panic!("finished: {session:?}"),
    }
}

fn part(from: u64, to: u64) -> Want {
    Want::Part(Extent::new(from, to))
}

/// Reports of parts in order, and what each says: the durable ranges, and whether that is all.
type Row<'a> = (&'a [(u64, u64)], &'a [(u64, u64)], bool);

const ROWS: &[Row<'_>] = &[
    (&[(0, 4)], &[(0, 4)], false),
    (&[(4, 6)], &[(4, 6)], false),
    (&[(4, 6), (8, 9)], &[(4, 6), (8, 9)], false),
    (&[(4, 6), (8, 9), (0, 4)], &[(0, 6), (8, 9)], false),
    (&[(4, 6), (4, 6)], &[(4, 6)], false),
    (&[(4, 6), (3, 8)], &[(3, 8)], false),
    (&[(0, 10)], &[(0, 10)], true),
    (&[(5, 10), (0, 5)], &[(0, 10)], true),
    (&[(0, 3), (7, 10), (3, 7)], &[(0, 10)], true),
    (&[(3, 3)], &[], false),
];

#[tokio::test]
async fn parts_add_up_in_any_order() {
    for (reports, want, whole) in ROWS {
        let (store, dir) = store(StoreOptions::default());
        let session = session(10);
        let mut last = None;
        for (from, to) in *reports {
            let grant = claim(&store, &session, part(*from, *to)).await.unwrap();
            let extent = Extent::new(*from, *to);
            last = Some(
                store
                    .record(session.id, grant.holder, extent)
                    .await
                    .unwrap(),
            );
        }
        let last = last.unwrap();
        let ranges: Vec<(u64, u64)> = last.durable.iter().map(Into::into).collect();
        assert_eq!(
            (ranges.as_slice(), last.whole),
            (*want, *whole),
            "{reports:?}"
        );
        let path = store.path().to_owned();
        drop(Arc::into_inner(store));
        // What makes the upload whole is recorded with its name, by `finish`.
        let store = EmbeddedStore::open(&path, StoreOptions::default()).unwrap();
        let seen = store.look(session.id).await.unwrap().unwrap();
        assert!(!seen.durable().is_whole(10), "{reports:?}");
        if !whole {
            assert_eq!(seen.durable(), last.durable, "{reports:?}");
        }
        drop(dir);
    }
}

#[tokio::test]
async fn an_offset_moves_over_ranges_that_it_reaches() {
    let (store, _dir) = store(StoreOptions::default());
    let session = session(10);
    let grant = claim(&store, &session, part(4, 6)).await.unwrap();
    let done = store
        .record(session.id, grant.holder, Extent::new(4, 6))
        .await;
    assert!(!done.unwrap().whole);
    drop(grant);
    let grant = claim(&store, &session, Want::append(Some(Offset::ZERO))).await;
    let grant = grant.unwrap();
    let moved = store
        .advance(session.id, grant.holder, Offset::new(4))
        .await;
    assert_eq!(moved.unwrap().durable, Extents::prefix_of(6));
    let seen = store.look(session.id).await.unwrap().unwrap();
    assert_eq!((seen.offset.get(), seen.ranges.len()), (6, 0));
}

#[tokio::test]
async fn ranges_have_a_limit_and_no_part_passes_the_size() {
    let options = StoreOptions {
        ranges_max: 2,
        ..StoreOptions::default()
    };
    let (store, _dir) = store(options);
    let session = session(20);
    let grant = claim(&store, &session, part(0, 20)).await.unwrap();
    for (from, to, want) in [
        (2, 3, Ok(())),
        (6, 7, Ok(())),
        (10, 11, Err(LeaseError::TooManyRanges { ranges_max: 2 })),
        (3, 4, Ok(())),
        (
            15,
            21,
            Err(LeaseError::PastSize {
                size: 20,
                got: Offset::new(21),
            }),
        ),
        (0, 12, Ok(())),
        (14, 15, Ok(())),
    ] {
        let got = store.record(session.id, grant.holder, Extent::new(from, to));
        assert_eq!(got.await.map(drop), want, "{from}..{to}");
    }
}

#[tokio::test]
async fn writers_of_other_bytes_write_at_the_same_time() {
    let (store, _dir) = store(StoreOptions::default());
    let session = session(100);
    let mut grants = Vec::new();
    for n in 0..10 {
        let grant = claim(&store, &session, part(n * 10, n * 10 + 10)).await;
        grants.push(grant.unwrap());
    }
    for grant in &mut grants {
        assert!(grant.revoked.try_recv().is_err(), "nobody is in the way");
    }
    // One that overlaps two ends these two, and waits for both.
    let (other, wanted) = (Arc::clone(&store), session.clone());
    let newer = tokio::spawn(async move { claim(&other, &wanted, part(15, 25)).await });
    let ended: Vec<Grant> = grants.drain(1..3).collect();
    for mut grant in ended {
        let told = tokio::time::timeout(SOON, &mut grant.revoked).await;
        assert_eq!(told.unwrap().unwrap().newcomer, part(15, 25));
        assert!(!newer.is_finished());
    }
    let newer = tokio::time::timeout(SOON, newer).await.unwrap().unwrap();
    assert!(newer.is_ok());
    for grant in &mut grants {
        assert!(grant.revoked.try_recv().is_err(), "not in its way");
    }
    drop((grants, newer));
    assert_eq!(store.stats().leases, 0);
}

#[tokio::test]
async fn one_of_many_learns_that_the_upload_is_whole_and_they_share_commits() {
    let (store, _dir) = store(StoreOptions::default());
    let session = session(640);
    let mut tasks = Vec::new();
    for n in 0..64 {
        let (store, session) = (Arc::clone(&store), session.clone());
        tasks.push(tokio::spawn(async move {
            let extent = Extent::new(n * 10, n * 10 + 10);
            let grant = claim(&store, &session, Want::Part(extent)).await.unwrap();
            let done = store.record(session.id, grant.holder, extent).await;
            done.unwrap().whole
        }));
    }
    let mut whole = 0;
    for task in tasks {
        whole += usize::from(task.await.unwrap());
    }
    assert_eq!(whole, 1);
    assert!(store.stats().commits < 64, "{:?}", store.stats());
}

#[tokio::test]
async fn an_abandoned_session_ends_all_its_writers() {
    let (store, _dir) = store(StoreOptions::default());
    let session = session(100);
    let one = claim(&store, &session, part(0, 10)).await.unwrap();
    let two = claim(&store, &session, part(10, 20)).await.unwrap();
    let (other, wanted) = (Arc::clone(&store), session.clone());
    let mut two_revoked = two.revoked;
    let waits = tokio::spawn(async move { claim(&other, &wanted, part(10, 20)).await });
    tokio::time::timeout(SOON, &mut two_revoked)
        .await
        .unwrap()
        .unwrap();
    store.abandon(session.id).await.unwrap();
    let waited = tokio::time::timeout(SOON, waits).await.unwrap().unwrap();
    assert_eq!(waited.map(drop), Err(ClaimError::Superseded));
    for holder in [one.holder, two.holder] {
        let late = store.record(session.id, holder, Extent::new(0, 1)).await;
        assert_eq!(late, Err(LeaseError::Lost));
    }
    assert_eq!(store.look(session.id).await, Ok(None));
    drop((one.guard, two.guard));
    assert_eq!(store.stats().leases, 0);
}

#[tokio::test]
async fn pieces_are_placed_advanced_and_dropped_and_do_not_mix_with_the_whole() {
    let (store, _dir) = store(StoreOptions::default());
    let session = session(100);
    let grant = claim(&store, &session, part(0, 0)).await.unwrap();
    let change = |change| store.change(session.id, grant.holder, change);
    let add = |length| change(Change::AddPartial { length });
    let advance = |number, to| change(Change::AdvancePartial { number, to });
    for (length, place) in [(33, 0), (34, 66), (33, 33)] {
        let made = add(length).await.unwrap();
        assert_eq!(made.pieces.all.last().unwrap().place, place);
    }
    assert_eq!(advance(1, 20).await.unwrap().pieces.all[1].offset, 20);
    for (number, to, want) in [
        (1, 10, "offset 10 is before the recorded 20"),
        (1, 35, "offset 35 is before the recorded 20"),
        (7, 1, "the session is not on record"),
    ] {
        assert_eq!(advance(number, to).await.unwrap_err().to_string(), want);
    }
    let whole = store
        .record(session.id, grant.holder, Extent::new(0, 1))
        .await;
    assert_eq!(whole.map(drop), Err(LeaseError::Mixed));
    let whole = store
        .advance(session.id, grant.holder, Offset::new(1))
        .await;
    assert_eq!(whole.map(drop), Err(LeaseError::Mixed));
    for number in [0, 1, 2] {
        let _ = change(Change::DropPartial { number }).await.unwrap();
    }
    assert_eq!(
        change(Change::DropPartial { number: 0 }).await,
        Err(LeaseError::Unknown)
    );
    // Names are not given twice.
    assert_eq!(add(5).await.unwrap().pieces.all[0].number, 3);
    let _ = change(Change::DropPartial { number: 3 }).await.unwrap();
    let whole = store
        .record(session.id, grant.holder, Extent::new(0, 1))
        .await;
    assert!(whole.is_ok());
    assert_eq!(add(5).await, Err(LeaseError::Mixed));
    let metadata = "filename Zg==".to_owned();
    let said = change(Change::Describe {
        metadata: metadata.clone(),
    })
    .await;
    assert_eq!(said.unwrap().metadata, Some(metadata));
}

#[test]
fn a_session_without_parts_is_recorded_as_releases_before_did() {
    let session = session(10);
    let fresh = serde_json::to_value(&session).unwrap();
    for key in ["ranges", "pieces", "metadata"] {
        assert_eq!(fresh.get(key), None, "{key}");
    }
    assert_eq!(serde_json::from_value::<Session>(fresh).unwrap(), session);
}
