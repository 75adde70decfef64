//! `storage-proxy`: command line, configuration, wiring of the two planes, signals. No logic.
//!
//! Exit codes: 0 done (for `serve`: drained), 1 failure with its cause on standard error, 2 wrong
//! usage, 128 plus the signal when a second signal cuts a drain short.
#![forbid(unsafe_code)]

mod abilities;
mod access;
mod accounts;
mod banner;
mod cli;
mod client;
mod command;
mod datadir;
mod failure;
mod handover;
mod host;
mod limiting;
mod listen;
mod load;
mod logging;
mod mounts;
mod notify;
mod output;
mod privileges;
mod serve;
mod settings;
mod shutdown;
mod verifier;
mod wiring;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    // One provider is compiled in; whoever asks for the default one finds it. That somebody was
    // faster is impossible here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Wrong usage ends inside the parser, with code 2 and a hint.
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let place = &cli.place;
    match &cli.command {
        Command::Serve(args) => serve::run(place, args),
        Command::PrivilegedHelper(args) => mounts::run(place, args),
        Command::Config(args) => command::config::run(place, args),
        Command::Health(args) => command::health::run(place, args),
        Command::Dependencies(args) => {
            let cli::DependenciesAction::Verify(args) = &args.action;
            command::dependencies::run(place, args, command::dependencies::Form::Setup)
        }
        Command::Mkdir(args) => command::mkdir::run(place, args),
        Command::Put(args) => command::put::run(place, args),
        Command::Get(args) => command::get::run(place, args),
        Command::Ls(args) => command::ls::run(place, args),
        Command::Rm(args) => command::rm::run(place, args),
    }
}
