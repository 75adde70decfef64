//! Listening sockets: one per data-plane thread on the same port, shared by the kernel.
//!
//! Law: a port that somebody else serves is an error, never a share of it: SO_REUSEPORT alone
//! would let a second program take connections away in silence.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait for a thread to take them.
const BACKLOG: i32 = 4096;

/// Sockets for `threads` threads, and where they really listen.
///
/// # Errors
/// `AddrInUse` when anybody, also with SO_REUSEPORT, listens there; as bind(2) says otherwise.
pub fn bind(addr: SocketAddr, threads: usize) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    assert!(threads > 0);
    if addr.port() != 0 {
        // Without SO_REUSEPORT the kernel refuses a port that anybody listens on.
        drop(open(addr, false)?);
    }
    let first = open(addr, true)?;
    let actual = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(open(actual, true)?);
    }
    Ok((listeners, actual))
}

fn open(addr: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    if addr.is_ipv6() {
        // One address, one family: `[::]` must not take 0.0.0.0 as well.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_taken_port_is_refused_though_it_could_be_shared() {
        let (listeners, addr) = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(listeners.len(), 3);
        assert_ne!(addr.port(), 0);
        assert_eq!(bind(addr, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        assert!(bind(addr, 2).is_ok());
    }
}
