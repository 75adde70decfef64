//! Goal: whoever asks for a tar, or for compression, gets what everybody's tools open; whoever
//! does not, gets the zip as ever.
//! Method: one tree in every format, unpacked by strangers (GNU tar, bsdtar, Python, gzip, zstd,
//! unzip) and compared with the tree.
//!
//! Source: POSIX pax, RFC 1952, RFC 8878, PKWARE APPNOTE; `docs/semantics.md#archive-formats`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use proxy_testkit::data::Pattern;
use proxy_testkit::http::Framing;
use proxy_testkit::server::{Settings, TOKEN_SECRET, gauge};
use proxy_testkit::{Connection, Folder, Request, Response, Server, skip, token};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

/// Query, media type, what the name ends with, whether it has a length.
type Format = (&'static str, &'static str, &'static str, bool);

const FORMATS: &[Format] = &[
    ("", "application/zip", ".zip", true),
    ("&format=zip", "application/zip", ".zip", true),
    ("&compression=deflate", "application/zip", ".zip", false),
    (
        "&format=zip&compression=deflate",
        "application/zip",
        ".zip",
        false,
    ),
    ("&format=tar", "application/x-tar", ".tar", true),
    ("&format=tar.gz", "application/gzip", ".tar.gz", false),
    ("&format=tar.zst", "application/zstd", ".tar.zst", false),
];

fn tree(server: &Server) -> Folder {
    let folder = Folder::empty(server);
    for n in 0..200_u64 {
        folder.write(
            &format!("m/{:02}/{n:03}", n % 7),
            &Pattern(n).bytes(0, n * 97 % 9_000),
        );
    }
    folder.write("m/big", &Pattern(1_001).bytes(0, 3 << 20));
    folder.write("m/flat", &vec![b'x'; 5 << 20]);
    folder.write("m/none", b"");
    folder.write(&format!("m/{}/x", "long/".repeat(60)), b"deep");
    folder.write(&format!("m/{}", "n".repeat(200)), b"a long name");
    folder.write("m/한글 é.txt", "내용".as_bytes());
    std::fs::create_dir(folder.at("m/empty")).expect("a directory");
    std::fs::set_permissions(folder.at("m/big"), PermissionsExt::from_mode(0o750)).expect("mode");
    let when = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_700);
    let file = std::fs::File::options()
        .write(true)
        .open(folder.at("m/none"));
    let times = std::fs::FileTimes::new().set_modified(when);
    file.expect("none").set_times(times).expect("a time");
    folder
}

/// Every file and empty directory below `dir`, by its path; files with their content.
fn picture(dir: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        let name = at.strip_prefix(dir).expect("below").display().to_string();
        if !at.is_dir() {
            found.insert(name, Some(std::fs::read(&at).expect("a file")));
            continue;
        }
        let inside: Vec<_> = std::fs::read_dir(&at).expect("a directory").collect();
        if inside.is_empty() {
            found.insert(name, None);
        }
        left.extend(
            inside
                .into_iter()
                .map(|entry| entry.expect("an entry").path()),
        );
    }
    found
}

/// Tools by suffix: each unpacks the file `$1` into the directory `$2`.
const TOOLS: &[(&str, &str, &str)] = &[
    (
        ".zip",
        "unzip",
        "unzip -tq \"$1\" >/dev/null && unzip -q \"$1\" -d \"$2\"",
    ),
    (
        ".zip",
        "python3",
        "python3 -m zipfile -t \"$1\" && python3 -m zipfile -e \"$1\" \"$2\"",
    ),
    (".zip", "bsdtar", "bsdtar -xf \"$1\" -C \"$2\""),
    (".tar", "tar", "tar -xf \"$1\" -C \"$2\""),
    (".tar", "bsdtar", "bsdtar -xf \"$1\" -C \"$2\""),
    (".tar", "python3", "python3 -m tarfile -e \"$1\" \"$2\""),
    (
        ".tar.gz",
        "gzip",
        "gzip -tv \"$1\" && tar -xzf \"$1\" -C \"$2\"",
    ),
    (".tar.gz", "python3", "python3 -m tarfile -e \"$1\" \"$2\""),
    (
        ".tar.zst",
        "zstd",
        "zstd -tq \"$1\" && zstd -dcq \"$1\" | tar -xf - -C \"$2\"",
    ),
];

