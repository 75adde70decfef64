//! How long a transfer is tried again: as long as it gets on.

use std::time::Duration;

use super::http::CallError;
use crate::failure::Failure;

/// Waits between attempts that brought nothing.
const PAUSES: [Duration; 7] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];

/// Counts attempts that brought nothing.
#[derive(Debug, Default)]
pub struct Patience {
    futile: usize,
    at: u64,
}

impl Patience {
    /// Waits before the next attempt, or gives up with the last error.
    ///
    /// `at` is how far the transfer is: every step forward restores all patience.
    ///
    /// # Errors
    /// The error does not pass by itself, or too many attempts brought nothing.
    pub async fn after(&mut self, error: CallError, at: u64) -> Result<(), Failure> {
        if !error.passes {
            return Err(error.into());
        }
        if self.at < at {
            self.futile = 0;
        }
        self.at = at;
        let Some(pause) = PAUSES.get(self.futile) else {
            return Err(error.into());
        };
        self.futile += 1;
        tokio::time::sleep(*pause).await;
        Ok(())
    }
}
