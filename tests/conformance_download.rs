//! Goal: `/` and `/download` answer as the contract says: headers, conditions, ranges, CORS.
//! Method: tables of requests for files whose time, size and name the test has set.
//!
//! Source: client contract 1 to 3.5. Where ours differs from upstream:
//! `docs/semantics.md#downloads`, `docs/semantics.md#ranges`, `docs/semantics.md#head`,
//! `docs/semantics.md#siblings`.

use std::time::{Duration, UNIX_EPOCH};

use proxy_testkit::http::{Framing, date, escape};
use proxy_testkit::server::TOKEN_SECRET;
use proxy_testkit::table::Report;
use proxy_testkit::{Folder, Request, Response, Server, problem, token};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
/// The time of the test's file, in whole seconds; it has half a second more.
const MTIME: i64 = 1_700_000_000;
const HALF: u32 = 500_000_000;

fn set_time(folder: &Folder, name: &str, seconds: i64, nanos: u32) {
    let file = std::fs::File::options()
        .write(true)
        .open(folder.at(name))
        .expect(name);
    let time = UNIX_EPOCH + Duration::new(seconds as u64, nanos);
    file.set_times(std::fs::FileTimes::new().set_modified(time))
        .expect("a time");
}

/// A folder whose file `hundred` has a known time.
fn timed(server: &Server) -> Folder {
    let folder = Folder::full(server);
    set_time(&folder, "hundred", MTIME, HALF);
    folder
}

fn etag(seconds: i64, nanos: u32, size: u64) -> String {
    format!(
        "\"{:x}-{size:x}\"",
        i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
    )
}

fn get(server: &Server, folder: &Folder, name: &str, headers: &[(&str, &str)]) -> Response {
    ask(
        server,
        "GET",
        &format!("/download?token={}", folder.download_token(name)),
        headers,
    )
}

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

#[test]
fn the_root_tells_the_version_and_takes_no_parameters() {
    let server = Server::start(PROGRAM);
    let answer = ask(&server, "GET", "/", &[]).expect(200);
    assert_eq!(
        answer.header("Content-Type"),
        Some("application/json; charset=utf-8")
    );
    let body = answer.json();
    assert_eq!(
        (&body["status"], &body["type"]),
        (&json!("ok"), &json!("client-facing"))
    );
    assert!(body["storage-proxy"].is_string());
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(3));
    problem::fields(&ask(&server, "GET", "/?x=1", &[]), &["x"]).expect("unknown parameter");
    server.finish();
}

/// Methods and paths beside the contract's: status and `Allow`. HEAD is answered like GET:
/// `docs/semantics.md#head`.
const METHODS: &[(&str, &str, u16, Option<&str>)] = &[
    ("POST", "/", 405, Some("GET,OPTIONS")),
    ("DELETE", "/download", 405, Some("GET,OPTIONS")),
    ("PUT", "/download-archive", 405, Some("GET,OPTIONS")),
    ("PATCH", "/download", 405, Some("GET,OPTIONS")),
    ("GET", "/upload", 405, Some("HEAD,OPTIONS,PATCH")),
    ("POST", "/upload", 405, Some("HEAD,OPTIONS,PATCH")),
    ("DELETE", "/upload", 405, Some("HEAD,OPTIONS,PATCH")),
    ("GET", "/nothing", 404, None),
    ("GET", "/download/", 404, None),
    ("GET", "/downloads", 404, None),
    ("GET", "/metrics", 404, None),
    ("GET", "/volumes", 404, None),
    ("POST", "/folder/create", 404, None),
    ("OPTIONS", "/nothing", 404, None),
];

#[test]
fn other_methods_and_paths_are_refused_without_cors() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    for (method, path, status, allow) in METHODS {
        let answer = ask(&server, method, path, &[("Origin", "http://ui")]);
        let text = if *status == 405 {
            "405: Method Not Allowed"
        } else {
            "404: Not Found"
        };
        // HEAD may have joined the list: an addition that no client can mind.
        let allowed = answer
            .header("Allow")
            .map(|v| v.replace("GET,HEAD,OPTIONS", "GET,OPTIONS"));
        let result = problem::text(&answer, *status, text)
            .and_then(|()| same("Allow", allowed.as_deref(), *allow))
            .map_err(|why| format!("{why}\n{answer}"));
        report.note(&format!("{method} {path}"), result);
    }
    report.end("methods");
    server.finish();
}

