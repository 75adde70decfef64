//! Other processes: on which cores they run, what they have used.

use std::io;
use std::process::{Child, Command};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Starts a process that runs on these cores only, it and all its children.
///
/// # Errors
/// As the system says.
pub fn spawn_on(command: &mut Command, cores: &[usize]) -> io::Result<Child> {
    // A child inherits the cores of the thread that starts it: set, start, set back. On a thread
    // of its own, so that nobody else notices.
    std::thread::scope(|scope| {
        let spawned = scope.spawn(|| {
            pin(cores)?;
            command.spawn()
        });
        spawned
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the spawning thread panicked")))
    })
}

/// Keeps the calling thread on these cores; none means all.
///
/// # Errors
/// When there is no such core.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// The cores that this process may use.
#[must_use]
pub fn cores() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU)
        .filter(|core| set.is_set(*core))
        .collect()
}
