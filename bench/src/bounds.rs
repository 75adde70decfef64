//! What the machine itself can do, measured in the same run: no server is faster than these.

use serde::{Deserialize, Serialize};

/// Rates in GiB/s; `None` where the machine could not be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// One core copies memory.
    pub memcpy: Option<f64>,
    /// One core splices a cached file into a loopback socket, another discards.
    pub loopback: Option<f64>,
    /// The disk reads sequentially, direct I/O.
    pub disk_read: Option<f64>,
    /// The disk writes sequentially, direct I/O and a sync at the end.
    pub disk_write: Option<f64>,
}
