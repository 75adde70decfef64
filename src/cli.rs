//! The command line: every option, and the words of `--help`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Storage proxy for virtual folders: uploads, downloads and everything the Manager asks for.
#[derive(Debug, Parser)]
#[command(
    name = "storage-proxy",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        storage-proxy serve                      start with built-in defaults, on loopback\n  \
        storage-proxy serve -f storage-proxy.toml\n  \
        storage-proxy mkdir demo                 then, in another terminal: use it\n  \
        storage-proxy put big.bin demo:big.bin\n  \
        storage-proxy get demo:big.bin copy.bin\n\n\
        Exit status: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub place: Place,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which server is meant.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Configuration file; without it the usual places are searched, then defaults apply
    #[arg(
        short = 'f',
        long = "config",
        visible_alias = "config-path",
        value_name = "FILE",
        env = "BACKEND_CONFIG_FILE",
        global = true
    )]
    pub config: Option<PathBuf>,
    /// Directory of secrets, state and the volume `local`
    #[arg(
        long,
        value_name = "DIR",
        env = "STORAGE_PROXY_DATA_DIR",
        global = true
    )]
    pub data_dir: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server in the foreground
    #[command(
        visible_alias = "start-server",
        long_about = "Runs the server in the foreground until SIGTERM or SIGINT.\n\n\
            Without a configuration file it serves one volume named local from the data \
            directory, with secrets of its own, on loopback ports 6021 (clients), 6022 (Manager) \
            and 16023 (health and metrics).\n\n\
            A signal stops new connections and lets running transfers finish for a bounded time; \
            a second one ends the program at once. SIGUSR2 starts the program anew, which then \
            takes over; SIGHUP looks for new certificates and mounts.",
        after_help = "Examples:\n  \
            storage-proxy serve\n  \
            storage-proxy serve --data-dir ./data --client-addr 127.0.0.1:7021\n  \
            storage-proxy start-server -f halfstack.toml --log-level debug\n  \
            storage-proxy serve --replace            the new version takes over"
    )]
    Serve(ServeArgs),
    /// Mount and unmount for a server, with root's rights
    #[command(
        name = "privileged-helper",
        hide = true,
        long_about = "The keeper of mounts: does what needs root, and nothing that the \
            configuration does not allow. The server starts it; with --socket it runs on its own \
            and waits for one.",
        after_help = "Example:\n  storage-proxy privileged-helper -f /etc/backend.ai/\
            storage-proxy.toml --socket /run/storage-proxy-mounts/socket"
    )]
    PrivilegedHelper(KeeperArgs),
    /// Check, show or print configuration
    #[command(after_help = "Example:\n  storage-proxy config check -f storage-proxy.toml")]
    Config(ConfigArgs),
    /// Ask a running server how it is
    #[command(
        long_about = "Asks the internal port of a running server. The exit status is 0 when it \
            is healthy and 1 when it is not or does not answer. `health check` asks etcd, Redis \
            and the volumes instead, and needs no server.",
        after_help = "Examples:\n  storage-proxy health --json\n  storage-proxy health check"
    )]
    Health(HealthArgs),
    /// Look for what the server depends on
    #[command(after_help = "Example:\n  storage-proxy dependencies verify -f storage-proxy.toml")]
    Dependencies(DependenciesArgs),
    /// Create a folder, or a directory in one
    #[command(
        long_about = "Creates a folder on a volume and remembers its name in the data directory, \
            or creates a directory, with its parents, inside a folder. What exists already is \
            fine.",
        after_help = "Examples:\n  storage-proxy mkdir demo\n  \
            storage-proxy mkdir demo:train/images\n  storage-proxy mkdir demo --volume fast"
    )]
    Mkdir(MkdirArgs),
    /// Upload a file
    #[command(
        long_about = "Uploads a file into a folder. An interrupted upload goes on where it was \
            when the same command is run again, as long as the file is unchanged and the token \
            has not expired.",
        after_help = "Examples:\n  storage-proxy put big.bin demo:big.bin\n  \
            storage-proxy put big.bin demo:       under its own name\n  \
            storage-proxy put --json big.bin demo:sets/a/big.bin"
    )]
    Put(PutArgs),
    /// Download a file
    #[command(
        long_about = "Downloads a file. Bytes go to FILE.part, which becomes FILE when it is \
            whole; run again after an interruption, the command goes on where it was, unless the \
            file has changed meanwhile.",
        after_help = "Examples:\n  storage-proxy get demo:big.bin\n  \
            storage-proxy get demo:big.bin copy.bin\n  \
            storage-proxy get demo:notes.txt - | less\n  \
            storage-proxy get --zip demo:sets sets.zip"
    )]
    Get(GetArgs),
    /// List folders, or what is in one
    #[command(after_help = "Examples:\n  storage-proxy ls\n  storage-proxy ls demo:train")]
    Ls(LsArgs),
    /// Remove a file, a directory or a folder
    #[command(
        long_about = "Removes a file or an empty directory; with -r also a directory and all \
            that is in it, or a whole folder. There is no way back.",
        after_help = "Examples:\n  storage-proxy rm demo:big.bin\n  \
            storage-proxy rm -r demo:train\n  storage-proxy rm -r demo"
    )]
    Rm(RmArgs),
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where clients connect; port 0 takes any free one
    #[arg(long, value_name = "HOST:PORT")]
    pub client_addr: Option<String>,
    /// Where the Manager connects
    #[arg(long, value_name = "HOST:PORT")]
    pub manager_addr: Option<String>,
    /// Where health and metrics are asked for
    #[arg(long, value_name = "HOST:PORT")]
    pub internal_addr: Option<String>,
    /// Take over from the server that runs on the same data directory, without a gap
    #[arg(long)]
    pub replace: bool,
    /// Log at DEBUG
    #[arg(long)]
    pub debug: bool,
    /// Least severe level to log: critical, error, warning, info, debug, trace or notset
    #[arg(long, value_name = "LEVEL", conflicts_with = "debug", value_parser = level)]
    pub log_level: Option<String>,
}

