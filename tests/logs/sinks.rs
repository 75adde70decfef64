//! Servers that keep what they are sent: HTTP, lines over TCP and TLS, datagrams, gRPC.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proxy_testkit::wait;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;

/// What came: where to, with which head, and what.
type Came = Arc<Mutex<Vec<(String, String, Vec<u8>)>>>;

/// One server; ends with its value.
pub struct Sink {
    pub addr: SocketAddr,
    came: Came,
    _runtime: Runtime,
}

/// A certificate authority, and a certificate of it for `localhost`.
pub struct Files {
    pub ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

pub fn certificates(dir: &Path) -> Files {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(parameters, key).expect("an authority");
    let own = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = parameters.signed_by(&own, &ca).expect("a certificate");
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    Files {
        ca: write("ca.pem", ca.pem()),
        certificate: write("cert.pem", certificate.pem()),
        key: write("key.pem", own.serialize_pem()),
    }
}

impl Sink {
    fn new<F: Future<Output = ()> + Send + 'static>(
        serve: impl FnOnce(TcpListener, Came) -> F,
    ) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let bind = TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(bind).expect("a port");
        let addr = listener.local_addr().expect("bound");
        let came = Came::default();
        runtime.spawn(serve(listener, Arc::clone(&came)));
        Self {
            addr,
            came,
            _runtime: runtime,
        }
    }

    /// Answers every POST with 204.
    pub fn http() -> Self {
        Self::new(|listener, came| async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(http(stream, Arc::clone(&came)));
            }
        })
    }

    /// Keeps what stands before each `end`.
    pub fn tcp(end: u8) -> Self {
        Self::new(move |listener, came| async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pieces(stream, end, Arc::clone(&came)));
            }
        })
    }

    /// The same over TLS.
    pub fn tls(files: &Files, end: u8) -> Self {
        let chain = CertificateDer::pem_file_iter(&files.certificate).expect("a file");
        let chain = chain.map(|one| one.expect("a certificate")).collect();
        let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they fit");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        Self::new(move |listener, came| async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, came) = (acceptor.clone(), Arc::clone(&came));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        pieces(stream, end, came).await;
                    }
                });
            }
        })
    }

    /// Keeps datagrams.
    pub fn udp() -> Self {
        let mut sink = Self::new(|_, _| async {});
        // `localhost` is tried as IPv6 first where that is there.
        let bind = UdpSocket::bind("localhost:0");
        let socket = sink._runtime.block_on(bind).expect("a port");
        sink.addr = socket.local_addr().expect("bound");
        let came = Arc::clone(&sink.came);
        sink._runtime.spawn(async move {
            let mut buf = vec![0; 70_000];
            while let Ok(count) = socket.recv(&mut buf).await {
                keep(&came, "", "", buf[..count].to_vec());
            }
        });
        sink
    }

    /// Answers every call with an empty message and status 0.
    pub fn grpc() -> Self {
        Self::new(|listener, came| async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(grpc(stream, Arc::clone(&came)));
            }
        })
    }

    pub fn bodies(&self) -> Vec<Vec<u8>> {
        let came = self.came.lock().expect("whole");
        came.iter().map(|(_, _, body)| body.clone()).collect()
    }

    pub fn bodies_at(&self, path: &str) -> Vec<Vec<u8>> {
        let came = self.came.lock().expect("whole");
        let here = came.iter().filter(|(at, ..)| at == path);
        here.map(|(_, _, body)| body.clone()).collect()
    }

    pub fn heads(&self) -> Vec<String> {
        let came = self.came.lock().expect("whole");
        came.iter().map(|(_, head, _)| head.clone()).collect()
    }

    /// The first JSON object that fits.
    pub fn await_json(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, Duration::from_secs(20), || {
            let all = self.bodies().into_iter();
            let mut all = all.map(|body| serde_json::from_slice(&body).expect("JSON"));
            all.find(|value| fits(value))
        })
    }
}

fn keep(came: &Came, path: &str, head: &str, body: Vec<u8>) {
    let one = (path.to_owned(), head.to_owned(), body);
    came.lock().expect("whole").push(one);
}

async fn pieces(mut stream: impl AsyncRead + Unpin, end: u8, came: Came) {
    let mut held = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut held).await {
        while let Some(at) = held.iter().position(|byte| *byte == end) {
            let rest = held.split_off(at + 1);
            held.pop();
            keep(&came, "", "", std::mem::replace(&mut held, rest));
        }
    }
}

async fn http(mut stream: TcpStream, came: Came) {
    let mut held = Vec::new();
    loop {
        let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") else {
            match stream.read_buf(&mut held).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&held[..end]).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(0);
        while held.len() < end + 4 + length {
            let Ok(1..) = stream.read_buf(&mut held).await else {
                return;
            };
        }
        let rest = held.split_off(end + 4 + length);
        keep(&came, "", &head, held.split_off(end + 4));
        held = rest;
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

async fn grpc(stream: TcpStream, came: Came) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let came = Arc::clone(&came);
        tokio::spawn(async move {
            let path = request.uri().path().to_owned();
            let mut stream = request.into_body();
            let mut body = Vec::new();
            while let Some(Ok(part)) = stream.data().await {
                let _ = stream.flow_control().release_capacity(part.len());
                body.extend_from_slice(&part);
            }
            keep(&came, &path, "", body);
            let answer = http::Response::builder().header("content-type", "application/grpc");
            let answer = answer.body(()).expect("a head");
            let mut out = respond
                .send_response(answer, false)
                .expect("an open stream");
            let _ = out.send_data(Bytes::from_static(&[0; 5]), false);
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let _ = out.send_trailers(trailers);
        });
    }
}
