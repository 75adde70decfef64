//! TLS over a [`Socket`]: rustls does the cryptography, this file moves its bytes.
//!
//! Copy: ciphertext and plaintext pass through buffers of rustls; user-space TLS has no way
//! around that.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use proxy_transfer::PeerError;
use rustls::ServerConnection;

use crate::socket::Socket;

/// Ciphertext received at a time: two records of the largest size.
const RECV_BYTES: usize = 32 * 1024;
/// Plaintext handed to rustls at a time: four records.
const SEND_BYTES: usize = 64 * 1024;

/// One TLS connection.
#[derive(Debug)]
pub struct TlsStream {
    socket: Socket,
    session: ServerConnection,
    /// Ciphertext that rustls has not taken yet.
    pending: Vec<u8>,
    outgoing: Vec<u8>,
}

impl TlsStream {
    /// Runs the handshake; each wait has the limit.
    pub async fn accept(
        socket: Socket,
        config: Arc<rustls::ServerConfig>,
        limit: Duration,
    ) -> Result<Self, PeerError> {
        let session =
            ServerConnection::new(config).map_err(|_| PeerError::Malformed("no TLS session"))?;
        let mut tls = Self {
            socket,
            session,
            pending: Vec::new(),
            outgoing: Vec::new(),
        };
        while tls.session.is_handshaking() {
            tls.flush(limit).await?;
            if tls.session.is_handshaking() && tls.pull(limit).await? == 0 {
                return Err(PeerError::Gone);
            }
        }
        tls.flush(limit).await?;
        Ok(tls)
    }

    /// The connection below.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Receives plaintext; waits if there is none. Zero is the end.
    pub async fn recv(&mut self, room: &mut [u8], limit: Duration) -> Result<usize, PeerError> {
        loop {
            match self.session.reader().read(room) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer closed without a close_notify: the framing above knows whether
                // something is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(_) => return Err(PeerError::Gone),
            }
            if self.pull(limit).await? == 0 {
                return Ok(0);
            }
            self.flush(limit).await?;
        }
    }

    /// Plaintext that can be had without waiting: rustls or we hold undelivered bytes.
    pub fn has_pending(&mut self) -> bool {
        if !self.pending.is_empty() {
            return true;
        }
        match self.session.process_new_packets() {
            Ok(state) => state.plaintext_bytes_to_read() > 0,
            Err(_) => true,
        }
    }

    /// Feeds ciphertext to rustls. Zero is the end of the connection.
    async fn pull(&mut self, limit: Duration) -> Result<usize, PeerError> {
        if self.pending.is_empty() {
            self.socket.readable_now(limit).await?;
            let mut room = vec![0; RECV_BYTES];
            let count = self.socket.recv(&mut room, limit).await?;
            room.truncate(count);
            self.pending = room;
        }
        let mut rest = &self.pending[..];
        let fed = self
            .session
            .read_tls(&mut rest)
            .map_err(|_| PeerError::Gone)?;
        let left = rest.len();
        let done = self.pending.len() - left;
        self.pending.drain(..done);
        if self.pending.is_empty() {
            // Idle connections hold no buffer.
            self.pending = Vec::new();
        }
        if self.session.process_new_packets().is_err() {
            // The alert tells the peer why; whether it arrives does not matter any more.
            let _ = self.flush(limit).await;
            return Err(PeerError::Malformed("broken TLS record"));
        }
        Ok(fed)
    }

    /// Sends all of `bytes`.
    pub async fn send(&mut self, bytes: &[u8], limit: Duration) -> Result<(), PeerError> {
        for piece in bytes.chunks(SEND_BYTES) {
            self.session
                .writer()
                .write_all(piece)
                .map_err(|_| PeerError::Gone)?;
            self.flush(limit).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, limit: Duration) -> Result<(), PeerError> {
        self.outgoing.clear();
        while self.session.wants_write() {
            self.session
                .write_tls(&mut self.outgoing)
                .map_err(|_| PeerError::Gone)?;
        }
        let outcome = self.socket.send(&self.outgoing, false, limit).await;
        if self.outgoing.capacity() > RECV_BYTES {
            self.outgoing = Vec::new();
        }
        outcome
    }

    /// Says goodbye properly.
    pub async fn end(&mut self, limit: Duration) {
        self.session.send_close_notify();
        let _ = self.flush(limit).await;
        self.socket.end();
    }
}