/// Options of `privileged-helper`.
#[derive(Debug, Args)]
pub struct KeeperArgs {
    /// Listen there instead of serving standard input
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Takes a log level in any letter case.
fn level(text: &str) -> Result<String, String> {
    text.parse::<proxy_core::config::Level>()
        .map(|_| text.to_owned())
}

/// Options of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What `config` can do.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Read the configuration and say everything that is wrong or without effect
    #[command(after_help = "Example:\n  storage-proxy config check -f storage-proxy.toml")]
    Check(JsonArgs),
    /// Print what is in effect and who set it; secrets are masked
    #[command(after_help = "Example:\n  storage-proxy config show -f storage-proxy.toml")]
    Show(JsonArgs),
    /// Print every key with its default
    #[command(
        name = "default",
        after_help = "Example:\n  storage-proxy config default > storage-proxy.toml"
    )]
    Defaults(DefaultsArgs),
    /// Write a commented configuration file
    #[command(
        name = "generate-sample",
        after_help = "Example:\n  storage-proxy config generate-sample -o storage-proxy.toml"
    )]
    GenerateSample(SampleArgs),
    /// Bring a file of an earlier release up to date
    #[command(after_help = "Example:\n  \
        storage-proxy config migrate service-discovery -i storage-proxy.toml --dry-run")]
    Migrate(MigrateKind),
}

/// Options of `config migrate`.
#[derive(Debug, Args)]
pub struct MigrateKind {
    /// What to bring up to date.
    #[command(subcommand)]
    pub action: MigrateAction,
}

/// What `config migrate` can do.
#[derive(Debug, Subcommand)]
pub enum MigrateAction {
    /// Derive the announced endpoints from the addresses of a file
    #[command(
        name = "service-discovery",
        after_help = "Examples:\n  \
            storage-proxy config migrate service-discovery -i storage-proxy.toml\n  \
            storage-proxy config migrate service-discovery -i storage-proxy.toml --append"
    )]
    ServiceDiscovery(MigrateArgs),
}

/// Options of `config migrate service-discovery`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Configuration file to read
    #[arg(short, long, value_name = "FILE")]
    pub input: PathBuf,
    /// Write the endpoints to this file [default: standard output]
    #[arg(short, long, value_name = "FILE", conflicts_with = "append")]
    pub output: Option<PathBuf>,
    /// Add the endpoints to the end of the file that is read
    #[arg(long)]
    pub append: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Also where the file has endpoints already
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of commands that only choose the form of their output.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `config default`.
#[derive(Debug, Args)]
pub struct DefaultsArgs {
    /// Form of the output
    #[arg(long, value_enum, default_value = "toml")]
    pub format: DefaultsFormat,
    /// Print JSON (as --format json)
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// Forms of `config default`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DefaultsFormat {
    /// A commented configuration file
    Toml,
    /// The reference page
    Markdown,
    /// The table of keys
    Json,
}

