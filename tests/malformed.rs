//! Goal: bytes that are not HTTP get a 400 or a closed connection, never a second request,
//! never a panic, and nothing stays behind: descriptors, buffers and gauges are back at the end.
//! Method: a table of raw requests, each followed by a smuggled one whose effect would be seen.
//!
//! Source: RFC 9112; `docs/semantics.md#strictness`, `docs/semantics.md#connections`.

use std::net::SocketAddr;
use std::time::Duration;

use proxy_testkit::table::Report;
use proxy_testkit::tus::Upload;
use proxy_testkit::{Connection, Folder, Request, Server, Settings, wait};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
/// Heads that never end are cut after one second, stalled transfers after two.
const LIMITS: &str = "[server.limits]\nhead-timeout = \"1s\"\nprogress-timeout = \"2s\"\n\
                      header-bytes-max = \"16k\"\nheaders-max = 50\nidle-timeout = \"5s\"\n";

fn server() -> Server {
    Server::start_with(
        PROGRAM,
        Settings {
            tables: LIMITS.to_owned(),
            ..Default::default()
        },
    )
}

/// Heads that must be refused: a name and the bytes. `T` stands for a good upload target,
/// `G` for a good download target.
const HEADS: &[(&str, &[u8])] = &[
    ("no version", b"GET /\r\nHost: t\r\n\r\n"),
    ("two words", b"GET /x\r\n\r\n"),
    ("unknown version", b"GET / HTTP/1.2\r\nHost: t\r\n\r\n"),
    ("version two", b"GET / HTTP/2.0\r\nHost: t\r\n\r\n"),
    ("version without a dot", b"GET / HTTP/11\r\nHost: t\r\n\r\n"),
    ("lower-case version", b"GET / http/1.1\r\nHost: t\r\n\r\n"),
    ("no host", b"GET / HTTP/1.1\r\n\r\n"),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (
        "blank before the colon",
        b"GET / HTTP/1.1\r\nHost : t\r\n\r\n",
    ),
    (
        "blank before the name",
        b"GET / HTTP/1.1\r\nHost: t\r\n X: y\r\n\r\n",
    ),
    (
        "folded header",
        b"GET / HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n",
    ),
    (
        "header without a colon",
        b"GET / HTTP/1.1\r\nHost: t\r\nnonsense\r\n\r\n",
    ),
    (
        "empty header name",
        b"GET / HTTP/1.1\r\nHost: t\r\n: x\r\n\r\n",
    ),
    (
        "NUL in a value",
        b"GET / HTTP/1.1\r\nHost: t\r\nX: a\0b\r\n\r\n",
    ),
    ("NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: t\r\n\r\n"),
    (
        "CR in a value",
        b"GET / HTTP/1.1\r\nHost: t\r\nX: a\rb\r\n\r\n",
    ),
    (
        "control in the method",
        b"G\x01T / HTTP/1.1\r\nHost: t\r\n\r\n",
    ),
    (
        "binary",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ),
    ("two blanks", b"GET  / HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("tab as blank", b"GET\t/\tHTTP/1.1\r\nHost: t\r\n\r\n"),
    (
        "blank in the target",
        b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n",
    ),
    (
        "header with parentheses",
        b"GET / HTTP/1.1\r\nHost: t\r\nX(y): z\r\n\r\n",
    ),
    (
        "target without a slash",
        b"GET download HTTP/1.1\r\nHost: t\r\n\r\n",
    ),
];

/// Framing of a PATCH body that must be refused: header lines, and what follows the head.
const BODIES: &[(&str, &[u8], &[u8])] = &[
    (
        "two lengths",
        b"Content-Length: 3\r\nContent-Length: 4",
        b"abcd",
    ),
    ("two lengths in one", b"Content-Length: 3, 4", b"abcd"),
    ("negative length", b"Content-Length: -1", b"abc"),
    ("signed length", b"Content-Length: +3", b"abc"),
    ("hexadecimal length", b"Content-Length: 0x3", b"abc"),
    ("length with a blank inside", b"Content-Length: 1 0", b"abc"),
    ("length that is no number", b"Content-Length: abc", b"abc"),
    (
        "length past 64 bits",
        b"Content-Length: 99999999999999999999",
        b"abc",
    ),
    ("empty length", b"Content-Length: ", b"abc"),
    (
        "length and chunks",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        b"3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "chunks and length",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "coding that is not chunked",
        b"Transfer-Encoding: gzip",
        b"abc",
    ),
    (
        "chunked not last",
        b"Transfer-Encoding: chunked, gzip",
        b"3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        b"Transfer-Encoding: chunked, chunked",
        b"3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "coding in two headers",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        b"0\r\n\r\n",
    ),
    (
        "coding with a tab",
        b"Transfer-Encoding:\x0bchunked",
        b"3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "misspelt chunked",
        b"Transfer-Encoding: xchunked",
        b"3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "blank before the colon",
        b"Transfer-Encoding : chunked",
        b"3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "chunk size that is no number",
        b"Transfer-Encoding: chunked",
        b"x\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "negative chunk size",
        b"Transfer-Encoding: chunked",
        b"-3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "chunk size with a prefix",
        b"Transfer-Encoding: chunked",
        b"0x3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "chunk size past 64 bits",
        b"Transfer-Encoding: chunked",
        b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "chunk size of many zeros",
        b"Transfer-Encoding: chunked",
        b"00000000000000000000000000000000000003\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "empty chunk size",
        b"Transfer-Encoding: chunked",
        b"\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "chunk longer than its size",
        b"Transfer-Encoding: chunked",
        b"2\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "chunk shorter than its size",
        b"Transfer-Encoding: chunked",
        b"4\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "chunk size ended by LF",
        b"Transfer-Encoding: chunked",
        b"3\nabc\r\n0\r\n\r\n",
    ),
    (
        "chunk ended by LF",
        b"Transfer-Encoding: chunked",
        b"3\r\nabc\n0\r\n\r\n",
    ),
    (
        "LF in an extension",
        b"Transfer-Encoding: chunked",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "NUL in an extension",
        b"Transfer-Encoding: chunked",
        b"3;a\0b\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "bad trailer",
        b"Transfer-Encoding: chunked",
        b"3\r\nabc\r\n0\r\nnonsense\r\n\r\n",
    ),
];

/// Does nothing good may come of it: the second request of every attempt.
fn smuggled(upload: &Upload) -> Vec<u8> {
    upload.patch_request(0).body(b"SMUGGLED!!").to_bytes()
}

/// Sends bytes; the answers that came before the end of the connection.
fn answers(to: SocketAddr, bytes: &[u8]) -> Result<Vec<u16>, String> {
    let mut connection = Connection::open(to).map_err(|err| err.to_string())?;
    // The server may close in the middle of what is sent.
    let _ = connection.write(bytes);
    let _ = connection.stream().shutdown(std::net::Shutdown::Write);
    let mut statuses = Vec::new();
    loop {
        match connection.answer(false) {
            Ok(answer) => statuses.push(answer.status),
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {
                return Err("the connection stays open".to_owned());
            }
            Err(err) if err.kind() == std::io::ErrorKind::InvalidData => {
                return Err(err.to_string());
            }
            Err(_) => return Ok(statuses),
        }
    }
}

/// One refusal at most, and the smuggled request never ran.
fn refused(to: SocketAddr, bytes: &[u8], victim: &Upload) -> Result<(), String> {
    let mut sent = bytes.to_vec();
    sent.extend(smuggled(victim));
    let statuses = answers(to, &sent)?;
    let refusal = |s: &u16| {
        matches!(
            s,
            400 | 404 | 405 | 408 | 411 | 413 | 414 | 417 | 431 | 501 | 505
        )
    };
    if 1 < statuses.len() || !statuses.iter().all(refusal) {
        return Err(format!("answers {statuses:?}"));
    }
    match victim.offset() {
        0 => Ok(()),
        at => Err(format!("the smuggled request ran: offset {at}")),
    }
}

#[test]
fn heads_that_are_not_http_are_refused() {
    let server = server();
    let folder = Folder::empty(&server);
    let victim = Upload::begin(&server, &folder, "victim", 10);
    let mut report = Report::default();
    for (name, bytes) in HEADS {
        report.note(name, refused(server.client(), bytes, &victim));
    }
    let long = |what: &str| match what {
        "a target of 20 KiB" => {
            format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "x".repeat(20 << 10))
        }
        "a header of 20 KiB" => format!(
            "GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n",
            "x".repeat(20 << 10)
        ),
        "100 headers" => format!(
            "GET / HTTP/1.1\r\nHost: t\r\n{}\r\n",
            "X: y\r\n".repeat(100)
        ),
        "a method of 1 KiB" => format!("{} / HTTP/1.1\r\nHost: t\r\n\r\n", "X".repeat(1 << 10)),
        _ => format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}", "x".repeat(1 << 20)),
    };
    for what in [
        "a target of 20 KiB",
        "a header of 20 KiB",
        "100 headers",
        "a method of 1 KiB",
        "no end",
    ] {
        let bytes = long(what);
        report.note(what, refused(server.client(), bytes.as_bytes(), &victim));
    }
    report.end("heads");
    server.finish();
}

