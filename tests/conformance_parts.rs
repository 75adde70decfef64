//! Goal: parts of an upload arrive by PUT in any order, over any number of connections, again and
//! again; HEAD tells what is durable; the file appears once, whole.
//! Method: sessions step by step over raw connections; what is refused as a table.
//!
//! Source: RFC 9110 §14.5; `docs/semantics.md#parts`.

use std::time::Duration;

use proxy_testkit::data::{Pattern, Random};
use proxy_testkit::table::Report;
use proxy_testkit::tus::{Upload, offset, ranges};
use proxy_testkit::{Folder, Request, Response, Server, Settings, problem, wait};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const BOUND: Duration = Duration::from_secs(20);
const PATTERN: Pattern = Pattern(5);

fn arrived(folder: &Folder, name: &str, size: u64) {
    let bytes = std::fs::read(folder.at(name)).expect(name);
    assert_eq!(bytes.len() as u64, size, "{name}");
    assert_eq!(PATTERN.mismatch(0, &bytes), None, "{name}");
    assert!(!folder.at(".upload").exists(), "{name}: staging is left");
}

/// The parts of a file of 1,000 bytes, in the order they are sent.
const ORDERS: &[(&str, &[(u64, u64)])] = &[
    ("one", &[(0, 1000)]),
    ("in order", &[(0, 300), (300, 700), (700, 1000)]),
    ("backwards", &[(700, 1000), (300, 700), (0, 300)]),
    ("inside out", &[(300, 700), (0, 300), (700, 1000)]),
    (
        "repeated",
        &[(0, 500), (0, 500), (500, 1000), (500, 1000), (0, 1000)],
    ),
    ("overlapping", &[(100, 600), (0, 200), (500, 1000)]),
    (
        "byte by byte at the end",
        &[(999, 1000), (998, 999), (0, 998)],
    ),
];

#[test]
fn parts_make_a_file_in_any_order() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    for (name, parts) in ORDERS {
        let upload = Upload::begin(&server, &folder, name, 1000);
        let mut there = vec![false; 1000];
        for (from, to) in *parts {
            there[*from as usize..*to as usize].fill(true);
            let whole = there.iter().all(|byte| *byte);
            let answer = upload.part(*from, &PATTERN.bytes(*from, to - from));
            let answer = answer.expect(204);
            let prefix = there.iter().take_while(|byte| **byte).count() as u64;
            assert_eq!(offset(&answer), prefix, "{name}: {answer}");
            assert_eq!(answer.header("Upload-Length"), Some("1000"), "{answer}");
            let told: u64 = ranges(&answer).iter().map(|(from, to)| to - from).sum();
            assert_eq!(told, there.iter().filter(|byte| **byte).count() as u64);
            assert_eq!(folder.at(name).exists(), whole, "{name}");
            assert_eq!(ranges(&answer), upload.ranges(), "{name}");
        }
        arrived(&folder, name, 1000);
        assert_eq!(upload.ranges(), [(0, 1000)]);
    }
    server.finish();
}

#[test]
fn head_tells_the_ranges_and_a_patch_goes_on_from_the_prefix() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 1000);
    assert_eq!(upload.head().expect(200).header("Upload-Ranges"), None);
    let _ = upload.part(400, &PATTERN.bytes(400, 200)).expect(204);
    let _ = upload.patch(0, &PATTERN.bytes(0, 100)).expect(204);
    let head = upload.head().expect(200);
    assert_eq!(head.header("Upload-Ranges"), Some("bytes=0-99,400-599"));
    assert_eq!(offset(&head), 100);
    // A PATCH that reaches a part goes on behind it.
    let answer = upload.patch(100, &PATTERN.bytes(100, 300)).expect(204);
    assert_eq!(offset(&answer), 600);
    let _ = upload.part(900, &PATTERN.bytes(900, 100)).expect(204);
    let answer = upload.patch(600, &PATTERN.bytes(600, 300)).expect(204);
    assert_eq!(offset(&answer), 1000);
    arrived(&folder, "f", 1000);
    server.finish();
}

