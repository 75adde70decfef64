//! A connection as the HTTP loop sees it: plain or TLS, it does not know which.

use std::io;
use std::time::Duration;

use proxy_ring::socket as calls;
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

    /// Both sides agreed on HTTP/2 in the handshake.
    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.is_http2())
    }

    /// Receives what can be had without waiting. Zero is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub fn try_recv(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => calls::recv(socket.fd(), room),
            Self::Tls(tls) => tls.try_recv(room),
        }
    }

    /// Takes what can be sent without waiting, and perhaps a bounded piece more.
    ///
    /// # Errors
    /// `WouldBlock` when nothing was taken.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => calls::send(socket.fd(), bytes, false),
            Self::Tls(tls) => tls.try_send(bytes),
        }
    }

    /// Sends what [`Stream::try_send`] took and could not send.
    ///
    /// # Errors
    /// `WouldBlock` when the socket does not take all of it.
    pub fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.try_flush(),
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
