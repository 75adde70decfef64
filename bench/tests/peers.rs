//! Goal: a peer that is installed really starts, serves what the workloads ask for, and ends.
//! Method: each peer on a small folder, driven by a plain blocking client that checks every byte;
//! what cannot run here is printed as `skipped: reason`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use proxy_bench::call::{Answer, Body, Call, Content, Exchange, Step};
use proxy_bench::fixture::{BenchFile, FileId, Fixture, UPLOADS};
use proxy_bench::peer::{Peer, Running, Start, Upload, Way};
use proxy_bench::peers::{self, Places};
use proxy_bench::workload::{ArchiveKind, Workload};

const FILE: FileId = FileId(0);
const FILE_BYTES: u64 = 300_000;
const CLIENT_BOUND: Duration = Duration::from_secs(30);

fn content() -> Vec<u8> {
    let byte = |i: u64| u8::try_from((i * 31 + i / 251) % 256).expect("below 256");
    (0..FILE_BYTES).map(byte).collect()
}

fn fixture(root: &Path) -> Fixture {
    let fixture = Fixture {
        root: root.to_owned(),
        files: vec![BenchFile {
            name: "set-1/0000".to_owned(),
            bytes: FILE_BYTES,
        }],
    };
    std::fs::create_dir_all(fixture.folder().join("set-1")).expect("a folder");
    std::fs::create_dir_all(fixture.folder().join(UPLOADS)).expect("a folder");
    std::fs::write(fixture.path(FILE), content()).expect("a file");
    fixture
}

/// A workload of one load.
fn workload(load: &str) -> Workload {
    let text = format!(
        "about = \"x\"\nmeasure = \"bytes\"\nseconds = 1.0\n[[load]]\nconnections = 1\n\
         files = {{ count = 1, bytes = \"1MiB\" }}\n{load}\n"
    );
    Workload::parse("test", &text).expect("a workload")
}

/// Sends one call, and reads the whole answer.
fn send(running: &dyn Running, call: &Call, fixture: &Fixture) -> Answer {
    let address = call.to.unwrap_or_else(|| running.address());
    let answer = exchange(address, call, fixture);
    let Answer { status, body, .. } = &answer;
    let shown = String::from_utf8_lossy(&body[..body.len().min(500)]);
    assert_eq!(
        *status,
        call.expect.status,
        "{shown}\n{}",
        running.log_tail()
    );
    answer
}

fn exchange(address: SocketAddr, call: &Call, fixture: &Fixture) -> Answer {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(CLIENT_BOUND))
        .expect("an option");
    stream.write_all(&call.head).expect("the head is taken");
    match &call.body {
        Body::None => {}
        Body::Bytes(bytes) => stream.write_all(bytes).expect("the body is taken"),
        Body::File { file, from, len } => {
            let bytes = std::fs::read(fixture.path(*file)).expect("the source");
            let (from, len) = (index(*from), index(*len));
            let part = &bytes[from..from + len];
            stream.write_all(part).expect("the body is taken");
        }
    }
    read_answer(&mut BufReader::new(stream))
}

fn index(at: u64) -> usize {
    usize::try_from(at).expect("small")
}

fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

fn read_answer(stream: &mut BufReader<TcpStream>) -> Answer {
    let status = line(stream);
    let mut answer = Answer {
        status: status[9..12].parse().expect("a status"),
        ..Answer::default()
    };
    loop {
        let header = line(stream);
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        let header = (name.to_ascii_lowercase(), value.trim().to_owned());
        answer.headers.push(header);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&line(stream), 16).expect("a chunk");
            answer.body.extend(take(stream, size));
            line(stream);
            if size == 0 {
                break;
            }
        }
    } else {
        let len = answer.header("content-length").unwrap_or("0");
        answer.body = take(stream, len.parse().expect("a length"));
    }
    answer
}

fn take(stream: &mut BufReader<TcpStream>, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("the body is whole");
    bytes
}

