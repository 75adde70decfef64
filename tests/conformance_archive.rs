//! Goal: directories and selections come as zip files that any program opens.
//! Method: archives are asked for, read whole and taken apart by an independent zip reader.
//!
//! Source: client contract 3.6 and 4. Where ours differs from upstream (links, special
//! files, zip64, failures in the middle): `docs/semantics.md#archives`.

use std::collections::BTreeMap;
use std::io::Read;

use proxy_testkit::http::Framing;
use proxy_testkit::server::TOKEN_SECRET;
use proxy_testkit::table::{Report, Want, answers};
use proxy_testkit::{Connection, Folder, Request, Response, Server, token};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

/// Member names and contents; directories have `None`.
type Members = BTreeMap<String, Option<Vec<u8>>>;

fn members(body: &[u8]) -> Members {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(body)).expect("a zip file");
    let mut found = Members::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).expect("a member");
        let name = String::from_utf8(file.name_raw().to_vec()).expect("names are UTF-8");
        let content = (!file.is_dir()).then(|| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)
                .expect("the member's checksum fits");
            bytes
        });
        assert!(
            found.insert(name.clone(), content).is_none(),
            "{name} comes twice"
        );
    }
    found
}

fn of(files: &[(&str, &str)]) -> Members {
    let member = |(name, content): &(&str, &str)| {
        let content = (!name.ends_with('/')).then(|| content.as_bytes().to_vec());
        ((*name).to_owned(), content)
    };
    files.iter().map(member).collect()
}

fn directory(server: &Server, folder: &Folder, relpath: &str) -> Response {
    let token = folder.download_token(relpath);
    Request::new("GET", &format!("/download?token={token}&archive=true")).send(server.client())
}

fn selection(server: &Server, claims: &Value) -> Response {
    let token = token::mint(TOKEN_SECRET, claims);
    Request::new("GET", &format!("/download-archive?token={token}")).send(server.client())
}

fn assert_archive(answer: &Response, name: &str) {
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!(answer.header("Content-Type"), Some("application/zip"));
    assert_eq!(answer.header("Content-Disposition"), Some(name));
    assert!(
        matches!(answer.framing, Framing::Chunked | Framing::Length),
        "{answer}"
    );
}

#[test]
fn a_directory_comes_as_a_zip_of_what_is_in_it() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let answer = directory(&server, &folder, "d1");
    assert_archive(
        &answer,
        "attachment;filename=\"d1.zip\"; filename*=UTF-8''d1.zip",
    );
    let mut found = members(&answer.body);
    // A link to a file inside may be packed as its content or left out; see semantics.
    found.remove("up");
    assert_eq!(
        found,
        of(&[("x.txt", "x marks the spot"), ("sub/y.txt", "why")])
    );
    let answer = directory(&server, &folder, "empty");
    assert_eq!(members(&answer.body), of(&[("./", "")]));
    let answer = directory(&server, &folder, "한글");
    let name = "attachment;filename=\".zip\"; filename*=UTF-8''%ED%95%9C%EA%B8%80.zip";
    assert_archive(&answer, name);
    assert_eq!(members(&answer.body), of(&[("파일.txt", "내용")]));
    server.finish();
}

#[test]
fn the_whole_folder_comes_without_links_outward_special_files_and_staging() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    folder.write(
        ".upload/0123456789abcdef0123456789abcdef",
        b"half an upload",
    );
    folder.write("d1/.upload/mine", b"a user's own");
    let answer = directory(&server, &folder, ".");
    let stem = folder
        .path
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let name = format!("attachment;filename=\"{stem}.zip\"; filename*=UTF-8''{stem}.zip");
    assert_archive(&answer, &name);
    let mut found = members(&answer.body);
    for link in ["in", "in_abs", "d1/up"] {
        if let Some(content) = found.remove(link) {
            assert_eq!(content.as_deref(), Some(&b"hello"[..]), "{link}");
        }
    }
    let hundred = found.remove("hundred").expect("hundred");
    assert_eq!(hundred.map(|h| h.len()), Some(100));
    let want = of(&[
        ("a.txt", "hello"),
        ("none", ""),
        ("d1/x.txt", "x marks the spot"),
        ("d1/sub/y.txt", "why"),
        ("d1/.upload/mine", "a user's own"),
        ("empty/", ""),
        ("한글/파일.txt", "내용"),
    ]);
    assert_eq!(found, want);
    server.finish();
}

