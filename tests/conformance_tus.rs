//! Goal: the extensions of tus 1.0.0 that OPTIONS announces work on an upload token.
//! Method: sessions step by step over raw connections.
//!
//! Source: tus 1.0.0; `docs/semantics.md#tus-extensions`, `docs/semantics.md#concatenation`.

use std::time::Duration;

use proxy_testkit::data::Pattern;
use proxy_testkit::table::Report;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Folder, Request, Response, Server, problem, wait};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const PATTERN: Pattern = Pattern(9);
/// SHA-1 of `123456789`.
const NINE: &str = "sha1 98O8HYCOBHMq32eZZczDTKeuNEE=";

fn ask(server: &Server, method: &str, target: &str, headers: &[(&str, &str)]) -> Request {
    let _ = server;
    let mut request = Request::new(method, target).header("Tus-Resumable", "1.0.0");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
}

fn create(server: &Server, upload: &Upload, headers: &[(&str, &str)]) -> Response {
    ask(server, "POST", &upload.target(), headers).send(server.client())
}

fn location(answer: &Response) -> String {
    answer.header("Location").expect("a Location").to_owned()
}

fn patch(server: &Server, target: &str, at: u64, bytes: &[u8]) -> Response {
    let at = at.to_string();
    let headers = [
        ("Upload-Offset", at.as_str()),
        ("Content-Type", "application/offset+octet-stream"),
    ];
    ask(server, "PATCH", target, &headers)
        .body(bytes)
        .send(server.client())
}

fn head(server: &Server, target: &str) -> Response {
    ask(server, "HEAD", target, &[]).send(server.client())
}

#[test]
fn options_announces_the_extensions() {
    let server = Server::start(PROGRAM);
    let answer = Request::new("OPTIONS", "/upload")
        .send(server.client())
        .expect(200);
    let extensions = answer.header("Tus-Extension").expect("extensions");
    for name in [
        "creation",
        "creation-with-upload",
        "creation-defer-length",
        "concatenation",
        "checksum",
        "expiration",
        "termination",
    ] {
        assert!(extensions.split(',').any(|known| known == name), "{name}");
    }
    let algorithms = answer.header("Tus-Checksum-Algorithm");
    assert_eq!(algorithms, Some("sha1,sha256,md5,crc32c,blake3"));
    server.finish();
}

#[test]
fn an_upload_is_created_and_goes_on_at_its_location() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    for (name, headers) in [
        (
            "known",
            [
                ("Upload-Length", "100"),
                ("Upload-Metadata", "filename Zg==,x"),
            ],
        ),
        (
            "deferred",
            [("Upload-Defer-Length", "1"), ("Upload-Metadata", "a YQ==")],
        ),
    ] {
        let upload = Upload::begin(&server, &folder, name, 100);
        let answer = create(&server, &upload, &headers).expect(201);
        assert_eq!(answer.header("Tus-Resumable"), Some("1.0.0"));
        assert!(
            answer
                .header("Upload-Expires")
                .is_some_and(|date| date.ends_with(" GMT"))
        );
        let at = location(&answer);
        let metadata = head(&server, &at).expect(200);
        assert_eq!(metadata.header("Upload-Metadata"), Some(headers[1].1));
        let answer = patch(&server, &at, 0, &PATTERN.bytes(0, 40)).expect(204);
        assert!(answer.header("Upload-Expires").is_some());
        // Asking again is answered with the same upload, as far as it is.
        let again = create(&server, &upload, &headers).expect(201);
        assert_eq!((location(&again), offset(&again)), (at.clone(), 40));
        let length = [("Upload-Length", "100"), ("Upload-Offset", "40")];
        let last = ask(&server, "PATCH", &at, &length).body(&PATTERN.bytes(40, 60));
        let _ = last.send(server.client()).expect(204);
        assert_eq!(
            std::fs::read(folder.at(name)).expect(name),
            PATTERN.bytes(0, 100)
        );
    }
    server.finish();
}

#[test]
fn an_upload_is_created_with_its_first_bytes() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    for first in [1, 60, 100] {
        let name = format!("f{first}");
        let upload = Upload::begin(&server, &folder, &name, 100);
        let headers = [
            ("Upload-Length", "100"),
            ("Content-Type", "application/offset+octet-stream"),
        ];
        let request = ask(&server, "POST", &upload.target(), &headers);
        let answer = request.body(&PATTERN.bytes(0, first)).send(server.client());
        let answer = answer.expect(201);
        assert_eq!(offset(&answer), first);
        if first < 100 {
            let rest = PATTERN.bytes(first, 100 - first);
            let _ = patch(&server, &location(&answer), first, &rest).expect(204);
        }
        assert_eq!(
            std::fs::read(folder.at(&name)).expect("f"),
            PATTERN.bytes(0, 100)
        );
    }
    server.finish();
}

