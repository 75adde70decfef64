//! Goal: a real refusal to grow the file is told to the caller, and forgiven once there is room.
//! Method: this test runs itself as a child with a limit on file sizes (`ulimit -f`, the signal
//! ignored), which the kernel enforces like a full disk for whatever has to grow; the child then
//! lifts its own limit.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use proxy_core::extent::{Extents, Want};
use proxy_core::id::{SessionId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_core::units::Offset;
use proxy_state::{
    Claim, ClaimOutcome, EmbeddedStore, LeaseError, Session, SessionState, Sessions, StateError,
    StoreOptions,
};
use rustix::process::{Resource, getrlimit, setrlimit};

const THIS_TEST: &str = "a_file_that_cannot_grow_is_told_and_forgiven";
const DIR: &str = "STATE_DISK_FULL_DIR";
/// Blocks of 512 bytes: some hundred sessions fit.
const LIMIT_BLOCKS: &str = "1000";

#[tokio::test]
async fn a_file_that_cannot_grow_is_told_and_forgiven() {
    match std::env::var(DIR) {
        Ok(dir) => fill_and_go_on(Path::new(&dir)).await,
        Err(_) => run_limited(),
    }
}

fn run_limited() {
    let dir = tempfile::tempdir().unwrap();
    let limited = "trap '' XFSZ; ulimit -S -f \"$1\"; shift; exec \"$@\"";
    let done = Command::new("sh")
        .args(["-c", limited, "sh", LIMIT_BLOCKS])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", THIS_TEST, "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{out}\n{err}");
}

async fn fill_and_go_on(dir: &Path) {
    let path = dir.join("state.redb");
    let store = EmbeddedStore::open(&path, StoreOptions::default()).unwrap();
    let mut recorded = Vec::new();
    let refused = loop {
        assert!(recorded.len() < 10_000, "the limit is never reached");
        let session = new_session();
        match upload(&store, &session).await {
            Ok(()) => recorded.push(session.id),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, LeaseError::Store(StateError::NoSpace { .. })),
        "{refused}"
    );
    assert!(!recorded.is_empty());
    // What is on record can still be read, and the refusal is repeated, not worsened.
    check(&store, &recorded).await;
    let refused = upload(&store, &new_session()).await.unwrap_err();
    assert!(
        matches!(refused, LeaseError::Store(StateError::NoSpace { .. })),
        "{refused}"
    );
    check(&store, &recorded).await;

    let mut limit = getrlimit(Resource::Fsize);
    limit.current = limit.maximum;
    setrlimit(Resource::Fsize, limit).unwrap();
    for _ in 0..100 {
        let session = new_session();
        upload(&store, &session).await.unwrap();
        recorded.push(session.id);
    }
    assert_eq!(store.fault(), None);
    drop(store);
    let store = EmbeddedStore::open(&path, StoreOptions::default()).unwrap();
    check(&store, &recorded).await;
}

async fn upload(store: &EmbeddedStore, session: &Session) -> Result<(), LeaseError> {
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
}

async fn check(store: &EmbeddedStore, recorded: &[SessionId]) {
    for id in recorded {
        let seen = store.look(*id).await.unwrap().expect("is on record");
        assert_eq!(seen.offset, Offset::new(1));
    }
}

fn new_session() -> Session {
    Session {
        id: SessionId::random(),
        volume: "local".into(),
        vfid: VFolderId::parse("aabbccddeeff00112233445566778899").unwrap(),
        relpath: RelPath::parse(&"long/".repeat(50)).unwrap(),
        size: 10,
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
