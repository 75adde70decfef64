//! Goal: headers of uploads mean one thing, and checksums are those of the standards.
//! Method: tables; digests of `123456789` from the standards' own test vectors.
#![allow(clippy::unwrap_used)]

use proxy_core::extent::{Extent, Extents};
use proxy_wire::checksum::{Checksum, ChecksumError};
use proxy_wire::part::{self, PartError};
use proxy_wire::tus::{self, Concat};
use proxy_wire::{checksum, cors, draft};

#[test]
fn checksums_hold_for_the_bytes_and_for_no_others() {
    for header in [
        "sha1 98O8HYCOBHMq32eZZczDTKeuNEE=",
        "sha256 FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
        "md5 JfnnlDI7RTiF9RgfG2JNCw==",
        "crc32c 4waSgw==",
        "  SHA1   98O8HYCOBHMq32eZZczDTKeuNEE= ",
    ] {
        for cut in 0..=9 {
            let mut sum = Checksum::parse(header.as_bytes()).unwrap();
            assert!(!sum.holds(), "{header} of nothing");
            sum.update(&b"123456789"[..cut]);
            sum.update(&b"123456789"[cut..]);
            assert!(sum.holds(), "{header} cut at {cut}");
            sum.update(b"x");
            assert!(!sum.holds(), "{header} of more");
        }
    }
    // BLAKE3 of nothing, from its reference vectors.
    let mut sum = Checksum::parse(b"blake3 rxNJufX5oaagQE3qNtzJSZvLJcmtwRK3zJqTyuQfMmI=").unwrap();
    assert!(sum.holds());
    sum.update(b"x");
    assert!(!sum.holds());
}

#[test]
fn what_is_no_checksum_is_refused() {
    for (header, want) in [
        ("", ChecksumError::Malformed),
        ("sha1", ChecksumError::Malformed),
        ("sha1 *", ChecksumError::Malformed),
        ("sha512 AAAA", ChecksumError::Unsupported),
        ("sha-1 AAAA", ChecksumError::Unsupported),
        ("sha1 AAAA", ChecksumError::WrongLength),
        ("crc32c AAAAAAAA", ChecksumError::WrongLength),
    ] {
        let got = Checksum::parse(header.as_bytes()).map(drop);
        assert_eq!(got, Err(want), "{header:?}");
    }
    assert_eq!(checksum::names(), "sha1,sha256,md5,crc32c,blake3");
}

#[test]
fn places_of_parts() {
    let outside = Err(PartError::Outside { size: 100 });
    let malformed = Err(PartError::Malformed);
    for (value, want) in [
        ("bytes 0-99/100", Ok(Extent::new(0, 100))),
        ("bytes 0-0/100", Ok(Extent::new(0, 1))),
        ("Bytes 99-99/*", Ok(Extent::new(99, 100))),
        (" bytes\t5-6/100 ", Ok(Extent::new(5, 7))),
        ("bytes 0-99/101", outside),
        ("bytes 0-9/10", outside),
        ("bytes 0-100/*", outside),
        ("bytes 0-100/100", malformed),
        ("bytes 6-5/100", malformed),
        ("bytes=0-9/100", malformed),
        ("bytes 0-9", malformed),
        ("bytes */100", malformed),
        ("bytes +0-9/100", malformed),
        ("bytes 0-9/", malformed),
        ("bytes 0-18446744073709551616/*", malformed),
        ("bytes", malformed),
        ("", malformed),
    ] {
        assert_eq!(
            part::parse_content_range(value.as_bytes(), 100),
            want,
            "{value:?}"
        );
    }
}

#[test]
fn durable_ranges_are_told_inclusive() {
    let ranges: Extents = [(0, 100), (200, 300)]
        .map(Extent::from)
        .into_iter()
        .collect();
    assert_eq!(
        part::upload_ranges(&ranges).as_deref(),
        Some("bytes=0-99,200-299")
    );
    assert_eq!(part::upload_ranges(&Extents::default()), None);
}

