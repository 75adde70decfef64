//! Goal: who may ask what, and what every failure looks like before a handler is reached.
//! Method: requests without a socket against the whole router, in tables.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt;

use super::*;
use crate::TOKEN_HEADER;
use crate::testbed::{TOKEN, Testbed};

const PROBLEM: &str = "application/problem+json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

#[tokio::test]
async fn the_token_comes_before_everything_else() {
    let bed = Testbed::new().await;
    let paths = MANAGER
        .iter()
        .filter(|route| !route.open)
        .map(|route| route.path);
    for path in paths.chain(["/nothing", "/metrics", "/volumes/x"]) {
        for method in ["GET", "POST", "DELETE", "HEAD", "OPTIONS", "BREW"] {
            let call = format!("{method} {path}");
            for (token, why) in [("", "missing"), ("manager-shared-secreT", "invalid")] {
                let headers: &[(&str, &str)] = &[(TOKEN_HEADER, token)];
                let headers = if token.is_empty() { &[] } else { headers };
                let answer = bed.send(&bed.router, &call, headers, "{}").await;
                assert_eq!(answer.status, 403, "{call}");
                assert_eq!(answer.header("content-type"), PROBLEM);
                if method != "HEAD" {
                    let title = format!("Forbidden ({why} auth token)");
                    assert_eq!(answer.json()["title"], title.as_str(), "{call}");
                }
            }
        }
    }
    let answer = bed
        .send(&bed.router, "GET /volumes", &[(TOKEN_HEADER, "")], "")
        .await;
    assert_eq!(answer.json()["title"], "Forbidden (missing auth token)");
}

