//! Goal: a browser on any origin may ask everything and read every answer.
//! Method: preflights and requests with an `Origin`, on every resource, with good and bad ends.
//!
//! Source: client contract 1 and 5.1. Where ours differs from upstream (errors of `/upload`
//! can be read too, `Vary: Origin` is sent): `docs/semantics.md#cors`.

use proxy_testkit::table::Report;
use proxy_testkit::tus::Upload;
use proxy_testkit::{Folder, Request, Response, Server, problem};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const ORIGIN: &str = "https://ui.example:8090";

type Headers = &'static [(&'static str, &'static str)];

fn ask(server: &Server, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::new(method, target);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.send(server.client())
}

fn same(what: &str, got: Option<&str>, want: Option<&str>) -> Result<(), String> {
    if got == want {
        Ok(())
    } else {
        Err(format!("{what} is {got:?}, not {want:?}"))
    }
}

/// Preflights: headers sent, status, and text of the refusal.
type Preflight = (Headers, u16, &'static str);

const PREFLIGHTS: &[Preflight] = &[
    (
        &[],
        403,
        "CORS preflight request failed: origin header is not specified in the request",
    ),
    (
        &[("Origin", "http://ui")],
        403,
        "CORS preflight request failed: 'Access-Control-Request-Method' header is not specified",
    ),
    (
        &[
            ("Origin", "http://ui"),
            ("Access-Control-Request-Method", "GET"),
        ],
        200,
        "",
    ),
    (
        &[
            ("Origin", "null"),
            ("Access-Control-Request-Method", "POST"),
        ],
        200,
        "",
    ),
    (
        &[
            ("Origin", "https://a.b:8443"),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "x-b, Range,authorization"),
        ],
        200,
        "",
    ),
];

fn preflight_answer(answer: &Response, row: &Preflight) -> Result<(), String> {
    let (headers, status, text) = row;
    if *status == 403 {
        let head = problem::head(answer, 403, "text/plain; charset=utf-8")
            .or_else(|_| problem::head(answer, 403, "text/plain"));
        return head.and_then(|()| same("text", Some(&answer.text()), Some(text)));
    }
    let asked = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let granted = |name: &str| answer.header(&format!("Access-Control-Allow-{name}"));
    let names = asked("Access-Control-Request-Headers").map(|_| "AUTHORIZATION,RANGE,X-B");
    same("origin", granted("Origin"), asked("Origin"))?;
    same("credentials", granted("Credentials"), Some("true"))?;
    same(
        "methods",
        granted("Methods"),
        asked("Access-Control-Request-Method"),
    )?;
    same("headers", granted("Headers"), names)?;
    same("length", answer.header("Content-Length"), Some("0"))
}

#[test]
fn preflights_grant_what_is_asked() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    for path in [
        "/",
        "/download",
        "/download-archive",
        "/download?token=anything",
    ] {
        for row in PREFLIGHTS {
            let answer = ask(&server, "OPTIONS", path, row.0);
            let result = preflight_answer(&answer, row);
            report.note(
                &format!("{path} {:?}", row.0),
                result.map_err(|w| format!("{w}\n{answer}")),
            );
        }
    }
    report.end("preflights");
    server.finish();
}

/// Status, target, headers; `GOOD` and `GONE` stand for tokens of a file that is there and of
/// one that is not.
const READABLE: &[(u16, &str, Headers)] = &[
    (200, "/download?token=GOOD", &[]),
    (206, "/download?token=GOOD", &[("Range", "bytes=1-2")]),
    (416, "/download?token=GOOD", &[("Range", "bytes=200-")]),
    (412, "/download?token=GOOD", &[("If-Match", "\"x\"")]),
    (304, "/download?token=GOOD", &[("If-None-Match", "*")]),
    (404, "/download?token=GONE", &[]),
    (400, "/download?token=x", &[]),
    (400, "/download?token=GOOD&surprise=1", &[]),
    (400, "/download", &[]),
    (400, "/download-archive", &[]),
    (400, "/download-archive?token=x", &[]),
    (200, "/", &[]),
    (400, "/?x=1", &[]),
];

/// Safe without being exposed (the Fetch standard), or of no use to a page.
const SAFE: &[&str] = &[
    "content-type",
    "cache-control",
    "last-modified",
    "content-length",
    "connection",
    "vary",
    "keep-alive",
];

