//! Charts as SVG: bars with their values, and the ratios of a whole run on one scale.

use std::fmt::Write as _;

use super::{number, ours, times};
use crate::results::{self, Figure, Results, Row};

/// Width of all charts, in user units.
const WIDTH: f64 = 760.0;
/// Room for names at the left.
const NAMES: f64 = 190.0;
/// Room for values at the right.
const VALUES: f64 = 150.0;
/// Height of a line.
const LINE: f64 = 26.0;

/// Bars of one figure, one per peer; dots are the turns. `bound` is drawn as a line.
#[must_use]
pub fn bars(row: &Row, title: &str, figure: Figure, bound: Option<f64>) -> String {
    let names = row.cells.iter().map(|cell| cell.peer.as_str());
    let peers: Vec<&str> = names.filter(|peer| row.cell(peer).is_some()).collect();
    let values = peers.iter().flat_map(|peer| turns(row, peer, figure));
    let largest = values.chain(bound).fold(0.0, f64::max);
    if largest <= 0.0 {
        return String::new();
    }
    let scale = (WIDTH - NAMES - VALUES) / largest;
    let height = LINE * (peers.len() as f64 + 1.0);
    let mut out = open(height, title);
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "<text class=\"title\" x=\"0\" y=\"16\">{}</text>",
        escape(title)
    );
    for (index, peer) in peers.iter().enumerate() {
        out.push_str(&bar(row, peer, figure, scale, LINE * (index as f64 + 1.0)));
    }
    if let Some(bound) = bound {
        let x = NAMES + bound * scale;
        let _ = write!(
            out,
            "<line class=\"bound\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"20\" y2=\"{height:.1}\"/>\
             <text class=\"small\" x=\"{:.1}\" y=\"16\">machine {}</text>",
            x + 4.0,
            number(Some(bound))
        );
    }
    out.push_str("</svg>\n");
    out
}

fn turns(row: &Row, peer: &str, figure: Figure) -> Vec<f64> {
    let turns = row.cell(peer).map_or(&[][..], |cell| &cell.turns);
    let values = turns.iter().map(|turn| figure(row, turn));
    values.filter(|value| value.is_finite()).collect()
}

/// Name, bar, dots and value of one peer.
fn bar(row: &Row, peer: &str, figure: Figure, scale: f64, y: f64) -> String {
    let value = row.median(peer, figure).unwrap_or(0.0);
    let is_ours = peer == ours(row);
    let ratio = row.ratio(ours(row), peer, figure).filter(|_| !is_ours);
    let class = if is_ours { "bar ours" } else { "bar" };
    let (end, text_y) = (NAMES - 8.0, y + 15.0);
    let width = (value * scale).max(1.0);
    let mut out = format!(
        "<text class=\"name\" x=\"{end:.1}\" y=\"{text_y:.1}\">{}</text>\
         <rect class=\"{class}\" x=\"{NAMES}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"16\"/>",
        escape(peer),
        y + 3.0,
    );
    let turns = turns(row, peer, figure);
    let widest = turns.iter().copied().fold(value, f64::max);
    for turn in turns {
        let (x, y) = (NAMES + turn * scale, y + 11.0);
        // Writing into a String cannot fail.
        let _ = write!(
            out,
            "<circle class=\"turn\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/>"
        );
    }
    let mark = ratio.map_or(String::new(), |ratio| {
        format!(
            "<tspan class=\"ratio\" dx=\"7\">{}</tspan>",
            times(Some(ratio))
        )
    });
    let x = NAMES + widest * scale + 7.0;
    let value = number(Some(value));
    let _ = write!(
        out,
        "<text class=\"value\" x=\"{x:.1}\" y=\"{text_y:.1}\">{value}{mark}</text>"
    );
    out
}

/// All ratios of rates on one logarithmic scale: right of the line ours is faster.
#[must_use]
pub fn ratios(results: &Results) -> String {
    let mut points: Vec<(String, f64)> = Vec::new();
    for row in &results.rows {
        for cell in row.cells.iter().skip(1) {
            let ratio = row.ratio(ours(row), &cell.peer, results::rate);
            if let Some(ratio) = ratio.filter(|ratio| *ratio > 0.0) {
                points.push((format!("{} · {}", row.workload.name, cell.peer), ratio));
            }
        }
    }
    if points.is_empty() {
        return String::new();
    }
    let names = 330.0;
    let logs = || points.iter().map(|(_, ratio)| ratio.log10());
    let (low, high) = (logs().fold(-0.31, f64::min), logs().fold(0.31, f64::max));
    let place = |ratio: f64| names + (ratio.log10() - low) / (high - low) * (WIDTH - names - 70.0);
    let line = 20.0;
    let height = line * (points.len() as f64 + 1.5);
    let mut out = open(height, "Rate of ours divided by the peer's, logarithmic");
    for mark in [0.01, 0.1, 0.5, 1.0, 2.0, 10.0, 100.0, 1000.0] {
        let inside = (low..=high).contains(&f64::log10(mark));
        let class = if mark == 1.0 { "even" } else { "grid" };
        if inside {
            let x = place(mark);
            // Writing into a String cannot fail.
            let _ = write!(
                out,
                "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"20\" y2=\"{height:.1}\"/>\
                 <text class=\"axis\" x=\"{x:.1}\" y=\"14\">×{mark}</text>"
            );
        }
    }
    for (index, (name, ratio)) in points.iter().enumerate() {
        let y = line * (index as f64 + 1.5);
        let class = if *ratio < 1.0 { "point lost" } else { "point" };
        let x = place(*ratio);
        let _ = write!(
            out,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            names - 10.0,
            y + 4.0,
            escape(name),
            x + 9.0,
            y + 4.0,
            number(Some(*ratio))
        );
    }
    out.push_str("</svg>\n");
    out
}

fn open(height: f64, title: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    )
}

/// Text that stands in HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