/// Selections: the files of the token, the members of the zip. Links to files inside are left
/// out of the comparison.
type Selection = (
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

const SELECTIONS: &[Selection] = &[
    (&["a.txt"], &[("a.txt", "hello")]),
    (
        &["d1"],
        &[("d1/x.txt", "x marks the spot"), ("d1/sub/y.txt", "why")],
    ),
    (
        &["d1/sub", "a.txt"],
        &[("a.txt", "hello"), ("d1/sub/y.txt", "why")],
    ),
    (&["empty"], &[("empty/", "")]),
    (&["./d1//sub/"], &[("d1/sub/y.txt", "why")]),
    (
        &["none", "한글"],
        &[("none", ""), ("한글/파일.txt", "내용")],
    ),
    (&["in"], &[("a.txt", "hello")]),
    (&["in_dir/sub"], &[("d1/sub/y.txt", "why")]),
];

#[test]
fn a_selection_keeps_its_paths() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    for (files, want) in SELECTIONS {
        let answer = selection(&server, &folder.archive_claims(files));
        let name = "attachment;filename=\"archive.zip\"; filename*=UTF-8''archive.zip";
        assert_archive(&answer, name);
        let mut found = members(&answer.body);
        found.remove("d1/up");
        assert_eq!(found, of(want), "{files:?}");
    }
    let mut claims = folder.archive_claims(&["a.txt"]);
    claims["filename"] = json!("내 \"것\".zip");
    let answer = selection(&server, &claims);
    let name =
        "attachment;filename=\" \\\"\\\".zip\"; filename*=UTF-8''%EB%82%B4%20%22%EA%B2%83%22.zip";
    assert_archive(&answer, name);
    server.finish();
}

/// Selections that are refused, in the order of client contract 4.
const REFUSED: &[(&[&str], Want)] = &[
    (&["../x"], Want::Problem("InvalidAPIParameters")),
    (&["/etc/passwd"], Want::Problem("InvalidAPIParameters")),
    (&["out"], Want::Problem("InvalidAPIParameters")),
    (&["out_dir"], Want::Problem("InvalidAPIParameters")),
    (&["out_rel"], Want::Problem("InvalidAPIParameters")),
    (
        &["a.txt", "d1/../../x"],
        Want::Problem("InvalidAPIParameters"),
    ),
    (&["not there", "../x"], NOT_THERE),
    (
        &["../x", "not there"],
        Want::Problem("InvalidAPIParameters"),
    ),
    (&["not there"], NOT_THERE),
    (&["한글 없음"], NOT_THERE),
    (&["dangling"], NOT_THERE),
    (&["a\nb"], NOT_THERE),
    (&["fifo"], Want::Problem("UnsupportedFileTypeError")),
    (&["fifo", "not there"], NOT_THERE),
    (
        &[".upload"],
        Want::Any(&[NOT_THERE, Want::Problem("InvalidAPIParameters")]),
    ),
    (
        &["a\u{0}b"],
        Want::Any(&[NOT_THERE, Want::Problem("InvalidAPIParameters")]),
    ),
];
/// Any 404: text at upstream, JSON at ours.
const NOT_THERE: Want = Want::Refused(404);

fn not_found(answer: &Response, want: Want) -> Result<(), String> {
    let text = answer.status == 404 && answer.text().contains("File not found");
    match answers(answer, want, &str::to_owned) {
        Err(_) if text && matches!(want, Want::Refused(404) | Want::Any(_)) => Ok(()),
        other => other,
    }
}