fn installed(tool: &str) -> bool {
    let found = Command::new("sh")
        .arg("-c")
        .arg(format!("command -v {tool}"))
        .output();
    found.is_ok_and(|found| found.status.success())
}

/// Unpacks `file` with every tool for `suffix`, and compares with `want`.
fn unpack(file: &Path, suffix: &str, want: &BTreeMap<String, Option<Vec<u8>>>) {
    for (_, tool, script) in TOOLS.iter().filter(|(of, ..)| *of == suffix) {
        if !installed(tool) {
            skip(format!("{tool} is not installed"));
            continue;
        }
        let out = file.with_extension("unpacked");
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir(&out).expect("a directory");
        let mut shell = Command::new("sh");
        shell.arg("-ec").arg(script).arg("sh").arg(file).arg(&out);
        let done = shell.env("LC_ALL", "C.UTF-8").output().expect("a shell");
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{tool}: {}\n{errors}", done.status);
        let got = picture(&out);
        let names = |of: &BTreeMap<String, Option<Vec<u8>>>| of.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&got), names(want), "{suffix} by {tool}");
        assert!(got == *want, "content of {suffix} by {tool}");
        if suffix.starts_with(".tar") && *tool != "python3" {
            let facts = std::fs::metadata(out.join("big")).expect("big");
            assert_eq!(
                facts.permissions().mode() & 0o7777,
                0o750,
                "{suffix} by {tool}"
            );
            let facts = std::fs::metadata(out.join("none")).expect("none");
            let when = facts.modified().expect("a time").duration_since(UNIX_EPOCH);
            let want = Duration::new(1_700_000_000, 123_456_700);
            assert_eq!(when.expect("after 1970"), want, "{suffix} by {tool}");
        }
    }
}

#[test]
fn every_format_is_opened_by_everybodys_tools() {
    let server = Server::start(PROGRAM);
    let folder = tree(&server);
    let want = picture(&folder.at("m"));
    let token = folder.download_token("m");
    for (query, media_type, suffix, has_length) in FORMATS {
        let target = format!("/download?token={token}&archive=true{query}");
        let answer = Request::new("GET", &target)
            .send(server.client())
            .expect(200);
        assert_eq!(answer.header("Content-Type"), Some(*media_type), "{query}");
        let name = format!("attachment;filename=\"m{suffix}\"; filename*=UTF-8''m{suffix}");
        assert_eq!(answer.header("Content-Disposition"), Some(name.as_str()));
        let framing = if *has_length {
            Framing::Length
        } else {
            Framing::Chunked
        };
        assert_eq!(answer.framing, framing, "{query}");
        for header in ["Etag", "Accept-Ranges"] {
            assert_eq!(
                answer.header(header).is_some(),
                *has_length,
                "{query} {header}"
            );
        }
        let whole: usize = want.values().flatten().map(Vec::len).sum();
        if !has_length {
            assert!(
                answer.body.len() < whole - (4 << 20),
                "{query}: {}",
                answer.body.len()
            );
        }
        let file = server.outside().join(format!("m{suffix}"));
        std::fs::write(&file, &answer.body).expect("a file");
        unpack(&file, suffix, &want);
        // A range of what has no length is the whole; HEAD says the same without making it.
        if !has_length {
            let ranged = Request::new("GET", &target).header("Range", "bytes=5-9");
            let ranged = ranged.send(server.client()).expect(200);
            assert_eq!(ranged.body.len(), answer.body.len(), "{query}");
            let head = Request::new("HEAD", &target)
                .send(server.client())
                .expect(200);
            assert_eq!(head.header("Content-Type"), Some(*media_type));
        }
    }
    server.finish();
}