fn drive(running: &dyn Running, mut exchange: Box<dyn Exchange>, fixture: &Fixture) {
    let mut answers = Vec::new();
    while let Step::Calls(calls) = exchange.next(&answers).expect("a next step") {
        let calls = calls.iter();
        answers = calls.map(|call| send(running, call, fixture)).collect();
    }
}

fn check_gets(running: &dyn Running, fixture: &Fixture) {
    let call = running.get(fixture, FILE).expect("a call");
    assert!(send(running, &call, fixture).body == content(), "whole");
    let part = send(running, &call.ranged(1000, 77_777), fixture).body;
    assert!(part == content()[1000..78_777], "a range");
}

fn check_put(running: &dyn Running, fixture: &Fixture, name: &str, way: Way) {
    let upload = Upload {
        source: FILE,
        bytes: FILE_BYTES,
        target: format!("{UPLOADS}/{name}"),
        way,
    };
    let exchange = running.put(&upload).expect("an exchange");
    drive(running, exchange, fixture);
    let landed = running.landed(fixture, &upload.target);
    let bytes = std::fs::read(&landed).expect("it has landed");
    assert!(bytes == content(), "{way:?} at {}", landed.display());
}

fn check_archive(running: &dyn Running, fixture: &Fixture) {
    let call = running.archive("set-1", FILE_BYTES, ArchiveKind::Zip);
    let call = call.expect("a call");
    assert_eq!(
        call.expect.content,
        Content::Archive {
            bytes_min: FILE_BYTES
        }
    );
    let body = send(running, &call, fixture).body;
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(body)).expect("a zip");
    let mut found = Vec::new();
    for at in 0..archive.len() {
        let mut member = archive.by_index(at).expect("a member");
        if member.is_file() {
            let name = member.name().expect("a name").into_owned();
            assert!(name.ends_with("0000"), "{name}");
            member.read_to_end(&mut found).expect("it unpacks");
        }
    }
    assert!(found == content(), "archive");
}

/// All that a peer says it can.
fn check(name: &str) {
    let all = peers::all(&Places::default());
    let peer = all.iter().find(|peer| peer.name() == name);
    let peer: &dyn Peer = peer.expect("a known name").as_ref();
    if let Err(reason) = peer.available() {
        #[allow(
            clippy::print_stdout,
            reason = "a skip is for whoever reads the test's output"
        )]
        {
            println!("skipped: {name}: {reason}");
        }
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let fixture = fixture(&dir.path().join("volume"));
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).expect("a directory");
    let start = Start {
        cores: vec![0],
        tls: None,
        h2: false,
        scratch,
    };
    let running = peer.start(&fixture, &start).expect("it starts");
    let can = |load: &str| peer.supports(&workload(load)).is_ok();
    let ways = [
        ("whole", "way = \"whole\"", Way::Whole),
        (
            "chunks",
            "way = \"chunks\"\nchunk = \"1MiB\"",
            Way::Chunks {
                bytes: 100_000,
                fresh: false,
            },
        ),
        ("parts", "way = \"parts\"\nparts = 3", Way::Parts(3)),
    ];
    let mut done = 0;
    if can("kind = \"get\"") {
        check_gets(running.as_ref(), &fixture);
        done += 1;
    }
    for (name, load, way) in ways {
        if can(&format!("kind = \"put\"\n{load}")) {
            check_put(running.as_ref(), &fixture, name, way);
            done += 1;
        }
    }
    if can("kind = \"zip\"") {
        check_archive(running.as_ref(), &fixture);
        done += 1;
    }
    assert!(0 < done, "{name} can do nothing");
    let address = running.address();
    drop(running);
    assert!(TcpStream::connect(address).is_err(), "{name} still listens");
}

#[test]
fn nginx_serves_what_it_says() {
    check("nginx");
}

#[test]
fn nginx_with_threads_serves_what_it_says() {
    check("nginx-aio");
}

#[test]
fn the_original_serves_what_it_says() {
    check("original");
}

#[test]
fn tus_server_serves_what_it_says() {
    check("tus-server");
}

#[test]
fn rclone_serves_what_it_says() {
    check("rclone");
}

#[test]
fn dufs_serves_what_it_says() {
    check("dufs");
}
