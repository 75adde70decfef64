//! The configuration file: one table of keys, and everything that follows from it.
//!
//! [`TABLE`] says what each key is called, what it may hold, what it is when absent, why, and
//! whether it has an effect yet. The parser, `config check`, `config default`, the reference page
//! and the suggestion for a misspelt key read that table and nothing else.
//!
//! Laws
//! - A key that is not in the table is an error, except inside tables that are free by nature.
//! - Every key of the original is in the table, also those without an effect here.
//! - A problem names key, line, what was found and what is allowed; all problems come at once.
//! - A secret never leaves through an error, a dump or a page.
//!
//! Nothing here opens a file or looks at the environment: text and overrides come in as arguments.
//!
//! Source: configuration of the original, releases 26.2 to 26.9; `docs/configuration.md`.

mod document;
mod grammar;
mod keys;
mod page;
mod raw;
mod redact;
mod rules;
mod sample;
mod show;
mod suggest;
mod table;

pub use document::{Document, Entry, Issue, Note, NoteKind, Origin, Override, parse};
pub use grammar::{Account, HostPort, Level, Value};
pub use keys::{Key, Kind, Status, WhenAbsent};
pub use page::page;
pub use raw::Raw;
pub use rules::BACKENDS;
pub use sample::sample;
pub use show::{show_json, show_toml};
pub use suggest::nearest;
pub use table::TABLE;

/// Prefix of the environment variables that override any single key:
/// `STORAGE_PROXY_CONF_SERVER__LIMITS__RANGES_MAX=8`.
pub const ENV_PREFIX: &str = "STORAGE_PROXY_CONF_";