#[test]
fn a_selection_is_refused_before_the_first_byte() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    folder.write(
        ".upload/0123456789abcdef0123456789abcdef",
        b"half an upload",
    );
    let mut report = Report::default();
    for (files, want) in REFUSED {
        let answer = selection(&server, &folder.archive_claims(files));
        let result = not_found(&answer, *want);
        report.note(
            &format!("{files:?}"),
            result.map_err(|why| format!("{why}\n{answer}")),
        );
    }
    let answer = selection(&server, &Folder::unmade(&server).archive_claims(&["a"]));
    let gone = answers(
        &answer,
        Want::Problem("VFolderNotFoundError"),
        &str::to_owned,
    );
    report.note("no folder", gone.map_err(|why| format!("{why}\n{answer}")));
    let mut claims = folder.archive_claims(&["a.txt"]);
    claims["volume"] = json!("nowhere");
    let answer = selection(&server, &claims);
    let unknown = answers(&answer, Want::Problem("InvalidVolumeError"), &str::to_owned);
    report.note(
        "no volume",
        unknown.map_err(|why| format!("{why}\n{answer}")),
    );
    let answer = Request::new("GET", "/download-archive").send(server.client());
    let absent = answers(
        &answer,
        Want::Problem("common InvalidAPIParameters"),
        &str::to_owned,
    );
    report.note("no token", absent.map_err(|why| format!("{why}\n{answer}")));
    report.end("refused selections");
    server.finish();
}

#[test]
fn other_parameters_of_an_archive_are_ignored() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let token = token::mint(TOKEN_SECRET, &folder.archive_claims(&["a.txt"]));
    let target = format!("/download-archive?surprise=1&token={token}&no_cache=true");
    let answer = Request::new("GET", &target).send(server.client());
    assert_eq!(members(&answer.body), of(&[("a.txt", "hello")]));
    server.finish();
}

#[test]
fn an_archive_has_no_date_and_no_coding() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let target = format!("/download?token={}&archive=1", folder.download_token("d1"));
    let answer = Request::new("GET", &target)
        .header("Accept-Encoding", "gzip, br, zstd")
        .send(server.client());
    assert_eq!(answer.status, 200, "{answer}");
    for name in ["Last-Modified", "Content-Range", "Content-Encoding"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    server.finish();
}

#[test]
fn a_special_file_as_archive_is_empty() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let answer = directory(&server, &folder, "fifo");
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!(answer.body.len(), 22, "the end record of an empty zip");
    server.finish();
}

#[test]
fn odd_names_times_and_modes_are_packed() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    folder.write("old", b"before the zip epoch");
    let file = std::fs::File::options()
        .write(true)
        .open(folder.at("old"))
        .expect("old");
    let epoch = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    file.set_times(epoch).expect("a time");
    folder.write("run", b"#!/bin/sh\n");
    std::fs::set_permissions(folder.at("run"), PermissionsExt::from_mode(0o750)).expect("a mode");
    folder.write("back\\slash", b"1");
    folder.write("c:colon", b"2");
    let bad = std::ffi::OsStr::from_bytes(b"bad\xff");
    std::fs::write(folder.path.join(bad), b"3").expect("a file");
    std::fs::write(folder.path.join("n".repeat(255)), b"4").expect("a file");
    let answer = directory(&server, &folder, ".");
    assert_eq!(answer.status, 200, "{answer}");
    let body = std::io::Cursor::new(&answer.body);
    let mut archive = zip::ZipArchive::new(body).expect("a zip file");
    let mode = archive.by_name("run").expect("run").unix_mode();
    assert_eq!(mode.map(|m| m & 0o7777), Some(0o750));
    let mut content = String::new();
    archive
        .by_name("old")
        .expect("old")
        .read_to_string(&mut content)
        .expect("old");
    assert_eq!(content, "before the zip epoch");
    assert!(archive.by_name(&"n".repeat(255)).is_ok(), "a long name");
    for index in 0..archive.len() {
        let mut sink = Vec::new();
        let mut file = archive.by_index(index).expect("a member");
        file.read_to_end(&mut sink).expect("whole");
    }
    server.finish();
}

#[test]
fn many_members_need_zip64_and_get_it() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    std::fs::create_dir(folder.at("m")).expect("a directory");
    for n in 0..66_000 {
        std::fs::File::create(folder.at("m").join(format!("{n:05}"))).expect("a file");
    }
    let answer = directory(&server, &folder, "m");
    assert_eq!(answer.status, 200);
    let archive = zip::ZipArchive::new(std::io::Cursor::new(&answer.body)).expect("a zip file");
    assert_eq!(archive.len(), 66_000);
    server.finish();
}

