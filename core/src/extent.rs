//! Byte ranges of one file as a set: what is durable, and what a writer wants to write.
//!
//! Laws
//! - An [`Extent`] is half open and never backwards; an empty one touches nothing.
//! - [`Extents`] are sorted, never empty, and neither overlap nor touch: the set has one form.

use serde::{Deserialize, Serialize};

use crate::units::Offset;

/// The bytes `from..to` of a file. `from <= to`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Extent {
    /// First byte.
    pub from: u64,
    /// One behind the last byte.
    pub to: u64,
}

impl From<(u64, u64)> for Extent {
    fn from((from, to): (u64, u64)) -> Self {
        Self::new(from, to)
    }
}

impl From<Extent> for (u64, u64) {
    fn from(extent: Extent) -> Self {
        (extent.from, extent.to)
    }
}

impl Extent {
    /// The bytes `from..to`; none if that is backwards.
    pub const fn new(from: u64, to: u64) -> Self {
        let to = if to < from { from } else { to };
        Self { from, to }
    }

    /// How many bytes.
    pub const fn len(self) -> u64 {
        self.to - self.from
    }

    /// Whether there is no byte.
    pub const fn is_empty(self) -> bool {
        self.from == self.to
    }

    /// Whether some byte is in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.from < other.to && other.from < self.to && !self.is_empty() && !other.is_empty()
    }
}

/// What lies at a position, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// In the set up to here.
    Held(u64),
    /// Not in the set up to here; `u64::MAX` behind the last extent.
    Gap(u64),
}

/// A set of bytes, as few extents as possible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Extents(Vec<Extent>);

impl<'de> Deserialize<'de> for Extents {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::<Extent>::deserialize(from).map(Self::from_iter)
    }
}

impl FromIterator<Extent> for Extents {
    fn from_iter<I: IntoIterator<Item = Extent>>(extents: I) -> Self {
        let mut set = Self::default();
        for extent in extents {
            set.insert(extent);
        }
        set
    }
}

impl Extents {
    /// The first `bytes` bytes of a file.
    pub fn prefix_of(bytes: u64) -> Self {
        Self::from_iter([Extent::new(0, bytes)])
    }

    /// Adds bytes.
    pub fn insert(&mut self, extent: Extent) {
        if extent.is_empty() {
            return;
        }
        // Those that overlap or touch become one.
        let first = self.0.partition_point(|known| known.to < extent.from);
        let end = self.0.partition_point(|known| known.from <= extent.to);
        let mut whole = extent;
        if first < end {
            whole.from = whole.from.min(self.0[first].from);
            whole.to = whole.to.max(self.0[end - 1].to);
        }
        self.0.splice(first..end, [whole]);
    }

    /// End of the bytes that are there from 0 on.
    pub fn prefix(&self) -> u64 {
        self.end_of(0)
    }

    /// End of the bytes that are there from `at` on; `at` itself if it is not there.
    pub fn end_of(&self, at: u64) -> u64 {
        match self.at(at) {
            Stretch::Held(to) => to,
            Stretch::Gap(_) => at,
        }
    }

    /// What lies at `at`.
    pub fn at(&self, at: u64) -> Stretch {
        let next = self.0.partition_point(|known| known.to <= at);
        match self.0.get(next) {
            Some(known) if known.from <= at => Stretch::Held(known.to),
            Some(known) => Stretch::Gap(known.from),
            None => Stretch::Gap(u64::MAX),
        }
    }

    /// Whether all of `extent` is there.
    pub fn covers(&self, extent: Extent) -> bool {
        extent.is_empty() || extent.to <= self.end_of(extent.from)
    }

    /// Whether all of a file of `size` bytes is there.
    pub fn is_whole(&self, size: u64) -> bool {
        size <= self.prefix()
    }

    /// The set without what lies before `at`.
    pub fn after(&self, at: u64) -> Self {
        let later = self.0.iter().filter(|known| at < known.to);
        later
            .map(|known| Extent::new(known.from.max(at), known.to))
            .collect()
    }

    /// How many extents.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The extents, first to last.
    pub fn iter(&self) -> impl Iterator<Item = Extent> {
        self.0.iter().copied()
    }
}

