//! One TCP connection: calls that never wait, and waits for readiness with a limit.
//!
//! Laws
//! - Bytes are moved by calls on this thread; only waits for readiness are ever dropped.
//! - Every wait has a limit: a peer that moves nothing for that long is cut.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use monoio::net::TcpStream;
use proxy_ring::socket;
use proxy_transfer::PeerError;
use rustix::net::RecvFlags;

use crate::rt;

/// One connection. Clones are handles of the same one; it closes with the last.
#[derive(Clone, Debug)]
pub struct Socket(Rc<TcpStream>);

impl Socket {
    /// Takes over an accepted connection.
    ///
    /// # Errors
    /// The socket is broken already.
    pub fn new(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(Rc::new(TcpStream::from_std(stream)?)))
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        socket::borrow(&*self.0)
    }

    /// Who is at the other end; for logs.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer_addr().ok()
    }

    /// Waits until there is something to receive, or the end.
    pub async fn readable(&self, limit: Duration) -> Result<(), PeerError> {
        match rt::within(limit, self.0.readable(false)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(PeerError::Gone),
            Err(rt::Elapsed) => Err(PeerError::Stalled),
        }
    }

    /// Waits until something can be sent.
    pub async fn writable(&self, limit: Duration) -> Result<(), PeerError> {
        match rt::within(limit, self.0.writable(false)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(PeerError::Gone),
            Err(rt::Elapsed) => Err(PeerError::Stalled),
        }
    }

    /// Waits until there is something to receive, for ever.
    pub async fn readable_ever(self) {
        // An error shows again at the call that was waited for.
        let _ = self.0.readable(false).await;
    }

    /// Waits until something can be sent, for ever.
    pub async fn writable_ever(self) {
        let _ = self.0.writable(false).await;
    }

    /// As [`Socket::readable`], but looks first: nothing is registered when bytes are there.
    pub async fn readable_now(&self, limit: Duration) -> Result<(), PeerError> {
        let mut byte = [0_u8; 1];
        match rustix::net::recv(self.fd(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => self.readable(limit).await,
            _ => Ok(()),
        }
    }

    /// Receives what is there; waits if nothing is. Zero is the end.
    pub async fn recv(&self, room: &mut [u8], limit: Duration) -> Result<usize, PeerError> {
        loop {
            match socket::recv(self.fd(), room) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable(limit).await?;
                }
                Err(_) => return Err(PeerError::Gone),
            }
        }
    }

    /// Sends all of `bytes`.
    pub async fn send(&self, bytes: &[u8], more: bool, limit: Duration) -> Result<(), PeerError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match socket::send(self.fd(), rest, more) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable(limit).await?;
                }
                Err(_) => return Err(PeerError::Gone),
            }
        }
        Ok(())
    }

    /// Ends our side of the connection; the peer sees the end after the last byte.
    pub fn end(&self) {
        // A peer that is gone already needs no end.
        let _ = rustix::net::shutdown(self.fd(), rustix::net::Shutdown::Write);
    }

    /// Makes the kernel reset the connection on close: the peer must not take what it got for
    /// whole.
    pub fn reset_on_close(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(self.fd(), Some(Duration::ZERO));
    }
}
