//! Trees of many files: how long counting, deleting, cloning and listing them takes, ours over its
//! API beside the best tools that do the same on the command line, and beside the original.
//!
//! A tool starts, works and ends; a server is asked and answers, and a background task counts
//! until its end is seen. All run on the same cores, in turns, on the same tree or on one made
//! alike.
//!
//! Laws
//! - Making trees is not measured; what was cloned is deleted afterwards, and who deletes whose
//!   copy changes with the round.
//! - A tool that fails, or a number of entries that is not the tree's, fails the row.
//! - Before each turn what was written is on the disk, and the tree is in memory or out of it.
//! - What a row compares ran in the same round; the median of the ratios is reported.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::command::Problem;
use crate::machine;
use crate::results::median;

mod plant;
mod server;
mod tools;

use plant::{Plan, plant};
use server::{Folder, Server, Volume};
use tools::Tool;

/// Options of `trees`.
#[derive(Debug, clap::Args)]
pub struct Trees {
    /// Where the trees lie: on the file system to be measured, where nothing was deleted in the
    /// last minutes; 1,000,000 files take 4 GiB, and each clone of each round as much again
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Files of the deep tree
    #[arg(long, default_value_t = 1_000_000)]
    pub files: u64,
    /// Directories of the deep tree
    #[arg(long, default_value_t = 10_000)]
    pub dirs: u64,
    /// Files of the one flat directory
    #[arg(long, default_value_t = 200_000)]
    pub flat: u64,
    /// Bytes of each file
    #[arg(long, default_value_t = 512)]
    pub bytes: u64,
    /// How often each tool has its turn
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Rows to measure, by the beginning of their names; all without it
    #[arg(long, value_delimiter = ',')]
    pub rows: Vec<String>,
    /// The program `storage-proxy`; the one beside this program without it
    #[arg(long, value_name = "FILE", env = "STORAGE_BENCH_PROGRAM")]
    pub program: Option<PathBuf>,
    /// Install the tools first, by cargo, below the peers' directory; takes minutes
    #[arg(long)]
    pub install: bool,
    /// Leave the original out, which takes minutes for what others do in seconds
    #[arg(long)]
    pub without_original: bool,
    /// Write the table in Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    wall: Duration,
    cpu: Duration,
    /// Until the first byte of an answer; only servers have one.
    first: Option<Duration>,
    /// Most resident memory meanwhile, less that at rest, bytes; only of servers.
    above_idle: Option<u64>,
    /// It ended without an answer to what was asked.
    gave_up: bool,
}

const MIB: f64 = 1024.0 * 1024.0;

/// What one row measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Usage { cold: bool },
    Delete,
    Clone,
    List,
}

/// The trees that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Many directories.
    Deep,
    /// One large directory.
    Flat,
    /// One directory as people have them.
    Ten,
}

const ROWS: &[(&str, Shape, Deed)] = &[
    ("usage_deep_warm", Shape::Deep, Deed::Usage { cold: false }),
    ("usage_deep_cold", Shape::Deep, Deed::Usage { cold: true }),
    ("clone_deep", Shape::Deep, Deed::Clone),
    ("delete_deep", Shape::Deep, Deed::Delete),
    ("usage_flat_warm", Shape::Flat, Deed::Usage { cold: false }),
    ("usage_flat_cold", Shape::Flat, Deed::Usage { cold: true }),
    ("list_flat", Shape::Flat, Deed::List),
    ("clone_flat", Shape::Flat, Deed::Clone),
    ("delete_flat", Shape::Flat, Deed::Delete),
    ("list_10000", Shape::Ten, Deed::List),
];

/// One row of the report: for each who took part, its turns.
struct Row {
    name: &'static str,
    deed: Deed,
    cells: Vec<(&'static str, Vec<Took>)>,
    faults: Vec<String>,
}

impl Row {
    fn note(&mut self, who: &'static str, took: Result<Took, Problem>) {
        let took = match took {
            Ok(took) => took,
            Err(fault) => return self.faults.push(format!("{who}: {fault}")),
        };
        match self.cells.iter_mut().find(|(known, _)| *known == who) {
            Some((_, turns)) => turns.push(took),
            None => self.cells.push((who, vec![took])),
        }
    }
}

/// Who takes turns.
enum Who<'a> {
    Server(&'a Server),
    Tool(Tool),
}

impl Who<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Server(server) => server.name,
            Self::Tool(tool) => tool.name,
        }
    }
}

/// The turns of `all` in one round: who begins changes, for the one before leaves the caches to
/// the next.
fn turns<T>(all: &[T], round: u32) -> impl Iterator<Item = &T> {
    let first = round as usize % all.len().max(1);
    all[first..].iter().chain(&all[..first])
}