/// Options of `dependencies`.
#[derive(Debug, Args)]
pub struct DependenciesArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: DependenciesAction,
}

/// What `dependencies` can do.
#[derive(Debug, Subcommand)]
pub enum DependenciesAction {
    /// Connect to etcd and Redis, and look at the volumes
    #[command(after_help = "Example:\n  storage-proxy dependencies verify --json")]
    Verify(ChecksArgs),
}

/// Options of commands that look for what the server depends on.
#[derive(Debug, Args)]
pub struct ChecksArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Accepted for scripts of the original; there are no time stamps
    #[arg(long)]
    pub no_timestamps: bool,
    /// Accepted for scripts of the original; nothing is logged
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub log_level: Option<String>,
}

/// What `health` can do beside asking the server.
#[derive(Debug, Subcommand)]
pub enum HealthAction {
    /// Ask etcd, Redis and the volumes, without a server
    #[command(after_help = "Example:\n  storage-proxy health check --json")]
    Check(ChecksArgs),
}

/// Options of `config generate-sample`.
#[derive(Debug, Args)]
pub struct SampleArgs {
    /// Where to write it
    #[arg(
        short,
        long,
        default_value = "./configs/storage-proxy/sample.toml",
        value_name = "FILE"
    )]
    pub output: PathBuf,
    /// Accepted for scripts of the original; there is one sample
    #[arg(short = 'e', long, default_value = "prod", value_parser = ["local", "prod"])]
    pub env: String,
    /// Replace a file that is there
    #[arg(long)]
    pub overwrite: bool,
    /// Accepted for scripts of the original; the sample holds no secret
    #[arg(long)]
    pub unmask_secrets: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `health`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct HealthArgs {
    /// Ask others than the server.
    #[command(subcommand)]
    pub action: Option<HealthAction>,
    /// Print the server's answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `mkdir`.
#[derive(Debug, Args)]
pub struct MkdirArgs {
    /// NAME of a folder, or NAME:PATH of a directory in it
    #[arg(value_name = "NAME[:PATH]")]
    pub target: String,
    /// Volume of a new folder [default: local, or the only one there is]
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// File to upload
    #[arg(value_name = "FILE")]
    pub source: PathBuf,
    /// Where to: a folder, and a path in it; an empty path or one that ends in / keeps the name
    #[arg(value_name = "NAME:PATH")]
    pub target: String,
    /// Volume, when the folder is given by its identifier
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Begin at the first byte even if part of it is there
    #[arg(long)]
    pub restart: bool,
    /// How a transfer is shown.
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Options of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// What to download
    #[arg(value_name = "NAME:PATH")]
    pub source: String,
    /// Where to: a file, a directory, or - for standard output [default: the file's own name]
    #[arg(value_name = "FILE")]
    pub target: Option<PathBuf>,
    /// Volume, when the folder is given by its identifier
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Download a directory as a zip archive
    #[arg(long)]
    pub zip: bool,
    /// Begin at the first byte even if part of it is there
    #[arg(long)]
    pub restart: bool,
    /// How a transfer is shown.
    #[command(flatten)]
    pub show: ShowArgs,
}

/// How a transfer is shown.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// Progress bar on standard error
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub progress: When,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// When to do something that suits a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// When standard error is a terminal
    Auto,
    /// In any case
    Always,
    /// Not at all
    Never,
}

/// Options of `ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Folder, or directory in one; without it the folders are listed
    #[arg(value_name = "NAME[:DIR]")]
    pub target: Option<String>,
    /// Volume, when the folder is given by its identifier
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// What to remove
    #[arg(value_name = "NAME[:PATH]")]
    pub target: String,
    /// Remove directories and all that is in them, or the whole folder
    #[arg(short, long)]
    pub recursive: bool,
    /// Volume, when the folder is given by its identifier
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        let mut open = vec![Cli::command()];
        while let Some(command) = open.pop() {
            let help = command.clone().render_long_help().to_string();
            assert!(
                help.contains("Example"),
                "{} has no example",
                command.get_name()
            );
            open.extend(command.get_subcommands().cloned());
        }
    }
}
