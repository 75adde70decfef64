//! The bench suite: the same workload drives our server and every peer, and one report says who
//! needs what.
//!
//! ```text
//! workloads/*.toml ──► workload ──► runner ──► peer (ours, nginx, ...)   starts servers
//!                                     │  ├───► load                     drives them
//!                                     │  └───► process, bounds          what it cost, what is possible
//!                                     └──► report                       table, JSON, HTML, Markdown
//! ```
//!
//! Laws
//! - A workload is data: no peer has a line of its own in it, no workload a line in the code.
//! - The server is the bottleneck: the generator discards and sends without copying, on cores
//!   of its own.
//! - An answer that is not the expected one is an error, and an error fails the row.
//! - What is compared was measured in the same run, in turns. Losing rows stay.
//!
//! Source: ARCHITECTURE.md, "How to measure, or be fooled".

#![forbid(unsafe_code)]

pub mod bounds;
pub mod call;
pub mod cli;
pub mod command;
pub mod fixture;
pub mod ours;
pub mod peer;
pub mod peers;
pub mod process;
pub mod workload;
pub mod workloads;