/// Failures of `/download`: query beside the token, path in the token, what must come.
type Failure = (
    &'static str,
    &'static str,
    fn(&Response) -> Result<(), String>,
);

const GONE: fn(&Response) -> Result<(), String> = problem::download_not_found;
const NOT_A_FILE: fn(&Response) -> Result<(), String> =
    |r| problem::typed(r, "InvalidAPIParameters");

const FAILURES: &[Failure] = &[
    ("", "not there", GONE),
    ("", "dangling", GONE),
    ("", "loop", GONE),
    ("", "out", GONE),
    ("", "out_rel", GONE),
    ("", "out_dir/secret", GONE),
    ("", "../x", GONE),
    ("", "d1/../../x", GONE),
    ("", "a.txt/x", GONE),
    ("", "/etc/passwd", GONE),
    ("", "//etc/passwd", GONE),
    ("", "a\u{0}b", GONE),
    ("&dst_dir=d1", "a.txt", GONE),
    ("&dst_dir=..", "a.txt", GONE),
    ("&dst_dir=/etc", "passwd", GONE),
    ("&dst_dir=/", "etc/passwd", GONE),
    ("&dst_dir=d1%2F..%2F..", "a.txt", GONE),
    ("", ".upload/0123456789abcdef0123456789abcdef", GONE),
    ("", ".upload", GONE),
    ("", "d1", NOT_A_FILE),
    ("", ".", NOT_A_FILE),
    ("", "in_dir", NOT_A_FILE),
    ("", "fifo", NOT_A_FILE),
    ("&archive=false", "d1", NOT_A_FILE),
    ("&archive=perhaps", "a.txt", |r| {
        problem::fields(r, &["archive"])
    }),
    ("&no_cache=f", "a.txt", |r| {
        problem::fields(r, &["no_cache"])
    }),
    ("&surprise=1", "a.txt", |r| {
        problem::fields(r, &["surprise"])
    }),
    ("&surprise=1&archive=2", "a.txt", |r| {
        problem::fields(r, &["surprise", "archive"])
    }),
];

#[test]
fn what_cannot_be_downloaded_is_told_by_the_right_error() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    folder.write(
        ".upload/0123456789abcdef0123456789abcdef",
        b"part of an upload",
    );
    let mut report = Report::default();
    for (query, path, check) in FAILURES {
        let target = format!("/download?token={}{query}", folder.download_token(path));
        let answer = ask(&server, "GET", &target, &[]);
        report.note(
            &format!("{path:?}{query}"),
            check(&answer).map_err(|w| format!("{w}\n{answer}")),
        );
    }
    let long = folder.download_token(&"n".repeat(300));
    let answer = ask(&server, "GET", &format!("/download?token={long}"), &[]);
    report.note("a name of 300 bytes", problem::download_not_found(&answer));
    let answer = ask(&server, "GET", "/download", &[]);
    report.note("no token", problem::fields(&answer, &["token"]));
    let missing = Folder::unmade(&server).download_token("a.txt");
    let answer = ask(&server, "GET", &format!("/download?token={missing}"), &[]);
    report.note("no folder", problem::download_not_found(&answer));
    for volume in ["nowhere", "@noop"] {
        let mut claims = folder.download_claims("a.txt");
        claims["volume"] = json!(volume);
        let target = format!("/download?token={}", token::mint(TOKEN_SECRET, &claims));
        let answer = ask(&server, "GET", &target, &[]);
        let result = problem::typed(&answer, "InvalidVolumeError")
            .and_then(|()| problem::same("msg", &answer.json()["msg"], &json!(volume)));
        report.note(volume, result.map_err(|w| format!("{w}\n{answer}")));
    }
    report.end("failures");
    server.finish();
}

