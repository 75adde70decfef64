//! Goal: `/upload` speaks tus 1.0.0 as the contract says, and loses nothing it acknowledged.
//! Method: sessions step by step over raw connections, with every way to do it wrong.
//!
//! Source: client contract 5. Where ours differs from upstream: `docs/semantics.md#offset`,
//! `docs/semantics.md#overlong`, `docs/semantics.md#finished`, `docs/semantics.md#writers`.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proxy_testkit::data::Pattern;
use proxy_testkit::http::escape;
use proxy_testkit::server::TOKEN_SECRET;
use proxy_testkit::table::Report;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{
    Connection, Folder, Request, Response, Server, Settings, problem, token, wait,
};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const UNKNOWN: &str = "00000000000000000000000000000000";
const BOUND: Duration = Duration::from_secs(20);

/// The same on OPTIONS, HEAD and PATCH: client contract 5.1.
const ALLOWED: &str = "Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset, Content-Type";

fn assert_tus(answer: &Response, at: u64, size: u64) {
    assert_eq!(answer.header("Tus-Resumable"), Some("1.0.0"), "{answer}");
    assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{answer}");
    assert_eq!(offset(answer), at, "{answer}");
    assert_eq!(
        answer.header("Upload-Length"),
        Some(&*size.to_string()),
        "{answer}"
    );
    assert_eq!(answer.header("Content-Type"), None, "{answer}");
    assert_eq!(
        answer.header("Access-Control-Allow-Headers"),
        Some(ALLOWED),
        "{answer}"
    );
    assert_eq!(
        answer.header("Access-Control-Allow-Methods"),
        Some("*"),
        "{answer}"
    );
    assert_eq!(
        answer.header("Access-Control-Allow-Origin"),
        Some("*"),
        "{answer}"
    );
}

#[test]
fn options_tells_the_protocol_and_the_limit() {
    let server = Server::start(PROGRAM);
    for target in ["/upload", "/upload?token=anything&surprise=1"] {
        let answer = Request::new("OPTIONS", target)
            .send(server.client())
            .expect(200);
        assert_eq!(answer.header("Tus-Version"), Some("1.0.0"));
        assert_eq!(answer.header("Tus-Resumable"), Some("1.0.0"));
        assert_eq!(answer.header("Tus-Max-Size"), Some("107374182400"));
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(answer.header("Content-Length"), Some("0"));
        assert_eq!(answer.header("Access-Control-Allow-Headers"), Some(ALLOWED));
    }
    server.finish();
}

#[test]
fn a_file_arrives_in_one_request_or_in_many() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    for (name, size, step) in [
        ("one", 1, 1),
        ("small", 5000, 5000),
        ("bytes", 7, 1),
        ("steps", 3_000_000, 700_001),
        ("deep/er/한글 \"q\" 'x'", 100_000, 65_536),
        ("d1/x.txt", 300, 299),
        ("in_dir/through a link", 10, 10),
    ] {
        let upload = Upload::begin(&server, &folder, name, size);
        let pattern = Pattern(size);
        assert_tus(&upload.head().expect(200), 0, size);
        let mut at = 0;
        while at < size {
            let n = step.min(size - at);
            let answer = upload.patch(at, &pattern.bytes(at, n)).expect(204);
            at += n;
            assert_tus(&answer, at, size);
            assert!(
                answer.header("Content-Length").is_none_or(|v| v == "0"),
                "{answer}"
            );
        }
        let bytes = std::fs::read(folder.at(name)).expect(name);
        assert_eq!(bytes.len() as u64, size);
        assert_eq!(pattern.mismatch(0, &bytes), None, "{name}");
        let mode = std::fs::metadata(folder.at(name))
            .expect(name)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        assert!(
            !folder.at(".upload").exists(),
            "the staging directory goes with the last"
        );
    }
    assert!(folder.at("d1/through a link").is_file());
    server.finish();
}

