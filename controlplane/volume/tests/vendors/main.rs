//! Storage systems with an interface of their own: one table of scenarios, run against each.
//!
//! Goal: whatever the vendor, a volume behaves the same, and says what went wrong in one way.
//! Method: a bed is a simulator on a directory and the options that fit it (`beds`); a scenario
//! makes a volume of it and looks at answers, at the directory, and at what was asked of the
//! simulator. What a backend cannot do, its capabilities say, and the scenario leaves it out.
//!
//! To add a vendor: a function in `beds` and a test here.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bed;
mod beds;
mod exascaler;
mod faults;
mod gpfs;
mod hammerspace;
mod limits;
mod netapp;
mod onefs;
mod pages;
mod programs;
mod purestorage;
mod scopes;
mod secrets;
mod trees;
mod vast;
mod weka;

use std::panic::AssertUnwindSafe;

use bed::{Bed, Scene};

/// A scenario: its name, and what it does with a fresh scene.
type Scenario = (&'static str, fn(&mut Scene));

/// The table: what a volume does.
const SCENARIOS: &[Scenario] = &[
    ("scopes are made, described, changed, lifted", scopes::life),
    ("a scope is made once", scopes::twice),
    ("a change makes a missing scope", scopes::change_makes),
    ("a scope without a limit can get one", scopes::late_limit),
    ("usage of a scope is what lies in it", scopes::over_quota),
    ("folders come and go", trees::folders),
    ("usage counts a folder", trees::usage),
    ("clones are whole", trees::clones),
    ("snapshots are kept and brought back", trees::snapshots),
    ("snapshots end when they should", trees::expiry),
    ("snapshots go with their folder", trees::gone),
    ("a scope that held snapshots is removed", trees::scope_gone),
    ("options may be as the original takes them", scopes::lenient),
    (
        "a directory that is let go of is opened anew",
        trees::reopened,
    ),
    ("capacity, health and performance are told", trees::numbers),
];

/// The part of the table that is about an interface.
const OVER_THE_WIRE: &[Scenario] = &[
    ("what is down is told, and comes back", faults::down),
    (
        "errors name the system and say whether to retry",
        faults::told,
    ),
    (
        "snapshots of a deleted folder are owed while it is down",
        faults::owed,
    ),
    ("no secret is in the log or in an answer", secrets::silent),
    ("what was asked is counted", faults::counted),
    ("it may be down at the start", faults::down_at_start),
    ("slow answers are waited for", faults::slow),
    ("wrong credentials are told", faults::wrong_credentials),
    ("strangers' certificates are refused", faults::stranger),
    ("throttling is obeyed", faults::throttled),
    ("sessions expire unnoticed", faults::expired),
    ("late jobs are waited for", faults::late_jobs),
    ("a job without end is given up", faults::endless_job),
    (
        "failed jobs are told, and can be repeated",
        faults::failed_job,
    ),
    ("a restart in the middle is mended", faults::restart),
    ("options are checked by name", faults::options),
];

/// Runs the whole table against one bed after another; all of it, also when something fails.
fn run(make: fn() -> Bed) {
    run_all(make, SCENARIOS.iter().chain(OVER_THE_WIRE));
}

/// As [`run`], for a backend that calls nobody.
fn run_alone(make: fn() -> Bed) {
    run_all(make, SCENARIOS.iter());
}

fn run_all(make: fn() -> Bed, scenarios: impl Iterator<Item = &'static Scenario>) {
    let mut failed = Vec::new();
    for (name, scenario) in scenarios {
        let mut scene = Scene::new(make());
        let backend = scene.bed.backend;
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| scenario(&mut scene)));
        let word = if done.is_ok() { "ok" } else { "FAILED" };
        println!("{backend}: {name}: {word}");
        if done.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn netapp_passes_the_table() {
    run(beds::netapp);
}

#[test]
fn onefs_passes_the_table() {
    run(beds::onefs);
}

#[test]
fn vast_passes_the_table() {
    run(beds::vast);
}

#[test]
fn weka_passes_the_table() {
    run(beds::weka);
}

#[test]
fn purestorage_passes_the_table() {
    run(beds::purestorage);
}

#[test]
fn purestorage_passes_the_table_by_its_first_interface() {
    run(beds::purestorage_1);
}

#[test]
fn gpfs_passes_the_table() {
    run(beds::gpfs);
}

#[test]
fn hammerspace_passes_the_table() {
    run(beds::hammerspace);
}

#[test]
fn hammerspace_base_passes_the_table() {
    run_alone(beds::hammerspace_base);
}

#[test]
fn exascaler_passes_the_table() {
    run_alone(beds::exascaler);
}
