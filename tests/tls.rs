//! Goal: the client port serves the same over TLS, and TLS that goes wrong leaves nothing behind.
//! Method: an independent TLS client with a certificate of its own making; whole and cut
//! handshakes.
//!
//! Source: wire contract 1; client contract 6; `docs/semantics.md#connections`,
//! `docs/semantics.md#tls`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use proxy_testkit::data::Pattern;
use proxy_testkit::http::IO_BOUND;
use proxy_testkit::server::gauge;
use proxy_testkit::tus::Upload;
use proxy_testkit::{Connection, Folder, Request, Server, Settings, skip, wait};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate for loopback, written as PEM files; the certificate itself comes back.
fn certificate(dir: &Path) -> CertificateDer<'static> {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    made.cert.der().clone()
}

fn server(dir: &Path, tables: &str) -> Server {
    let files = (dir.join("cert.pem"), dir.join("key.pem"));
    let settings = Settings {
        client_tls: Some(files),
        tables: tables.to_owned(),
        ..Default::default()
    };
    Server::start_with(PROGRAM, settings)
}

fn client(root: &CertificateDer<'static>, only_1_2: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("our own certificate");
    let versions: &[&rustls::SupportedProtocolVersion] = match only_1_2 {
        true => &[&rustls::version::TLS12],
        false => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("a version of this provider")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn connect(to: SocketAddr, config: &Arc<ClientConfig>) -> Stream {
    let tcp = TcpStream::connect(to).expect("a connection");
    tcp.set_read_timeout(Some(IO_BOUND)).expect("a bound");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
    StreamOwned::new(tls, tcp)
}

/// Sends a request and reads the answer's head and `Content-Length` bytes.
fn ask(stream: &mut Stream, request: &[u8]) -> (String, Vec<u8>) {
    stream.write_all(request).expect("sent");
    stream.flush().expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(
            stream.read(&mut byte).expect("a head"),
            1,
            "cut in the head"
        );
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head is text");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |value| value.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the whole body");
    (head, body)
}

#[test]
fn files_go_both_ways_over_both_versions() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = certificate(dir.path());
    let server = server(dir.path(), "");
    let folder = Folder::empty(&server);
    for only_1_2 in [true, false] {
        let config = client(&root, only_1_2);
        let mut stream = connect(server.client(), &config);
        let name = format!("f{only_1_2}");
        let size = 24 << 20;
        let pattern = Pattern(u64::from(only_1_2) + 5);
        let upload = Upload::begin(&server, &folder, &name, size);
        let patch = upload
            .patch_request(0)
            .body(&pattern.bytes(0, size))
            .to_bytes();
        let (head, _) = ask(&mut stream, &patch);
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
        let target = format!("/download?token={}", folder.download_token(&name));
        let whole = Request::new("GET", &target).to_bytes();
        let (head, body) = ask(&mut stream, &whole);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(
            (body.len() as u64, pattern.mismatch(0, &body)),
            (size, None)
        );
        let range = Request::new("GET", &target).header("Range", "bytes=5000000-5000999");
        let (head, body) = ask(&mut stream, &range.to_bytes());
        assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
        assert_eq!(
            (body.len(), pattern.mismatch(5_000_000, &body)),
            (1000, None)
        );
    }
    server.finish();
}

#[test]
fn sessions_are_resumed_whichever_thread_answers() {
    // The SDK opens a connection per 16 MiB: client contract 6.
    let dir = tempfile::tempdir().expect("a directory");
    let root = certificate(dir.path());
    let server = server(dir.path(), "");
    let config = client(&root, false);
    let mut resumed = 0;
    for round in 0..20 {
        let mut stream = connect(server.client(), &config);
        let (head, _) = ask(&mut stream, b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        resumed += u32::from(stream.conn.handshake_kind() == Some(HandshakeKind::Resumed));
        stream.conn.send_close_notify();
        let _ = stream.flush();
        assert!(
            round == 0 || 0 < resumed,
            "the second handshake was a full one"
        );
    }
    assert_eq!(resumed, 19, "all but the first");
    server.finish();
}

#[test]
fn what_is_not_tls_is_closed_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = certificate(dir.path());
    let server = server(dir.path(), "[server.limits]\nhead-timeout = \"1s\"\n");
    let config = client(&root, false);
    let mut plain = Connection::open(server.client()).expect("a connection");
    plain
        .write(&Request::new("GET", "/").to_bytes())
        .expect("sent");
    let said = plain.until_closed();
    assert!(!said.starts_with(b"HTTP/1.1 200"), "served in plain text");
    let mut hello = Vec::new();
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let mut tls = ClientConnection::new(Arc::clone(&config), name).expect("a client");
    tls.write_tls(&mut hello).expect("a client's first words");
    for cut in [0, 1, 5, hello.len() / 2, hello.len()] {
        let mut silent = Connection::open(server.client()).expect("a connection");
        silent.write(&hello[..cut]).expect("sent");
        assert!(
            !silent.until_closed().starts_with(b"HTTP"),
            "after {cut} bytes"
        );
    }
    for at in [0, 1, 4, 5, 9, 43] {
        let mut broken = hello.clone();
        broken[at] ^= 0xff;
        let mut strange = Connection::open(server.client()).expect("a connection");
        strange.write(&broken).expect("sent");
        let _ = strange.until_closed();
    }
    server.assert_at_rest();
    server.finish();
}

