//! Goal: every route answers over HTTP/2 as it does over HTTP/1.1, transfers of both directions
//! keep to their windows, and clients that misuse the protocol cost nothing that stays.
//! Method: the same requests over both protocols; an independent client; frames by hand.
//!
//! Source: RFC 9113; `docs/semantics.md#http2`.

use std::time::{Duration, Instant};

use proxy_testkit::data::Pattern;
use proxy_testkit::http2::{Builder, Client, HELLO, block, frame, frames, raw};
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Connection, Folder, Request, Response, Server, Settings, wait};
use rustix::process::Signal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const MIB: u64 = 1 << 20;
const GOAWAY: u8 = 7;
const RST_STREAM: u8 = 3;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;

fn server_with(tables: &str) -> Server {
    let tables = tables.to_owned();
    let settings = Settings {
        tables,
        ..Default::default()
    };
    Server::start_with(PROGRAM, settings)
}

/// What both protocols must agree on: status, body, and the headers that are not about the
/// connection or the moment. The boundary of a multipart answer is drawn anew for each.
fn essence(answer: &Response) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !matches!(name.as_str(), "date" | "connection"))
        .collect();
    headers.sort();
    let mut body = String::from_utf8_lossy(&answer.body).into_owned();
    let boundary = headers.iter().find_map(|(_, value)| {
        value
            .split_once("boundary=")
            .map(|(_, drawn)| drawn.to_owned())
    });
    if let Some(drawn) = boundary {
        body = body.replace(&drawn, "BOUNDARY");
        for (_, value) in &mut headers {
            *value = value.replace(&drawn, "BOUNDARY");
        }
    }
    (answer.status, headers, body)
}

/// Requests without lasting effect, in words of [`Folder::full`].
fn requests(folder: &Folder, session: &Upload) -> Vec<Request> {
    let get = |target: &str| Request::new("GET", target);
    let file = format!("/download?token={}", folder.download_token("big"));
    let small = format!("/download?token={}", folder.download_token("a.txt"));
    let missing = format!("/download?token={}", folder.download_token("missing"));
    let whole = format!(
        "/download?archive=true&token={}",
        folder.download_token(".")
    );
    let upload = session.target();
    let range = |range: &str| get(&file).header("Range", range);
    vec![
        get("/"),
        get("/?x=1"),
        get("/nowhere"),
        get("/%2e%2e/download"),
        get("/download"),
        get("/download?token=x"),
        get(&missing),
        get(&small),
        get(&file),
        get(&whole),
        get(&format!("{whole}&format=tar")),
        get(&whole).header("Range", "bytes=10-40"),
        get(&file).header("Origin", "http://a.example"),
        get(&file).header("X-BackendAI-RequestID", "r-1"),
        range("bytes=0-0"),
        range("bytes=100000-200000"),
        range("bytes=-5"),
        range("bytes=1-2,5-6,900000-900009"),
        range("bytes=9999999-"),
        range("lines=1-2"),
        get(&file).header("If-None-Match", "*"),
        get(&file).header("If-Match", "\"other\""),
        Request::new("HEAD", &file),
        Request::new("HEAD", "/nowhere"),
        Request::new("POST", &file).body(b"unwanted"),
        Request::new("DELETE", "/"),
        Request::new("BREW", "/"),
        Request::new("OPTIONS", "/upload"),
        Request::new("OPTIONS", "/download")
            .header("Origin", "http://a.example")
            .header("Access-Control-Request-Method", "GET"),
        Request::new("HEAD", &upload),
        Request::new("HEAD", "/upload?token=x"),
        Request::new("PATCH", &upload).body(b"no offset"),
        Request::new("PATCH", &upload)
            .header("Upload-Offset", "7")
            .body(b"elsewhere"),
        Request::new("PATCH", &upload)
            .header("Upload-Offset", "0")
            .body(&[b'x'; 100]),
        Request::new("PATCH", &upload)
            .header("Upload-Offset", "x")
            .chunked(&[b"a", b"b"]),
    ]
}

#[test]
fn the_same_requests_get_the_same_answers() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    folder.write("big", &Pattern(1).bytes(0, MIB + 17));
    folder.write("a.txt", b"small");
    let session = Upload::begin(&server, &folder, "never", 50);
    let client = Client::open(server.client());
    for request in requests(&folder, &session) {
        let want = essence(&request.send(server.client()));
        let have = essence(&client.ask(&request).expect("an answer"));
        assert_eq!(have.0, want.0, "{request:?}");
        assert_eq!(have.1, want.1, "{request:?}");
        assert!(have.2 == want.2, "another body: {request:?}");
    }
    drop(client);
    server.finish();
}

