//! Goal: parts from many requests at once, in any order, repeated, overlapping, cut and crashed:
//! what is on record is there, no byte on record is written again, the file is put in its place
//! once, and no mixture of two clients' bytes is acknowledged.
//! Method: tables, and rounds of requests that run interleaved against a model disk and a model
//! session with faults from a printed seed (`SEED`).
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures_util::future::join_all;
use proxy_core::extent::Recorded;

use super::*;
use crate::model::{Dawdle, Faults, ModelBody, ModelDisk, ModelFd, ModelFile, Rng, block_on};
use crate::patch::{PatchRequest, patch};
use crate::seam::PeerError;

/// One session for many requests, with the rules of the real store.
struct Shared {
    file: Rc<ModelFile>,
    size: u64,
    durable: RefCell<Extents>,
    finished: Cell<Option<u64>>,
    finishes: Cell<u32>,
    aborted: Cell<bool>,
    target: RefCell<Option<Vec<u8>>>,
    holders: Rc<RefCell<Vec<Holder>>>,
    names: Cell<u64>,
    rng: Rng,
}

#[derive(Clone, Debug)]
struct Holder {
    name: u64,
    want: Want,
    newcomer: Rc<Cell<Option<Want>>>,
}

/// A held lease; dropping it gives it back.
struct Held {
    holder: Holder,
    all: Rc<RefCell<Vec<Holder>>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let name = self.holder.name;
        self.all.borrow_mut().retain(|holder| holder.name != name);
    }
}

impl Shared {
    fn new(size: u64, rng: &Rng) -> Self {
        Self {
            file: Rc::default(),
            size,
            durable: RefCell::default(),
            finished: Cell::new(None),
            finishes: Cell::new(0),
            aborted: Cell::new(false),
            target: RefCell::new(None),
            holders: Rc::default(),
            names: Cell::new(0),
            rng: rng.clone(),
        }
    }

    fn is_over(&self) -> bool {
        self.finished.get().is_some() || self.aborted.get()
    }

    /// The process dies: leases are gone, bytes that were not synced may be.
    fn crash(&self) {
        assert!(self.holders.borrow().is_empty(), "a lease is missing");
        self.file.crash(&self.rng);
    }

    #[track_caller]
    fn check_record(&self, content: &[u8]) {
        let disk = self.file.durable.borrow();
        for range in self.durable.borrow().iter() {
            let (from, to) = (range.from as usize, range.to as usize);
            assert_eq!(disk[from..to], content[from..to], "{range:?} is on record");
        }
    }
}

impl Ledger for Shared {
    type File = ModelFd;
    type Grant = Held;
    type Error = String;

    async fn claim(&self, want: Want) -> Result<Claimed<Held>, LedgerError<String>> {
        let name = self.names.get();
        self.names.set(name + 1);
        loop {
            Dawdle(self.rng.below(4)).await;
            if self.aborted.get() {
                return Err(LedgerError::NotFound);
            }
            let size = Offset::new(self.size);
            if let Some(from) = self.finished.get() {
                let last_from = Offset::new(from);
                return Ok(Claimed::Finished { last_from, size });
            }
            let mut holders = self.holders.borrow_mut();
            let mut is_free = true;
            for holder in holders.iter().filter(|holder| holder.want.conflicts(want)) {
                is_free = false;
                holder.newcomer.set(Some(want));
            }
            if !is_free {
                continue;
            }
            let holder = Holder {
                name,
                want,
                newcomer: Rc::default(),
            };
            holders.push(holder.clone());
            let all = Rc::clone(&self.holders);
            return Ok(Claimed::Ours {
                grant: Held { holder, all },
                durable: self.durable.borrow().clone(),
                size,
                laid_out: false,
            });
        }
    }

    async fn open(&self, _: &Held) -> Result<ModelFd, LedgerError<String>> {
        Ok(ModelFd::open(&self.file))
    }

    async fn revoked(&self, held: &mut Held) -> Option<Want> {
        loop {
            if let Some(newcomer) = held.holder.newcomer.get() {
                return Some(newcomer);
            }
            Dawdle(1).await;
        }
    }

    async fn record(&self, held: &Held, extent: Extent) -> Result<Recorded, LedgerError<String>> {
        Dawdle(self.rng.below(6)).await;
        let may = held.holder.want.extent();
        assert!(
            may.from <= extent.from && extent.to <= may.to,
            "not its bytes"
        );
        if self.is_over() {
            return Err(LedgerError::Lost);
        }
        let mut durable = self.durable.borrow_mut();
        let mut all = durable.clone();
        all.insert(extent);
        let whole = all.is_whole(self.size);
        if !whole || matches!(held.holder.want, Want::Append { .. }) {
            *durable = all.clone();
        }
        let durable = all;
        Ok(Recorded { durable, whole })
    }