#[test]
fn destination_directories_come_from_the_query_of_the_last_patch() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let upload = Upload::begin(&server, &folder, "f", 2);
    let target = format!("{}&dst_dir={}", upload.target(), escape("d1/새"));
    let head = Request::new("HEAD", &target).send(server.client());
    assert_tus(&head, 0, 2);
    let patch = Request::new("PATCH", &target)
        .header("Upload-Offset", "0")
        .body(b"ab");
    assert_tus(&patch.send(server.client()).expect(204), 2, 2);
    assert_eq!(std::fs::read(folder.at("d1/새/f")).expect("f"), b"ab");
    assert!(!folder.at("f").exists());
    for (name, dst_dir) in [("empty-dst", ""), ("dot-dst", ".")] {
        let upload = Upload::begin(&server, &folder, name, 1);
        let target = format!("{}&dst_dir={dst_dir}", upload.target());
        let patch = Request::new("PATCH", &target)
            .header("Upload-Offset", "0")
            .body(b"a");
        let _ = patch.send(server.client()).expect(204);
        assert_eq!(std::fs::read(folder.at(name)).expect(name), b"a");
    }
    server.finish();
}

/// Values of `Upload-Offset` at offset 3 of 10: `None` is no header. 204 where Python's `int`
/// reads a 3, 409 where it reads another number, 400 where it reads none.
const OFFSETS: &[(Option<&str>, u16)] = &[
    (None, 400),
    (Some(""), 400),
    (Some("x"), 400),
    (Some("3.0"), 400),
    (Some("0x3"), 400),
    (Some("3 3"), 400),
    (Some("2"), 409),
    (Some("4"), 409),
    (Some("0"), 409),
    (Some("10"), 409),
    (Some("-1"), 409),
    (Some("99999999999999999999999"), 409),
    (Some("3"), 204),
    (Some("+3"), 204),
    (Some(" 3 "), 204),
    (Some("03"), 204),
];

#[test]
fn the_offset_of_a_patch_must_be_the_true_one() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let mut report = Report::default();
    for (value, status) in OFFSETS {
        let upload = Upload::begin(&server, &folder, "f", 10);
        let _ = upload.patch(0, b"abc").expect(204);
        let mut request = Request::new("PATCH", &upload.target());
        if let Some(value) = value {
            request = request.header("Upload-Offset", value);
        }
        let answer = request.body(b"de").send(server.client());
        let after = if *status == 204 { 5 } else { 3 };
        let result = match status {
            204 => (answer.status == 204)
                .then_some(())
                .ok_or("not taken".to_owned()),
            409 => problem::typed(&answer, "UploadOffsetMismatchError"),
            _ => problem::typed(&answer, "InvalidAPIParameters"),
        };
        let result = result.and_then(|()| match upload.offset() {
            at if at == after => Ok(()),
            at => Err(format!("HEAD says {at}, not {after}")),
        });
        report.note(
            &format!("{value:?}"),
            result.map_err(|why| format!("{why}\n{answer}")),
        );
    }
    report.end("offsets");
    server.finish();
}