#[test]
fn a_selection_is_named_after_its_format() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let mut claims = folder.archive_claims(&["a.txt"]);
    for (given, suffix, want) in [
        (None, "tar", "archive.tar"),
        (Some("mine.zip"), "tar.zst", "mine.tar.zst"),
        (Some("mine"), "tar.gz", "mine.tar.gz"),
        (Some("mine"), "zip", "mine"),
    ] {
        claims["filename"] = json!(given);
        let token = token::mint(TOKEN_SECRET, &claims);
        let target = format!("/download-archive?token={token}&format={suffix}");
        let answer = Request::new("GET", &target)
            .send(server.client())
            .expect(200);
        let name = format!("attachment;filename=\"{want}\"; filename*=UTF-8''{want}");
        assert_eq!(answer.header("Content-Disposition"), Some(name.as_str()));
    }
    server.finish();
}

#[test]
fn empty_things_have_every_format() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    for (query, _, suffix, _) in FORMATS {
        for (relpath, want) in [("fifo", 0), ("empty", 1)] {
            let token = folder.download_token(relpath);
            let target = format!("/download?token={token}&archive=true{query}");
            let answer = Request::new("GET", &target)
                .send(server.client())
                .expect(200);
            let file = server.outside().join(format!("none{suffix}"));
            std::fs::write(&file, &answer.body).expect("a file");
            let list = match *suffix {
                ".zip" => "zipinfo -1 \"$1\" 2>/dev/null || true",
                ".tar" => "tar -tf \"$1\"",
                ".tar.gz" => "tar -tzf \"$1\"",
                _ => "zstd -dcq \"$1\" | tar -tf -",
            };
            if !installed("zstd") || !installed("unzip") {
                return skip("zstd or unzip is not installed");
            }
            let done = Command::new("sh")
                .arg("-ec")
                .arg(list)
                .arg("sh")
                .arg(&file)
                .output();
            let done = done.expect("a shell");
            assert!(done.status.success(), "{query} {relpath}: {done:?}");
            let names = String::from_utf8_lossy(&done.stdout).into_owned();
            let names: Vec<&str> = names.lines().filter(|l| !l.starts_with("Empty")).collect();
            assert_eq!(names, &["./"][..want], "{query} {relpath}");
        }
    }
    server.finish();
}

/// Parameters that are none.
const REFUSED: &[(&str, &str)] = &[
    ("format=rar", "format"),
    ("format=", "format"),
    ("format=ZIP", "format"),
    ("compression=best", "compression"),
    ("format=tar&compression=deflate", "compression"),
    ("format=tar.gz&compression=deflate", "compression"),
];

#[test]
fn a_format_that_is_none_is_refused() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let one = folder.download_token("d1");
    let many = token::mint(TOKEN_SECRET, &folder.archive_claims(&["d1"]));
    for (query, at_fault) in REFUSED {
        let target = format!("/download?token={one}&archive=true&{query}");
        let answer = Request::new("GET", &target)
            .send(server.client())
            .expect(400);
        assert!(
            answer.text().contains(&format!("\"{at_fault}\"")),
            "{query}: {answer}"
        );
        let target = format!("/download-archive?token={many}&{query}");
        let answer = Request::new("GET", &target)
            .send(server.client())
            .expect(400);
        assert!(answer.text().contains(at_fault), "{query}: {answer}");
    }
    // A regular file is sent as it is, whatever is said of archives.
    let file = folder.download_token("a.txt");
    let target = format!("/download?token={file}&archive=true&format=tar");
    let answer = Request::new("GET", &target)
        .send(server.client())
        .expect(200);
    assert_eq!(answer.body, b"hello");
    server.finish();
}