/// Headers of a POST that is refused, and the status.
const REFUSED: &[(&[(&str, &str)], u16)] = &[
    (&[], 405),
    (&[("Upload-Length", "99")], 400),
    (&[("Upload-Length", "x")], 400),
    (&[("Upload-Length", "-1")], 400),
    (&[("Upload-Defer-Length", "2")], 400),
    (
        &[("Upload-Length", "100"), ("Upload-Defer-Length", "1")],
        400,
    ),
    (&[("Upload-Length", "999999999999999")], 413),
    (&[("Upload-Length", "100"), ("Upload-Metadata", "a *")], 400),
    (
        &[
            ("Upload-Length", "100"),
            ("Upload-Metadata", "a YQ==,a YQ=="),
        ],
        400,
    ),
    (&[("Upload-Length", "100"), ("Upload-Concat", "whole")], 400),
    (&[("Upload-Concat", "partial")], 400),
    (
        &[("Upload-Concat", "partial"), ("Upload-Defer-Length", "1")],
        400,
    ),
    (
        &[("Upload-Concat", "partial"), ("Upload-Length", "101")],
        409,
    ),
    (&[("Upload-Concat", "final;/upload?token=x&part=0")], 400),
    (&[("Upload-Concat", "final;")], 400),
    (
        &[("Upload-Length", "100"), ("Upload-Checksum", "sha512 AAAA")],
        400,
    ),
];

#[test]
fn creations_that_do_not_fit_are_refused() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 100);
    let mut report = Report::default();
    for (headers, status) in REFUSED {
        let answer = create(&server, &upload, headers);
        let same = (answer.status == *status).then_some(());
        report.note(
            &format!("{headers:?}"),
            same.ok_or_else(|| answer.to_string()),
        );
    }
    report.end("creations");
    let other = [("Upload-Offset", "0"), ("Upload-Length", "50")];
    let answer = ask(&server, "PATCH", &upload.target(), &other).body(b"x");
    let _ = answer.send(server.client()).expect(400);
    assert_eq!(upload.offset(), 0);
    server.finish();
}

#[test]
fn checksums_are_checked_and_nothing_of_a_wrong_body_is_kept() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 18);
    let send = |at: &str, sum: &str, bytes: &[u8]| {
        let headers = [("Upload-Offset", at), ("Upload-Checksum", sum)];
        let request = ask(&server, "PATCH", &upload.target(), &headers);
        request.body(bytes).send(server.client())
    };
    let answer = send("0", NINE, b"12345678x");
    problem::typed(&answer, "UploadChecksumMismatch").expect("460");
    let answer = send("0", NINE, b"1234567890");
    problem::typed(&answer, "UploadChecksumMismatch").expect("460");
    assert_eq!(upload.offset(), 0);
    for bad in ["sha512 AAAA", "sha1", "sha1 ***", "sha1 AAAA"] {
        let _ = send("0", bad, b"123456789").expect(400);
    }
    let _ = send("0", NINE, b"123456789").expect(204);
    // A body that breaks can not be checked: nothing of it counts.
    let head = format!(
        "PATCH {} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 9\r\nContent-Length: 9\r\n\
         Upload-Checksum: {NINE}\r\n\r\n1234",
        upload.target()
    );
    let mut cut = proxy_testkit::Connection::open(server.client()).expect("open");
    cut.write(head.as_bytes()).expect("sent");
    drop(cut);
    let part = upload
        .part_request(9, b"12345678x")
        .header("Upload-Checksum", NINE);
    // The broken request may be taken up after this one, and is the newer writer then.
    let answer = wait::until(
        "the broken request is over",
        Duration::from_secs(10),
        || Some(part.send(server.client())).filter(|answer| answer.status != 409),
    );
    problem::typed(&answer, "UploadChecksumMismatch").expect("460");
    assert_eq!(upload.ranges(), [(0, 9)]);
    let part = upload
        .part_request(9, b"123456789")
        .header("Upload-Checksum", NINE);
    let _ = part.send(server.client()).expect(204);
    assert_eq!(
        std::fs::read(folder.at("f")).expect("f"),
        b"123456789123456789"
    );
    server.finish();
}

#[test]
fn a_terminated_upload_is_gone_and_may_be_created_again() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 100);
    let _ = upload.patch(0, &PATTERN.bytes(0, 40)).expect(204);
    let stalled = upload.begin_patch(40, 60, b"").expect("sent");
    let delete = || ask(&server, "DELETE", &upload.target(), &[]).send(server.client());
    let _ = delete().expect(204);
    drop(stalled);
    assert!(folder.staged().is_empty(), "{:?}", folder.staged());
    for answer in [upload.head(), upload.patch(40, b"x"), delete()] {
        assert_eq!(answer.status, 404, "{answer}");
    }
    let answer = create(&server, &upload, &[("Upload-Length", "100")]).expect(201);
    assert_eq!(offset(&answer), 0);
    let _ = upload.patch(0, &PATTERN.bytes(0, 100)).expect(204);
    // The file of a finished upload is the user's.
    let _ = delete().expect(404);
    assert_eq!(
        std::fs::read(folder.at("f")).expect("f"),
        PATTERN.bytes(0, 100)
    );
    server.finish();
}