#[test]
fn bodies_that_are_framed_in_two_ways_are_refused() {
    let server = server();
    let folder = Folder::empty(&server);
    let victim = Upload::begin(&server, &folder, "victim", 10);
    let mut report = Report::default();
    for (name, framing, body) in BODIES {
        let upload = Upload::begin(&server, &folder, "target", 3);
        let mut bytes = format!(
            "PATCH {} HTTP/1.1\r\nHost: t\r\nUpload-Offset: 0\r\n",
            upload.target()
        )
        .into_bytes();
        bytes.extend_from_slice(framing);
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(body);
        report.note(name, refused(server.client(), &bytes, &victim));
    }
    report.end("framing");
    server.finish();
}

#[test]
fn a_request_without_use_for_a_body_does_not_take_the_next_one_for_it() {
    let server = server();
    let folder = Folder::full(&server);
    let target = format!("/download?token={}", folder.download_token("a.txt"));
    let second = Request::new("GET", &target).header("Range", "bytes=1-2");
    let mut report = Report::default();
    for (name, first) in [
        (
            "GET with a length",
            Request::new("GET", "/").body(b"0123456789"),
        ),
        (
            "GET with chunks",
            Request::new("GET", "/").chunked(&[b"0123", b"456789"]),
        ),
        (
            "OPTIONS with a length",
            Request::new("OPTIONS", "/upload").body(b"0123456789"),
        ),
        (
            "404 with a length",
            Request::new("GET", "/nothing").body(b"0123456789"),
        ),
        (
            "405 with a length",
            Request::new("POST", "/download").body(b"0123456789"),
        ),
        (
            "bad token with a length",
            Request::new("PATCH", "/upload?token=x").body(b"0123456789"),
        ),
        (
            "HEAD with a length",
            Request::new("HEAD", "/upload?token=x").body(b"0123456789"),
        ),
    ] {
        let is_head = name.starts_with("HEAD");
        let mut connection = Connection::open(server.client()).expect("a connection");
        let mut bytes = first.to_bytes();
        bytes.extend(second.to_bytes());
        connection.write(&bytes).expect("sent");
        let one = connection.answer(is_head).expect("an answer");
        // Read over the body and go on, or close: nothing else.
        let result = match connection.answer(false) {
            Ok(two) if two.status == 206 && two.body == b"el" => Ok(()),
            Ok(two) => Err(format!("{one}\nthen\n{two}")),
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => Err("silence".to_owned()),
            Err(_) => Ok(()),
        };
        report.note(name, result);
    }
    report.end("unused bodies");
    server.finish();
}

