//! One page that needs nothing else: charts as SVG, style inside, light and dark.

use std::fmt::Write as _;

use super::chart::{bars, escape, ratios};
use super::{COLUMNS, machine, number, ours, remarks, times};
use crate::results::{self, Cell, Results, Row};

/// The page.
#[must_use]
pub fn page(results: &Results) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>storage-bench</title>\n\
         <style>\n{}</style></head><body>\n<h1>storage-bench</h1>\n<dl>",
        include_str!("page.css")
    );
    for (title, text) in machine(results) {
        // Writing into a String cannot fail.
        let _ = write!(out, "<dt>{title}</dt><dd>{}</dd>", escape(&text));
    }
    out.push_str("</dl>\n");
    if results.verify {
        out.push_str(
            "<p class=\"failed\">Every byte was checked: the figures measure the client.</p>",
        );
    }
    out.push_str(
        "<p class=\"about\">Servers took turns on the same files and cores. A ratio is ours \
         divided by the peer's, the median over the rounds. CPU is user and system time of the \
         server with all its children; latencies are those of the smallest requests of a \
         row. Dots are single turns; the dashed line is what the machine itself can do.</p>\n",
    );
    let overview = ratios(results);
    if !overview.is_empty() {
        let _ = write!(
            out,
            "<figure><figcaption>Rate of ours divided by the peer's: right of ×1 ours is \
             faster</figcaption>{overview}</figure>"
        );
    }
    for row in &results.rows {
        out.push_str(&one(results, row));
    }
    out.push_str("</body></html>\n");
    out
}

fn one(results: &Results, row: &Row) -> String {
    let (name, about) = (escape(&row.workload.name), escape(&row.workload.about));
    let mut out = format!(
        "<section id=\"{name}\"><h2><a href=\"#{name}\">{name}</a></h2>\
         <p class=\"about\">{about}</p>\n<figure>"
    );
    let bound = results.bound(row);
    let rate = format!("{}, more is better", row.rate_unit());
    let cpu = format!("server CPU {}, less is better", row.cpu_unit());
    out.push_str(&bars(row, &rate, results::rate, bound));
    out.push_str(&bars(row, &cpu, results::cpu, None));
    out.push_str("</figure>\n<div class=\"scroll\"><table><tr><th>peer</th>");
    // Writing into a String cannot fail.
    let _ = write!(out, "<th>{}</th><th>ratio</th>", row.rate_unit());
    let _ = write!(out, "<th>CPU {}</th><th>ratio</th>", row.cpu_unit());
    for (title, _) in COLUMNS {
        let _ = write!(out, "<th>{title}</th>");
    }
    out.push_str("</tr>\n");
    for cell in &row.cells {
        out.push_str(&line(row, cell));
    }
    out.push_str("</table></div>\n<ul>");
    for remark in remarks(results, row) {
        let _ = write!(out, "<li>{}</li>", escape(&remark));
    }
    out.push_str("</ul></section>\n");
    out
}

fn line(row: &Row, cell: &Cell) -> String {
    let mut out = format!("<tr><td>{}</td>", escape(&cell.peer));
    let without = cell
        .skipped
        .as_ref()
        .map(|reason| format!("skipped: {reason}"));
    let without = without.or_else(|| cell.failed.as_ref().map(|why| format!("failed: {why}")));
    if let Some(reason) = without {
        let columns = 4 + COLUMNS.len();
        let reason = escape(&reason);
        return format!("{out}<td class=\"reason\" colspan=\"{columns}\">{reason}</td></tr>\n");
    }
    let ratio = |figure| {
        let other = cell.peer != ours(row);
        times(row.ratio(ours(row), &cell.peer, figure).filter(|_| other))
    };
    let median = |figure| number(row.median(&cell.peer, figure));
    let figures = [
        median(results::rate),
        ratio(results::rate),
        median(results::cpu),
        ratio(results::cpu),
    ];
    let rest = COLUMNS.iter().map(|(_, figure)| median(*figure));
    for text in figures.into_iter().chain(rest) {
        // Writing into a String cannot fail.
        let _ = write!(out, "<td>{text}</td>");
    }
    out.push_str("</tr>\n");
    out
}
