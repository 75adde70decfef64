//! Goal: any range of an archive is that part of the whole, and what changed never passes.
//! Method: members in memory, of sizes around every threshold; the whole is made by the plain
//! rules of `wire`; ranges by random cuts from a printed seed.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ops::Range;

use proxy_core::units::{ByteLen, Offset};
use proxy_wire::tar;
use proxy_wire::zip::{Checksum, Kind, Layout};

use super::*;
use crate::model::{Dawdle, Rng, block_on};

/// A file in memory, and whether it has changed since it was listed.
struct Model {
    rng: Rng,
    files: Vec<(String, Vec<u8>, Kind)>,
    changed: RefCell<HashSet<usize>>,
    known: RefCell<Vec<Option<u32>>>,
    plan: Plan,
    /// Bytes that were read for a checksum, and members that were opened.
    summed: Cell<u64>,
    opened: Cell<u64>,
    checked: Cell<u64>,
    at_once: Cell<u64>,
    at_once_most: Cell<u64>,
}

impl Model {
    fn new(seed: u64, format: Format, sizes: &[u64]) -> Self {
        let rng = Rng::new(seed);
        let mut files = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            let depth = rng.below(3) as usize * 60;
            let name = format!("{}{index}-é", "d/".repeat(depth));
            let kind = if *size == 0 && rng.below(2) == 0 {
                Kind::Dir
            } else {
                Kind::File
            };
            let byte = |at| (at * 31 + index as u64 + (at >> 11)) as u8;
            files.push((name, (0..*size).map(byte).collect(), kind));
        }
        let mut model = Self {
            rng,
            known: RefCell::new(vec![None; files.len()]),
            files,
            changed: RefCell::default(),
            plan: Plan::new(format),
            summed: Cell::default(),
            opened: Cell::default(),
            checked: Cell::default(),
            at_once: Cell::default(),
            at_once_most: Cell::default(),
        };
        model.plan = Plan::of(format, &model).unwrap();
        model
    }

    fn still(&self, index: usize) -> Result<(), SinkError> {
        if self.changed.borrow().contains(&index) {
            return Err(SinkError::Truncated);
        }
        Ok(())
    }

    /// The archive by the rules of `wire` alone.
    fn whole(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut layout = Layout::new();
        let mut sums = Vec::new();
        for (index, (_, data, _)) in self.files.iter().enumerate() {
            let mut sum = Checksum::new();
            sum.update(data);
            let sum = sum.finalize();
            self.show(index, |member| match self.plan.format() {
                Format::Zip => {
                    layout.add(&member.zip()).unwrap();
                    member.zip().local_header(&mut out);
                    out.extend_from_slice(data);
                    member.zip().descriptor(sum, &mut out);
                }
                Format::Tar => {
                    member.tar().header(&mut out);
                    out.extend_from_slice(data);
                    member.tar().padding(&mut out);
                }
            });
            sums.push(sum);
        }
        if self.plan.format() == Format::Tar {
            out.extend_from_slice(&tar::END);
            return out;
        }
        let mut central = layout.central();
        for (index, sum) in sums.iter().enumerate() {
            self.show(index, |member| central.entry(&member.zip(), *sum, &mut out));
        }
        central.end(&mut out);
        out
    }

    fn send(&self, window: Range<u64>) -> Result<Vec<u8>, SinkError> {
        let mut sink = Collect {
            model: self,
            bytes: Vec::new(),
            over: false,
        };
        block_on(send(self, &self.plan, window, b"head", &mut sink))?;
        assert_eq!(&sink.bytes[..4], b"head");
        assert_eq!(self.at_once.get(), 0);
        assert!(sink.over, "the last piece says that it is the last");
        sink.bytes.drain(..4);
        Ok(sink.bytes)
    }
}

impl Listed for Model {
    fn count(&self) -> usize {
        self.files.len()
    }

    fn show<T>(&self, index: usize, show: impl FnOnce(&Member<'_>) -> T) -> T {
        let (name, data, kind) = &self.files[index];
        show(&Member {
            name: name.as_bytes(),
            mode: 0o644,
            mtime_s: 1_700_000_000 + index as i64,
            mtime_ns: index as u32 % 3 * 500,
            size: data.len() as u64,
            kind: *kind,
        })
    }
}

/// Work that is under way.
struct Busy<'m>(&'m Model);

