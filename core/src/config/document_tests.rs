//! Goal: files of the original are read as they are meant, and everything wrong is said at once,
//! with key, line and way out.
//! Method: tables of small files.

#![allow(clippy::unwrap_used)]

use super::super::{show_json, show_toml};
use super::*;

#[track_caller]
fn good(text: &str) -> Document {
    parse(text, &[]).unwrap_or_else(|issues| panic!("{text}\n{}", list(&issues)))
}

fn list(issues: &[Issue]) -> String {
    issues.iter().map(|issue| format!("{issue}\n")).collect()
}

#[track_caller]
fn check_issues(text: &str, want: &[&str]) {
    let issues = parse(text, &[]).expect_err(text);
    let got: Vec<String> = issues.iter().map(Issue::to_string).collect();
    assert_eq!(got.len(), want.len(), "{text}\n{}", list(&issues));
    for (got, want) in got.iter().zip(want) {
        assert!(got.starts_with(want), "got  {got}\nwant {want}");
    }
}

#[test]
fn both_spellings_are_read_and_dashes_win() {
    for text in [
        "[storage-proxy]\nscandir-limit = 7",
        "[storage_proxy]\nscandir_limit = 7",
        "[storage-proxy]\nscandir_limit = 5\nscandir-limit = 7",
        "[storage-proxy]\nscandir-limit = 7\nscandir_limit = 5",
        "storage-proxy.scandir-limit = 7",
        "storage-proxy = { scandir_limit = 7 }",
    ] {
        assert_eq!(good(text).int("storage-proxy.scandir-limit"), 7, "{text}");
    }
    let both = good("[storage-proxy]\nscandir_limit = 5\nscandir-limit = 7");
    let note = both.notes.first().unwrap().to_string();
    assert_eq!(
        note,
        "line 2: storage-proxy.scandir_limit: also written as scandir-limit, which counts"
    );
}

#[test]
fn aliases_reach_their_keys() {
    let text = "[storage-proxy]\nauto_quota_scope_creation = false\naiomonitor-port = 50300";
    let document = good(text);
    assert!(!document.flag("storage-proxy.allow-auto-quota-scope-creation"));
    assert_eq!(document.int("storage-proxy.aiomonitor-termui-port"), 50300);
    assert!(
        !good("storage-proxy.allow_auto_quota_scope_creation = false")
            .flag("storage-proxy.allow-auto-quota-scope-creation")
    );
}

#[test]
fn unknown_keys_are_errors_with_a_suggestion() {
    check_issues(
        "[storage-proxy]\nsecert = \"x\"\n",
        &["line 2: storage-proxy.secert: unknown key; did you mean storage-proxy.secret?"],
    );
    check_issues(
        "[storage]\n[api.clent]\nx = 1",
        &[
            "line 1: storage: unknown key; did you mean storages?",
            "line 2: api.clent: unknown key; did you mean api.client?",
        ],
    );
    check_issues(
        "num-proc = 2",
        &["line 1: num-proc: unknown key; did you mean storage-proxy.num-proc?"],
    );
    check_issues(
        "[volume.a]\nbackend = \"vfs\"\npath = \"/\"\nqqqqqqqq = 1",
        &["line 4: volume.a.qqqqqqqq: unknown key"],
    );
    check_issues(
        "[[storages]]\nname = \"a\"\nendpoint = \"e\"\naccess-key = \"a\"\nsecret-key = \"s\"\n\
         region = \"r\"\nbukets = []",
        &["line 7: storages[0].bukets: unknown key; did you mean storages[0].buckets?"],
    );
}

#[test]
fn free_tables_take_anything() {
    let document = good(
        "[volume.a]\nbackend = \"vfs\"\npath = \"/\"\n[volume.a.options]\nany_thing = [1]\n\
         [service-discovery.extra-labels]\n\"x.y/z\" = \"1\"\n\
         [[service-discovery.endpoints]]\nrole = \"api\"\nscope = \"c\"\naddress = \"h\"\n\
         port = 1\nprotocol = \"http\"\nmetadata = { a = { b = 1 } }\n\
         [logging.pkg-ns]\n\"\" = \"WARNING\"\n\"a.b\" = \"info\"\n\
         [logging.handlers.x]\ny = 1",
    );
    let options = document.table("volume.*.options", &["a".into()]);
    assert_eq!(options.get("any_thing").unwrap().to_string(), "[1]");
    assert_eq!(document.levels("logging.pkg-ns").len(), 2);
}

