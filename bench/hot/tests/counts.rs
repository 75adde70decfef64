//! Goal: the functions that every request passes do not become dearer unnoticed.
//! Method: callgrind counts the instructions of an optimised build, which do not depend on what
//! else the machine does; they are compared with the counts in `baseline.toml`.
//!
//! `STORAGE_TEST_WRITE_COUNTS=1 cargo test -p proxy-hot` writes a new baseline: a change for the
//! worse is then a line of the commit that makes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Functions of `hot-functions`, and how often the longer run calls them.
const FUNCTIONS: &[(&str, u64)] = &[
    ("verify_token", 200),
    ("parse_head", 1000),
    ("decode_chunks_1mib", 100),
    ("parse_range", 1000),
    ("lay_out_zip_member", 2000),
];

/// How far a count may be above its baseline, percent. Two builds of the same code differ by what
/// the linker does with the C library: 1 at most was seen.
const TOLERANCE_PERCENT: u64 = 5;

fn baseline_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.toml")
}

/// First line of what a program says of its version; `None` when it is not there.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next().unwrap_or_default().to_owned())
}

/// The optimised program: `cargo test` has built an unoptimised one beside it.
fn build() -> PathBuf {
    let debug = Path::new(env!("CARGO_BIN_EXE_hot-functions"));
    let target = debug.ancestors().nth(2).expect("<target>/debug/<program>");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--release",
            "--quiet",
            "--locked",
            "--package",
            "proxy-hot",
        ])
        .arg("--target-dir")
        .arg(target)
        .status()
        .expect("cargo starts");
    assert!(status.success(), "cargo build: {status}");
    target.join("release/hot-functions")
}

/// Instructions of the whole program.
fn instructions(program: &Path, function: &str, rounds: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .arg(function)
        .arg(rounds.to_string())
        .output()
        .expect("valgrind starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{function}: {text}");
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.unwrap_or_else(|| panic!("{function}: no count in {text}"))
}

#[test]
#[allow(clippy::print_stdout)]
fn hot_functions_cost_what_they_cost_before() {
    let Some(valgrind) = version("valgrind") else {
        println!("skipped: instruction counts: valgrind is not installed");
        return;
    };
    let rustc = version("rustc").unwrap_or_default();
    let program = build();
    let counts: BTreeMap<&str, u64> = FUNCTIONS
        .iter()
        .map(|(name, rounds)| {
            let (few, many) = (rounds / 2, *rounds);
            let (less, more) = (
                instructions(&program, name, few),
                instructions(&program, name, many),
            );
            (*name, (more - less) / (many - few))
        })
        .collect();
    let mut page = format!(
        "# Instructions per call, counted by tests/counts.rs with {valgrind}.\n\
         rustc = \"{rustc}\"\n\n[instructions]\n"
    );
    for (name, count) in &counts {
        page.push_str(&format!("{name} = {count}\n"));
    }
    if std::env::var_os("STORAGE_TEST_WRITE_COUNTS").is_some() {
        std::fs::write(baseline_file(), page).expect("the baseline is written");
        return;
    }
    println!("{page}");
    compare(&counts, &rustc);
}

#[allow(clippy::print_stdout)]
fn compare(counts: &BTreeMap<&str, u64>, rustc: &str) {
    let text = std::fs::read_to_string(baseline_file()).expect("baseline.toml");
    let baseline: toml::Table = toml::from_str(&text).expect("TOML");
    let counted_with = baseline["rustc"].as_str().expect("a version");
    if counted_with != rustc {
        println!("skipped: instruction counts: the baseline was counted with {counted_with}");
        return;
    }
    for (name, count) in counts {
        let before = baseline["instructions"]
            .get(name)
            .and_then(toml::Value::as_integer);
        let before = before.unwrap_or_else(|| panic!("{name} is not in baseline.toml")) as u64;
        let limit = before + before * TOLERANCE_PERCENT / 100;
        assert!(
            *count <= limit,
            "{name}: {count} instructions per call, {before} before"
        );
    }
}
