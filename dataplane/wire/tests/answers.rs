//! Query strings, upload offsets, and what is written into answers. Goal: what the original's
//! clients send is understood, and nothing they send can forge a header. Method: tables; random
//! names and values read back by a strict reader.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proxy_core::grammar::{parse_query, to_bool_text};
use proxy_core::units::{ByteLen, Offset};
use proxy_wire::cors::{self, PreflightError};
use proxy_wire::disposition;
use proxy_wire::head::{Headers, Method, Version};
use proxy_wire::query::{ArchiveParams, DownloadParams, UploadParams, expect_none};
use proxy_wire::response::{self, ResponseHead};
use proxy_wire::tus::{self, NotAnInteger, UploadOffset};

#[track_caller]
fn check_pairs(query: &str, want: &[(&str, &str)]) {
    let got: Vec<_> = parse_query(query);
    let want: Vec<_> = want
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    assert_eq!(got, want, "{query}");
}

#[test]
fn queries_are_decoded() {
    check_pairs("", &[]);
    check_pairs("a=1&b=2", &[("a", "1"), ("b", "2")]);
    check_pairs("a=1&a=2", &[("a", "1"), ("a", "2")]);
    check_pairs("a&&=&b=", &[("a", ""), ("", ""), ("b", "")]);
    check_pairs("a=b=c", &[("a", "b=c")]);
    check_pairs("a+b=c%20d%2Be", &[("a b", "c d+e")]);
    check_pairs("a=%ED%95%9C&%62=한", &[("a", "한"), ("b", "한")]);
    check_pairs(
        "a=%&b=%4&c=%zz&d=%ff",
        &[("a", "%"), ("b", "%4"), ("c", "%zz"), ("d", "\u{fffd}")],
    );
    check_pairs("a=1;b=2", &[("a", "1;b=2")]);
}

/// `want`: what `Debug` shows of the parameters, or the failures as `key: text` lines.
#[track_caller]
fn check_download(query: &str, want: Result<(&str, Option<&str>, bool, bool), &str>) {
    let got = DownloadParams::parse(Some(query));
    let got = got
        .as_ref()
        .map(|p| {
            (
                p.token.as_str(),
                p.dst_dir.as_deref(),
                p.archive,
                p.no_cache,
            )
        })
        .map_err(|failures| shown(failures));
    assert_eq!(got, want.map_err(str::to_owned), "{query}");
}

