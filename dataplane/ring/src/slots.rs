//! Where operations in flight keep what the kernel may still touch.
//!
//! Laws
//! - A key names one operation for ever: a slot's generation changes when it is reused.
//! - An abandoned slot keeps its buffers and descriptors until its completion is reaped.

use std::os::fd::AsRawFd;
use std::task::Waker;

use crate::buffer::Lease;
use crate::engine::FileRef;

/// What one operation lends to the kernel.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) lease: Option<Lease>,
    pub(crate) files: [Option<FileRef>; 2],
}

impl Held {
    /// The descriptor number of file `index`, which the slot keeps open.
    pub(crate) fn fd(&self, index: usize) -> io_uring::types::Fd {
        let file = self.files[index]
            .as_ref()
            .expect("an operation names only files that it holds");
        io_uring::types::Fd(file.as_raw_fd())
    }
}

#[derive(Debug)]
enum Slot {
    Free {
        next: Option<u32>,
    },
    Waiting {
        waker: Option<Waker>,
        held: Held,
        abandoned: bool,
    },
    Done {
        result: i32,
        held: Held,
    },
}

/// A table of operations in flight; grows to the highest number ever in flight.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<(u32, Slot)>,
    free: Option<u32>,
    waiting: usize,
}

/// What a completion meant for its slot.
pub(crate) enum Reaped {
    /// Somebody waits: wake it.
    Wake(Waker),
    /// Nobody has polled it yet; the result is kept.
    Kept,
    /// The future was dropped; what it held comes back for dropping outside of any borrow.
    Orphan(#[expect(dead_code, reason = "held for its drop")] Held),
}

impl Slots {
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn insert(&mut self, held: Held) -> u64 {
        self.waiting += 1;
        let slot = Slot::Waiting {
            waker: None,
            held,
            abandoned: false,
        };
        let index = match self.free {
            Some(index) => {
                let entry = &mut self.slots[index as usize];
                let Slot::Free { next } = entry.1 else {
                    unreachable!("the free list is free")
                };
                self.free = next;
                entry.1 = slot;
                index
            }
            None => {
                let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 operations");
                self.slots.push((0, slot));
                index
            }
        };
        key(self.slots[index as usize].0, index)
    }

    /// The lease and files of an operation, for building its submission.
    pub(crate) fn held(&self, key: u64) -> Option<&Held> {
        match self.get(key)? {
            Slot::Waiting { held, .. } => Some(held),
            _ => None,
        }
    }

    fn get(&self, key: u64) -> Option<&Slot> {
        let (generation, slot) = self.slots.get(index_of(key))?;
        (*generation == generation_of(key)).then_some(slot)
    }

    fn get_mut(&mut self, key: u64) -> Option<&mut Slot> {
        let (generation, slot) = self.slots.get_mut(index_of(key))?;
        (*generation == generation_of(key)).then_some(slot)
    }

    /// Takes the result if it is there, else remembers who waits.
    pub(crate) fn poll(&mut self, key: u64, waker: &Waker) -> Option<(i32, Held)> {
        let slot = self.get_mut(key)?;
        match slot {
            Slot::Waiting { waker: stored, .. } => {
                match stored {
                    Some(old) => old.clone_from(waker),
                    None => *stored = Some(waker.clone()),
                }
                None
            }
            Slot::Done { .. } => {
                let Slot::Done { result, held } = self.release(key)? else {
                    return None;
                };
                Some((result, held))
            }
            Slot::Free { .. } => None,
        }
    }

    /// The completion of `key` arrived.
    pub(crate) fn complete(&mut self, key: u64, result: i32) -> Option<Reaped> {
        let slot = self.get_mut(key)?;
        let Slot::Waiting {
            waker,
            held,
            abandoned,
        } = slot
        else {
            return None;
        };
        let (waker, held, abandoned) = (waker.take(), std::mem::take(held), *abandoned);
        *slot = Slot::Done { result, held };
        self.waiting -= 1;
        if abandoned {
            let Slot::Done { held, .. } = self.release(key)? else {
                return None;
            };
            return Some(Reaped::Orphan(held));
        }
        Some(waker.map_or(Reaped::Kept, Reaped::Wake))
    }

    /// The future of `key` is gone. True if the kernel should be asked to cancel; what a finished
    /// operation held comes back for dropping.
    pub(crate) fn abandon(&mut self, key: u64) -> (bool, Option<Held>) {
        match self.get_mut(key) {
            Some(Slot::Waiting {
                abandoned, waker, ..
            }) => {
                *abandoned = true;
                *waker = None;
                (true, None)
            }
            Some(Slot::Done { .. }) => match self.release(key) {
                Some(Slot::Done { held, .. }) => (false, Some(held)),
                _ => (false, None),
            },
            _ => (false, None),
        }
    }

    /// Every operation that the kernel has not answered.
    pub(crate) fn waiting_keys(&self) -> Vec<u64> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, (_, slot))| matches!(slot, Slot::Waiting { .. }))
            .filter_map(|(index, (generation, _))| Some(key(*generation, index.try_into().ok()?)))
            .collect()
    }

    fn release(&mut self, key: u64) -> Option<Slot> {
        let index = index_of(key);
        let next = self.free;
        let (generation, slot) = self.slots.get_mut(index)?;
        *generation = generation.wrapping_add(1);
        let old = std::mem::replace(slot, Slot::Free { next });
        self.free = u32::try_from(index).ok();
        Some(old)
    }
}

fn key(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

fn index_of(key: u64) -> usize {
    (key & u64::from(u32::MAX)) as usize
}

fn generation_of(key: u64) -> u32 {
    (key >> 32) as u32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_outlives_its_slot_without_meaning_another_operation() {
        let mut slots = Slots::default();
        let first = slots.insert(Held::default());
        assert!(slots.poll(first, Waker::noop()).is_none());
        assert!(matches!(slots.complete(first, 7), Some(Reaped::Wake(_))));
        assert_eq!(slots.poll(first, Waker::noop()).unwrap().0, 7);
        let second = slots.insert(Held::default());
        assert_ne!(first, second);
        assert!(
            slots.complete(first, 1).is_none(),
            "a late completion hits nobody"
        );
        assert!(slots.abandon(second).0);
        assert_eq!(slots.waiting(), 1);
        assert!(matches!(slots.complete(second, 0), Some(Reaped::Orphan(_))));
        assert_eq!(slots.waiting(), 0);
    }

    #[test]
    fn a_result_that_nobody_fetches_is_dropped_with_its_future() {
        let mut slots = Slots::default();
        let key = slots.insert(Held::default());
        assert!(matches!(slots.complete(key, 3), Some(Reaped::Kept)));
        let (cancel, held) = slots.abandon(key);
        assert!(!cancel);
        assert!(held.is_some());
        assert!(slots.waiting_keys().is_empty());
    }
}