impl<'m> Busy<'m> {
    fn new(model: &'m Model) -> Self {
        model.at_once.set(model.at_once.get() + 1);
        let most = model.at_once_most.get().max(model.at_once.get());
        model.at_once_most.set(most);
        Self(model)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.at_once.set(self.0.at_once.get() - 1);
    }
}

impl Members for Model {
    type File = usize;

    fn known_sum(&self, index: usize) -> Option<u32> {
        self.known.borrow()[index]
    }

    async fn open(&self, index: usize) -> Result<usize, SinkError> {
        let _busy = Busy::new(self);
        Dawdle(self.rng.below(4)).await;
        self.opened.set(self.opened.get() + 1);
        self.still(index)?;
        Ok(index)
    }

    async fn pack(&self, members: Range<usize>, window: Range<u64>) -> Result<Packed, SinkError> {
        let _busy = Busy::new(self);
        Dawdle(self.rng.below(4)).await;
        let read = |index: usize, out: &mut Vec<u8>| {
            self.still(index)?;
            out.extend_from_slice(&self.files[index].1);
            Ok(())
        };
        self.plan.pack(self, members, &window, read)
    }

    async fn sum(&self, file: &usize, at: Offset, len: ByteLen) -> Result<Checksum, SinkError> {
        Dawdle(self.rng.below(4)).await;
        self.summed.set(self.summed.get() + len.get());
        let mut sum = Checksum::new();
        let (from, len) = (at.get() as usize, len.get() as usize);
        sum.update(&self.files[*file].1[from..from + len]);
        Ok(sum)
    }

    async fn check(&self, sent: Vec<Sent<usize>>) -> Result<(), SinkError> {
        for Sent { index, file, sum } in sent {
            assert_eq!(index, file);
            self.still(index)?;
            self.checked.set(self.checked.get() + 1);
            if sum.is_some() {
                self.known.borrow_mut()[index] = sum;
            }
        }
        Ok(())
    }
}

struct Collect<'m> {
    model: &'m Model,
    bytes: Vec<u8>,
    over: bool,
}

impl Sink for Collect<'_> {
    type File = usize;

    async fn send(&mut self, bytes: &[u8], more: bool) -> Result<(), SinkError> {
        assert!(!self.over);
        Dawdle(self.model.rng.below(3)).await;
        self.bytes.extend_from_slice(bytes);
        self.over = !more;
        Ok(())
    }

    async fn send_file(
        &mut self,
        file: &usize,
        at: Offset,
        len: ByteLen,
        more: bool,
    ) -> Result<(), SinkError> {
        assert!(!self.over);
        assert!(len.get() > 0);
        Dawdle(self.model.rng.below(3)).await;
        let (from, len) = (at.get() as usize, len.get() as usize);
        let data = &self.model.files[*file].1[from..from + len];
        self.bytes.extend_from_slice(data);
        self.over = !more;
        Ok(())
    }
}

/// Sizes around the thresholds, many of them small.
fn sizes(rng: &Rng) -> Vec<u64> {
    let count = rng.below(300);
    let size = |n| match n {
        0 => SMALL_BYTES_MAX + rng.below(3) - 1,
        1 => SUM_BYTES * (1 + rng.below(2)) + rng.below(3) - 1,
        2 => rng.below(SMALL_BYTES_MAX),
        3 => 0,
        n if n < 40 => rng.below(3),
        _ => rng.below(5_000),
    };
    (0..count).map(|_| size(rng.below(160))).collect()
}

const FORMATS: [Format; 2] = [Format::Zip, Format::Tar];

#[test]
fn every_range_is_that_part_of_the_whole() {
    for seed in 1..=12 {
        for format in FORMATS {
            let rng = Rng::new(seed);
            let model = Model::new(seed, format, &sizes(&rng));
            let whole = model.whole();
            let total = model.plan.total_len().get();
            assert_eq!(total, whole.len() as u64, "seed {seed} {format:?}");
            for _ in 0..12 {
                // As by a fresh server, and by one that has seen it all.
                if rng.below(2) == 0 {
                    model.known.borrow_mut().fill(None);
                }
                let from = match rng.below(3) {
                    0 => 0,
                    1 => total - 1 - rng.below(total.min(40_000)),
                    _ => rng.below(total),
                };
                let to = from + 1 + rng.below(total - from);
                let to = if rng.below(2) == 0 { total } else { to };
                let part = model.send(from..to).unwrap();
                let want = &whole[from as usize..to as usize];
                assert!(
                    part == want,
                    "seed {seed} {format:?} {from}..{to} of {total}"
                );
                assert!(model.at_once_most.get() <= AHEAD_MAX as u64);
            }
        }
    }
}

