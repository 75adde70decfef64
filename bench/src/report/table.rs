//! The table in the terminal.

use std::fmt::Write as _;

use super::{COLUMNS, number, ours, remarks, times};
use crate::results::{self, Cell, Results, Row};

/// All rows.
#[must_use]
pub fn table(results: &Results) -> String {
    let rows = results
        .rows
        .iter()
        .map(|row| format!("{}\n", one(results, row)));
    rows.collect()
}

/// One row: a line per peer. Ratios are ours to this peer's.
#[must_use]
pub fn one(results: &Results, row: &Row) -> String {
    let mut out = format!("{}\n", row.workload.name);
    let (rate, cpu) = (row.rate_unit(), row.cpu_unit());
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "  {:<22}{rate:>9}{:>9}{:>15}{:>9}",
        "",
        "",
        format!("CPU {cpu}"),
        ""
    );
    for (title, _) in COLUMNS {
        let _ = write!(out, "{:>width$}", title, width = width(title));
    }
    out.push('\n');
    for cell in &row.cells {
        out.push_str(&line(row, cell));
    }
    for remark in remarks(results, row) {
        let _ = writeln!(out, "  {remark}");
    }
    out
}

fn width(title: &str) -> usize {
    title.len() + 3
}

fn line(row: &Row, cell: &Cell) -> String {
    let mut out = format!("  {:<22}", cell.peer);
    if let Some(reason) = &cell.skipped {
        return format!("{out}skipped: {reason}\n");
    }
    if let Some(reason) = &cell.failed {
        return format!("{out}FAILED: {reason}\n");
    }
    let ratio = |figure| {
        let other = cell.peer != ours(row);
        times(row.ratio(ours(row), &cell.peer, figure).filter(|_| other))
    };
    // Writing into a String cannot fail.
    let _ = write!(out, "{:>9}", number(row.median(&cell.peer, results::rate)));
    let _ = write!(out, "{:>9}", ratio(results::rate));
    let _ = write!(out, "{:>15}", number(row.median(&cell.peer, results::cpu)));
    let _ = write!(out, "{:>9}", ratio(results::cpu));
    for (title, figure) in COLUMNS {
        let text = number(row.median(&cell.peer, *figure));
        let _ = write!(out, "{text:>width$}", width = width(title));
    }
    out.push('\n');
    out
}
