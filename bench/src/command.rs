//! What each command does.

use std::io::Write as _;

use crate::cli::{Cli, Command, Peers};
use crate::peers::{self, Places};
use crate::workloads;

/// Runs a command; `false` when a row failed.
///
/// # Errors
/// What the user must change.
pub fn run(cli: Cli) -> Result<bool, Box<dyn std::error::Error>> {
    match cli.command {
        Command::List => list(),
        Command::Peers { command } => match command {
            Peers::List => list_peers(),
            Peers::Install { names } => install(&names),
        },
    }
}

fn list() -> Result<bool, Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    for workload in workloads::select(&["*".to_owned()])? {
        writeln!(out, "{:32} {}", workload.name, workload.about)?;
    }
    Ok(true)
}

fn list_peers() -> Result<bool, Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    for peer in peers::all(&Places::default()) {
        match peer.available() {
            Ok(version) => writeln!(out, "{:20} {version}", peer.name())?,
            Err(reason) => writeln!(out, "{:20} skipped: {reason}", peer.name())?,
        }
    }
    Ok(true)
}

fn install(names: &[String]) -> Result<bool, Box<dyn std::error::Error>> {
    let mut all_well = true;
    for peer in peers::all(&Places::default()) {
        if !names.is_empty() && !names.iter().any(|name| name == peer.name()) {
            continue;
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "== {}", peer.name())?;
        if let Err(reason) = peer.install(&mut out) {
            all_well = false;
            writeln!(out, "skipped: {reason}")?;
        }
    }
    Ok(all_well)
}
