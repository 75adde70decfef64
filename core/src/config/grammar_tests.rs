//! Goal: every grammar takes what the original's loader takes, and says why it refuses the rest.
//! Method: tables of TOML values.

#![allow(clippy::unwrap_used)]

use super::super::raw::parse_value;
use super::*;

/// What a TOML value reads as under a kind, in debug form, or the reason of refusal.
#[track_caller]
fn read(kind: Kind, toml: &str) -> String {
    let raw = parse_value(toml).unwrap_or_else(|| panic!("{toml} is not TOML"));
    match kind.read(&raw, false) {
        Ok(value) => format!("{value:?}"),
        Err(why) => format!("no: {why}"),
    }
}

#[track_caller]
fn check(kind: Kind, rows: &[(&str, &str)]) {
    for (toml, want) in rows {
        assert_eq!(read(kind, toml), *want, "{toml}");
    }
}

#[test]
fn booleans_have_many_spellings() {
    check(
        Kind::Bool,
        &[
            ("true", "Bool(true)"),
            ("\"Yes\"", "Bool(true)"),
            ("1", "Bool(true)"),
            ("\"off\"", "Bool(false)"),
            ("0", "Bool(false)"),
            ("2", "no: expected boolean, found integer"),
            ("\"maybe\"", "no: \"maybe\" is not a boolean"),
            ("[]", "no: expected boolean, found list"),
        ],
    );
}

#[test]
fn whole_numbers_keep_to_their_bounds() {
    check(
        Kind::Int(1, 10),
        &[
            ("1", "Int(1)"),
            ("0xA", "Int(10)"),
            ("\" 7 \"", "Int(7)"),
            ("0", "no: 0 is less than 1"),
            ("11", "no: 11 is more than 10"),
            ("1.0", "no: expected whole number, found float"),
            ("\"x\"", "no: \"x\" is not a whole number"),
            (
                "99999999999999999999",
                "no: \"99999999999999999999\" is not a whole number",
            ),
        ],
    );
    check(
        Kind::Float(1.0),
        &[
            ("2", "Float(2.0)"),
            ("1.5", "Float(1.5)"),
            ("0.5", "no: 0.5 is less than 1"),
            ("nan", "no: value is not a finite number"),
        ],
    );
}

#[test]
fn hosts_and_ports_come_in_three_forms() {
    check(
        Kind::HostPort,
        &[
            (
                "{ host = \"h\", port = 1 }",
                "HostPort(HostPort { host: \"h\", port: 1 })",
            ),
            (
                "{ port = \"1\", host = \"\" }",
                "HostPort(HostPort { host: \"\", port: 1 })",
            ),
            (
                "\"h:65535\"",
                "HostPort(HostPort { host: \"h\", port: 65535 })",
            ),
            (
                "\"[::1]:80\"",
                "HostPort(HostPort { host: \"::1\", port: 80 })",
            ),
            ("\":80\"", "HostPort(HostPort { host: \"\", port: 80 })"),
            ("[\"h\", 1]", "HostPort(HostPort { host: \"h\", port: 1 })"),
            ("\"h\"", "no: \"h\" has no port after a colon"),
            ("\"h:0\"", "no: port: 0 is less than 1"),
            ("\"h:65536\"", "no: port: 65536 is more than 65535"),
            (
                "\"::1:80\"",
                "no: \"::1:80\": an IPv6 address needs brackets",
            ),
            ("\"[::1:80\"", "no: \"[::1:80\" has an unclosed bracket"),
            ("[\"h\"]", "no: expected host and port, found a list of 1"),
            ("{ host = \"h\" }", "no: port is missing"),
            ("{ port = 1 }", "no: host is missing"),
            (
                "{ host = \"h\", port = 1, x = 2 }",
                "no: unknown part \"x\" beside host and port",
            ),
            ("6021", "no: expected host and port, found integer"),
        ],
    );
    let port_zero = Kind::HostPort.read(&Raw::Text("127.0.0.1:0".into()), true);
    assert_eq!(
        port_zero,
        Ok(Value::HostPort(HostPort {
            host: "127.0.0.1".into(),
            port: 0
        })),
        "overrides may ask for any port"
    );
}