/// Measures; `false` when a row failed.
///
/// # Errors
/// What the user must change.
pub fn run(options: &Trees, peers: &Path) -> Result<bool, Problem> {
    let tools_dir = peers.join("trees");
    if options.install {
        tools::install(&tools_dir)?;
    }
    let place = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let home = tempfile::Builder::new()
        .prefix("storage-trees-")
        .tempdir_in(place)?;
    let volume = Volume::new(home.path())?;
    let mut servers = vec![Server::ours(
        options.program.as_deref(),
        home.path(),
        &volume,
    )?];
    if !options.without_original {
        servers.extend(Server::original(peers, &volume)?);
    }
    let mut bench = Bench {
        options,
        volume,
        servers,
        tools_dir,
    };
    let mut rows = Vec::new();
    for shape in [Shape::Deep, Shape::Flat, Shape::Ten] {
        rows.extend(bench.measure(shape)?);
    }
    let page = page(&rows, options, home.path());
    print(&page)?;
    if let Some(path) = &options.markdown {
        std::fs::write(path, &page)?;
    }
    Ok(rows.iter().all(|row| row.faults.is_empty()))
}

fn wanted(name: &str, rows: &[String]) -> bool {
    rows.is_empty() || rows.iter().any(|row| name.starts_with(row.as_str()))
}

fn print(page: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    std::io::stdout().lock().write_all(page.as_bytes())
}

struct Bench<'a> {
    options: &'a Trees,
    volume: Volume,
    servers: Vec<Server>,
    tools_dir: PathBuf,
}

impl Bench<'_> {
    fn plan(&self, shape: Shape) -> Plan {
        let options = self.options;
        match shape {
            Shape::Deep => Plan::deep(options.files, options.dirs, options.bytes),
            Shape::Flat => Plan::flat(options.flat, options.bytes),
            Shape::Ten => Plan::flat(10_000, options.bytes),
        }
    }

    /// The rows of one tree that are wanted.
    fn measure(&mut self, shape: Shape) -> Result<Vec<Row>, Problem> {
        let wanted = ROWS
            .iter()
            .filter(|(name, of, _)| *of == shape && wanted(name, &self.options.rows));
        let mut rows: Vec<Row> = wanted
            .map(|(name, _, deed)| Row {
                name,
                deed: *deed,
                cells: Vec::new(),
                faults: Vec::new(),
            })
            .collect();
        if rows.is_empty() {
            return Ok(rows);
        }
        let plan = self.plan(shape);
        let folder = self.volume.fresh()?;
        eprintln!("making {} entries", plan.entries());
        plant(&folder.path, &plan)?;
        let looking = |row: &&mut Row| !matches!(row.deed, Deed::Clone | Deed::Delete);
        for row in rows.iter_mut().filter(looking) {
            eprintln!("{}", row.name);
            let all = who(&self.servers, row.deed, &self.tools_dir);
            for round in 0..self.options.rounds {
                for one in turns(&all, round) {
                    row.note(one.name(), look(row.deed, one, &folder, &plan));
                }
            }
        }
        let mut changing = rows.iter_mut().filter(|row| !looking(row));
        match (changing.next(), changing.next()) {
            (Some(cloning), Some(deleting)) if cloning.deed == Deed::Clone => {
                self.change(Some(cloning), Some(deleting), &folder, &plan)?;
            }
            (Some(row), None) if row.deed == Deed::Clone => {
                self.change(Some(row), None, &folder, &plan)?;
            }
            (row, _) => self.change(None, row, &folder, &plan)?,
        }
        plant::remove(&folder.path)?;
        Ok(rows)
    }

    /// Clones, and deletes what was cloned.
    fn change(
        &mut self,
        cloning: Option<&mut Row>,
        deleting: Option<&mut Row>,
        folder: &Folder,
        plan: &Plan,
    ) -> Result<(), Problem> {
        let rows = [cloning.as_deref(), deleting.as_deref()];
        for row in rows.into_iter().flatten() {
            eprintln!("{}", row.name);
        }
        let servers = &self.servers;
        let of = |deed, row: bool| {
            let all = row.then(|| who(servers, deed, &self.tools_dir));
            all.unwrap_or_default()
        };
        let cloners = of(Deed::Clone, cloning.is_some());
        let deleters = of(Deed::Delete, deleting.is_some());
        // First all clones, then all deletions: ext4 passes over every inode that was deleted in
        // the last minutes, so who clones after a deletion pays for it (`recently_deleted`).
        let mut copies = Vec::new();
        if let Some(row) = cloning {
            for round in 0..self.options.rounds {
                for cloner in turns(&cloners, round) {
                    let to = self.volume.fresh()?;
                    let cloned = clone(cloner, folder, &to, plan);
                    let whole = cloned.is_ok();
                    if let (Who::Tool(tool), Ok((_, synced))) = (cloner, &cloned) {
                        row.note(tool.synced(), Ok(*synced));
                    }
                    row.note(cloner.name(), cloned.map(|(took, _)| took));
                    if whole {
                        copies.push(to);
                    } else {
                        plant::remove(&to.path)?;
                    }
                }
            }
        }
        if let Some(row) = deleting {
            for round in 0..self.options.rounds {
                // Who deletes whose copy changes from round to round.
                for deleter in turns(&deleters, 2 * round) {
                    let doomed = match copies.is_empty() {
                        true => self.volume.fresh()?,
                        false => copies.remove(0),
                    };
                    if !doomed.path.exists() {
                        plant(&doomed.path, plan)?;
                    }
                    row.note(deleter.name(), delete(deleter, &doomed));
                    plant::remove(&doomed.path)?;
                }
            }
        }
        copies
            .iter()
            .try_for_each(|copy| plant::remove(&copy.path))?;
        Ok(())
    }
}