/// Failures before the offset counts: how the token or query is spoilt, and what comes.
type Failure = (&'static str, fn(&Response) -> Result<(), String>);

const FAILURES: &[Failure] = &[
    ("unknown session", |r| {
        problem::typed(r, "TusSessionNotFoundError")
    }),
    ("unknown volume", |r| {
        problem::typed(r, "InvalidVolumeError")
    }),
    ("no folder", |r| {
        problem::typed(r, "TusSessionNotFoundError")
    }),
    ("unknown parameter", |r| problem::fields(r, &["surprise"])),
    ("no token", |r| problem::fields(r, &["token"])),
];

#[test]
fn a_session_that_is_not_there_is_told_so() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let missing = Folder::unmade(&server);
    let mut report = Report::default();
    for (name, check) in FAILURES {
        let mut claims = folder.upload_claims("f", 3, UNKNOWN);
        match *name {
            "unknown volume" => claims["volume"] = json!("nowhere"),
            "no folder" => claims["vfid"] = json!(missing.vfid),
            _ => {}
        }
        let token = token::mint(TOKEN_SECRET, &claims);
        let target = match *name {
            "no token" => "/upload".to_owned(),
            "unknown parameter" => format!("/upload?token={token}&surprise=1"),
            _ => format!("/upload?token={token}"),
        };
        let patch = Request::new("PATCH", &target)
            .header("Upload-Offset", "0")
            .body(b"abc");
        let answer = patch.send(server.client());
        report.note(
            &format!("PATCH {name}"),
            check(&answer).map_err(|w| format!("{w}\n{answer}")),
        );
        let head = Request::new("HEAD", &target).send(server.client());
        let same = head.status == answer.status && head.body.is_empty();
        report.note(
            &format!("HEAD {name}"),
            same.then_some(()).ok_or_else(|| head.to_string()),
        );
    }
    report.end("missing sessions");
    assert!(!missing.path.exists());
    server.finish();
}

#[test]
fn an_empty_patch_moves_nothing() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 4);
    assert_tus(&upload.patch(0, b"").expect(204), 0, 4);
    // Without Content-Length and without chunks there is no body either.
    let bare = upload.patch_request(0).send(server.client()).expect(204);
    assert_tus(&bare, 0, 4);
    assert_tus(
        &upload
            .patch_request(0)
            .chunked(&[])
            .send(server.client())
            .expect(204),
        0,
        4,
    );
    let _ = upload.patch(0, b"abcd").expect(204);
    assert_eq!(std::fs::read(folder.at("f")).expect("f"), b"abcd");
    server.finish();
}

#[test]
fn chunked_bodies_and_100_continue_work() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 10);
    let chunked = upload.patch_request(0).chunked(&[b"a", b"bcd", b"ef"]);
    assert_tus(&chunked.send(server.client()).expect(204), 6, 10);
    let mut connection = Connection::open(server.client()).expect("a connection");
    let head = format!(
        "PATCH {} HTTP/1.1\r\nHost: t\r\nUpload-Offset: 6\r\nContent-Length: 4\r\n\
         Expect: 100-continue\r\n\r\n",
        upload.target()
    );
    connection.write(head.as_bytes()).expect("sent");
    let interim = connection.head().expect("an interim answer");
    assert_eq!(interim.status, 100, "{interim}");
    connection.write(b"ghij").expect("sent");
    assert_tus(
        &connection.answer(false).expect("an answer").expect(204),
        10,
        10,
    );
    assert_eq!(std::fs::read(folder.at("f")).expect("f"), b"abcdefghij");
    drop(connection);
    // A refusal needs no body: it comes instead of the 100.
    let refused = head.replace("Upload-Offset: 6", "Upload-Offset: 1");
    let mut connection = Connection::open(server.client()).expect("a connection");
    connection.write(refused.as_bytes()).expect("sent");
    let answer = connection.head().expect("an answer");
    assert!(answer.status == 409 || answer.status == 100, "{answer}");
    drop(connection);
    server.finish();
}

#[test]
fn more_bytes_than_announced_are_refused_and_not_stored() {
    // docs/semantics.md#overlong: upstream stores them (wire contract 10, item 23).
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let long = Pattern(1).bytes(0, 300_000);
    for chunked in [false, true] {
        let upload = Upload::begin(&server, &folder, "f", 10);
        let _ = upload.patch(0, b"abc").expect(204);
        let request = upload.patch_request(3);
        let request = if chunked {
            request.chunked(&[&long])
        } else {
            request.body(&long)
        };
        let answer = request.send(server.client());
        assert_eq!(answer.status, 400, "{answer}");
        let head = upload.head().expect(200);
        let at = offset(&head);
        assert!((3..=10).contains(&at), "{head}");
        if at < 10 {
            assert!(!folder.at("f").exists());
            let rest = Pattern(2).bytes(0, 10 - at);
            let _ = upload.patch(at, &rest).expect(204);
        }
        assert_eq!(std::fs::metadata(folder.at("f")).expect("f").len(), 10);
        std::fs::remove_file(folder.at("f")).expect("removed");
    }
    server.finish();
}

