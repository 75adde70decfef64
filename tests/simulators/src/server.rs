//! The server under a simulator: one thread, TLS, HTTP/1.1, faults.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::fault::{Faults, What};
use crate::{Recorded, Reply, Request, Vendor};

/// What the server's thread and the test share.
pub(crate) struct Shared<V> {
    pub(crate) vendor: V,
    pub(crate) faults: Faults,
    pub(crate) recorded: Mutex<Vec<Recorded>>,
}

/// Switches the server; answered when it is done.
struct Order {
    on: bool,
    done: blocking::Sender<()>,
}

/// The thread and its switch. Ends with its value.
pub(crate) struct Server {
    port: u16,
    orders: Option<mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on 127.0.0.1 and leaves the certificate in `ca_file`.
    pub(crate) fn start<V: Vendor>(shared: &Arc<Shared<V>>, port: u16, ca_file: &Path) -> Self {
        let tls = TlsAcceptor::from(Arc::new(certificate(ca_file)));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a port");
        listener
            .set_nonblocking(true)
            .expect("a socket that does not wait");
        let address = listener.local_addr().expect("an address");
        let (orders, inbox) = mpsc::unbounded_channel();
        let shared = Arc::clone(shared);
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(run(shared, listener, address, inbox, tls));
        };
        let thread = std::thread::Builder::new().name("simulator".to_owned());
        Self {
            port: address.port(),
            orders: Some(orders),
            thread: Some(thread.spawn(serve).expect("a thread")),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Switches it off or on; done when this returns.
    pub(crate) fn power(&self, on: bool) {
        let (done, told) = blocking::channel();
        if let Some(orders) = &self.orders {
            let _ = orders.send(Order { on, done });
            let _ = told.recv();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A certificate for this host that is its own authority.
fn certificate(ca_file: &Path) -> ServerConfig {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    std::fs::write(ca_file, made.cert.pem()).expect("a file for the certificate");
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("usual versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate that fits its key")
}

/// Serves, and is switched off and on, until nobody holds the switch any more.
async fn run<V: Vendor>(
    shared: Arc<Shared<V>>,
    listener: std::net::TcpListener,
    address: SocketAddr,
    mut inbox: mpsc::UnboundedReceiver<Order>,
    tls: TlsAcceptor,
) {
    let mut listener = TcpListener::from_std(listener).ok();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            order = inbox.recv() => {
                let Some(order) = order else { return };
                if !order.on {
                    listener = None;
                    connections.shutdown().await;
                } else if listener.is_none() {
                    listener = TcpListener::bind(address).await.ok();
                }
                let _ = order.done.send(());
            }
            accepted = accept(listener.as_ref()) => {
                if let Ok(stream) = accepted {
                    connections.spawn(connection(Arc::clone(&shared), tls.clone(), stream));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn connection<V: Vendor>(shared: Arc<Shared<V>>, tls: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let service = service_fn(|request: http::Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let request = received(request).await?;
            answer(&shared, request).await
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A request with its whole body.
async fn received(request: http::Request<Incoming>) -> io::Result<Request> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let headers = head.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    Ok(Request {
        method: head.method.as_str().to_owned(),
        path: decoded(head.uri.path()),
        query: pairs(head.uri.query().unwrap_or_default()),
        headers: headers.collect(),
        body: body.to_vec(),
        params: Vec::new(),
    })
}

/// Pairs of a query or a form.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (
                decoded(&key.replace('+', " ")),
                decoded(&value.replace('+', " ")),
            )
        })
        .collect()
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Answers a request, unless a fault befalls it. An error breaks the connection.
async fn answer<V: Vendor>(
    shared: &Shared<V>,
    request: Request,
) -> io::Result<http::Response<Full<Bytes>>> {
    let broken = || io::Error::other("a fault");
    let place = {
        let mut recorded = shared.recorded.lock();
        recorded.push(Recorded {
            request: request.clone(),
            status: 0,
            body: Value::Null,
        });
        recorded.len() - 1
    };
    let vendor = &shared.vendor;
    let reply = match shared.faults.strike(&request) {
        None => dispatch(vendor, request),
        Some(What::Drop) => return Err(broken()),
        Some(What::DropAfter) => {
            dispatch(vendor, request);
            return Err(broken());
        }
        Some(What::Status(status)) => vendor.error(status, "a fault on demand"),
        Some(What::Throttle(status, seconds)) => vendor
            .error(status, "too many requests")
            .header("retry-after", &seconds.to_string()),
        Some(What::Delay(delay)) => {
            sleep_until(Instant::now() + delay).await;
            dispatch(vendor, request)
        }
        Some(What::Expire) => {
            vendor.expire();
            dispatch(vendor, request)
        }
        Some(What::Garbage) => Reply::json(200, Value::String("<html>it works</html>".into())),
        Some(What::Huge(bytes)) => {
            Reply::json(200, Value::String(format!("\"{}\"", "x".repeat(bytes))))
        }
    };
    if let Some(recorded) = shared.recorded.lock().get_mut(place) {
        recorded.status = reply.status;
        recorded.body = reply.body.clone();
    }
    Ok(sent(reply).unwrap_or_else(|never| match never {}))
}

pub(crate) fn dispatch<V: Vendor>(vendor: &V, mut request: Request) -> Reply {
    if let Err(refusal) = vendor.admit(&request) {
        return refusal;
    }
    for route in V::routes() {
        if route.method == request.method
            && let Some(params) = matched(route.pattern, &request.path)
        {
            request.params = params;
            return (route.handle)(vendor, &request);
        }
    }
    vendor.error(
        404,
        &format!("no route for {} {}", request.method, request.path),
    )
}

/// What the `{}` of a pattern are in a path; `None` when it does not fit.
fn matched(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut params = Vec::new();
    let mut left = path.split('/');
    for part in pattern.split('/') {
        if part == "{*}" {
            params.push(left.collect::<Vec<_>>().join("/"));
            return Some(params);
        }
        let got = left.next()?;
        if part == "{}" {
            params.push(got.to_owned());
        } else if part != got {
            return None;
        }
    }
    left.next().is_none().then_some(params)
}

fn sent(reply: Reply) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let body = match &reply.body {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut response = http::Response::builder().status(reply.status);
    let typed = |(name, _): &(String, String)| name.eq_ignore_ascii_case("content-type");
    if !body.is_empty() && !reply.headers.iter().any(typed) {
        response = response.header("content-type", "application/json");
    }
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    Ok(response
        .body(Full::from(body))
        .unwrap_or_else(|_| http::Response::new(Full::from("a header that cannot be"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, path, want) in [
            ("/a/{}/b", "/a/x/b", Some(vec!["x"])),
            ("/a/{}/b", "/a/x/c", None),
            ("/a/{}", "/a/x/b", None),
            ("/a/{}", "/a", None),
            ("/a/{*}", "/a/x/y", Some(vec!["x/y"])),
            ("/a", "/a", Some(vec![])),
        ] {
            let got = matched(pattern, path);
            let want = want.map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(got, want, "{pattern} {path}");
        }
        let got = pairs("a=1&b=x%2Fy+z&c");
        let want = [("a", "1"), ("b", "x/y z"), ("c", "")];
        let want = want.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(got, want);
    }
}