/// Ways that lead to a file: query, path in the token, content, offered name.
const FOUND: &[(&str, &str, &str, &str)] = &[
    ("", "a.txt", "hello", "a.txt"),
    ("", "./d1//x.txt", "x marks the spot", "x.txt"),
    ("", "in", "hello", "in"),
    ("", "in_abs", "hello", "in_abs"),
    ("", "d1/up", "hello", "up"),
    ("", "in_dir/sub/y.txt", "why", "y.txt"),
    ("", "d1/../a.txt", "hello", "a.txt"),
    ("", "none", "", "none"),
    ("&dst_dir=d1", "x.txt", "x marks the spot", "x.txt"),
    ("&dst_dir=d1/sub", "y.txt", "why", "y.txt"),
    ("&dst_dir=", "a.txt", "hello", "a.txt"),
    (
        "&dst_dir=d1&dst_dir=..",
        "x.txt",
        "x marks the spot",
        "x.txt",
    ),
    ("&archive=true", "a.txt", "hello", "a.txt"),
    ("&archive=no&no_cache=no", "a.txt", "hello", "a.txt"),
];

#[test]
fn a_file_is_served_with_its_headers() {
    let server = Server::start(PROGRAM);
    let folder = timed(&server);
    let mut report = Report::default();
    for (query, path, content, name) in FOUND {
        let target = format!("/download?token={}{query}", folder.download_token(path));
        let answer = ask(&server, "GET", &target, &[]);
        let disposition = format!("attachment;filename=\"{name}\"; filename*=UTF-8''{name}");
        let result = problem::head(&answer, 200, "application/octet-stream")
            .and_then(|()| same("body", Some(&answer.text()), Some(content)))
            .and_then(|()| {
                same(
                    "name",
                    answer.header("Content-Disposition"),
                    Some(&disposition),
                )
            })
            .and_then(|()| same("cache", answer.header("Cache-Control"), None));
        report.note(
            &format!("{path:?}{query}"),
            result.map_err(|w| format!("{w}\n{answer}")),
        );
    }
    report.end("files");
    let answer = get(
        &server,
        &folder,
        "hundred",
        &[("Accept-Encoding", "gzip, deflate, br")],
    );
    assert_eq!(
        answer.headers.iter().filter(|(n, _)| n == "Etag").count(),
        1,
        "{answer}"
    );
    assert_eq!(answer.header("Etag"), Some(&*etag(MTIME, HALF, 100)));
    assert_eq!(
        answer.header("Last-Modified"),
        Some(&*date(MTIME + 1)),
        "rounded up"
    );
    assert_eq!(answer.header("Content-Length"), Some("100"));
    assert_eq!(answer.header("Accept-Ranges"), Some("bytes"));
    assert_eq!(answer.header("Content-Encoding"), None);
    assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
    set_time(&folder, "hundred", MTIME, 0);
    let answer = get(&server, &folder, "hundred", &[]);
    assert_eq!(
        answer.header("Last-Modified"),
        Some(&*date(MTIME)),
        "a whole second stays"
    );
    let target = format!(
        "/download?no_cache=1&token={}",
        folder.download_token("a.txt")
    );
    let answer = ask(&server, "GET", &target, &[]);
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    server.finish();
}

#[test]
fn a_head_has_the_headers_of_the_get_and_no_body() {
    // docs/semantics.md#head: upstream answers 405 (wire contract 10, item 34).
    let server = Server::start(PROGRAM);
    let folder = timed(&server);
    let target = format!("/download?token={}", folder.download_token("hundred"));
    // Ranges are for GET alone (RFC 9110 14.2), so they are not compared here.
    for headers in [
        &[][..],
        &[("If-None-Match", "*")][..],
        &[("If-Match", "\"x\"")][..],
    ] {
        let get = ask(&server, "GET", &target, headers);
        let head = ask(&server, "HEAD", &target, headers);
        assert_eq!(head.status, get.status, "{head}");
        let kept = |r: &Response| -> Vec<(String, String)> {
            r.headers
                .iter()
                .filter(|(n, _)| n != "Date")
                .cloned()
                .collect()
        };
        assert_eq!(kept(&head), kept(&get));
    }
    assert_eq!(ask(&server, "HEAD", "/download?token=x", &[]).status, 400);
    server.finish();
}

