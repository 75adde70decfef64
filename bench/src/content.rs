//! What stands in files: a function of seed and position, so that any byte can be made or checked
//! without the rest.

/// The content of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern(pub u64);

const WORD: usize = 8;

impl Pattern {
    /// The content of a file of this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        // FNV-1a: names that differ have contents that differ.
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step))
    }

    fn word(self, index: u64) -> [u8; WORD] {
        let mut z = self.0 ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (z ^ (z >> 32)).to_le_bytes()
    }

    /// Fills `out` with the bytes from `at` on.
    pub fn fill(self, at: u64, out: &mut [u8]) {
        let skip = (at % WORD as u64) as usize;
        let mut index = at / WORD as u64;
        let mut out = out;
        if skip != 0 {
            let count = (WORD - skip).min(out.len());
            out[..count].copy_from_slice(&self.word(index)[skip..skip + count]);
            out = &mut out[count..];
            index += 1;
        }
        let mut words = out.chunks_exact_mut(WORD);
        for word in &mut words {
            word.copy_from_slice(&self.word(index));
            index += 1;
        }
        let rest = words.into_remainder();
        let count = rest.len();
        rest.copy_from_slice(&self.word(index)[..count]);
    }

    /// Where `got` first differs from the bytes from `at` on; `None` when it does not.
    #[must_use]
    pub fn mismatch(self, at: u64, got: &[u8]) -> Option<u64> {
        let mut want = [0; 4096];
        for (n, part) in got.chunks(want.len()).enumerate() {
            let start = at + (n * want.len()) as u64;
            let want = &mut want[..part.len()];
            self.fill(start, want);
            if part != want {
                let place = part.iter().zip(want.iter()).position(|(a, b)| a != b);
                return Some(start + place.unwrap_or(0) as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_is_a_part_of_the_whole() {
        let pattern = Pattern::of("a");
        let mut whole = [0; 100];
        pattern.fill(0, &mut whole);
        for (from, len) in [(0, 100), (1, 6), (3, 20), (8, 8), (99, 1), (50, 0)] {
            let mut part = vec![0; len];
            pattern.fill(from as u64, &mut part);
            assert_eq!(part, whole[from..from + len], "{from} {len}");
            assert_eq!(pattern.mismatch(from as u64, &part), None);
        }
        let mut wrong = whole;
        wrong[77] ^= 1;
        assert_eq!(pattern.mismatch(0, &wrong), Some(77));
        assert_ne!(Pattern::of("a"), Pattern::of("b"));
    }
}
