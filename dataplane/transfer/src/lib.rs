//! Upload and download machines over the seams [`Disk`], [`Source`], [`Sink`] and
//! [`ledger::Ledger`].
//!
//! They decide what is written where, when it is synced and what may be promised. They know no
//! socket, no ring, no runtime and no clock: production lends them all of that, tests lend a
//! model disk that fails on purpose.
//!
//! Laws
//! - An offset is acknowledged after its bytes are synced, never before.
//! - The contiguous prefix counts: a hole left by a failed write is never part of it.
//! - A buffer is in one place at a time; when a machine ends, all are back.

#![forbid(unsafe_code)]

pub mod archive;
mod compare;
pub mod download;
pub mod ledger;
pub mod parts;
pub mod patch;
pub mod receive;
pub mod seam;
pub mod write;

#[cfg(test)]
mod model;

pub use seam::{Buffer, Disk, Fill, Partial, PeerError, Sink, Source};
