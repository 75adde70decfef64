//! Goal: ports are bound alone, shared only among our own threads, and refusals say who and why.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use super::*;

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

#[test]
fn every_thread_has_a_socket_on_the_one_port() {
    let (sockets, bound) = group(any_port(), 16, 3).unwrap();
    assert_ne!(bound.port(), 0);
    assert_eq!(sockets.len(), 3);
    for socket in &sockets {
        assert_eq!(socket.local_addr().unwrap(), bound);
    }
}

#[test]
fn a_taken_port_is_refused_even_if_it_would_be_shared() {
    for threads in [1, 2] {
        let (_held, bound) = group(any_port(), 16, threads).unwrap();
        for wanted in [1, 2] {
            let error = group(bound, 16, wanted).unwrap_err();
            let text = refused("client port", bound, error).text;
            let me = format!(
                "client port {bound} is taken by process {} (",
                std::process::id()
            );
            assert!(text.starts_with(&me), "{text}");
        }
    }
}

#[test]
fn refusals_have_a_cause() {
    let nowhere: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let error = open(nowhere, 16, false).unwrap_err();
    let text = refused("internal port", nowhere, error).text;
    assert_eq!(
        text,
        "internal port 192.0.2.1:1 is not an address of this machine"
    );
    let text = refused("client port", any_port(), Errno::ACCESS.into()).text;
    assert_eq!(
        text,
        "client port 127.0.0.1:0 needs root or CAP_NET_BIND_SERVICE"
    );
}
