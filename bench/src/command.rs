//! What each command does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use crate::bounds::{self, Bounds};
use crate::cli::{Cli, Command, Peers, Report, Run};
use crate::fixture::Fixture;
use crate::peer::Peer;
use crate::peers::{self, Places};
use crate::report;
use crate::results::Results;
use crate::runner::{self, Settings};
use crate::workload::{Medium, Workload};
use crate::{machine, trees, workloads};

/// What stops a command, for the user to read.
pub type Problem = Box<dyn std::error::Error>;

/// Format of the results.
const RESULTS_VERSION: u32 = 1;

/// Runs a command; `false` when a row failed.
///
/// # Errors
/// What the user must change.
pub fn run(cli: Cli) -> Result<bool, Problem> {
    let mut places = Places {
        program: None,
        peers: cli.peers_dir,
    };
    match cli.command {
        Command::Run(options) => {
            places.program.clone_from(&options.program);
            measure(&options, &places)
        }
        Command::Trees(options) => {
            let home = places
                .peers
                .clone()
                .unwrap_or_else(peers::setup::default_home);
            trees::run(&options, &home)
        }
        Command::List => list(),
        Command::Peers { command } => match command {
            Peers::List => list_peers(&places),
            Peers::Install { names } => install(&names, &places),
        },
        Command::Report(options) => report(&options),
    }
}

fn measure(options: &Run, places: &Places) -> Result<bool, Problem> {
    let workloads = workloads::select(&options.workload)?;
    let all = peers::all(places);
    let chosen = choose(&all, &options.peers)?;
    let settings = settings(options)?;
    std::fs::create_dir_all(&settings.dir)?;
    let bounds = match options.no_bounds {
        true => Bounds::default(),
        false => bounds::measure(
            &settings.dir,
            &settings.server_cores,
            &settings.client_cores,
        ),
    };
    let results = run_all(&settings, &workloads, &chosen, bounds);
    // The place is ours, and was made by this run.
    for dir in [&settings.dir, &settings.tmpfs] {
        let _ = std::fs::remove_dir_all(dir);
    }
    let results = results?;
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&results)?)?;
    }
    write_pages(&results, options.html.as_deref(), None)?;
    Ok(results.all_well())
}

fn settings(options: &Run) -> Result<Settings, Problem> {
    let (mut server_cores, mut client_cores) = machine::split_cores();
    if let Some(text) = &options.client_core {
        client_cores = machine::parse_cores(text)?;
    }
    if let Some(text) = &options.server_cores {
        server_cores = machine::parse_cores(text)?;
    }
    if options.rounds == 0 {
        return Err("rounds: at least 1".into());
    }
    let temporary = std::env::temp_dir();
    Ok(Settings {
        rounds: options.rounds,
        client_cores,
        server_cores,
        dir: runner::place(options.dir.as_deref().unwrap_or(&temporary)),
        tmpfs: runner::place(&options.tmpfs),
        verify: options.verify,
        seconds: options.seconds,
    })
}

fn choose<'a>(all: &'a [Box<dyn Peer>], names: &[String]) -> Result<Vec<&'a dyn Peer>, Problem> {
    let known: Vec<&str> = all.iter().map(|peer| peer.name()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("no peer {name}: {}", known.join(", ")).into());
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|named| named == name);
    let chosen = all.iter().map(AsRef::as_ref);
    Ok(chosen.filter(|peer| wanted(peer.name())).collect())
}

fn run_all(
    settings: &Settings,
    workloads: &[Workload],
    peers: &[&dyn Peer],
    bounds: Bounds,
) -> Result<Results, Problem> {
    let versions = peers.iter().filter_map(|peer| {
        let version = peer.available().ok()?;
        Some((peer.name().to_owned(), version))
    });
    let mut results = Results {
        version: RESULTS_VERSION,
        date: jiff::Timestamp::now().to_string(),
        machine: machine::look(
            &settings.dir,
            &settings.server_cores,
            &settings.client_cores,
        ),
        rounds: settings.rounds,
        verify: settings.verify,
        bounds,
        peers: versions.collect::<BTreeMap<_, _>>(),
        rows: Vec::new(),
    };
    let bar = progress(workloads.len() * settings.rounds as usize * peers.len());
    for (index, workload) in workloads.iter().enumerate() {
        bar.set_message(workload.name.clone());
        let later = |on: Medium| -> Vec<&Workload> {
            workloads[index..].iter().filter(|w| w.on == on).collect()
        };
        Fixture::prune(&settings.dir, &later(Medium::Disk))?;
        Fixture::prune(&settings.tmpfs, &later(Medium::Tmpfs))?;
        let tick = |peer: &str| {
            bar.set_message(format!("{} {peer}", workload.name));
            bar.inc(1);
        };
        let row = runner::run(settings, workload, peers, &tick)?;
        let text = report::table::one(&results, &row);
        bar.suspend(|| writeln!(std::io::stdout().lock(), "{text}"))?;
        results.rows.push(row);
    }
    bar.finish_and_clear();
    Ok(results)
}

fn progress(turns: usize) -> ProgressBar {
    let bar = ProgressBar::new(turns as u64);
    // A template that does not parse leaves the default style, which is fine too.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn report(options: &Report) -> Result<bool, Problem> {
    let mut runs = options.json.iter().map(|path| read(path));
    let first = runs.next().ok_or("no file")??;
    let mut results = runs.try_fold(first, |all, next| Ok::<_, Problem>(all.joined(next?)))?;
    results.sort_by(|name| {
        workloads::FILES
            .iter()
            .position(|(known, _)| *known == name)
    });
    write!(
        std::io::stdout().lock(),
        "{}",
        report::table::table(&results)
    )?;
    write_pages(
        &results,
        options.html.as_deref(),
        options.markdown.as_deref(),
    )?;
    Ok(results.all_well())
}

fn read(path: &Path) -> Result<Results, Problem> {
    let name = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read(path).map_err(|error| name(&error))?;
    Ok(serde_json::from_slice(&text).map_err(|error| name(&error))?)
}

fn write_pages(
    results: &Results,
    html: Option<&Path>,
    markdown: Option<&Path>,
) -> Result<(), Problem> {
    if let Some(path) = html {
        std::fs::write(path, report::html::page(results))?;
    }
    if let Some(path) = markdown {
        std::fs::write(path, report::markdown::page(results))?;
    }
    Ok(())
}

fn list() -> Result<bool, Problem> {
    let mut out = std::io::stdout().lock();
    for workload in workloads::select(&["*".to_owned()])? {
        writeln!(out, "{:32} {}", workload.name, workload.about)?;
    }
    Ok(true)
}

fn list_peers(places: &Places) -> Result<bool, Problem> {
    let mut out = std::io::stdout().lock();
    for peer in peers::installable(places) {
        match peer.available() {
            Ok(version) => writeln!(out, "{:22} {version}", peer.name())?,
            Err(reason) => writeln!(out, "{:22} skipped: {reason}", peer.name())?,
        }
    }
    Ok(true)
}

fn install(names: &[String], places: &Places) -> Result<bool, Problem> {
    // What is not measured is installed only where it is asked for.
    let all = match names.is_empty() {
        true => peers::all(places),
        false => peers::installable(places),
    };
    let mut all_well = true;
    for peer in choose(&all, names)? {
        let mut out = std::io::stdout().lock();
        writeln!(out, "== {}", peer.name())?;
        if let Err(reason) = peer.install(&mut out) {
            all_well = false;
            writeln!(out, "skipped: {reason}")?;
        }
    }
    Ok(all_well)
}
