//! Partial uploads: pieces of one file that do not know their place yet, and how they get one.
//!
//! A client that concatenates makes its pieces first and says their order last. Each piece is
//! placed in the staging file when it is made, in the order of making: right for clients that make
//! them in order, so that nothing has to be moved at the end.
//!
//! Laws
//! - No two pieces share a byte of the staging file.
//! - A piece of another length than the first fills the end, if that is free: clients cut a file
//!   into equal pieces and leave the rest to the last one.
//! - A piece that finds no room within the file is placed behind it: right places can only be lost
//!   to it, never bytes.
//!
//! Source: tus 1.0.0, extension concatenation.

use serde::{Deserialize, Serialize};

use crate::extent::Extent;

/// A piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// Its name, never given twice in one session.
    pub number: u32,
    /// Where it lies in the staging file.
    pub place: u64,
    /// Its bytes.
    pub length: u64,
    /// How many of them are durable. `offset <= length`
    pub offset: u64,
}

impl Partial {
    /// The bytes of the staging file that are for it.
    pub const fn extent(&self) -> Extent {
        Extent::new(self.place, self.place.saturating_add(self.length))
    }

    /// Whether nothing of it is missing.
    pub const fn is_whole(&self) -> bool {
        self.offset == self.length
    }
}

/// Where the next piece goes: `None` if all pieces together would be more than twice the file.
pub fn place(partials: &[Partial], length: u64, size: u64) -> Option<u64> {
    let taken: u64 = partials.iter().map(|partial| partial.length).sum();
    if length > size || size.saturating_mul(2) < taken.saturating_add(length) {
        return None;
    }
    let is_free = |place: u64| {
        let here = Extent::new(place, place + length);
        !partials.iter().any(|known| known.extent().overlaps(here))
    };
    let other = partials.first().is_some_and(|first| first.length != length);
    if other && is_free(size - length) {
        return Some(size - length);
    }
    // Behind each of the others, the first place that is free.
    let mut ends: Vec<u64> = partials.iter().map(|known| known.extent().to).collect();
    ends.push(0);
    ends.sort_unstable();
    let within = ends
        .iter()
        .copied()
        .find(|place| place + length <= size && is_free(*place));
    within.or_else(|| Some(ends.last().copied().unwrap_or(0).max(size)))
}

/// Whether the pieces, in this order, lie where they belong.
pub fn are_in_place(pieces: &[Partial]) -> bool {
    let mut at = 0;
    pieces.iter().all(|piece| {
        let here = piece.place == at || piece.length == 0;
        at += piece.length;
        here
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places pieces of these lengths in a file of 100 bytes.
    fn places(lengths: &[u64]) -> Vec<Option<u64>> {
        let mut partials: Vec<Partial> = Vec::new();
        let mut places = Vec::new();
        for (number, length) in lengths.iter().enumerate() {
            let found = place(&partials, *length, 100);
            places.push(found);
            partials.extend(found.map(|place| Partial {
                number: u32::try_from(number).unwrap_or(0),
                place,
                length: *length,
                offset: 0,
            }));
        }
        for one in &partials {
            for other in &partials {
                let same = one.number == other.number;
                assert!(
                    same || !one.extent().overlaps(other.extent()),
                    "{lengths:?}"
                );
            }
        }
        places
    }

    #[test]
    fn pieces_get_their_places_in_order() {
        for (lengths, want) in [
            (
                &[25, 25, 25, 25][..],
                &[Some(0), Some(25), Some(50), Some(75)][..],
            ),
            (&[33, 33, 34], &[Some(0), Some(33), Some(66)]),
            // The last one comes early.
            (&[33, 34, 33], &[Some(0), Some(66), Some(33)]),
            (&[100], &[Some(0)]),
            (&[0, 100], &[Some(0), Some(0)]),
            (&[101], &[None]),
            // A second attempt lies behind the file, a third has no room.
            (
                &[50, 50, 50, 50, 50],
                &[Some(0), Some(50), Some(100), Some(150), None],
            ),
        ] {
            assert_eq!(places(lengths), want, "{lengths:?}");
        }
    }
}
