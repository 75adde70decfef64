//! Results for people.

pub mod table;