#[test]
fn a_list_of_hosts_has_elements_of_its_own() {
    let one = "HostPorts([HostPort { host: \"a\", port: 1 }])";
    let two = "HostPorts([HostPort { host: \"a\", port: 1 }, HostPort { host: \"b\", port: 2 }])";
    check(
        Kind::HostPorts,
        &[
            ("\"a:1\"", one),
            ("{ host = \"a\", port = 1 }", one),
            ("[\"a:1\", { host = \"b\", port = 2 }]", two),
            ("\"a:1, b:2\"", two),
            ("[\"a\", 1]", "no: \"a\" has no port after a colon"),
            ("[]", "no: the list is empty"),
        ],
    );
}

#[test]
fn durations_and_sizes_have_units() {
    check(
        Kind::Duration(1, 86_400),
        &[
            ("\"1d\"", "Duration(86400s)"),
            ("3600", "Duration(3600s)"),
            ("1.5", "Duration(1.5s)"),
            ("\"90\"", "Duration(90s)"),
            ("-1", "no: -1 is negative"),
            ("\"\"", "no: \"\": value is empty"),
            ("\"0s\"", "no: 0s is too short"),
            ("\"2d\"", "no: 172800s is too long"),
            ("nan", "no: NaN is no duration"),
            ("true", "no: expected duration, found boolean"),
        ],
    );
    check(
        Kind::Size(1024, 4096),
        &[
            ("\"2k\"", "Size(Bytes(2048))"),
            ("4096", "Size(Bytes(4096))"),
            ("\"1000\"", "no: 1000 bytes are too few"),
            ("\"5k\"", "no: the size is too large"),
            ("\"inf\"", "no: the size is too large"),
            ("-5", "no: -5 is negative"),
        ],
    );
    check(
        Kind::SizeOrUnlimited,
        &[
            ("\"100g\"", "Size(Bytes(107374182400))"),
            ("\"inf\"", "Size(Infinite)"),
            ("\"-1\"", "Size(Infinite)"),
            (
                "\"abc\"",
                "no: \"abc\": value is not a number with a known unit",
            ),
        ],
    );
    check(
        Kind::LogSize,
        &[
            ("\"10M\"", "Size(Bytes(10000000))"),
            ("\"10MiB\"", "Size(Bytes(10485760))"),
            ("0", "no: the size is zero"),
        ],
    );
}

#[test]
fn accounts_are_numbers_names_or_whoever_is_there() {
    check(
        Kind::User,
        &[
            ("-1", "Account(Current)"),
            ("\"\"", "Account(Current)"),
            ("1000", "Account(Id(1000))"),
            ("\"1000\"", "Account(Id(1000))"),
            ("\"nobody\"", "Account(Name(\"nobody\"))"),
            ("-2", "no: -2 is no id"),
            ("4294967296", "no: 4294967296 is no id"),
        ],
    );
}

#[test]
fn levels_and_words_come_from_closed_lists() {
    check(
        Kind::Level,
        &[
            ("\"info\"", "Level(Info)"),
            ("\"Loud\"", "no: \"Loud\" is not a log level"),
        ],
    );
    check(
        Kind::Levels,
        &[
            ("{ \"\" = \"WARNING\" }", "Levels({\"\": Warning})"),
            ("{ a = 1 }", "no: a: expected string, found integer"),
        ],
    );
    check(
        Kind::Choice(&["tcp", "udp"]),
        &[
            ("\"udp\"", "Text(\"udp\")"),
            ("\"TCP\"", "no: \"TCP\" is unknown"),
        ],
    );
    check(
        Kind::Choices(&["console", "file"]),
        &[
            ("[\"file\"]", "Texts([\"file\"])"),
            ("[\"x\"]", "no: \"x\" is unknown"),
        ],
    );
}
