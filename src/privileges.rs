//! Becoming another user for good.

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::failure::Failure;
use crate::settings::Identity;

/// Becomes `identity`, with its groups, and cannot go back.
///
/// The calls of the kernel change one thread. Threads that are started later inherit from it, so
/// this comes before every other thread, every ring and every file that is written.
///
/// # Errors
/// The process is not root, or has threads already.
pub fn become_user(identity: &Identity) -> Result<(), Failure> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(Failure::new(format!(
            "cannot change the user of {threads} threads at once"
        )));
    }
    let groups: Vec<Gid> = std::iter::once(identity.gid)
        .chain(identity.groups.iter().copied())
        .map(Gid::from_raw)
        .collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    // Groups first: afterwards the right to change them is gone.
    let changed = set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid));
    changed.map_err(|error| {
        Failure::new(format!(
            "change user to {}:{}: {error}",
            identity.uid, identity.gid
        ))
    })?;
    tracing::info!(
        "Changed process uid:gid to {}:{}",
        identity.uid,
        identity.gid
    );
    Ok(())
}

/// Gives up the right to write past quotas (CAP_SYS_RESOURCE), which ext4 grants to root.
///
/// Comes before every other thread, like [`become_user`]. A refusal is told and no more: quotas
/// then hold everybody but this server.
pub fn heed_quotas() {
    let heeded = capabilities(None).and_then(|mut sets| {
        for set in [
            &mut sets.effective,
            &mut sets.permitted,
            &mut sets.inheritable,
        ] {
            set.remove(CapabilitySet::SYS_RESOURCE);
        }
        set_capabilities(None, sets)
    });
    if let Err(error) = heeded {
        tracing::warn!(%error, "this server may write past quotas: CAP_SYS_RESOURCE stays");
    }
}

/// Hands files that were made as root to the user who will run the server.
///
/// # Errors
/// The file system does not let root do that.
pub fn hand_over(identity: &Identity, path: &std::path::Path) -> Result<(), Failure> {
    let owner = Some(Uid::from_raw(identity.uid));
    let group = Some(Gid::from_raw(identity.gid));
    rustix::fs::chown(path, owner, group)
        .map_err(|error| Failure::at("change owner of", path, &error.into()))
}
