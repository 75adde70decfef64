//! Random numbers whose seed a failing test prints: set `STATE_SEED` to repeat a run.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator. Not for secrets.
pub struct Random(pub u64);

impl Random {
    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // splitmix64, public domain.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The seed of this run: from the environment, or from the clock. Printed.
pub fn seed() -> u64 {
    let seed = match std::env::var("STATE_SEED") {
        Ok(text) => text.parse().expect("STATE_SEED is a number"),
        Err(_) => {
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            u64::from(since.subsec_nanos()) ^ since.as_secs() << 30
        }
    };
    eprintln!("STATE_SEED={seed}");
    seed
}
