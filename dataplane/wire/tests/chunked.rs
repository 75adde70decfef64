//! Chunked bodies. Goal: the same data and the same end, however the bytes arrive.
//! Method: tables, each body decoded whole, byte by byte, and with data received elsewhere;
//! random bodies with random cuts; random bytes.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proxy_wire::chunked::{ChunkError, ChunkLimits, Decoder, Step};

/// What a body came to: its data, and the bytes taken if it ended.
#[derive(Debug, PartialEq, Eq)]
struct Body {
    data: Vec<u8>,
    ended_at: Option<usize>,
}

const SMALL: ChunkLimits = ChunkLimits {
    extension_bytes_max: 8,
    trailer_bytes_max: 16,
};

/// Decodes `bytes` in pieces that end at `cuts`. With `outside`, data that the decoder promises
/// is taken without showing it to the decoder.
fn decode(bytes: &[u8], cuts: &[usize], outside: bool) -> Result<Body, ChunkError> {
    let mut decoder = Decoder::new(SMALL);
    let mut body = Body {
        data: Vec::new(),
        ended_at: None,
    };
    let mut at = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        while at < end {
            if outside && 0 < decoder.remaining_in_chunk() {
                let taken = decoder.remaining_in_chunk().min((end - at) as u64);
                decoder.advance_data(taken);
                body.data.extend_from_slice(&bytes[at..at + taken as usize]);
                at += taken as usize;
                continue;
            }
            match decoder.decode(&bytes[at..end])? {
                Step::NeedMore { consumed } => {
                    assert_eq!(consumed, end - at, "framing left over");
                    at = end;
                }
                Step::Data { consumed, data } => {
                    assert_eq!(consumed, data.end);
                    assert!(!data.is_empty());
                    body.data.extend_from_slice(&bytes[at..end][data]);
                    at += consumed;
                }
                Step::End { consumed } => {
                    assert!(decoder.is_ended());
                    assert_eq!(decoder.decode(b"more"), Ok(Step::End { consumed: 0 }));
                    body.ended_at = Some(at + consumed);
                    return Ok(body);
                }
            }
        }
    }
    assert!(!decoder.is_ended());
    Ok(body)
}

/// Decodes in every way there is, which must agree.
#[track_caller]
fn decode_all_ways(bytes: &[u8]) -> Result<Body, ChunkError> {
    let shown = String::from_utf8_lossy(bytes);
    let whole = decode(bytes, &[], false);
    let each: Vec<usize> = (1..bytes.len()).collect();
    assert_eq!(
        decode(bytes, &each, false),
        whole,
        "byte by byte: {shown:?}"
    );
    assert_eq!(decode(bytes, &[], true), whole, "data outside: {shown:?}");
    assert_eq!(
        decode(bytes, &each, true),
        whole,
        "data outside, byte by byte: {shown:?}"
    );
    for cut in 1..bytes.len() {
        assert_eq!(
            decode(bytes, &[cut], false),
            whole,
            "cut at {cut}: {shown:?}"
        );
    }
    whole
}

#[track_caller]
fn check_body(bytes: &str, data: &str, rest: &str) {
    let want = Body {
        data: data.into(),
        ended_at: Some(bytes.len() - rest.len()),
    };
    assert_eq!(decode_all_ways(bytes.as_bytes()), Ok(want), "{bytes:?}");
}

#[track_caller]
fn check_unfinished(bytes: &str, data: &str) {
    let want = Body {
        data: data.into(),
        ended_at: None,
    };
    assert_eq!(decode_all_ways(bytes.as_bytes()), Ok(want), "{bytes:?}");
}

#[track_caller]
fn check_refused(bytes: &str, want: ChunkError) {
    assert_eq!(decode_all_ways(bytes.as_bytes()), Err(want), "{bytes:?}");
}

#[test]
fn bodies_are_decoded() {
    check_body("0\r\n\r\n", "", "");
    check_body("5\r\nhello\r\n0\r\n\r\n", "hello", "");
    check_body(
        "5\r\nhello\r\nA\r\n, world!!\n\r\n0\r\n\r\n",
        "hello, world!!\n",
        "",
    );
    check_body("0000000000000003\r\n\r\n\n\r\n000\r\n\r\n", "\r\n\n", "");
    check_body(
        "1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
        "a",
        "GET / HTTP/1.1\r\n",
    );
}

#[test]
fn extensions_and_trailers_are_ignored() {
    check_body("1;a=b\r\nx\r\n0;c\r\n\r\n", "x", "");
    check_body("1 \t;\"\r\nx\r\n0\r\n\r\n", "x", "");
    check_body("0\r\nA: b\r\n\r\n", "", "");
    check_body("0\r\nA:\r\nB-c: d\r\n\r\nrest", "", "rest");
}

#[test]
fn a_body_without_its_end_is_not_over() {
    check_unfinished("", "");
    check_unfinished("5", "");
    check_unfinished("5\r\nhel", "hel");
    check_unfinished("5\r\nhello\r", "hello");
    check_unfinished("5\r\nhello\r\n0\r\n", "hello");
    check_unfinished("0\r\nA: b\r\n\r", "");
}

