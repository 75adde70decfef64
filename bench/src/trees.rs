//! Trees of many files: how long counting, deleting, cloning and listing them takes, ours over its
//! API beside the best tools that do the same on the command line.
//!
//! A tool starts, works and ends; ours is asked and answers, and a background task counts until
//! its end is seen. Both run on the same cores, in turns, on the same tree or on one made alike.
//!
//! Laws
//! - Making and removing trees is not measured.
//! - A tool that fails, or a number of entries that is not the tree's, fails the row.
//! - What a row compares ran in the same round; the median of the ratios is reported.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::Problem;
use crate::results::median;

mod plant;
mod proxy;
mod tools;

use plant::{Plan, plant};
use proxy::Proxy;
use tools::Tool;

/// Options of `trees`.
#[derive(Debug, clap::Args)]
pub struct Trees {
    /// Where the trees lie: on the file system to be measured; 1,000,000 files take 4 GiB, and a
    /// clone as much again
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
    /// Write the table in Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    wall: Duration,
    cpu: Duration,
    /// Until the first byte of an answer; only ours has one.
    first: Option<Duration>,
}

/// What one row measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Usage { cold: bool },
    Delete,
    Clone,
    List,
}

struct RowPlan {
    name: &'static str,
    deed: Deed,
    /// Whether the flat directory is meant; otherwise the deep tree.
    flat: bool,
}

const ROWS: &[RowPlan] = &[
    row("usage_deep_warm", Deed::Usage { cold: false }, false),
    row("usage_flat_warm", Deed::Usage { cold: false }, true),
    row("usage_deep_cold", Deed::Usage { cold: true }, false),
    row("usage_flat_cold", Deed::Usage { cold: true }, true),
    row("list_flat", Deed::List, true),
    row("list_10000", Deed::List, false),
    row("clone_deep", Deed::Clone, false),
    row("clone_flat", Deed::Clone, true),
    row("delete_deep", Deed::Delete, false),
    row("delete_flat", Deed::Delete, true),
];

const fn row(name: &'static str, deed: Deed, flat: bool) -> RowPlan {
    RowPlan { name, deed, flat }
}

/// One row of the report: for each who took part, its turns.
struct Row {
    name: &'static str,
    entries: u64,
    cells: Vec<(String, Vec<Took>)>,
    faults: Vec<String>,
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
    let proxy = Proxy::start(options.program.as_deref(), home.path())?;
    let mut rows = Vec::new();
    for plan in ROWS.iter().filter(|plan| wanted(plan.name, &options.rows)) {
        eprintln!("{}", plan.name);
        rows.push(measure(plan, options, &proxy, &tools_dir)?);
    }
    let page = page(&rows, options);
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

fn measure(
    plan: &RowPlan,
    options: &Trees,
    proxy: &Proxy,
    tools_dir: &Path,
) -> Result<Row, Problem> {
    let tree = match (plan.deed, plan.flat) {
        (_, true) => Plan::flat(options.flat, options.bytes),
        (Deed::List, false) => Plan::flat(10_000, options.bytes),
        (_, false) => Plan::deep(options.files, options.dirs, options.bytes),
    };
    let folder = proxy.folder("0aabbccddeeff0011223344556677889")?;
    plant(&folder.path, &tree)?;
    let tools = tools::of(plan.deed, tools_dir);
    let mut row = Row {
        name: plan.name,
        entries: tree.entries(),
        cells: Vec::new(),
        faults: Vec::new(),
    };
    for round in 0..options.rounds {
        // Who begins changes: the one before leaves the caches to the next.
        let mut order: Vec<Option<&Tool>> = std::iter::once(None)
            .chain(tools.iter().map(Some))
            .collect();
        let turns = order.len();
        order.rotate_left(round as usize % turns);
        for tool in order {
            let name = tool.map_or("ours", |tool| tool.name);
            match turn(plan.deed, tool, proxy, &folder, &tree) {
                Ok(took) => cell(&mut row.cells, name).push(took),
                Err(fault) => row.faults.push(format!("{name}: {fault}")),
            }
        }
    }
    plant::remove(&folder.path)?;
    Ok(row)
}

fn cell<'a>(cells: &'a mut Vec<(String, Vec<Took>)>, name: &str) -> &'a mut Vec<Took> {
    let at = cells.iter().position(|(known, _)| known == name);
    let at = at.unwrap_or_else(|| {
        cells.push((name.to_owned(), Vec::new()));
        cells.len() - 1
    });
    &mut cells[at].1
}