#[test]
fn pieces_stitched_together_are_the_whole() {
    for seed in 20..=26 {
        for format in FORMATS {
            let rng = Rng::new(seed);
            let model = Model::new(seed, format, &sizes(&rng));
            let (whole, total) = (model.whole(), model.plan.total_len().get());
            let mut got = Vec::new();
            while (got.len() as u64) < total {
                let from = got.len() as u64;
                let to = (from + 1 + rng.below(total / 4 + 1)).min(total);
                got.extend(model.send(from..to).unwrap());
            }
            assert!(got == whole, "seed {seed} {format:?}");
        }
    }
}

#[test]
fn every_cut_of_a_small_archive_fits() {
    for format in FORMATS {
        let model = Model::new(3, format, &[0, 5, 0, 700, 1]);
        let whole = model.whole();
        let total = whole.len() as u64;
        for cut in 1..total {
            let mut got = model.send(0..cut).unwrap();
            got.extend(model.send(cut..total).unwrap());
            assert!(got == whole, "{format:?} cut at {cut}");
        }
    }
}

#[test]
fn an_archive_without_members_has_ranges_too() {
    for (format, len) in [(Format::Zip, 22), (Format::Tar, 1024)] {
        let model = Model::new(1, format, &[]);
        assert_eq!(model.send(0..len).unwrap(), model.whole());
        assert_eq!(model.send(len - 1..len).unwrap(), [0]);
    }
}

#[test]
fn only_what_is_needed_is_read_for_checksums() {
    let big = 3 * SUM_BYTES + 7;
    let model = Model::new(1, Format::Zip, &[big, 10, big]);
    let total = model.plan.total_len().get();
    let second = model.plan.start(2);
    let sum_of = |window: Range<u64>| {
        model.summed.set(0);
        model.send(window).unwrap();
        model.summed.get()
    };
    // A part of a member that ends within it has no checksum in it.
    assert_eq!(sum_of(0..big / 2), 0);
    // All of the rest, and of the first member only its bytes.
    assert_eq!(sum_of(second..total), 2 * big);
    // Now all are known.
    assert_eq!(sum_of(0..total), 0);
    assert_eq!(sum_of(total - 1..total), 0);
    // The descriptor of the first needs its checksum, and no other.
    model.known.borrow_mut().fill(None);
    let behind = model.plan.start(1);
    assert_eq!(sum_of(behind - 1..behind), big);
    assert_eq!(model.known.borrow()[2], None);
    // The end record needs none.
    model.known.borrow_mut().fill(None);
    assert_eq!(sum_of(total - 22..total), 0);
    // A tar never does.
    let tar = Model::new(1, Format::Tar, &[big, 10]);
    tar.send(5..tar.plan.total_len().get()).unwrap();
    assert_eq!(tar.summed.get(), 0);
}

#[test]
fn a_member_that_changed_ends_the_archive_before_its_last_byte() {
    let sizes = [10, SMALL_BYTES_MAX + 1, 20, SUM_BYTES + 1, 0];
    for format in FORMATS {
        for changed in 0..sizes.len() {
            let model = Model::new(5, format, &sizes);
            let total = model.plan.total_len().get();
            model.changed.borrow_mut().insert(changed);
            let mut sink = Collect {
                model: &model,
                bytes: Vec::new(),
                over: false,
            };
            let sent = block_on(send(&model, &model.plan, 0..total, b"", &mut sink));
            assert!(
                matches!(sent, Err(SinkError::Truncated)),
                "{format:?} {changed}"
            );
            assert!(!sink.over, "{format:?} {changed}");
            assert!((sink.bytes.len() as u64) < total, "{format:?} {changed}");
            assert_eq!(model.at_once.get(), 0);
            // A range before it is none of its business.
            let before = 0..model.plan.start(changed);
            if !before.is_empty() {
                assert!(model.send(before).is_ok(), "{format:?} {changed}");
            }
        }
    }
}