fn shown(failures: &[(String, String)]) -> String {
    failures
        .iter()
        .map(|(key, text)| format!("{key}: {text}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn download_parameters() {
    check_download("token=t", Ok(("t", None, false, false)));
    check_download("token=t&dst_dir=a%2Fb&archive=True&no_cache=1", {
        Ok(("t", Some("a/b"), true, true))
    });
    check_download("token=t&dst_dir=", Ok(("t", None, false, false)));
    check_download("token=a&token=b", Ok(("a", None, false, false)));
    check_download("token=", Ok(("", None, false, false)));
    check_download("", Err("token: is required"));
    check_download("token=t&x=1&archive=f", {
        Err("archive: value can't be converted to Bool\nx: x is not allowed key")
    });
    check_download("archive=2&no_cache=maybe&b&a", {
        Err(
            "token: is required\narchive: value can't be converted to Bool\n\
             no_cache: value can't be converted to Bool\na: a is not allowed key\n\
             b: b is not allowed key",
        )
    });
    assert_eq!(DownloadParams::parse(None), DownloadParams::parse(Some("")));
}

#[test]
fn parameters_of_the_other_routes() {
    let upload = UploadParams::parse(Some("dst_dir=d&token=t")).unwrap();
    assert_eq!(
        (upload.token.as_str(), upload.dst_dir.as_deref()),
        ("t", Some("d"))
    );
    let failures = UploadParams::parse(Some("archive=1")).unwrap_err();
    assert_eq!(
        shown(&failures),
        "token: is required\narchive: archive is not allowed key"
    );
    assert_eq!(
        ArchiveParams::parse(Some("x=1&token=t")).unwrap().token,
        "t"
    );
    assert_eq!(
        shown(&ArchiveParams::parse(Some("x=1")).unwrap_err()),
        "token: is required"
    );
    assert_eq!(expect_none(None), Ok(()));
    assert_eq!(expect_none(Some("&")), Ok(()));
    assert_eq!(
        shown(&expect_none(Some("q=1")).unwrap_err()),
        "q: q is not allowed key"
    );
}

#[test]
fn failures_of_a_flood_of_keys_are_bounded() {
    let query: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    assert_eq!(expect_none(Some(&query.join("&"))).unwrap_err().len(), 32);
}

#[track_caller]
fn check_bool(text: &str, want: Option<bool>) {
    assert_eq!(to_bool_text(text).ok(), want, "{text:?}");
}

#[test]
fn booleans_are_read_liberally() {
    for text in ["t", "true", "y", "yes", "on", "1", "1.0", " TRUE ", "On\t"] {
        check_bool(text, Some(true));
    }
    for text in [
        "false", "n", "no", "off", "0", "none", "0.0", "False", " NONE",
    ] {
        check_bool(text, Some(false));
    }
    for text in ["f", "", " ", "2", "1.00", "null", "truee", "-1"] {
        check_bool(text, None);
    }
}

#[track_caller]
fn check_offset(text: &str, want: Result<UploadOffset, NotAnInteger>) {
    assert_eq!(tus::parse_offset(text.as_bytes()), want, "{text:?}");
}

#[test]
fn upload_offsets_are_read_as_the_original_did() {
    let at = |number| Ok(UploadOffset::At(Offset::new(number)));
    check_offset("0", at(0));
    check_offset(" 30\t", at(30));
    check_offset("+3_0", at(30));
    check_offset("007", at(7));
    check_offset("-0", at(0));
    check_offset("1_2_3", at(123));
    check_offset("18446744073709551615", at(u64::MAX));
    check_offset("18446744073709551616", Ok(UploadOffset::Nowhere));
    check_offset(&"9".repeat(3000), Ok(UploadOffset::Nowhere));
    check_offset("-1", Ok(UploadOffset::Nowhere));
    check_offset("-99999999999999999999", Ok(UploadOffset::Nowhere));
    for text in [
        "", " ", "+", "-", "_1", "1_", "1__0", "+_1", "- 1", "1 0", "1.0", "0x1", "1e3", "٣",
    ] {
        check_offset(text, Err(NotAnInteger));
    }
    assert!(UploadOffset::At(Offset::new(3)).is_at(Offset::new(3)));
    assert!(!UploadOffset::Nowhere.is_at(Offset::ZERO));
}

#[test]
fn upload_answers_carry_the_protocol() {
    let mut options = ResponseHead::new(200);
    options.extend(cors::UPLOAD_HEADERS);
    options.extend(tus::options_headers(ByteLen::new(107_374_182_400)));
    assert_eq!(options.get("tus-max-size"), Some(&b"107374182400"[..]));
    assert_eq!(options.get("tus-version"), Some(&b"1.0.0"[..]));
    assert_eq!(options.get("access-control-allow-origin"), Some(&b"*"[..]));
    assert_eq!(options.get("access-control-allow-methods"), Some(&b"*"[..]));
    let mut progress = ResponseHead::new(204);
    progress.extend(tus::progress_headers(Offset::new(3), ByteLen::new(10)));
    assert_eq!(progress.get("Upload-Offset"), Some(&b"3"[..]));
    assert_eq!(progress.get("Upload-Length"), Some(&b"10"[..]));
    assert_eq!(progress.get("Cache-Control"), Some(&b"no-store"[..]));
}

#[track_caller]
fn check_disposition(name: &[u8], quoted: &str, percent: &str) {
    let want = format!("attachment;filename=\"{quoted}\"; filename*=UTF-8''{percent}");
    assert_eq!(disposition::attachment(name), want);
}

#[test]
fn names_are_offered_like_by_the_original() {
    check_disposition(b"b.txt", "b.txt", "b.txt");
    check_disposition("한글.bin".as_bytes(), ".bin", "%ED%95%9C%EA%B8%80.bin");
    check_disposition("my \"x\" é.zip".as_bytes(), "my \\\"x\\\" .zip", {
        "my%20%22x%22%20%C3%A9.zip"
    });
    check_disposition(b"it's", "it's", "it%27s");
    check_disposition(b"p+q r.txt", "p+q r.txt", "p%2Bq%20r.txt");
    check_disposition(b"a_b-c~d/e", "a_b-c~d/e", "a_b-c~d/e");
    check_disposition(b"a\\b", "a\\b", "a%5Cb");
}

#[test]
fn hostile_names_stay_inside_their_quotes() {
    check_disposition(
        b"a\r\nSet-Cookie: x",
        "a__Set-Cookie: x",
        "a%0D%0ASet-Cookie%3A%20x",
    );
    check_disposition(b"\t\x7f\0", "___", "%09%7F%00");
    check_disposition(b"a\\", "a\\\\", "a%5C");
    check_disposition(b"a\\\"b", "a\\\\\\\"b", "a%5C%22b");
    check_disposition(b"\xff\xfe.bin", ".bin", "%EF%BF%BD%EF%BF%BD.bin");
    check_disposition(b"", "", "");
}

fn headers(fields: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.append(name, value.as_bytes());
    }
    headers
}

#[track_caller]
fn check_preflight(fields: &[(&str, &str)], want: Result<&str, PreflightError>) {
    let got = cors::preflight(&headers(fields)).map(|granted| {
        let line = |(name, value): (&str, Vec<u8>)| {
            format!("{name}: {}", String::from_utf8(value).unwrap())
        };
        granted.into_iter().map(line).collect::<Vec<_>>().join("\n")
    });
    assert_eq!(got, want.map(str::to_owned), "{fields:?}");
}

#[test]
fn preflights_are_granted() {
    const METHOD: (&str, &str) = ("access-control-request-method", "POST");
    const ORIGIN: (&str, &str) = ("origin", "https://ui.example");
    let granted = "Access-Control-Allow-Origin: https://ui.example\n\
                   Access-Control-Allow-Credentials: true\n\
                   Access-Control-Allow-Methods: POST\n";
    let tail = "Access-Control-Max-Age: 7200\nVary: Origin";
    check_preflight(&[ORIGIN, METHOD], Ok(&format!("{granted}{tail}")));
    let names = (
        "access-control-request-headers",
        "x-b, range,X-B,,bad name,if-range",
    );
    let listed = "Access-Control-Allow-Headers: IF-RANGE,RANGE,X-B\n";
    check_preflight(
        &[ORIGIN, METHOD, names],
        Ok(&format!("{granted}{listed}{tail}")),
    );
    check_preflight(&[METHOD], Err(PreflightError::OriginMissing));
    check_preflight(&[ORIGIN], Err(PreflightError::MethodMissing));
    check_preflight(&[ORIGIN, ("access-control-request-method", "a b")], {
        Err(PreflightError::MethodMissing)
    });
    check_preflight(&[], Err(PreflightError::OriginMissing));
    assert_eq!(PreflightError::MethodMissing.status(), 403);
    assert_eq!(
        PreflightError::MethodMissing.text(),
        "CORS preflight request failed: 'Access-Control-Request-Method' header is not specified"
    );
}

#[test]
fn answers_expose_what_they_carry() {
    let mut answer = ResponseHead::new(206)
        .with("Content-Type", "application/octet-stream")
        .with("Etag", "\"1-1\"")
        .with("Last-Modified", "x")
        .with("Content-Length", 10)
        .with("Content-Range", "bytes 0-9/10")
        .stamped("now", "storage-proxy");
    let before = answer.clone();
    cors::expose(&mut answer, Some(b"https://a"));
    assert_eq!(
        answer.get("access-control-expose-headers"),
        Some(&b"Etag,Content-Length,Content-Range,Date,Server"[..])
    );
    assert_eq!(
        answer.get("access-control-allow-origin"),
        Some(&b"https://a"[..])
    );
    assert_eq!(
        answer.get("access-control-allow-credentials"),
        Some(&b"true"[..])
    );
    assert_eq!(answer.get("vary"), Some(&b"Origin"[..]));
    let mut without = before.clone();
    cors::expose(&mut without, None);
    assert_eq!(without, before.with("Vary", "Origin"));
}

#[track_caller]
fn check_written(head: &ResponseHead, want: &str) {
    let mut out = b"earlier".to_vec();
    head.write_to(&mut out);
    assert_eq!(String::from_utf8(out).unwrap(), format!("earlier{want}"));
}

#[test]
fn heads_are_written_as_pushed() {
    let head = ResponseHead::new(200)
        .with("Content-Length", 0)
        .with("Etag", String::from("\"a-b\""))
        .stamped("Sun, 06 Nov 1994 08:49:37 GMT", "storage-proxy")
        .connection(Version::Http11, true);
    check_written(
        &head,
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nEtag: \"a-b\"\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: storage-proxy\r\n\r\n",
    );
    let closing = ResponseHead::new(431).connection(Version::Http11, false);
    check_written(
        &closing,
        "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n",
    );
    let old = ResponseHead::new(299).connection(Version::Http10, true);
    check_written(&old, "HTTP/1.1 299 \r\nConnection: keep-alive\r\n\r\n");
}

#[test]
fn values_cannot_end_their_line() {
    let head = ResponseHead::new(200).with("X-A", "a\r\nX-B: c\0\u{7f}\td\u{e9}");
    check_written(
        &head,
        "HTTP/1.1 200 OK\r\nX-A: a  X-B: c  \td\u{e9}\r\n\r\n",
    );
}

#[test]
fn some_answers_have_no_body() {
    for (method, status, want) in [
        (Method::Get, 200, true),
        (Method::Get, 404, true),
        (Method::Head, 200, false),
        (Method::Head, 404, false),
        (Method::Patch, 204, false),
        (Method::Get, 304, false),
        (Method::Get, 100, false),
    ] {
        assert_eq!(
            response::has_body(&method, status),
            want,
            "{method:?} {status}"
        );
    }
}

/// Reads a quoted string the way a strict recipient does, and gives what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut inner = String::new();
    let mut letters = text.strip_prefix('"')?.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((inner, &text[at + 2..])),
            '\\' => inner.push(letters.next()?.1),
            _ => inner.push(letter),
        }
    }
    None
}