/// One turn of one tool, or of ours.
fn turn(
    deed: Deed,
    tool: Option<&Tool>,
    proxy: &Proxy,
    folder: &proxy::Folder,
    tree: &Plan,
) -> Result<Took, Problem> {
    match deed {
        Deed::Usage { cold } => {
            if cold {
                tools::drop_caches()?;
            } else {
                plant::warm(&folder.path)?;
            }
            match tool {
                Some(tool) => tool.run(&[&folder.path]),
                None => proxy.usage(folder, tree.entries()),
            }
        }
        Deed::List => {
            plant::warm(&folder.path)?;
            match tool {
                Some(tool) => tool.run(&[&folder.path]),
                None => proxy.list(folder, tree.entries()),
            }
        }
        Deed::Clone => {
            let to = proxy.fresh()?;
            let took = match tool {
                Some(tool) => tool.run(&[&folder.path, &to.path]),
                None => proxy.clone(folder, &to),
            };
            let copied = plant::count(&to.path);
            plant::remove(&to.path)?;
            if copied? == tree.entries() {
                took
            } else {
                Err("the copy is not whole".into())
            }
        }
        Deed::Delete => {
            let doomed = proxy.fresh()?;
            plant(&doomed.path, tree)?;
            let took = match tool {
                Some(tool) => tool.run(&[&doomed.path]),
                None => proxy.delete(&doomed),
            };
            if doomed.path.exists() {
                plant::remove(&doomed.path)?;
                return Err("something was left".into());
            }
            took
        }
    }
}

fn seconds(turns: &[Took], of: impl Fn(&Took) -> Duration) -> Option<f64> {
    median(turns.iter().map(|took| of(took).as_secs_f64()).collect())
}

fn page(rows: &[Row], options: &Trees) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "Deep: {} files in {} directories; flat: {} files; {} bytes each; median of {} rounds. \
         Above 1, ours is faster.\n\n\
         | row | entries | who | s | CPU s | first byte ms | ours to it |\n\
         |---|---|---|---|---|---|---|",
        options.files, options.dirs, options.flat, options.bytes, options.rounds
    );
    for row in rows {
        let ours = row.cells.iter().find(|(name, _)| name == "ours");
        let ours = ours.map(|(_, turns)| turns.as_slice()).unwrap_or_default();
        for (name, turns) in &row.cells {
            let ratios = turns.iter().zip(ours);
            let ratios = ratios.map(|(it, ours)| it.wall.as_secs_f64() / ours.wall.as_secs_f64());
            let first = seconds(turns, |took| took.first.unwrap_or_default());
            let number = |value: Option<f64>| value.map_or("-".into(), |s| format!("{s:.3}"));
            let _ = writeln!(
                out,
                "| {} | {} | {name} | {} | {} | {} | {} |",
                row.name,
                row.entries,
                number(seconds(turns, |took| took.wall)),
                number(seconds(turns, |took| took.cpu)),
                match first {
                    Some(s) if 0.0 < s => format!("{:.1}", s * 1000.0),
                    _ => "-".into(),
                },
                number(median(ratios.collect())),
            );
        }
        for fault in &row.faults {
            let _ = writeln!(out, "| {} | | failed: {fault} | | | | |", row.name);
        }
    }
    out
}