/// Ranges of the hundred-byte file: header, status, `Content-Range`, bytes.
type RangeRow = (
    &'static str,
    u16,
    Option<&'static str>,
    std::ops::Range<usize>,
);

const RANGES: &[RangeRow] = &[
    ("bytes=10-19", 206, Some("bytes 10-19/100"), 10..20),
    ("bytes=0-0", 206, Some("bytes 0-0/100"), 0..1),
    ("bytes=99-99", 206, Some("bytes 99-99/100"), 99..100),
    ("bytes=90-", 206, Some("bytes 90-99/100"), 90..100),
    ("bytes=0-", 206, Some("bytes 0-99/100"), 0..100),
    ("bytes=-5", 206, Some("bytes 95-99/100"), 95..100),
    ("bytes=-500", 206, Some("bytes 0-99/100"), 0..100),
    ("bytes=50-200", 206, Some("bytes 50-99/100"), 50..100),
    (
        "bytes=0-99999999999999999999",
        206,
        Some("bytes 0-99/100"),
        0..100,
    ),
    ("bytes=100-", 416, Some("bytes */100"), 0..0),
    ("bytes=100-200", 416, Some("bytes */100"), 0..0),
    (
        "bytes=18446744073709551616-",
        416,
        Some("bytes */100"),
        0..0,
    ),
    ("bytes=-0", 416, Some("bytes */100"), 0..0),
];

#[test]
fn a_range_gives_exactly_its_bytes() {
    let server = Server::start(PROGRAM);
    let folder = timed(&server);
    let whole: Vec<u8> = (0..100).collect();
    let mut report = Report::default();
    for (range, status, content_range, bytes) in RANGES {
        let answer = get(&server, &folder, "hundred", &[("Range", range)]);
        let tagged = (*status == 206).then(|| etag(MTIME, HALF, 100));
        let length = bytes.len().to_string();
        let ranges = (*status == 206).then_some("bytes");
        let result = problem::head(&answer, *status, "application/octet-stream")
            .and_then(|()| same("range", answer.header("Content-Range"), *content_range))
            .and_then(|()| same("length", answer.header("Content-Length"), Some(&length)))
            .and_then(|()| same("etag", answer.header("Etag"), tagged.as_deref()))
            .and_then(|()| same("ranges", answer.header("Accept-Ranges"), ranges))
            .and_then(|()| {
                (answer.body == whole[bytes.clone()])
                    .then_some(())
                    .ok_or("bytes".into())
            });
        report.note(range, result.map_err(|why| format!("{why}\n{answer}")));
    }
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
        let answer = get(&server, &folder, "none", &[("Range", range)]);
        let result = same("range", answer.header("Content-Range"), Some("bytes */0"));
        let result = result.and_then(|()| match answer.status {
            416 => Ok(()),
            other => Err(format!("status {other}")),
        });
        report.note(
            &format!("{range} of an empty file"),
            result.map_err(|w| format!("{w}\n{answer}")),
        );
    }
    report.end("ranges");
    server.finish();
}

#[test]
fn an_unusable_range_is_ignored_or_unsatisfiable_and_never_wrong_bytes() {
    // docs/semantics.md#ranges: upstream says 416 to all of them (wire contract 10, item 35).
    let server = Server::start(PROGRAM);
    let folder = timed(&server);
    let whole: Vec<u8> = (0..100).collect();
    let mut report = Report::default();
    for range in [
        "bytes=5-4",
        "bytes=-",
        "bytes=",
        "items=0-1",
        "bytes=a-b",
        "bytes=0x1-2",
        "0-1",
        "bytes=+1-2",
        "bytes=1-2-3",
        "bytes=0-1;",
        "bytes=--1",
        "",
    ] {
        let answer = get(&server, &folder, "hundred", &[("Range", range)]);
        let good = match answer.status {
            200 => answer.body == whole && answer.header("Content-Range").is_none(),
            416 => answer.body.is_empty(),
            _ => false,
        };
        report.note(
            &format!("{range:?}"),
            good.then_some(()).ok_or_else(|| answer.to_string()),
        );
    }
    report.end("unusable ranges");
    server.finish();
}