/// Who takes part in a deed: the servers, and the tools that this machine has.
fn who<'a>(servers: &'a [Server], deed: Deed, tools_dir: &Path) -> Vec<Who<'a>> {
    let tools = tools::of(deed, tools_dir);
    let servers = servers.iter().map(Who::Server);
    servers.chain(tools.into_iter().map(Who::Tool)).collect()
}

/// One turn of somebody who only looks at the tree.
fn look(deed: Deed, who: &Who<'_>, folder: &Folder, plan: &Plan) -> Result<Took, Problem> {
    match deed {
        Deed::Usage { cold: true } => tools::drop_caches()?,
        _ => plant::warm(&folder.path)?,
    }
    match (who, deed) {
        (Who::Tool(tool), _) => tool.run(&[&folder.path]),
        (Who::Server(server), Deed::List) => server.list(folder, plan.entries()),
        (Who::Server(server), _) => server.usage(folder, plan.entries()),
    }
}

/// Also what it takes until the copy is on the disk: ours is when it says so.
fn clone(who: &Who<'_>, from: &Folder, to: &Folder, plan: &Plan) -> Result<(Took, Took), Problem> {
    plant::read(&from.path)?;
    rustix::fs::sync();
    let took = match who {
        Who::Tool(tool) => tool.run(&[&from.path, &to.path]),
        Who::Server(server) => server.clone_folder(from, to),
    }?;
    let began = Instant::now();
    rustix::fs::syncfs(std::fs::File::open(&to.path)?)?;
    let synced = Took {
        wall: took.wall + began.elapsed(),
        ..took
    };
    if plant::count(&to.path)? == plan.entries() {
        Ok((took, synced))
    } else {
        Err("the copy is not whole".into())
    }
}

fn delete(who: &Who<'_>, folder: &Folder) -> Result<Took, Problem> {
    plant::warm(&folder.path)?;
    rustix::fs::sync();
    let took = match who {
        Who::Tool(tool) => tool.run(&[&folder.path]),
        Who::Server(server) => server.delete(folder),
    }?;
    if folder.path.exists() {
        return Err("something was left".into());
    }
    Ok(took)
}

fn seconds(turns: &[Took], of: impl Fn(&Took) -> Duration) -> Option<f64> {
    median(turns.iter().map(|took| of(took).as_secs_f64()).collect())
}

fn page(rows: &[Row], options: &Trees, place: &Path) -> String {
    let mut out = String::new();
    let machine = machine::look(place, &[], &[]);
    let machine = format!(
        "{} cores of {}, Linux {}, {}",
        machine.cores, machine.processor, machine.kernel, machine.file_system
    );
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "Deep: {} files in {} directories; flat: {} files; {} bytes each; median of {} rounds on \
         {machine}. Ours to it: its time divided by ours, above 1 ours is faster. MiB above idle: \
         the most resident memory meanwhile, less that at rest.\n\n\
         | row | who | s | CPU s | first byte ms | MiB above idle | ours to it |\n\
         |---|---|--:|--:|--:|--:|--:|",
        options.files, options.dirs, options.flat, options.bytes, options.rounds
    );
    let number = |value: Option<f64>| value.map_or("-".into(), |s| format!("{s:.3}"));
    for row in rows {
        let ours = row.cells.iter().find(|(name, _)| *name == "ours");
        let ours = ours.map(|(_, turns)| turns.as_slice()).unwrap_or_default();
        for (name, turns) in &row.cells {
            let ratios = turns.iter().zip(ours);
            let ratios = ratios.map(|(it, ours)| it.wall.as_secs_f64() / ours.wall.as_secs_f64());
            let first = turns.iter().filter_map(|took| took.first);
            let first = median(first.map(|first| first.as_secs_f64() * 1e3).collect());
            let above = turns.iter().filter_map(|took| took.above_idle).max();
            let gave_up = turns.iter().any(|took| took.gave_up);
            let _ = writeln!(
                out,
                "| {} | {name} | {}{} | {} | {} | {} | {} |",
                row.name,
                number(seconds(turns, |took| took.wall)),
                if gave_up { ", gave up" } else { "" },
                number(seconds(turns, |took| took.cpu)),
                first.map_or("-".into(), |ms| format!("{ms:.1}")),
                above.map_or("-".into(), |bytes| format!("{:.1}", bytes as f64 / MIB)),
                number(median(ratios.collect())),
            );
        }
        for fault in &row.faults {
            let _ = writeln!(out, "| {} | failed: {fault} | | | | | |", row.name);
        }
    }
    out
}
