//! Request heads. Goal: every head has one reading, and how it arrived does not matter.
//! Method: tables of accepted and refused heads, each also cut at every byte; random heads,
//! random bytes; `httparse` as a second reader for everything that is accepted.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proxy_wire::head::{
    Framing, HeadError, HeadLimits, Method, Parsed, RequestHead, Single, Version, parse,
};

/// Parses with the default limits and with every prefix, which must not disagree.
#[track_caller]
fn read(bytes: &[u8]) -> Result<Parsed, HeadError> {
    read_within(bytes, &HeadLimits::default())
}

#[track_caller]
fn read_within(bytes: &[u8], limits: &HeadLimits) -> Result<Parsed, HeadError> {
    let whole = parse(bytes, limits);
    let shown = String::from_utf8_lossy(bytes);
    for end in 0..bytes.len() {
        match (&whole, parse(&bytes[..end], limits)) {
            (_, Ok(Parsed::Partial)) => {}
            (Err(error), Err(early)) => assert_eq!(*error, early, "{end} bytes of {shown:?}"),
            (Ok(Parsed::Complete { head, consumed }), Ok(Parsed::Complete { head: early, .. })) => {
                assert!(
                    *consumed <= end,
                    "complete too early: {end} bytes of {shown:?}"
                );
                assert_eq!(*head, early);
            }
            (whole, early) => panic!("{early:?}, then {whole:?}: {end} bytes of {shown:?}"),
        }
    }
    if let Ok(Parsed::Complete { consumed, .. }) = &whole {
        let cut = parse(&bytes[..*consumed], limits);
        assert_eq!(cut, whole, "what follows a head changes nothing: {shown:?}");
    }
    whole
}

#[track_caller]
fn accepted(bytes: &str) -> RequestHead {
    match read(bytes.as_bytes()) {
        Ok(Parsed::Complete { head, consumed }) => {
            assert_eq!(consumed, bytes.len(), "{bytes:?}");
            head
        }
        other => panic!("{bytes:?}: {other:?}"),
    }
}

#[track_caller]
fn check_refused(bytes: &str, want: HeadError) {
    assert_eq!(read(bytes.as_bytes()), Err(want), "{bytes:?}");
}

/// A head with `lines` after a plain request line and `Host`.
fn with_lines(lines: &str) -> String {
    format!("PATCH /upload HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[test]
fn a_head_is_read_whole() {
    let head = accepted(
        "GET /download?token=a.b&dst_dir=%2e HTTP/1.1\r\nHost: proxy:6021\r\n\
         X-A:  one \t\r\nx-a:\r\nRange: bytes=0-1\r\n\r\n",
    );
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.path, "/download");
    assert_eq!(head.query.as_deref(), Some("token=a.b&dst_dir=%2e"));
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.framing, Framing::None);
    assert!(head.keep_alive);
    assert!(!head.expect_continue);
    let fields: Vec<_> = head.headers.iter().collect();
    let want: [(&str, &[u8]); 4] = [
        ("host", b"proxy:6021"),
        ("x-a", b"one"),
        ("x-a", b""),
        ("range", b"bytes=0-1"),
    ];
    assert_eq!(fields, want);
    assert_eq!(head.headers.get("x-a"), Some(&b"one"[..]));
    assert_eq!(head.headers.get_all("x-a").count(), 2);
    assert_eq!(head.headers.single("x-a"), Single::Repeated);
    assert_eq!(head.headers.single("range"), Single::One(b"bytes=0-1"));
    assert_eq!(head.headers.single("if-range"), Single::Absent);
}

