//! Memory of unfinished transfers, so that the same command run again goes on.
//!
//! One small file per transfer, named by what is moved where. It holds a token, so it is private,
//! and it goes when the transfer is done.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::datadir::{DataDir, private_dir, write_private};
use crate::failure::Failure;

/// The memory of one transfer.
#[derive(Clone, Debug)]
pub struct Memory {
    path: PathBuf,
    what: String,
}

/// What the file holds: the whole name as well, since file names are only its hash.
#[derive(Debug, serde::Deserialize, Serialize)]
struct Page<T> {
    what: String,
    state: T,
}

impl Memory {
    /// The memory of `what`, which names source and target.
    pub fn of(data: &DataDir, what: String) -> Self {
        let name = format!("client/transfers/{:016x}.json", fingerprint(&what));
        Self {
            path: data.join(&name),
            what,
        }
    }

    /// What is remembered; a page that cannot be read is as good as none.
    pub fn recall<T: DeserializeOwned>(&self) -> Option<T> {
        let page: Page<T> = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        (page.what == self.what).then_some(page.state)
    }

    /// Remembers.
    ///
    /// # Errors
    /// The data directory cannot be written.
    pub fn keep<T: Serialize>(&self, state: T) -> Result<(), Failure> {
        if let Some(directory) = self.path.parent() {
            private_dir(directory)?;
        }
        let page = Page {
            what: self.what.clone(),
            state,
        };
        let bytes = serde_json::to_vec(&page)
            .map_err(|error| Failure::new(format!("remember transfer: {error}")))?;
        write_private(&self.path, &bytes)
    }

    /// Forgets.
    pub fn drop_page(&self) {
        // A page that stays costs a few bytes, and is checked before it is believed.
        let _ = fs::remove_file(&self.path);
    }
}

/// FNV-1a: short file names, no cryptography needed.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pages_are_kept_checked_and_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let memory = Memory::of(&data, "put a b".into());
        assert_eq!(memory.recall::<u32>(), None);
        memory.keep(7u32).unwrap();
        assert_eq!(memory.recall::<u32>(), Some(7));
        // Two texts with one hash would share a file; the text in it tells them apart.
        let other = Memory {
            what: "put c d".into(),
            ..memory.clone()
        };
        assert_eq!(other.recall::<u32>(), None);
        memory.drop_page();
        assert_eq!(memory.recall::<u32>(), None);
    }
}