#[test]
fn uploads_are_whole_whatever_their_framing() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let client = Client::open(server.client());
    let (size, pattern) = (20 * MIB + 3, Pattern(9));
    let bytes = pattern.bytes(0, size);
    for announced in [true, false] {
        let name = format!("f{announced}");
        let upload = Upload::begin(&server, &folder, &name, size);
        let half = size as usize / 2;
        for (at, part) in [(0, &bytes[..half]), (half as u64, &bytes[half..])] {
            let request = upload.patch_request(at);
            let request = match announced {
                true => request.body(part),
                false => request.chunked(&[part]),
            };
            let answer = client.ask(&request).expect("an answer").expect(204);
            assert_eq!(offset(&answer), at + part.len() as u64);
        }
        let have = std::fs::read(folder.at(&name)).expect("published");
        assert_eq!(
            (have.len() as u64, pattern.mismatch(0, &have)),
            (size, None)
        );
    }
    drop(client);
    server.finish();
}

#[test]
fn parts_creation_and_termination_are_there_too() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let client = Client::open(server.client());
    let (size, pattern) = (3 * MIB, Pattern(12));
    // Parts, side by side and in any order.
    let upload = Upload::begin(&server, &folder, "parts", size);
    std::thread::scope(|scope| {
        for at in [2 * MIB, 0, MIB] {
            let (client, upload) = (&client, &upload);
            scope.spawn(move || {
                let part = upload.part_request(at, &pattern.bytes(at, MIB));
                let _ = client.ask(&part).expect("an answer").expect(204);
            });
        }
    });
    let have = std::fs::read(folder.at("parts")).expect("published");
    assert_eq!(
        (have.len() as u64, pattern.mismatch(0, &have)),
        (size, None)
    );
    // tus: creation with the first bytes, then termination.
    let upload = Upload::begin(&server, &folder, "made", 100);
    let tus = |method| Request::new(method, &upload.target()).header("Tus-Resumable", "1.0.0");
    let create = tus("POST")
        .header("Upload-Length", "100")
        .header("Content-Type", "application/offset+octet-stream")
        .body(&pattern.bytes(0, 40));
    let answer = client.ask(&create).expect("an answer").expect(201);
    assert_eq!((offset(&answer), upload.offset()), (40, 40));
    let answer = client.ask(&tus("DELETE")).expect("an answer");
    let _ = answer.expect(204);
    let _ = upload.head().expect(404);
    // Resumable Uploads: the interim answer comes as one, and the final one after it.
    let upload = Upload::begin(&server, &folder, "draft", 50);
    let create = Request::new("POST", &upload.target())
        .header("Upload-Draft-Interop-Version", "8")
        .header("Upload-Complete", "?1")
        .body(&pattern.bytes(0, 50));
    let answer = client.ask(&create).expect("an answer").expect(201);
    assert!(answer.header("Location").is_some(), "{answer}");
    let have = std::fs::read(folder.at("draft")).expect("published");
    assert_eq!((have.len(), pattern.mismatch(0, &have)), (50, None));
    drop(client);
    server.finish();
}

#[test]
fn a_connection_carries_many_transfers_at_once() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let client = Client::open(server.client());
    let size = 3 * MIB;
    for number in 0..16 {
        folder.write(&format!("down{number}"), &Pattern(number).bytes(0, size));
    }
    std::thread::scope(|scope| {
        for number in 0..16 {
            let (client, folder, server) = (&client, &folder, &server);
            scope.spawn(move || {
                let token = folder.download_token(&format!("down{number}"));
                let request = Request::new("GET", &format!("/download?token={token}"));
                let answer = client.ask(&request).expect("an answer").expect(200);
                assert_eq!(answer.body.len() as u64, size);
                assert_eq!(Pattern(number).mismatch(0, &answer.body), None);
            });
            scope.spawn(move || {
                let name = format!("up{number}");
                let upload = Upload::begin(server, folder, &name, size);
                let bytes = Pattern(100 + number).bytes(0, size);
                let request = upload.patch_request(0).body(&bytes);
                let answer = client.ask(&request).expect("an answer").expect(204);
                assert_eq!(offset(&answer), size);
                assert!(std::fs::read(folder.at(&name)).expect("published") == bytes);
            });
        }
    });
    drop(client);
    server.finish();
}

#[test]
fn an_upload_that_is_cut_keeps_a_true_offset() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let (size, pattern) = (6 * MIB, Pattern(4));
    let upload = Upload::begin(&server, &folder, "f", size);
    let client = Client::open(server.client());
    let mut begun = client
        .begin(&upload.patch_request(0), false)
        .expect("begun");
    let sent = pattern.bytes(0, 4 * MIB).into();
    client.send(&mut begun.body, sent, false).expect("sent");
    drop(client);
    let at = wait::until("an offset", Duration::from_secs(20), || {
        Some(upload.offset()).filter(|at| 0 < *at)
    });
    assert!(at <= 4 * MIB, "{at}");
    let rest = upload.patch(at, &pattern.bytes(at, size - at)).expect(204);
    assert_eq!(offset(&rest), size);
    let have = std::fs::read(folder.at("f")).expect("published");
    assert_eq!(pattern.mismatch(0, &have), None);
    server.finish();
}