#[test]
fn several_ranges_come_as_parts_or_as_the_whole() {
    let server = Server::start(PROGRAM);
    let folder = timed(&server);
    let whole: Vec<u8> = (0..100).collect();
    let cases: &[(&str, &[(usize, usize)])] = &[
        ("bytes=0-1,5-6", &[(0, 1), (5, 6)]),
        ("bytes=90-,0-9", &[(90, 99), (0, 9)]),
        ("bytes=-3, 1-1 ,50-59", &[(97, 99), (1, 1), (50, 59)]),
    ];
    for (range, want) in cases {
        let answer = get(&server, &folder, "hundred", &[("Range", range)]);
        if answer.status == 200 {
            assert_eq!(answer.body, whole, "{range}");
            continue;
        }
        assert_eq!(answer.status, 206, "{answer}");
        let kind = answer.header("Content-Type").unwrap_or_default();
        let boundary = kind
            .strip_prefix("multipart/byteranges; boundary=")
            .expect("parts");
        let parts = parts(&answer.body, boundary.trim_matches('"'));
        let want: Vec<(String, Vec<u8>)> = want
            .iter()
            .map(|&(a, b)| (format!("bytes {a}-{b}/100"), whole[a..=b].to_vec()))
            .collect();
        assert_eq!(parts, want, "{range}");
    }
    let many = format!(
        "bytes={}",
        (0..5000)
            .map(|n| format!("{0}-{0}", n % 100))
            .collect::<Vec<_>>()
            .join(",")
    );
    let answer = get(&server, &folder, "hundred", &[("Range", &many)]);
    assert!(
        answer.body.len() <= 4096 || answer.status != 206,
        "a request of 20 KiB is amplified"
    );
    server.finish();
}

