//! The table in the terminal.

use std::fmt::Write as _;

use crate::results::{self, Cell, Figure, Results, Row};

/// Columns after the name of the peer: title, figure, digits after the point.
const COLUMNS: &[(&str, Figure, usize)] = &[
    ("p50 ms", results::p50, 2),
    ("p99 ms", results::p99, 2),
    ("first p99", results::first_p99, 2),
    ("RSS MiB", results::memory, 1),
];

/// All rows.
#[must_use]
pub fn table(results: &Results) -> String {
    let mut out = String::new();
    for row in &results.rows {
        out.push_str(&one(results, row));
        out.push('\n');
    }
    out
}

/// One row: a line per peer.
#[must_use]
pub fn one(results: &Results, row: &Row) -> String {
    let mut out = format!("{}\n", row.workload.name);
    let (rate, cpu) = (row.rate_unit(), row.cpu_unit());
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "  {:<22}{rate:>11}{:>8}{cpu:>14}{:>8}",
        "peer", "ratio", "ratio"
    );
    for (title, _, _) in COLUMNS {
        let _ = write!(out, "{title:>11}");
    }
    out.push('\n');
    for cell in &row.cells {
        out.push_str(&line(row, cell));
    }
    let ours = row.cells.first().map_or("", |cell| &cell.peer);
    if let (Some(bound), Some(rate)) = (results.bound(row), row.median(ours, results::rate))
        && row.rate_unit() == "GiB/s"
    {
        let share = 100.0 * rate / bound;
        let _ = writeln!(
            out,
            "  {ours} reaches {share:.0} % of the bound, {bound:.2} GiB/s"
        );
    }
    if let (Some(base), Some(ratio)) = (&row.workload.baseline, results.to_baseline(row, ours)) {
        let _ = writeln!(out, "  {ours} reaches {ratio:.2} of its {base}");
    }
    out
}

fn line(row: &Row, cell: &Cell) -> String {
    let mut out = format!("  {:<22}", cell.peer);
    if let Some(reason) = &cell.skipped {
        return format!("{out}skipped: {reason}\n");
    }
    if let Some(reason) = &cell.failed {
        return format!("{out}FAILED: {reason}\n");
    }
    let ours = row.cells.first().map_or("", |cell| &cell.peer);
    // How ours compares with this peer: above 1 is faster, below 1 is cheaper.
    let ratio = |figure: Figure| {
        let found = row
            .ratio(ours, &cell.peer, figure)
            .filter(|_| cell.peer != ours);
        found.map_or(String::new(), |ratio| format!("x{ratio:.2}"))
    };
    let number = |figure: Figure, digits: usize| {
        let found = row
            .median(&cell.peer, figure)
            .filter(|value| value.is_finite());
        found.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let rate_digits = if row.rate_unit() == "GiB/s" { 3 } else { 0 };
    // Writing into a String cannot fail.
    let _ = write!(out, "{:>11}", number(results::rate, rate_digits));
    let _ = write!(out, "{:>8}", ratio(results::rate));
    let _ = write!(out, "{:>14}", number(results::cpu, 4));
    let _ = write!(out, "{:>8}", ratio(results::cpu));
    for (_, figure, digits) in COLUMNS {
        let _ = write!(out, "{:>11}", number(*figure, *digits));
    }
    out.push('\n');
    out
}
