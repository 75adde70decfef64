//! Runs one of the functions that every request passes, so and so often: `hot-functions NAME N`.
//!
//! `tests/counts.rs` runs it under callgrind with two different N: the difference is what one call
//! costs, whatever the program's start costs. A crate of its own, so that an optimised build of it
//! is a matter of seconds.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::process::ExitCode;

use proxy_core::relpath::RelPath;
use proxy_core::token::{DownloadClaims, Secret};
use proxy_core::units::ByteLen;
use proxy_wire::chunked::{Decoder, Step};
use proxy_wire::limits::{ChunkLimits, HeadLimits, RangeLimits};
use proxy_wire::zip::{Entry, Kind, Layout};
use proxy_wire::{head, range};

/// Long before any token here dies.
const NOW: u64 = 1_800_000_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments.get(1).and_then(|text| text.parse().ok());
    let (Some(name), Some(rounds)) = (arguments.first(), rounds) else {
        eprintln!("hot-functions NAME N");
        return ExitCode::from(2);
    };
    let done = match name.as_str() {
        "verify_token" => verify_token(rounds),
        "parse_head" => parse_head(rounds),
        "decode_chunks_1mib" => decode_chunks(rounds),
        "parse_range" => parse_range(rounds),
        "lay_out_zip_member" => lay_out_zip(rounds),
        _ => None,
    };
    match done {
        Some(()) => ExitCode::SUCCESS,
        None => {
            eprintln!("{name}: unknown, or it failed");
            ExitCode::FAILURE
        }
    }
}

/// A download token of the size that the Manager mints.
fn token(secret: &Secret) -> Option<String> {
    let folder = "user:11111111-2222-3333-4444-555555555555/aabbccddeeff00112233445566778899";
    let claims = DownloadClaims {
        volume: "local".to_owned(),
        vfid: folder.parse().ok()?,
        relpath: RelPath::parse("data/train/part-00017.parquet").ok()?,
        exp: NOW + 3600,
        unmanaged_path: None,
    };
    Some(claims.mint(secret))
}

fn verify_token(rounds: u64) -> Option<()> {
    let secret = Secret::new("a secret of thirty-two bytes....");
    let token = token(&secret)?;
    for _ in 0..rounds {
        let claims = DownloadClaims::verify(&secret, black_box(&token), NOW).ok()?;
        black_box(claims);
    }
    Some(())
}

fn parse_head(rounds: u64) -> Option<()> {
    let token = token(&Secret::new("secret"))?;
    let text = format!(
        "GET /download?token={token} HTTP/1.1\r\nHost: storage.example.com:6021\r\n\
         User-Agent: Backend.AI Client for Python 26.9.6\r\nAccept: */*\r\n\
         Accept-Encoding: gzip, deflate, br\r\nRange: bytes=1048576-\r\n\
         If-Range: \"0123456789abcdef\"\r\nConnection: keep-alive\r\n\r\n"
    );
    let limits = HeadLimits::default();
    for _ in 0..rounds {
        let parsed = head::parse(black_box(text.as_bytes()), &limits).ok()?;
        black_box(parsed);
    }
    Some(())
}

/// A mebibyte in chunks of 8 KiB, as Python's clients send it.
fn decode_chunks(rounds: u64) -> Option<()> {
    let mut text = Vec::new();
    for _ in 0..128 {
        text.extend_from_slice(b"2000\r\n");
        text.resize(text.len() + 8192, b'x');
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    for _ in 0..rounds {
        let mut decoder = Decoder::new(ChunkLimits::default());
        let mut rest = black_box(text.as_slice());
        loop {
            match decoder.decode(rest).ok()? {
                Step::Data { data, consumed } => {
                    black_box(data);
                    rest = &rest[consumed..];
                }
                Step::NeedMore { .. } => return None,
                Step::End { .. } => break,
            }
        }
    }
    Some(())
}

fn parse_range(rounds: u64) -> Option<()> {
    let limits = RangeLimits::default();
    let len = ByteLen::new(1 << 30);
    for _ in 0..rounds {
        for value in [&b"bytes=1048576-2097151"[..], b"bytes=0-99,200-299,-100"] {
            black_box(range::parse(black_box(value), len, &limits));
        }
    }
    Some(())
}

fn lay_out_zip(rounds: u64) -> Option<()> {
    let mut layout = Layout::new();
    let mut out = Vec::with_capacity(4096);
    for _ in 0..rounds {
        let entry = Entry {
            name: black_box(b"data/train/part-00017.parquet"),
            mode: 0o100_644,
            mtime_s: 1_700_000_000,
            size: 4096,
            kind: Kind::File,
        };
        layout.add(&entry).ok()?;
        out.clear();
        entry.local_header(&mut out);
        entry.descriptor(black_box(0x1234_5678), &mut out);
        black_box(&out);
    }
    Some(())
}
