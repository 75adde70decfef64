//! What the tests from outside share: a server to start, raw HTTP to speak, tokens to forge.
//!
//! Nothing here depends on the product's crates: what is expected is written down a second
//! time, from the wire contract, so that a mistake in the product cannot hide in its own test.
//!
//! Laws
//! - A [`Server`] ends with its value; only the process that it started itself is ever signalled.
//! - Every wait has a bound; every random choice comes from a seed that is printed.
//! - What a test cannot do on this machine it says with [`skip`], it never passes silently.

#![forbid(unsafe_code)]

pub mod client;
pub mod data;
pub mod etcd;
pub mod folder;
pub mod grove;
pub mod http;
pub mod http2;
pub mod original;
pub mod problem;
pub mod redis;
pub mod server;
pub mod table;
pub mod testbed;
pub mod token;
pub mod tus;
pub mod wait;

pub use folder::Folder;
pub use http::{Connection, Request, Response};
pub use redis::RedisServer;
pub use server::{Server, Settings};

/// Says on the test's output that something was not tested, and why.
#[allow(clippy::print_stdout)]
pub fn skip(reason: impl std::fmt::Display) {
    println!("skipped: {reason}");
}

/// The number in the environment variable `name`, or `default` when it is not set.
///
/// # Panics
/// When it is set to anything but a number: a misspelt size must not shrink a test.
#[must_use]
pub fn env_number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}