#[test]
fn concatenations() {
    let whole = |list: &[&str]| {
        Some(Concat::Final(
            list.iter().map(ToString::to_string).collect(),
        ))
    };
    for (value, want) in [
        ("partial", Some(Concat::Partial)),
        (" partial ", Some(Concat::Partial)),
        ("final;/a /b", whole(&["/a", "/b"])),
        (
            "final; http://h/a?x=1   /b",
            whole(&["http://h/a?x=1", "/b"]),
        ),
        ("final;", None),
        ("final", None),
        ("Partial", None),
        ("", None),
    ] {
        assert_eq!(tus::parse_concat(value.as_bytes()), want, "{value:?}");
    }
    assert_eq!(tus::query_of("http://h/upload?a=1&b=2#c"), Some("a=1&b=2"));
    assert_eq!(tus::query_of("/upload"), None);
}

#[test]
fn metadata_is_keys_with_values_in_base64() {
    for (value, good) in [
        ("filename dGVzdA==", true),
        ("filename dGVzdA==,is_confidential", true),
        ("a YQ==, b YQ==", true),
        ("a YQ==,a YQ==", false),
        (",", false),
        ("a ***", false),
        ("\u{e9} YQ==", false),
    ] {
        assert_eq!(
            tus::check_metadata(value.as_bytes()).is_some(),
            good,
            "{value:?}"
        );
    }
    let long = format!("a {}", "YWFh".repeat(2000));
    assert!(tus::check_metadata(long.as_bytes()).is_none());
}

#[test]
fn lengths_are_digits() {
    for (value, want) in [
        ("0", Some(0)),
        (" 10 ", Some(10)),
        ("-1", None),
        ("+1", None),
        ("1_0", None),
        ("18446744073709551616", None),
        ("", None),
    ] {
        assert_eq!(tus::parse_length(value.as_bytes()), want, "{value:?}");
    }
}

#[test]
fn words_of_the_draft() {
    assert_eq!(draft::parse_bool(b" ?1 "), Some(true));
    assert_eq!(draft::parse_bool(b"?0"), Some(false));
    assert_eq!(draft::parse_bool(b"true"), None);
    assert!(draft::is_partial_upload(b"application/partial-upload; x=1"));
    assert!(!draft::is_partial_upload(
        b"application/offset+octet-stream"
    ));
    assert_eq!(draft::limit(10, Some(5)), "max-size=10, max-age=5");
    let mut interim = Vec::new();
    draft::interim("/upload?a\r\nX: y", "max-size=1").write_to(&mut interim);
    let interim = String::from_utf8(interim).unwrap();
    assert!(interim.starts_with("HTTP/1.1 104 Upload Resumption Supported\r\n"));
    assert!(
        interim.contains("\r\nLocation: /upload?aX: y\r\n"),
        "{interim:?}"
    );
    assert!(interim.ends_with("\r\n\r\n"));
}

#[test]
fn a_preflight_is_granted_what_it_asks_for_and_we_know() {
    use proxy_wire::head::{Parsed, parse};
    use proxy_wire::limits::HeadLimits;
    let plain = "Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset, Content-Type";
    for (asked, want) in [
        (None, plain.to_owned()),
        (Some("tus-resumable"), plain.to_owned()),
        (Some("x-other"), plain.to_owned()),
        (
            Some("upload-concat,upload-length"),
            format!("{plain}, Upload-Concat"),
        ),
    ] {
        let line = asked.map(|names| format!("Access-Control-Request-Headers: {names}\r\n"));
        let text = format!(
            "OPTIONS /upload HTTP/1.1\r\nHost: h\r\n{}\r\n",
            line.unwrap_or_default()
        );
        let parsed = parse(text.as_bytes(), &HeadLimits::default()).unwrap();
        let Parsed::Complete { head, .. } = parsed else {
            panic!("{parsed:?}");
        };
        assert_eq!(cors::upload_allowed(&head.headers), want, "{asked:?}");
    }
}