#[tokio::test]
async fn five_paths_answer_get_without_a_token() {
    let bed = Testbed::new().await;
    for path in ["/", "/status", "/health", "/livez", "/readyz"] {
        for (method, headers, status) in [
            ("GET", &[][..], 200),
            ("GET", &[(TOKEN_HEADER, "wrong")][..], 200),
            ("POST", &[][..], 403),
            ("HEAD", &[][..], 403),
            ("POST", &[(TOKEN_HEADER, TOKEN)][..], 405),
            ("HEAD", &[(TOKEN_HEADER, TOKEN)][..], 405),
        ] {
            let answer = bed
                .send(&bed.router, &format!("{method} {path}"), headers, "")
                .await;
            assert_eq!(answer.status, status, "{method} {path} {headers:?}");
        }
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_plain_text() {
    let bed = Testbed::new().await;
    for (call, status, allow, text) in [
        ("GET /nothing", 404, "", "404: Not Found"),
        ("GET /volumes/local", 404, "", "404: Not Found"),
        ("GET /folder/create/", 404, "", "404: Not Found"),
        ("GET //status", 404, "", "404: Not Found"),
        ("GET /metrics", 404, "", "404: Not Found"),
        ("GET /folder/create", 405, "POST", "405: Method Not Allowed"),
        (
            "PUT /quota-scope",
            405,
            "GET,PATCH,POST",
            "405: Method Not Allowed",
        ),
        (
            "POST /volume/quota",
            405,
            "GET,PATCH",
            "405: Method Not Allowed",
        ),
        ("OPTIONS /volumes", 405, "GET", "405: Method Not Allowed"),
    ] {
        let answer = bed.ask(call, "").await;
        assert_eq!(answer.status, status, "{call}");
        assert_eq!(answer.header("allow"), allow, "{call}");
        assert_eq!(answer.header("content-type"), TEXT, "{call}");
        assert_eq!(answer.text(), text, "{call}");
    }
}

#[tokio::test]
async fn bodies_are_read_whatever_method_and_type() {
    let bed = Testbed::new().await;
    let plain = &[(TOKEN_HEADER, TOKEN), ("content-type", "text/plain")][..];
    for call in ["GET /volume/hwinfo", "GET /volume/hwinfo?volume=other&x=1"] {
        let answer = bed
            .send(&bed.router, call, plain, r#"{"volume":"local"}"#)
            .await;
        assert_eq!(answer.status, 200, "{call}: {}", answer.text());
        assert_eq!(
            answer.header("content-type"),
            "application/json; charset=utf-8"
        );
    }
    let body = r#"{"volume":"local","qsid":"user:11111111-2222-3333-4444-555555555555"}"#;
    assert_eq!(bed.ask("DELETE /quota-scope/quota", body).await.status, 204);
}

#[tokio::test]
async fn bodies_that_are_no_objects_are_refused_with_a_document() {
    let bed = Testbed::new().await;
    for (body, data) in [
        ("[]", Some("value is not a dict")),
        ("null", Some("value is not a dict")),
        ("1", Some("value is not a dict")),
        ("\"x\"", Some("value is not a dict")),
        ("", None),
        ("{", None),
        ("{} {}", None),
        ("{\"volume\":}", None),
    ] {
        let answer = bed.ask("GET /volume/hwinfo", body).await;
        assert_eq!(answer.status, 400, "{body:?}");
        assert_eq!(answer.header("content-type"), PROBLEM, "{body:?}");
        let got = answer.json();
        assert_eq!(got["title"], "Invalid API parameters", "{body:?}");
        assert_eq!(got.get("error_code"), None, "{body:?}");
        assert!(
            data.is_none_or(|data| got["data"] == data),
            "{body:?}: {got}"
        );
    }
    for (body, code) in [
        ("", "api_parsing_bad-request"),
        ("{", "api_parsing_bad-request"),
        ("[]", "api_parsing_invalid-parameters"),
        ("{}", "api_parsing_invalid-parameters"),
    ] {
        let answer = bed.ask("POST /folder/file/delete-async", body).await;
        assert_eq!(answer.status, 400, "{body:?}");
        assert_eq!(answer.json()["error_code"], code, "{body:?}");
    }
}

#[tokio::test]
async fn endpoints_without_parameters_take_no_body() {
    let bed = Testbed::new().await;
    for path in ["/", "/status", "/volumes"] {
        let answer = bed.ask(&format!("GET {path}"), "{}").await;
        assert_eq!(answer.status, 400, "{path}");
        let title = "Malformed request (request body should be empty)";
        assert_eq!(answer.json()["title"], title, "{path}");
        let chunked = &[(TOKEN_HEADER, TOKEN), ("transfer-encoding", "chunked")];
        let answer = bed
            .send(&bed.router, &format!("GET {path}"), chunked, "")
            .await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(
            bed.ask(&format!("GET {path}?x=1"), "").await.status,
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_body_over_one_mebibyte_is_refused_by_size() {
    let bed = Testbed::new().await;
    let frame = r#"{"volume":""}"#.len();
    for (bytes, status) in [(1024 * 1024, 400), (1024 * 1024 + 1, 413), (3 << 20, 413)] {
        let body = format!("{{\"volume\":\"{}\"}}", "x".repeat(bytes - frame));
        let answer = bed.ask("GET /volume/hwinfo", &body).await;
        assert_eq!(answer.status, status, "{bytes}");
        if status == 413 {
            let text =
                format!("Maximum request body size 1048576 exceeded, actual body size {bytes}");
            assert_eq!(answer.text(), text);
            assert_eq!(answer.header("content-type"), TEXT);
        }
    }
}

#[tokio::test]
async fn request_identifiers_are_echoed_or_made() {
    let bed = Testbed::new().await;
    let id = "x-backendai-requestid";
    for (sent, kept) in [("abc-1", true), ("a b", false)] {
        let answer = bed
            .send(&bed.router, "GET /status", &[(id, sent)], "")
            .await;
        assert_eq!(answer.header(id) == sent, kept, "{sent:?}");
        assert!(!answer.header(id).is_empty());
    }
    assert_eq!(
        bed.send(&bed.router, "GET /x", &[], "")
            .await
            .header(id)
            .len(),
        36
    );
}

#[tokio::test]
async fn requests_are_counted_by_pattern_and_outcome() {
    let bed = Testbed::new().await;
    bed.ask("GET /scanner/4711", "").await;
    bed.ask("GET /volume/hwinfo", r#"{"volume":"local"}"#).await;
    bed.ask("GET /volume/hwinfo", r#"{"volume":"nowhere"}"#)
        .await;
    bed.ask("PUT /volume/hwinfo", "").await;
    bed.send(&bed.router, "BREW /volumes", &[], "").await;
    let page = bed
        .send(&internal_router(bed.state.clone()), "GET /metrics", &[], "")
        .await;
    assert_eq!(page.header("content-type"), TEXT);
    for (endpoint, method, status, code) in [
        (
            "unmatched",
            "GET",
            404,
            ["backendai", "generic", "internal-error"],
        ),
        ("/volume/hwinfo", "GET", 200, ["", "", ""]),
        (
            "/volume/hwinfo",
            "GET",
            400,
            ["storage", "access", "invalid-parameters"],
        ),
        (
            "/volume/hwinfo",
            "PUT",
            405,
            ["backendai", "generic", "internal-error"],
        ),
        (
            "/volumes",
            "OTHER",
            403,
            ["backendai", "generic", "internal-error"],
        ),
    ] {
        let [domain, operation, detail] = code;
        let line = format!(
            "backendai_api_request_count_total{{domain=\"{domain}\",endpoint=\"{endpoint}\",\
             error_detail=\"{detail}\",method=\"{method}\",operation=\"{operation}\",\
             status_code=\"{status}\"}} 1\n"
        );
        assert!(
            page.text().contains(&line),
            "{line}is not on\n{}",
            page.text()
        );
    }
    assert!(!page.text().contains("4711"));
}

#[tokio::test]
async fn the_internal_port_knows_four_paths() {
    let bed = Testbed::new().await;
    let router = internal_router(bed.state.clone());
    for (call, status) in [
        ("GET /health", 200),
        ("GET /livez", 200),
        ("GET /readyz", 200),
        ("GET /metrics", 200),
        ("HEAD /health", 405),
        ("POST /metrics", 405),
        ("GET /", 404),
        ("GET /volumes", 404),
    ] {
        assert_eq!(
            bed.send(&router, call, &[], "").await.status,
            status,
            "{call}"
        );
    }
}

async fn boom(_: Call) -> Outcome {
    panic!("a handler with a defect")
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_end_of_its_connection_only() {
    const BROKEN: &[Route] = routes! { GET "/boom" open => boom; };
    let bed = Testbed::new().await;
    let router =
        build(BROKEN, &bed.state).layer(from_fn_with_state(bed.state.clone(), observe::request));
    for _ in 0..2 {
        let answer = bed.send(&router, "GET /boom", &[], "").await;
        assert_eq!(answer.status, 500);
        assert_eq!(
            answer.text(),
            "500 Internal Server Error\n\nServer got itself in trouble"
        );
        assert_eq!(answer.header("connection"), "close");
    }
    assert_eq!(
        bed.state.in_flight.available_permits(),
        16,
        "the turns are given back"
    );
    assert_eq!(bed.ask("GET /status", "").await.status, 200);
}

static ENTERED: Notify = Notify::const_new();
static GO: Notify = Notify::const_new();
static FINISHED: Notify = Notify::const_new();

async fn patient(_: Call) -> Outcome {
    ENTERED.notify_one();
    GO.notified().await;
    FINISHED.notify_one();
    crate::reply::no_content()
}

#[tokio::test]
async fn a_handler_ends_its_work_without_its_client() {
    const PATIENT: &[Route] = routes! { GET "/patient" open => patient; };
    let bed = Testbed::new().await;
    let request = Request::builder()
        .uri("/patient")
        .body(Body::empty())
        .unwrap();
    let asking = tokio::spawn(build(PATIENT, &bed.state).oneshot(request));
    let bound = Duration::from_secs(20);
    tokio::time::timeout(bound, ENTERED.notified())
        .await
        .unwrap();
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    GO.notify_one();
    tokio::time::timeout(bound, FINISHED.notified())
        .await
        .unwrap();
}

#[tokio::test]
async fn status_tells_who_answers() {
    let bed = Testbed::new().await;
    let want = json!({
        "status": "ok", "type": "manager-facing", "storage-proxy": proxy_core::VERSION,
    });
    for path in ["/", "/status"] {
        assert_eq!(bed.ask(&format!("GET {path}"), "").await.json(), want);
    }
    let health: Value = bed.ask("GET /health", "").await.json();
    assert_eq!(health["component"], "storage-proxy");
    assert_eq!(health["connectivity"]["overall_healthy"], true);
    assert_eq!(health["status"], "ok", "nothing was probed yet");
}

#[tokio::test]
async fn health_shows_the_store_and_every_volume() {
    let bed = Testbed::new().await;
    bed.state.health.probe_all().await;
    for (path, status) in [("/health", "degraded"), ("/livez", "ok"), ("/readyz", "ok")] {
        let answer = bed.send(&bed.router, &format!("GET {path}"), &[], "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["status"]),
            (200, &json!(status))
        );
        let checks = &answer.json()["connectivity"]["connectivity_checks"];
        let seen: Vec<_> = checks
            .as_array()
            .unwrap()
            .iter()
            .map(|check| {
                (
                    check["component_id"].to_string(),
                    check["is_healthy"] == true,
                )
            })
            .collect();
        let want = [("embedded", true), ("local", true), ("gone", false)];
        assert_eq!(seen, want.map(|(name, well)| (format!("\"{name}\""), well)));
        let message = checks[2]["error_message"].as_str().unwrap();
        assert!(
            !message.contains(bed.dir.path().to_str().unwrap()),
            "{message}"
        );
    }
}

/// Collects what the log writes.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_failed_request_is_one_line_without_secrets() {
    let bed = Testbed::new().await;
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .json()
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(log);
    for (call, headers, body) in [
        ("GET /status?token=SECRET", &[][..], ""),
        (
            "GET /volumes?token=SECRET",
            &[(TOKEN_HEADER, "SECRET")][..],
            "",
        ),
        ("GET /SECRET", &[(TOKEN_HEADER, TOKEN)][..], ""),
        (
            "GET /volume/hwinfo",
            &[(TOKEN_HEADER, TOKEN)][..],
            r#"{"volume":"nowhere"}"#,
        ),
    ] {
        bed.send(&bed.router, call, headers, body).await;
    }
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("SECRET") && !text.contains(TOKEN), "{text}");
    let seen: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["target"] != "aiohttp::access")
        .collect();
    let seen: Vec<_> = seen
        .iter()
        .map(|line| (&line["level"], &line["fields"]))
        .map(|(level, fields)| json!([level, fields["endpoint"], fields["status"], fields["code"]]))
        .collect();
    let want = [
        json!(["WARN", "/volumes", 403, "backendai_generic_internal-error"]),
        json!(["INFO", "unmatched", 404, "backendai_generic_internal-error"]),
        json!([
            "INFO",
            "/volume/hwinfo",
            400,
            "storage_access_invalid-parameters"
        ]),
    ];
    assert_eq!(seen, want, "{text}");
}
