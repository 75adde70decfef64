//! How one record is written.
//!
//! ```text
//! verbose   2026-11-22 07:21:34.482 INFO ai.backend.storage.serve [8341] text key=value
//! simple    INFO text key=value
//! json      {"timestamp": …, "level": …, "name": …, "processName": …, "message": …, key: value}
//! ```

use std::fmt::Write as _;

use jiff::Zoned;
use serde_json::Value;
use tracing::Level;

use super::record::Record;

/// The forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Everything, for people.
    Verbose { colored: bool },
    /// The least, for people.
    Simple { colored: bool },
    /// For programs.
    Json,
}

/// Appends one record and a newline.
pub(super) fn write_line(record: &Record, form: Form, out: &mut String) {
    match form {
        Form::Json => json(record, out),
        Form::Simple { colored } => {
            level(record.level, colored, out);
            out.push(' ');
            text(record, out);
        }
        Form::Verbose { colored } => {
            let local = Zoned::new(record.at, jiff::tz::TimeZone::system());
            out.push_str(&local.strftime("%Y-%m-%d %H:%M:%S%.3f ").to_string());
            level(record.level, colored, out);
            out.push_str(&format!(" {} [{}] ", record.name(), std::process::id()));
            text(record, out);
        }
    }
    out.push('\n');
}

/// The original's word for a level.
pub(super) const fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

fn level(level: Level, colored: bool, out: &mut String) {
    let name = level_name(level);
    let color = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG | Level::TRACE => 36,
    };
    if colored {
        out.push_str(&format!("\u{1b}[{color}m{name}\u{1b}[0m"));
    } else {
        out.push_str(name);
    }
}

/// Message and fields on one line: a client that puts a newline or an escape sequence into a file
/// name cannot make up records, or colours.
fn text(record: &Record, out: &mut String) {
    plain(&record.message, out);
    for (name, value) in &record.fields {
        out.push(' ');
        out.push_str(name);
        out.push('=');
        match value {
            Value::String(text) if text.contains([' ', '=', '"']) || text.is_empty() => {
                plain(&format!("{text:?}"), out);
            }
            Value::String(text) => plain(text, out),
            other => plain(&other.to_string(), out),
        }
    }
}

fn plain(text: &str, out: &mut String) {
    for c in text.chars() {
        // A String takes everything; the result of writing to it is no news.
        let _ = match c {
            '\t' => out.write_char(c),
            c if c.is_control() => write!(out, "{}", c.escape_default()),
            c => out.write_char(c),
        };
    }
}

fn json(record: &Record, out: &mut String) {
    let time = record.at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let first = [
        ("timestamp", Value::from(time)),
        ("level", level_name(record.level).into()),
        ("name", record.name().into()),
        ("processName", "storage-proxy".into()),
        ("message", record.message.as_str().into()),
    ];
    let taken: Vec<&str> = first.iter().map(|(name, _)| *name).collect();
    let rest = record
        .fields
        .iter()
        .filter(|(name, _)| !taken.contains(name))
        .cloned();
    out.push('{');
    for (at, (name, value)) in first.into_iter().chain(rest).enumerate() {
        out.push_str(if at == 0 { "" } else { ", " });
        out.push_str(&format!("{}: {value}", Value::from(name)));
    }
    out.push('}');
}
