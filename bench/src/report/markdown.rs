//! The page in Markdown: `docs/benchmarks.md` holds the latest full run.

use std::fmt::Write as _;

use super::{COLUMNS, machine, number, ours, remarks, times};
use crate::results::{self, Cell, Results, Row};

/// The page.
#[must_use]
pub fn page(results: &Results) -> String {
    let mut out = String::from(
        "# Benchmarks\n\n\
         The latest full run of `storage-bench`, written by it; do not edit. Every server had \
         its turns on the same files, cores and kernel, in the same minutes. Rows that lost \
         stay.\n\n\
         A ratio is ours divided by the peer's, the median over the rounds: above ×1 ours is \
         faster (rate), or needs more (CPU). CPU is user and system time of the server with all \
         its children. Latencies are those of the smallest requests of a row. \
         ARCHITECTURE.md says how it is measured.\n\n\
         | | |\n|---|---|\n",
    );
    for (title, text) in machine(results) {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "| {title} | {} |", cell_text(&text));
    }
    if results.verify {
        out.push_str("\n**Every byte was checked: the figures measure the client.**\n");
    }
    for row in &results.rows {
        out.push_str(&one(results, row));
    }
    out
}

fn one(results: &Results, row: &Row) -> String {
    let mut out = format!("\n## {}\n\n{}\n\n", row.workload.name, row.workload.about);
    let (rate, cpu) = (row.rate_unit(), row.cpu_unit());
    // Writing into a String cannot fail.
    let _ = write!(out, "| peer | {rate} | ratio | CPU {cpu} | ratio |");
    for (title, _) in COLUMNS {
        let _ = write!(out, " {title} |");
    }
    let _ = writeln!(out, "\n|---|{}", "--:|".repeat(4 + COLUMNS.len()));
    for cell in &row.cells {
        out.push_str(&line(row, cell));
    }
    for remark in remarks(results, row) {
        let _ = write!(out, "\n- {remark}");
    }
    if !remarks(results, row).is_empty() {
        out.push('\n');
    }
    out
}

fn line(row: &Row, cell: &Cell) -> String {
    let mut out = format!("| {} |", cell.peer);
    let without = cell
        .skipped
        .as_ref()
        .map(|reason| format!("skipped: {reason}"));
    let without = without.or_else(|| cell.failed.as_ref().map(|why| format!("failed: {why}")));
    if let Some(reason) = without {
        return format!(
            "{out} {} |{}\n",
            cell_text(&reason),
            " |".repeat(3 + COLUMNS.len())
        );
    }
    let ratio = |figure| {
        let other = cell.peer != ours(row);
        times(row.ratio(ours(row), &cell.peer, figure).filter(|_| other))
    };
    let median = |figure| number(row.median(&cell.peer, figure));
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        " {} | {} |",
        median(results::rate),
        ratio(results::rate)
    );
    let _ = write!(out, " {} | {} |", median(results::cpu), ratio(results::cpu));
    for (_, figure) in COLUMNS {
        let _ = write!(out, " {} |", median(*figure));
    }
    out.push('\n');
    out
}

/// One line, without what ends a cell.
fn cell_text(text: &str) -> String {
    let line: String = text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect();
    line.replace('|', "/")
}
