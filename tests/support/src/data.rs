//! Bytes and choices from a seed: reproducible, and cheap enough to check gigabytes.

/// A small generator (splitmix64): good enough to choose sizes, moments and bytes.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from the environment variable `STORAGE_TEST_SEED`, else from the clock, and
    /// prints the seed so that a failed run can be had again.
    #[must_use]
    #[allow(clippy::print_stdout)]
    pub fn printed(topic: &str) -> Self {
        let clock = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |t| t.as_nanos() as u64);
        let seed = crate::env_number("STORAGE_TEST_SEED", clock);
        println!("{topic}: STORAGE_TEST_SEED={seed}");
        Self(seed)
    }

    /// Starts from a given seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.draw() % end }
    }

    /// One of the given things.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len() as u64) as usize]
    }
}

/// A file's content as a function of seed and position: every part of it can be made or
/// checked without holding the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern(pub u64);

impl Pattern {
    /// The eight bytes of word number `index`.
    fn word(self, index: u64) -> [u8; 8] {
        let mut z = self.0 ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (z ^ (z >> 32)).to_le_bytes()
    }

    /// Fills `out` with the bytes from `at` on.
    pub fn fill(self, at: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let pos = at + done as u64;
            let word = self.word(pos / 8);
            let from = (pos % 8) as usize;
            let n = (8 - from).min(out.len() - done);
            out[done..done + n].copy_from_slice(&word[from..from + n]);
            done += n;
        }
    }

    /// The bytes `at..at + len`.
    #[must_use]
    pub fn bytes(self, at: u64, len: u64) -> Vec<u8> {
        let mut out = vec![0; len as usize];
        self.fill(at, &mut out);
        out
    }

    /// Where `got` first differs from the bytes from `at` on; `None` when it does not.
    #[must_use]
    pub fn mismatch(self, at: u64, got: &[u8]) -> Option<u64> {
        let mut want = vec![0; got.len().min(64 * 1024)];
        for (n, part) in got.chunks(64 * 1024).enumerate() {
            let start = at + n as u64 * 64 * 1024;
            let want = &mut want[..part.len()];
            self.fill(start, want);
            if let Some(i) = part.iter().zip(want.iter()).position(|(a, b)| a != b) {
                return Some(start + i as u64);
            }
        }
        None
    }
}