#[test]
fn readers_that_take_nothing_hold_little_and_are_cut() {
    let server = server_with("[server.limits]\nprogress-timeout = \"3s\"\n");
    let folder = Folder::empty(&server);
    folder.write("f", &Pattern(2).bytes(0, 32 * MIB));
    let target = format!("/download?token={}", folder.download_token("f"));
    let request = Request::new("GET", &target);
    // One connection whose windows are closed after the first bytes, and one whose socket is
    // full: nobody reads it.
    let mut settings = Builder::new();
    settings.initial_window_size(70_000);
    let lazy = Client::open_with(server.client(), &mut settings);
    let begun: Vec<_> = (0..40)
        .map(|_| lazy.begin(&request, true).expect("begun"))
        .collect();
    let heads: Vec<_> = begun
        .into_iter()
        .map(|begun| lazy.head(begun).expect("a head"))
        .collect();
    let used = proxy_testkit::server::gauge(&server.metrics(), "buffers_in_use");
    assert!(
        used <= Some(8.0),
        "{used:?} buffers for a client that takes nothing"
    );
    let quick = Client::open(server.client());
    let answer = quick.ask(&request).expect("an answer").expect(200);
    assert_eq!(Pattern(2).mismatch(0, &answer.body), None);
    for (status, mut body) in heads {
        assert_eq!(status, 200);
        wait::until("a reset", Duration::from_secs(20), || {
            lazy.rest(&mut body).is_err().then_some(())
        });
    }
    drop((lazy, quick));
    server.finish();
}

#[test]
fn a_drain_lets_streams_end_and_takes_no_new_ones() {
    let mut server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let (size, pattern) = (16 * MIB, Pattern(6));
    folder.write("f", &pattern.bytes(0, size));
    let token = folder.download_token("f");
    let request = Request::new("GET", &format!("/download?token={token}"));
    let mut client = Client::open(server.client());
    let begun = client.begin(&request, true).expect("begun");
    let (status, mut body) = client.head(begun).expect("a head");
    assert_eq!(status, 200);
    server.signal(Signal::TERM);
    let refused = wait::until("a GOAWAY", Duration::from_secs(20), || {
        client.begin(&Request::new("GET", "/"), true).err()
    });
    assert!(refused.is_go_away() || refused.is_io(), "{refused}");
    let bytes = client.rest(&mut body).expect("the whole body");
    assert_eq!(
        (bytes.len() as u64, pattern.mismatch(0, &bytes)),
        (size, None)
    );
    assert!(client.ends_within(Duration::from_secs(20)));
    assert!(server.await_end().success());
}

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    let server = server_with("[server.limits]\nidle-timeout = \"1s\"\n");
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 2);
    let mut idle = Client::open(server.client());
    let busy = Client::open(server.client());
    let begun = busy.begin(&upload.patch_request(0), false);
    let mut begun = begun.expect("begun");
    busy.send(&mut begun.body, b"a".as_slice().into(), false)
        .expect("sent");
    assert!(idle.ends_within(Duration::from_secs(20)), "kept for ever");
    busy.send(&mut begun.body, b"b".as_slice().into(), true)
        .expect("sent");
    let answer = busy.answer(begun).expect("an answer").expect(204);
    assert_eq!(offset(&answer), 2);
    drop(busy);
    server.finish();
}

fn get(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":path", "/")];
    fields.extend_from_slice(more);
    frame(HEADERS, END_HEADERS | 1, stream, &block(&fields))
}

