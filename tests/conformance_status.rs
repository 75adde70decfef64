//! Goal: status, health, volumes, metrics and the token check answer as the contract says.
//! Method: tables of requests to the manager-facing and internal ports of a running program.
//!
//! Source: wire contract 1.2, 2.2, 7; manager contract 1, 2. Where ours differs from
//! upstream: `docs/semantics.md#status`.

use proxy_testkit::table::{Report, Row, Want, answers, check, row};
use proxy_testkit::{Request, Response, Server, Settings, problem};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

const STATUS: &str = r#"{"status":"ok","type":"manager-facing","storage-proxy":"<text>"}"#;
const HEALTH: &str = r#"{"status":"ok","version":"<text>","component":"storage-proxy",
    "connectivity":{"overall_healthy":true,"connectivity_checks":"<any>","timestamp":"<time>"}}"#;
const NO_BODY: Want = Want::Fixed(
    400,
    "storage/malformed-request",
    "Malformed request (request body should be empty)",
);
const UNSUPPORTED: Want = Want::Fixed(
    400,
    "storage/unsupported-operation",
    "Unsupported operation by the storage backend",
);
const NOT_FOUND: Want = Want::Text(404, "404: Not Found");
const VOLUMES: &str = r#"{"volumes":[
    {"name":"volume1","backend":"vfs","path":"<text>","fsprefix":".","capabilities":"<any>"},
    {"name":"volume2","backend":"vfs","path":"<text>","fsprefix":".","capabilities":"<any>"}]}"#;
const HARDWARE: &str = r#"{"status":"healthy","status_info":null,"metadata":{}}"#;

const ROWS: &[Row] = &[
    row("manager 1", "GET /", "", Want::Json(200, STATUS)),
    row("manager 1", "GET /status", "", Want::Json(200, STATUS)),
    row(
        "manager 1",
        "GET /status?anything=ignored",
        "",
        Want::Json(200, STATUS),
    ),
    row("manager 1", "GET /status", "{}", NO_BODY),
    row("manager 1", "GET /", r#"{"a":1}"#, NO_BODY),
    row("api 7.1", "GET /health", "", Want::Json(200, HEALTH)),
    row("api 7.1", "GET /livez", "", Want::Json(200, HEALTH)),
    row("api 7.1", "GET /readyz", "", Want::Json(200, HEALTH)),
    row("manager 2.1", "GET /volumes", "", Want::Json(200, VOLUMES)),
    row("manager 2.1", "GET /volumes", "{}", NO_BODY),
    row("manager", "GET /volumes/volume1", "", NOT_FOUND),
    row(
        "manager",
        "GET /volumes/volume1/quota-scope/user/x",
        "",
        NOT_FOUND,
    ),
    row(
        "manager 2.2",
        "GET /volume/hwinfo",
        r#"{"volume":"volume1"}"#,
        Want::Json(200, HARDWARE),
    ),
    row(
        "manager 2.2",
        "GET /volume/hwinfo",
        r#"{"volume":"noop"}"#,
        Want::Json(200, HARDWARE),
    ),
    row(
        "manager 2.2",
        "GET /volume/hwinfo",
        r#"{"volume":"@noop"}"#,
        Want::Problem("InvalidVolumeError"),
    ),
    row(
        "manager 2.3",
        "GET /volume/performance-metric",
        r#"{"volume":"volume1"}"#,
        UNSUPPORTED,
    ),
    row(
        "manager 2.4",
        "GET /volume/quota",
        r#"{"volume":"volume1"}"#,
        Want::Problem("NotImplementedAPI"),
    ),
    row(
        "manager 2.4",
        "GET /volume/quota",
        "{$here}",
        Want::Problem("NotImplementedAPI"),
    ),
    row(
        "manager 2.4",
        "PATCH /volume/quota",
        r#"{$here,"size_bytes":"1.5g"}"#,
        Want::Problem("NotImplementedAPI"),
    ),
    row("api 2.2 E6", "GET /nothing", "", NOT_FOUND),
    row("api 2.2 E6", "POST /folder", "{}", NOT_FOUND),
    row("api 2.2 E6", "GET /folder/create/", "", NOT_FOUND),
    row("api 2.2 E6", "GET //status", "", NOT_FOUND),
];

#[test]
fn the_manager_port_tells_its_state() {
    let server = Server::start(PROGRAM);
    check(&server, "status", ROWS);
    server.finish();
}

/// Every route with its methods, sorted: what `Allow` says to any other method.
const ROUTES: &[(&str, &str)] = &[
    ("/volumes", "GET"),
    ("/volume/hwinfo", "GET"),
    ("/volume/performance-metric", "GET"),
    ("/volume/quota", "GET,PATCH"),
    ("/quota-scope", "GET,PATCH,POST"),
    ("/quota-scope/quota", "DELETE"),
    ("/folder/create", "POST"),
    ("/folder/delete", "POST"),
    ("/folder/clone", "POST"),
    ("/folder/mount", "GET"),
    ("/folder/metadata", "GET,POST"),
    ("/folder/usage", "GET"),
    ("/folder/used-bytes", "GET"),
    ("/folder/fs-usage", "GET"),
    ("/folder/file/mkdir", "POST"),
    ("/folder/file/list", "POST"),
    ("/folder/file/rename", "POST"),
    ("/folder/file/move", "POST"),
    ("/folder/file/fetch", "POST"),
    ("/folder/file/download", "POST"),
    ("/folder/file/upload", "POST"),
    ("/folder/file/archive-download-token", "POST"),
    ("/folder/file/download-archive", "POST"),
    ("/folder/file/delete", "POST"),
    ("/folder/file/delete-async", "POST"),
];
/// Answered without a token, but only to GET.
const OPEN: &[&str] = &["/", "/status", "/health", "/livez", "/readyz"];

fn forbidden(response: &Response, why: &str) -> Result<(), String> {
    problem::fixed(
        response,
        403,
        "storage/forbidden",
        &format!("Forbidden ({why} auth token)"),
    )
}

#[test]
fn the_token_is_checked_before_anything_else() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    let header = "X-BackendAI-Storage-Auth-Token";
    for path in ROUTES
        .iter()
        .map(|r| r.0)
        .chain(["/nothing", "/folder", "/metrics"])
    {
        for method in ["GET", "POST", "DELETE", "PUT"] {
            let name = format!("{method} {path}");
            let plain = Request::new(method, path).json(&json!({}));
            let missing = forbidden(&plain.clone().send(server.manager()), "missing");
            report.note(&format!("{name} without a token"), missing);
            let empty = plain.clone().header(header, "").send(server.manager());
            report.note(
                &format!("{name} with an empty token"),
                forbidden(&empty, "missing"),
            );
            let wrong = plain
                .header(header, "manager-shared-secreT")
                .send(server.manager());
            report.note(
                &format!("{name} with a wrong token"),
                forbidden(&wrong, "invalid"),
            );
        }
    }
    for path in OPEN {
        let answer = Request::new("GET", path).send(server.manager());
        let open = (answer.status == 200)
            .then_some(())
            .ok_or_else(|| answer.to_string());
        report.note(&format!("GET {path} without a token"), open);
        let post = Request::new("POST", path).send(server.manager());
        report.note(
            &format!("POST {path} without a token"),
            forbidden(&post, "missing"),
        );
    }
    report.end("tokens");
    server.finish();
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    for (path, allow) in ROUTES {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            if allow.split(',').any(|m| m == method) {
                continue;
            }
            let answer = server.manager_request(method, path).send(server.manager());
            let result = answers(
                &answer,
                Want::Text(405, "405: Method Not Allowed"),
                &str::to_owned,
            )
            .and_then(|()| match answer.header("Allow") {
                Some(got) if got == *allow => Ok(()),
                got => Err(format!("Allow: {got:?}, not {allow}")),
            });
            report.note(&format!("{method} {path}"), result);
        }
    }
    report.end("methods");
    server.finish();
}

