//! Goal: a folder download that broke goes on where it stopped, in every format that has a
//! length, and never mixes two versions.
//! Method: ranges of archives against the whole, with conditions, restarts and changes between;
//! curl as one of those who resume.
//!
//! Source: RFC 9110 §13, §14; `docs/semantics.md#archive-ranges`.

use std::process::Command;
use std::time::Duration;

use proxy_testkit::data::{Pattern, Random};
use proxy_testkit::server::TOKEN_SECRET;
use proxy_testkit::{Connection, Folder, Request, Response, Server, skip, token, wait};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

/// Formats with a length, as query.
const RANGED: [&str; 3] = ["", "&format=zip&compression=store", "&format=tar"];

/// A tree with small and big members, empty ones, and names of all kinds.
fn tree(server: &Server) -> Folder {
    let folder = Folder::empty(server);
    for n in 0..300_u64 {
        let name = format!("m/small/{:02}/{n:03}", n % 7);
        folder.write(&name, &Pattern(n).bytes(0, n * 37 % 5_000));
    }
    folder.write("m/big-1", &Pattern(1_001).bytes(0, 9 << 20));
    folder.write("m/big-2", &Pattern(1_002).bytes(0, 70_000));
    folder.write("m/none", b"");
    folder.write(&format!("m/{}/한글", "long".repeat(40)), b"deep");
    std::fs::create_dir(folder.at("m/empty")).expect("a directory");
    folder
}

fn target(folder: &Folder, format: &str) -> String {
    let token = folder.download_token("m");
    format!("/download?token={token}&archive=true{format}")
}

fn ask(server: &Server, target: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::new("GET", target);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.send(server.client())
}

#[test]
fn every_range_of_an_archive_is_that_part_of_the_whole() {
    let mut server = Server::start(PROGRAM);
    let folder = tree(&server);
    let mut rng = Random::printed("ranges of archives");
    for format in RANGED {
        let target = target(&folder, format);
        let whole = ask(&server, &target, &[]).expect(200);
        let tag = whole.header("Etag").expect("a tag").to_owned();
        assert!(tag.starts_with('"'), "strong: {tag}");
        assert_eq!(whole.header("Accept-Ranges"), Some("bytes"));
        assert_eq!(whole.header("Last-Modified"), None);
        let total = whole.body.len() as u64;
        // What was learnt of the files is forgotten: the same bytes come all the same.
        server.stop();
        server.restart();
        for round in 0..20 {
            let from = rng.below(total);
            let to = from + rng.below((total - from).min(300_000));
            let range = match round % 4 {
                0 => format!("bytes={from}-"),
                1 => format!("bytes=-{}", total - from),
                _ => format!("bytes={from}-{to}"),
            };
            let to = if round % 4 < 2 { total - 1 } else { to };
            let part = ask(&server, &target, &[("Range", &range), ("If-Range", &tag)]);
            let part = part.expect(206);
            let span = format!("bytes {from}-{to}/{total}");
            assert_eq!(part.header("Content-Range"), Some(span.as_str()));
            assert_eq!(part.header("Etag"), Some(tag.as_str()));
            let want = &whole.body[from as usize..=to as usize];
            assert!(part.body == want, "{format} {range} of {total}");
        }
    }
    server.finish();
}

