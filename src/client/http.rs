//! HTTP/1.1 to one address of one server.
//!
//! Every request has a connection of its own: requests are few and large, and a fresh connection
//! has no past to worry about.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use proxy_core::token::Secret;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::body::Payload;
use crate::failure::{Failure, plain};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may think about a request of the manager port.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Most bytes of an answer that is read whole; listings are the longest.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug)]
pub struct CallError {
    /// What the server said, if it said anything.
    pub status: Option<StatusCode>,
    /// For people.
    pub text: String,
    /// Whether the same request may succeed later.
    pub passes: bool,
    /// What the server's file system said, if that was the cause.
    pub errno: Option<i64>,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::new(error.text)
    }
}

impl CallError {
    /// The connection failed on the way.
    pub fn broken(text: impl Into<String>) -> Self {
        Self {
            status: None,
            text: text.into(),
            passes: true,
            errno: None,
        }
    }

    /// The request cannot even be made.
    pub fn local(text: impl Into<String>) -> Self {
        Self {
            status: None,
            text: text.into(),
            passes: false,
            errno: None,
        }
    }

    /// The server said no.
    fn refused(status: StatusCode, body: &[u8]) -> Self {
        let problem = serde_json::from_slice::<Value>(body).ok();
        Self {
            status: Some(status),
            text: explain(status, body),
            passes: passes(status),
            errno: problem.and_then(|problem| problem.get("errno")?.as_i64()),
        }
    }
}

/// One port of a server.
#[derive(Clone)]
pub struct Endpoint {
    port: String,
    at: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    /// `port` names it in messages.
    pub fn new(port: &str, at: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Self {
        Self {
            port: port.into(),
            at,
            tls,
        }
    }

    /// Sends a request, and returns when the head of the answer is there.
    ///
    /// # Errors
    /// The server cannot be reached, or the connection breaks.
    pub async fn send(
        &self,
        mut request: Request<Payload>,
    ) -> Result<Response<Incoming>, CallError> {
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&self.at.to_string())
            .map_err(|error| CallError::local(error.to_string()))?;
        headers.insert(HOST, host);
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("storage-proxy/", env!("CARGO_PKG_VERSION"))),
        );
        let connect = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.at)).await;
        let stream = match connect {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(_) => return Err(self.unreachable(&io::ErrorKind::TimedOut.into())),
        };
        // Small requests wait for nothing; large ones fill their segments anyway.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => exchange(stream, request).await,
            Some(config) => {
                let name = ServerName::from(self.at.ip());
                let secured = TlsConnector::from(config.clone())
                    .connect(name, stream)
                    .await;
                let secured = secured.map_err(|error| {
                    CallError::broken(format!(
                        "TLS with the {} port {}: {error}",
                        self.port, self.at
                    ))
                })?;
                exchange(secured, request).await
            }
        }
    }

    fn unreachable(&self, error: &io::Error) -> CallError {
        CallError::broken(format!(
            "cannot reach the {} port {}: {}; is the server running?",
            self.port,
            self.at,
            plain(error)
        ))
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Payload>,
) -> Result<Response<Incoming>, CallError> {
    let broken = |error: hyper::Error| CallError::broken(reason(&error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Drives the connection until the answer is read; its errors reach the answer as well.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(broken)
}

/// The innermost cause, which is the one that says something.
fn reason(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("connection lost: {cause}")
}

/// Reads an answer whole.
///
/// # Errors
/// The connection breaks, or the answer does not end.
pub async fn read_all(response: Response<Incoming>) -> Result<Vec<u8>, CallError> {
    let read = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
    match timeout(ANSWER_TIMEOUT, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes().to_vec()),
        Ok(Err(error)) => Err(CallError::broken(format!("connection lost: {error}"))),
        Err(_) => Err(CallError::broken(
            "the server does not go on with its answer",
        )),
    }
}

/// What an answer that is not a success says.
pub async fn refusal(response: Response<Incoming>) -> CallError {
    let status = response.status();
    let body = read_all(response).await.unwrap_or_default();
    CallError::refused(status, &body)
}

/// Whether the same request can succeed later: a server that is not ready, a session that another
/// connection holds. Not a full disk: that takes a person.
fn passes(status: StatusCode) -> bool {
    match status {
        StatusCode::CONFLICT | StatusCode::LOCKED | StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::REQUEST_TIMEOUT => true,
        StatusCode::INSUFFICIENT_STORAGE | StatusCode::NOT_IMPLEMENTED => false,
        status => status.is_server_error(),
    }
}

/// Status, title and message of a problem document; the body's first line otherwise.
fn explain(status: StatusCode, body: &[u8]) -> String {
    let mut text = format!("the server said {status}");
    match serde_json::from_slice::<Value>(body) {
        Ok(problem) => {
            for key in ["title", "msg", "data"] {
                match problem.get(key) {
                    None | Some(Value::Null) => {}
                    Some(Value::String(part)) if text.contains(part.as_str()) => {}
                    Some(Value::String(part)) => text.push_str(&format!(": {part}")),
                    Some(other) => text.push_str(&format!(": {other}")),
                }
            }
        }
        Err(_) => {
            let body = String::from_utf8_lossy(body);
            let first = body.lines().next().unwrap_or_default().trim();
            if !first.is_empty() {
                text.push_str(&format!(": {first}"));
            }
        }
    }
    text
}

/// The manager port, with the secret it wants.
#[derive(Clone)]
pub struct Manager {
    endpoint: Endpoint,
    secret: Secret,
}

impl Manager {
    /// Speaks to `endpoint` with `secret`.
    pub fn new(endpoint: Endpoint, secret: Secret) -> Self {
        Self { endpoint, secret }
    }

    /// Sends JSON, and reads JSON; an empty answer is null.
    ///
    /// # Errors
    /// No answer, or one that is not a success.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, CallError> {
        let mut secret = HeaderValue::from_bytes(self.secret.as_bytes())
            .map_err(|_| CallError::local("the manager secret does not fit into a header"))?;
        secret.set_sensitive(true);
        let mut request = Request::new(Payload::Bytes(body.to_string().into()));
        *request.method_mut() = method;
        *request.uri_mut() = path
            .parse()
            .map_err(|_| CallError::local(format!("bad path {path:?}")))?;
        request
            .headers_mut()
            .insert("x-backendai-storage-auth-token", secret);
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = timeout(ANSWER_TIMEOUT, self.endpoint.send(request)).await;
        let response = answer.map_err(|_| CallError::broken("the server does not answer"))??;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let bytes = read_all(response).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|_| CallError::local("the server's answer is not JSON"))
    }

    /// A token of one of the minting routes.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn token(&self, path: &str, body: &Value) -> Result<String, CallError> {
        let answer = self.call(Method::POST, path, body).await?;
        let token = answer.get("token").and_then(Value::as_str);
        token
            .map(str::to_owned)
            .ok_or_else(|| CallError::local("the answer has no token"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_explained() {
        for (status, body, want) in [
            (404, "", "the server said 404 Not Found"),
            (
                404,
                r#"{"title":"File not found","type":"x"}"#,
                "the server said 404 Not Found: File not found",
            ),
            (
                400,
                r#"{"title":"Invalid parameters","data":{"size":"is required"}}"#,
                r#"the server said 400 Bad Request: Invalid parameters: {"size":"is required"}"#,
            ),
            (
                400,
                r#"{"msg":"same","data":"same"}"#,
                "the server said 400 Bad Request: same",
            ),
            (
                500,
                "500 Internal\n\nx",
                "the server said 500 Internal Server Error: 500 Internal",
            ),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(explain(status, body.as_bytes()), want);
        }
    }
}