#[test]
fn a_client_of_http_1_0_gets_a_compressed_archive_until_the_end_of_the_connection() {
    let server = Server::start(PROGRAM);
    let folder = tree(&server);
    let token = folder.download_token("m");
    let request = format!(
        "GET /download?token={token}&archive=true&format=tar.gz HTTP/1.0\r\n\
         Host: test\r\nConnection: keep-alive\r\n\r\n"
    );
    let mut connection = Connection::open(server.client()).expect("a connection");
    connection.write(request.as_bytes()).expect("sent");
    let answer = connection.answer(false).expect("an answer");
    assert_eq!(answer.framing, Framing::Close, "{answer}");
    let file = server.outside().join("m.tar.gz");
    std::fs::write(&file, &answer.body).expect("a file");
    unpack(&file, ".tar.gz", &picture(&folder.at("m")));
    drop(connection);
    server.finish();
}

fn compressing(server: &Server) -> f64 {
    gauge(&server.metrics(), "archives_compressing").expect("the gauge")
}

#[test]
fn one_archive_more_than_may_be_compressed_waits() {
    let settings = Settings {
        tables: "[server.limits]\narchives-compressing-max = 1\n".to_owned(),
        ..Settings::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let folder = Folder::empty(&server);
    // More than the sockets of both sides hold, and not to be compressed.
    folder.write("m/big", &Pattern(7).bytes(0, 32 << 20));
    folder.write("n/small", b"small");
    let ask = |relpath: &str| {
        let token = folder.download_token(relpath);
        let target = format!("/download?token={token}&archive=true&format=tar.zst");
        let mut connection = Connection::open(server.client()).expect("a connection");
        let request = Request::new("GET", &target);
        connection.write(&request.to_bytes()).expect("sent");
        connection
    };
    let mut first = ask("m");
    assert_eq!(first.head().expect("a head").status, 200);
    let mut second = ask("n");
    // Others are served meanwhile, also archives that are not compressed.
    let token = folder.download_token("n");
    let target = format!("/download?token={token}&archive=true&format=tar");
    let plain: Response = Request::new("GET", &target).send(server.client());
    assert_eq!(plain.status, 200);
    assert!(compressing(&server) <= 1.0);
    drop(first);
    assert_eq!(second.answer(false).expect("its turn").status, 200);
    drop(second);
    server.assert_at_rest();
    assert!(compressing(&server) < 0.5);
    server.finish();
}

#[test]
fn what_changed_meanwhile_breaks_every_format() {
    let server = Server::start(PROGRAM);
    for (query, ..) in FORMATS {
        let folder = Folder::empty(&server);
        // Not to be compressed, and more than the sockets of both sides hold.
        folder.write("m/a-first", &Pattern(9).bytes(0, 24 << 20));
        folder.write("m/b-big", &Pattern(10).bytes(0, 8 << 20));
        folder.write("m/c-small", b"small");
        let token = folder.download_token("m");
        let target = format!("/download?token={token}&archive=true{query}");
        let whole = Request::new("GET", &target)
            .send(server.client())
            .expect(200);
        let mut connection = Connection::open(server.client()).expect("a connection");
        connection
            .write(&Request::new("GET", &target).to_bytes())
            .expect("sent");
        assert_eq!(connection.head().expect("a head").status, 200);
        // The file that is being sent grows: its bytes are not those of the listing.
        folder.write("m/a-first", &Pattern(9).bytes(0, (24 << 20) + 1));
        let got = connection.until_closed();
        assert!(got.len() < whole.body.len(), "{query}: {} bytes", got.len());
        assert!(
            !got.ends_with(b"\r\n0\r\n\r\n"),
            "{query}: ended as if whole"
        );
        drop(connection);
        server.assert_at_rest();
    }
    let log = server.log();
    let cuts = log.matches("a file changed while it was sent").count();
    assert_eq!(cuts, FORMATS.len(), "each is logged once\n{log}");
    server.finish();
}