/// What a writer wants of an upload: decides whom it ends, see [`Want::conflicts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// To go on where the contiguous bytes end, as the only one who does. `end` is where its bytes
    /// end at most.
    Append {
        /// Where it says that it begins.
        at: Option<Offset>,
        /// One behind the last byte that it may write.
        end: u64,
    },
    /// To write these bytes, beside others who write other ones.
    Part(Extent),
}

impl Want {
    /// To go on at `at`, up to any end.
    pub const fn append(at: Option<Offset>) -> Self {
        Self::Append { at, end: u64::MAX }
    }

    /// Nobody brings anything: whoever hears of this is to stop, and keeps all that came.
    pub const fn nothing() -> Self {
        Self::append(Some(Offset::new(u64::MAX)))
    }

    /// Whether it is [`Self::nothing`].
    pub fn is_nothing(self) -> bool {
        self == Self::nothing()
    }

    /// To be the only one.
    pub const fn alone() -> Self {
        Self::append(None)
    }

    /// The bytes that may be written.
    pub fn extent(self) -> Extent {
        match self {
            Self::Append { at, end } => Extent::new(at.map_or(0, Offset::get), end),
            Self::Part(extent) => extent,
        }
    }

    /// Whether the two can not write at a time.
    pub fn conflicts(self, other: Self) -> bool {
        match (self, other) {
            (Self::Append { .. }, Self::Append { .. }) => true,
            _ => self.extent().overlaps(other.extent()),
        }
    }
}

/// What is on record after a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Durable bytes.
    pub durable: Extents,
    /// The report was about the last bytes missing: whoever gets this puts the file in its place.
    pub whole: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(add: &[(u64, u64)], want: &[(u64, u64)], prefix: u64) {
        let set: Extents = add.iter().copied().map(Extent::from).collect();
        let got: Vec<(u64, u64)> = set.iter().map(Into::into).collect();
        assert_eq!(got, want, "{add:?}");
        assert_eq!(set.prefix(), prefix, "{add:?}");
    }

    #[test]
    fn sets_have_one_form() {
        check(&[], &[], 0);
        check(&[(3, 3)], &[], 0);
        check(&[(0, 4)], &[(0, 4)], 4);
        check(&[(4, 8), (0, 4)], &[(0, 8)], 8);
        check(&[(0, 2), (4, 6), (8, 9)], &[(0, 2), (4, 6), (8, 9)], 2);
        check(&[(0, 2), (4, 6), (8, 9), (1, 8)], &[(0, 9)], 9);
        check(&[(5, 6), (1, 2), (3, 4), (2, 3)], &[(1, 4), (5, 6)], 0);
        check(&[(5, 9), (6, 7)], &[(5, 9)], 0);
    }

    #[test]
    fn the_set_equals_a_set_of_numbers() {
        let mut state = 7_u64;
        for _ in 0..200 {
            let mut set = Extents::default();
            let mut model = std::collections::BTreeSet::new();
            for _ in 0..12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let (from, len) = ((state >> 33) % 40, (state >> 50) % 9);
                set.insert(Extent::new(from, from + len));
                model.extend(from..from + len);
                for at in 0..50 {
                    let held = matches!(set.at(at), Stretch::Held(_));
                    assert_eq!(held, model.contains(&at), "{at} in {set:?}");
                    let end = (at..).find(|n| !model.contains(n)).unwrap_or(at);
                    assert_eq!(set.end_of(at), end);
                }
                let text = serde_json::to_string(&set).unwrap_or_default();
                assert_eq!(
                    serde_json::from_str::<Extents>(&text).ok(),
                    Some(set.clone())
                );
            }
        }
    }

    #[test]
    fn writers_conflict_about_bytes_or_about_the_end() {
        let append = |at, end| Want::Append {
            at: Some(Offset::new(at)),
            end,
        };
        let part = |from, to| Want::Part(Extent::new(from, to));
        for (one, other, conflict) in [
            (append(0, 5), append(9, 9), true),
            (append(0, 5), part(5, 9), false),
            (append(0, 5), part(4, 9), true),
            (part(0, 4), part(4, 8), false),
            (part(0, 4), part(3, 8), true),
            (part(0, 0), Want::alone(), false),
            (part(0, 1), Want::alone(), true),
        ] {
            assert_eq!(one.conflicts(other), conflict, "{one:?} {other:?}");
            assert_eq!(other.conflicts(one), conflict, "{other:?} {one:?}");
        }
    }
}
