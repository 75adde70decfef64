//! TLS over a [`Socket`]: rustls does the cryptography, this file moves its bytes.
//!
//! Copies: ciphertext is copied into the records of rustls, plaintext out of them; user-space TLS
//! has no way around that. Records go from rustls to the socket as they are, many per call.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use proxy_ring::socket as calls;
use proxy_transfer::PeerError;
use rustls::{HandshakeKind, ServerConnection};

use crate::socket::Socket;

/// Ciphertext received at a time.
const RECV_BYTES: usize = 64 * 1024;
/// Plaintext handed to rustls at a time: sixteen records of the largest size.
const SEND_BYTES: usize = 256 * 1024;

/// One TLS connection.
#[derive(Debug)]
pub struct TlsStream {
    socket: Socket,
    session: ServerConnection,
    /// Ciphertext; what is before `fed` has been taken by rustls. Empty while nothing comes.
    pending: Vec<u8>,
    fed: usize,
}

/// The socket as rustls writes to it.
struct Wire<'s>(BorrowedFd<'s>);

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        calls::send(self.0, bytes, false)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        calls::send_vectored(self.0, slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn peer_error(error: &io::Error) -> PeerError {
    match error.kind() {
        io::ErrorKind::InvalidData => PeerError::Malformed("broken TLS record"),
        _ => PeerError::Gone,
    }
}

impl TlsStream {
    /// Runs the handshake.
    ///
    /// # Cancellation
    /// The connection closes.
    pub async fn accept(
        socket: Socket,
        config: Arc<rustls::ServerConfig>,
        limit: Duration,
    ) -> Result<Self, PeerError> {
        let mut session =
            ServerConnection::new(config).map_err(|_| PeerError::Malformed("no TLS session"))?;
        // What is handed over at a time is bounded here, by what is in flight.
        session.set_buffer_limit(None);
        let mut tls = Self {
            socket,
            session,
            pending: Vec::new(),
            fed: 0,
        };
        while tls.session.is_handshaking() {
            tls.flush(limit).await?;
            if !tls.session.is_handshaking() {
                break;
            }
            match tls.pull() {
                Ok(0) => return Err(PeerError::Gone),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tls.socket.readable(limit).await?;
                }
                Err(error) => return Err(peer_error(&error)),
            }
        }
        tls.flush(limit).await?;
        Ok(tls)
    }

    /// The connection below.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Both sides agreed on HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.session.alpn_protocol() == Some(b"h2")
    }

    /// The client came back with a ticket.
    pub fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Receives plaintext that can be had without waiting. Zero is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, `InvalidData` when it is not TLS.
    pub fn try_recv(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer closed without a close_notify: the framing above knows whether
                // something is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                outcome => return outcome,
            }
            if self.pull()? == 0 {
                return Ok(0);
            }
            if self.session.wants_write() {
                // Answers to the peer's key updates. What the socket does not take now goes out
                // before the next plaintext.
                self.try_flush().or_else(unless_full)?;
            }
        }
    }

    /// Takes up to a batch of plaintext and sends what the socket takes of it now; the rest stays
    /// with us and goes first next time.
    ///
    /// # Errors
    /// `WouldBlock` when the batch before this one has not gone out.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_flush()?;
        let piece = &bytes[..bytes.len().min(SEND_BYTES)];
        let count = self.session.writer().write(piece)?;
        self.try_flush().or_else(unless_full)?;
        Ok(count)
    }

    /// Sends what is left of earlier batches.
    ///
    /// # Errors
    /// `WouldBlock` when the socket does not take all of it.
    pub fn try_flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Wire(self.socket.fd()))?;
        }
        Ok(())
    }

    /// Receives plaintext; waits if there is none. Zero is the end.
    pub async fn recv(&mut self, room: &mut [u8], limit: Duration) -> Result<usize, PeerError> {
        loop {
            match self.try_recv(room) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.readable(limit).await?;
                }
                Err(error) => return Err(peer_error(&error)),
            }
        }
    }

    /// Plaintext that can be had without waiting: rustls or we hold undelivered bytes.
    pub fn has_pending(&mut self) -> bool {
        if self.fed < self.pending.len() {
            return true;
        }
        match self.session.process_new_packets() {
            Ok(state) => state.plaintext_bytes_to_read() > 0,
            Err(_) => true,
        }
    }

    /// Feeds ciphertext to rustls. Zero is the end of the connection.
    fn pull(&mut self) -> io::Result<usize> {
        if self.fed == self.pending.len() {
            self.fed = 0;
            self.pending.resize(RECV_BYTES, 0);
            let outcome = calls::recv(self.socket.fd(), &mut self.pending);
            self.pending.truncate(*outcome.as_ref().unwrap_or(&0));
            if self.pending.is_empty() {
                // Idle connections hold no buffer.
                self.pending = Vec::new();
            }
            outcome?;
        }
        let mut rest = &self.pending[self.fed..];
        let fed = self.session.read_tls(&mut rest)?;
        self.fed = self.pending.len() - rest.len();
        if let Err(error) = self.session.process_new_packets() {
            // The alert tells the peer why; whether it arrives does not matter any more.
            let _ = self.try_flush();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(fed)
    }

    /// Sends all of `bytes`.
    pub async fn send(&mut self, bytes: &[u8], limit: Duration) -> Result<(), PeerError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.try_send(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable(limit).await?;
                }
                Err(_) => return Err(PeerError::Gone),
            }
        }
        self.flush(limit).await
    }

    async fn flush(&mut self, limit: Duration) -> Result<(), PeerError> {
        loop {
            match self.try_flush() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable(limit).await?;
                }
                Err(_) => return Err(PeerError::Gone),
            }
        }
    }

    /// Says goodbye properly.
    pub async fn end(&mut self, limit: Duration) {
        self.session.send_close_notify();
        let _ = self.flush(limit).await;
        self.socket.end();
    }
}

fn unless_full(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(()),
        _ => Err(error),
    }
}
