//! The handlers of the Manager's API, one module per group of routes.
//!
//! Each reads its parameters, calls one operation, and answers. Fields and texts are those of the
//! contract; where ours differs on purpose, the handler says so.

pub(crate) mod fetch;
pub(crate) mod files;
pub(crate) mod folders;
pub(crate) mod listing;
pub(crate) mod scopes;
pub(crate) mod snapshots;
pub(crate) mod status;
pub(crate) mod tasks;
pub(crate) mod tokens;
pub(crate) mod volumes;

#[cfg(test)]
mod file_tests;
#[cfg(test)]
#[path = "manage_tests.rs"]
mod tests;
