//! What waits in the outbox, in its order.
//!
//! Decides, never waits.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proxy_core::id::TaskId;
use serde::{Deserialize, Serialize};

use super::OutboxLimits;
use crate::frame::Frame;

/// What a line adds to the texts of an event, about.
const LINE_BYTES: usize = 160;

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Set for the last word about a task: a broadcast. All others go into the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_of: Option<TaskId>,
    name: String,
    /// Base64.
    args: String,
    payload: String,
    metadata: String,
    /// Whether it was there when the program started.
    #[serde(skip)]
    pub(crate) is_old: bool,
}

impl Kept {
    pub(crate) fn new(frame: &Frame, last_of: Option<TaskId>) -> Self {
        Self {
            last_of,
            name: frame.name.clone().into_owned(),
            args: BASE64.encode(&frame.args),
            payload: frame.payload.clone(),
            metadata: frame.metadata.clone(),
            is_old: false,
        }
    }

    /// `None` if the file was tampered with.
    pub(crate) fn frame(&self) -> Option<Frame> {
        Some(Frame {
            name: self.name.clone().into(),
            args: BASE64.decode(&self.args).ok()?,
            payload: self.payload.clone(),
            metadata: self.metadata.clone(),
        })
    }

    fn bytes(&self) -> usize {
        LINE_BYTES + self.name.len() + self.args.len() + self.payload.len() + self.metadata.len()
    }
}

/// See the module.
pub(super) struct Book {
    limits: OutboxLimits,
    all: BTreeMap<u64, Kept>,
    held: BTreeSet<u64>,
    lasts: BTreeSet<u64>,
    next: u64,
    bytes: usize,
    dropped: u64,
}

impl Book {
    pub(super) fn new(limits: OutboxLimits) -> Self {
        Self {
            limits,
            all: BTreeMap::new(),
            held: BTreeSet::new(),
            lasts: BTreeSet::new(),
            next: 0,
            bytes: 0,
            dropped: 0,
        }
    }

    /// Adds an event; yields its number, and those of the events that had to go for it.
    pub(super) fn put(&mut self, kept: Kept, held: bool) -> (u64, Vec<u64>) {
        let mut dropped = Vec::new();
        let (len_max, bytes_max) = (self.limits.len_max, self.limits.bytes_max);
        while len_max <= self.all.len() || bytes_max < self.bytes + kept.bytes() {
            let oldest = self.lasts.iter().find(|last| !self.held.contains(last));
            let oldest = oldest.or_else(|| self.all.keys().find(|it| !self.held.contains(it)));
            let Some(oldest) = oldest.copied() else { break };
            self.strike(oldest);
            self.dropped += 1;
            dropped.push(oldest);
        }
        let number = self.next;
        self.restore(number, kept, held);
        (number, dropped)
    }

    /// Puts an event in that the file holds.
    pub(super) fn restore(&mut self, number: u64, kept: Kept, held: bool) {
        self.next = self.next.max(number.saturating_add(1));
        self.bytes += kept.bytes();
        if held {
            self.held.insert(number);
        }
        if kept.last_of.is_some() {
            self.lasts.insert(number);
        }
        if let Some(old) = self.all.insert(number, kept) {
            self.bytes -= old.bytes();
        }
    }

    pub(super) fn release(&mut self, number: u64) -> bool {
        self.held.remove(&number)
    }

    pub(super) fn strike(&mut self, number: u64) -> bool {
        let Some(gone) = self.all.remove(&number) else {
            return false;
        };
        self.bytes -= gone.bytes();
        self.held.remove(&number);
        self.lasts.remove(&number);
        true
    }

    pub(super) fn first(&self) -> Option<(u64, Kept)> {
        let mut due = self
            .all
            .iter()
            .filter(|(number, _)| !self.held.contains(number));
        due.next().map(|(number, kept)| (*number, kept.clone()))
    }

    pub(super) fn get(&self, number: u64) -> Option<(&Kept, bool)> {
        let kept = self.all.get(&number)?;
        Some((kept, self.held.contains(&number)))
    }

    pub(super) fn held(&self) -> Vec<(u64, TaskId)> {
        let held = self.held.iter();
        held.filter_map(|number| Some((*number, self.all.get(number)?.last_of?)))
            .collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Kept, bool)> {
        let all = self.all.iter();
        all.map(|(number, kept)| (*number, kept, self.held.contains(number)))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }
}
