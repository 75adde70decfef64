//! Goal: whatever breaks, the recorded offset is true and a resumed upload ends in the right bytes.
//! Method: PATCH after PATCH against a model disk, peer and ledger that fail from a printed seed.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::model::{Faults, ModelBody, ModelDisk, ModelFile, ModelLedger, Rng, block_on};
use crate::seam::PeerError;

fn content(len: u64) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 251) as u8).collect()
}

fn ledger(size: u64) -> ModelLedger {
    ModelLedger {
        file: Rc::new(ModelFile::default()),
        offset: Cell::new(0),
        size,
        finished: Cell::new(None),
        aborted: Cell::new(false),
        target: RefCell::new(None),
        newcomer: None,
        releases: Cell::new(0),
    }
}

fn body(bytes: &[u8], rng: &Rng) -> ModelBody {
    ModelBody {
        bytes: bytes.iter().copied().collect(),
        announced: Some(bytes.len() as u64),
        ends: Ok(()),
        rng: rng.clone(),
        intact: None,
    }
}

fn run(disk: &ModelDisk, body: &mut ModelBody, ledger: &ModelLedger, at: u64) -> Written<String> {
    let request = PatchRequest {
        upload_offset: Offset::new(at),
        reserve: true,
    };
    let patched = block_on(patch(disk, body, ledger, request));
    assert_eq!(disk.out.get(), 0, "a buffer is missing");
    patched
}

#[track_caller]
fn check_stored(patched: &Written<String>, want: u64) {
    let Written::Stored { durable, .. } = patched else {
        panic!("{patched:?}")
    };
    assert_eq!(durable, &Extents::prefix_of(want));
}

#[test]
fn chunks_add_up_and_the_target_appears_whole() {
    let rng = Rng::new(1);
    for (size, chunk) in [
        (0, 1),
        (1, 1),
        (100, 7),
        (1000, 1000),
        (1000, 333),
        (64, 16),
    ] {
        let all = content(size);
        let ledger = ledger(size);
        let disk = ModelDisk::new(rng.clone(), Faults::default());
        let mut at = 0;
        loop {
            let end = (at + chunk).min(size);
            let mut body = body(&all[at as usize..end as usize], &rng);
            check_stored(&run(&disk, &mut body, &ledger, at), end);
            at = end;
            if at == size {
                break;
            }
            assert!(
                ledger.target.borrow().is_none(),
                "no target before the last byte"
            );
        }
        assert_eq!(
            ledger.target.borrow().as_deref(),
            Some(&all[..]),
            "{size} by {chunk}"
        );
    }
}

#[test]
fn several_writes_are_in_flight() {
    let rng = Rng::new(2);
    let ledger = ledger(4000);
    let disk = ModelDisk::new(rng.clone(), Faults::default());
    check_stored(
        &run(&disk, &mut body(&content(4000), &rng), &ledger, 0),
        4000,
    );
    assert!(disk.in_flight_most.get() > 1);
    assert!(disk.in_flight_most.get() <= DEPTH as u64);
}

#[test]
fn wrong_offsets_and_long_bodies_change_nothing() {
    let rng = Rng::new(3);
    let all = content(10);
    let ledger = ledger(10);
    let disk = ModelDisk::new(rng.clone(), Faults::default());
    check_stored(&run(&disk, &mut body(&all[..3], &rng), &ledger, 0), 3);
    for at in [0, 2, 4, 10, u64::MAX] {
        let patched = run(&disk, &mut body(b"x", &rng), &ledger, at);
        assert!(
            matches!(patched, Written::Mismatch { have } if have.get() == 3),
            "{patched:?}"
        );
    }
    let patched = run(&disk, &mut body(&content(20), &rng), &ledger, 3);
    assert!(
        matches!(patched, Written::TooLong { missing } if missing.get() == 7),
        "{patched:?}"
    );
    let mut chunked = body(&content(20), &rng);
    chunked.announced = None;
    let patched = run(&disk, &mut chunked, &ledger, 3);
    assert!(matches!(patched, Written::TooLong { .. }), "{patched:?}");
    assert_eq!(ledger.offset.get(), 3);
    check_stored(&run(&disk, &mut body(&all[3..], &rng), &ledger, 3), 10);
    assert_eq!(ledger.target.borrow().as_deref(), Some(&all[..]));
}

