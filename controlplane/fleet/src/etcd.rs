//! etcd as the fleet uses it.
//!
//! Source: reference of the original's layout, releases 26.2 to 26.9; `docs/operations.md`.

mod settings;

pub use settings::{Settings, Tls};