proptest! {
    // Nothing is written beside the sources: a failing case is printed, and belongs in a table.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_never_leave_their_quotes(name in prop::collection::vec(
        prop_oneof![any::<u8>(), prop::sample::select(b"\\\"\r\n;=a".to_vec())], 0..30,
    )) {
        let value = disposition::attachment(&name);
        prop_assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        let (_, rest) = unquote(value.strip_prefix("attachment;filename=").unwrap()).unwrap();
        let percent = rest.strip_prefix("; filename*=UTF-8''").unwrap();
        let decoded = percent_encoding::percent_decode_str(percent).decode_utf8().unwrap();
        prop_assert_eq!(decoded, String::from_utf8_lossy(&name));
    }

    #[test]
    fn values_never_forge_lines(value in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut out = Vec::new();
        ResponseHead::new(200).with("X-A", value.as_slice()).with("X-B", "b").write_to(&mut out);
        let mut fields = [httparse::EMPTY_HEADER; 4];
        let mut read = httparse::Response::new(&mut fields);
        prop_assert_eq!(read.parse(&out), Ok(httparse::Status::Complete(out.len())));
        prop_assert_eq!(read.headers.len(), 2);
        prop_assert_eq!(read.headers[1].name, "X-B");
    }

    #[test]
    fn queries_never_panic(query in ".{0,60}") {
        let _ = DownloadParams::parse(Some(&query));
    }
}