#[test]
fn a_lost_last_answer_is_given_again() {
    let rng = Rng::new(4);
    let all = content(10);
    let ledger = ledger(10);
    let disk = ModelDisk::new(rng.clone(), Faults::default());
    check_stored(&run(&disk, &mut body(&all[..4], &rng), &ledger, 0), 4);
    check_stored(&run(&disk, &mut body(&all[4..], &rng), &ledger, 4), 10);
    check_stored(&run(&disk, &mut body(&all[4..], &rng), &ledger, 4), 10);
    check_stored(&run(&disk, &mut body(b"", &rng), &ledger, 10), 10);
    for (bytes, at) in [(&all[..4], 0), (&all[4..9], 4), (&all[9..], 10)] {
        let patched = run(&disk, &mut body(bytes, &rng), &ledger, at);
        assert!(matches!(patched, Written::Mismatch { .. }), "{patched:?}");
    }
}

#[test]
fn a_newer_writer_ends_an_older_one() {
    let rng = Rng::new(5);
    for (newcomer_at, kept) in [(0, false), (100, true)] {
        let mut ledger = ledger(100_000);
        ledger.newcomer = Some((200, newcomer_at));
        let disk = ModelDisk::new(rng.clone(), Faults::default());
        let patched = run(&disk, &mut body(&content(100_000), &rng), &ledger, 0);
        assert!(
            matches!(patched, Written::Ledger(LedgerError::Lost)),
            "{patched:?}"
        );
        assert_eq!(ledger.offset.get() > 0, kept, "newcomer at {newcomer_at}");
        assert_eq!(ledger.releases.get(), 1);
    }
}

#[test]
fn a_full_disk_keeps_the_session() {
    let rng = Rng::new(6);
    let all = content(500);
    let ledger = ledger(500);
    let faults = Faults {
        space: Some(200),
        ..Faults::default()
    };
    let disk = ModelDisk::new(rng.clone(), faults);
    let patched = run(&disk, &mut body(&all, &rng), &ledger, 0);
    let Written::NoSpace { durable, .. } = patched else {
        panic!("{patched:?}")
    };
    assert_eq!(durable.prefix(), ledger.offset.get());
    assert!(durable.prefix() > 0);
    let disk = ModelDisk::new(rng.clone(), Faults::default());
    let from = durable.prefix();
    check_stored(
        &run(&disk, &mut body(&all[from as usize..], &rng), &ledger, from),
        500,
    );
    assert_eq!(ledger.target.borrow().as_deref(), Some(&all[..]));
}

#[test]
fn a_failed_sync_ends_the_upload_unless_space_or_storage_may_come_back() {
    let rng = Rng::new(7);
    for (errno, ended) in [
        (5, true),
        (28, false),
        (122, false),
        (116, false),
        (108, false),
    ] {
        let ledger = ledger(50);
        let faults = Faults {
            sync: Some((0, errno)),
            ..Faults::default()
        };
        let disk = ModelDisk::new(rng.clone(), faults);
        let patched = run(&disk, &mut body(&content(50), &rng), &ledger, 0);
        assert_eq!(ledger.aborted.get(), ended, "{patched:?}");
        assert_eq!(ledger.offset.get(), 0);
        assert!(ledger.target.borrow().is_none());
    }
}

/// Any mixture of broken bodies, full disks, disk errors and crashes, then a clean end.
#[test]
fn whatever_breaks_the_offset_is_true_and_resuming_ends_well() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(11);
    eprintln!("seed {seed}");
    let rng = Rng::new(seed);
    for round in 0..400 {
        let size = 1 + rng.below(600);
        let all = content(size);
        let ledger = ledger(size);
        for _ in 0..12 {
            let at = ledger.offset.get();
            let faults = Faults {
                write: (rng.below(3) == 0).then(|| (rng.below(8), [5, 28][rng.below(2) as usize])),
                sync: (rng.below(5) == 0).then_some((0, 28)),
                space: (rng.below(4) == 0).then(|| at + rng.below(100)),
            };
            let disk = ModelDisk::new(rng.clone(), faults);
            let mut body = body(&all[at as usize..], &rng);
            if rng.below(2) == 0 && at < size {
                body.bytes.truncate(rng.below(size - at) as usize);
                body.ends = Err(PeerError::Gone);
            }
            run(&disk, &mut body, &ledger, at);
            if ledger.finished.get().is_some() {
                break;
            }
            // A crash: only synced bytes are sure to be there.
            let known = ledger.offset.get() as usize;
            let durable = ledger.file.durable.borrow()[..known].to_vec();
            assert_eq!(durable, all[..known], "round {round}");
            ledger.file.crash(&rng);
        }
        if ledger.finished.get().is_none() {
            let at = ledger.offset.get();
            let disk = ModelDisk::new(rng.clone(), Faults::default());
            check_stored(
                &run(&disk, &mut body(&all[at as usize..], &rng), &ledger, at),
                size,
            );
        }
        assert_eq!(
            ledger.target.borrow().as_deref(),
            Some(&all[..]),
            "round {round}"
        );
    }
}
