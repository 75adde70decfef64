//! HTTP/2: one connection, each client of the load a stream on it.
//!
//! Windows are large, so that no server waits for credit, and every byte that comes is credited at
//! once. Content passes through memory here: the frames are inside the stream.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use http::Request;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::check::{self, Sink};
use super::{Plan, Shared, Tally, next_call};
use crate::call::Call;
use crate::process;

/// Credit of a stream and of the connection.
const WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// Largest frame that a server may send.
const FRAME_BYTES_MAX: u32 = 1024 * 1024;

/// Runs the load of the plan, which has one.
pub fn run(shared: &Shared<'_>) -> io::Result<Vec<Tally>> {
    let plan = shared.plan;
    let prepared = process::pin(plan.cores.get(..1).unwrap_or(&[]));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    // Both barriers whatever happened: the others wait there.
    shared.connected.wait();
    shared.connected.wait();
    prepared?;
    let tally = LocalSet::new().block_on(&runtime?, drive(shared))?;
    Ok(vec![tally])
}

async fn drive(shared: &Shared<'_>) -> io::Result<Tally> {
    let plan = shared.plan;
    let socket = TcpStream::connect(plan.address).await?;
    socket.set_nodelay(true)?;
    match &plan.tls {
        None => speak(shared, socket).await,
        Some(config) => {
            let mut config = rustls::ClientConfig::clone(config);
            config.alpn_protocols = vec![b"h2".to_vec()];
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            let stream = connector.connect(name, socket).await?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(io::Error::other("the server does not choose h2"));
            }
            speak(shared, stream).await
        }
    }
}

async fn speak<S>(shared: &Shared<'_>, socket: S) -> io::Result<Tally>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let made: (SendRequest<Bytes>, Connection<S>) = Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .handshake(socket)
        .await
        .map_err(io::Error::other)?;
    let (sender, connection) = made;
    let connection = tokio::task::spawn_local(connection);
    let tally = Rc::new(RefCell::new(Tally::new()));
    let count = shared.plan.loads.first().map_or(0, |load| load.connections);
    let start = Instant::now();
    let streams = (0..count).map(|_| stream(shared, sender.clone(), &tally, start));
    futures_util::future::join_all(streams).await;
    drop(sender);
    connection.abort();
    let tally = Rc::try_unwrap(tally).map_err(|_| io::Error::other("a stream is still there"))?;
    Ok(tally.into_inner())
}

/// One client: a request after the other.
async fn stream(
    shared: &Shared<'_>,
    mut sender: SendRequest<Bytes>,
    tally: &RefCell<Tally>,
    start: Instant,
) {
    let Some(load) = shared.plan.loads.first() else {
        return;
    };
    while let Some(number) = number(shared, load.requests, start) {
        let Some(call) = next_call(&load.source, number) else {
            return;
        };
        let begun = Instant::now();
        match ask(shared.plan, &mut sender, &call).await {
            Ok((bytes, first)) => {
                let (now, tally) = (Instant::now(), &mut *tally.borrow_mut());
                tally.requests += 1;
                tally.bytes += bytes;
                tally
                    .first_byte
                    .saturating_record((first - begun).as_nanos() as u64);
                tally
                    .total
                    .saturating_record((now - begun).as_nanos() as u64);
                tally.elapsed = now - start;
            }
            Err(problem) => shared.fail(&mut tally.borrow_mut(), problem),
        }
    }
}

fn number(shared: &Shared<'_>, limit: Option<u64>, start: Instant) -> Option<u64> {
    if shared.stop.load(Ordering::Relaxed) || shared.plan.time <= start.elapsed() {
        return None;
    }
    let number = shared.begun.first()?.fetch_add(1, Ordering::Relaxed);
    limit.is_none_or(|limit| number < limit).then_some(number)
}

/// One request; the bytes of its answer, and when the first came.
async fn ask(
    plan: &Plan<'_>,
    sender: &mut SendRequest<Bytes>,
    call: &Call,
) -> Result<(u64, Instant), String> {
    let text = |error: h2::Error| error.to_string();
    let request = request(plan, call)?;
    futures_util::future::poll_fn(|context| sender.poll_ready(context))
        .await
        .map_err(text)?;
    let (answer, _) = sender.send_request(request, true).map_err(text)?;
    let answer = answer.await.map_err(text)?;
    let first = Instant::now();
    if !call.expect.allows(answer.status().as_u16()) {
        return Err(format!("status {}", answer.status()));
    }
    let mut sink = Sink::new(&call.expect.content, plan.fixture, plan.verify)?;
    let mut body = answer.into_body();
    let mut got = 0;
    while let Some(part) = body.data().await {
        let part = part.map_err(text)?;
        got += part.len() as u64;
        sink.take(&part)?;
        body.flow_control()
            .release_capacity(part.len())
            .map_err(text)?;
    }
    check::length(&call.expect.content, got)?;
    Ok((got, first))
}

/// The call's head in the words of HTTP/2.
fn request(plan: &Plan<'_>, call: &Call) -> Result<Request<()>, String> {
    let mut slots = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut slots);
    head.parse(&call.head).map_err(|error| error.to_string())?;
    let scheme = if plan.tls.is_some() { "https" } else { "http" };
    let target = head.path.unwrap_or("/");
    let mut request = Request::builder()
        .method(head.method.unwrap_or("GET"))
        .uri(format!("{scheme}://localhost{target}"));
    for header in head
        .headers
        .iter()
        .filter(|h| !h.name.eq_ignore_ascii_case("host"))
    {
        request = request.header(header.name, header.value);
    }
    request.body(()).map_err(|error| error.to_string())
}
