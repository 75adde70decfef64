//! Goal: lines look like the original's, loggers keep their names, and nobody can forge a line.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use tracing::Level as Severity;

use super::line::write_line;
use super::record::Record;
use super::*;

fn record(message: &str, fields: Vec<(&'static str, Value)>) -> Record {
    Record {
        at: "2026-11-22T07:21:34.482149Z".parse().unwrap(),
        level: Severity::WARN,
        target: "storage_proxy::serve".into(),
        place: ("", 0),
        message: message.into(),
        fields,
    }
}

#[track_caller]
fn check_line(form: Form, message: &str, fields: Vec<(&'static str, Value)>, want: &str) {
    let mut line = String::new();
    write_line(&record(message, fields), form, &mut line);
    assert_eq!(line, want);
}

#[test]
fn lines_have_the_shape_of_the_original() {
    let simple = Form::Simple { colored: false };
    check_line(simple, "hello", vec![], "WARNING hello\n");
    let fields = vec![("n", json!(1)), ("who", json!("a b")), ("ok", json!(true))];
    check_line(
        simple,
        "hello",
        fields,
        "WARNING hello n=1 who=\"a b\" ok=true\n",
    );
    check_line(
        Form::Simple { colored: true },
        "x",
        vec![],
        "\u{1b}[33mWARNING\u{1b}[0m x\n",
    );
    let mut line = String::new();
    write_line(
        &record("hello", vec![]),
        Form::Verbose { colored: false },
        &mut line,
    );
    let rest = format!(
        " WARNING ai.backend.storage.serve [{}] hello\n",
        std::process::id()
    );
    // The time is local, so only its shape is known here.
    let (time, tail) = line.split_at("2026-11-22 07:21:34.482".len());
    assert!(time.ends_with(".482"), "{line}");
    assert_eq!(tail, rest);
}

#[test]
fn json_lines_keep_the_order_of_keys() {
    let fields = vec![("bytes", json!(7)), ("level", json!("forged"))];
    let want = "{\"timestamp\": \"2026-11-22T07:21:34.482149Z\", \"level\": \"WARNING\", \
                \"name\": \"ai.backend.storage.serve\", \"processName\": \"storage-proxy\", \
                \"message\": \"a\\nb\", \"bytes\": 7}\n";
    check_line(Form::Json, "a\nb", fields, want);
}

#[test]
fn control_characters_cannot_make_up_a_line() {
    let simple = Form::Simple { colored: false };
    let message = "a\nERROR b\u{1b}[31m";
    check_line(simple, message, vec![], "WARNING a\\nERROR b\\u{1b}[31m\n");
    check_line(
        simple,
        "m",
        vec![("p", json!("x\ny"))],
        "WARNING m p=x\\ny\n",
    );
}

#[test]
fn loggers_are_called_as_the_originals() {
    for (target, want) in [
        ("storage_proxy", "ai.backend.storage"),
        ("storage_proxy::serve", "ai.backend.storage.serve"),
        (
            "proxy_server::conn::head",
            "ai.backend.storage.server.conn.head",
        ),
        ("hyper::proto", "hyper.proto"),
        ("ai.backend.storage.x", "ai.backend.storage.x"),
    ] {
        assert_eq!(logger(target), want);
    }
}

#[test]
fn the_stricter_of_both_levels_counts() {
    let levels: BTreeMap<String, Level> = [
        ("", Level::Warning),
        ("ai.backend", Level::Info),
        ("ai.backend.storage.server", Level::Debug),
        ("other.lib", Level::Error),
    ]
    .map(|(name, level)| (name.to_owned(), level))
    .into();
    for (all, target, level, want) in [
        (Level::Info, "proxy_volume::vfs", Severity::INFO, true),
        (Level::Info, "proxy_volume::vfs", Severity::DEBUG, false),
        (Level::Info, "proxy_server::conn", Severity::DEBUG, false),
        (Level::Debug, "proxy_server::conn", Severity::DEBUG, true),
        (Level::Debug, "storage_proxy::serve", Severity::DEBUG, false),
        (Level::Debug, "hyper::proto", Severity::INFO, false),
        (Level::Debug, "hyper::proto", Severity::WARN, true),
        (Level::Debug, "other::lib::x", Severity::WARN, false),
        (Level::Critical, "proxy_server::conn", Severity::ERROR, true),
        (Level::Critical, "proxy_server::conn", Severity::WARN, false),
    ] {
        let found = targets(&levels, all).would_enable(target, &level);
        assert_eq!(found, want, "{all:?} {target} {level}");
    }
}