#[test]
fn a_member_over_four_gib_comes_whole_and_in_bounded_memory() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    std::fs::create_dir(folder.at("m")).expect("a directory");
    let size: u64 = (4 << 30) + 12_345;
    let file = std::fs::File::create(folder.at("m/sparse")).expect("a file");
    file.set_len(size).expect("a sparse file takes no room");
    folder.write("m/z-after", b"the offset of this one is over 4 GiB");
    let token = folder.download_token("m");
    let target = format!("/download?token={token}&archive=true");
    let mut connection = Connection::open(server.client()).expect("a connection");
    connection
        .write(&Request::new("GET", &target).to_bytes())
        .expect("sent");
    let head = connection.head().expect("a head");
    assert_eq!(head.status, 200);
    // Only the end is kept: it holds the directory, and the zip64 records must be in it.
    let (mut total, mut tail) = (0u64, Vec::new());
    let chunked = head.header("Transfer-Encoding").is_some();
    loop {
        let part = connection.some(1 << 20).expect("more");
        total += part.len() as u64;
        tail.extend_from_slice(&part);
        if tail.len() > 1 << 20 {
            tail.drain(..tail.len() - (64 << 10));
        }
        if part.is_empty() || (chunked && tail.ends_with(b"0\r\n\r\n")) {
            break;
        }
        if !chunked && head.header("Content-Length") == Some(&total.to_string()) {
            break;
        }
    }
    let has = |magic: &[u8]| tail.windows(4).any(|w| w == magic);
    assert!(
        has(b"PK\x06\x06") && has(b"PK\x06\x07"),
        "zip64 records after {total} bytes"
    );
    assert!(has(b"PK\x05\x06"), "end record");
    let peak = server.memory("VmHWM");
    assert!(peak < 200 << 20, "peak {peak}");
    drop(connection);
    server.finish();
}

#[test]
fn an_abandoned_archive_stops_the_work_at_once() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    std::fs::create_dir(folder.at("m")).expect("a directory");
    let file = std::fs::File::create(folder.at("m/sparse")).expect("a file");
    file.set_len(8 << 30).expect("a sparse file takes no room");
    let token = folder.download_token("m");
    let target = format!("/download?token={token}&archive=true");
    for _ in 0..4 {
        let mut connection = Connection::open(server.client()).expect("a connection");
        connection
            .write(&Request::new("GET", &target).to_bytes())
            .expect("sent");
        assert_eq!(connection.head().expect("a head").status, 200);
        let _ = connection.some(100_000).expect("the first bytes");
    }
    server.finish();
}

#[test]
fn a_file_that_changes_while_it_is_packed_breaks_the_transfer_or_not_but_never_hangs() {
    // docs/semantics.md#archives: upstream hangs for ever (wire contract 10, item 13).
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    folder.write(
        "m/a-first",
        &proxy_testkit::data::Pattern(9).bytes(0, 48 << 20),
    );
    folder.write("m/b-shrinks", &vec![1; 8 << 20]);
    folder.write("m/c-vanishes", &vec![2; 1 << 20]);
    folder.write("m/d-last", b"last");
    let token = folder.download_token("m");
    let target = format!("/download?token={token}&archive=true");
    let mut connection = Connection::open(server.client()).expect("a connection");
    connection
        .write(&Request::new("GET", &target).to_bytes())
        .expect("sent");
    assert_eq!(connection.head().expect("a head").status, 200);
    let file = std::fs::File::options()
        .write(true)
        .open(folder.at("m/b-shrinks"))
        .expect("b");
    file.set_len(100).expect("cut");
    std::fs::remove_file(folder.at("m/c-vanishes")).expect("removed");
    // Any end will do, whole or cut, as long as it comes: reads are bounded.
    let mut total = 0;
    loop {
        match connection.some(1 << 20) {
            Ok(part) if part.is_empty() || part.ends_with(b"0\r\n\r\n") => break,
            Ok(part) => total += part.len(),
            Err(err) if err.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(err) => panic!("after {total} bytes: {err}"),
        }
    }
    assert!(0 < total);
    drop(connection);
    server.finish();
}