#[test]
fn an_upload_cut_within_tls_keeps_a_true_offset() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = certificate(dir.path());
    let server = server(dir.path(), "");
    let folder = Folder::empty(&server);
    let config = client(&root, false);
    let (size, pattern) = (8 << 20, Pattern(3));
    let upload = Upload::begin(&server, &folder, "f", size);
    let whole = upload
        .patch_request(0)
        .body(&pattern.bytes(0, size))
        .to_bytes();
    let mut stream = connect(server.client(), &config);
    stream.write_all(&whole[..5 << 20]).expect("sent");
    stream.flush().expect("sent");
    drop(stream);
    let head = Request::new("HEAD", &upload.target()).to_bytes();
    let offset = proxy_testkit::wait::until("an offset", Duration::from_secs(20), || {
        let (head, _) = ask(&mut connect(server.client(), &config), &head);
        let value = head
            .lines()
            .find_map(|line| line.strip_prefix("Upload-Offset: "))?;
        value.parse::<u64>().ok().filter(|at| 0 < *at)
    });
    assert!(offset <= 5 << 20, "{offset}");
    let rest = upload
        .patch_request(offset)
        .body(&pattern.bytes(offset, size - offset));
    let (head, _) = ask(&mut connect(server.client(), &config), &rest.to_bytes());
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    let bytes = std::fs::read(folder.at("f")).expect("f");
    assert_eq!(
        (bytes.len() as u64, pattern.mismatch(0, &bytes)),
        (size, None)
    );
    server.finish();
}

/// What a program of this machine says on standard output; `None`, said aloud, without it.
fn run(program: &str, args: &[&str]) -> Option<Vec<u8>> {
    let ran = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match ran {
        Ok(ran) => Some(ran.stdout),
        Err(error) => {
            skip(format!("{program}: {error}"));
            None
        }
    }
}

#[test]
fn openssl_resumes_its_sessions_in_both_versions() {
    let dir = tempfile::tempdir().expect("a directory");
    certificate(dir.path());
    let server = server(dir.path(), "");
    let to = server.client().to_string();
    for (version, tickets) in [("-tls1_3", true), ("-tls1_2", true), ("-tls1_2", false)] {
        let kept = dir.path().join("session");
        let kept = kept.to_str().expect("a path in UTF-8");
        let mut args = vec!["s_client", "-connect", &to, version, "-ign_eof"];
        if !tickets {
            args.push("-no_ticket");
        }
        let mut first = args.clone();
        first.extend_from_slice(&["-sess_out", kept]);
        // Tickets of TLS 1.3 come with the first answer.
        let asked = |args: &[&str]| {
            let mut child = Command::new("openssl")
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .ok()?;
            let mut stdin = child.stdin.take().expect("piped");
            let sent = stdin.write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
            sent.expect("sent");
            let said = child.wait_with_output().expect("our own child").stdout;
            Some(String::from_utf8_lossy(&said).into_owned())
        };
        let Some(full) = asked(&first) else {
            return skip("openssl is not there");
        };
        assert!(full.contains("New, TLSv1"), "{version} {tickets}: {full}");
        let mut second = args.clone();
        second.extend_from_slice(&["-sess_in", kept]);
        let again = asked(&second).expect("as before");
        assert!(
            again.contains("Reused, TLSv1"),
            "{version} {tickets}: {again}"
        );
        assert!(
            again.contains("HTTP/1.1 200 OK"),
            "{version} {tickets}: {again}"
        );
    }
    server.finish();
}

