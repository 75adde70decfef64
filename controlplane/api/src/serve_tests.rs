//! Goal: connections are bounded in number and in time, and drain when told to.
//! Method: a real listener on loopback, raw bytes from the client's side.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::routing::get;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

/// Far above what any step takes: a test that hits it has failed.
const BOUND: Duration = Duration::from_secs(20);

struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

async fn start(router: Router, tls: Option<Arc<ServerConfig>>, limits: Limits) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    let server = tokio::spawn(serve(listener, router, tls, shutdown, limits));
    Served {
        address,
        stop,
        server,
    }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(BOUND, self.server)
            .await
            .unwrap()
            .unwrap();
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), path: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// Reads until `end` was seen or the connection closed; what was read.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    let read = async {
        while !seen.ends_with(end.as_bytes()) || end.is_empty() {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(read) => seen.extend_from_slice(&piece[..read]),
            }
        }
    };
    tokio::time::timeout(BOUND, read).await.unwrap();
    String::from_utf8(seen).unwrap()
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

#[tokio::test]
async fn a_connection_serves_request_after_request() {
    let served = start(hello(), None, Limits::default()).await;
    let mut stream = served.connect().await;
    for _ in 0..3 {
        send(&mut stream, "/").await;
        let answer = read_until(&mut stream, "hello").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    served.end().await;
    assert_eq!(
        read_until(&mut stream, "").await,
        "",
        "an idle connection is closed"
    );
}

#[tokio::test]
async fn a_connection_too_many_waits_for_a_place() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let served = start(hello(), None, limits).await;
    let mut first = served.connect().await;
    send(&mut first, "/").await;
    read_until(&mut first, "hello").await;
    let mut second = served.connect().await;
    send(&mut second, "/").await;
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut byte)).await;
    assert!(early.is_err(), "answered although no place was free");
    drop(first);
    assert!(read_until(&mut second, "hello").await.ends_with("hello"));
    served.end().await;
}

#[tokio::test]
async fn a_head_that_does_not_come_closes_the_connection() {
    let limits = Limits {
        head_time_max: Duration::from_millis(50),
        ..Limits::default()
    };
    let served = start(hello(), None, limits).await;
    let mut stream = served.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    let answer = read_until(&mut stream, "").await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
    served.end().await;
}

/// A router whose request begins, says so, and ends when told.
fn slow() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let router = Router::new().route(
        "/",
        get(move || async move {
            told.notify_one();
            wait.notified().await;
            "done"
        }),
    );
    (router, begun, go)
}

#[tokio::test]
async fn running_requests_are_answered_after_the_order_to_stop() {
    let (router, begun, go) = slow();
    let served = start(router, None, Limits::default()).await;
    let mut stream = served.connect().await;
    send(&mut stream, "/").await;
    tokio::time::timeout(BOUND, begun.notified()).await.unwrap();
    served.stop.send(()).unwrap();
    let refused = async {
        while TcpStream::connect(served.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, refused).await.unwrap();
    go.notify_one();
    let answer = read_until(&mut stream, "").await;
    assert!(answer.ends_with("done"), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    tokio::time::timeout(BOUND, served.server)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn requests_that_do_not_end_are_cut_off() {
    let (router, begun, _go) = slow();
    let limits = Limits {
        drain_time_max: Duration::from_millis(50),
        ..Limits::default()
    };
    let served = start(router, None, limits).await;
    let mut stream = served.connect().await;
    send(&mut stream, "/").await;
    tokio::time::timeout(BOUND, begun.notified()).await.unwrap();
    served.end().await;
    assert_eq!(read_until(&mut stream, "").await, "");
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_complete() {
    let router = Router::new().route(
        "/",
        get(|| async {
            let (pieces, body) = tokio::sync::mpsc::channel(2);
            pieces
                .send(Ok(Frame::data(Bytes::from_static(b"first"))))
                .await
                .unwrap();
            pieces.send(Err(io::Error::other("disk"))).await.unwrap();
            Body::new(StreamBody::new(ReceiverStream::new(body)))
        }),
    );
    let served = start(router, None, Limits::default()).await;
    let mut stream = served.connect().await;
    send(&mut stream, "/").await;
    let answer = read_until(&mut stream, "").await;
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    served.end().await;
}

#[tokio::test]
async fn tls_is_spoken_when_configured() {
    let minted = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(minted.signing_key.serialize_der().into());
    let certificate = minted.cert.der().clone();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let served = start(hello(), Some(Arc::new(config)), Limits::default()).await;

    // Plain bytes at a TLS port end that connection only.
    let mut plain = served.connect().await;
    send(&mut plain, "/").await;
    assert!(!read_until(&mut plain, "").await.contains("HTTP/1.1 200"));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = connector
        .connect(name, served.connect().await)
        .await
        .unwrap();
    send(&mut stream, "/").await;
    assert!(read_until(&mut stream, "hello").await.ends_with("hello"));
    served.end().await;
}

/// Sends raw bytes and reads until the server closes.
async fn exchange(served: &Served, bytes: &[u8]) -> String {
    let mut stream = served.connect().await;
    stream.write_all(bytes).await.unwrap();
    read_until(&mut stream, "").await
}

#[tokio::test]
async fn the_managers_ways_of_sending_bodies_work_on_the_wire() {
    let bed = crate::testbed::Testbed::new().await;
    let served = start(bed.router.clone(), None, Limits::default()).await;
    let head = |line: &str, more: &str| {
        let token = crate::testbed::TOKEN;
        format!(
            "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             X-BackendAI-Storage-Auth-Token: {token}\r\n{more}\r\n"
        )
    };
    let vfid = crate::testbed::VFID;
    let body = format!(r#"{{"volume":"local","vfid":"{vfid}","relpath":"a.txt"}}"#);
    let length = body.len();
    let counted = format!("Content-Length: {length}\r\nExpect: 100-continue\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let hwinfo = r#"{"volume":"local"}"#;
    let large = "x".repeat(3 << 20);
    for (request, starts, ends) in [
        (
            head("GET /volume/hwinfo", chunked) + "12\r\n" + hwinfo + "\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
            r#""metadata":{}}"#,
        ),
        (
            head("POST /folder/file/fetch", &counted) + &body,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
            "\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            head("POST /folder/file/fetch", chunked)
                + &format!(
                    "{length:x}\r\n{}\r\n0\r\n\r\n",
                    body.replace("a.txt", "b.txt")
                ),
            "HTTP/1.1 200 OK\r\n",
            "\r\n\r\n0\r\n\r\n",
        ),
        (
            head("GET /volumes", "Content-Length: 2\r\n") + "{}",
            "HTTP/1.1 400 Bad Request\r\n",
            "}",
        ),
        (
            head("HEAD /volumes", ""),
            "HTTP/1.1 405 Method Not Allowed\r\n",
            "\r\n\r\n",
        ),
        (
            head("GET /volume/hwinfo", "Content-Length: 3145728\r\n") + &large,
            "HTTP/1.1 413 Payload Too Large\r\n",
            "actual body size 3145728",
        ),
        (
            head(
                "GET /volume/hwinfo",
                "Content-Length: 5\r\nContent-Length: 6\r\n",
            ) + "{}",
            "HTTP/1.1 400 Bad Request\r\n",
            "\r\n\r\n",
        ),
    ] {
        let answer = exchange(&served, request.as_bytes()).await;
        let row = &request[..request.len().min(300)];
        assert!(answer.starts_with(starts), "{row}\n{answer}");
        assert!(answer.ends_with(ends), "{row}\n{answer}");
    }
    served.end().await;
}
