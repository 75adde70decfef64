//! Other processes: on which cores they run, what they have used.

use std::io;
use std::process::{Child, Command};
use std::time::Duration;

use proxy_ring::measure::process_cpu;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
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

/// Raises the limit of descriptors to what the system allows: ten thousand clients need as many.
///
/// # Errors
/// As setrlimit(2) says.
pub fn allow_descriptors() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// What processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time, all threads.
    pub cpu: Duration,
    /// Resident memory now, bytes.
    pub rss: u64,
    /// Most resident memory so far, bytes; the sum over processes.
    pub rss_peak: u64,
    /// Threads now.
    pub threads: u64,
    /// Descriptors now.
    pub descriptors: u64,
}

/// What these processes and all their descendants have used.
#[must_use]
pub fn usage(pids: &[u32]) -> Usage {
    let mut sum = Usage::default();
    let mut todo = pids.to_vec();
    while let Some(pid) = todo.pop() {
        sum.cpu += process_cpu(pid).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status
                .lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
            let digits = line.and_then(|text| text.split_whitespace().next()?.parse().ok());
            digits.unwrap_or(0_u64)
        };
        sum.rss += 1024 * number("VmRSS");
        sum.rss_peak += 1024 * number("VmHWM");
        sum.threads += number("Threads");
        sum.descriptors +=
            std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |dir| dir.count() as u64);
        todo.extend(children(pid));
    }
    sum
}

/// Lets the peak of the resident memory of processes and all their descendants begin anew.
///
/// Without the right to do so the peak stays that since its start: proc_pid_clear_refs(5).
pub fn forget_peak(pids: &[u32]) {
    let mut todo = pids.to_vec();
    while let Some(pid) = todo.pop() {
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        todo.extend(children(pid));
    }
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            let numbers = text.split_whitespace().filter_map(|pid| pid.parse().ok());
            numbers.collect::<Vec<u32>>()
        })
        .collect()
}