#[test]
fn bytes_of_a_broken_patch_are_kept_and_told() {
    // docs/semantics.md#offset: upstream drops them (wire contract 10, item 21).
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let (size, part) = (8 << 20, 5 << 20);
    let pattern = Pattern(5);
    let upload = Upload::begin(&server, &folder, "f", size);
    let connection = upload
        .begin_patch(0, size, &pattern.bytes(0, part))
        .expect("sent");
    drop(connection);
    let at = wait::until("the offset is committed", BOUND, || {
        Some(upload.offset()).filter(|at| 0 < *at)
    });
    assert!(at <= part, "{at}");
    let staged = std::fs::read(folder.at(".upload").join(&folder.staged()[0])).expect("staged");
    assert_eq!(
        pattern.mismatch(0, &staged[..at as usize]),
        None,
        "HEAD tells the truth"
    );
    assert!(!folder.at("f").exists());
    let _ = upload.patch(at, &pattern.bytes(at, size - at)).expect(204);
    let whole = std::fs::read(folder.at("f")).expect("f");
    assert_eq!(
        (whole.len() as u64, pattern.mismatch(0, &whole)),
        (size, None)
    );
    server.finish();
}

#[test]
fn a_lost_last_answer_is_given_again() {
    // docs/semantics.md#finished: upstream says 404 (wire contract 10, item 22).
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 6);
    let _ = upload.patch(0, b"abc").expect(204);
    let _ = upload.patch(3, b"def").expect(204);
    assert_tus(&upload.head().expect(200), 6, 6);
    assert_tus(&upload.patch(3, b"def").expect(204), 6, 6);
    assert_tus(&upload.patch(6, b"").expect(204), 6, 6);
    let early = upload.patch(0, b"abc");
    assert_eq!(early.status, 409, "{early}");
    // The user may do with the file what they like: the answers never touch it again.
    std::fs::write(folder.at("f"), b"edited").expect("edited");
    assert_tus(&upload.patch(3, b"def").expect(204), 6, 6);
    assert_eq!(std::fs::read(folder.at("f")).expect("f"), b"edited");
    server.finish();
}

#[test]
fn a_finished_upload_is_remembered_over_a_restart() {
    let mut server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let mut upload = Upload::begin(&server, &folder, "f", 3);
    let mut open = Upload::begin(&server, &folder, "g", 4);
    let _ = upload.patch(0, b"abc").expect(204);
    let _ = open.patch(0, b"ab").expect(204);
    assert!(server.stop().success());
    server.restart();
    (upload.to, open.to) = (server.client(), server.client());
    assert_tus(&upload.head().expect(200), 3, 3);
    assert_tus(&upload.patch(0, b"abc").expect(204), 3, 3);
    assert_tus(&open.head().expect(200), 2, 4);
    assert_tus(&open.patch(2, b"cd").expect(204), 4, 4);
    assert_eq!(std::fs::read(folder.at("g")).expect("g"), b"abcd");
    server.finish();
}

/// Places where an upload cannot end: relpath in the token, `dst_dir`, expected status.
const NOWHERE: &[(&str, Option<&str>)] = &[
    ("../x", None),
    ("f", Some("..")),
    ("f", Some("/etc")),
    ("f", Some("d1/../..")),
    ("f", Some("out_dir")),
    ("out_dir/f", None),
    ("f", Some(".upload")),
    (".upload/f", None),
    (".", None),
    ("d1", None),
    ("a.txt/f", None),
    ("f", Some("a.txt")),
    ("f", Some("loop")),
];