/// `Content-Range` of a part of ten bytes of an upload of 100, body bytes, and what comes.
type Refused = (&'static str, u64, fn(&Response) -> Result<(), String>);

const REFUSED: &[Refused] = &[
    ("bytes 0-9", 10, |r| {
        problem::typed(r, "InvalidAPIParameters")
    }),
    ("bytes 0-9/", 10, |r| {
        problem::typed(r, "InvalidAPIParameters")
    }),
    ("bytes 9-0/100", 10, |r| {
        problem::typed(r, "InvalidAPIParameters")
    }),
    ("bytes */100", 10, |r| {
        problem::typed(r, "InvalidAPIParameters")
    }),
    ("bytes -9/100", 10, |r| {
        problem::typed(r, "InvalidAPIParameters")
    }),
    ("bytes 0-/100", 10, |r| {
        problem::typed(r, "InvalidAPIParameters")
    }),
    ("bytes 0-9,20-29/100", 10, |r| {
        problem::typed(r, "InvalidAPIParameters")
    }),
    ("lines 0-9/100", 10, |r| {
        problem::typed(r, "InvalidAPIParameters")
    }),
    ("", 10, |r| problem::typed(r, "InvalidAPIParameters")),
    ("bytes 0-9/10", 10, outside),
    ("bytes 0-9/101", 10, outside),
    ("bytes 95-104/105", 10, outside),
    ("bytes 95-104/*", 10, outside),
    ("bytes 0-99999999999999999999/*", 10, |r| {
        problem::typed(r, "InvalidAPIParameters")
    }),
    ("bytes 0-9/100", 9, |r| {
        problem::typed(r, "InvalidDataLength")
    }),
    ("bytes 0-9/100", 11, |r| {
        problem::typed(r, "InvalidDataLength")
    }),
    ("bytes 0-9/100", 0, |r| {
        problem::typed(r, "InvalidDataLength")
    }),
];

fn outside(answer: &Response) -> Result<(), String> {
    let told = answer.header("Content-Range") == Some("bytes */100");
    (answer.status == 416 && told)
        .then_some(())
        .ok_or_else(|| "416".to_owned())
}

#[test]
fn a_part_says_its_place_within_the_size() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 100);
    let mut report = Report::default();
    for (place, length, check) in REFUSED {
        let request = Request::new("PUT", &upload.target()).header("Content-Range", place);
        let answer = request
            .body(&PATTERN.bytes(0, *length))
            .send(server.client());
        let result = check(&answer).map_err(|why| format!("{why}\n{answer}"));
        report.note(&format!("{place:?} with {length}"), result);
    }
    assert!(upload.ranges().is_empty());
    for place in ["bytes 0-9/100", "bytes 10-19/*", " bytes   20-29/100 "] {
        let request = Request::new("PUT", &upload.target()).header("Content-Range", place);
        let at = upload.offset();
        let answer = request.body(&PATTERN.bytes(at, 10)).send(server.client());
        let result = (answer.status == 204).then_some(());
        report.note(place, result.ok_or_else(|| answer.to_string()));
    }
    report.end("places of parts");
    // Without a place it is the method that is wrong, as ever.
    let plain = Request::new("PUT", &upload.target())
        .body(b"x")
        .send(server.client());
    assert_eq!(
        plain.expect(405).header("Allow"),
        Some("HEAD,OPTIONS,PATCH")
    );
    server.finish();
}

#[test]
fn a_chunked_part_has_the_length_of_its_range_or_is_refused() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 100);
    let send = |bytes: &[u8]| {
        Request::new("PUT", &upload.target())
            .header("Content-Range", "bytes 50-59/100")
            .chunked(&[bytes])
            .send(server.client())
    };
    let long = send(&PATTERN.bytes(50, 11));
    problem::typed(&long, "InvalidDataLength").expect("too long");
    assert!(upload.ranges().is_empty(), "nothing of it is kept");
    let short = send(&PATTERN.bytes(50, 7));
    problem::typed(&short, "InvalidDataLength").expect("too short");
    assert_eq!(upload.ranges(), [(50, 57)], "what came is kept");
    let _ = send(&PATTERN.bytes(50, 10)).expect(204);
    assert_eq!(upload.ranges(), [(50, 60)]);
    server.finish();
}

