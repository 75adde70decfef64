//! Goal: Resumable Uploads for HTTP, interop version 8, on the same resource as tus.
//! Method: raw connections, with the draft's own examples as a guide.
//!
//! Source: draft-ietf-httpbis-resumable-upload; `docs/semantics.md#draft`.

use proxy_testkit::data::Pattern;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Connection, Folder, Request, Response, Server};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const PATTERN: Pattern = Pattern(3);
const PROBLEMS: &str = "https://iana.org/assignments/http-problem-types#";

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = Request::new(method, target).header("Upload-Draft-Interop-Version", "8");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
}

fn append(upload: &Upload, at: u64, complete: &str, bytes: &[u8]) -> Response {
    let at = at.to_string();
    let headers = [
        ("Upload-Offset", at.as_str()),
        ("Upload-Complete", complete),
        ("Content-Type", "application/partial-upload"),
    ];
    request("PATCH", &upload.target(), &headers)
        .body(bytes)
        .send(upload.to)
}

#[track_caller]
fn check_state(answer: &Response, complete: &str, at: u64) {
    assert_eq!(answer.header("Upload-Complete"), Some(complete), "{answer}");
    assert_eq!(offset(answer), at, "{answer}");
    let limit = answer.header("Upload-Limit").expect("limits");
    assert!(
        limit.contains("max-size=") && limit.contains("max-age="),
        "{limit}"
    );
}

#[track_caller]
fn check_problem(answer: &Response, status: u16, kind: &str) {
    assert_eq!(answer.status, status, "{answer}");
    let kind = format!("{PROBLEMS}{kind}");
    assert_eq!(answer.json()["type"], kind.as_str(), "{answer}");
    assert_eq!(
        answer.header("Content-Type"),
        Some("application/problem+json")
    );
}

#[test]
fn an_upload_in_several_requests() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    for method in ["POST", "PUT"] {
        let upload = Upload::begin(&server, &folder, method, 100);
        let headers = [("Upload-Complete", "?0"), ("Upload-Length", "100")];
        let create = request(method, &upload.target(), &headers).body(&PATTERN.bytes(0, 30));
        let mut open = Connection::open(server.client()).expect("open");
        open.write(&create.to_bytes()).expect("sent");
        // First the interim answer with the address, then the final one.
        let interim = open.head().expect("a head");
        assert_eq!(interim.status, 104, "{interim}");
        let at = interim.header("Location").expect("a Location").to_owned();
        assert!(interim.header("Upload-Limit").is_some(), "{interim}");
        let answer = open.answer(false).expect("an answer").expect(201);
        assert_eq!(answer.header("Location"), Some(at.as_str()));
        check_state(&answer, "?0", 30);
        drop(open);
        let head = request("HEAD", &at, &[]).send(server.client()).expect(204);
        check_state(&head, "?0", 30);
        assert_eq!(head.header("Upload-Length"), Some("100"));
        assert_eq!(head.header("Cache-Control"), Some("no-store"));
        check_state(
            &append(&upload, 30, "?0", &PATTERN.bytes(30, 20)).expect(204),
            "?0",
            50,
        );
        check_state(
            &append(&upload, 50, "?1", &PATTERN.bytes(50, 50)).expect(204),
            "?1",
            100,
        );
        let head = request("HEAD", &at, &[]).send(server.client()).expect(204);
        check_state(&head, "?1", 100);
        assert_eq!(
            std::fs::read(folder.at(method)).expect("f"),
            PATTERN.bytes(0, 100)
        );
        // The lost answer of the last request once more.
        check_state(
            &append(&upload, 50, "?1", &PATTERN.bytes(50, 50)).expect(204),
            "?1",
            100,
        );
        check_state(&append(&upload, 100, "?1", b"").expect(204), "?1", 100);
    }
    server.finish();
}

#[test]
fn an_upload_in_one_request() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 100);
    let create = request("POST", &upload.target(), &[("Upload-Complete", "?1")]);
    let mut open = Connection::open(server.client()).expect("open");
    open.write(&create.body(&PATTERN.bytes(0, 100)).to_bytes())
        .expect("sent");
    assert_eq!(open.head().expect("a head").status, 104);
    check_state(
        &open.answer(false).expect("an answer").expect(201),
        "?1",
        100,
    );
    drop(open);
    assert_eq!(
        std::fs::read(folder.at("f")).expect("f"),
        PATTERN.bytes(0, 100)
    );
    server.finish();
}

#[test]
fn what_does_not_fit_is_refused_with_the_drafts_problems() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 100);
    let answer = append(&upload, 5, "?0", b"x");
    check_problem(&answer, 409, "mismatching-upload-offset");
    assert_eq!(answer.json()["expected-offset"], 0);
    assert_eq!(answer.json()["provided-offset"], 5);
    assert_eq!(offset(&answer), 0);
    check_problem(
        &append(&upload, 0, "?1", b"x"),
        400,
        "inconsistent-upload-length",
    );
    check_problem(
        &append(&upload, 0, "?0", &[0; 101]),
        400,
        "inconsistent-upload-length",
    );
    let headers = [("Upload-Complete", "?0"), ("Upload-Length", "99")];
    let create = request("POST", &upload.target(), &headers).send(server.client());
    check_problem(&create, 400, "inconsistent-upload-length");
    for (headers, status) in [
        (
            &[("Upload-Offset", "0"), ("Upload-Complete", "?0")][..],
            415,
        ),
        (
            &[
                ("Content-Type", "application/partial-upload"),
                ("Upload-Complete", "?0"),
            ],
            400,
        ),
        (
            &[
                ("Content-Type", "application/partial-upload"),
                ("Upload-Offset", "0"),
            ],
            400,
        ),
    ] {
        let answer = request("PATCH", &upload.target(), headers).body(b"x");
        let answer = answer.send(server.client());
        assert_eq!(answer.status, status, "{headers:?}: {answer}");
    }
    assert_eq!(upload.offset(), 0);
    let _ = upload.patch(0, &PATTERN.bytes(0, 100)).expect(204);
    let answer = append(&upload, 3, "?0", b"x");
    check_problem(&answer, 400, "completed-upload");
    assert_eq!(answer.header("Upload-Complete"), Some("?1"));
    server.finish();
}

#[test]
fn an_upload_is_cancelled_and_limits_are_told_before() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 100);
    let _ = append(&upload, 0, "?0", b"x").expect(204);
    let _ = request("DELETE", &upload.target(), &[])
        .send(server.client())
        .expect(204);
    let _ = request("HEAD", &upload.target(), &[])
        .send(server.client())
        .expect(404);
    let options = request("OPTIONS", "/upload", &[])
        .send(server.client())
        .expect(200);
    assert_eq!(
        options.header("Upload-Limit"),
        Some("max-size=107374182400")
    );
    let accepted = options.header("Accept-Patch").expect("media types");
    assert!(
        accepted.contains("application/partial-upload"),
        "{accepted}"
    );
    server.finish();
}
