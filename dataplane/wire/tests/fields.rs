//! Goal: requests that come as fields mean what the same HTTP/1.1 head means, and no part of one
//! can be read as anything else.
//!
//! Source: RFC 9113 §8.2, §8.3; `proxy_wire::head::from_fields`.

use proptest::prelude::*;
use proxy_wire::head::{
    Framing, HeadError, HeadLimits, Parsed, Pseudo, RequestHead, Version, from_fields, parse,
};

const PLAIN: Pseudo<'_> = Pseudo {
    method: "GET",
    path: "/download?token=x",
    authority: Some("t:1"),
    ends: true,
};

fn made(pseudo: Pseudo<'_>, fields: Lines<'_>) -> Result<RequestHead, HeadError> {
    from_fields(pseudo, fields.iter().copied(), &HeadLimits::default())
}

#[test]
fn fields_mean_what_the_same_head_means() {
    let bytes =
        b"GET /download?token=x HTTP/1.1\r\nHost: t:1\r\nrange: bytes=1-2\r\nx: \xff\r\n\r\n";
    let Ok(Parsed::Complete { mut head, .. }) = parse(bytes, &HeadLimits::default()) else {
        panic!("a good head");
    };
    head.version = Version::Http2;
    let fields: &[(&str, &[u8])] = &[("range", b"bytes=1-2"), ("x", b"\xff")];
    assert_eq!(made(PLAIN, fields), Ok(head.clone()));
    // `Host` may stand for the authority, and beside it when it agrees.
    let without = Pseudo {
        authority: None,
        ..PLAIN
    };
    let host: &[(&str, &[u8])] = &[("host", b"t:1"), fields[0], fields[1]];
    assert_eq!(made(without, host), Ok(head.clone()));
    assert_eq!(made(PLAIN, host), Ok(head));
}

type Lines<'a> = &'a [(&'a str, &'a [u8])];

#[test]
fn the_end_of_the_body_is_known() {
    let open = Pseudo {
        ends: false,
        ..PLAIN
    };
    let expects: Lines<'_> = &[("content-length", b"7"), ("expect", b"100-continue")];
    let length: Lines<'_> = &[("content-length", b"7")];
    let zero: Lines<'_> = &[("content-length", b"0")];
    for (pseudo, fields, framing, expects) in [
        (PLAIN, &[][..], Framing::None, false),
        (PLAIN, zero, Framing::Length(0), false),
        (open, &[], Framing::Chunked, false),
        (open, length, Framing::Length(7), false),
        (open, expects, Framing::Length(7), true),
    ] {
        let head = made(pseudo, fields).expect("a good head");
        assert_eq!((head.framing, head.expect_continue), (framing, expects));
    }
}

#[test]
fn fields_that_could_be_read_twice_are_refused() {
    use HeadError as E;
    let twice: Lines<'_> = &[("content-length", b"1"), ("content-length", b"1")];
    assert_eq!(made(PLAIN, twice), Err(E::LengthRepeated));
    let table: &[(&str, &[u8], E)] = &[
        ("connection", b"close", E::OfAConnection),
        ("transfer-encoding", b"chunked", E::OfAConnection),
        ("upgrade", b"h2c", E::OfAConnection),
        ("keep-alive", b"1", E::OfAConnection),
        ("proxy-connection", b"close", E::OfAConnection),
        ("host", b"u", E::HostRepeated),
        ("x", b"a\r\nhost: u", E::HeaderValue),
        ("x", b"a\0", E::HeaderValue),
        ("x:y", b"a", E::HeaderName),
        ("", b"a", E::HeaderName),
        ("x y", b"a", E::HeaderName),
        ("content-length", b"1, 2", E::LengthInvalid),
    ];
    for (name, value, error) in table {
        assert_eq!(
            made(PLAIN, &[(name, value)]),
            Err(*error),
            "{name:?} {value:?}"
        );
    }
}

#[test]
fn pseudo_fields_that_could_be_read_twice_are_refused() {
    use HeadError as E;
    let table: &[(&str, &str, Option<&str>, E)] = &[
        ("G T", "/", Some("t"), E::Method),
        ("", "/", Some("t"), E::Method),
        ("GET", "/ HTTP/1.1\r\nx: y", Some("t"), E::Target),
        ("GET", "download", Some("t"), E::Target),
        ("GET", "/", Some("a\r\nx: y"), E::HeaderValue),
        ("GET", "/", Some("a b"), E::HostInvalid),
        ("GET", "/", None, E::HostMissing),
    ];
    for &(method, path, authority, error) in table {
        let pseudo = Pseudo {
            method,
            path,
            authority,
            ends: true,
        };
        assert_eq!(made(pseudo, &[]), Err(error), "{pseudo:?}");
    }
}

proptest! {
    /// Whatever the parts are, a head that is made holds these parts and no others.
    #[test]
    fn nothing_is_added_by_any_part(
        method in "[ -~\r\n]{0,8}",
        path in "[ -~\r\n]{0,20}",
        authority in "[ -~\r\n]{0,12}",
        fields in proptest::collection::vec(("[a-z:\r\n -]{0,8}", "[ -~\r\n\t]{0,16}"), 0..6),
    ) {
        let pseudo = Pseudo {
            method: &method,
            path: &path,
            authority: Some(&authority),
            ends: true,
        };
        let given = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        if let Ok(head) = from_fields(pseudo, given, &HeadLimits::default()) {
            prop_assert_eq!(head.method.as_str(), method.as_str());
            let hosts = fields.iter().filter(|(name, _)| name == "host").count();
            prop_assert_eq!(head.headers.iter().count(), fields.len() - hosts + 1);
            let query = head.query.map_or(String::new(), |query| format!("?{query}"));
            let target = head.path + &query;
            prop_assert!(path.ends_with(&target));
        }
    }
}