fn readable(answer: &Response) -> Result<(), String> {
    let list = answer
        .header("Access-Control-Expose-Headers")
        .unwrap_or_default();
    let exposed: Vec<String> = list.split(',').map(|n| n.trim().to_lowercase()).collect();
    for (name, _) in &answer.headers {
        let name = name.to_lowercase();
        let seen = SAFE.contains(&name.as_str()) || exposed.contains(&name);
        if !seen && !name.starts_with("access-control-") {
            return Err(format!("{name} is not exposed"));
        }
    }
    Ok(())
}

#[test]
fn every_answer_of_a_resource_can_be_read_across_origins() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let (good, gone) = (
        folder.download_token("hundred"),
        folder.download_token("gone"),
    );
    let mut report = Report::default();
    for (status, target, headers) in READABLE {
        let mut headers = headers.to_vec();
        headers.push(("Origin", ORIGIN));
        let target = target.replace("GOOD", &good).replace("GONE", &gone);
        let answer = ask(&server, "GET", &target, &headers);
        let vary = answer.header("Vary").unwrap_or_default().to_lowercase();
        let credentials = answer.header("Access-Control-Allow-Credentials");
        let result = same(
            "origin",
            answer.header("Access-Control-Allow-Origin"),
            Some(ORIGIN),
        )
        .and_then(|()| same("credentials", credentials, Some("true")))
        .and_then(|()| {
            vary.contains("origin")
                .then_some(())
                .ok_or("no Vary".to_owned())
        })
        .and_then(|()| {
            (answer.status == *status)
                .then_some(())
                .ok_or("status".to_owned())
        })
        .and_then(|()| readable(&answer));
        report.note(
            &format!("{status} {target:.40}"),
            result.map_err(|w| format!("{w}\n{answer}")),
        );
        let plain = ask(&server, "GET", &target, &[]);
        let none = same("origin", plain.header("Access-Control-Allow-Origin"), None);
        report.note(&format!("{target:.40} without an origin"), none);
    }
    report.end("cors");
    server.finish();
}

#[test]
fn every_answer_of_an_upload_can_be_read_across_origins() {
    // docs/semantics.md#cors: upstream leaves errors unreadable (wire contract 10, item 30).
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 10);
    let mut report = Report::default();
    let origin = |request: Request| request.header("Origin", ORIGIN).send(server.client());
    let gone = folder.upload_claims("f", 10, "00000000000000000000000000000000");
    let gone = proxy_testkit::token::mint(proxy_testkit::server::TOKEN_SECRET, &gone);
    let cases = [
        (200, origin(Request::new("OPTIONS", "/upload"))),
        (200, origin(Request::new("HEAD", &upload.target()))),
        (409, origin(upload.patch_request(5).body(b"x"))),
        (
            400,
            origin(Request::new("PATCH", &upload.target()).body(b"x")),
        ),
        (204, origin(upload.patch_request(0).body(b"0123"))),
        (400, origin(Request::new("HEAD", "/upload?token=x"))),
        (400, origin(Request::new("PATCH", "/upload").body(b""))),
        (
            404,
            origin(Request::new("HEAD", &format!("/upload?token={gone}"))),
        ),
        (
            405,
            origin(Request::new("POST", &upload.target()).body(b"x")),
        ),
    ];
    for (status, answer) in cases {
        let allowed = answer
            .header("Access-Control-Allow-Origin")
            .unwrap_or_default();
        let open = (allowed == "*" || allowed == ORIGIN).then_some(());
        let result = open
            .ok_or_else(|| format!("origin is {allowed:?}"))
            .and_then(|()| {
                (answer.status == status)
                    .then_some(())
                    .ok_or("status".to_owned())
            })
            .and_then(|()| exposes_tus(&answer));
        report.note(
            &format!("{status}"),
            result.map_err(|why| format!("{why}\n{answer}")),
        );
    }
    report.end("cors of uploads");
    server.finish();
}

fn exposes_tus(answer: &Response) -> Result<(), String> {
    let exposed = answer
        .header("Access-Control-Expose-Headers")
        .unwrap_or_default();
    for name in [
        "Tus-Resumable",
        "Upload-Length",
        "Upload-Metadata",
        "Upload-Offset",
    ] {
        if !exposed.split(',').any(|n| n.trim() == name) {
            return Err(format!("{name} is not exposed by {exposed:?}"));
        }
    }
    Ok(())
}