#[test]
fn an_upload_that_cannot_end_is_refused_and_changes_nothing() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    for (relpath, dst_dir) in NOWHERE {
        let folder = Folder::full(&server);
        folder.write(&format!(".upload/{UNKNOWN}"), b"");
        let before = proxy_testkit::folder::picture(&folder.path);
        let outside = proxy_testkit::folder::picture(&server.outside());
        let token = token::mint(TOKEN_SECRET, &folder.upload_claims(relpath, 3, UNKNOWN));
        let query = dst_dir
            .map(|d| format!("&dst_dir={}", escape(d)))
            .unwrap_or_default();
        let patch = Request::new("PATCH", &format!("/upload?token={token}{query}"));
        let answer = patch
            .header("Upload-Offset", "0")
            .body(b"abc")
            .send(server.client());
        let result = (400..500).contains(&answer.status).then_some(());
        let result = result.ok_or_else(|| "status".to_owned()).and_then(|()| {
            proxy_testkit::table::contained(&server, &answer, &outside)?;
            std::fs::write(folder.at(".upload").join(UNKNOWN), b"").ok();
            let now = proxy_testkit::folder::picture(&folder.path);
            if now == before {
                Ok(())
            } else {
                Err(format!("changed to\n{now}"))
            }
        });
        let name = format!("{relpath:?} in {dst_dir:?}");
        report.note(&name, result.map_err(|why| format!("{why}\n{answer}")));
    }
    report.end("nowhere");
    server.finish();
}

#[test]
fn a_failed_ending_can_be_repaired() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 3);
    std::fs::create_dir(folder.at("f")).expect("a directory in the way");
    let answer = upload.patch(0, b"abc");
    assert!((400..600).contains(&answer.status), "{answer}");
    std::fs::remove_dir(folder.at("f")).expect("out of the way");
    let at = upload.offset();
    let rest = &b"abc"[at as usize..];
    let _ = upload.patch(at, rest).expect(204);
    assert_eq!(std::fs::read(folder.at("f")).expect("f"), b"abc");
    server.finish();
}

#[test]
fn a_newer_patch_ends_a_stalled_older_one() {
    // docs/semantics.md#writers: upstream answers 409 for as long as the lease lives.
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let pattern = Pattern(11);
    let size = 1 << 20;
    let upload = Upload::begin(&server, &folder, "f", size);
    let mut stalled = upload
        .begin_patch(0, size, &pattern.bytes(0, 100_000))
        .expect("sent");
    let mut at = wait::until("the newer one is let in", BOUND, || {
        let at = upload.offset();
        let answer = upload.patch(at, &pattern.bytes(at, 1000));
        match answer.status {
            204 => Some(offset(&answer)),
            409 => None,
            _ => panic!("{answer}"),
        }
    });
    let ended = stalled.until_closed();
    assert!(
        !String::from_utf8_lossy(&ended).contains(" 204 "),
        "the older one was not completed"
    );
    while at < size {
        at = offset(
            &upload
                .patch(at, &pattern.bytes(at, (size - at).min(400_000)))
                .expect(204),
        );
    }
    let whole = std::fs::read(folder.at("f")).expect("f");
    assert_eq!(
        (whole.len() as u64, pattern.mismatch(0, &whole)),
        (size, None)
    );
    server.finish();
}

#[test]
fn two_writers_never_mix_their_bytes() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let pattern = Pattern(13);
    let size: u64 = 6 << 20;
    let upload = Upload::begin(&server, &folder, "f", size);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| write_until_done(&upload, pattern, size));
        }
    });
    let whole = std::fs::read(folder.at("f")).expect("f");
    assert_eq!(
        (whole.len() as u64, pattern.mismatch(0, &whole)),
        (size, None)
    );
    assert!(!folder.at(".upload").exists());
    server.finish();
}

