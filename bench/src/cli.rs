//! The command line: every option, and the words of `--help`.

use clap::{Parser, Subcommand};

/// Measures storage servers: ours and others, with the same workloads, in turns.
#[derive(Debug, Parser)]
#[command(
    name = "storage-bench",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        storage-bench list\n  \
        storage-bench peers install\n\n\
        Exit status: 0 done, 1 a row failed, 2 wrong usage."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the workloads
    List,
    /// The servers to compare with
    Peers {
        /// What to do.
        #[command(subcommand)]
        command: Peers,
    },
}

/// What to do with peers.
#[derive(Debug, Subcommand)]
pub enum Peers {
    /// List them, with versions, or why they cannot run here
    List,
    /// Install those that are missing; all, or the named ones
    Install {
        /// Their names.
        names: Vec<String>,
    },
}
