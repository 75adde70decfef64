//! The tools that ours is compared with: each at its best, doing no more than is asked.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use proxy_ring::measure::process_cpu;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::{Deed, Took};
use crate::command::Problem;
use crate::peers::setup;

/// Those that are built from crates: crate and version.
const CRATES: [&str; 5] = [
    "parallel-disk-usage@0.24.0",
    "dua-cli@3.0.0",
    "diskus@0.9.0",
    "rmz@3.2.1",
    "cpz@3.2.1",
];

/// One tool; the paths are added to its arguments.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    program: PathBuf,
    args: &'static [&'static str],
}

/// What does each deed best, with arguments that make it do the same work.
const KNOWN: &[(Deed, &str, &[&str])] = &[
    (
        Deed::Usage { cold: false },
        "pdu",
        &[
            "--total-width=80",
            "--max-depth=1",
            "--quantity=apparent-size",
        ],
    ),
    (
        Deed::Usage { cold: false },
        "dua",
        &["aggregate", "--apparent-size"],
    ),
    (Deed::Usage { cold: false }, "diskus", &["--apparent-size"]),
    (Deed::Usage { cold: false }, "gdu", &["-n", "-a", "-c"]),
    (
        Deed::Usage { cold: false },
        "du",
        &["-s", "--apparent-size"],
    ),
    (Deed::Delete, "rmz", &["-f"]),
    (Deed::Delete, "rm", &["-rf"]),
    (Deed::Clone, "cpz", &["-f"]),
    (Deed::Clone, "cp", &["-aT"]),
    (Deed::List, "ls", &["-lU"]),
];

/// The tools for a deed that this machine has.
pub(super) fn of(deed: Deed, dir: &Path) -> Vec<Tool> {
    let same = |known: Deed| match (known, deed) {
        (Deed::Usage { .. }, Deed::Usage { .. }) => true,
        (known, deed) => known == deed,
    };
    let known = KNOWN.iter().filter(|(known, ..)| same(*known));
    let tool = |(_, name, args): &(Deed, &'static str, &'static [&'static str])| {
        let own = dir.join("bin").join(name);
        let program = Some(own)
            .filter(|path| path.is_file())
            .or_else(|| setup::find(name));
        if program.is_none() {
            eprintln!("skipped: {name} is not installed (storage-bench trees --install)");
        }
        Some(Tool {
            name,
            program: program?,
            args,
        })
    };
    known.filter_map(tool).collect()
}

impl Tool {
    /// What it is called in the report with the time until all is on the disk.
    pub(super) fn synced(&self) -> &'static str {
        match self.name {
            "cpz" => "cpz, then synced",
            "cp" => "cp, then synced",
            _ => "then synced",
        }
    }

    /// Runs it to its end.
    pub(super) fn run(&self, paths: &[&PathBuf]) -> Result<Took, Problem> {
        let mut command = Command::new(&self.program);
        command.args(self.args).args(paths);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let child = command.spawn()?;
        let pid = child.id();
        let who = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let Some(who) = who {
            // Left as it is, ended and not collected, so that its clock can still be read.
            waitid(
                WaitId::Pid(who),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            )?;
        }
        let wall = started.elapsed();
        let cpu = process_cpu(pid).unwrap_or_default();
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(Took {
                wall,
                cpu,
                ..Took::default()
            });
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "{}: {}",
            output.status,
            said.lines().last().unwrap_or_default()
        )
        .into())
    }
}

/// Builds the tools below `dir`.
pub(super) fn install(dir: &Path) -> Result<(), Problem> {
    let cargo = setup::need("cargo", "a Rust toolchain")?;
    let mut command = Command::new(cargo);
    command
        .arg("install")
        .args(["--quiet", "--locked"])
        .arg("--root")
        .arg(dir)
        .args(CRATES);
    setup::step(&mut io::stderr(), &mut command)?;
    Ok(())
}

/// Empties the caches of the kernel; needs root.
pub(super) fn drop_caches() -> Result<(), Problem> {
    rustix::fs::sync();
    let dropped = std::fs::write("/proc/sys/vm/drop_caches", "3");
    dropped.map_err(|error| format!("drop caches: {error}; cold rows need root").into())
}