#[test]
fn other_bytes_than_those_on_record_are_refused_and_change_nothing() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 1000);
    let _ = upload.part(0, &PATTERN.bytes(0, 500)).expect(204);
    let mut wrong = PATTERN.bytes(400, 300);
    wrong[50] ^= 1;
    let answer = upload.part(400, &wrong);
    problem::typed(&answer, "UploadPartConflict").expect("refused");
    assert_eq!(upload.ranges(), [(0, 500)]);
    let _ = upload.part(400, &PATTERN.bytes(400, 600)).expect(204);
    arrived(&folder, "f", 1000);
    server.finish();
}

#[test]
fn a_newer_part_ends_an_older_one_that_stalls_on_the_same_bytes_and_no_other() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 3000);
    let begin = |at| {
        let half = PATTERN.bytes(at, 500);
        upload.begin_part(at, 1000, &half).expect("sent")
    };
    let (mut first, mut second) = (begin(0), begin(1000));
    wait::until("both are received", BOUND, || {
        let metrics = server.metrics();
        let received: f64 = metrics
            .lines()
            .filter(|line| line.starts_with("storage_proxy_received_bytes"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        (received >= 1000.0 || !metrics.contains("received_bytes")).then_some(())
    });
    let _ = upload.part(1000, &PATTERN.bytes(1000, 1000)).expect(204);
    let lost = second.answer(false).expect("an answer");
    problem::typed(&lost, "TusLeaseLostError").expect("the older one is told");
    first.write(&PATTERN.bytes(500, 500)).expect("still there");
    let _ = first.answer(false).expect("an answer").expect(204);
    drop((first, second));
    assert_eq!(upload.ranges(), [(0, 2000)]);
    let _ = upload.part(2000, &PATTERN.bytes(2000, 1000)).expect(204);
    arrived(&folder, "f", 3000);
    server.finish();
}

#[test]
fn what_a_broken_part_brought_is_kept() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 1_000_000);
    let sent = PATTERN.bytes(500_000, 200_000);
    drop(upload.begin_part(500_000, 400_000, &sent).expect("sent"));
    let kept = wait::until("some of it is durable", BOUND, || {
        upload.ranges().first().copied()
    });
    assert_eq!(kept.0, 500_000);
    assert!(kept.1 <= 700_000);
    let _ = upload.part(0, &PATTERN.bytes(0, 1_000_000)).expect(204);
    arrived(&folder, "f", 1_000_000);
    server.finish();
}

#[test]
fn ranges_have_a_limit_that_a_filled_gap_gives_back() {
    let settings = Settings {
        tables: "[server.limits]\nupload-ranges-max = 3\n".to_owned(),
        ..Default::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 100);
    let part = |at: u64| upload.part(at, &PATTERN.bytes(at, 10));
    for at in [10, 30, 50] {
        let _ = part(at).expect(204);
    }
    let answer = part(70);
    problem::typed(&answer, "UploadRangesMax").expect("refused");
    let _ = part(60).expect(204);
    let _ = part(20).expect(204);
    let _ = part(80).expect(204);
    assert_eq!(upload.ranges(), [(10, 40), (50, 70), (80, 90)]);
    server.finish();
}

#[test]
fn many_connections_send_a_file_together() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let mut random = Random::printed("parts by many");
    for round in 0..6 {
        let size = 3_000_000 + random.below(3_000_000);
        let name = format!("round {round}");
        let upload = Upload::begin(&server, &folder, &name, size);
        let mut places: Vec<(u64, u64)> = Vec::new();
        let mut at = 0;
        while at < size {
            let length = (1 + random.below(400_000)).min(size - at);
            places.push((at, length));
            at += length;
        }
        for at in (1..places.len()).rev() {
            let other = random.below(at as u64 + 1) as usize;
            places.swap(at, other);
        }
        std::thread::scope(|scope| {
            let lanes: Vec<_> = places
                .chunks(places.len().div_ceil(6))
                .map(|lane| {
                    let upload = &upload;
                    scope.spawn(move || {
                        let send = |(at, length): &(u64, u64)| {
                            upload.part(*at, &PATTERN.bytes(*at, *length)).status
                        };
                        lane.iter().map(send).collect::<Vec<_>>()
                    })
                })
                .collect();
            for lane in lanes {
                for status in lane.join().expect("a lane") {
                    assert_eq!(status, 204);
                }
            }
        });
        arrived(&folder, &name, size);
    }
    server.finish();
}