#[track_caller]
fn check_target(method: &str, target: &str, path: &str, query: Option<&str>) {
    let head = accepted(&format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(head.method.as_str(), method);
    assert_eq!(
        (head.path.as_str(), head.query.as_deref()),
        (path, query),
        "{target}"
    );
}

#[test]
fn targets_are_split_and_kept_raw() {
    check_target("GET", "/", "/", None);
    check_target("GET", "/a%2Fb/../c", "/a%2Fb/../c", None);
    check_target("GET", "//a", "//a", None);
    check_target("GET", "/?", "/", Some(""));
    check_target("GET", "/a?b?c", "/a", Some("b?c"));
    check_target("HEAD", "http://a.example:80/x?y", "/x", Some("y"));
    check_target("HEAD", "HTTPS://[::1]:443/x", "/x", None);
    check_target("GET", "http://a", "/", None);
    check_target("GET", "http://a?x=/", "/", Some("x=/"));
    check_target("OPTIONS", "*", "*", None);
    check_target("PROPFIND", "/한글?이름", "/한글", Some("이름"));
    check_target("DELETE", "/\"<>\\^`{|}", "/\"<>\\^`{|}", None);
}

#[test]
fn request_lines_that_have_two_readings_are_refused() {
    for (line, want) in [
        ("GET  / HTTP/1.1", HeadError::RequestLine),
        ("GET / HTTP/1.1 ", HeadError::RequestLine),
        ("GET /", HeadError::RequestLine),
        ("GET", HeadError::RequestLine),
        ("GET / x HTTP/1.1", HeadError::RequestLine),
        ("GET / http/1.1", HeadError::RequestLine),
        ("GET / HTTP/1", HeadError::RequestLine),
        ("GET / HTTP/1.10", HeadError::RequestLine),
        ("GET / HTTP/11", HeadError::RequestLine),
        ("GET / HTTP/1.2", HeadError::Version),
        ("GET / HTTP/0.9", HeadError::Version),
        ("PRI * HTTP/2.0", HeadError::Version),
        (" GET / HTTP/1.1", HeadError::Method),
        ("G\u{e9}T / HTTP/1.1", HeadError::Method),
        ("GE(T / HTTP/1.1", HeadError::Method),
        ("GET\t/ HTTP/1.1", HeadError::Method),
        ("\u{16}\u{3}\u{1}\u{2}", HeadError::Method),
        (
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1",
            HeadError::Method,
        ),
        ("GET download HTTP/1.1", HeadError::Target),
        ("GET * HTTP/1.1", HeadError::Target),
        ("CONNECT a:443 HTTP/1.1", HeadError::Target),
        ("GET ftp://a/ HTTP/1.1", HeadError::Target),
        ("GET http:/a HTTP/1.1", HeadError::Target),
        ("GET http:///a HTTP/1.1", HeadError::Target),
        ("GET http://user@a/ HTTP/1.1", HeadError::Target),
        ("GET /a#b HTTP/1.1", HeadError::Target),
        ("GET /a\tb HTTP/1.1", HeadError::Target),
        ("GET /a\0b HTTP/1.1", HeadError::Target),
        ("GET /a\u{7f} HTTP/1.1", HeadError::Target),
    ] {
        check_refused(&format!("{line}\r\nHost: a\r\n\r\n"), want);
    }
    let not_utf8 = b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(read(not_utf8), Err(HeadError::Target));
}

#[test]
fn one_empty_line_before_a_request_is_skipped() {
    assert_eq!(accepted("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").path, "/");
    check_refused(
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        HeadError::RequestLine,
    );
    check_refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::LineEnding);
    check_refused("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::LineEnding);
}

#[test]
fn lines_and_fields_that_have_two_readings_are_refused() {
    for (lines, want) in [
        ("A: b\n", HeadError::LineEnding),
        ("A: b\nC: d\r\n", HeadError::LineEnding),
        ("A: b\rC: d\r\n", HeadError::LineEnding),
        ("A: b\r\r\n", HeadError::LineEnding),
        ("A: b\r\n c\r\n", HeadError::Folded),
        ("A: b\r\n\tc\r\n", HeadError::Folded),
        (" A: b\r\n", HeadError::Folded),
        ("A : b\r\n", HeadError::HeaderName),
        ("A\t: b\r\n", HeadError::HeaderName),
        ("A\r\n", HeadError::HeaderName),
        (": b\r\n", HeadError::HeaderName),
        ("A(: b\r\n", HeadError::HeaderName),
        ("\u{e4}: b\r\n", HeadError::HeaderName),
        ("A\0: b\r\n", HeadError::HeaderName),
        ("A: b\0c\r\n", HeadError::HeaderValue),
        ("A: \u{1}\r\n", HeadError::HeaderValue),
        ("A: b\u{b}\r\n", HeadError::HeaderValue),
        ("A: b\u{7f}\r\n", HeadError::HeaderValue),
    ] {
        check_refused(&with_lines(lines), want);
    }
    check_refused("GET / HTTP/1.1\nHost: a\r\n\r\n", HeadError::LineEnding);
    check_refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", HeadError::Folded);
}

/// The smuggling tables: heads that two servers in a row have read differently.
#[test]
fn no_body_has_two_lengths() {
    for (want, lines) in [
        (
            HeadError::LengthWithEncoding,
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            HeadError::LengthWithEncoding,
            "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        ),
        (
            HeadError::LengthWithEncoding,
            "Transfer-Encoding: x\r\nContent-Length: 5\r\n",
        ),
        (
            HeadError::LengthRepeated,
            "Content-Length: 5\r\nContent-Length: 6\r\n",
        ),
        (
            HeadError::LengthRepeated,
            "Content-Length: 5\r\nContent-Length: 5\r\n",
        ),
        (HeadError::HeaderName, "Content-Length : 5\r\n"),
    ] {
        check_refused(&with_lines(lines), want);
    }
    for length in [
        "",
        "5, 5",
        "5,6",
        "+5",
        "-5",
        "0x5",
        "5 5",
        "5_0",
        "\u{664}",
        "5.0",
        "5a",
        "18446744073709551616",
    ] {
        check_refused(&with_lines(&format!("Content-Length: {length}\r\n")), {
            HeadError::LengthInvalid
        });
    }
}

#[test]
fn no_body_has_a_doubtful_end() {
    for (want, codings) in [
        (HeadError::EncodingNotChunked, ""),
        (HeadError::EncodingNotChunked, "identity"),
        (HeadError::EncodingNotChunked, "xchunked"),
        (HeadError::EncodingNotChunked, "chunked;a=b"),
        (HeadError::EncodingNotChunked, "\"chunked\""),
        (HeadError::EncodingNotChunked, "chunked, identity"),
        (HeadError::EncodingNotChunked, "chunked, chunked"),
        (
            HeadError::EncodingNotChunked,
            "chunked\r\nTransfer-Encoding: x",
        ),
        (
            HeadError::EncodingNotChunked,
            "chunked\r\nTransfer-Encoding: chunked",
        ),
        (HeadError::HeaderValue, "\u{b}chunked"),
        (HeadError::EncodingUnsupported, "gzip, chunked"),
        (
            HeadError::EncodingUnsupported,
            "gzip\r\nTransfer-Encoding: chunked",
        ),
    ] {
        check_refused(
            &with_lines(&format!("Transfer-Encoding: {codings}\r\n")),
            want,
        );
    }
    check_refused(
        &with_lines("Transfer-Encoding : chunked\r\n"),
        HeadError::HeaderName,
    );
    let old = "PATCH / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_refused(old, HeadError::EncodingInOldVersion);
}

#[track_caller]
fn check_framing(lines: &str, want: Framing) {
    assert_eq!(accepted(&with_lines(lines)).framing, want, "{lines:?}");
}

#[test]
fn bodies_are_delimited_in_one_way() {
    check_framing("", Framing::None);
    check_framing("Content-Length: 0\r\n", Framing::Length(0));
    check_framing("Content-Length: 007\r\n", Framing::Length(7));
    check_framing(
        "Content-Length: 18446744073709551615\r\n",
        Framing::Length(u64::MAX),
    );
    check_framing("Transfer-Encoding: chunked\r\n", Framing::Chunked);
    check_framing("TRANSFER-ENCODING:Chunked \r\n", Framing::Chunked);
    check_framing("Transfer-Encoding: , chunked,\r\n", Framing::Chunked);
    check_framing("X-Transfer-Encoding: chunked\r\n", Framing::None);
}

#[test]
fn host_is_checked() {
    check_refused("GET / HTTP/1.1\r\n\r\n", HeadError::HostMissing);
    check_refused(
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        HeadError::HostRepeated,
    );
    check_refused(
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        HeadError::HostRepeated,
    );
    check_refused("GET http://a/ HTTP/1.1\r\n\r\n", HeadError::HostMissing);
    for host in ["a b", "a/b", "a@b", "a?b", "\u{e4}"] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        check_refused(&head, HeadError::HostInvalid);
    }
    for host in ["", "a", "a.b:6021", "[::1]:80", "a_b"] {
        accepted(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    accepted("GET / HTTP/1.0\r\n\r\n");
}

#[track_caller]
fn check_keep_alive(version: &str, lines: &str, want: bool) {
    let head = accepted(&format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n"));
    assert_eq!(head.keep_alive, want, "{version} {lines:?}");
}

#[test]
fn connections_live_as_the_client_says() {
    check_keep_alive("1.1", "", true);
    check_keep_alive("1.1", "Connection: keep-alive\r\n", true);
    check_keep_alive("1.1", "Connection: Close\r\n", false);
    check_keep_alive("1.1", "Connection: te, close\r\n", false);
    check_keep_alive("1.1", "Connection: te\r\nConnection: close\r\n", false);
    check_keep_alive("1.1", "Connection: closed\r\n", true);
    check_keep_alive("1.0", "", false);
    check_keep_alive("1.0", "Connection: Keep-Alive\r\n", true);
    check_keep_alive("1.0", "Connection: keep-alive, close\r\n", false);
}

#[track_caller]
fn check_expect(version: &str, lines: &str, want: bool) {
    let head = accepted(&format!("PATCH / HTTP/{version}\r\nHost: a\r\n{lines}\r\n"));
    assert_eq!(head.expect_continue, want, "{version} {lines:?}");
}

#[test]
fn a_100_is_due_only_for_a_body_to_come() {
    check_expect("1.1", "Expect: 100-continue\r\nContent-Length: 1\r\n", true);
    check_expect(
        "1.1",
        "Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n",
        true,
    );
    check_expect(
        "1.1",
        "Expect: 100-continue\r\nContent-Length: 0\r\n",
        false,
    );
    check_expect("1.1", "Expect: 100-continue\r\n", false);
    check_expect("1.1", "Expect: other\r\nContent-Length: 1\r\n", false);
    check_expect(
        "1.0",
        "Expect: 100-continue\r\nContent-Length: 1\r\n",
        false,
    );
}

/// Small limits, so that the tests can stand on both sides of each.
const SMALL: HeadLimits = HeadLimits {
    request_line_bytes_max: 40,
    header_line_bytes_max: 20,
    headers_count_max: 4,
    head_bytes_max: 90,
};

#[track_caller]
fn check_limit(bytes: &str, want: Option<HeadError>) {
    let got = read_within(bytes.as_bytes(), &SMALL);
    assert_eq!(got.err(), want, "{} bytes: {bytes:?}", bytes.len());
}

#[test]
fn limits_are_inclusive_and_answered() {
    let path = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "p".repeat(len - 14));
    check_limit(&path(40), None);
    check_limit(&path(41), Some(HeadError::RequestLineTooLong));
    let line = |len: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost:a\r\nA:{}\r\n\r\n",
            "v".repeat(len - 2)
        )
    };
    check_limit(&line(20), None);
    check_limit(&line(21), Some(HeadError::HeaderLineTooLong));
    let many = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost:a\r\n{}\r\n",
            "A:b\r\n".repeat(count)
        )
    };
    check_limit(&many(3), None);
    check_limit(&many(4), Some(HeadError::TooManyHeaders));
    let lines = "A:3456789012345678\r\n".repeat(2);
    let large = |len: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost:a\r\n{lines}A:{}\r\n\r\n",
            "v".repeat(len - 68)
        )
    };
    check_limit(&large(86), None);
    check_limit(&"A".repeat(500), Some(HeadError::Method));
    let endless = format!("GET /{}", "p".repeat(500));
    check_limit(&endless, Some(HeadError::RequestLineTooLong));
    let endless = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}",
        "A:3456789012345678\r\n".repeat(9)
    );
    check_limit(&endless, Some(HeadError::HeadTooLarge));
}