#[test]
fn wrong_values_say_what_is_allowed() {
    check_issues(
        "[storage-proxy]\nnum-proc = 0\nsession-expire = \"soon\"\nmax-upload-size = \"abc\"\n\
         event-loop = \"UVLOOP\"\n[api]\nclient = 3\n",
        &[
            "line 2: storage-proxy.num-proc: 0 is less than 1; allowed: whole number, 1 to 4096",
            "line 3: storage-proxy.session-expire: \"soon\": value is not a number",
            "line 4: storage-proxy.max-upload-size: \"abc\": value is not a number",
            "line 5: storage-proxy.event-loop: \"UVLOOP\" is unknown; allowed: one of asyncio",
            "line 7: api.client: expected table, found integer",
        ],
    );
}

#[test]
fn what_is_not_toml_names_the_line_and_quotes_nothing() {
    let issues = parse("[api.manager]\nsecret = \"hunter2\nx = 1\n", &[]).unwrap_err();
    let text = list(&issues);
    assert!(text.starts_with("line 2: not TOML: "), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    check_issues("[a\n", &["line 1: not TOML"]);
    check_issues(
        "[debug]\nenabled = true\nenabled = true",
        &["line 3: not TOML: duplicate key"],
    );
}

#[test]
fn sections_need_their_required_keys() {
    check_issues(
        "[volume.a]\n[volume.b]\nbackend = \"vfs\"\npath = 5\n[logging.file]\npath = \"x\"",
        &[
            "line 4: volume.b.path: expected string, found integer",
            "line 1: volume.a.backend: key is missing",
            "line 1: volume.a.path: key is missing",
            "line 5: logging.file.filename: key is missing",
        ],
    );
}

#[test]
fn rules_span_keys() {
    let fleet = "key is missing, and the file has an [etcd] section";
    for (text, want) in [
        (
            "api.client.ssl-enabled = true",
            vec![
                "line 1: api.client.ssl-cert: key is missing, and ssl-enabled is on".to_owned(),
                "line 1: api.client.ssl-privkey: key is missing".to_owned(),
            ],
        ),
        (
            "logging.drivers = [\"console\", \"file\"]",
            vec!["line 1: logging.drivers: driver file needs the table [logging.file]".into()],
        ),
        (
            "[etcd]",
            vec![
                format!("storage-proxy.node-id: {fleet}"),
                format!("storage-proxy.secret: {fleet}"),
                format!("api.manager.secret: {fleet}"),
            ],
        ),
        (
            "[redis]\naddr = \"h:1\"\n[storage-proxy]\nnode-id = \"n\"\nsecret = \"s\"",
            vec!["api.manager.secret: key is missing, and the file has an [redis] section".into()],
        ),
        (
            "etcd.ssl-enabled = true\netcd.ssl-cert = \"c\"\n[storage-proxy]\nnode-id = \"n\"\n\
             secret = \"s\"\n[api.manager]\nsecret = \"m\"",
            vec![
                "line 1: etcd.ssl-ca: key is missing, and ssl-enabled is on".into(),
                "line 2: etcd.ssl-privkey: key is missing, and ssl-cert is set".into(),
            ],
        ),
        (
            "[volume.a]\nbackend = \"vsf\"\npath = \"/\"",
            vec!["line 2: volume.a.backend: \"vsf\" is no backend; allowed: vfs, noop".into()],
        ),
        (
            "[volume.noop]\nbackend = \"vfs\"\npath = \"/\"",
            vec!["volume.noop: the name noop belongs to the built-in volume".into()],
        ),
        (
            "[artifact-storages.x]\ntype = \"vfs_storage\"",
            vec!["artifact-storages.x.type: type vfs_storage needs the table".into()],
        ),
    ] {
        check_issues(text, &want.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn volumes_keep_the_order_of_the_file() {
    let document = good(
        "[volume]\n[volume.zeta]\nbackend = \"vfs\"\npath = \"z\"\n\
         [volume.\"a b\"]\nbackend = \"purestorage\"\npath = \"a\"\n",
    );
    assert_eq!(document.names("volume.*"), ["zeta", "a b"]);
    let notes: Vec<String> = document.notes.iter().map(Note::to_string).collect();
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn keys_without_effect_are_listed() {
    let document = good("[storage-proxy]\nevent-loop = \"uvloop\"\n[pyroscope]\nenabled = true");
    let notes: Vec<(NoteKind, String)> = document
        .notes
        .iter()
        .map(|note| (note.kind, note.path.clone()))
        .collect();
    assert_eq!(
        notes,
        [
            (NoteKind::NoEffect, "storage-proxy.event-loop".to_owned()),
            (NoteKind::Later, "pyroscope.enabled".to_owned())
        ]
    );
}

#[track_caller]
fn check_env(file: &str, env: &[(&str, &str)], key: &str, want: &str) {
    let overrides: Vec<Override> = env
        .iter()
        .flat_map(|(name, value)| Override::from_env(name, value))
        .collect();
    let got = match parse(file, &overrides) {
        Ok(document) => document
            .value(key, &[])
            .map_or("absent".into(), |v| format!("{v:?}")),
        Err(issues) => list(&issues).trim_end().to_owned(),
    };
    assert_eq!(got, want, "{file:?} {env:?}");
}

#[test]
fn the_environment_goes_before_the_file() {
    let etcd = "[etcd]\nuser = \"u\"\n[storage-proxy]\nnode-id = \"n\"\nsecret = \"s\"\n\
                [api.manager]\nsecret = \"m\"";
    check_env(
        etcd,
        &[("BACKEND_ETCD_USER", "")],
        "etcd.user",
        "Text(\"\")",
    );
    let addr = "HostPorts([HostPort { host: \"h\", port: 9 }])";
    check_env(etcd, &[("BACKEND_ETCD_ADDR", "h:9")], "etcd.addr", addr);
    check_env("", &[("BACKEND_ETCD_ADDR", "h:9")], "etcd.addr", addr);
    check_env(
        "",
        &[("BACKEND_NAMESPACE", "x")],
        "etcd.namespace",
        "Text(\"local\")",
    );
    check_env(
        "",
        &[("BACKEND_LOG_FILE", "/a/b.log")],
        "logging.file.path",
        "Text(\"/a\")",
    );
    check_env(
        "",
        &[("BACKEND_LOG_FILE", "b.log")],
        "logging.file.filename",
        "Text(\"b.log\")",
    );
    let file = "[logging.file]\npath = \"p\"\nfilename = \"f\"";
    let size = "Size(Bytes(3000000))";
    check_env(
        file,
        &[("BACKEND_LOG_FILE_SIZE", "3")],
        "logging.file.rotation-size",
        size,
    );
    check_env(
        file,
        &[("BACKEND_LOG_FILE_COUNT", "2")],
        "logging.file.backup-count",
        "Int(2)",
    );
    check_env(
        "",
        &[("BACKEND_LOG_FILE_COUNT", "2")],
        "logging.file.backup-count",
        "Int(5)",
    );
}

#[test]
fn one_scheme_of_variables_reaches_every_key() {
    let ranges = "STORAGE_PROXY_CONF_SERVER__LIMITS__RANGES_MAX";
    check_env("", &[(ranges, "8")], "server.limits.ranges-max", "Int(8)");
    check_env(
        "",
        &[(ranges, "0")],
        "server.limits.ranges-max",
        &format!(
            "{ranges}: server.limits.ranges-max: 0 is less than 1; allowed: whole number, 1 to \
             10000"
        ),
    );
    check_env(
        "",
        &[("STORAGE_PROXY_CONF_SERVER__LIMITS__RANGE_MAX", "8")],
        "server.limits.ranges-max",
        "STORAGE_PROXY_CONF_SERVER__LIMITS__RANGE_MAX: server.limits.range-max: unknown key; did \
         you mean server.limits.ranges-max?",
    );
    check_env(
        "",
        &[
            ("STORAGE_PROXY_CONF_LOGGING__DRIVERS", "[\"console\"]"),
            ("HOME", "/"),
        ],
        "logging.drivers",
        "Texts([\"console\"])",
    );
}

#[test]
fn overrides_can_make_a_volume() {
    let overrides = [
        Override::flag("volume.data.backend", "vfs", "--x"),
        Override::flag("volume.data.path", "/d", "--x"),
    ];
    let document = parse("", &overrides).unwrap();
    assert_eq!(document.names("volume.*"), ["data"]);
    assert!(document.has_section("volume"));
    let issues = parse("", &overrides[..1]).unwrap_err();
    assert!(
        list(&issues).starts_with("--x: volume.data.path: key is missing"),
        "{issues:?}"
    );
}

#[test]
fn redis_settings_nest_as_in_etcd() {
    for (text, want) in [
        ("", r#"{}"#),
        ("[redis]", r#"{}"#),
        (
            "redis.addr = { host = \"h\", port = 1 }",
            r#"{"addr":"h:1"}"#,
        ),
        ("redis.addr = \"[::1]:1\"", r#"{"addr":"[::1]:1"}"#),
        (
            "[redis]\nsentinel = \"a:1,b:2\"\nservice_name = \"m\"\nuse-tls = \"yes\"",
            r#"{"sentinel":"a:1,b:2","service-name":"m","use-tls":true}"#,
        ),
        (
            "[redis.override_configs.stream_lock]\naddr = \"s:2\"\n\
             request_timeout = 5",
            r#"{"override-configs":{"stream_lock":{"addr":"s:2","request-timeout":5}}}"#,
        ),
    ] {
        let fleet =
            "[storage-proxy]\nnode-id = \"n\"\nsecret = \"s\"\n[api.manager]\nsecret = \"m\"";
        let document = good(&format!("{text}\n{fleet}"));
        let got = serde_json::Value::from(document.nested("redis")).to_string();
        assert_eq!(got, want, "{text}");
    }
}

/// Every secret of this file is the word hunter, whatever the key.
const SECRETS: &str = r#"
[storage-proxy]
node-id = "n"
secret = "hunter1"
[api.manager]
secret = "hunter2"
[etcd]
user = ""
password = "hunter3"
[redis]
password = "hunter12"
[redis.override-configs.stream]
sentinel_password = "hunter13"
[volume.a]
backend = "purestorage"
path = "/"
[volume.a.options]
purity_api_token = "hunter4"
b = { netapp_password = "hunter5" }
ssl_verify = false
list = [{ api-key = "hunter6" }]
endpoint = "http://u:hunter7@h/x"
[otel]
endpoint = "http://u:hunter8@h"
[artifact-registries.r]
type = "huggingface"
huggingface = { token = "hunter9" }
[[storages]]
name = "s"
endpoint = "e"
region = "r"
access-key = "hunter10"
secret-key = "hunter11"
"#;

#[test]
fn dumps_hide_secrets() {
    let document = good(SECRETS);
    let (toml, json) = (show_toml(&document), show_json(&document).to_string());
    for dump in [&toml, &json] {
        assert!(!dump.contains("hunter"), "{dump}");
        assert!(dump.contains("***"));
    }
    assert!(toml.contains("user = \"\"  # line 8\n"), "{toml}");
    assert!(toml.contains("endpoint = \"http://***@h\""), "{toml}");
    assert!(toml.contains("ssl_verify = false"), "{toml}");
    // What is shown can be read again.
    good(&toml);
}

#[test]
fn refusals_hide_secrets() {
    let issues = parse(
        "[api.manager]\nsecret = [\"hunter\"]\n[otel]\nlog-level = \"http://a:hunter@b\"",
        &[],
    )
    .unwrap_err();
    let text = list(&issues);
    assert_eq!(issues.len(), 2, "{text}");
    assert!(!text.contains("hunter"), "{text}");
}
