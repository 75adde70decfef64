//! `storage-bench`: parse, call, exit.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use proxy_bench::{cli::Cli, command};

fn main() -> ExitCode {
    match command::run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("storage-bench: {problem}");
            ExitCode::from(2)
        }
    }
}
