//! One module per command. They parse nothing and know no protocol.

pub mod config;
pub mod dependencies;
pub mod get;
pub mod health;
pub mod ls;
pub mod migrate;
pub mod mkdir;
pub mod put;
pub mod rm;
pub mod sample;