#[test]
fn every_error_has_a_status_and_a_text() {
    for (error, status) in [
        (HeadError::Target, 400),
        (HeadError::LengthWithEncoding, 400),
        (HeadError::RequestLineTooLong, 414),
        (HeadError::HeadTooLarge, 431),
        (HeadError::EncodingUnsupported, 501),
        (HeadError::Version, 505),
    ] {
        assert_eq!(error.status(), status);
        assert!(!error.text().ends_with('.'));
    }
}

/// Pieces of heads, sound and unsound, to be strung together at random.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "GET ",
        "PATCH ",
        "/",
        "/a?b",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        ":",
        "Host: a\r\n",
        "Host:",
        "Content-Length: 5\r\n",
        "Content-Length",
        "Transfer-Encoding: chunked\r\n",
        "chunked",
        ",",
        "a",
        "\0",
        "\u{e4}",
        "GET / HTTP/1.1\r\n",
    ])
}

fn is_complete_for_httparse(bytes: &[u8], consumed: usize) -> bool {
    let mut fields = vec![httparse::EMPTY_HEADER; 200];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(bytes) == Ok(httparse::Status::Complete(consumed))
}

/// Nothing is written beside the sources: a failing case is printed, and belongs in a table.
fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        cases: count,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn random_pieces_have_one_reading(pieces in prop::collection::vec(piece(), 0..24)) {
        let bytes = pieces.concat().into_bytes();
        for limits in [HeadLimits::default(), SMALL] {
            if let Ok(Parsed::Complete { consumed, .. }) = read_within(&bytes, &limits) {
                prop_assert!(is_complete_for_httparse(&bytes, consumed));
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let _ = read(&[b"GET / HTTP/1.1\r\nHost: a\r\n", &bytes[..], b"\r\n\r\n"].concat());
    }

    #[test]
    fn sound_heads_come_back_as_sent(
        method in "[A-Z]{1,10}",
        path in "/[a-zA-Z0-9%._~/-]{0,30}",
        query in prop::option::of("[a-zA-Z0-9%&=+]{0,30}"),
        fields in prop::collection::vec(("x-[a-z0-9-]{1,12}", "([!-~]([ -~]{0,20}[!-~])?)?"), 0..8),
    ) {
        let target = match &query {
            Some(query) => format!("{path}?{query}"),
            None => path.clone(),
        };
        let line = |(name, value): &(String, String)| format!("{name}: {value}\r\n");
        let lines: String = fields.iter().map(line).collect();
        let head = accepted(&format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        prop_assert_eq!(head.method.as_str(), method);
        prop_assert_eq!(head.path, path);
        prop_assert_eq!(head.query, query);
        let got: Vec<_> = head
            .headers
            .iter()
            .skip(1)
            .map(|(name, value)| (name.to_owned(), String::from_utf8(value.to_vec()).unwrap()))
            .collect();
        prop_assert_eq!(got, fields);
    }
}
