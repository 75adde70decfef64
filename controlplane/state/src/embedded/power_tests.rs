//! Goal: what was acknowledged survives a loss of power, not only the death of the process.
//! Method: a journal of everything done to the file while many uploads report at once; then, from a
//! printed seed, files as a disk could hold them at a random moment: all that was synced, and of
//! what was written since, any selection of sectors. Each must open and hold every offset that was
//! acknowledged by then.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/support/random.rs"]
mod random;

use std::path::Path;

use proxy_core::extent::{Extents, Want};
use proxy_core::id::VFolderId;

use random::Random;

use super::faults::Op;
use super::*;

/// A disk writes sectors whole.
const SECTOR: usize = 512;
const UPLOADS: u64 = 8;
const REPORTS: u64 = 25;
const CUTS: u64 = 150;

/// An offset that was acknowledged when the journal had `ops` entries.
struct Ack {
    id: SessionId,
    offset: u64,
    ops: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_offsets_survive_a_loss_of_power() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let store = EmbeddedStore::open(&path, StoreOptions::default()).unwrap();
    let store = Arc::new(store);
    let base = std::fs::read(&path).unwrap();
    *store.engine.file().faults().journal.lock() = Some(Vec::new());
    let mut uploads = Vec::new();
    for _ in 0..UPLOADS {
        uploads.push(tokio::spawn(upload(Arc::clone(&store))));
    }
    let mut acks = Vec::new();
    for upload in uploads {
        acks.extend(upload.await.unwrap());
    }
    let ops = store.engine.file().faults().journal.lock().take().unwrap();
    drop(store);
    assert!(
        ops.iter().any(|op| matches!(op, Op::SetLen(_))),
        "the file has grown meanwhile"
    );

    let seed = random::seed();
    eprintln!("{} operations, {} acknowledgements", ops.len(), acks.len());
    let mut random = Random(seed);
    let path = dir.path().join("cut.redb");
    for cut in 0..CUTS {
        let at = random.below(ops.len() as u64 + 1) as usize;
        write_cut(&path, &base, &ops[..at], &mut random);
        let store = EmbeddedStore::open(&path, StoreOptions::default());
        let store = store.unwrap_or_else(|error| panic!("seed {seed}, cut {cut}: {error}"));
        for ack in acks.iter().filter(|ack| ack.ops <= at) {
            let seen = store.look(ack.id).await.unwrap();
            let seen = seen.map(|session| session.offset.get());
            assert!(
                Some(ack.offset) <= seen,
                "seed {seed}, cut {cut}: {seen:?} < {}",
                ack.offset
            );
        }
    }
}

async fn upload(store: Arc<EmbeddedStore>) -> Vec<Ack> {
    let session = Session {
        id: SessionId::random(),
        volume: "local".into(),
        vfid: VFolderId::parse("aabbccddeeff00112233445566778899").unwrap(),
        relpath: RelPath::parse(&"long/".repeat(100)).unwrap(),
        size: REPORTS,
        offset: Offset::ZERO,
        ranges: Extents::default(),
        pieces: Default::default(),
        metadata: None,
        ino: 7,
        dev: 8,
        exp: 1_000,
        state: SessionState::Open,
    };
    let id = session.id;
    let ClaimOutcome::Granted(grant) = store
        .claim(Claim {
            session,
            want: Want::append(None),
        })
        .await
        .unwrap()
    else {
        panic!("granted")
    };
    let mut acks = Vec::new();
    for offset in 1..=REPORTS {
        store
            .advance(id, grant.holder, Offset::new(offset))
            .await
            .unwrap();
        let ops = store
            .engine
            .file()
            .faults()
            .journal
            .lock()
            .as_ref()
            .unwrap()
            .len();
        acks.push(Ack { id, offset, ops });
    }
    acks
}

/// A file as a disk could hold it after `ops` and a loss of power.
fn write_cut(path: &Path, base: &[u8], ops: &[Op], random: &mut Random) {
    let synced = ops
        .iter()
        .rposition(|op| matches!(op, Op::Sync))
        .map_or(0, |at| at + 1);
    let mut image = base.to_vec();
    for op in &ops[..synced] {
        apply(&mut image, op, |_| true);
    }
    // None, some or all of the sectors.
    let kept_of_4 = random.below(5);
    for op in &ops[synced..] {
        apply(&mut image, op, |_| random.below(4) < kept_of_4);
    }
    std::fs::write(path, image).unwrap();
}

fn apply(image: &mut Vec<u8>, op: &Op, mut keep: impl FnMut(usize) -> bool) {
    match op {
        Op::Sync => {}
        Op::SetLen(len) => {
            if keep(0) {
                image.resize(usize::try_from(*len).unwrap(), 0);
            }
        }
        Op::Write { at, data } => {
            let at = usize::try_from(*at).unwrap();
            assert_eq!(at % SECTOR, 0);
            for (sector, bytes) in data.chunks(SECTOR).enumerate() {
                if keep(sector) {
                    let from = at + sector * SECTOR;
                    image.resize(image.len().max(from + bytes.len()), 0);
                    image[from..from + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
    }
}
