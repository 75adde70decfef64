//! A connection as the HTTP loop sees it: plain or TLS, it does not know which.

use std::time::Duration;

use proxy_transfer::PeerError;

use crate::socket::Socket;
use crate::tls::TlsStream;

/// Where bytes come from and go to.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Plain(Socket),
    /// TLS over TCP.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// The socket below.
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.socket(),
        }
    }

    /// Waits until a request may be there.
    pub async fn readable(&mut self, limit: Duration) -> Result<(), PeerError> {
        match self {
            Self::Plain(socket) => socket.readable(limit).await,
            Self::Tls(tls) => {
                if tls.has_pending() {
                    return Ok(());
                }
                tls.socket().readable(limit).await
            }
        }
    }

    /// As [`Stream::readable`], but looks first: for bodies in full flow.
    pub async fn readable_now(&mut self, limit: Duration) -> Result<(), PeerError> {
        match self {
            Self::Plain(socket) => socket.readable_now(limit).await,
            Self::Tls(tls) => {
                if tls.has_pending() {
                    return Ok(());
                }
                tls.socket().readable_now(limit).await
            }
        }
    }

    /// Receives what is there; waits if nothing is. Zero is the end.
    pub async fn recv(&mut self, room: &mut [u8], limit: Duration) -> Result<usize, PeerError> {
        match self {
            Self::Plain(socket) => socket.recv(room, limit).await,
            Self::Tls(tls) => tls.recv(room, limit).await,
        }
    }

    /// Sends all of `bytes`. `more` says that something follows at once.
    pub async fn send(
        &mut self,
        bytes: &[u8],
        more: bool,
        limit: Duration,
    ) -> Result<(), PeerError> {
        match self {
            Self::Plain(socket) => socket.send(bytes, more, limit).await,
            Self::Tls(tls) => tls.send(bytes, limit).await,
        }
    }

    /// Ends our side.
    pub async fn end(&mut self, limit: Duration) {
        match self {
            Self::Plain(socket) => socket.end(),
            Self::Tls(tls) => tls.end(limit).await,
        }
    }
}