    async fn finish(&self, _: &Held, last_from: Offset) -> Result<(), LedgerError<String>> {
        let disk = self.file.durable.borrow().clone();
        assert_eq!(
            disk.len() as u64,
            self.size,
            "only a whole file is published"
        );
        self.finishes.set(self.finishes.get() + 1);
        *self.target.borrow_mut() = Some(disk);
        *self.durable.borrow_mut() = Extents::prefix_of(self.size);
        Dawdle(self.rng.below(4)).await;
        self.finished.set(Some(last_from.get()));
        Ok(())
    }

    async fn abort(&self, _: &Held) {
        self.aborted.set(true);
    }

    async fn release(&self, held: Held) {
        drop(held);
    }
}

fn content(len: u64) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 251) as u8).collect()
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

async fn put(
    disk: &ModelDisk,
    mut body: ModelBody,
    session: &Shared,
    from: u64,
    to: u64,
) -> Written<String> {
    let extent = Extent::new(from, to);
    let reserve = true;
    part(disk, &mut body, session, PartRequest { extent, reserve }).await
}

fn put_now(session: &Shared, bytes: &[u8], from: u64, to: u64) -> Written<String> {
    let disk = ModelDisk::new(session.rng.clone(), Faults::default());
    let written = block_on(put(&disk, body(bytes, &session.rng), session, from, to));
    assert_eq!(disk.out.get(), 0, "a buffer is missing");
    assert!(session.holders.borrow().is_empty(), "a lease is missing");
    written
}

fn is_stored(written: &Written<String>) -> bool {
    matches!(written, Written::Stored { .. })
}