#[test]
fn whatever_has_two_readings_is_refused() {
    for (bytes, want) in [
        ("\r\n", ChunkError::Size),
        ("g\r\n", ChunkError::Size),
        ("-1\r\n", ChunkError::Size),
        ("+1\r\n", ChunkError::Size),
        ("0x1\r\n", ChunkError::Size),
        (" 1\r\n", ChunkError::Size),
        ("1 \r\n", ChunkError::Size),
        ("1 1\r\n", ChunkError::Size),
        ("1_0\r\n", ChunkError::Size),
        ("1\0\r\n", ChunkError::Size),
        ("1\n", ChunkError::LineEnding),
        ("1\rx", ChunkError::LineEnding),
        ("1\r\nab", ChunkError::LineEnding),
        ("1\r\na\n", ChunkError::LineEnding),
        ("1\r\na\rb", ChunkError::LineEnding),
        ("1;a\nb\r\n", ChunkError::LineEnding),
        ("1;a\rb\r\n", ChunkError::LineEnding),
        ("1;a\0\r\n", ChunkError::Extension),
        ("1;\u{7f}\r\n", ChunkError::Extension),
        ("0\r\n\n", ChunkError::Trailer),
        ("0\r\n\rx", ChunkError::LineEnding),
        ("0\r\nA b\r\n", ChunkError::Trailer),
        ("0\r\n A: b\r\n", ChunkError::Trailer),
        ("0\r\nA: b\r\n c\r\n", ChunkError::Trailer),
        ("0\r\n: b\r\n", ChunkError::Trailer),
        ("0\r\nA: \0\r\n", ChunkError::Trailer),
        ("0\r\nA: b\n", ChunkError::LineEnding),
        ("0\r\nA: b\rc", ChunkError::LineEnding),
    ] {
        check_refused(bytes, want);
    }
}

#[test]
fn limits_end_the_body() {
    check_refused("00000000000000001\r\n", ChunkError::SizeTooLarge);
    check_refused("10000000000000000\r\n", ChunkError::SizeTooLarge);
    check_body("1;2345678\r\nx\r\n0\r\n\r\n", "x", "");
    check_refused("1;23456789\r\n", ChunkError::ExtensionsTooLong);
    check_refused(
        "1;234\r\nx\r\n1;234\r\ny\r\n1;\r\n",
        ChunkError::ExtensionsTooLong,
    );
    check_refused("1          ;\r\n", ChunkError::ExtensionsTooLong);
    check_body("0\r\nA:3456789012\r\n\r\n", "", "");
    check_refused(
        "0\r\nA:345678901234567\r\n\r\n",
        ChunkError::TrailersTooLong,
    );
    check_refused(
        "0\r\nA:1\r\nA:1\r\nA:1\r\nA:1\r\n\r\n",
        ChunkError::TrailersTooLong,
    );
}

#[test]
fn the_largest_chunk_is_counted_right() {
    let mut decoder = Decoder::new(ChunkLimits::default());
    assert_eq!(decoder.remaining_in_chunk(), 0);
    let line = b"ffffffffffffffff\r\n";
    assert_eq!(
        decoder.decode(line),
        Ok(Step::NeedMore {
            consumed: line.len()
        })
    );
    assert_eq!(decoder.remaining_in_chunk(), u64::MAX);
    decoder.advance_data(u64::MAX - 1);
    assert_eq!(
        decoder.decode(b"x\r\n0"),
        Ok(Step::Data {
            consumed: 1,
            data: 0..1
        })
    );
    assert_eq!(decoder.remaining_in_chunk(), 0);
    assert_eq!(
        decoder.decode(b"\r\n0\r\n\r\n"),
        Ok(Step::End { consumed: 7 })
    );
}

#[test]
fn an_error_stays() {
    let mut decoder = Decoder::new(ChunkLimits::default());
    assert_eq!(decoder.decode(b"z"), Err(ChunkError::Size));
    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(ChunkError::Size));
    assert_eq!(decoder.remaining_in_chunk(), 0);
    assert_eq!(ChunkError::Size.status(), 400);
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
    #![proptest_config(cases(500))]

    #[test]
    fn sound_bodies_come_back(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in prop::collection::vec(0..400_usize, 0..12),
        rest in prop::collection::vec(any::<u8>(), 0..10),
        outside in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        let ended_at = Some(bytes.len());
        bytes.extend_from_slice(&rest);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let want = Body { data: chunks.concat(), ended_at };
        prop_assert_eq!(decode(&bytes, &cuts, outside), Ok(want));
    }

    #[test]
    fn random_bytes_never_panic(
        bytes in prop::collection::vec(
            prop::sample::select(b"0159aF;: \t\r\n\0\"xg\xff".to_vec()), 0..60,
        ),
    ) {
        let _ = decode_all_ways(&bytes);
    }
}
