//! Words that both planes speak: sizes, identifiers, relative paths, tokens, errors, grammars.
//!
//! Plain types: nothing here waits, opens a file, reads a clock or knows a runtime. Time and
//! secrets come in as arguments, so every rule is a table test.
//!
//! Laws
//! - A value that exists is valid: parsing is the only way in, and canonical text the only way out.
//! - Everything a client may send is answered with a value or a reason, never with a panic.
//! - An error becomes bytes for the wire in one place, [`problem`].
//!
//! Source: the wire contract of the Backend.AI Storage Proxy, releases 26.2 to 26.9.
#![forbid(unsafe_code)]

pub mod config;
pub mod extent;
pub mod filename;
pub mod grammar;
pub mod id;
pub mod partial;
pub mod problem;
pub mod relpath;
pub mod token;
pub mod units;

/// What status bodies print as the version of the storage proxy.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
