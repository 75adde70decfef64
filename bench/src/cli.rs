//! The command line: every option, and the words of `--help`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures storage servers: ours and others, with the same workloads, in turns.
#[derive(Debug, Parser)]
#[command(
    name = "storage-bench",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        storage-bench list\n  \
        storage-bench run --workload 'get_*_warm' --peers ours,nginx --rounds 5\n  \
        storage-bench run --workload '*.small' --verify\n  \
        storage-bench run --json run.json --html run.html\n  \
        storage-bench report run.json more.json --markdown docs/benchmarks.md\n  \
        storage-bench peers install\n  \
        storage-bench trees --install --files 100000 --dirs 1000\n\n\
        Exit status: 0 done, 1 a row failed, 2 wrong usage."
)]
pub struct Cli {
    /// Where peers are installed; storage-bench in the user's cache directory without it
    #[arg(long, value_name = "DIR", env = "STORAGE_BENCH_PEERS", global = true)]
    pub peers_dir: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run workloads against peers, in turns, and report
    Run(Box<Run>),
    /// Count, list, clone and delete trees of many files, beside the tools that do it best
    Trees(Box<crate::trees::Trees>),
    /// List the workloads
    List,
    /// The servers to compare with
    Peers {
        /// What to do.
        #[command(subcommand)]
        command: Peers,
    },
    /// Make pages from the JSON of an earlier run
    Report(Report),
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

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Workloads by name, `*` stands for anything; several separated by commas. A path ending in
    /// .toml reads that file
    #[arg(short, long, default_value = "default", value_delimiter = ',')]
    pub workload: Vec<String>,
    /// Peers to measure; all that are installed without it
    #[arg(short, long, value_delimiter = ',')]
    pub peers: Vec<String>,
    /// How often each peer has its turn
    #[arg(short, long, default_value_t = 5)]
    pub rounds: u32,
    /// Cores of the load generator, such as 1 or 2-3; the last core without it
    #[arg(long, value_name = "CORES")]
    pub client_core: Option<String>,
    /// Cores of the server; all others without it
    #[arg(long, value_name = "CORES")]
    pub server_cores: Option<String>,
    /// Where the files lie: on the file system to be measured; needs up to 6 GiB
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A directory in memory, for workloads that want one
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub tmpfs: PathBuf,
    /// The program `storage-proxy`; the one beside this program without it
    #[arg(long, value_name = "FILE", env = "STORAGE_BENCH_PROGRAM")]
    pub program: Option<PathBuf>,
    /// Check every byte instead of discarding: proves, does not measure
    #[arg(long)]
    pub verify: bool,
    /// Seconds in which requests are begun, instead of the workload's own
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Do not measure what the machine itself can do
    #[arg(long)]
    pub no_bounds: bool,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write one page with charts
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Options of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// The JSON of a run; of several on the same machine the later ones replace rows of the earlier
    #[arg(required = true)]
    pub json: Vec<PathBuf>,
    /// Write one page with charts
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write a page in Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}
