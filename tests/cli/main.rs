//! Goal: the program's own command line keeps its word: configuration, server, client.
//! Method: the built program is run as a user runs it, in a directory of its own. The client
//! commands also meet a scripted server that breaks off, stalls and changes its mind.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod client;
mod config;
mod fake;
mod mounts;
mod program;
mod serve;
