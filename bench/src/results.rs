//! The results of a run: what is measured, and what follows from it. The JSON file is this.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bounds::Bounds;
use crate::workload::{Bound, Measure, Workload};

/// Bytes of a GiB.
const GIB: f64 = (1u64 << 30) as f64;

/// Everything about one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Format of this file.
    pub version: u32,
    /// When it began, RFC 3339, UTC.
    pub date: String,
    /// The machine it ran on.
    pub machine: Machine,
    /// Turns of each peer.
    pub rounds: u32,
    /// Every byte was checked: figures are of no use then.
    pub verify: bool,
    /// What the machine itself can do.
    pub bounds: Bounds,
    /// Versions of the peers.
    pub peers: BTreeMap<String, String>,
    /// One row per workload.
    pub rows: Vec<Row>,
}

/// Where it was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Processor, as it calls itself.
    pub processor: String,
    /// How many cores.
    pub cores: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// Kernel release.
    pub kernel: String,
    /// File system of the directory.
    pub file_system: String,
    /// Cores of the servers.
    pub server_cores: Vec<usize>,
    /// Cores of the load generator.
    pub client_cores: Vec<usize>,
}

/// A workload and how each peer did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The workload.
    pub workload: Workload,
    /// In the order of the run; ours first.
    pub cells: Vec<Cell>,
}

/// How one peer did in one workload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cell {
    /// The peer.
    pub peer: String,
    /// Why it took no part.
    pub skipped: Option<String>,
    /// Why its figures do not count.
    pub failed: Option<String>,
    /// Memory before the first client came, bytes.
    #[serde(default)]
    pub rss_start: u64,
    /// Descriptors before the first client came.
    #[serde(default)]
    pub descriptors_start: u64,
    /// Descriptors when it was at rest again.
    #[serde(default)]
    pub descriptors_end: u64,
    /// Its turns.
    pub turns: Vec<Turn>,
}

/// One turn of one peer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Turn {
    /// One per load of the workload.
    pub loads: Vec<LoadTurn>,
    /// User and system time of the server, seconds.
    pub cpu_s: f64,
    /// That of the load generator, seconds.
    #[serde(default)]
    pub client_cpu_s: f64,
    /// From the start of the clock to the end, seconds.
    #[serde(default)]
    pub seconds: f64,
    /// Most memory since the server's start, bytes.
    pub rss_peak: u64,
    /// Memory when all clients were connected and the clock began, bytes.
    pub rss_ready: u64,
    /// Threads at the end.
    pub threads: u64,
}

/// What one load did in one turn.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadTurn {
    /// Requests that ended well.
    pub requests: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Requests that did not.
    pub errors: u64,
    /// Until the last one ended.
    pub seconds: f64,
    /// To the first byte: median, milliseconds.
    pub first_p50_ms: f64,
    /// To the first byte: 99th percentile, milliseconds.
    pub first_p99_ms: f64,
    /// To the end: median, milliseconds.
    pub total_p50_ms: f64,
    /// To the end: 99th percentile, milliseconds.
    pub total_p99_ms: f64,
}

/// A figure of a turn.
pub type Figure = fn(&Row, &Turn) -> f64;

impl Row {
    /// The cell of a peer, when it has turns that count.
    #[must_use]
    pub fn cell(&self, peer: &str) -> Option<&Cell> {
        let cell = self.cells.iter().find(|cell| cell.peer == peer)?;
        (cell.failed.is_none() && !cell.turns.is_empty()).then_some(cell)
    }

    /// The median of a figure over a peer's turns.
    #[must_use]
    pub fn median(&self, peer: &str, figure: Figure) -> Option<f64> {
        let cell = self.cell(peer)?;
        median(cell.turns.iter().map(|turn| figure(self, turn)).collect())
    }

    /// The median over rounds of `peer`'s figure divided by `other`'s of the same round.
    #[must_use]
    pub fn ratio(&self, peer: &str, other: &str, figure: Figure) -> Option<f64> {
        let (one, two) = (self.cell(peer)?, self.cell(other)?);
        let pairs = one.turns.iter().zip(&two.turns);
        let ratios = pairs.map(|(a, b)| figure(self, a) / figure(self, b));
        median(ratios.filter(|ratio| ratio.is_finite()).collect())
    }

