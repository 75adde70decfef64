//! Where it was measured.

use std::path::Path;

use crate::process;
use crate::results::Machine;

/// Looks at this machine; `dir` is where files lie.
#[must_use]
pub fn look(dir: &Path, server_cores: &[usize], client_cores: &[usize]) -> Machine {
    let line = |file: &str, name: &str| -> Option<String> {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
    };
    let memory = line("/proc/meminfo", "MemTotal").and_then(|text| {
        let digits = text.split_whitespace().next()?;
        digits.parse::<u64>().ok()
    });
    Machine {
        processor: line("/proc/cpuinfo", "model name").unwrap_or_default(),
        cores: process::cores().len(),
        memory: 1024 * memory.unwrap_or(0),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        file_system: file_system(dir),
        server_cores: server_cores.to_vec(),
        client_cores: client_cores.to_vec(),
    }
}

/// Kind and device of the mount that holds `dir`.
fn file_system(dir: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, mount, kind) = (fields.next()?, fields.next()?, fields.next()?);
        dir.starts_with(mount)
            .then_some((mount.len(), format!("{kind} on {device}")))
    });
    holding.max().map_or(String::new(), |(_, text)| text)
}

/// Reads `1`, `0,2` or `2-5`.
///
/// # Errors
/// What is no core of this machine.
pub fn parse_cores(text: &str) -> Result<Vec<usize>, String> {
    let number = |text: &str| {
        text.trim()
            .parse::<usize>()
            .map_err(|_| format!("no core: {text}"))
    };
    let mut cores = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((from, to)) => cores.extend(number(from)?..=number(to)?),
            None => cores.push(number(part)?),
        }
    }
    let there = process::cores();
    match cores.iter().find(|core| !there.contains(core)) {
        Some(core) => Err(format!("no core {core} here: {there:?}")),
        None => Ok(cores),
    }
}

/// Cores of server and client when nobody says: the last core drives, all others serve.
#[must_use]
pub fn split_cores() -> (Vec<usize>, Vec<usize>) {
    let mut cores = process::cores();
    match cores.pop() {
        Some(last) if !cores.is_empty() => (cores, vec![last]),
        Some(only) => (vec![only], vec![only]),
        None => (Vec::new(), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_lists_and_ranges() {
        let first = process::cores()[0];
        assert_eq!(parse_cores(&first.to_string()), Ok(vec![first]));
        assert_eq!(parse_cores(&format!("{first}-{first}")), Ok(vec![first]));
        for bad in ["", "a", "1-", "99999"] {
            assert!(parse_cores(bad).is_err(), "{bad}");
        }
    }
}
