//! Results for people: a table in the terminal, a page with charts, a page in Markdown.
//!
//! Laws
//! - Nothing is left out: rows that lost, failed or were skipped stand where they would stand.
//! - A ratio says which way it goes: above 1 ours is faster, or needs more.

pub mod chart;
pub mod html;
pub mod markdown;
pub mod table;

use crate::results::{self, Figure, Machine, Results, Row};

/// From this share on the load generator may be what limits a row.
const CLIENT_BUSY: f64 = 0.95;

/// A number with three significant digits; a dash when there is none.
#[must_use]
pub fn number(value: Option<f64>) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else {
        return "–".to_owned();
    };
    let digits = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        v if v >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}

/// A ratio as the reports write it.
#[must_use]
pub fn times(ratio: Option<f64>) -> String {
    ratio.map_or(String::new(), |ratio| format!("×{}", number(Some(ratio))))
}

/// Columns behind rate and CPU: title, figure.
pub const COLUMNS: &[(&str, Figure)] = &[
    ("p50 ms", results::p50),
    ("p99 ms", results::p99),
    ("first byte p99 ms", results::first_p99),
    ("peak RSS MiB", results::memory),
];

/// What stands first in a row.
#[must_use]
pub fn ours(row: &Row) -> &str {
    row.cells.first().map_or("", |cell| &cell.peer)
}

/// Sentences about a row that no column holds.
#[must_use]
pub fn remarks(results: &Results, row: &Row) -> Vec<String> {
    let mut out = Vec::new();
    let ours = ours(row);
    if let (Some(bound), Some(rate)) = (results.bound(row), row.median(ours, results::rate)) {
        let (share, bound) = (100.0 * rate / bound, number(Some(bound)));
        let unit = row.rate_unit();
        out.push(format!(
            "{ours} reaches {share:.0} % of what the machine can, {bound} {unit}"
        ));
    }
    if let (Some(base), Some(ratio)) = (&row.workload.baseline, results.to_baseline(row, ours)) {
        let ratio = number(Some(ratio));
        out.push(format!("{ours} reaches {ratio} of its own {base}"));
    }
    let cores = results.machine.client_cores.len().max(1) as f64;
    for cell in &row.cells {
        let busy = row.median(&cell.peer, results::client_share).unwrap_or(0.0) / cores;
        if CLIENT_BUSY < busy {
            let (peer, percent) = (&cell.peer, 100.0 * busy);
            out.push(format!(
                "with {peer} the client is busy {percent:.0} % of the time: the rate may be its own"
            ));
        }
    }
    let still = row.workload.load.iter().filter(|load| {
        use crate::workload::Kind;
        matches!(load.kind, Kind::Idle | Kind::Stalled)
    });
    let still: u32 = still.map(|load| load.connections).sum();
    for cell in row
        .cells
        .iter()
        .filter(|cell| 0 < still && row.cell(&cell.peer).is_some())
    {
        let memory = number(row.median(&cell.peer, results::memory_ready));
        let start = number(Some(cell.rss_start as f64 / (1u64 << 20) as f64));
        let threads = cell
            .turns
            .iter()
            .map(|turn| turn.threads)
            .max()
            .unwrap_or(0);
        out.push(format!(
            "{}: {start} MiB before the first client, {memory} with {still} silent ones; \
             {threads} threads at the end",
            cell.peer
        ));
    }
    out
}

/// The machine in a few lines: title and text.
#[must_use]
pub fn machine(results: &Results) -> Vec<(&'static str, String)> {
    let Machine {
        processor,
        cores,
        memory,
        kernel,
        file_system,
        server_cores,
        client_cores,
    } = &results.machine;
    let list = |cores: &[usize]| {
        let texts: Vec<String> = cores.iter().map(usize::to_string).collect();
        texts.join(", ")
    };
    let found = &results.bounds;
    let bounds = [
        ("memcpy", found.memcpy, "GiB/s"),
        ("splice into loopback", found.loopback, "GiB/s"),
        ("disk read", found.disk_read, "GiB/s"),
        ("disk write", found.disk_write, "GiB/s"),
        ("one sync", found.sync_seconds.map(|s| 1000.0 * s), "ms"),
        ("small durable files", found.small_files, "files/s"),
    ];
    let bounds = bounds.iter().filter(|(_, rate, _)| rate.is_some());
    let bounds: Vec<String> = bounds
        .map(|(name, rate, unit)| format!("{name} {} {unit}", number(*rate)))
        .collect();
    let peers: Vec<String> = results
        .peers
        .iter()
        .map(|(name, version)| format!("{name}: {version}"))
        .collect();
    vec![
        ("date", results.date.clone()),
        (
            "machine",
            format!("{processor}, {cores} cores, {} GiB", memory >> 30),
        ),
        ("kernel", kernel.clone()),
        ("file system", file_system.clone()),
        (
            "cores",
            format!(
                "servers {}, clients {}",
                list(server_cores),
                list(client_cores)
            ),
        ),
        (
            "bounds",
            if bounds.is_empty() {
                "not measured".to_owned()
            } else {
                bounds.join(", ")
            },
        ),
        ("rounds", results.rounds.to_string()),
        ("peers", peers.join("; ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_say_something() {
        for (value, want) in [
            (Some(12345.6), "12346"),
            (Some(12.34), "12.3"),
            (Some(1.234), "1.23"),
            (Some(0.1234), "0.123"),
            (Some(0.01234), "0.0123"),
            (Some(0.0), "0"),
            (Some(f64::NAN), "–"),
            (None, "–"),
        ] {
            assert_eq!(number(value), want, "{value:?}");
        }
    }
}