/// Conditions and ranges of one request, and the status of its answer. `{tag}` is the archive's.
const CONDITIONS: &[(&[(&str, &str)], u16)] = &[
    (&[("If-None-Match", "{tag}")], 304),
    (&[("If-None-Match", "W/{tag}, \"other\"")], 304),
    (&[("If-None-Match", "*")], 304),
    (&[("If-None-Match", "\"other\"")], 200),
    (&[("If-Match", "{tag}")], 200),
    (&[("If-Match", "\"other\"")], 412),
    (&[("Range", "bytes=10-19")], 206),
    (&[("Range", "bytes=10-19"), ("If-Range", "{tag}")], 206),
    (&[("Range", "bytes=10-19"), ("If-Range", "W/{tag}")], 200),
    (&[("Range", "bytes=10-19"), ("If-Range", "\"other\"")], 200),
    // An archive has no date, so none says that it is the same.
    (
        &[
            ("Range", "bytes=10-19"),
            ("If-Range", "Fri, 31 Dec 2100 23:59:59 GMT"),
        ],
        200,
    ),
    (
        &[("If-Modified-Since", "Fri, 31 Dec 2100 23:59:59 GMT")],
        200,
    ),
    (
        &[("If-Unmodified-Since", "Sat, 01 Jan 2000 00:00:00 GMT")],
        200,
    ),
    (&[("Range", "bytes=0-3,10-19")], 200),
    (&[("Range", "items=0-3")], 200),
    (&[("Range", "bytes=99999999999-")], 416),
    (&[("Range", "bytes=-0")], 416),
    (&[("Range", "bytes=5-4")], 416),
];

#[test]
fn conditions_count_as_for_a_file_without_a_date() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    for format in RANGED {
        let token = folder.download_token("d1");
        let target = format!("/download?token={token}&archive=true{format}");
        let whole = ask(&server, &target, &[]).expect(200);
        let tag = whole.header("Etag").expect("a tag").to_owned();
        for (headers, want) in CONDITIONS {
            let headers: Vec<(&str, String)> = headers
                .iter()
                .map(|(name, value)| (*name, value.replace("{tag}", &tag)))
                .collect();
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let answer = ask(&server, &target, &headers);
            assert_eq!(answer.status, *want, "{format} {headers:?}\n{answer}");
            match want {
                200 => assert!(answer.body == whole.body, "{format} {headers:?}"),
                206 => assert_eq!(answer.body, whole.body[10..20], "{format} {headers:?}"),
                416 => {
                    let unsatisfied = format!("bytes */{}", whole.body.len());
                    assert_eq!(answer.header("Content-Range"), Some(unsatisfied.as_str()));
                }
                _ => assert!(answer.body.is_empty(), "{answer}"),
            }
        }
        let head = Request::new("HEAD", &target).send(server.client());
        let named = |answer: &Response| {
            let mut lines = answer.headers.clone();
            lines.retain(|(name, _)| name != "Date");
            lines
        };
        assert_eq!(named(&head), named(&whole), "{format}");
    }
    server.finish();
}

#[test]
fn selections_and_special_files_have_ranges_too() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let token = token::mint(
        TOKEN_SECRET,
        &folder.archive_claims(&["d1", "a.txt", "a.txt"]),
    );
    for format in RANGED {
        let target = format!("/download-archive?token={token}{format}");
        let whole = ask(&server, &target, &[]).expect(200);
        let part = ask(&server, &target, &[("Range", "bytes=100-")]).expect(206);
        assert_eq!(part.body, whole.body[100..], "{format}");
    }
    let token = folder.download_token("fifo");
    let target = format!("/download?token={token}&archive=true");
    let part = ask(&server, &target, &[("Range", "bytes=0-3")]).expect(206);
    assert_eq!(part.body, b"PK\x05\x06");
    server.finish();
}

