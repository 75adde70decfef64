//! The control plane's HTTP face: the Manager's API, health, metrics, and how they are served.
//!
//! Thin: parse, call a volume or the state, answer. What a path, a folder or a task means is
//! decided below.
//!
//! Laws
//! - A request costs a bounded amount of memory and time, whatever it sends.
//! - A panic in a handler ends that request with a 500, and nothing else.
//! - File content passes here in one place only, `/folder/file/fetch`, piece by piece.
//!
//! Source: the manager-facing and internal parts of the wire contract, releases 26.2 to 26.9.
#![forbid(unsafe_code)]

mod call;
mod gate;
mod health;
mod inspect;
mod manage;
pub mod metrics;
mod observe;
pub mod probes;
mod reply;
mod route;
mod serve;
mod state;
pub mod stats;
#[cfg(test)]
mod testbed;

pub use axum::Router;
pub use gate::TOKEN_HEADER;
pub use health::{Check, Health, Probe};
pub use inspect::{Look, inspect_router};
pub use metrics::Metrics;
pub use route::{internal_router, manager_router};
pub use serve::serve;
pub use state::{ApiState, Limits, Settings};
pub use stats::StatsCache;
