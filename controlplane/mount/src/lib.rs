//! What needs root: mounting, unmounting, changing owners, the mount table, deleting for others.
//!
//! A small process does it, the *keeper of mounts*: the server's own program, started before the
//! server gives up its rights, or by systemd on its own. The server asks it over a local socket.
//!
//! Laws
//! - Fixed verbs, no shell. What is not in the [`Policy`], which comes from the configuration and
//!   never over the socket, is refused.
//! - A path is resolved beneath a configured directory, without following a link, and then used
//!   through its descriptor: what was checked is what is mounted on.
//! - Mounts are `nosuid` and `nodev` whatever is asked for. Nothing is unmounted lazily.
//! - A failure is an answer in words. The process ends when the server ends, and not before.
//! - One job per path at a time, and every job has a time limit.
#![forbid(unsafe_code)]

pub mod client;
mod fstab;
mod job;
mod place;
pub mod policy;
pub mod protocol;
pub mod service;

pub use client::{Client, ClientError};
pub use policy::{Denied, Policy};
pub use protocol::Task;
