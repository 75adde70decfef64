//! HTTP/2 connections: the `h2` crate frames, this module serves.
//!
//! Handlers do not know the protocol: a request becomes the same [`RequestHead`], its body a
//! [`Source`](proxy_transfer::Source), its answer goes into a [`Sink`](proxy_transfer::Sink).
//! Each stream is a task of its own on the thread of its connection.
//!
//! Laws
//! - A stream that fails ends alone: reset, never padded; the connection goes on.
//! - Requests at work per connection are bounded, those of streams that the client has reset
//!   included; bytes on their way to the client are bounded per connection as well.
//! - Nothing is sent without the window for it.
//! - A client that moves nothing for its limit is cut: stream by stream, or as a whole when its
//!   socket is full.
//!
//! Source: RFC 9113; `docs/semantics.md#http2`.

mod body;
mod driver;
mod respond;
mod sink;
mod wire;

pub(crate) use body::Incoming;
pub(crate) use driver::serve;
pub(crate) use sink::Outgoing;

/// How the preface of a client that knows us begins, up to where it can be nothing else.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Whether `bytes`, the first of a connection, are the begin of an HTTP/2 preface. `None` when
/// more must come to tell.
pub(crate) fn is_preface(bytes: &[u8]) -> Option<bool> {
    if bytes.len() < PREFACE.len() {
        return if PREFACE.starts_with(bytes) {
            None
        } else {
            Some(false)
        };
    }
    Some(bytes.starts_with(PREFACE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_told_from_requests() {
        let table: &[(&[u8], Option<bool>)] = &[
            (b"", None),
            (b"P", None),
            (b"PRI * HTTP/2.0\r", None),
            (b"PRI * HTTP/2.0\r\n", Some(true)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(true)),
            (b"PUT / HTTP/1.1\r\n", Some(false)),
            (b"PRI * HTTP/1.1\r\nHost: t\r\n", Some(false)),
            (b"GET / HTTP/1.1\r\n", Some(false)),
        ];
        for (bytes, want) in table {
            assert_eq!(is_preface(bytes), *want, "{bytes:?}");
        }
    }
}
