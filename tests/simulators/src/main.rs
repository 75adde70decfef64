//! Runs one simulator until standard input ends, for clients in other languages.
//!
//!     storage-simulator VENDOR --dir DIR [--port PORT] [--record FILE]
//!
//! Prints its address and the file of its certificate, a line each. At the end it leaves in FILE
//! what was asked and answered, for `tests/recorded.rs`.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use proxy_simulators::{TABLE, recording, start_named};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (mut vendor, mut dir, mut port) = (String::new(), PathBuf::from("."), 0);
    let mut record = None;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--dir" => dir = words.next().unwrap_or_default().into(),
            "--record" => record = words.next(),
            "--port" => port = words.next().and_then(|text| text.parse().ok()).unwrap_or(0),
            _ => vendor = word,
        }
    }
    let Some(simulator) = start_named(&vendor, &dir, port) else {
        let names: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
        println!("usage: storage-simulator VENDOR --dir DIR [--port PORT] [--record FILE]");
        println!("VENDOR: {names:?}");
        return ExitCode::from(2);
    };
    println!("{}", simulator.url());
    println!("{}", simulator.ca_file().display());
    // Whoever started this ends it by closing the pipe, also when it crashes.
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    let Some(file) = record else {
        return ExitCode::SUCCESS;
    };
    let text = recording::text(&simulator.requests(), &dir);
    match std::fs::write(&file, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}
