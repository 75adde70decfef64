//! Events that are worth something only now: bounded, and merged while they cannot be sent.
//!
//! Decides, never waits.
//!
//! Laws
//! - Of one task, the oldest waiting report (its start, as a rule) and the newest are kept.
//! - What is too much costs the oldest.

use std::collections::VecDeque;

use crate::frame::Frame;
use crate::frame::catalogue::Way;

/// See the module.
pub(super) struct Passing {
    queue: VecDeque<(Frame, Way)>,
    len_max: usize,
}

impl Passing {
    pub(super) fn new(len_max: usize) -> Self {
        assert!(0 < len_max);
        Self {
            queue: VecDeque::new(),
            len_max,
        }
    }

    /// Adds an event; yields how many others went for it.
    pub(super) fn push(&mut self, frame: Frame, way: Way) -> u64 {
        let mut dropped = 0;
        if let Way::Progress(_) = way {
            let mut same = self
                .queue
                .iter_mut()
                .rev()
                .filter(|(_, other)| *other == way);
            if let (Some(newest), Some(_)) = (same.next(), same.next()) {
                newest.0 = frame;
                return 1;
            }
        }
        if self.len_max <= self.queue.len() {
            self.queue.pop_front();
            dropped = 1;
        }
        self.queue.push_back((frame, way));
        dropped
    }

    pub(super) fn pop(&mut self) -> Option<(Frame, Way)> {
        self.queue.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
