//! Dates, entity tags, conditions, ranges and multipart bodies. Goal: a client that resumes
//! gets the right bytes of the right version. Method: tables from the RFC and from what the
//! original was seen to answer; random ranges against a model that marks bytes.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proxy_core::units::{ByteLen, Offset};
use proxy_wire::byteranges::Multipart;
use proxy_wire::condition::{Outcome, Representation, evaluate};
use proxy_wire::head::{Headers, Method};
use proxy_wire::limits::RangeLimits;
use proxy_wire::range::{self, RangeOutcome, Span};
use proxy_wire::{date, etag};

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the RFC's example.
const EXAMPLE_S: i64 = 784_111_777;

#[track_caller]
fn check_date(unix_s: i64, text: &str) {
    assert_eq!(date::format(unix_s), text);
    assert_eq!(date::parse(text.as_bytes()), Some(unix_s), "{text}");
}

#[test]
fn dates_are_written_and_read() {
    check_date(EXAMPLE_S, "Sun, 06 Nov 1994 08:49:37 GMT");
    check_date(0, "Thu, 01 Jan 1970 00:00:00 GMT");
    check_date(-1, "Wed, 31 Dec 1969 23:59:59 GMT");
    check_date(951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT");
    check_date(4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT");
    check_date(253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT");
    assert_eq!(date::format(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    assert_eq!(date::format(i64::MIN), "Mon, 01 Jan 0001 00:00:00 GMT");
}

#[track_caller]
fn check_parse(text: &str, want: Option<i64>) {
    assert_eq!(date::parse(text.as_bytes()), want, "{text}");
}

#[test]
fn old_forms_are_read_and_others_are_not() {
    check_parse("Sunday, 06-Nov-94 08:49:37 GMT", Some(EXAMPLE_S));
    check_parse("Sun Nov  6 08:49:37 1994", Some(EXAMPLE_S));
    check_parse("Sun Nov 16 08:49:37 1994", Some(EXAMPLE_S + 10 * 86_400));
    check_parse("Thursday, 01-Jan-70 00:00:00 GMT", Some(0));
    check_parse(
        "Tuesday, 31-Dec-69 00:00:00 GMT",
        date::parse(b"Tue, 31 Dec 2069 00:00:00 GMT"),
    );
    check_parse(
        "Fri, 30 Jun 2017 23:59:60 GMT",
        date::parse(b"Fri, 30 Jun 2017 23:59:59 GMT"),
    );
    // The day name need not fit.
    check_parse("Mon, 06 Nov 1994 08:49:37 GMT", Some(EXAMPLE_S));
    for text in [
        "",
        "0",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Tue, 29 Feb 2100 00:00:00 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Son, 06 Nov 1994 08:49:37 GMT",
        "Sun, +6 Nov 1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov",
        "\u{e4}\u{e4}\u{e4}\u{e4}",
        "\"a-b\"",
    ] {
        check_parse(text, None);
    }
}

#[test]
fn last_modified_is_rounded_up() {
    assert_eq!(date::last_modified(10, 0), 10);
    assert_eq!(date::last_modified(10, 1), 11);
    assert_eq!(date::last_modified(-10, 999_999_999), -9);
    assert_eq!(date::last_modified(i64::MAX, 1), i64::MAX);
}

#[test]
fn tags_name_time_and_size() {
    assert_eq!(etag::make(1, 1, 255), "\"3b9aca01-ff\"");
    assert_eq!(etag::make(0, 0, 0), "\"0-0\"");
    assert_eq!(etag::make(-1, 999_999_999, 1), "\"-1-1\"");
    assert_eq!(etag::make(i64::MAX, 0, u64::MAX).len(), 43);
}

#[track_caller]
fn check_tags(list: &str, want: &[&str]) {
    let got: Vec<String> = etag::tags(list.as_bytes())
        .map(|tag| {
            let quoted = String::from_utf8_lossy(tag.quoted);
            if tag.weak {
                format!("W/{quoted}")
            } else {
                quoted.into_owned()
            }
        })
        .collect();
    assert_eq!(got, want, "{list}");
}

#[test]
fn tag_lists_are_read_up_to_their_first_fault() {
    check_tags("", &[]);
    check_tags("\"a\"", &["\"a\""]);
    check_tags("\"a,b\" ,W/\"c\"", &["\"a,b\"", "W/\"c\""]);
    check_tags(", ,\"a\",, \"\"", &["\"a\"", "\"\""]);
    check_tags("\"a\" \"b\"", &["\"a\""]);
    check_tags("a, \"b\"", &[]);
    check_tags("\"a", &[]);
    check_tags("w/\"a\"", &[]);
    check_tags("\"a b\"", &[]);
}

/// The file of the condition tests: modified half a second after the example date.
const ETAG: &str = "\"ae1c-64\"";
const FILE: Representation<'_> = Representation {
    etag: ETAG,
    mtime_s: EXAMPLE_S,
    mtime_ns: 500_000_000,
    size: 100,
};
const BEFORE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
/// What `Last-Modified` says.
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

const RANGE: Outcome = Outcome::Proceed { honour_range: true };
const WHOLE: Outcome = Outcome::Proceed {
    honour_range: false,
};

fn headers(fields: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.append(name, value.as_bytes());
    }
    headers
}

#[track_caller]
fn check_condition(fields: &[(&str, &str)], want: Outcome) {
    assert_eq!(
        evaluate(&headers(fields), &FILE, &Method::Get),
        want,
        "{fields:?}"
    );
}

#[test]
fn preconditions() {
    check_condition(&[], RANGE);
    check_condition(&[("if-match", "*")], RANGE);
    check_condition(&[("if-match", ETAG)], RANGE);
    check_condition(&[("if-match", "\"x\""), ("if-match", ETAG)], RANGE);
    check_condition(&[("if-match", "\"x\", \"ae1c-64\"")], RANGE);
    check_condition(&[("if-match", "\"x\"")], Outcome::PreconditionFailed);
    check_condition(
        &[("if-match", "W/\"ae1c-64\"")],
        Outcome::PreconditionFailed,
    );
    check_condition(&[("if-match", "ae1c-64")], Outcome::PreconditionFailed);
    check_condition(&[("if-match", "")], Outcome::PreconditionFailed);
    check_condition(
        &[("if-unmodified-since", BEFORE)],
        Outcome::PreconditionFailed,
    );
    check_condition(&[("if-unmodified-since", AFTER)], RANGE);
    check_condition(&[("if-unmodified-since", "yesterday")], RANGE);
    check_condition(
        &[("if-match", ETAG), ("if-unmodified-since", BEFORE)],
        RANGE,
    );
}

#[test]
fn cached_copies() {
    check_condition(&[("if-none-match", ETAG)], Outcome::NotModified);
    check_condition(&[("if-none-match", "W/\"ae1c-64\"")], Outcome::NotModified);
    check_condition(&[("if-none-match", "*")], Outcome::NotModified);
    check_condition(&[("if-none-match", "\"x\"")], RANGE);
    check_condition(&[("if-modified-since", AFTER)], Outcome::NotModified);
    check_condition(&[("if-modified-since", BEFORE)], RANGE);
    check_condition(&[("if-modified-since", "x")], RANGE);
    check_condition(
        &[("if-modified-since", AFTER), ("if-modified-since", AFTER)],
        RANGE,
    );
    check_condition(
        &[("if-none-match", "\"x\""), ("if-modified-since", AFTER)],
        RANGE,
    );
    check_condition(
        &[("if-match", "\"x\""), ("if-none-match", ETAG)],
        Outcome::PreconditionFailed,
    );
}

#[test]
fn ranges_are_of_one_version() {
    check_condition(&[("if-range", ETAG)], RANGE);
    check_condition(&[("if-range", AFTER)], RANGE);
    check_condition(&[("if-range", BEFORE)], WHOLE);
    check_condition(&[("if-range", "\"x\"")], WHOLE);
    check_condition(&[("if-range", "W/\"ae1c-64\"")], WHOLE);
    check_condition(&[("if-range", "*")], WHOLE);
    check_condition(&[("if-range", "\"x\", \"ae1c-64\"")], WHOLE);
    check_condition(&[("if-range", "garbage")], WHOLE);
    check_condition(&[("if-range", "")], WHOLE);
    check_condition(&[("if-range", ETAG), ("if-range", ETAG)], WHOLE);
    check_condition(
        &[("if-range", ETAG), ("if-none-match", ETAG)],
        Outcome::NotModified,
    );
}

#[test]
fn methods_other_than_get() {
    let fresh = headers(&[("if-none-match", ETAG)]);
    assert_eq!(evaluate(&fresh, &FILE, &Method::Head), Outcome::NotModified);
    assert_eq!(
        evaluate(&fresh, &FILE, &Method::Put),
        Outcome::PreconditionFailed
    );
    let dated = headers(&[("if-modified-since", AFTER)]);
    assert_eq!(evaluate(&dated, &FILE, &Method::Head), Outcome::NotModified);
    assert_eq!(evaluate(&dated, &FILE, &Method::Put), WHOLE);
    assert_eq!(evaluate(&headers(&[]), &FILE, &Method::Head), WHOLE);
}

fn span(start: u64, len: u64) -> Span {
    Span::new(Offset::new(start), ByteLen::new(len)).unwrap()
}

/// `want`: "whole", "416", or `Content-Range`s without the unit and the length.
#[track_caller]
fn check_range(value: &str, len: u64, want: &str) {
    let len = ByteLen::new(len);
    let got = match range::parse(value.as_bytes(), len, &RangeLimits::default()) {
        RangeOutcome::Whole => "whole".to_owned(),
        RangeOutcome::Unsatisfiable => "416".to_owned(),
        RangeOutcome::One(span) => show(&[span], len),
        RangeOutcome::Many(spans) => show(&spans, len),
    };
    assert_eq!(got, want, "{value:?} of {len:?}");
}

fn show(spans: &[Span], len: ByteLen) -> String {
    let tail = format!("/{}", len.get());
    let one = |span: &Span| {
        let text = span.content_range(len);
        text.strip_prefix("bytes ")
            .unwrap()
            .strip_suffix(&tail)
            .unwrap()
            .to_owned()
    };
    spans.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn single_ranges() {
    check_range("bytes=10-19", 100, "10-19");
    check_range("bytes=0-0", 100, "0-0");
    check_range("bytes=90-", 100, "90-99");
    check_range("bytes=-5", 100, "95-99");
    check_range("bytes=-500", 100, "0-99");
    check_range("bytes=50-200", 100, "50-99");
    check_range("Bytes=0-1", 100, "0-1");
    check_range("bytes=,0-1 ,", 100, "0-1");
    check_range("bytes=0-99999999999999999999999", 100, "0-99");
    check_range("bytes=-99999999999999999999999", 100, "0-99");
    check_range("bytes=5-", u64::MAX, "5-18446744073709551614");
    check_range(
        "bytes=0-18446744073709551615",
        u64::MAX,
        "0-18446744073709551614",
    );
}

#[test]
fn ranges_of_nothing_are_refused() {
    check_range("bytes=-0", 100, "416");
    check_range("bytes=100-", 100, "416");
    check_range("bytes=100-200", 100, "416");
    check_range("bytes=99999999999999999999999-", 100, "416");
    check_range("bytes=100-,200-,-0", 100, "416");
    for value in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"] {
        check_range(value, 0, "416");
    }
}

#[test]
fn malformed_ranges_are_refused_like_by_the_original() {
    for value in [
        "bytes=5-4",
        "bytes=-",
        "bytes=",
        "bytes",
        "",
        "bytes=abc",
        "bytes=1",
        "bytes=a-1",
        "bytes=1-b",
        "bytes=+1-2",
        "bytes=1--2",
        "bytes=--1",
        "bytes=1-2-3",
        "bytes = 0-1",
        "bytes= 0-1",
        "bytes=0 -1",
        "bytes=0- 1",
        "bytes=0-1;2-3",
        "bytes=0-1,x",
        "bytes=0-1,9-8",
        "bytes=\u{661}-2",
        "=0-1",
        "bytes=,",
        "bytes=0x1-2",
    ] {
        check_range(value, 100, "416");
    }
    assert_eq!(
        range::of_request(
            &headers(&[("range", "bytes=0-1"), ("range", "bytes=0-1")]),
            ByteLen::new(100),
            &RangeLimits::default(),
        ),
        RangeOutcome::Unsatisfiable
    );
}

#[test]
fn foreign_units_are_ignored() {
    check_range("items=0-1", 100, "whole");
    check_range("bytes2=x", 100, "whole");
    check_range("items=0-1", 0, "whole");
    let none = range::of_request(&headers(&[]), ByteLen::ZERO, &RangeLimits::default());
    assert_eq!(none, RangeOutcome::Whole);
}

#[test]
fn several_ranges_keep_their_order() {
    check_range("bytes=0-1,5-6", 100, "0-1 5-6");
    check_range("bytes=90-, 0-1,\t-3", 100, "90-99 0-1");
    check_range("bytes=50-59,10-19,-1", 100, "50-59 10-19 99-99");
    check_range("bytes=0-1,100-,5-6", 100, "0-1 5-6");
    check_range("bytes=0-1,100-", 100, "0-1");
}

#[test]
fn ranges_that_overlap_or_touch_become_one() {
    check_range("bytes=0-4,5-9", 100, "0-9");
    check_range("bytes=5-9,0-4", 100, "0-9");
    check_range("bytes=0-5,3-9,20-29", 100, "0-9 20-29");
    check_range("bytes=20-29,0-9,10-19", 100, "0-29");
    check_range("bytes=60-69,0-9,20-29,10-19", 100, "60-69 0-29");
    check_range("bytes=0-0,0-0", 100, "0-0");
    check_range("bytes=0-1,3-4", 100, "0-1 3-4");
}

#[test]
fn abusive_ranges_get_the_whole_file() {
    check_range("bytes=0-,0-,0-", 100, "0-99");
    check_range("bytes=0-,0-,0-,0-", 100, "whole");
    let many = |count: u64| {
        let members: Vec<String> = (0..count).map(|at| format!("{0}-{0}", at * 2)).collect();
        format!("bytes={}", members.join(","))
    };
    assert!(matches!(
        range::parse(many(100).as_bytes(), ByteLen::new(1000), &RangeLimits::default()),
        RangeOutcome::Many(spans) if spans.len() == 100
    ));
    check_range(&many(101), 1000, "whole");
    check_range(&format!("{},x", many(101)), 1000, "416");
}

#[test]
fn spans_are_never_empty_and_never_overflow() {
    let new = |start, len| Span::new(Offset::new(start), ByteLen::new(len));
    assert_eq!(new(5, 0), None);
    assert_eq!(new(u64::MAX, 1), None);
    assert_eq!(new(u64::MAX - 1, 1).unwrap().end(), Offset::new(u64::MAX));
    assert_eq!(range::content_range_unsatisfied(ByteLen::ZERO), "bytes */0");
}

#[test]
fn multipart_bodies_have_the_announced_length() {
    let spans = [span(95, 5), span(0, 10)];
    let frame = Multipart::new(0xabc, "application/octet-stream", ByteLen::new(100));
    let boundary = "00000000000000000000000000000abc";
    let want_type = format!("multipart/byteranges; boundary={boundary}");
    assert_eq!(frame.content_type(), want_type);
    let mut body = Vec::new();
    for (span, data) in spans.iter().zip(["vwxyz", "0123456789"]) {
        frame.part_head(span, &mut body);
        body.extend_from_slice(data.as_bytes());
    }
    frame.end(&mut body);
    let part = |range: &str, data: &str| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {range}/100\r\n\r\n{data}"
        )
    };
    let want =
        part("95-99", "vwxyz") + &part("0-9", "0123456789") + &format!("\r\n--{boundary}--\r\n");
    assert_eq!(String::from_utf8(body).unwrap(), want);
    assert_eq!(
        frame.content_length(&spans),
        Some(ByteLen::new(want.len() as u64))
    );
    let huge = [span(0, u64::MAX), span(0, 1)];
    assert_eq!(frame.content_length(&huge), None);
}

/// One well-formed range of a header, as numbers.
fn any_range() -> impl Strategy<Value = (Option<u64>, Option<u64>)> {
    prop_oneof![
        (0..40_u64, 0..20_u64).prop_map(|(first, more)| (Some(first), Some(first + more))),
        (0..40_u64).prop_map(|first| (Some(first), None)),
        (0..40_u64).prop_map(|suffix| (None, Some(suffix))),
    ]
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

    /// The model: mark every byte that is asked for; the spans must mark the same ones, once.
    #[test]
    fn spans_are_the_bytes_asked_for(
        ranges in prop::collection::vec(any_range(), 1..6),
        len in 0..30_u64,
    ) {
        let text = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
        let member = |&(first, last): &(_, _)| format!("{}-{}", text(first), text(last));
        let members: Vec<String> = ranges.iter().map(member).collect();
        let value = format!("bytes={}", members.join(","));
        let mut wanted = vec![0_u8; len as usize];
        for at in 0..len {
            let inside = |range: &(Option<u64>, Option<u64>)| match range {
                (Some(first), last) => *first <= at && last.is_none_or(|last| at <= last),
                (None, suffix) => len <= at + suffix.unwrap_or(0),
            };
            wanted[at as usize] = u8::from(ranges.iter().any(inside));
        }
        let limits = RangeLimits { ranges_overlapping_max: 6, ..RangeLimits::default() };
        let spans = match range::parse(value.as_bytes(), ByteLen::new(len), &limits) {
            RangeOutcome::Whole => panic!("{value} ignored"),
            RangeOutcome::Unsatisfiable => vec![],
            RangeOutcome::One(span) => vec![span],
            RangeOutcome::Many(spans) => spans,
        };
        let mut marked = vec![0_u8; len as usize];
        for span in &spans {
            for at in span.start().get()..span.end().get() {
                marked[at as usize] += 1;
            }
        }
        prop_assert_eq!(marked, wanted, "{}", value);
    }

    #[test]
    fn dates_come_back(unix_s in -62_135_596_800_i64..=253_402_300_799) {
        let text = date::format(unix_s);
        prop_assert_eq!(text.len(), 29);
        prop_assert_eq!(date::parse(text.as_bytes()), Some(unix_s));
    }

    #[test]
    fn random_values_never_panic(value in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = date::parse(&value);
        let _ = etag::tags(&value).count();
        let _ = range::parse(&value, ByteLen::new(10), &RangeLimits::default());
        let bytes_range = [b"bytes=", &value[..]].concat();
        let _ = range::parse(&bytes_range, ByteLen::new(10), &RangeLimits::default());
    }
}