    /// Unit of [`rate`].
    #[must_use]
    pub fn rate_unit(&self) -> &'static str {
        match self.workload.measure {
            Measure::Bytes => "GiB/s",
            Measure::Requests | Measure::Idle => "req/s",
        }
    }

    /// Unit of [`cpu`].
    #[must_use]
    pub fn cpu_unit(&self) -> &'static str {
        match self.workload.measure {
            Measure::Bytes => "s/GiB",
            Measure::Requests | Measure::Idle => "s/1000 req",
        }
    }
}

/// Throughput of the first load, GiB/s, or its requests per second.
#[must_use]
pub fn rate(row: &Row, turn: &Turn) -> f64 {
    let Some(load) = turn.loads.first() else {
        return 0.0;
    };
    match row.workload.measure {
        Measure::Bytes => load.bytes as f64 / GIB / load.seconds,
        Measure::Requests | Measure::Idle => load.requests as f64 / load.seconds,
    }
}

/// CPU seconds of the server per GiB, or per 1,000 requests; over all loads.
#[must_use]
pub fn cpu(row: &Row, turn: &Turn) -> f64 {
    let bytes: u64 = turn.loads.iter().map(|load| load.bytes).sum();
    let requests: u64 = turn.loads.iter().map(|load| load.requests).sum();
    match row.workload.measure {
        Measure::Bytes => turn.cpu_s / (bytes as f64 / GIB),
        Measure::Requests | Measure::Idle => turn.cpu_s / (requests as f64 / 1000.0),
    }
}

/// Share of its cores' time in which the load generator was busy.
#[must_use]
pub fn client_share(_: &Row, turn: &Turn) -> f64 {
    turn.client_cpu_s / turn.seconds
}

/// Median time of a request of the load that the row's latency speaks of, milliseconds.
#[must_use]
pub fn p50(row: &Row, turn: &Turn) -> f64 {
    let load = turn.loads.get(latency_load(row));
    load.map_or(0.0, |load| load.total_p50_ms)
}

/// The 99th percentile of the same.
#[must_use]
pub fn p99(row: &Row, turn: &Turn) -> f64 {
    let load = turn.loads.get(latency_load(row));
    load.map_or(0.0, |load| load.total_p99_ms)
}

/// Time to the first byte, 99th percentile, milliseconds.
#[must_use]
pub fn first_p99(row: &Row, turn: &Turn) -> f64 {
    let load = turn.loads.get(latency_load(row));
    load.map_or(0.0, |load| load.first_p99_ms)
}

/// Most memory, MiB.
#[must_use]
pub fn memory(_: &Row, turn: &Turn) -> f64 {
    turn.rss_peak as f64 / (1u64 << 20) as f64
}

/// Memory with everybody connected and nothing asked yet, MiB.
#[must_use]
pub fn memory_ready(_: &Row, turn: &Turn) -> f64 {
    turn.rss_ready as f64 / (1u64 << 20) as f64
}

/// Small requests beside a bulk load are what its row is about: the load with most requests.
fn latency_load(row: &Row) -> usize {
    use crate::workload::Kind;
    let active = |kind: Kind| !matches!(kind, Kind::Idle | Kind::Stalled);
    let loads = row.workload.load.iter().enumerate();
    let smallest = loads
        .filter(|(_, load)| active(load.kind))
        .min_by_key(|(index, load)| (load.files.map_or(u64::MAX, |set| set.bytes.0), *index));
    smallest.map_or(0, |(index, _)| index)
}

impl Results {
    /// What the machine allows for a row, in the unit of its rate.
    #[must_use]
    pub fn bound(&self, row: &Row) -> Option<f64> {
        match row.workload.bound? {
            Bound::SmallFiles => self.bounds.small_files,
            Bound::Memcpy => self.bounds.memcpy,
            Bound::Loopback => self.bounds.loopback,
            Bound::DiskRead => self.bounds.disk_read,
            Bound::DiskWrite => self.bounds.disk_write,
        }
    }