#[test]
fn the_internal_port_tells_health_and_metrics() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    for path in ["/health", "/livez", "/readyz"] {
        let answer = Request::new("GET", path).send(server.internal());
        report.note(
            path,
            answers(&answer, Want::Json(200, HEALTH), &str::to_owned),
        );
    }
    for (method, path, status) in [
        ("HEAD", "/health", 405),
        ("POST", "/health", 405),
        ("POST", "/metrics", 405),
        ("GET", "/", 404),
        ("GET", "/volumes", 404),
        ("GET", "/download", 404),
    ] {
        let answer = Request::new(method, path).send(server.internal());
        let same = (answer.status == status)
            .then_some(())
            .ok_or_else(|| answer.to_string());
        report.note(&format!("{method} {path}"), same);
    }
    let metrics = Request::new("GET", "/metrics").send(server.internal());
    report.note(
        "/metrics",
        problem::head(&metrics, 200, "text/plain; charset=utf-8"),
    );
    report.end("internal port");
    server.finish();
}

/// Labels that a dashboard made for upstream looks for: wire contract 7.2.
const SERIES: &[(&str, &[&str])] = &[
    (
        "backendai_api_request_count_total",
        &[
            r#"endpoint="/folder/file/list""#,
            r#"method="POST""#,
            r#"status_code="200""#,
        ],
    ),
    (
        "backendai_api_request_count_total",
        &[
            r#"domain="vfolder""#,
            r#"operation="read""#,
            r#"error_detail="not-found""#,
        ],
    ),
    (
        "backendai_api_request_duration_sec_bucket",
        &[r#"endpoint="/folder/file/list""#, "le="],
    ),
    ("backendai_api_request_duration_sec_sum", &[]),
    ("backendai_api_request_duration_sec_count", &[]),
    ("backendai_memory_used_rss", &[]),
    ("backendai_memory_used_vms", &[]),
    ("backendai_cpu_usage_percent", &[]),
];

#[test]
fn metrics_keep_the_names_of_upstream_and_a_closed_set_of_endpoints() {
    let settings = Settings {
        tables: "[server]\nmetrics-endpoints = \"routes\"\n".to_owned(),
        ..Settings::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let folder = proxy_testkit::Folder::full(&server);
    let other = proxy_testkit::Folder::unmade(&server);
    for vfid in [&folder.vfid, &other.vfid] {
        let body = json!({"volume": "volume1", "vfid": vfid, "relpath": ""});
        let _ = server.ask("POST", "/folder/file/list", &body);
    }
    let _ = server.ask("GET", "/scanner/wp-login-4711", &json!({}));
    let _ = Request::new("GET", "/scanner/wp-login-4712").send(server.client());
    let metrics = server.metrics();
    for (name, labels) in SERIES {
        let found = metrics
            .lines()
            .any(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        assert!(found, "no series {name} with {labels:?} in\n{metrics}");
    }
    // docs/semantics.md#metrics: upstream takes the raw path as a label (contract 10, item 19).
    assert!(!metrics.contains("wp-login"), "a raw path became a label");
    server.finish();
}
