//! Connections of the control plane: accept, TLS, HTTP/1.1, drain.
//!
//! Laws
//! - The number of connections is bounded; who comes later waits in the listen queue.
//! - Every wait for a peer has a bound: handshake, head, progress of an answer, drain.
//! - After the order to stop nothing is accepted, idle connections close, running requests get
//!   their bounded time.
//! - A connection that fails takes nothing else with it.

mod paced;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, HOST};
use http::{StatusCode, Version};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::state::Limits;
use paced::Paced;

/// Pause after a failed accept. Descriptors have run out, as a rule: trying at once would only
/// burn a core until one closes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `shutdown` is ready and the last request is answered, or
/// the drain time is over.
///
/// # Cancellation
/// Dropping the future closes the listener and every connection at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    shutdown: impl Future<Output = ()> + Send,
    limits: Limits,
) {
    let router = router.layer(from_fn(one_host));
    let tls = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                report_panic(ended);
                continue;
            }
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = Connection {
            router: router.clone(),
            tls: tls.clone(),
            stopped: stopped.clone(),
            limits,
        };
        connections.spawn(async move {
            connection.run(stream).await;
            drop(place);
        });
    }
    drop(listener);
    // Nobody listens when every connection has ended already.
    stop.send_replace(true);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    };
    if tokio::time::timeout(limits.drain_time_max, drained)
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "drain time is over, closing"
        );
        connections.shutdown().await;
    }
}

/// Refuses what RFC 9112 §3.2 wants refused and hyper lets through: an HTTP/1.1 request without
/// a `Host`, or with two, may mean different things to different servers on its way.
async fn one_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts == 1 || (hosts == 0 && request.version() == Version::HTTP_10) {
        return next.run(request).await;
    }
    let answer = "400: Bad Request: exactly one Host is needed";
    (StatusCode::BAD_REQUEST, [(CONNECTION, "close")], answer).into_response()
}

type Place = tokio::sync::OwnedSemaphorePermit;

/// Waits for a free place first, so that a connection is never accepted and then left alone.
///
/// Cancel safe: what is dropped is a place or the wish to accept, never a connection.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, Place)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore of places never closes");
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "connection ended by a defect");
    }
}

struct Connection {
    router: Router,
    tls: Option<TlsAcceptor>,
    stopped: watch::Receiver<bool>,
    limits: Limits,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        // Answers leave in one piece; waiting for more would only delay small ones. A socket that
        // refuses the option works without it.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.http(stream).await;
        };
        let handshake = tokio::time::timeout(self.limits.handshake_time_max, tls.accept(stream));
        match handshake.await {
            Ok(Ok(stream)) => self.http(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "tls handshake"),
            Err(_) => tracing::debug!("tls handshake took too long"),
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let stream = TokioIo::new(Paced::new(stream, self.limits.write_stall_max));
        let service = TowerToHyperService::new(self.router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_time_max)
            .max_buf_size(self.limits.head_bytes_max)
            .serve_connection(stream, service);
        let mut connection = pin!(connection);
        let mut stopped = self.stopped.clone();
        // An error means that the server itself is gone: the same order.
        let stopped = async { drop(stopped.wait_for(|stopped| *stopped).await) };
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stopped => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
