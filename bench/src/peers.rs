//! The servers that can be measured.

pub mod ability;
pub mod daemon;
pub mod dufs;
pub mod nginx;
pub mod original;
pub mod python;
pub mod rclone;
pub mod setup;
pub mod tus;
pub mod tus_server;
pub mod webdav;

use std::path::PathBuf;

use crate::ours::Ours;
use crate::peer::Peer;

/// Where programs are.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The program `storage-proxy`; beside the running program without it.
    pub program: Option<PathBuf>,
    /// Where peers are installed; `$XDG_CACHE_HOME/storage-bench` without it.
    pub peers: Option<PathBuf>,
}

/// What can be installed: all peers, and those that are not measured but stand in tests.
#[must_use]
pub fn installable(places: &Places) -> Vec<Box<dyn Peer>> {
    let home = places.peers.clone().unwrap_or_else(setup::default_home);
    let mut all = all(places);
    for (name, version) in original::LATER {
        all.push(Box::new(original::Original::release(&home, name, version)));
    }
    all
}

/// All peers, in the order of the report's columns. The first is ours.
#[must_use]
pub fn all(places: &Places) -> Vec<Box<dyn Peer>> {
    let home = places.peers.clone().unwrap_or_else(setup::default_home);
    vec![
        Box::new(Ours::new(places.program.as_deref())),
        Box::new(nginx::Nginx::new(&home, false)),
        Box::new(nginx::Nginx::new(&home, true)),
        Box::new(original::Original::new(&home)),
        Box::new(tus_server::TusServer::new(&home)),
        Box::new(rclone::Rclone::new(&home)),
        Box::new(dufs::Dufs::new(&home)),
    ]
}
