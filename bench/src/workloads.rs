//! The workloads that are built in: every file of `bench/workloads`.

use std::path::Path;

use crate::workload::{Workload, WorkloadError};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each file, in the order of the report.
        pub const FILES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../workloads/", $name, ".toml")))),*];
    };
}

files!(
    "get_1gib_1conn_warm",
    "get_64mib_16conn_warm",
    "get_1gib_1conn_cold",
    "get_64mib_16conn_cold",
    "get_4kib_64conn_warm",
    "get_range_1mib_random",
    "get_1gib_tls",
    "get_h2_64mib_8streams",
    "put_1gib_1conn",
    "put_1gib_1conn_tmpfs",
    "put_1gib_16mib_chunks",
    "put_1gib_2mib_chunks",
    "put_1gib_4parts",
    "put_4kib_64conn",
    "zip_10k_4kib",
    "zip_4gib_big",
    "tar_10k_4kib",
    "tar_4gib_big",
    "idle_10k",
    "stalled_40_fast_1",
    "mixed",
    "get_1gib_1conn_warm.small",
    "get_64mib_16conn_warm.small",
    "get_1gib_1conn_cold.small",
    "get_64mib_16conn_cold.small",
    "get_4kib_64conn_warm.small",
    "get_range_1mib_random.small",
    "get_1gib_tls.small",
    "get_h2_64mib_8streams.small",
    "put_1gib_1conn.small",
    "put_1gib_1conn_tmpfs.small",
    "put_1gib_16mib_chunks.small",
    "put_1gib_2mib_chunks.small",
    "put_1gib_4parts.small",
    "put_4kib_64conn.small",
    "zip_10k_4kib.small",
    "zip_4gib_big.small",
    "tar_10k_4kib.small",
    "tar_4gib_big.small",
    "idle_10k.small",
    "stalled_40_fast_1.small",
    "mixed.small",
);

/// The built-in workloads that one of the patterns names, and the files that are given by path.
///
/// `default` stands for all but the small ones; `*` in a pattern stands for anything.
///
/// # Errors
/// A file is refused, or a pattern names nothing.
pub fn select(patterns: &[String]) -> Result<Vec<Workload>, WorkloadError> {
    let mut selected = Vec::new();
    for pattern in patterns {
        if pattern.ends_with(".toml") {
            selected.push(read(Path::new(pattern))?);
            continue;
        }
        let wanted = |name: &str| {
            matches(pattern, name) || (pattern == "default" && !name.ends_with(".small"))
        };
        let found: Vec<_> = FILES.iter().filter(|(name, _)| wanted(name)).collect();
        if found.is_empty() {
            let names = FILES.iter().map(|(name, _)| *name);
            let near = proxy_core::config::nearest(pattern, names);
            let hint = near.map_or(String::new(), |near| format!(", did you mean {near}?"));
            return Err(WorkloadError {
                name: pattern.clone(),
                problem: format!("no such workload{hint}"),
            });
        }
        for (name, text) in found {
            selected.push(Workload::parse(name, text)?);
        }
    }
    let mut seen = std::collections::HashSet::new();
    selected.retain(|workload| seen.insert(workload.name.clone()));
    Ok(selected)
}

fn read(path: &Path) -> Result<Workload, WorkloadError> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let text = std::fs::read_to_string(path).map_err(|error| WorkloadError {
        name: path.display().to_string(),
        problem: error.to_string(),
    })?;
    Workload::parse(&name, &text)
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(tail) = name.strip_prefix(start) else {
        return false;
    };
    (0..=tail.len())
        .filter(|at| tail.is_char_boundary(*at))
        .any(|at| matches(rest, &tail[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_built_in_and_makes_sense() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
        let mut on_disk: Vec<String> = std::fs::read_dir(dir)
            .expect("workloads")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().replace(".toml", ""))
            .collect();
        on_disk.sort();
        let mut built_in: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        built_in.sort_unstable();
        assert_eq!(on_disk, built_in);
        for (name, text) in FILES {
            let workload = Workload::parse(name, text).expect("a workload of ours");
            let baseline = workload.baseline.unwrap_or_else(|| (*name).to_owned());
            assert!(built_in.contains(&baseline.as_str()), "{name}: {baseline}");
        }
    }

    #[test]
    fn patterns_choose_by_name() {
        for (pattern, name, want) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c*e", "abcde", true),
            ("a*c*f", "abcde", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }
}