/// The parts of a multipart body: `Content-Range` and bytes.
fn parts(body: &[u8], boundary: &str) -> Vec<(String, Vec<u8>)> {
    let delimiter = format!("\r\n--{boundary}");
    let mut all = b"\r\n".to_vec();
    all.extend_from_slice(body);
    let mut found = Vec::new();
    let mut rest = &all[..];
    while let Some(at) = find(rest, delimiter.as_bytes()) {
        rest = &rest[at + delimiter.len()..];
        if rest.starts_with(b"--") {
            return found;
        }
        let head_end = find(rest, b"\r\n\r\n").expect("a part has a head");
        let head = String::from_utf8_lossy(&rest[..head_end]).into_owned();
        let range = head.lines().find_map(|l| l.split_once(": ")).map(|_| {
            head.lines()
                .filter_map(|l| l.split_once(": "))
                .find(|(n, _)| n.eq_ignore_ascii_case("content-range"))
                .map(|(_, v)| v.to_owned())
                .unwrap_or_default()
        });
        let content = &rest[head_end + 4..];
        let end = find(content, delimiter.as_bytes()).expect("a part ends");
        found.push((range.unwrap_or_default(), content[..end].to_vec()));
    }
    panic!("no closing delimiter");
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// Conditions: headers and the expected status. `E` is the file's entity tag, `N` its date as
/// the server tells it, `O` one second earlier.
const CONDITIONS: &[(&[(&str, &str)], u16)] = &[
    (&[("If-Match", "E")], 200),
    (&[("If-Match", "*")], 200),
    (&[("If-Match", "\"x\", E")], 200),
    (&[("If-Match", "\"x\"")], 412),
    (&[("If-Match", "W/E")], 412),
    (&[("If-Match", "E"), ("If-Unmodified-Since", "O")], 200),
    (&[("If-Unmodified-Since", "N")], 200),
    (&[("If-Unmodified-Since", "O")], 412),
    (&[("If-Unmodified-Since", "nonsense")], 200),
    (&[("If-None-Match", "E")], 304),
    (&[("If-None-Match", "W/E")], 304),
    (&[("If-None-Match", "*")], 304),
    (&[("If-None-Match", "\"x\", W/E")], 304),
    (&[("If-None-Match", "\"x\"")], 200),
    (
        &[("If-None-Match", "\"x\""), ("If-Modified-Since", "N")],
        200,
    ),
    (&[("If-Modified-Since", "N")], 304),
    (&[("If-Modified-Since", "O")], 200),
    (&[("If-Modified-Since", "nonsense")], 200),
    (&[("If-Match", "\"x\""), ("If-None-Match", "E")], 412),
    (&[("If-Range", "N"), ("Range", "bytes=1-2")], 206),
    (&[("If-Range", "O"), ("Range", "bytes=1-2")], 200),
    (&[("If-Range", "E"), ("Range", "bytes=1-2")], 206),
    (&[("If-Range", "\"x\""), ("Range", "bytes=1-2")], 200),
    (&[("If-Range", "W/E"), ("Range", "bytes=1-2")], 200),
    (&[("If-Range", "nonsense"), ("Range", "bytes=1-2")], 200),
    (&[("If-Range", "O"), ("Range", "bytes=100-")], 200),
    (&[("If-Range", "N"), ("Range", "bytes=100-")], 416),
    (&[("If-Range", "N")], 200),
    (&[("If-None-Match", "E"), ("Range", "bytes=1-2")], 304),
    (&[("If-Match", "\"x\""), ("Range", "bytes=1-2")], 412),
];

#[test]
fn conditions_are_evaluated_in_their_order() {
    let server = Server::start(PROGRAM);
    let folder = timed(&server);
    let tag = etag(MTIME, HALF, 100);
    let (now, old) = (date(MTIME + 1), date(MTIME));
    let mut report = Report::default();
    for (headers, status) in CONDITIONS {
        let filled: Vec<(&str, String)> = headers
            .iter()
            .map(|(name, value)| {
                let value = match *value {
                    "N" => now.clone(),
                    "O" => old.clone(),
                    "nonsense" | "*" => (*value).to_owned(),
                    other if name.contains("Match") || name.contains("If-Range") => {
                        other.replace('E', &tag)
                    }
                    other => other.to_owned(),
                };
                (*name, value)
            })
            .collect();
        let filled: Vec<(&str, &str)> = filled.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let answer = get(&server, &folder, "hundred", &filled);
        let result = condition_answer(&answer, *status, &tag);
        report.note(
            &format!("{headers:?}"),
            result.map_err(|why| format!("{why}\n{answer}")),
        );
    }
    report.end("conditions");
    server.finish();
}

/// Which headers stand on which status: client contract 3.3.
fn condition_answer(answer: &Response, status: u16, tag: &str) -> Result<(), String> {
    if answer.status != status {
        return Err(format!("status {}, not {status}", answer.status));
    }
    let tagged = matches!(status, 200 | 206 | 304).then_some(tag);
    same("etag", answer.header("Etag"), tagged)?;
    let kind = answer.header("Content-Type");
    same("type", kind, Some("application/octet-stream"))?;
    if answer.header("Content-Disposition").is_none() {
        return Err("no Content-Disposition".to_owned());
    }
    let length = match status {
        200 => Some("100"),
        206 => Some("2"),
        304 => None,
        _ => Some("0"),
    };
    same("length", answer.header("Content-Length"), length)
}

/// Names and the two forms in which they are offered: client contract 3.5.
const NAMES: &[(&str, &str, &str)] = &[
    ("b.txt", "b.txt", "b.txt"),
    ("한글.bin", ".bin", "%ED%95%9C%EA%B8%80.bin"),
    (
        "my \"x\" é.zip",
        "my \\\"x\\\" .zip",
        "my%20%22x%22%20%C3%A9.zip",
    ),
    ("it's", "it's", "it%27s"),
    ("p+q r.txt", "p+q r.txt", "p%2Bq%20r.txt"),
    ("a~b_c.d-e", "a~b_c.d-e", "a~b_c.d-e"),
    ("100%;x=y", "100%;x=y", "100%25%3Bx%3Dy"),
    ("new\nline\r.txt", "new_line_.txt", "new%0Aline%0D.txt"),
];

#[test]
fn names_are_offered_in_both_forms() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let mut report = Report::default();
    for (name, ascii, pct) in NAMES {
        folder.write(name, b"x");
        let want = format!("attachment;filename=\"{ascii}\"; filename*=UTF-8''{pct}");
        let answer = get(&server, &folder, name, &[]);
        report.note(
            &format!("{name:?}"),
            same("name", answer.header("Content-Disposition"), Some(&want)),
        );
    }
    // docs/semantics.md#names: control characters never stand raw in a header.
    folder.write("tab\tbell\u{7}", b"x");
    let answer = get(&server, &folder, "tab\tbell\u{7}", &[]);
    let value = answer.header("Content-Disposition").unwrap_or_default();
    let clean = !value.chars().any(char::is_control);
    report.note(
        "control characters",
        clean.then_some(()).ok_or_else(|| format!("{value:?}")),
    );
    report.end("names");
    server.finish();
}