/// What can happen to a tree; each makes another archive of it.
type Change = (&'static str, fn(&Folder));

const CHANGES: &[Change] = &[
    ("content of the same length", |f| f.write("m/a", b"HELLO")),
    ("a longer file", |f| f.write("m/a", b"hello, world")),
    ("a new file", |f| f.write("m/c", b"new")),
    ("a file less", |f| {
        std::fs::remove_file(f.at("m/c")).expect("c")
    }),
    ("another name", |f| {
        std::fs::rename(f.at("m/b"), f.at("m/d")).expect("b")
    }),
    ("a replaced file", |f| {
        f.write("m/.new", b"same!");
        std::fs::rename(f.at("m/.new"), f.at("m/d")).expect("d");
    }),
    ("a new empty directory", |f| {
        std::fs::create_dir(f.at("m/e")).expect("e")
    }),
];

/// Clocks of file systems have steps, and within one two versions look alike: waits for the next.
fn await_another_time(server: &Server) {
    let probe = server.outside().join("probe");
    let touch = || {
        std::fs::write(&probe, b"x").expect("a probe");
        let facts = std::fs::metadata(&probe).expect("a probe");
        facts.modified().expect("a time")
    };
    let before = touch();
    let later = wait::within(Duration::from_secs(5), || (before < touch()).then_some(()));
    assert!(later.is_some(), "the clock stands still");
}

#[test]
fn whatever_changes_gives_another_tag_and_the_whole_instead_of_a_range() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    folder.write("m/a", b"hello");
    folder.write("m/b", b"same!");
    for format in RANGED {
        let target = target(&folder, format);
        for (what, change) in CHANGES {
            let before = ask(&server, &target, &[]).expect(200);
            let again = ask(&server, &target, &[]).expect(200);
            assert_eq!(before.header("Etag"), again.header("Etag"), "{what}");
            assert!(before.body == again.body, "{what}");
            let tag = before.header("Etag").expect("a tag").to_owned();
            await_another_time(&server);
            change(&folder);
            let headers = [("Range", "bytes=10-"), ("If-Range", tag.as_str())];
            let after = ask(&server, &target, &headers);
            assert_eq!(after.status, 200, "{format}: {what}\n{after}");
            assert_ne!(after.header("Etag"), Some(tag.as_str()), "{format}: {what}");
        }
        // For the next format.
        for name in ["m/c", "m/d"] {
            let _ = std::fs::remove_file(folder.at(name));
        }
        std::fs::remove_dir(folder.at("m/e")).expect("e");
        folder.write("m/b", b"same!");
    }
    let tags: Vec<_> = RANGED
        .iter()
        .map(|format| {
            let answer = ask(&server, &target(&folder, format), &[]);
            answer.header("Etag").map(str::to_owned)
        })
        .collect();
    assert_eq!(tags[0], tags[1], "the same zip");
    assert_ne!(tags[0], tags[2], "a tar is another thing");
    server.finish();
}

#[test]
fn curl_goes_on_where_it_stopped() {
    let mut server = Server::start(PROGRAM);
    let folder = tree(&server);
    let home = server.outside();
    for format in RANGED {
        let path = target(&folder, format);
        let whole = ask(&server, &path, &[]).expect(200);
        // As left by a first try, on another server.
        server.stop();
        server.restart();
        let file = home.join("resumed");
        std::fs::write(&file, &whole.body[..whole.body.len() / 3]).expect("a part");
        let url = format!("http://{}{path}", server.client());
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-f", "-C", "-", "-o"])
            .arg(&file)
            .arg(&url);
        match curl.status() {
            Ok(status) => assert!(status.success(), "{format}: {status}"),
            Err(error) => return skip(format!("curl: {error}")),
        }
        let got = std::fs::read(&file).expect("the file");
        assert!(got == whole.body, "{format}: {} bytes", got.len());
    }
    server.finish();
}

#[test]
fn a_download_cut_again_and_again_comes_whole_in_the_end() {
    let server = Server::start(PROGRAM);
    let folder = tree(&server);
    let mut rng = Random::printed("cuts of a download");
    for format in RANGED {
        let path = target(&folder, format);
        let whole = ask(&server, &path, &[]).expect(200);
        let tag = whole.header("Etag").expect("a tag").to_owned();
        let mut got = Vec::new();
        while got.len() < whole.body.len() {
            let mut connection = Connection::open(server.client()).expect("a connection");
            let range = format!("bytes={}-", got.len());
            let request = Request::new("GET", &path)
                .header("Range", &range)
                .header("If-Range", &tag);
            connection.write(&request.to_bytes()).expect("sent");
            assert_eq!(connection.head().expect("a head").status, 206);
            let enough = got.len() + 1 + rng.below(3 << 20) as usize;
            while got.len() < enough.min(whole.body.len()) {
                got.extend(connection.some(1 << 20).expect("more"));
            }
        }
        assert!(got == whole.body, "{format}");
    }
    server.finish();
}