#[test]
fn bodies_shorter_than_announced_leave_true_offsets() {
    let server = server();
    let folder = Folder::empty(&server);
    for sent in [0, 1, 100, 70_000] {
        let upload = Upload::begin(&server, &folder, "f", 100_000);
        let mut connection = upload
            .begin_patch(0, 100_000, &vec![7; sent])
            .expect("sent");
        let _ = connection.stream().shutdown(std::net::Shutdown::Write);
        let said = String::from_utf8_lossy(&connection.until_closed()).into_owned();
        assert!(!said.contains(" 204 "), "{said}");
        let at = wait::until("an offset", Duration::from_secs(10), || {
            Some(upload.offset())
        });
        assert!(at <= sent as u64);
        let _ = upload
            .patch(at, &vec![7; 100_000 - at as usize])
            .expect(204);
        assert_eq!(std::fs::read(folder.at("f")).expect("f"), vec![7; 100_000]);
    }
    server.finish();
}

#[test]
fn slow_and_silent_clients_are_cut() {
    let server = server();
    let folder = Folder::empty(&server);
    let big = proxy_testkit::data::Pattern(1).bytes(0, 64 << 20);
    folder.write("big", &big);
    let upload = Upload::begin(&server, &folder, "f", 1000);
    let bound = Duration::from_secs(30);
    let mut half = Connection::open(server.client()).expect("a connection");
    half.write(b"GET / HTTP/1.1\r\nHost: t\r\nX-Slow:")
        .expect("sent");
    let mut silent = Connection::open(server.client()).expect("a connection");
    let mut stalled = upload.begin_patch(0, 1000, b"abc").expect("sent");
    let mut reader = Connection::open(server.client()).expect("a connection");
    let target = format!("/download?token={}", folder.download_token("big"));
    reader
        .write(&Request::new("GET", &target).to_bytes())
        .expect("sent");
    assert_eq!(reader.head().expect("a head").status, 200);
    wait::until("all four are cut", bound, || {
        let open = proxy_testkit::server::gauge(&server.metrics(), "connections");
        (open == Some(0.0)).then_some(())
    });
    let said = String::from_utf8_lossy(&half.until_closed()).into_owned();
    assert!(
        said.is_empty() || said.contains(" 408 ") || said.contains(" 400 "),
        "{said}"
    );
    assert!(silent.until_closed().is_empty());
    let said = String::from_utf8_lossy(&stalled.until_closed()).into_owned();
    assert!(!said.contains(" 204 "), "{said}");
    let rest = reader.until_closed();
    assert!(
        rest.len() < 64 << 20,
        "the reader that did not read was cut"
    );
    let at = upload.offset();
    assert!(at == 0 || at == 3, "{at}");
    server.finish();
}