    /// A row by its workload's name.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.workload.name == name)
    }

    /// A peer's rate in a row, divided by its rate in the row's baseline.
    #[must_use]
    pub fn to_baseline(&self, row: &Row, peer: &str) -> Option<f64> {
        let base = self.row(row.workload.baseline.as_deref()?)?;
        if base.rate_unit() != row.rate_unit() {
            return None;
        }
        Some(row.median(peer, rate)? / base.median(peer, rate)?)
    }

    /// This run with the rows of a later one: a row that is in both is the later one's.
    #[must_use]
    pub fn joined(mut self, later: Self) -> Self {
        let replaced = |name: &str| later.rows.iter().any(|row| row.workload.name == name);
        self.rows.retain(|row| !replaced(&row.workload.name));
        self.rows.extend(later.rows);
        self.peers.extend(later.peers);
        self.date = self.date.max(later.date);
        self.verify |= later.verify;
        self.rounds = self.rounds.min(later.rounds);
        self.bounds = self.bounds.or(later.bounds);
        self
    }

    /// Orders rows by what `place` says of their names; unknown names come last.
    pub fn sort_by(&mut self, place: impl Fn(&str) -> Option<usize>) {
        self.rows
            .sort_by_key(|row| place(&row.workload.name).unwrap_or(usize::MAX));
    }

    /// Whether no row failed.
    #[must_use]
    pub fn all_well(&self) -> bool {
        let mut cells = self.rows.iter().flat_map(|row| &row.cells);
        cells.all(|cell| cell.failed.is_none())
    }
}

/// The middle one; the mean of the middle two. `None` of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, want) in [
            (vec![], None),
            (vec![3.0], Some(3.0)),
            (vec![3.0, 1.0], Some(2.0)),
            (vec![9.0, 1.0, 2.0], Some(2.0)),
        ] {
            assert_eq!(median(values.clone()), want, "{values:?}");
        }
    }

    #[test]
    fn a_ratio_compares_turns_of_the_same_round() {
        let text = "about = \"x\"\nmeasure = \"bytes\"\nseconds = 1.0\n[[load]]\n\
            kind = \"get\"\nconnections = 1\nfiles = { count = 1, bytes = \"1MiB\" }\n";
        let turn = |seconds: f64| Turn {
            loads: vec![LoadTurn {
                bytes: 1 << 30,
                seconds,
                ..LoadTurn::default()
            }],
            ..Turn::default()
        };
        let cell = |peer: &str, seconds: [f64; 3]| Cell {
            peer: peer.to_owned(),
            turns: seconds.map(turn).to_vec(),
            ..Cell::default()
        };
        let row = Row {
            workload: Workload::parse("x", text).expect("a workload"),
            cells: vec![cell("a", [1.0, 2.0, 4.0]), cell("b", [2.0, 4.0, 4.0])],
        };
        // Ratios of rates: 2, 2, 1. A ratio of medians would be 2 as well, of means not.
        assert_eq!(row.ratio("a", "b", rate), Some(2.0));
        assert_eq!(row.median("a", rate), Some(0.5));
        assert_eq!(row.ratio("a", "c", rate), None);
    }

    #[test]
    fn a_later_run_replaces_rows() {
        let text = "about = \"x\"\nmeasure = \"bytes\"\nseconds = 1.0\n[[load]]\n\
            kind = \"get\"\nconnections = 1\nfiles = { count = 1, bytes = \"1MiB\" }\n";
        let run = |names: &[&str], peer: &str, memcpy: f64| Results {
            version: 1,
            date: peer.to_owned(),
            machine: Machine::default(),
            rounds: 3,
            verify: false,
            bounds: Bounds {
                memcpy: Some(memcpy),
                ..Bounds::default()
            },
            peers: BTreeMap::new(),
            rows: names
                .iter()
                .map(|name| Row {
                    workload: Workload::parse(name, text).expect("a workload"),
                    cells: vec![Cell {
                        peer: peer.to_owned(),
                        ..Cell::default()
                    }],
                })
                .collect(),
        };
        let mut joined = run(&["a", "b"], "1", 2.0).joined(run(&["b", "c"], "2", 1.0));
        joined.sort_by(|name| "cba".find(name));
        let rows = joined.rows.iter();
        let rows: Vec<_> = rows
            .map(|row| (row.workload.name.as_str(), &*row.cells[0].peer))
            .collect();
        assert_eq!(rows, [("c", "2"), ("b", "2"), ("a", "1")]);
        assert_eq!(
            (joined.date.as_str(), joined.bounds.memcpy),
            ("2", Some(2.0))
        );
    }
}
