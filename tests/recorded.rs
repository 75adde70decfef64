//! Goal: on every route about volumes, quota scopes and folders we answer as the original does on
//! the same storage system, or otherwise where it is said why.
//! Method: one table of requests (`recorded/steps.rs`) per backend, on a real file system or on a
//! simulator of the storage system. What release 26.9.6 of the original answered and left on the
//! disk is in `recorded/<backend>.jsonl`; where it is installed it is asked again. Differences
//! must be in `recorded/differences.rs`. `STORAGE_TEST_RECORD=1` writes the files anew.
//!
//! Source: manager contract 2 to 4; docs/semantics.md#quotas, docs/semantics.md#backends.

#![allow(clippy::print_stdout)]

#[path = "recorded/beds.rs"]
mod beds;
#[path = "recorded/differences.rs"]
mod differences;
#[path = "recorded/observe.rs"]
mod observe;
#[path = "recorded/steps.rs"]
mod steps;

use std::path::{Path, PathBuf};

use proxy_testkit::original::python;
use proxy_testkit::skip;
use proxy_testkit::testbed::Testbed;
use serde_json::{Value, json};

use beds::Bed;
use observe::Side;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
/// What was recorded; others are asked by `STORAGE_TEST_RELEASE`.
const RELEASE: &str = "26.9.6";
/// Names side and mount point to the test that runs again inside a guest.
const INSIDE: &str = "STORAGE_TEST_INSIDE";
/// Begins the lines by which a guest tells what it saw.
const SEEN: &str = "seen: ";

fn file(backend: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("tests/recorded").join(format!("{backend}.jsonl"))
}

/// Steps and what is known of them: `{"step", "original", "ours"}`, the last where it differs.
fn recorded(backend: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(file(backend)).unwrap_or_default();
    let line = |line: &str| serde_json::from_str(line).expect("a line of JSON");
    text.lines().map(line).collect()
}

fn is_recording() -> bool {
    std::env::var_os("STORAGE_TEST_RECORD").is_some()
}

/// Answers of one side, by step; `None` for an original that is not installed.
type Seen = Option<Vec<(String, Value)>>;

/// Asks a side on a bed that is made for it.
fn on_a_bed(side: &Side, make: fn() -> Bed) -> Vec<(String, Value)> {
    let bed = make();
    observe::all(side, &bed)
}

fn original() -> Option<Side> {
    let release = std::env::var("STORAGE_TEST_RELEASE").unwrap_or_else(|_| RELEASE.to_owned());
    python(&release).map(Side::Original)
}

/// Compares both sides with the record, or makes it.
fn check(backend: &str, ours: Seen, original: Seen) {
    let known = recorded(backend);
    let of = |step: &str, side: &str| -> Option<Value> {
        let line = known.iter().find(|line| line["step"] == step)?;
        line.get(side).cloned()
    };
    let ours = ours.expect("ours can always be asked");
    if is_recording() {
        return record(backend, &ours, original, of);
    }
    let mut failures = Vec::new();
    let mut compare = |side: &str, step: &str, want: Option<Value>, got: &Value| {
        if want.as_ref() != Some(got) {
            let want = want.unwrap_or_default();
            failures.push(format!("{side} {step}\n    was {want}\n    is  {got}"));
        }
    };
    for (step, got) in &ours {
        let want = of(step, "ours").or_else(|| of(step, "original"));
        compare("ours", step, want, got);
    }
    for (step, got) in original.iter().flatten() {
        compare("original", step, of(step, "original"), got);
    }
    failures.extend(differences::unexplained(backend, &known));
    let asked = original.map_or(0, |seen| seen.len());
    println!(
        "{backend}: {} steps, the original asked {asked}",
        ours.len()
    );
    assert!(failures.is_empty(), "{backend}\n{}", failures.join("\n"));
}

fn record(
    backend: &str,
    ours: &[(String, Value)],
    original: Seen,
    known: impl Fn(&str, &str) -> Option<Value>,
) {
    let mut lines = String::new();
    for (at, (step, ours)) in ours.iter().enumerate() {
        let now = original.as_ref().map(|seen| seen[at].1.clone());
        let theirs = now.or_else(|| known(step, "original")).unwrap_or_default();
        let line = match theirs == *ours {
            true => json!({"step": step, "original": theirs}),
            false => json!({"step": step, "original": theirs, "ours": ours}),
        };
        lines += &format!("{line}\n");
    }
    std::fs::write(file(backend), lines).expect("the record is written");
    for line in differences::unexplained(backend, &recorded(backend)) {
        eprintln!("{line}");
    }
}

/// A backend on a bed of this machine.
fn here(backend: &str, make: fn() -> Bed) {
    let ours = on_a_bed(&Side::Ours, make);
    let original = original().map(|side| on_a_bed(&side, make));
    check(backend, Some(ours), original);
}

/// A backend whose file system has to be mounted: in a guest where this kernel lacks it.
fn mounted(backend: &'static str, script: &str, name: &str) {
    if let Ok(inside) = std::env::var(INSIDE) {
        let (side, mount) = inside.split_once(' ').expect("side and mount point");
        let side = match side {
            "ours" => Side::Ours,
            python => Side::Original(python.into()),
        };
        // The runner's own line has begun.
        println!();
        for seen in observe::all(&side, &beds::on(backend, Path::new(mount))) {
            println!("{SEEN}{}", json!(seen));
        }
        return;
    }
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let ask = |side: &Side| -> Seen {
        let bed = Testbed::up(&tests, script, &[("GUEST_SECONDS", "600")]);
        let bed = bed.map_err(skip).ok()?;
        if bed.mount().exists() {
            return Some(observe::all(side, &beds::on(backend, bed.mount())));
        }
        let inside = format!("{} {}", side.word(), bed.mount().display());
        let program = std::env::current_exe().expect("this test");
        let args = [name, "--exact", "--nocapture"];
        let said = bed.exec(&program, &args, &[(INSIDE, &inside)]);
        let said = said.unwrap_or_else(|why| panic!("in the guest: {why}"));
        let lines = said.lines().filter_map(|line| line.strip_prefix(SEEN));
        Some(
            lines
                .map(|line| serde_json::from_str(line).expect("seen"))
                .collect(),
        )
    };
    let Some(ours) = ask(&Side::Ours) else { return };
    check(backend, Some(ours), original().and_then(|side| ask(&side)));
}

macro_rules! backends {
    ($($name:ident $backend:literal $make:path;)+) => {$(
        #[test]
        fn $name() {
            here($backend, $make);
        }
    )+};
}

backends! {
    a_mounted_directory "vfs" beds::vfs;
    ontap "netapp" beds::netapp;
    a_flashblade "purestorage" beds::purestorage;
    onefs "dellemc-onefs" beds::onefs;
    weka "weka" beds::weka;
    vast "vast" beds::vast;
    scale "gpfs" beds::gpfs;
    lustre "exascaler" beds::exascaler;
}

#[test]
fn xfs_with_project_quotas() {
    mounted("xfs", "xfs-prjquota", "xfs_with_project_quotas");
}

#[test]
fn a_ceph_file_system() {
    mounted("cephfs", "cephfs", "a_ceph_file_system");
}

#[test]
fn every_difference_that_is_listed_is_there() {
    if is_recording() {
        return;
    }
    let all: Vec<(String, Vec<Value>)> = differences::BACKENDS
        .iter()
        .map(|backend| ((*backend).to_owned(), recorded(backend)))
        .collect();
    assert_eq!(differences::stale(&all), Vec::<String>::new());
}