/// Parts in order, each with the ranges that are on record after it.
type Row<'a> = &'a [((u64, u64), &'a [(u64, u64)])];

const ORDERS: &[Row<'_>] = &[
    &[((0, 100), &[(0, 100)])],
    &[((0, 50), &[(0, 50)]), ((50, 100), &[(0, 100)])],
    &[((50, 100), &[(50, 100)]), ((0, 50), &[(0, 100)])],
    &[
        ((30, 60), &[(30, 60)]),
        ((80, 100), &[(30, 60), (80, 100)]),
        ((30, 60), &[(30, 60), (80, 100)]),
        ((0, 30), &[(0, 60), (80, 100)]),
        ((50, 90), &[(0, 100)]),
        ((0, 100), &[(0, 100)]),
    ],
    &[((99, 100), &[(99, 100)]), ((0, 100), &[(0, 100)])],
    &[
        ((20, 40), &[(20, 40)]),
        ((10, 90), &[(10, 90)]),
        ((0, 100), &[(0, 100)]),
    ],
];

#[test]
fn parts_in_any_order_are_written_once_and_finish_once() {
    let rng = Rng::new(21);
    let all = content(100);
    for row in ORDERS {
        let session = Shared::new(100, &rng);
        for ((from, to), want) in *row {
            let bytes = &all[*from as usize..*to as usize];
            let written = put_now(&session, bytes, *from, *to);
            let Written::Stored { durable, .. } = &written else {
                panic!("{row:?}: {written:?}");
            };
            let ranges: Vec<(u64, u64)> = durable.iter().map(Into::into).collect();
            assert_eq!(ranges.as_slice(), *want, "{row:?}");
            session.check_record(&all);
        }
        assert_eq!(session.finishes.get(), 1, "{row:?}");
        assert_eq!(
            session.target.borrow().as_deref(),
            Some(&all[..]),
            "{row:?}"
        );
        let counts = session.file.counts.borrow();
        assert!(
            counts.iter().all(|count| *count == 1),
            "{row:?}: {counts:?}"
        );
    }
}

#[test]
fn other_bytes_than_those_on_record_are_refused() {
    let rng = Rng::new(22);
    let all = content(100);
    let session = Shared::new(100, &rng);
    assert!(is_stored(&put_now(&session, &all[20..60], 20, 60)));
    let mut wrong = all.clone();
    wrong[55] ^= 1;
    let written = put_now(&session, &wrong[50..80], 50, 80);
    assert!(matches!(written, Written::Differs { .. }), "{written:?}");
    session.check_record(&all);
    assert_eq!(session.durable.borrow().len(), 1);
    assert!(is_stored(&put_now(&session, &all[50..80], 50, 80)));
    assert!(is_stored(&put_now(&session, &all, 0, 100)));
    assert_eq!(session.target.borrow().as_deref(), Some(&all[..]));
}

#[test]
fn bodies_of_another_length_than_their_range_are_refused() {
    let rng = Rng::new(23);
    let all = content(100);
    for announced in [true, false] {
        let session = Shared::new(100, &rng);
        let send = |bytes: &[u8]| {
            let disk = ModelDisk::new(rng.clone(), Faults::default());
            let mut body = body(bytes, &rng);
            body.announced = body.announced.filter(|_| announced);
            block_on(put(&disk, body, &session, 20, 40))
        };
        let long = send(&all[20..41]);
        assert!(matches!(long, Written::TooLong { .. }), "{long:?}");
        assert!(session.durable.borrow().is_empty());
        let short = send(&all[20..35]);
        let is_short = matches!(short, Written::TooShort { missing } if missing.get() == 5);
        assert!(is_short, "{short:?}");
        assert_eq!(
            *session.durable.borrow(),
            Extents::from_iter([Extent::new(20, 35)])
        );
    }
}

#[test]
fn a_body_that_is_not_what_its_checksum_says_leaves_nothing() {
    let rng = Rng::new(24);
    let all = content(100);
    for (intact, ends, kept) in [
        (Some(true), Ok(()), true),
        (Some(false), Ok(()), false),
        (Some(true), Err(PeerError::Gone), false),
        (None, Err(PeerError::Gone), true),
    ] {
        let session = Shared::new(100, &rng);
        assert!(is_stored(&put_now(&session, &all[10..20], 10, 20)));
        let before = session.durable.borrow().clone();
        let disk = ModelDisk::new(rng.clone(), Faults::default());
        let mut body = body(&all[..40], &rng);
        (body.intact, body.ends) = (intact, ends);
        let written = block_on(put(&disk, body, &session, 0, 60));
        let moved = *session.durable.borrow() != before;
        assert_eq!(moved, kept, "{intact:?}: {written:?}");
        if intact == Some(false) {
            assert!(matches!(written, Written::Checksum), "{written:?}");
        }
        session.check_record(&all);
    }
}

#[test]
fn a_patch_goes_on_over_parts() {
    let rng = Rng::new(25);
    let all = content(100);
    let session = Shared::new(100, &rng);
    for (from, to) in [(30, 50), (70, 100)] {
        let bytes = &all[from as usize..to as usize];
        assert!(is_stored(&put_now(&session, bytes, from, to)));
    }
    let more = |at: u64, to: u64| {
        let disk = ModelDisk::new(rng.clone(), Faults::default());
        let mut body = body(&all[at as usize..to as usize], &rng);
        let request = PatchRequest {
            upload_offset: Offset::new(at),
            reserve: true,
        };
        block_on(patch(&disk, &mut body, &session, request))
    };
    for (at, to, prefix) in [(0, 30, 50), (50, 60, 60), (60, 75, 100)] {
        let written = more(at, to);
        let Written::Stored { durable, .. } = &written else {
            panic!("{at}..{to}: {written:?}");
        };
        assert_eq!(durable.prefix(), prefix, "{at}..{to}");
    }
    assert_eq!(session.finishes.get(), 1);
    assert_eq!(session.target.borrow().as_deref(), Some(&all[..]));
    let counts = session.file.counts.borrow();
    assert!(counts.iter().all(|count| *count == 1), "{counts:?}");
}

#[test]
fn two_writers_of_the_same_bytes_never_mix() {
    for seed in 0..60 {
        let rng = Rng::new(seed);
        let session = Shared::new(400, &rng);
        let texts: Vec<Vec<u8>> = (1..=3).map(|n| vec![n; 400]).collect();
        let disk = ModelDisk::new(rng.clone(), Faults::default());
        let puts = texts.iter().map(|bytes| async {
            Dawdle(rng.below(100)).await;
            put(&disk, body(bytes, &rng), &session, 0, 400).await
        });
        let outcomes = block_on(join_all(puts));
        let target = session.target.borrow().clone();
        for (outcome, text) in outcomes.iter().zip(&texts) {
            // A part of a finished file is answered without a look at its bytes.
            let first = matches!(outcome, Written::Stored { finished: true, .. });
            assert!(
                !first || target.as_ref() == Some(text),
                "seed {seed}: {outcome:?}"
            );
        }
        let target = target.unwrap_or_else(|| texts[0].clone());
        assert!(
            target.iter().all(|byte| *byte == target[0]),
            "seed {seed}: a mixture"
        );
        assert!(session.finishes.get() <= 1, "seed {seed}");
    }
}

/// A random part of the file, or a PATCH from where it ends, cut or faulty as it comes.
async fn one_request(disk: &ModelDisk, session: &Shared, all: &[u8], rng: &Rng) -> Written<String> {
    Dawdle(rng.below(200)).await;
    let size = session.size;
    let from = rng.below(size);
    let to = from + 1 + rng.below(size - from);
    let is_patch = rng.below(5) == 0;
    let from = if is_patch {
        session.durable.borrow().prefix()
    } else {
        from
    };
    let mut body = body(&all[from as usize..to.max(from) as usize], rng);
    if rng.below(3) == 0 {
        body.bytes
            .truncate(rng.below(body.bytes.len() as u64 + 1) as usize);
        body.ends = Err(PeerError::Gone);
    }
    if is_patch {
        let request = PatchRequest {
            upload_offset: Offset::new(from),
            reserve: false,
        };
        return patch(disk, &mut body, session, request).await;
    }
    put(disk, body, session, from, to).await
}

#[test]
fn whatever_breaks_among_many_parts_the_record_is_true_and_the_file_ends_whole() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(17);
    eprintln!("seed {seed}");
    let rng = Rng::new(seed);
    for round in 0..200 {
        let size = 1 + rng.below(500);
        let all = content(size);
        let session = Shared::new(size, &rng);
        for _ in 0..6 {
            let faults = Faults {
                write: (rng.below(3) == 0).then(|| (rng.below(20), [5, 28][rng.below(2) as usize])),
                sync: (rng.below(4) == 0).then(|| (rng.below(4), 28)),
                space: (rng.below(5) == 0).then(|| rng.below(size)),
            };
            let disk = ModelDisk::new(rng.clone(), faults);
            let requests = (0..4).map(|_| one_request(&disk, &session, &all, &rng));
            let acknowledged = block_on(join_all(requests));
            assert_eq!(disk.out.get(), 0, "round {round}: a buffer is missing");
            if session.finished.get().is_some() {
                break;
            }
            assert!(
                acknowledged
                    .iter()
                    .all(|one| !matches!(one, Written::Differs { .. }))
            );
            session.check_record(&all);
            session.crash();
        }
        if session.finished.get().is_none() {
            let written = put_now(&session, &all, 0, size);
            assert!(is_stored(&written), "round {round}: {written:?}");
        }
        assert_eq!(
            session.target.borrow().as_deref(),
            Some(&all[..]),
            "round {round}"
        );
        assert_eq!(session.finishes.get(), 1, "round {round}");
    }
}

#[test]
fn a_failed_sync_ends_the_upload_for_all_its_writers() {
    let rng = Rng::new(26);
    let all = content(400);
    let session = Shared::new(400, &rng);
    let faults = Faults {
        sync: Some((0, 5)),
        ..Faults::default()
    };
    let disk = ModelDisk::new(rng.clone(), faults);
    let puts = (0..4_u64).map(|n| {
        let (from, to) = (n * 100, n * 100 + 100);
        put(
            &disk,
            body(&all[from as usize..to as usize], &rng),
            &session,
            from,
            to,
        )
    });
    let outcomes = block_on(join_all(puts));
    let ended = |one: &Written<String>| matches!(one, Written::Disk { ended: true, .. });
    let lost = |one: &Written<String>| matches!(one, Written::Ledger(LedgerError::Lost));
    assert!(outcomes.iter().any(ended), "{outcomes:?}");
    assert!(
        outcomes.iter().all(|one| ended(one) || lost(one)),
        "{outcomes:?}"
    );
    assert!(session.aborted.get());
    assert!(session.target.borrow().is_none());
    let written = put_now(&session, &all[..100], 0, 100);
    assert!(
        matches!(written, Written::Ledger(LedgerError::NotFound)),
        "{written:?}"
    );
}

#[test]
fn a_partial_upload_goes_on_in_its_place_and_never_ends_the_upload() {
    let rng = Rng::new(27);
    let all = content(100);
    let session = Shared::new(100, &rng);
    let send = |at: u64, bytes: &[u8]| {
        let disk = ModelDisk::new(rng.clone(), Faults::default());
        let mut body = body(bytes, &rng);
        let request = PartialRequest {
            extent: Extent::new(0, 100),
            upload_offset: Offset::new(at),
            size: ByteLen::new(100),
            reserve: true,
        };
        block_on(partial(&disk, &mut body, &session, request))
    };
    assert!(is_stored(&send(0, &all[..60])));
    let wrong = send(50, &all[50..]);
    let is_told = matches!(wrong, Written::Mismatch { have } if have.get() == 60);
    assert!(is_told, "{wrong:?}");
    let long = send(60, &content(41));
    assert!(matches!(long, Written::TooLong { .. }), "{long:?}");
    assert!(is_stored(&send(60, &all[60..90])));
    session.check_record(&all);
    assert_eq!(session.finishes.get(), 0);
}