/// Goes on from wherever HEAD says, until the upload is complete; conflicts are expected.
fn write_until_done(upload: &Upload, pattern: Pattern, size: u64) {
    for _ in 0..2000 {
        let at = upload.offset();
        if at == size {
            return;
        }
        let bytes = pattern.bytes(at, (size - at).min(256 << 10));
        // The connection of a writer that lost may be cut: that is no failure here.
        let sent = Connection::open(upload.to)
            .and_then(|mut c| c.ask(&upload.patch_request(at).body(&bytes)));
        if let Ok(answer) = sent {
            assert!(matches!(answer.status, 204 | 409), "{answer}");
        }
    }
    panic!("no end after 2000 rounds");
}

#[test]
fn many_sessions_of_one_folder_do_not_disturb_each_other() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (server, folder) = (&server, &folder);
            scope.spawn(move || {
                for n in 0..25u64 {
                    let name = format!("t{thread}/f{n}");
                    let upload = Upload::begin(server, folder, &name, 1000);
                    let bytes = Pattern(thread * 100 + n).bytes(0, 1000);
                    let _ = upload.patch(0, &bytes[..400]).expect(204);
                    let _ = upload.patch(400, &bytes[400..]).expect(204);
                    assert_eq!(std::fs::read(folder.at(&name)).expect("there"), bytes);
                }
            });
        }
    });
    assert!(!folder.at(".upload").exists());
    server.finish();
}

#[test]
fn abandoned_sessions_are_collected_and_running_ones_are_not() {
    // docs/semantics.md#collection: upstream keeps them for ever (wire contract 10, item 26).
    let tables = "[server.uploads]\ncollect-interval = \"1s\"\ncollect-grace = \"0s\"\n";
    let settings = Settings {
        tables: tables.to_owned(),
        ..Default::default()
    };
    let mut server = Server::start_with(PROGRAM, settings);
    let folder = Folder::empty(&server);
    let mut kept = Upload::begin(&server, &folder, "kept", 4);
    let _ = kept.patch(0, b"ab").expect(204);
    let kept_name = folder.staged();
    assert!(server.stop().success());
    server.settings().session_expire = "1s".to_owned();
    server.restart();
    for n in 0..3 {
        let upload = Upload::begin(&server, &folder, &format!("f{n}"), 10);
        let _ = upload.patch(0, b"abc");
    }
    assert_eq!(folder.staged().len(), 4);
    wait::until(
        "only the running one is left",
        Duration::from_secs(60),
        || (folder.staged() == kept_name).then_some(()),
    );
    kept.to = server.client();
    let _ = kept.patch(2, b"cd").expect(204);
    assert_eq!(std::fs::read(folder.at("kept")).expect("kept"), b"abcd");
    server.finish();
}

/// The token makes the file; `dst_dir` comes later and moves it, once.
#[test]
fn an_empty_file_goes_where_its_first_request_says() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 0);
    assert!(folder.at("f").exists(), "docs/semantics.md#empty");
    for _ in 0..2 {
        let target = format!("{}&dst_dir=sub/deep", upload.target());
        let patch = Request::new("PATCH", &target).header("Upload-Offset", "0");
        assert_tus(&patch.send(server.client()).expect(204), 0, 0);
        assert!(!folder.at("f").exists());
        assert!(folder.at("sub/deep/f").exists());
    }
    // Whoever wrote to it meanwhile keeps what they wrote.
    let kept = Upload::begin(&server, &folder, "kept", 0);
    folder.write("kept", b"mine");
    let target = format!("{}&dst_dir=sub", kept.target());
    let patch = Request::new("PATCH", &target).header("Upload-Offset", "0");
    assert_tus(&patch.send(server.client()).expect(204), 0, 0);
    assert_eq!(std::fs::read(folder.at("kept")).expect("kept"), b"mine");
    server.finish();
}