/// Makes partial uploads of these lengths, and fills them with the bytes of these places.
fn pieces(server: &Server, upload: &Upload, cuts: &[(u64, u64)]) -> Vec<String> {
    let mut targets = Vec::new();
    for (_, length) in cuts {
        let length = length.to_string();
        let headers = [
            ("Upload-Concat", "partial"),
            ("Upload-Length", length.as_str()),
        ];
        targets.push(location(&create(server, upload, &headers).expect(201)));
    }
    for (target, (at, length)) in targets.iter().zip(cuts) {
        let half = length / 2;
        let answer = patch(server, target, 0, &PATTERN.bytes(*at, half)).expect(204);
        assert_eq!(offset(&answer), half);
        let there = head(server, target).expect(200);
        assert_eq!(offset(&there), half);
        assert_eq!(there.header("Upload-Concat"), Some("partial"));
        assert_eq!(there.header("Upload-Length"), Some(&*length.to_string()));
        let _ = patch(server, target, half + 1, b"x").expect(409);
        let rest = PATTERN.bytes(at + half, length - half);
        let answer = patch(server, target, half, &rest).expect(204);
        assert_eq!(offset(&answer), *length);
    }
    targets
}

/// Pieces in the order of their making: where each belongs, and how long it is.
const CUTS: &[(&str, &[(u64, u64)])] = &[
    ("one", &[(0, 1000)]),
    ("in order", &[(0, 250), (250, 250), (500, 250), (750, 250)]),
    ("a longer end", &[(0, 333), (333, 333), (666, 334)]),
    ("the end early", &[(0, 333), (666, 334), (333, 333)]),
    ("misplaced", &[(250, 250), (0, 250), (750, 250), (500, 250)]),
    ("uneven", &[(700, 300), (0, 100), (100, 600)]),
];

#[test]
fn pieces_become_the_file_in_the_order_that_the_client_says() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    for (name, cuts) in CUTS {
        let upload = Upload::begin(&server, &folder, name, 1000);
        let targets = pieces(&server, &upload, cuts);
        let mut order: Vec<usize> = (0..cuts.len()).collect();
        order.sort_by_key(|n| cuts[*n].0);
        let list: Vec<&str> = order.iter().map(|n| targets[*n].as_str()).collect();
        let concat = format!("final;{}", list.join(" "));
        let headers = [("Upload-Concat", concat.as_str())];
        for round in 0..2 {
            let answer = create(&server, &upload, &headers).expect(201);
            assert_eq!(offset(&answer), 1000, "{name}, round {round}");
            let bytes = std::fs::read(folder.at(name)).expect(name);
            assert_eq!(PATTERN.mismatch(0, &bytes), None, "{name}");
            assert_eq!(bytes.len(), 1000, "{name}");
        }
        assert!(
            !folder.at(".upload").exists(),
            "{name}: {:?}",
            folder.staged()
        );
    }
    server.finish();
}

#[test]
fn pieces_that_do_not_make_the_file_are_refused() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 100);
    let targets = pieces(&server, &upload, &[(0, 50), (50, 50)]);
    let length = [("Upload-Concat", "partial"), ("Upload-Length", "10")];
    let unfinished = location(&create(&server, &upload, &length).expect(201));
    let other = Upload::begin(&server, &folder, "other", 100);
    let (one, two) = (&targets[0], &targets[1]);
    let foreign = one.replace(&upload.token, &other.token);
    for list in [
        one.to_owned(),
        format!("{one} {one}"),
        format!("{one} {two} {unfinished}"),
        format!("{one} {foreign}"),
        format!("{one} /upload?part=1"),
        format!("{one} {one}9"),
    ] {
        let concat = format!("final;{list}");
        let answer = create(&server, &upload, &[("Upload-Concat", &concat)]);
        assert_eq!(answer.status, 400, "{list}: {answer}");
    }
    // A piece is no upload of its own kind.
    let part = [("Content-Range", "bytes 0-0/100")];
    let _ = ask(&server, "PUT", one, &part)
        .body(b"x")
        .send(server.client())
        .expect(400);
    // The file as a whole and in pieces do not mix.
    let answer = upload.patch(0, b"x");
    problem::typed(&answer, "UploadPartConflict").expect("409");
    problem::typed(&upload.part(0, b"x"), "UploadPartConflict").expect("409");
    let delete = |target: &str| ask(&server, "DELETE", target, &[]).send(server.client());
    let _ = delete(&unfinished).expect(204);
    let _ = head(&server, &unfinished).expect(404);
    let _ = delete(&unfinished).expect(404);
    let concat = format!("final;{one} http://elsewhere{two}");
    let _ = create(&server, &upload, &[("Upload-Concat", &concat)]).expect(201);
    let bytes = std::fs::read(folder.at("f")).expect("f");
    assert_eq!(bytes, PATTERN.bytes(0, 100));
    let whole = Upload::begin(&server, &folder, "whole", 100);
    let _ = whole.patch(0, b"x").expect(204);
    let piece = [("Upload-Concat", "partial"), ("Upload-Length", "50")];
    let answer = create(&server, &whole, &piece);
    problem::typed(&answer, "UploadPartConflict").expect("409");
    server.finish();
}
