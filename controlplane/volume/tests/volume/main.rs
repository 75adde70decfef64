//! Volumes from outside: every operation on a real directory, as tables.
//!
//! Goal: what the Manager may rely on, and what a hostile or crowded folder cannot do to us.
//! Method: a scene is a volume in a temporary directory with one vfolder; a test arranges files
//! with plain system calls, runs operations, and looks at the disk again. Set `TMPDIR` to run all
//! of it on another file system.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod clones;
mod deletions;
mod entries;
mod errors;
mod folders;
mod lately;
mod listings;
mod moves;
mod pages;
mod registry;
mod scene;
mod snapshots;
mod sweeps;
mod tasks;
mod trees;
mod uploads;
mod usages;
