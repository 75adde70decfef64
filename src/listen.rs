//! Binding the three ports, and saying who has one that is taken.
//!
//! Laws
//! - A port that anybody listens on is refused, also when that socket would let itself be shared:
//!   two servers that split connections between them lose uploads.
//! - The client port has one socket per data-plane thread; the kernel spreads connections.
//! - Everything is bound before anything is announced.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use crate::failure::{Failure, plain};
use crate::settings::{Addresses, Settings};

mod owner;

/// Bound, listening sockets.
#[derive(Debug)]
pub struct Listeners {
    /// One per data-plane thread, all on one address, in blocking mode (as io_uring wants them).
    pub client: Vec<TcpListener>,
    /// In non-blocking mode.
    pub manager: TcpListener,
    /// In non-blocking mode.
    pub internal: TcpListener,
    /// Where they really are: port 0 has become a number.
    pub bound: Addresses,
}

/// Binds everything.
///
/// # Errors
/// Names the port, and the process that has it where the system tells.
pub fn bind_all(settings: &Settings) -> Result<Listeners, Failure> {
    let Addresses {
        client,
        manager,
        internal,
    } = settings.addresses;
    let backlog = settings.backlog;
    let one = |what: &str, at: SocketAddr| {
        let socket = open(at, backlog, false).map_err(|error| refused(what, at, error))?;
        let ready = socket
            .set_nonblocking(true)
            .and_then(|()| socket.local_addr());
        ready
            .map(|bound| (socket, bound))
            .map_err(|error| refused(what, at, error))
    };
    let (sockets, client) = group(client, backlog, settings.threads.data)
        .map_err(|error| refused("client port", client, error))?;
    let (manager, manager_at) = one("manager port", manager)?;
    let (internal, internal_at) = one("internal port", internal)?;
    let bound = Addresses {
        client,
        manager: manager_at,
        internal: internal_at,
    };
    Ok(Listeners {
        client: sockets,
        manager,
        internal,
        bound,
    })
}

/// Several sockets on one address that nobody else listens on.
///
/// The first is bound alone, so a taken port is an error, and only then lets others join.
fn group(at: SocketAddr, backlog: i32, count: usize) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    assert!(0 < count, "a port without a thread to serve it");
    let first = open(at, backlog, false)?;
    let bound = first.local_addr()?;
    if count == 1 {
        return Ok((vec![first], bound));
    }
    // A socket that was bound alone cannot be joined: the kernel remembers how it was bound. What
    // it proved, that the port is free, stays true but for a moment.
    drop(first);
    let sockets = (0..count)
        .map(|_| open(bound, backlog, true))
        .collect::<io::Result<_>>()?;
    Ok((sockets, bound))
}

fn open(at: SocketAddr, backlog: i32, shared: bool) -> io::Result<TcpListener> {
    let family = if at.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connections of a server that has just ended do not keep its successor from starting.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if at.is_ipv6() {
        // The empty host means every interface, of both families.
        sockopt::set_ipv6_v6only(&socket, !at.ip().is_unspecified())?;
    }
    bind(&socket, &at)?;
    listen(&socket, backlog)?;
    Ok(TcpListener::from(socket))
}

fn refused(what: &str, at: SocketAddr, error: io::Error) -> Failure {
    let text = match Errno::from_io_error(&error) {
        Some(Errno::ADDRINUSE) => match owner::of_port(at.port()) {
            Some(owner) => format!("is taken by process {owner}"),
            None => "is taken by another program".into(),
        },
        Some(Errno::ACCESS) => "needs root or CAP_NET_BIND_SERVICE".into(),
        Some(Errno::ADDRNOTAVAIL) => "is not an address of this machine".into(),
        _ => plain(&error),
    };
    Failure::new(format!("{what} {at} {text}"))
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
