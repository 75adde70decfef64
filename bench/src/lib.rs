//! The bench suite: the same workload drives our server and every peer, and one report says who
//! needs what.
//!
//! ```text
//! workloads/*.toml ──► workload ──► runner ──► peer             starts a server
//!                                     │  ├───► load             drives them
//!                                     │  └───► process, bounds  its cost, the machine's
//!                                     └──► report           table, JSON, pages
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
pub mod content;
pub mod fixture;
pub mod load;
pub mod machine;
pub mod ours;
pub mod peer;
pub mod peers;
pub mod process;
pub mod report;
pub mod results;
pub mod runner;
pub mod tls;
pub mod trees;
pub mod unpack;
pub mod workload;
pub mod workloads;