#[test]
fn a_client_that_trickles_its_head_gets_no_extra_time() {
    let server = server();
    let mut connection = Connection::open(server.client()).expect("a connection");
    let start = std::time::Instant::now();
    let cut = wait::within(Duration::from_secs(20), || {
        let _ = connection.write(b"X");
        connection
            .is_closed_within(Duration::from_millis(100))
            .then_some(())
    });
    assert!(cut.is_some(), "still open after {:?}", start.elapsed());
    server.finish();
}

#[test]
fn the_manager_and_internal_ports_take_no_second_request_either() {
    let server = server();
    let mut report = Report::default();
    for (port, to) in [
        ("manager", server.manager()),
        ("internal", server.internal()),
    ] {
        for (name, bytes) in HEADS {
            // A library answers here: what counts is that nothing succeeds twice.
            let mut sent = bytes.to_vec();
            sent.extend_from_slice(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
            let result = answers(to, &sent).and_then(|statuses| {
                match statuses.iter().filter(|s| **s == 200).count() {
                    0 => Ok(()),
                    1 if LENIENT.contains(name) => Ok(()),
                    _ => Err(format!("answers {statuses:?}")),
                }
            });
            report.note(&format!("{port}: {name}"), result);
        }
    }
    report.end("other ports");
    server.finish();
}

/// Right by a lenient reading: the request is answered and the next one too.
const LENIENT: &[&str] = &["no host", "two hosts", "target without a slash"];

#[test]
fn nothing_is_left_of_a_thousand_bad_clients() {
    let server = server();
    let folder = Folder::empty(&server);
    let _ = Request::new("GET", "/").send(server.client());
    server.assert_at_rest();
    let before = server.descriptors();
    let mut random = proxy_testkit::data::Random::printed("bad clients");
    for _ in 0..1000 {
        let mut connection = Connection::open(server.client()).expect("a connection");
        let junk: Vec<u8> = match random.below(4) {
            0 => (0..random.below(2000))
                .map(|_| random.draw() as u8)
                .collect(),
            1 => random.pick(HEADS).1.to_vec(),
            2 => {
                let whole = Request::new("GET", "/download?token=x").to_bytes();
                whole[..random.below(whole.len() as u64) as usize].to_vec()
            }
            _ => {
                let mut bytes = Request::new("PATCH", "/upload?token=x")
                    .body(&[0; 500])
                    .to_bytes();
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.draw() as u8;
                bytes
            }
        };
        let _ = connection.write(&junk);
        if random.below(2) == 0 {
            let _ = connection.stream().shutdown(std::net::Shutdown::Write);
        }
    }
    server.assert_at_rest();
    let back = wait::within(Duration::from_secs(20), || {
        (server.descriptors() <= before + 2).then_some(())
    });
    assert!(
        back.is_some(),
        "{before} before, now {:#?}",
        server.open_files()
    );
    let upload = Upload::begin(&server, &folder, "f", 3);
    let _ = upload.patch(0, b"abc").expect(204);
    server.finish();
}