#[test]
fn requests_that_are_malformed_are_refused_alone() {
    let server = server_with("[server.limits]\nidle-timeout = \"1s\"\n");
    let host = (":authority", "t");
    let long = "x".repeat(120);
    let table: &[(&str, &[(&str, &str)])] = &[
        ("connection", &[host, ("connection", "close")]),
        ("keep-alive", &[host, ("keep-alive", "5")]),
        (
            "transfer-encoding",
            &[host, ("transfer-encoding", "chunked")],
        ),
        ("upgrade", &[host, ("upgrade", "h2c")]),
        ("no authority", &[]),
        ("another host", &[host, ("host", "u")]),
        (
            "two lengths",
            &[host, ("content-length", "0"), ("content-length", "1")],
        ),
        ("a length without a body", &[host, ("content-length", "5")]),
        ("upper case", &[host, ("X-Y", "z")]),
        ("a pseudo field last", &[("x", "y"), host]),
        ("CRLF in a value", &[host, ("x", "a\r\nhost: u")]),
        ("NUL in a value", &[host, ("x", "a\0b")]),
        ("a colon in a name", &[host, ("x:y", &long)]),
    ];
    for (name, fields) in table {
        let bytes = [HELLO, &get(1, fields), &get(3, &[host])].concat();
        let said = frames(&raw(server.client(), &bytes).expect("closed when idle"));
        let of = |kind, stream| said.iter().any(|f| (f.0, f.2) == (kind, stream));
        let ok = |stream| {
            // 200 is the eighth entry of the static table (RFC 7541 appendix A).
            let found = said.iter().find(|f| (f.0, f.2) == (HEADERS, stream));
            found.is_some_and(|f| f.3.first() == Some(&0x88))
        };
        assert!(!ok(1), "{name} was served");
        assert!(
            of(RST_STREAM, 1) || of(HEADERS, 1) || of(GOAWAY, 0),
            "{name}: no refusal"
        );
        assert!(ok(3) || of(GOAWAY, 0), "{name}: the next request is lost");
    }
    server.finish();
}

/// What a client repeats until the server has had enough: a name, what comes first, and again.
type Flood = (&'static str, Vec<u8>, Vec<u8>);

fn floods() -> Vec<Flood> {
    let host = (":authority", "t");
    let resets = (0..2000_u32).map(|n| {
        let stream = 2 * n + 1;
        let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        [get(stream, &[host]), reset].concat()
    });
    let resets = resets.collect::<Vec<_>>().concat();
    let open = frame(HEADERS, 0, 1, &block(&[(":method", "GET"), host]));
    let endless = frame(9, 0, 1, &block(&[("x", &"y".repeat(100))])).repeat(20_000);
    let settings = frame(4, 0, 0, &[]).repeat(200_000);
    let patch = [
        (":method", "PATCH"),
        (":scheme", "http"),
        (":path", "/upload"),
        host,
    ];
    let patch = frame(HEADERS, END_HEADERS, 1, &block(&patch));
    let nothing = frame(0, 0, 1, &[]).repeat(200_000);
    vec![
        ("rapid reset", Vec::new(), resets),
        ("endless CONTINUATION", open, endless),
        ("settings", Vec::new(), settings),
        ("empty data", patch, nothing),
    ]
}

#[test]
fn floods_end_their_connection_and_nothing_else() {
    let server = server_with("[server.limits]\nidle-timeout = \"2s\"\n");
    let before = server.memory("RssAnon");
    for (name, first, repeated) in floods() {
        let bytes = [HELLO, &first, &repeated].concat();
        let begun = Instant::now();
        let said = frames(&raw(server.client(), &bytes).expect("closed"));
        assert!(begun.elapsed() < Duration::from_secs(30), "{name}");
        let answer = Request::new("GET", "/").send(server.client());
        assert_eq!(answer.status, 200, "after {name}: {} frames", said.len());
        server.assert_at_rest();
    }
    let grown = server.memory("RssAnon").saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB stay", grown >> 20);
    server.finish();
}

#[test]
fn streams_beyond_the_limit_wait_or_are_refused() {
    let server = server_with("[server.limits]\nhttp2-streams-max = 4\n");
    let client = Client::open(server.client());
    // With the first answer the client knows the limit, and holds the others back.
    let first = client.ask(&Request::new("GET", "/"));
    assert_eq!(first.expect("an answer").status, 200);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let answer = client.ask(&Request::new("GET", "/")).expect("an answer");
                assert_eq!(answer.status, 200);
            });
        }
    });
    drop(client);
    server.finish();
}

#[test]
fn what_follows_the_preface_is_never_read_as_http_1() {
    for (on, bounds) in [(true, "idle-timeout = \"1s\"\n"), (false, "")] {
        let server = server_with(&format!(
            "[server]\nhttp2 = {on}\n[server.limits]\n{bounds}"
        ));
        let folder = Folder::empty(&server);
        let victim = Upload::begin(&server, &folder, "victim", 10);
        let smuggled = victim.patch_request(0).body(b"SMUGGLED!!").to_bytes();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for cut in [16, 18, 20, preface.len()] {
            let bytes = [&preface[..cut], &smuggled].concat();
            let said = raw(server.client(), &bytes).expect("closed");
            assert_eq!(said.starts_with(b"HTTP/1.1 505 "), !on, "cut at {cut}");
            assert_eq!(victim.offset(), 0, "cut at {cut}");
        }
        let mut slow = Connection::open(server.client()).expect("a connection");
        for byte in Request::new("PUT", "/").to_bytes() {
            slow.write(&[byte]).expect("sent");
        }
        assert_eq!(slow.answer(false).expect("an answer").status, 405);
        drop(slow);
        server.finish();
    }
}