#[test]
fn a_compressed_sibling_is_never_sent_instead() {
    // docs/semantics.md#siblings: wire contract 10, item 11.
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    folder.write("data.csv", b"the data");
    folder.write("data.csv.gz", b"another file");
    folder.write("data.csv.br", b"a third file");
    for coding in ["gzip", "br", "gzip, deflate, br", "*", "identity;q=0"] {
        let answer = get(&server, &folder, "data.csv", &[("Accept-Encoding", coding)]);
        assert_eq!(answer.text(), "the data", "{coding}");
        assert_eq!(answer.header("Content-Encoding"), None);
    }
    server.finish();
}

#[test]
fn the_web_ui_may_fetch_a_download_twice_and_drop_the_first() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let pattern = proxy_testkit::data::Pattern(3);
    folder.write("big", &pattern.bytes(0, 32 << 20));
    let request = Request::new(
        "GET",
        &format!("/download?token={}", folder.download_token("big")),
    );
    for _ in 0..20 {
        let mut dropped = proxy_testkit::Connection::open(server.client()).expect("a connection");
        dropped.write(&request.to_bytes()).expect("sent");
        assert_eq!(dropped.head().expect("a head").status, 200);
    }
    let answer = request.send(server.client());
    assert_eq!(answer.framing, Framing::Length);
    assert_eq!(pattern.mismatch(0, &answer.body), None);
    server.finish();
}

#[test]
fn many_requests_go_over_one_connection_and_may_be_sent_ahead() {
    let server = Server::start(PROGRAM);
    let folder = timed(&server);
    let target = format!("/download?token={}", folder.download_token("hundred"));
    let mut connection = proxy_testkit::Connection::open(server.client()).expect("a connection");
    let mut sent = Vec::new();
    for n in 0..50 {
        let range = format!("bytes={n}-{n}");
        sent.extend(
            Request::new("GET", &target)
                .header("Range", &range)
                .to_bytes(),
        );
    }
    connection.write(&sent).expect("sent");
    for n in 0..50u8 {
        let answer = connection.answer(false).expect("an answer for each");
        assert_eq!((answer.status, answer.body), (206, vec![n]));
    }
    let closing = Request::new("GET", "/").header("Connection", "close");
    let answer = connection.ask(&closing).expect("the last");
    assert_eq!(answer.status, 200);
    assert!(
        connection.is_closed_within(Duration::from_secs(10)),
        "close means close"
    );
    server.finish();
}

#[test]
fn odd_but_right_requests_are_served() {
    let server = Server::start(PROGRAM);
    let folder = timed(&server);
    let token = folder.download_token("a.txt");
    let escaped: String = token.bytes().map(|b| format!("%{b:02x}")).collect();
    for target in [
        format!("/download?token={escaped}"),
        format!("/download?token={token}&token=ignored"),
        format!("/download?&&token={token}&"),
        format!("http://test/download?token={token}"),
        format!("/download?dst_dir={}&token={token}", escape(".")),
    ] {
        let answer = ask(&server, "GET", &target, &[]);
        assert_eq!(answer.text(), "hello", "{target}: {answer}");
    }
    let mut one_zero = proxy_testkit::Connection::open(server.client()).expect("a connection");
    let old = format!("GET /download?token={token} HTTP/1.0\r\n\r\n");
    one_zero.write(old.as_bytes()).expect("sent");
    let raw = String::from_utf8_lossy(&one_zero.until_closed()).into_owned();
    assert!(raw.contains(" 200 ") && raw.ends_with("hello"), "{raw}");
    assert!(
        !raw.to_lowercase().contains("chunked"),
        "HTTP/1.0 knows no chunks"
    );
    server.finish();
}