#[test]
fn curl_gets_the_same_over_both_protocols() {
    let dir = tempfile::tempdir().expect("a directory");
    certificate(dir.path());
    let server = server(dir.path(), "");
    let folder = Folder::empty(&server);
    let (size, pattern) = (9 << 20, Pattern(8));
    folder.write("f", &pattern.bytes(0, size));
    let token = folder.download_token("f");
    let url = format!("https://{}/download?token={token}", server.client());
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let args = ["-sk", flag, "-D", "-", &url];
        let Some(bytes) = run("curl", &args) else {
            return;
        };
        let at = bytes.windows(4).position(|end| end == b"\r\n\r\n");
        let (head, body) = bytes.split_at(at.expect("a head") + 4);
        let head = String::from_utf8_lossy(head);
        assert!(head.starts_with(&format!("HTTP/{version} 200")), "{head}");
        assert_eq!((body.len() as u64, pattern.mismatch(0, body)), (size, None));
    }
    let upload = Upload::begin(&server, &folder, "up", size);
    let url = format!("https://{}{}", server.client(), upload.target());
    let from = format!("@{}", folder.at("f").display());
    let mut args = vec!["-sk", "--http2", "-X", "PATCH", "--data-binary", &from];
    args.extend_from_slice(&[
        "-H",
        "Upload-Offset: 0",
        "-w",
        "%{http_version} %{http_code}",
    ]);
    args.push(&url);
    if let Some(said) = run("curl", &args) {
        assert_eq!(String::from_utf8_lossy(&said), "2 204");
        let have = std::fs::read(folder.at("up")).expect("published");
        assert_eq!(pattern.mismatch(0, &have), None);
    }
    server.finish();
}

#[test]
fn certificates_are_exchanged_without_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = client(&certificate(dir.path()), false);
    let server = server(dir.path(), "");
    let request = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n";
    let works = |config: &Arc<ClientConfig>| {
        let tcp = TcpStream::connect(server.client()).expect("a connection");
        tcp.set_read_timeout(Some(IO_BOUND)).expect("a bound");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
        let mut stream = StreamOwned::new(tls, tcp);
        stream.write_all(request).is_ok() && stream.read(&mut [0; 16]).is_ok_and(|n| 0 < n)
    };
    let mut kept = connect(server.client(), &old);
    assert!(ask(&mut kept, request).0.starts_with("HTTP/1.1 200 "));
    // What can not be used changes nothing.
    let good = std::fs::read(dir.path().join("key.pem")).expect("a key");
    std::fs::write(dir.path().join("key.pem"), "no key").expect("written");
    server.signal(Signal::HUP);
    wait::until("a complaint", Duration::from_secs(20), || {
        server
            .log()
            .contains("the old certificate stays")
            .then_some(())
    });
    std::fs::write(dir.path().join("key.pem"), good).expect("written");
    assert!(works(&client_like(&old)));
    let new = client(&certificate(dir.path()), false);
    server.signal(Signal::HUP);
    wait::until("the new certificate", Duration::from_secs(20), || {
        works(&new).then_some(())
    });
    assert!(
        ask(&mut kept, request).0.starts_with("HTTP/1.1 200 "),
        "cut"
    );
    drop(kept);
    server.assert_at_rest();
}

/// Operators are warned before clients are refused.
#[test]
fn the_end_of_a_certificate_is_a_metric() {
    let dir = tempfile::tempdir().expect("a directory");
    certificate(dir.path());
    let server = server(dir.path(), "");
    let end = |server: &Server| gauge(&server.metrics(), "certificate_expiry_timestamp_seconds");
    // 4096-01-01, the default of the library that made it.
    assert_eq!(end(&server), Some(67_090_118_400.0));
    let mut made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    made.not_after = rcgen::date_time_ymd(2031, 2, 3);
    let key = rcgen::KeyPair::generate().expect("a key");
    let made = made.self_signed(&key).expect("a certificate");
    std::fs::write(dir.path().join("cert.pem"), made.pem()).expect("written");
    std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).expect("written");
    server.signal(Signal::HUP);
    wait::until("the new end", Duration::from_secs(20), || {
        (end(&server) == Some(1_927_843_200.0)).then_some(())
    });
    server.finish();
}

/// The same trust without the sessions that were kept: a full handshake shows the certificate.
fn client_like(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(config);
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}
