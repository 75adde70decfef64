//! The proxy as a member of a fleet: etcd, shared sessions and tasks over Redis, events, discovery,
//! and the Manager as a client sees it.
#![forbid(unsafe_code)]

pub mod cache;
pub mod discovery;
pub mod etcd;
pub mod events;
pub mod frame;
pub mod link;
pub mod manager;
mod outbox;
pub mod sessions;
pub mod tasks;
