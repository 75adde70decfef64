//! HTTP/2 as a client speaks it, by the `h2` crate with prior knowledge; and its frames by hand,
//! for what no good client sends.
//!
//! Source: RFC 9113.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
pub use h2::client::Builder;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Version};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::http::{Framing, IO_BOUND, Request, Response};

/// The preface and an empty SETTINGS frame.
pub const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// How long a server may leave a connection of nonsense open.
const CLOSE_BOUND: Duration = Duration::from_secs(15);

/// One connection. Its frames move on a thread of its own.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
    driver: Option<JoinHandle<Result<(), h2::Error>>>,
}

/// A request that was sent, all but the rest of its body.
#[derive(Debug)]
pub struct Begun {
    answer: ResponseFuture,
    /// Takes the body.
    pub body: SendStream<Bytes>,
}

impl Client {
    /// Connects with the client's usual settings.
    ///
    /// # Panics
    /// When the server does not speak HTTP/2.
    #[must_use]
    #[track_caller]
    pub fn open(to: SocketAddr) -> Self {
        Self::open_with(to, &mut Builder::new())
    }

    /// Connects with settings of the test's own.
    ///
    /// # Panics
    /// As [`Client::open`].
    #[must_use]
    #[track_caller]
    pub fn open_with(to: SocketAddr, settings: &mut Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (sender, driver) = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(to).await.expect("connected");
            let (sender, connection) = settings.handshake(tcp).await.expect("HTTP/2");
            (sender, tokio::spawn(connection))
        });
        Self {
            runtime,
            sender,
            driver: Some(driver),
        }
    }

    /// Runs a future of this connection, for as long as the bound of tests.
    ///
    /// # Panics
    /// When it takes longer.
    #[track_caller]
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let bounded = async { tokio::time::timeout(IO_BOUND, future).await };
        self.runtime.block_on(bounded).expect("within the bound")
    }

    /// Sends the head of a request whose body follows by hand.
    ///
    /// # Errors
    /// What the connection says.
    pub fn begin(&self, request: &Request, ends: bool) -> Result<Begun, h2::Error> {
        self.run(async {
            let mut ready = self.sender.clone().ready().await?;
            let (answer, body) = ready.send_request(fields(request), ends)?;
            Ok(Begun { answer, body })
        })
    }

    /// Sends a whole request and reads its whole answer.
    ///
    /// # Errors
    /// The stream or the connection ended before its time.
    pub fn ask(&self, request: &Request) -> Result<Response, h2::Error> {
        let content = request.content();
        let mut begun = self.begin(request, content.is_none())?;
        if let Some((bytes, _)) = content {
            // A refusal may come before the last byte; the answer says more than this would.
            let _ = self.send(&mut begun.body, bytes.into(), true);
        }
        self.answer(begun)
    }

    /// Sends bytes of a body as the windows allow.
    ///
    /// # Errors
    /// The server does not want them.
    pub fn send(
        &self,
        to: &mut SendStream<Bytes>,
        bytes: Bytes,
        ends: bool,
    ) -> Result<(), h2::Error> {
        self.run(send_all(to, bytes, ends))
    }

    /// The head of an answer, and its body to be read.
    ///
    /// # Errors
    /// The stream ended before its time.
    pub fn head(&self, begun: Begun) -> Result<(u16, RecvStream), h2::Error> {
        let answer = self.run(begun.answer)?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }

    /// The whole answer.
    ///
    /// # Errors
    /// As [`Client::head`].
    pub fn answer(&self, begun: Begun) -> Result<Response, h2::Error> {
        self.run(whole(begun.answer))
    }

    /// The rest of a body.
    ///
    /// # Errors
    /// The stream ended before its time.
    pub fn rest(&self, body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
        self.run(read_all(body))
    }

    /// Whether the server ends the connection within `bound`, while the test only reads.
    pub fn ends_within(&mut self, bound: Duration) -> bool {
        let Some(driver) = &mut self.driver else {
            return true;
        };
        let ended = async { tokio::time::timeout(bound, driver).await.is_ok() };
        let ended = self.runtime.block_on(ended);
        if ended {
            self.driver = None;
        }
        ended
    }
}

async fn send_all(
    to: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    ends: bool,
) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        to.reserve_capacity(bytes.len());
        if to.capacity() == 0 {
            match std::future::poll_fn(|cx| to.poll_capacity(cx)).await {
                Some(more) => more?,
                None => return Err(h2::Reason::CANCEL.into()),
            };
        }
        let part = bytes.split_to(to.capacity().min(bytes.len()));
        to.send_data(part, ends && bytes.is_empty())?;
    }
    Ok(())
}

async fn whole(answer: ResponseFuture) -> Result<Response, h2::Error> {
    let answer = answer.await?;
    assert_eq!(answer.version(), Version::HTTP_2);
    let (status, headers) = (answer.status().as_u16(), lines(answer.headers()));
    let mut body = answer.into_body();
    Ok(Response {
        status,
        reason: String::new(),
        headers,
        body: read_all(&mut body).await?,
        framing: Framing::None,
    })
}

async fn read_all(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        bytes.extend_from_slice(&part);
        body.flow_control().release_capacity(part.len())?;
    }
    Ok(bytes)
}

fn fields(request: &Request) -> http::Request<()> {
    let mut fields = http::Request::builder()
        .method(request.method.as_str())
        .uri(format!("http://test{}", request.target))
        .version(Version::HTTP_2);
    for (name, value) in &request.headers {
        fields = fields.header(name.to_ascii_lowercase(), value);
    }
    if let Some((bytes, true)) = request.content() {
        fields = fields.header("content-length", bytes.len());
    }
    fields.body(()).expect("a request that http can say")
}

fn lines(fields: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let each = fields.iter();
    each.map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}

/// One frame by hand.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a frame is short");
    let mut bytes = len.to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block by hand: literal fields, nothing indexed, nothing compressed (RFC 7541 §6.2.2).
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            let len = u8::try_from(text.len()).expect("a short text");
            assert!(len < 127, "a length that needs no second byte");
            bytes.push(len);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// The frames of `bytes`: kind, flags, stream, payload. What is cut is left out.
#[must_use]
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut found = Vec::new();
    while let [a, b, c, kind, flags, s0, s1, s2, s3, rest @ ..] = bytes {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(payload) = rest.get(..len) else {
            break;
        };
        let stream = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
        found.push((*kind, *flags, stream, payload.to_vec()));
        bytes = &rest[len..];
    }
    found
}

/// Sends bytes of the test's own and reads until the server closes.
///
/// # Errors
/// The server keeps the connection open.
pub fn raw(to: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    use std::io::{Read as _, Write as _};
    let mut tcp = std::net::TcpStream::connect(to)?;
    tcp.set_read_timeout(Some(CLOSE_BOUND))?;
    // The server may close in the middle of what is sent.
    let _ = tcp.write_all(bytes);
    let mut said = Vec::new();
    match tcp.read_to_end(&mut said) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(said),
    }
}
